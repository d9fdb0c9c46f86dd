"""The codecs there are, by id."""

from thinfilm_codecs.codec import Codec

_CODECS: dict[str, Codec] = {codec.codec_id: codec for codec in ()}


def names() -> list[str]:
    """Return the ids of all codecs."""
    return sorted(_CODECS)


def get(codec_id: str) -> Codec:
    """Return the codec of this id. Raises KeyError with the known ids."""
    try:
        return _CODECS[codec_id]
    except KeyError:
        raise KeyError(f"No codec is called {codec_id!r}; known are {', '.join(names())}.") from None
