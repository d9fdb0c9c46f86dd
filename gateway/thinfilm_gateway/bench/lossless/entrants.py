"""The codecs that can be measured, by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from thinfilm_codecs import registry
from thinfilm_gateway.bench.entrant import Entrant, Own
from thinfilm_gateway.bench.lossless.ladder import Ladder
from thinfilm_gateway.bench.lossless.peers import HighThroughputJpeg2000, JpegLs, JpegXl, Tomoz

JPEGLS, JPEGLS_WORDS, JPEGXL, JPEGXL_E9, TOMOZ = "jpegls", "jpegls-words", "jpegxl", "jpegxl-e9", "tomoz"


@dataclass(frozen=True)
class Identity:
    """What a name stands for: preset is empty for a codec that has none."""

    codec: str
    preset: str


class UnknownEntrant(Exception):
    """A name that is no codec's; the message is one sentence."""


_OTHERS: dict[str, tuple[Identity, Callable[[], Entrant]]] = {
    JPEGLS: (Identity("jpegls", ""), JpegLs),
    JPEGLS_WORDS: (Identity("jpegls", "words"), lambda: JpegLs(whole_words=True)),
    JPEGXL: (Identity("jpegxl", "e7"), lambda: JpegXl(7)),
    JPEGXL_E9: (Identity("jpegxl", "e9"), lambda: JpegXl(9)),
    "htj2k": (Identity("htj2k", ""), HighThroughputJpeg2000),
    TOMOZ: (Identity("tomoz", ""), Tomoz),
    "gateway": (Identity("gateway", ""), Ladder),
}


def check(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names, each once. Raises UnknownEntrant for one that is no codec's, or for none."""
    if not names:
        raise UnknownEntrant("No codec is given.")
    for name in names:
        identity(name)
    return tuple(dict.fromkeys(names))


def identity(name: str) -> Identity:
    """Return codec and preset of a name. Raises UnknownEntrant."""
    if name in _OTHERS:
        return _OTHERS[name][0]
    codec_id, _, preset = name.partition("-")
    if codec_id not in registry.names() or (preset and preset not in registry.PRESETS):
        known = sorted({*_OTHERS, *registry.names()})
        presets = ", ".join(f"neural-{preset}" for preset in registry.PRESETS)
        raise UnknownEntrant(f"No codec is called {name!r}; choose among {', '.join(known)}, {presets}.")
    if any(registry.get(codec_id, other) is not registry.get(codec_id) for other in registry.PRESETS):
        return Identity(codec_id, preset or registry.DEFAULT_PRESET)
    if preset:
        raise UnknownEntrant(f"{codec_id} has no presets; give {codec_id!r} instead of {name!r}.")
    return Identity(codec_id, "")


def entrant(name: str) -> Entrant:
    """Return the entrant of this name. Raises UnknownEntrant, or NotInstalled where its library is not there."""
    if name in _OTHERS:
        return _OTHERS[name][1]()
    found = identity(name)
    return Own(registry.get(found.codec, found.preset or None))
