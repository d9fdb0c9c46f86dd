"""The kwavelet lossy codec: the largest wavelet coefficients of each frame, without generational loss."""

from thinfilm_codecs.lossy.kwavelet.codec import KWavelet

__all__ = ["KWavelet"]
