"""Ceilings: how much smaller an image may be made by lossy compression, by profile, modality and body part.

The values are data, in `profiles/`, each with its source. Mammography, nuclear medicine, radiotherapy and
segmentations have none.
"""

import datetime as dt
import functools
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

DEFAULT_PROFILE = "esr-strict"

_LOSSLESS_ONLY = {
    "MG": "Mammograms are kept lossless, as the MQSA demands.",
    "NM": "The values of nuclear medicine are measurements, and are kept lossless.",
    "PT": "The values of PET are measurements, and are kept lossless.",
    "SEG": "Segmentations are kept lossless.",
}
_RADIOTHERAPY = "RT"  # how all modalities of it begin

RADIOGRAPHY = ("CR", "DX")
"""Modalities of which an image may be a mammogram."""


class UnknownProfile(Exception):
    """There is no profile of this name; the message is one sentence."""


@dataclass(frozen=True)
class Ceiling:
    """The largest ratio of native to coded bytes for a modality, and where the value comes from.

    body_parts: values of Body Part Examined (0018,0015) that it is for; none where there is one value for all.
    """

    modality: str
    body_parts: tuple[str, ...]
    ratio: float
    citation: str
    date: dt.date
    evidence: str


@dataclass(frozen=True)
class LosslessOnly:
    """Why something is kept lossless: one sentence."""

    reason: str


@dataclass(frozen=True)
class Profile:
    """The ceilings of one recommendation."""

    name: str
    ceilings: tuple[Ceiling, ...]

    def ceiling(self, modality: str, body_part: str) -> Ceiling | LosslessOnly:
        """Return the ceiling of an image.

        body_part: as in the data set; where it is empty, or in no entry, the lowest ceiling of the modality holds.
        """
        reason = lossless_only(modality, body_part)
        if reason:
            return LosslessOnly(reason)
        of_modality = [ceiling for ceiling in self.ceilings if ceiling.modality == modality]
        if not of_modality:
            return LosslessOnly(f"The profile {self.name} has no ceiling for modality {modality or 'unknown'}.")
        of_body_part = [ceiling for ceiling in of_modality if body_part in ceiling.body_parts]
        return min(of_body_part or of_modality, key=lambda ceiling: ceiling.ratio)


def lossless_only(modality: str, body_part: str) -> str:
    """Return why images of this kind are never compressed lossily, whatever a profile says; empty where they may be."""
    if modality.startswith(_RADIOTHERAPY):
        return "What belongs to radiotherapy is kept lossless."
    is_mammogram = modality in RADIOGRAPHY and body_part == "BREAST"
    return _LOSSLESS_ONLY.get("MG" if is_mammogram else modality, "")


def profile_names() -> list[str]:
    """Return the names of all profiles."""
    folder = files(__package__) / "profiles"
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))


@functools.cache
def profile(name: str) -> Profile:
    """Return the profile of this name. Raises UnknownProfile."""
    if name not in profile_names():
        raise UnknownProfile(f"No profile is called {name!r}; choose among {', '.join(profile_names())}.")
    document = tomllib.loads((files(__package__) / "profiles" / f"{name}.toml").read_text(encoding="utf-8"))
    return Profile(document["name"], tuple(_ceiling(entry) for entry in document["ceiling"]))


def _ceiling(entry: dict[str, Any]) -> Ceiling:
    return Ceiling(**{**entry, "body_parts": tuple(entry.get("body_parts", ()))})
