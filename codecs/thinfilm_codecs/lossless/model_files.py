"""The files of trained models: named by what is in them, so that a stream can say which one it needs."""

import hashlib
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]


def identity_of(arrays: Arrays) -> bytes:
    """Return the first 16 bytes of the SHA-256 of the arrays: names, types, shapes and little-endian values."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.digest()[:16]


def read(package: str, identity: bytes) -> Arrays:
    """Return the arrays of a model in the folder `models` of a package.

    Raises KeyError if there is none of this identity, ValueError if its file is damaged.
    """
    file = resources.files(package).joinpath("models", f"{identity.hex()}.npz")
    if not file.is_file():
        raise KeyError(f"No model of the {package.rpartition('.')[2]} codec is called {identity.hex()}.")
    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as found:
        arrays = {name: found[name] for name in found.files}
    if identity_of(arrays) != identity:
        raise ValueError(f"The model file {identity.hex()}.npz is damaged.")
    return arrays
