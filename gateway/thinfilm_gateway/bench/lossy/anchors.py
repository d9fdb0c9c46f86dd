"""The lossy standards as entrants: each component of each frame by itself, all at one setting."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import imagecodecs
import numpy as np
from jpeg_ls import CharLS

from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray
from thinfilm_codecs.errors import UnsupportedPixels
from thinfilm_codecs.quality.anchors import Anchor, Jpeg, Jpeg2000
from thinfilm_gateway.bench.entrant import Coded, Entrant

_MOST_BITS = 16


class JpegOfHighBits(Jpeg):
    """JPEG of 8 bits, of which wider samples have the high ones kept, as viewers do that know no other JPEG."""

    def __init__(self, bits: int) -> None:
        super().__init__(8)
        self._shift = max(0, bits - 8)

    def encode(self, image: SampleArray, setting: float) -> bytes:
        """Code (rows, columns) of uint8 or uint16."""
        return super().encode((image >> self._shift).astype(np.uint8), setting)

    def decode(self, stream: bytes) -> SampleArray:
        """Return the image, uint16; the bits that were not kept are those of the middle of what they may be."""
        image = super().decode(stream).astype(np.uint16)
        return (image << self._shift) + ((1 << self._shift) >> 1)


class JpegLsNear(Anchor):
    """JPEG-LS (ISO/IEC 14495-1) through CharLS, near-lossless. The setting is the largest error."""

    name = "JPEG-LS near-lossless"
    ladder: ClassVar[tuple[float, ...]] = tuple(range(1, 256))

    def __init__(self, bits: int) -> None:
        self._bits = max(2, bits)

    def encode(self, image: SampleArray, setting: float) -> bytes:
        """Code (rows, columns) of uint8 or uint16. The standard has no error above half of the range."""
        rows, columns = image.shape
        little = image.astype(image.dtype.newbyteorder("<")).tobytes()
        error = min(int(setting), (1 << self._bits) // 2 - 1)
        return bytes(CharLS.encode_buffer(little, rows, columns, 1, self._bits, error))

    def decode(self, stream: bytes) -> SampleArray:
        """Return the image."""
        image: SampleArray = imagecodecs.jpegls_decode(stream)
        return image


class JpegXlLossy(Anchor):
    """JPEG XL (ISO/IEC 18181-1) through libjxl, VarDCT of effort 7. The setting is the distance to the eye."""

    name = "JPEG XL"
    ladder: ClassVar[tuple[float, ...]] = tuple(round(0.01 * 1.08**step, 4) for step in range(102))

    def __init__(self, bits: int) -> None:
        self._bits = bits

    def encode(self, image: SampleArray, setting: float) -> bytes:
        """Code (rows, columns) of uint8 or uint16."""
        return bytes(
            imagecodecs.jpegxl_encode(
                image,
                lossless=False,
                distance=setting,
                effort=7,
                bitspersample=max(8, self._bits),
                usecontainer=False,
                numthreads=1,
            )
        )

    def decode(self, stream: bytes) -> SampleArray:
        """Return the image."""
        image: SampleArray = imagecodecs.jpegxl_decode(stream, numthreads=1)
        return image


@dataclass(frozen=True)
class Standard:
    """A standard that can be measured: most_bits: the widest range of samples that it takes."""

    make: Callable[[int], Anchor]
    ladder: tuple[float, ...]
    most_bits: int = _MOST_BITS


STANDARDS = {
    "jpeg": Standard(JpegOfHighBits, JpegOfHighBits.ladder),
    "jpeg12": Standard(lambda bits: Jpeg(12), Jpeg.ladder, 12),
    "jpeg2000": Standard(Jpeg2000, Jpeg2000.ladder),
    "jpegls-near": Standard(JpegLsNear, JpegLsNear.ladder),
    "jpegxl": Standard(JpegXlLossy, JpegXlLossy.ladder),
}


class PlaneByPlane(Entrant):
    """A standard at a setting. Samples are made unsigned, of as few bits as the range of the stack needs."""

    def __init__(self, standard: Standard, setting: float) -> None:
        self._standard = standard
        self._setting = setting

    def encode(self, stack: PixelBlock) -> Coded:
        """Code each component of each frame. Raises UnsupportedPixels."""
        minimum = int(stack.samples.min())
        bits = max(1, (int(stack.samples.max()) - minimum).bit_length())
        if bits > self._standard.most_bits:
            raise UnsupportedPixels(f"It takes samples of up to {self._standard.most_bits} bits; these have {bits}.")
        anchor = self._standard.make(bits)
        dtype = np.uint8 if bits <= 8 and self._standard.most_bits != 12 else np.uint16
        planes = ((plane.astype(np.int64) - minimum).astype(dtype) for plane in _planes(stack.samples))
        streams = [anchor.encode(plane, self._setting) for plane in planes]
        return Coded((minimum, anchor, streams), sum(map(len, streams)))

    def decode(self, coded: Coded, layout: BlockLayout) -> SampleArray:
        """Decode all planes; what lies beyond the sample type is brought back to it."""
        minimum, anchor, streams = coded.payload
        samples = np.empty(layout.shape, layout.dtype)
        bounds = np.iinfo(layout.dtype)
        for plane, stream in zip(_planes(samples), streams, strict=True):
            plane[...] = np.clip(anchor.decode(stream).astype(np.int64) + minimum, bounds.min, bounds.max)
        return samples


def _planes(samples: SampleArray) -> list[SampleArray]:
    """Return (rows, columns) of each component of each frame, as views."""
    if samples.ndim == 3:
        return list(samples)
    return [frame[..., component] for frame in samples for component in range(samples.shape[3])]
