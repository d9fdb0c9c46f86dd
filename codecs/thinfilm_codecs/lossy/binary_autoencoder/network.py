"""The network: residual blocks of 32, 64 and 128 features down to a code of yes and no, and their mirror image.

Format: docs/formats/autoencoders.md, "binary_autoencoder". Source: Gong, Lin, Pauly: Efficient MR Image Compression
using Deep Learning Models for Multi-contrast MRI, ISMRM 2019.
"""

from functools import lru_cache
from typing import Any

import numpy.typing as npt

from thinfilm_codecs.lossless import model_files
from thinfilm_codecs.lossy.autoencoders.layers import ONE_BITS, Convolution, Network, Shape, network_of
from thinfilm_codecs.lossy.exact import Floats, exponential_linear

CURRENT = "b2fb8f98d4ca7a373121ebcc743f3813"
"""Identity of the model that encoders use; older ones stay in `models`, since streams name them."""

PLANES = 32
FEATURES = (32, 64, 128)

ENCODER = (
    Shape("encoder_1", 1, 32, 4, 2),
    Shape("encoder_1_residual", 32, 32, 3),
    Shape("encoder_2", 32, 64, 4, 2),
    Shape("encoder_2_residual", 64, 64, 3),
    Shape("encoder_3", 64, 128, 4, 2),
    Shape("encoder_3_residual", 128, 128, 3),
    Shape("encoder_4", 128, PLANES, 3),
)
DECODER = (
    Shape("decoder_1", PLANES, 128, 3),
    Shape("decoder_1_residual", 128, 128, 3),
    Shape("decoder_2", 128, 64, 4, 2, transposed=True),
    Shape("decoder_2_residual", 64, 64, 3),
    Shape("decoder_3", 64, 32, 4, 2, transposed=True),
    Shape("decoder_3_residual", 32, 32, 3),
    Shape("decoder_4", 32, 1, 4, 2, transposed=True),
)
"""The layers. Each but the last is followed by ELU; a residual one is added to what it was given before that."""


def _run(layers: tuple[Convolution, ...], x: Floats) -> Floats:
    for layer, residual in zip(layers[:-1:2], layers[1::2], strict=True):
        x = exponential_linear(layer(x), ONE_BITS)
        x = exponential_linear(x + residual(x), ONE_BITS)
    return layers[-1](x)


def from_arrays(arrays: dict[str, npt.NDArray[Any]]) -> Network:
    """Return the network of these arrays. Raises ValueError if they make none, or none that is exact."""
    return network_of(ENCODER, DECODER, _run, arrays)


@lru_cache(maxsize=2)
def named(identity: bytes) -> Network:
    """Return the shipped model of this identity. Raises MissingModel."""
    assert __package__ is not None
    return from_arrays(model_files.read(__package__, identity))
