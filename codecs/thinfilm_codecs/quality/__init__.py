"""How far decoded samples lie from the originals, and whether that is near enough."""
