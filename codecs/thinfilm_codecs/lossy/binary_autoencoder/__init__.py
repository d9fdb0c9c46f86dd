"""The binary_autoencoder lossy codec: planes of yes and no from a residual network in place of samples."""

from thinfilm_codecs.lossy.binary_autoencoder.codec import BinaryAutoencoder

__all__ = ["BinaryAutoencoder"]
