"""The levels of the Query/Retrieve information models (PS3.4 C.6) and their unique keys."""

import enum


class InvalidIdentifier(Exception):
    """A query or retrieve request cannot be answered as it stands; the message is one sentence."""


class Level(enum.StrEnum):
    """Query/Retrieve Level (0008,0052), from the top."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"

    @property
    def with_upper(self) -> "list[Level]":
        """The levels from PATIENT down to this one."""
        levels = list(Level)
        return levels[: levels.index(self) + 1]

    @property
    def with_lower(self) -> "list[Level]":
        """The levels from this one down to IMAGE."""
        levels = list(Level)
        return levels[levels.index(self) :]


UNIQUE_KEYS = {
    Level.PATIENT: "PatientID",
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.IMAGE: "SOPInstanceUID",
}
