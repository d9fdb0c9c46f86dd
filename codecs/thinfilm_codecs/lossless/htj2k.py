"""High-throughput JPEG 2000 (ISO/IEC 15444-15), reversible, through OpenJPH: the fastest image codec of the ladder."""

import re
import struct

import imagecodecs

from thinfilm_codecs.blocks import SampleArray
from thinfilm_codecs.errors import CorruptStream, UnsupportedPixels
from thinfilm_codecs.lossless.tall_image import TallImageCodec, library_obstacle

_CODING_MARKERS = re.compile(
    rb"\xff\x50\x00\x08\x00\x02\x00\x00.."  # CAP: high throughput
    rb"\xff\x52\x00\x0c\x00\x02\x00\x01[\x00\x01]\x05\x04\x04\x40\x01"  # COD: 5 levels, 64 x 64, reversible 5/3
    rb"\xff\x5c\x00\x13.{17}"  # QCD: exponents
    rb"(?:\xff\x64\x00(?P<length>.)\x00\x01(?P<comment>[ -~]*))?",  # COM: the name of the library
    re.DOTALL,
)


class HighThroughputJpeg2000(TallImageCodec):
    """HTJ2K with the reversible 5/3 wavelet and, for colour, the reversible colour transform."""

    codec_id = "htj2k"
    max_rows = 1 << 18
    max_columns = 1 << 18

    def obstacle(self) -> str | None:
        """Tell of an imagecodecs that was built without it."""
        return library_obstacle(self.codec_id, imagecodecs.HTJ2K)

    def _encode_image(self, image: SampleArray, bits: int) -> bytes:
        try:
            return bytes(imagecodecs.htj2k_encode(image, reversible=True))
        except (RuntimeError, ValueError) as error:
            raise UnsupportedPixels(f"htj2k could not code an image of shape {image.shape}: {error}") from error

    def _decode_image(self, stream: bytes, image: SampleArray, bits: int) -> None:
        if not _is_codestream_of(image, stream):
            raise CorruptStream(f"The htj2k stream is not that of an image of shape {image.shape}.")
        try:
            imagecodecs.htj2k_decode(stream, out=image)
        except (RuntimeError, ValueError) as error:
            raise CorruptStream(f"The htj2k image is damaged: {error}") from error


def _is_codestream_of(image: SampleArray, stream: bytes) -> bool:
    """Tell whether the markers are those of this image in one tile, as encoded here (docs/formats/classical.md).

    OpenJPH would allocate, or loop without end, by what it reads there.
    """
    rows, columns = image.shape[:2]
    components = image.shape[2] if image.ndim == 3 else 1
    grid = (columns, rows, 0, 0)  # of the image, then of its one tile
    size = struct.pack(">HH8LH", 38 + 3 * components, 0x4000, *grid, *grid, components)
    depths = bytes((8 * image.dtype.itemsize - 1, 1, 1)) * components
    main_header = b"\xff\x4f\xff\x51" + size + depths
    coding = _CODING_MARKERS.match(stream, len(main_header))
    if not stream.startswith(main_header) or coding is None:
        return False
    if coding["length"] and coding["length"][0] != 4 + len(coding["comment"]):
        return False
    tile_bytes = len(stream) - coding.end() - 2
    start_of_tile = struct.pack(">HHHLBBH", 0xFF90, 10, 0, max(tile_bytes, 0), 0, 1, 0xFF93)
    return stream.startswith(start_of_tile, coding.end()) and stream.endswith(b"\xff\xd9")
