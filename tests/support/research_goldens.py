"""Old streams of the research codecs, and what they decode to. Running this file adds those that are missing.

The blocks are those of codec_goldens; beside each stream lies the SHA-256 of the samples that it stands for.
"""

import hashlib
from pathlib import Path

from support import codec_goldens
from thinfilm_codecs import registry
from thinfilm_codecs.blocks import PixelBlock
from thinfilm_codecs.codec import Codec

SETTINGS = {"binary_autoencoder": 32, "kwavelet": 180, "sparse_autoencoder": 16}
"""The research codecs, and how gently their streams are made."""


def names(codec_id: str) -> list[str]:
    """Return the names of the blocks that a codec supports."""
    codec = registry.decoder(codec_id)
    return sorted(name for name, block in codec_goldens.blocks().items() if codec.supports(block.layout))


def decoded_digest(codec: Codec, stream: bytes, block: PixelBlock, parameters: bytes) -> str:
    """Return the SHA-256 of what a stream decodes to: samples in C order, little-endian."""
    samples = codec.decode(stream, block.layout, parameters)
    return hashlib.sha256(samples.astype(samples.dtype.newbyteorder("<")).tobytes()).hexdigest()


def digest_path(codec_id: str, name: str) -> Path:
    """Return where the digest of the samples of a golden stream lies."""
    return codec_goldens.path(codec_id, name).with_suffix(".sha256")


def check(codec_id: str, name: str) -> None:
    """Assert that a golden stream decodes to the samples that it was kept for."""
    path = codec_goldens.path(codec_id, name)
    beside = path.with_suffix(".parameters")
    parameters = beside.read_bytes() if beside.exists() else b""
    found = decoded_digest(registry.decoder(codec_id), path.read_bytes(), codec_goldens.blocks()[name], parameters)
    assert found == digest_path(codec_id, name).read_text().strip()


def write_missing() -> None:
    """Write the streams that are not there yet; never touch one that is."""
    for codec_id, setting in SETTINGS.items():
        codec = registry.lossy(codec_id).at(setting)
        for name in names(codec_id):
            block, target = codec_goldens.blocks()[name], codec_goldens.path(codec_id, name)
            if target.exists():
                continue
            parameters = codec.prepare(block)
            stream = codec.encode(block, parameters)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(stream)
            if parameters:
                target.with_suffix(".parameters").write_bytes(parameters)
            digest_path(codec_id, name).write_text(decoded_digest(codec, stream, block, parameters) + "\n")


if __name__ == "__main__":
    write_missing()
