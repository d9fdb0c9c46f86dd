"""The siren lossy codec: sine networks that map a place in a slice to the samples of all its volumes."""

from thinfilm_codecs.lossy.siren.codec import Siren

__all__ = ["Siren"]
