"""The codecs there are, by id."""

from thinfilm_codecs.codec import Codec
from thinfilm_codecs.lossless.htj2k import HighThroughputJpeg2000
from thinfilm_codecs.lossless.jpegls import JpegLs
from thinfilm_codecs.lossless.jpegxl import JpegXl
from thinfilm_codecs.lossless.nagoor import Nagoor
from thinfilm_codecs.lossless.neural import Neural
from thinfilm_codecs.lossless.raw import Raw
from thinfilm_codecs.lossless.zstd import Zstd
from thinfilm_codecs.lossy.binary_autoencoder import BinaryAutoencoder
from thinfilm_codecs.lossy.codec import LossyCodec
from thinfilm_codecs.lossy.kwavelet import KWavelet
from thinfilm_codecs.lossy.near_lossless import NearLossless
from thinfilm_codecs.lossy.pca import PrincipalComponents
from thinfilm_codecs.lossy.siren import Siren
from thinfilm_codecs.lossy.sparse_autoencoder import SparseAutoencoder
from thinfilm_codecs.lossy.vae import Vae

_CODECS: dict[str, Codec] = {
    codec.codec_id: codec for codec in (HighThroughputJpeg2000(), JpegLs(), JpegXl(), Nagoor(), Neural(), Raw(), Zstd())
}

_LOSSY: dict[str, LossyCodec] = {
    codec.codec_id: codec
    for codec in (
        BinaryAutoencoder(),
        KWavelet(),
        NearLossless(),
        PrincipalComponents(),
        Siren(),
        SparseAutoencoder(),
        Vae(),
    )
}

PRESETS = ("fast", "default", "max")
"""How hard a codec tries: each encodes slower, and smaller, than the one before. Codecs without presets ignore it."""

DEFAULT_PRESET = "default"


def names() -> list[str]:
    """Return the ids of all lossless codecs."""
    return sorted(_CODECS)


def lossy_names() -> list[str]:
    """Return the ids of all lossy codecs."""
    return sorted(_LOSSY)


def lossy(codec_id: str) -> LossyCodec:
    """Return the lossy codec of this id, at its gentlest setting. Raises KeyError with what is known."""
    try:
        return _LOSSY[codec_id]
    except KeyError:
        raise KeyError(f"No lossy codec is called {codec_id!r}; known are {', '.join(lossy_names())}.") from None


def decoder(codec_id: str) -> Codec:
    """Return the codec that decodes the streams of this id, lossless or lossy. Raises KeyError for an unknown id."""
    return _LOSSY[codec_id] if codec_id in _LOSSY else get(codec_id)


def get(codec_id: str, preset: str | None = None, device: str = "cpu") -> Codec:
    """Return the codec of this id, tuned to a preset (None: the default one) and a device, "cpu" or "cuda".

    Raises KeyError with what is known for an unknown id or preset, ValueError for a device that is not there.
    """
    preset = preset or DEFAULT_PRESET
    if preset not in PRESETS:
        raise KeyError(f"No preset is called {preset!r}; known are {', '.join(PRESETS)}.")
    try:
        codec = _CODECS[codec_id]
    except KeyError:
        raise KeyError(f"No codec is called {codec_id!r}; known are {', '.join(names())}.") from None
    return codec.tuned(preset, device)
