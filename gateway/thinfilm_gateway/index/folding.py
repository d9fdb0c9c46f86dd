"""The forms in which values are matched (PS3.4 C.2.2.2): names without case and accents, dates and times as digits."""

import datetime as dt
import functools
import re
import unicodedata

GROUPS = 3  # of a person name: alphabetic, ideographic, phonetic (PS3.5 6.2.1)

# Letters that Unicode does not decompose into a base letter and an accent.
_PLAIN_LETTERS = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ħ": "h", "\u0131": "i", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d"}
)
# Only accents of European scripts fall: the marks of kana and of Indic scripts make other letters.
_ACCENTS = re.compile("[\u0300-\u036f]+")
_SPACES = re.compile(r"\s+")

_DATE = re.compile(r"(\d{4})([.-]?)(\d\d)\2(\d\d)", re.ASCII)  # 2020.01.31 is of ACR-NEMA, and still sent
_DATE_TIME = re.compile(
    r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d(?:\d\d(?:\d\d(?:\.\d{1,6})?)?)?)(?:[+-](?:0\d|1[0-4])[0-5]\d)?)?)?)?", re.ASCII
)
_MIDNIGHT = re.compile(r"24(?::?00(?::?00(?:\.0{1,6})?)?)?", re.ASCII)  # the end of a day, in no edition, and sent
_TIME = re.compile(r"([01]\d|2[0-3])(?::?([0-5]\d)(?::?([0-5]\d|60)(?:\.(\d{1,6}))?)?)?", re.ASCII)


def fold(text: str) -> str:
    """Return `text` without case, accents and differences of width; folding twice changes nothing."""
    if text.isascii():
        return text.lower()
    # Case folding can leave accents behind, and removing accents can leave capitals: two rounds settle both.
    for _ in range(2):
        decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
        text = unicodedata.normalize("NFC", _ACCENTS.sub("", decomposed).translate(_PLAIN_LETTERS))
    return text


@functools.lru_cache(maxsize=4096)
def fold_person_name(name: str) -> tuple[str, str, str]:
    """Fold a person name: its alphabetic, ideographic and phonetic component group, empty where missing.

    Spaces around components and empty components at the end mean nothing and go. What follows a fourth `=` belongs to
    no group of the standard and stays with the third.
    """
    groups = [_fold_group(group) for group in name.split("=", GROUPS - 1)]
    groups += [""] * (GROUPS - len(groups))
    return groups[0], groups[1], groups[2]


def _fold_group(group: str) -> str:
    return "^".join(fold_component(component) for component in group.split("^")).rstrip("^")


def fold_component(component: str) -> str:
    """Fold one component of a person name."""
    return _SPACES.sub(" ", fold(component)).strip()


@functools.lru_cache(maxsize=4096)
def fold_date(value: str) -> str:
    """Return a date (DA) as YYYYMMDD; empty if it is none."""
    found = _DATE.fullmatch(value.strip())
    if found is None:
        return ""
    try:
        dt.date(int(found[1]), int(found[3]), int(found[4]))
    except ValueError:
        return ""
    return found[1] + found[3] + found[4]


def date_time_span(value: str) -> tuple[str, str]:
    """Return the first and last moment, as YYYYMMDDHHMMSSFFFFFF, of a date time (DT) of any precision.

    The offset from UTC is not looked at: that of what is asked for and of what is found are seldom given, or the same.
    Both are empty if `value` is no date time.
    """
    found = _DATE_TIME.fullmatch(value.strip())
    if found is None:
        return "", ""
    year, month, day, time = found.groups(default="")
    first, last = time_span(time) if time else ("0" * 12, "235959999999")
    is_date = fold_date(year + (month or "01") + (day or "01"))
    return (is_date + first, year + (month or "12") + (day or "31") + last) if is_date and first else ("", "")


def fold_time(value: str) -> str:
    """Return the earliest moment of a time (TM) as HHMMSSFFFFFF; empty if it is none."""
    return time_span(value)[0]


@functools.lru_cache(maxsize=4096)
def time_span(value: str) -> tuple[str, str]:
    """Return the first and last moment, as HHMMSSFFFFFF, of a time (TM) of any precision: 10 is the hour from 10 to 11.

    Both are empty if `value` is no time.
    """
    if _MIDNIGHT.fullmatch(value.strip()):
        return "240000000000", "240000000000"
    found = _TIME.fullmatch(value.strip())
    if found is None:
        return "", ""
    hour, minute, second, fraction = found.groups(default="")
    first = hour + minute.ljust(2, "0") + second.ljust(2, "0") + fraction.ljust(6, "0")
    last = hour + (minute or "59") + (second or "59") + fraction.ljust(6, "9")
    return first, last
