"""The neural lossless codec."""

from thinfilm_codecs.lossless.neural.codec import Neural, Preset

__all__ = ["Neural", "Preset"]
