"""The lossy codecs that can be measured, by name: those of the registry, and the standards."""

from collections.abc import Sequence

from thinfilm_codecs import registry
from thinfilm_gateway.bench.entrant import Entrant, Own
from thinfilm_gateway.bench.lossy.anchors import STANDARDS, PlaneByPlane

JPEG2000, NEAR_LOSSLESS = "jpeg2000", "near_lossless"

SEARCH_PRESET = "fast"
"""With which settings are sought: the default preset fits a network at each, for streams a few per cent smaller."""


class UnknownEntrant(Exception):
    """A name that is no lossy codec's; the message is one sentence."""


def names() -> list[str]:
    """Return all names: own codecs first."""
    return [*registry.lossy_names(), *STANDARDS]


def check(chosen: Sequence[str]) -> tuple[str, ...]:
    """Return the names, each once. Raises UnknownEntrant for one that is no codec's, or for none."""
    if not chosen:
        raise UnknownEntrant("No codec is given.")
    for name in chosen:
        if name not in names():
            raise UnknownEntrant(f"No lossy codec is called {name!r}; choose among {', '.join(names())}.")
    return tuple(dict.fromkeys(chosen))


def ladder(name: str) -> tuple[float, ...]:
    """Return the settings of a codec, gentlest first."""
    return STANDARDS[name].ladder if name in STANDARDS else registry.lossy(name).ladder


def entrant(name: str, setting: float, preset: str = registry.DEFAULT_PRESET) -> Entrant:
    """Return a codec at one of its settings; preset: how hard it tries, where it knows of such."""
    if name in STANDARDS:
        return PlaneByPlane(STANDARDS[name], setting)
    return Own(registry.lossy(name).at(setting).tuned(preset, "cpu"))


def has_presets(name: str) -> bool:
    """Tell whether a codec codes to other streams with other presets."""
    return name not in STANDARDS and registry.lossy(name).tuned(SEARCH_PRESET, "cpu") is not registry.lossy(name)
