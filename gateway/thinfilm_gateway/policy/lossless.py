"""Which lossless codecs are measured for pixels: for now the same everywhere."""

from collections.abc import Sequence

from thinfilm_codecs import registry

DEFAULT_PRESET = "default"
PRESETS = (DEFAULT_PRESET,)


class UnknownTreatment(Exception):
    """A codec or preset that there is none of; the message is one sentence."""


def candidates(codec_ids: Sequence[str]) -> tuple[str, ...]:
    """Return the codecs to measure, each once. Raises UnknownTreatment for one that is not installed, or for none."""
    known = registry.names()
    for codec_id in codec_ids:
        if codec_id not in known:
            raise UnknownTreatment(f"No codec is called {codec_id!r}; choose among {', '.join(known)}.")
    if not codec_ids:
        raise UnknownTreatment(f"No codec is given; choose among {', '.join(known)}.")
    return tuple(dict.fromkeys(codec_ids))


def preset(name: str) -> str:
    """Return the preset of this name. Raises UnknownTreatment if the codecs have none such."""
    if name not in PRESETS:
        raise UnknownTreatment(f"No preset is called {name!r}; choose among {', '.join(PRESETS)}.")
    return name
