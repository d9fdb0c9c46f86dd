"""No compression: what is left when every codec has failed. Format: docs/formats/classical.md."""

import numpy as np

from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray
from thinfilm_codecs.codec import Codec
from thinfilm_codecs.errors import CorruptStream
from thinfilm_codecs.lossless.grouping import frames_in
from thinfilm_codecs.lossless.sealed import seal, unseal


class Raw(Codec):
    """The little-endian samples themselves."""

    codec_id = "raw"

    def supports(self, layout: BlockLayout) -> bool:
        """Every layout is supported."""
        del layout
        return True

    def frames_per_group(self, layout: BlockLayout) -> int:
        """Return as many frames as make about 256 KiB."""
        return frames_in(layout)

    def encode(self, group: PixelBlock, parameters: bytes) -> bytes:
        """Keep any group."""
        del parameters
        return seal(group.samples.astype(np.dtype(group.layout.dtype).newbyteorder("<"), copy=False).tobytes())

    def decode(self, stream: bytes, layout: BlockLayout, parameters: bytes) -> SampleArray:
        """Return the samples of the group. Raises CorruptStream for bytes that are no such stream."""
        del parameters
        raw = unseal(stream)
        if len(raw) != layout.nbytes:
            raise CorruptStream(f"The raw stream has {len(raw)} bytes; the block has {layout.nbytes}.")
        little = np.frombuffer(raw, np.dtype(layout.dtype).newbyteorder("<"))
        return little.astype(layout.dtype).reshape(layout.shape)
