"""The sparse_autoencoder lossy codec: a few filters of a convolutional network in place of samples."""

from thinfilm_codecs.lossy.sparse_autoencoder.codec import SparseAutoencoder

__all__ = ["SparseAutoencoder"]
