"""How pixels are treated where nothing may be lost: which codecs are measured, and how hard they try."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from thinfilm_codecs import registry
from thinfilm_codecs.codec import Codec
from thinfilm_codecs.errors import MissingDevice
from thinfilm_codecs.lossless.devices import check_device

DEVICES = ("cpu", "cuda")

LIGHT = ("jpegls", "zstd", "raw")
"""Codecs that fit nothing: they need little time, and little memory above that of the pixels."""


class UnknownTreatment(Exception):
    """A codec, preset or device that there is none of; the message is one sentence."""


class UnusableCodec(Exception):
    """A codec, or a device for it, that is asked for by name and cannot be used here; one sentence with the mend."""


@dataclass(frozen=True)
class Treatment:
    """Which codecs to measure, how hard those with presets try, and where those that can choose compute."""

    codecs: tuple[str, ...]
    preset: str = registry.DEFAULT_PRESET
    device: str = DEVICES[0]

    def candidates(self) -> tuple[Codec, ...]:
        """Return the codecs to measure, tuned."""
        return tuple(registry.get(codec_id, self.preset, self.device) for codec_id in self.codecs)


def easier(treatment: Treatment, steps: int) -> Treatment:
    """Return the treatment so many steps down: a faster preset each, and JPEG-LS alone below the fastest.

    One of light codecs only is as easy as it gets.
    """
    if steps == 0 or set(treatment.codecs) <= set(LIGHT):
        return treatment
    lower = registry.PRESETS.index(treatment.preset) - steps
    return replace(treatment, preset=registry.PRESETS[lower]) if lower >= 0 else Treatment(LIGHT[:1])


def backlog_steps(due: int, limit: int) -> int:
    """Return how many steps down the treatment goes while so many jobs are due.

    None up to `limit`, one above it, one more with each doubling.
    """
    return 0 if due <= limit else (due // limit).bit_length()


def hurry(due: int, limit: int) -> str | None:
    """Return the sentence that tells people of the backlog, None while there is none."""
    if not backlog_steps(due, limit):
        return None
    return (
        f"Series are compressed with less effort, since {due} jobs are due and backlog_jobs is {limit}; "
        "it returns by itself, or add workers."
    )


def treatment(codec_ids: Sequence[str], preset: str = registry.DEFAULT_PRESET, device: str = DEVICES[0]) -> Treatment:
    """Return the treatment of these names, each codec once. Raises UnknownTreatment."""
    if not codec_ids:
        raise UnknownTreatment(f"No codec is given; choose among {', '.join(registry.names())}.")
    for codec_id in codec_ids:
        _check("codec", codec_id, registry.names())
    _check("preset", preset, registry.PRESETS)
    _check("device", device, DEVICES)
    return Treatment(tuple(dict.fromkeys(codec_ids)), preset, device)


def obstacles(codec_ids: Iterable[str]) -> dict[str, str]:
    """Return, for each of these codecs, lossless or lossy, by which nothing can be encoded here, why, with the mend."""
    known = {*registry.names(), *registry.lossy_names()}
    found = {codec_id: registry.decoder(codec_id).obstacle() for codec_id in codec_ids if codec_id in known}
    return {codec_id: sentence for codec_id, sentence in found.items() if sentence}


def check_usable(codec_ids: Iterable[str], device: str = DEVICES[0]) -> None:
    """Raise UnusableCodec unless all of these codecs can encode here, and the device is there."""
    for sentence in obstacles(codec_ids).values():
        raise UnusableCodec(sentence)
    try:
        check_device(device, "named")
    except MissingDevice as error:
        raise UnusableCodec(str(error)) from None


def _check(what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise UnknownTreatment(f"No {what} is called {name!r}; choose among {', '.join(known)}.")
