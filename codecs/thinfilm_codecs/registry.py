"""The codecs there are, by id."""

from thinfilm_codecs.codec import Codec
from thinfilm_codecs.lossless.htj2k import HighThroughputJpeg2000
from thinfilm_codecs.lossless.jpegls import JpegLs
from thinfilm_codecs.lossless.jpegxl import JpegXl
from thinfilm_codecs.lossless.neural import Neural
from thinfilm_codecs.lossless.raw import Raw
from thinfilm_codecs.lossless.zstd import Zstd

_CODECS: dict[str, Codec] = {
    codec.codec_id: codec for codec in (HighThroughputJpeg2000(), JpegLs(), JpegXl(), Neural(), Raw(), Zstd())
}


def names() -> list[str]:
    """Return the ids of all codecs."""
    return sorted(_CODECS)


def get(codec_id: str) -> Codec:
    """Return the codec of this id. Raises KeyError with the known ids."""
    try:
        return _CODECS[codec_id]
    except KeyError:
        raise KeyError(f"No codec is called {codec_id!r}; known are {', '.join(names())}.") from None
