"""How pixels are treated where nothing may be lost: which codecs are measured, and how hard they try."""

from collections.abc import Sequence
from dataclasses import dataclass

from thinfilm_codecs import registry
from thinfilm_codecs.codec import Codec

DEVICES = ("cpu", "cuda")


class UnknownTreatment(Exception):
    """A codec, preset or device that there is none of; the message is one sentence."""


@dataclass(frozen=True)
class Treatment:
    """Which codecs to measure, how hard those with presets try, and where those that can choose compute."""

    codecs: tuple[str, ...]
    preset: str = registry.DEFAULT_PRESET
    device: str = DEVICES[0]

    def candidates(self) -> tuple[Codec, ...]:
        """Return the codecs to measure, tuned."""
        return tuple(registry.get(codec_id, self.preset, self.device) for codec_id in self.codecs)


def treatment(codec_ids: Sequence[str], preset: str = registry.DEFAULT_PRESET, device: str = DEVICES[0]) -> Treatment:
    """Return the treatment of these names, each codec once. Raises UnknownTreatment."""
    if not codec_ids:
        raise UnknownTreatment(f"No codec is given; choose among {', '.join(registry.names())}.")
    for codec_id in codec_ids:
        _check("codec", codec_id, registry.names())
    _check("preset", preset, registry.PRESETS)
    _check("device", device, DEVICES)
    return Treatment(tuple(dict.fromkeys(codec_ids)), preset, device)


def _check(what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise UnknownTreatment(f"No {what} is called {name!r}; choose among {', '.join(known)}.")
