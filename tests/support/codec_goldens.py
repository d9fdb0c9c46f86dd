"""Old streams that every later version must decode. `python tests/support/codec_goldens.py` adds those of new codecs.

The samples come from whole-number arithmetic, so that they are the same everywhere and for ever.
"""

import hashlib
from pathlib import Path

import numpy as np

from thinfilm_codecs import registry
from thinfilm_codecs.blocks import PixelBlock
from thinfilm_codecs.codec import Codec
from thinfilm_codecs.errors import UnsupportedPixels

FOLDER = Path(__file__).parent.parent / "codecs" / "golden"

LOSSY_SETTINGS = {
    "binary_autoencoder": (32,),
    "kwavelet": (180,),
    "near_lossless": (3, 4, 9),
    "pca": (2, 12),
    "siren": (3,),
    "sparse_autoencoder": (16,),
    "vae": (30, 40),
}
"""The settings of which golden streams of a lossy codec are kept."""


def _waves(shape: tuple[int, ...], modulus: int) -> np.ndarray:
    index = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    row, column = index // shape[2], index % shape[2]
    return (row * row * 3 // 16 + column * 5 + (row * column) // 8 + (index * 2654435761 % 2**32 >> 29)) % modulus


def blocks() -> dict[str, PixelBlock]:
    """Return the blocks that are kept as golden streams, by name."""
    return {
        "ct": PixelBlock((_waves((2, 24, 20), 3000) - 1024).astype(np.int16), 12),
        "full-range": PixelBlock((_waves((1, 32, 32), 9973) * 6571 % 65536).astype(np.uint16), 16),
        "eight-bit": PixelBlock(_waves((3, 15, 17), 251).astype(np.uint8), 8),
        "colour": PixelBlock(_waves((2, 12, 33), 256).reshape(2, 12, 11, 3).astype(np.uint8), 8),
        "shifted": PixelBlock((_waves((1, 20, 21), 1000) * 16).astype(np.uint16), 16),
        "constant": PixelBlock(np.full((4, 9, 7), -2000, np.int16), 16),
        "wide": PixelBlock((_waves((1, 10, 11), 4000) * 1000003 - 2**31).astype(np.int32), 32),
        "binary": PixelBlock((_waves((2, 16, 31), 97) > 48).astype(np.uint8), 1),
    }


def path(codec_id: str, name: str) -> Path:
    """Return where the stream of a block in a codec lies."""
    return FOLDER / codec_id / f"{name}.bin"


def lossy_path(codec_id: str, name: str, setting: float) -> Path:
    """Return where the stream of a block in a lossy codec lies."""
    return FOLDER / codec_id / f"{name}-{setting:g}.bin"


def beside(stream: Path) -> bytes:
    """Return the parameters that are kept with a stream."""
    parameters = stream.with_suffix(".parameters")
    return parameters.read_bytes() if parameters.exists() else b""


def hashed(samples: np.ndarray) -> str:
    """Return the SHA-256 of samples as it is kept with a lossy stream: C order, little-endian, of the block's type."""
    return hashlib.sha256(samples.astype(samples.dtype.newbyteorder("<")).tobytes()).hexdigest()


def supported(codec_id: str) -> list[str]:
    """Return the names of the blocks that a lossy codec supports."""
    codec = registry.lossy(codec_id)
    return sorted(name for name, block in blocks().items() if codec.supports(block.layout))


def decoded_as_kept(codec_id: str, name: str, setting: float) -> np.ndarray:
    """Return the samples of a lossy golden stream, having asserted that they are those it was kept for."""
    target = lossy_path(codec_id, name, setting)
    decoded = registry.lossy(codec_id).decode(target.read_bytes(), blocks()[name].layout, beside(target))
    assert hashed(decoded) == target.with_suffix(".sha256").read_text().strip()
    return decoded


def write_missing() -> None:
    """Write the streams that are not there yet; never touch one that is."""
    for codec_id in registry.names():
        for name, block in blocks().items():
            _write(registry.get(codec_id), block, path(codec_id, name))
    for codec_id, settings in LOSSY_SETTINGS.items():
        for setting in settings:
            for name, block in blocks().items():
                target = lossy_path(codec_id, name, setting)
                codec = registry.lossy(codec_id).at(setting)
                if _write(codec, block, target):
                    samples = codec.decode(target.read_bytes(), block.layout, beside(target))
                    target.with_suffix(".sha256").write_text(hashed(samples) + "\n")


def _write(codec: Codec, block: PixelBlock, target: Path) -> bool:
    """Write a block's stream, and its parameters if it has any, unless it is there or the codec declines the block."""
    if target.exists() or not codec.supports(block.layout):
        return False
    try:
        parameters = codec.prepare(block)
        stream = codec.encode(block, parameters)
    except UnsupportedPixels:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(stream)
    if parameters:
        target.with_suffix(".parameters").write_bytes(parameters)
    return True


if __name__ == "__main__":
    write_missing()
