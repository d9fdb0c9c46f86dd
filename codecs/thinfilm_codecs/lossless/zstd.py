"""Zstandard (RFC 8878) over byte planes: for samples that no image codec takes, and the last step before raw.

Format: docs/formats/classical.md.
"""

import numpy as np
import zstandard

from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray
from thinfilm_codecs.codec import Codec
from thinfilm_codecs.errors import CorruptStream
from thinfilm_codecs.lossless.grouping import frames_in
from thinfilm_codecs.lossless.sealed import seal, unseal

_LEVEL = 9


class Zstd(Codec):
    """Zstandard. All first bytes of the little-endian samples, then all second bytes, and so on."""

    codec_id = "zstd"

    def supports(self, layout: BlockLayout) -> bool:
        """Every layout is supported."""
        del layout
        return True

    def frames_per_group(self, layout: BlockLayout) -> int:
        """Return as many frames as make about 256 KiB."""
        return frames_in(layout)

    def encode(self, group: PixelBlock, parameters: bytes) -> bytes:
        """Code any group."""
        del parameters
        dtype = np.dtype(group.layout.dtype).newbyteorder("<")
        little = np.ascontiguousarray(group.samples, dtype)
        planes = np.ascontiguousarray(little.reshape(-1).view(np.uint8).reshape(-1, dtype.itemsize).T)
        return seal(zstandard.ZstdCompressor(level=_LEVEL).compress(planes.data))

    def decode(self, stream: bytes, layout: BlockLayout, parameters: bytes) -> SampleArray:
        """Return the samples of the group. Raises CorruptStream for bytes that are no such stream."""
        del parameters
        frame = unseal(stream)
        try:
            declared = zstandard.frame_content_size(frame)
            if declared != layout.nbytes:
                raise CorruptStream(f"The zstd stream declares {declared} bytes; the block has {layout.nbytes}.")
            raw = zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise CorruptStream(f"The zstd stream is damaged: {error}") from error
        dtype = np.dtype(layout.dtype).newbyteorder("<")
        samples = np.ascontiguousarray(np.frombuffer(raw, np.uint8).reshape(dtype.itemsize, -1).T)
        return samples.view(dtype).reshape(layout.shape).astype(layout.dtype, copy=False)
