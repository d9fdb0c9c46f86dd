"""The neural lossless codec."""

from thinfilm_codecs.lossless.neural.codec import Neural
from thinfilm_codecs.lossless.neural.presets import Preset

__all__ = ["Neural", "Preset"]
