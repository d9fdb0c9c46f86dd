"""The files of trained models: named by what is in them, so that a stream can say which one it needs."""

import hashlib
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.errors import MissingModel

Arrays = dict[str, npt.NDArray[Any]]

SHIPPED = {
    "thinfilm_codecs.lossless.nagoor": ("2c114257d1dafa6195df3eae1cd88f43", "d6f2b505c02814e7d7a812af25698e33"),
    "thinfilm_codecs.lossless.neural": ("4fce77a71bbb3ca7bdc3bf08153ae317", "68ae648ae161628c200c3a30f84cd5ee"),
    "thinfilm_codecs.lossy.binary_autoencoder": ("b2fb8f98d4ca7a373121ebcc743f3813",),
    "thinfilm_codecs.lossy.sparse_autoencoder": ("7f9a3f3168a73e4d5e70d35616c33142",),
    "thinfilm_codecs.lossy.vae": ("3a17253c5e3db4123dc0631ae5f6a783", "eb42047b8163c734fea4879a4b221c86"),
}
"""The models that every installation must have, by package: streams name them for ever."""


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

    Raises MissingModel if there is none of this identity, or its file is damaged.
    """
    codec_id, name = package.rpartition(".")[2], identity.hex()
    file = resources.files(package).joinpath("models", f"{name}.npz")
    if not file.is_file():
        raise MissingModel(
            f"The {codec_id} codec needs its model {name}, which is not installed; install Thinfilm again, "
            "at least the version that wrote what needs it."
        )
    damaged = MissingModel(
        f"The file of the {codec_id} codec's model {name} is damaged, {file}; install Thinfilm again."
    )
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
    except Exception as error:  # numpy and zipfile raise of all kinds
        raise damaged from error
    if identity_of(arrays) != identity:
        raise damaged
    return arrays


@lru_cache(maxsize=1)
def lacking() -> tuple[str, ...]:
    """Return a sentence for each shipped model that is not installed, or damaged. Looked at once a process."""
    found = []
    for package, identities in SHIPPED.items():
        for identity in identities:
            try:
                read(package, bytes.fromhex(identity))
            except MissingModel as error:
                found.append(str(error))
    return tuple(found)
