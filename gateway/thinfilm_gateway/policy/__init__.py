"""Which codecs may code what."""
