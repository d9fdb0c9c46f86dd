"""JPEG XL lossless (ISO/IEC 18181), through libjxl: the smallest and slowest of the classical ladder."""

import imagecodecs

from thinfilm_codecs.blocks import SampleArray
from thinfilm_codecs.errors import CorruptStream, UnsupportedPixels
from thinfilm_codecs.lossless.tall_image import TallImageCodec, library_obstacle

_EFFORT = 7


class JpegXl(TallImageCodec):
    """JPEG XL, modular and reversible, as a bare code stream; colour as RGB."""

    codec_id = "jpegxl"
    max_rows = 1 << 18
    max_columns = 1 << 18

    def obstacle(self) -> str | None:
        """Tell of an imagecodecs that was built without it."""
        return library_obstacle(self.codec_id, imagecodecs.JPEGXL)

    def _encode_image(self, image: SampleArray, bits: int) -> bytes:
        try:
            stream = imagecodecs.jpegxl_encode(
                image, lossless=True, effort=_EFFORT, bitspersample=bits, usecontainer=False, numthreads=1
            )
        except (RuntimeError, ValueError) as error:
            raise UnsupportedPixels(f"jpegxl could not code an image of shape {image.shape}: {error}") from error
        return bytes(stream)

    def _decode_image(self, stream: bytes, image: SampleArray, bits: int) -> None:
        try:
            imagecodecs.jpegxl_decode(stream, numthreads=1, out=image)
        except (RuntimeError, ValueError) as error:
            raise CorruptStream(f"The jpegxl image is damaged: {error}") from error
