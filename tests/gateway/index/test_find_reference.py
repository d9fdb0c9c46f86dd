"""C-FIND against a matcher in plain Python that knows nothing of SQL, over rows and queries that hypothesis makes."""

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.received import QUIET, raw_attributes, received
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.find import Query, Root, find
from thinfilm_gateway.index.folding import fold
from thinfilm_gateway.index.ingest import register
from thinfilm_gateway.index.levels import Level

UNIQUE = {
    Level.PATIENT: "PatientID",
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.IMAGE: "SOPInstanceUID",
}
LEVELS = list(Level)

few = st.sampled_from
letters = st.text(st.sampled_from("aAäbß[]%_'. 山"), max_size=4)
wild_letters = st.text(st.sampled_from("aAäb[%_?*山"), max_size=4)


def name(part: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    group = st.lists(part, min_size=1, max_size=3).map("^".join)
    return st.lists(group, min_size=1, max_size=3).map("=".join)


@st.composite
def ranges(draw: st.DrawFn, bound: st.SearchStrategy[str]) -> str:
    first, last = draw(bound), draw(bound)
    return draw(few([first, f"{first}-", f"-{last}", f"{first}-{last}"]))


dates = few(["20260101", "20260102", "2026.01.02", "20260301", "20251231"])
times = few(["10", "1030", "103015", "103015.5", "103015.25", "235959.999999", "00", "10:30:15"])

# keyword: level, kind, values that are stored, values that are asked for
KEYS: dict[str, tuple[Level, str, st.SearchStrategy[str], st.SearchStrategy[str]]] = {
    "PatientName": (Level.PATIENT, "name", name(letters), name(wild_letters)),
    "PatientBirthDate": (Level.PATIENT, "date", dates | few(["", "unknown"]), ranges(dates)),
    "PatientSex": (Level.PATIENT, "text", few(["F", "M", ""]), few(["F", "f", "?", "*"])),
    "StudyDate": (Level.STUDY, "date", dates | few(["", "x"]), ranges(dates)),
    "StudyTime": (Level.STUDY, "time", times | few(["", "x"]), ranges(times)),
    "StudyDescription": (Level.STUDY, "description", letters, wild_letters),
    "ReferringPhysicianName": (Level.STUDY, "name", name(letters), name(wild_letters)),
    "Modality": (Level.SERIES, "text", few(["CT", "MR", "ct", ""]), few(["CT", "?T", "*", "MR\\CT", "C*"])),
    "OperatorsName": (Level.SERIES, "name", name(letters), name(wild_letters)),
    "ProtocolName": (Level.SERIES, "description", letters, wild_letters),
    "SeriesNumber": (Level.SERIES, "number", few(["1", "01", "2", "-3", "x", ""]), few(["1", "001", "2\\-3"])),
    "InstanceNumber": (Level.IMAGE, "number", few(["1", "2", ""]), few(["1", "2"])),
    "ContentTime": (Level.IMAGE, "time", times | few([""]), ranges(times)),
}
UIDS = {
    Level.STUDY: ["2.25.1", "2.25.2", "2.25.3"],
    Level.SERIES: ["2.25.11", "2.25.12"],
}


@st.composite
def objects(draw: st.DrawFn) -> list[dict[str, str]]:
    found = []
    patients = {study: draw(few(["P1", "p1", "P[1]"])) for study in UIDS[Level.STUDY]}  # a study of one patient
    for number in range(draw(st.integers(0, 6))):
        one = {keyword: draw(stored) for keyword, (_, _, stored, _) in KEYS.items()}
        one |= {UNIQUE[level]: draw(few(uids)) for level, uids in UIDS.items()}
        one["PatientID"] = patients[one["StudyInstanceUID"]]
        one["SOPInstanceUID"] = f"2.25.10{number}"
        found.append(one)
    return found


@st.composite
def queries(draw: st.DrawFn) -> tuple[Level, dict[str, str]]:
    keys = {keyword: draw(KEYS[keyword][3]) for keyword in draw(st.lists(few(list(KEYS)), max_size=3, unique=True))}
    keys |= draw(st.dictionaries(few(["PatientID"]), few(["P1", "P*", "P[1]", "?1"]), max_size=1))
    keys |= draw(st.dictionaries(few(["StudyInstanceUID"]), few(["2.25.1", "2.25.1\\2.25.3", "2.25.*"]), max_size=1))
    keys |= draw(st.dictionaries(few(["SeriesInstanceUID"]), few(["2.25.11", "2.25.12"]), max_size=1))
    keys |= draw(st.dictionaries(few(["ModalitiesInStudy"]), few(["CT", "MR\\CT", "c*"]), max_size=1))
    return draw(few(LEVELS)), keys


@dataclass(frozen=True)
class Leaf:
    """An instance with the attributes of all its levels, as the first object of each level gave them."""

    path: tuple[str, ...]  # unique keys from the patient down
    attributes: Mapping[str, str]


def described(rows: Iterable[Mapping[str, str]]) -> list[Leaf]:
    patients: dict[str, Mapping[str, str]] = {}
    studies: dict[str, Mapping[str, str]] = {}
    series: dict[tuple[str, str], Mapping[str, str]] = {}
    leaves = []
    for row in rows:
        study = studies.setdefault(row["StudyInstanceUID"], row)
        patient = patients.setdefault(study["PatientID"], study)
        of_series = series.setdefault((row["StudyInstanceUID"], row["SeriesInstanceUID"]), row)
        source = {Level.PATIENT: patient, Level.STUDY: study, Level.SERIES: of_series, Level.IMAGE: row}
        attributes = {keyword: source[level][keyword] for keyword, (level, *_) in KEYS.items()}
        path = (study["PatientID"], row["StudyInstanceUID"], row["SeriesInstanceUID"], row["SOPInstanceUID"])
        leaves.append(Leaf(path, attributes | dict(zip(UNIQUE.values(), path, strict=True))))
    return leaves


def regex(pattern: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(one, re.escape(one)) for one in pattern), re.DOTALL)


def text_matches(key: str, value: str) -> bool:
    return regex(key.strip()).fullmatch(value.strip()) is not None


def folded_group(group: str) -> str:
    components = ["".join(one if one in "*?" else fold(one) for one in part.strip()) for part in group.split("^")]
    return re.sub(" +", " ", "^".join(components)).rstrip("^ ")


def asked_for(group: str) -> set[str]:
    """The patterns that a component group of a key stands for: trailing components `*` may be missing."""
    asked = folded_group(group)
    patterns = {asked}
    while asked.endswith("*") and not asked.rpartition("^")[2].strip("*"):
        asked = asked.rpartition("^")[0]
        patterns |= {asked, asked.rstrip("^")} if asked.strip("^") else set()
    return patterns


def is_universal(group: str) -> bool:
    components = group.rstrip("^ ").split("^")
    return components == [""] or all(one.strip() and not one.strip().strip("*") for one in components)


def group_matches(group: str, value: str) -> bool:
    return any(regex(pattern).fullmatch(folded_group(value)) for pattern in asked_for(group))


def name_matches(key: str, value: str) -> bool:
    asked, stored = key.split("=", 2), [*value.split("=", 2), "", ""][:3]
    if len(asked) == 1:
        return is_universal(key) or any(group_matches(key, group) for group in stored)
    return all(is_universal(one) or group_matches(one, group) for one, group in zip(asked, stored, strict=False))


def day(value: str) -> dt.date | None:
    try:
        return dt.datetime.strptime(value.replace(".", ""), "%Y%m%d").date()
    except ValueError:
        return None


def moments(value: str) -> tuple[dt.time, dt.time] | None:
    """The first and last moment of a time of any precision."""
    digits = value.replace(":", "").replace(".", "")
    if not digits.isdigit():
        return None
    first, last = digits.ljust(12, "0"), digits + "235959999999"[len(digits) :]
    return tuple(dt.time(int(t[:2]), int(t[2:4]), int(t[4:6]), int(t[6:])) for t in (first, last))  # type: ignore[return-value]


def date_matches(key: str, value: str) -> bool:
    stored = day(value)
    first, dash, last = key.partition("-")
    if stored is None:
        return False
    if not dash:
        return stored == day(first)
    return (not first or stored >= day(first)) and (not last or stored <= day(last))  # type: ignore[operator]


def time_matches(key: str, value: str) -> bool:
    stored = moments(value)
    first, dash, last = key.partition("-")
    lower, upper = moments(first), moments(last if dash else first)
    return stored is not None and (lower is None or stored[0] >= lower[0]) and (upper is None or stored[0] <= upper[1])


def number_matches(key: str, value: str) -> bool:
    return re.fullmatch(r"-?\d+", value) is not None and int(key) == int(value)


def description_matches(key: str, value: str) -> bool:
    pattern = "".join(one if one in "*?" else fold(one) for one in key.strip())
    return regex(pattern).fullmatch(fold(value.strip())) is not None


MATCHERS = {
    "text": text_matches,
    "description": description_matches,
    "name": name_matches,
    "date": date_matches,
    "time": time_matches,
    "number": number_matches,
}


def matches(keyword: str, key: str, value: str) -> bool:
    values = [one for one in (one.strip() for one in key.split("\\")) if one]
    if not values or any(not one.strip("*") for one in values):
        return True
    if keyword.endswith("UID"):
        return value in values
    kind = KEYS[keyword][1] if keyword in KEYS else "text"
    return any(MATCHERS[kind](one, value) for one in values)


def expected(leaves: list[Leaf], level: Level, keys: Mapping[str, str]) -> dict[tuple[str, ...], int]:
    """The entities that match, each with the number of instances below it."""
    depth = LEVELS.index(level) + 1
    counted: dict[tuple[str, ...], int] = {}
    for path in {leaf.path[:depth] for leaf in leaves}:
        below = [leaf for leaf in leaves if leaf.path[:depth] == path]
        study = [leaf for leaf in leaves if leaf.path[:2] == path[:2]]
        modalities = keys.get("ModalitiesInStudy", "")
        others = {keyword: key for keyword, key in keys.items() if keyword != "ModalitiesInStudy"}
        fits = [leaf for leaf in below if all(matches(one, key, leaf.attributes[one]) for one, key in others.items())]
        if fits and (depth < 2 or any(matches("Modality", modalities, one.attributes["Modality"]) for one in study)):
            counted[path] = len(below)
    return counted


COUNTS = {
    Level.PATIENT: "NumberOfPatientRelatedInstances",
    Level.STUDY: "NumberOfStudyRelatedInstances",
    Level.SERIES: "NumberOfSeriesRelatedInstances",
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=objects(), query=queries())
def test_the_index_finds_what_a_plain_matcher_finds(
    database: Database, rows: list[dict[str, str]], query: tuple[Level, dict[str, str]]
) -> None:
    level, keys = query
    count: dict[str, Any] = {COUNTS[level]: ""} if level in COUNTS else {}
    with database.session() as session:
        for row in rows:
            raw = {keyword: value.encode() for keyword, value in row.items()}
            dataset = raw_attributes(SpecificCharacterSet=b"ISO_IR 192", **raw)
            register(session, received(row["SOPInstanceUID"].encode(), dataset), QUIET)
        answers = list(find(session, Query(level, Root.PATIENT, keys | count)))
        session.rollback()
    found = {
        tuple(answer.values[UNIQUE[one]] for one in level.with_upper): answer.values.get(COUNTS.get(level, ""), 1)
        for answer in answers
    }
    assert len(found) == len(answers)
    assert found == expected(described(rows), level, keys)
