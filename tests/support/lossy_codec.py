"""A lossy codec that is quick, whose errors and sizes follow from its setting alone."""

import struct
import zlib
from typing import ClassVar, Self

import numpy as np

from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray
from thinfilm_codecs.errors import CorruptStream
from thinfilm_codecs.lossy.codec import LossyCodec

_HEADER = struct.Struct("<qqq")


class Quantised(LossyCodec):
    """Samples on a grid of `step`, under zlib; with `blur`, the first sample of every frame is far off besides."""

    codec_id: ClassVar[str] = "near_lossless"  # whose place it takes in a test's registry
    setting_name: ClassVar[str] = "step"
    ladder: ClassVar[tuple[float, ...]] = (4, 12, 16, 24, 32, 48, 64)

    def __init__(self, step: int = 4, blur: int = 0) -> None:
        self._step = step
        self._blur = blur

    @property
    def setting(self) -> float:
        return self._step

    def at(self, setting: float) -> Self:
        return type(self)(int(setting), self._blur)

    def supports(self, layout: BlockLayout) -> bool:
        return layout.components == 1

    def frames_per_group(self, layout: BlockLayout) -> int:
        return 3

    def encode(self, group: PixelBlock, parameters: bytes) -> bytes:
        samples = group.samples.astype(np.int64)
        indices = (samples - samples.min() + self._step // 2) // self._step
        header = _HEADER.pack(samples.min(), self._step, self._blur)
        return header + zlib.compress(indices.astype("<u2").tobytes(), 9)

    def decode(self, stream: bytes, layout: BlockLayout, parameters: bytes) -> SampleArray:
        try:
            least, step, blur = _HEADER.unpack_from(stream)
            indices = np.frombuffer(zlib.decompress(stream[_HEADER.size :]), "<u2")
        except (struct.error, zlib.error) as error:
            raise CorruptStream(str(error)) from error
        samples = least + step * indices.astype(np.int64).reshape(layout.shape)
        samples[:, 0, 0] += blur
        return samples.astype(layout.dtype)
