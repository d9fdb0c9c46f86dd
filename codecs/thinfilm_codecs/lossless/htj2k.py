"""High-throughput JPEG 2000 (ISO/IEC 15444-15), reversible, through OpenJPH: the fastest image codec of the ladder."""

import imagecodecs

from thinfilm_codecs.blocks import SampleArray
from thinfilm_codecs.errors import CorruptStream, UnsupportedPixels
from thinfilm_codecs.lossless.tall_image import TallImageCodec


class HighThroughputJpeg2000(TallImageCodec):
    """HTJ2K with the reversible 5/3 wavelet and, for colour, the reversible colour transform."""

    codec_id = "htj2k"
    max_rows = 1 << 18
    max_columns = 1 << 18

    def _encode_image(self, image: SampleArray, bits: int) -> bytes:
        try:
            return bytes(imagecodecs.htj2k_encode(image, reversible=True))
        except (RuntimeError, ValueError) as error:
            raise UnsupportedPixels(f"htj2k could not code an image of shape {image.shape}: {error}") from error

    def _decode_image(self, stream: bytes, image: SampleArray, bits: int) -> None:
        try:
            imagecodecs.htj2k_decode(stream, out=image)
        except (RuntimeError, ValueError) as error:
            raise CorruptStream(f"The htj2k image is damaged: {error}") from error
