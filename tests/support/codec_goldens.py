"""Old streams that every later version must decode. `python tests/support/codec_goldens.py` adds those of new codecs.

The samples come from whole-number arithmetic, so that they are the same everywhere and for ever.
"""

from pathlib import Path

import numpy as np

from thinfilm_codecs import registry
from thinfilm_codecs.blocks import PixelBlock
from thinfilm_codecs.errors import UnsupportedPixels

FOLDER = Path(__file__).parent.parent / "codecs" / "golden"


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


def write_missing() -> None:
    """Write the streams that are not there yet; never touch one that is."""
    for codec_id in registry.names():
        codec = registry.get(codec_id)
        for name, block in blocks().items():
            target = path(codec_id, name)
            if target.exists() or not codec.supports(block.layout):
                continue
            try:
                parameters = codec.prepare(block)
                stream = codec.encode(block, parameters)
            except UnsupportedPixels:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(stream)
            if parameters:
                target.with_suffix(".parameters").write_bytes(parameters)


if __name__ == "__main__":
    write_missing()
