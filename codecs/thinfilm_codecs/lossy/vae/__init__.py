"""The vae codec: a variational autoencoder with side information and residual blocks."""

from thinfilm_codecs.lossy.vae.codec import Vae

__all__ = ["Vae"]
