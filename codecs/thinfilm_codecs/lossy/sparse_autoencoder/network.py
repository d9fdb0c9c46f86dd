"""The network: three strided convolutions to 16 filters at an eighth of the size, and their mirror image.

Format: docs/formats/autoencoders.md, "sparse_autoencoder".
"""

from functools import lru_cache
from typing import Any

import numpy.typing as npt

from thinfilm_codecs.lossless import model_files
from thinfilm_codecs.lossy.autoencoders.layers import Convolution, Network, Shape, network_of
from thinfilm_codecs.lossy.exact import Floats, rectify

CURRENT = "7f9a3f3168a73e4d5e70d35616c33142"
"""Identity of the model that encoders use; older ones stay in `models`, since streams name them."""

FILTERS = 16

ENCODER = (
    Shape("encoder_1", 1, 16, 4, 2),
    Shape("encoder_2", 16, 32, 4, 2),
    Shape("encoder_3", 32, 48, 4, 2),
    Shape("encoder_4", 48, FILTERS, 3),
)
DECODER = (
    Shape("decoder_1", FILTERS, 48, 3),
    Shape("decoder_2", 48, 32, 4, 2, transposed=True),
    Shape("decoder_3", 32, 16, 4, 2, transposed=True),
    Shape("decoder_4", 16, 1, 4, 2, transposed=True),
)
"""The layers; rectifiers lie between them."""


def _run(layers: tuple[Convolution, ...], x: Floats) -> Floats:
    for layer in layers[:-1]:
        x = rectify(layer(x))
    return layers[-1](x)


def from_arrays(arrays: dict[str, npt.NDArray[Any]]) -> Network:
    """Return the network of these arrays. Raises ValueError if they make none, or none that is exact."""
    return network_of(ENCODER, DECODER, _run, arrays)


@lru_cache(maxsize=2)
def named(identity: bytes) -> Network:
    """Return the shipped model of this identity. Raises MissingModel."""
    assert __package__ is not None
    return from_arrays(model_files.read(__package__, identity))
