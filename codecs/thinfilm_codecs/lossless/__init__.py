"""Codecs that give every sample back, one module a codec."""
