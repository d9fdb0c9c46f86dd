"""JPEG-LS (ISO/IEC 14495-1), through CharLS: the fast predictive codec of the ladder.

The encoder is pyjpegls's, because it takes the number of bits in use (1 to 5 % smaller than 16 bits flat on MR and CT);
the decoder is imagecodecs's, because it releases the GIL and checks the size before it allocates.
"""

import imagecodecs
import numpy as np
from jpeg_ls import CharLS

from thinfilm_codecs.blocks import BlockLayout, SampleArray
from thinfilm_codecs.errors import CorruptStream, UnsupportedPixels
from thinfilm_codecs.lossless.tall_image import TallImageCodec, library_obstacle

_PLAIN = b"\x00"
_GREEN_SUBTRACTED = b"\x01"

_END_OF_IMAGE = b"\xff\xd9"

_MIN_SAMPLES = 64
"""Below this, the output buffer that pyjpegls makes has no room for the markers, and up to 128 not always."""


class JpegLs(TallImageCodec):
    """JPEG-LS. The planes of a colour image lie below each other, as they are or with green subtracted."""

    codec_id = "jpegls"
    max_rows = 65535
    max_columns = 65535

    def obstacle(self) -> str | None:
        """Tell of an imagecodecs that was built without it: what was encoded could not be proven."""
        return library_obstacle(self.codec_id, imagecodecs.JPEGLS)

    def supports(self, layout: BlockLayout) -> bool:
        """Tell whether the frames are images that fit; three planes count thrice in height."""
        return super().supports(layout) and layout.rows * layout.components <= self.max_rows

    def frames_per_group(self, layout: BlockLayout) -> int:
        """Return as many frames as make about 256 KiB and fit the image height."""
        return min(super().frames_per_group(layout), self.max_rows // (layout.rows * layout.components))

    def _encode_image(self, image: SampleArray, bits: int) -> bytes:
        if image.ndim == 2:
            return _encode_plane(image, bits)
        red, green, blue = np.moveaxis(image, 2, 0)
        depth = 8 * image.dtype.itemsize  # differences wrap, so that they need all bits of the type
        plain = _PLAIN + _encode_plane(np.concatenate([red, green, blue]), bits)
        subtracted = _GREEN_SUBTRACTED + _encode_plane(np.concatenate([red - green, green, blue - green]), depth)
        return min(plain, subtracted, key=len)

    def _decode_image(self, stream: bytes, image: SampleArray, bits: int) -> None:
        if image.ndim == 2:
            _decode_plane(stream, image)
            return
        rows, columns, components = image.shape
        planes = np.empty((components * rows, columns), image.dtype)
        _decode_plane(stream[1:], planes)
        red, green, blue = planes.reshape(components, rows, columns)
        if stream[:1] == _GREEN_SUBTRACTED:
            red += green
            blue += green
        elif stream[:1] != _PLAIN:
            raise CorruptStream("The jpegls stream names no known colour transform.")
        np.stack([red, green, blue], axis=2, out=image)


def _encode_plane(plane: SampleArray, bits: int) -> bytes:
    if plane.size < _MIN_SAMPLES:
        raise UnsupportedPixels(f"jpegls codes images of {_MIN_SAMPLES} samples and more; this one has {plane.size}.")
    rows, columns = plane.shape
    little = plane.astype(plane.dtype.newbyteorder("<"), copy=False)
    try:
        return bytes(CharLS.encode_buffer(little.tobytes(), rows, columns, 1, bits))
    except (RuntimeError, ValueError) as error:
        raise UnsupportedPixels(f"jpegls could not code an image of {rows} x {columns}: {error}") from error


def _decode_plane(stream: bytes, plane: SampleArray) -> None:
    if not stream.endswith(_END_OF_IMAGE):  # CharLS takes seconds to find that out
        raise CorruptStream("The jpegls image has no end marker.")
    try:
        imagecodecs.jpegls_decode(stream, out=plane)
    except (RuntimeError, ValueError) as error:
        raise CorruptStream(f"The jpegls image is damaged: {error}") from error
