"""Specific Character Set (0008,0005): text to and from bytes (PS3.3 C.12.1.1.2, PS3.5 6.1)."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

GOVERNED_VRS = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
"""The VRs whose values are in the Specific Character Set (PS3.5 6.1.2.3)."""

_ESCAPE = b"\x1b"
_ASCII = "ascii"


@dataclass(frozen=True)
class _Repertoire:
    """One character set: its Python codec, and how ISO 2022 designates it (PS3.3 Tables C.12-3 and C.12-4).

    self_contained: the codec itself writes and reads the escape sequences, and leaves ASCII designated.
    """

    codec: str
    escapes: tuple[bytes, ...] = ()
    self_contained: bool = False


_SINGLE_BYTE = {
    "100": _Repertoire("latin_1", (b"\x1b-A",)),
    "101": _Repertoire("iso8859_2", (b"\x1b-B",)),
    "109": _Repertoire("iso8859_3", (b"\x1b-C",)),
    "110": _Repertoire("iso8859_4", (b"\x1b-D",)),
    "126": _Repertoire("iso8859_7", (b"\x1b-F",)),
    "127": _Repertoire("iso8859_6", (b"\x1b-G",)),
    "138": _Repertoire("iso8859_8", (b"\x1b-H",)),
    "144": _Repertoire("iso8859_5", (b"\x1b-L",)),
    "148": _Repertoire("iso8859_9", (b"\x1b-M",)),
    "166": _Repertoire("iso8859_11", (b"\x1b-T",)),
    "203": _Repertoire("iso8859_15", (b"\x1b-b",)),
    "13": _Repertoire("shift_jis", (b"\x1b)I", b"\x1b(J")),
}
_MULTI_BYTE = {
    "87": _Repertoire("iso2022_jp", (b"\x1b$B",), self_contained=True),
    "159": _Repertoire("iso2022_jp_2", (b"\x1b$(D",), self_contained=True),
    "149": _Repertoire("euc_kr", (b"\x1b$)C",)),
    "58": _Repertoire("gb2312", (b"\x1b$)A",)),
}
_DEFAULT = _Repertoire(_ASCII, (b"\x1b(B",))
_STAND_ALONE = {
    "ISOIR192": _Repertoire("utf_8"),
    "GB18030": _Repertoire("gb18030"),
    "GBK": _Repertoire("gbk"),
    "ISO2022GBK": _Repertoire("gbk"),
    "UTF8": _Repertoire("utf_8"),
}
# Terms that no edition defines, and that can only mean one thing.
_MEANT = {
    **{f"ISO8859{part}": _SINGLE_BYTE[number] for part, number in {
        1: "100", 2: "101", 3: "109", 4: "110", 5: "144", 6: "127", 7: "126", 8: "138", 9: "148", 11: "166", 15: "203",
    }.items()},
    **{f"LATIN{part}": _SINGLE_BYTE[number] for part, number in {
        1: "100", 2: "101", 3: "109", 4: "110", 5: "148", 9: "203",
    }.items()},
    **dict.fromkeys(("ASCII", "USASCII", "ISO646"), _DEFAULT),
    **dict.fromkeys(("GB2312", "EUCCN", "CP936"), _STAND_ALONE["GBK"]),
}  # fmt: skip
_FOREIGN = {  # DICOM has none of these: what came in them is told in UTF-8
    **{f"{name}{page}": _Repertoire(f"cp{page}") for name in ("CP", "WINDOWS") for page in range(1250, 1259)},
    **dict.fromkeys(("SHIFTJIS", "SJIS", "MSKANJI", "CP932", "WINDOWS31J"), _Repertoire("cp932")),
    **dict.fromkeys(("EUCKR", "KSC5601", "KSX1001", "CP949"), _Repertoire("cp949")),
    **dict.fromkeys(("BIG5", "CP950"), _Repertoire("cp950")),
    "EUCJP": _Repertoire("euc_jp"),
    "KOI8R": _Repertoire("koi8_r"),
}
_WITHOUT_EXTENSIONS = frozenset((*_STAND_ALONE.values(), *_FOREIGN.values()))
_NOT_TO_BE_TOLD = frozenset((None, *_FOREIGN.values()))
_BY_ESCAPE = {
    escape: repertoire
    for repertoire in (_DEFAULT, *_SINGLE_BYTE.values(), *_MULTI_BYTE.values())
    for escape in repertoire.escapes
}
_TERM_OF = {
    **{repertoire: f"ISO_IR {number}" for number, repertoire in _SINGLE_BYTE.items()},
    **{repertoire: f"ISO 2022 IR {number}" for number, repertoire in _MULTI_BYTE.items()},
    _STAND_ALONE["ISOIR192"]: "ISO_IR 192",
    _STAND_ALONE["GB18030"]: "GB18030",
    _STAND_ALONE["GBK"]: "GBK",
}
_SEPARATORS = re.compile(r"[ _-]+")
_DEFINED_TERM = re.compile(r"ISO(?:IR|2022(?:IR)?)(\d+)")


@dataclass(frozen=True)
class CharacterSet:
    """The values of a Specific Character Set; none means the default repertoire, ASCII."""

    values: tuple[str, ...] = ()

    @classmethod
    @lru_cache(maxsize=256)
    def of(cls, text: str) -> "CharacterSet":
        """Return the set of a value of (0008,0005), its parts joined by backslashes."""
        values = tuple(value.strip(" \0") for value in text.split("\\"))
        return cls(values if any(values) else ())

    def __str__(self) -> str:
        """Return the value of (0008,0005)."""
        return "\\".join(self.values)

    @property
    def defined(self) -> "CharacterSet":
        """The same in the terms that the standard defines: ISO_IR_192, ISO-IR 192 and UTF-8 are ISO_IR 192."""
        return CharacterSet(_defined_terms(self.values))

    def decode(self, raw: bytes, *, person_name: bool = False) -> str:
        """Return the text of a value, multiple values still joined by backslashes.

        Never fails: bytes outside the set, and sets nobody knows, are tried as UTF-8, then taken as Latin-1.
        """
        repertoires = _repertoires(self.values)
        try:
            if len(repertoires) == 1 and _ESCAPE not in raw:
                return raw.decode(repertoires[0].codec)
            return "".join(_decoded_pieces(raw, repertoires[0], b"\\^=" if person_name else b"\\\r\n\f\t"))
        except UnicodeDecodeError:
            try:
                return raw.decode("utf_8")
            except UnicodeDecodeError:
                return raw.decode("latin_1")

    def encode(self, text: str, *, person_name: bool = False) -> bytes:
        """Return the bytes of a text. Raises UnicodeEncodeError if the set lacks one of its characters."""
        repertoires = _repertoires(self.values)
        if text.isascii():
            return text.encode(_ASCII)
        if len(repertoires) == 1:
            return _encode_run(text, repertoires[0])
        delimiters = r"([\\^=])" if person_name else r"([\\\r\n\f\t])"
        return b"".join(_encode_component(part, repertoires) for part in re.split(delimiters, text) if part)

    def covers(self, texts: Iterable[str]) -> bool:
        """Tell whether all the texts can be encoded, and every value of the set is one that DICOM knows."""
        if any(_repertoire(value) in _NOT_TO_BE_TOLD for value in self.values):
            return False
        try:
            for text in texts:
                self.encode(text)
        except UnicodeEncodeError:
            return False
        return True


UTF_8 = CharacterSet(("ISO_IR 192",))


def common_character_set(preferred: Iterable[CharacterSet], texts: Sequence[str]) -> CharacterSet:
    """Return the first set that covers all the texts; UTF-8, which has everything, if none does."""
    return next((character_set for character_set in preferred if character_set.covers(texts)), UTF_8)


@lru_cache(maxsize=256)
def _defined_terms(values: tuple[str, ...]) -> tuple[str, ...]:
    repertoires = _repertoires(values)
    terms = [_TERM_OF.get(repertoire, "") for repertoire in repertoires]
    if len(terms) == 1 and repertoires[0] in _MULTI_BYTE.values():
        return "", *terms  # it can only be designated beside a set of single bytes (PS3.3 C.12.1.1.2)
    if len(terms) == 1:
        return tuple(filter(None, terms))
    extended = [f"ISO 2022 IR {term.split()[-1]}" if term else "ISO 2022 IR 6" for term in terms]
    return ("" if repertoires[0] is _DEFAULT else extended[0], *extended[1:])


@lru_cache(maxsize=256)
def _repertoires(values: tuple[str, ...]) -> tuple[_Repertoire, ...]:
    """Return what the values stand for: the initial one first. Unknown values are left out."""
    found = [_repertoire(value) for value in values]
    initial = found[0] if found and found[0] is not None else _DEFAULT
    if initial is _DEFAULT:  # as "\\ISO_IR 192" is meant
        initial = next((one for one in found if one in _WITHOUT_EXTENSIONS), None) or initial
    if initial in _WITHOUT_EXTENSIONS:
        return (initial,)  # they know no code extensions (PS3.5 6.1.2.5.4)
    others = [repertoire for repertoire in found[1:] if repertoire not in (None, initial, *_WITHOUT_EXTENSIONS)]
    return (initial, *(repertoire for repertoire in others if repertoire is not None))


def _repertoire(value: str) -> _Repertoire | None:
    """Return what one value stands for, lenient about case, blanks, underscores and hyphens."""
    term = _SEPARATORS.sub("", value.upper())
    if known := _STAND_ALONE.get(term) or _MEANT.get(term) or _FOREIGN.get(term):
        return known
    match = _DEFINED_TERM.fullmatch(term)
    number = match[1] if match else None
    if term == "" or number == "6":
        return _DEFAULT
    if number == "192":
        return _STAND_ALONE["ISOIR192"]
    return (_SINGLE_BYTE | _MULTI_BYTE).get(number) if number else None


def _decoded_pieces(raw: bytes, initial: _Repertoire, delimiters: bytes) -> Iterator[str]:
    """Decode text with code extensions: each escape sequence holds until the next one or a delimiter."""
    first, *escaped = raw.split(_ESCAPE)
    yield first.decode(initial.codec)
    for piece in escaped:
        whole = _ESCAPE + piece
        length = 4 if whole[1:3] in (b"$(", b"$)") else 3
        repertoire = _BY_ESCAPE.get(whole[:length])
        if repertoire is None:
            raise UnicodeDecodeError("iso2022", raw, 0, len(raw), "unknown escape sequence")
        if repertoire.self_contained:
            yield whole.decode(repertoire.codec)
            continue
        body = whole[length:]
        end = next((i for i, byte in enumerate(body) if byte in delimiters), len(body))
        # ASCII in G0 leaves the initial set's upper half in G1, as "ESC ( B" before Latin letters has it.
        codec = initial.codec if repertoire is _DEFAULT else repertoire.codec
        yield body[:end].decode(codec)
        yield body[end:].decode(initial.codec)


def _encode_component(text: str, repertoires: tuple[_Repertoire, ...]) -> bytes:
    """Encode text between two delimiters; it begins and ends with the initial set designated."""
    encoded = b""
    current = repertoires[0]
    for repertoire, run in _runs(text, repertoires):
        if repertoire is not current and not repertoire.self_contained and repertoire.codec != _ASCII:
            encoded += repertoire.escapes[0]
        if not repertoire.self_contained:
            current = repertoire
        encoded += _encode_run(run, repertoire)
    return encoded


def _runs(text: str, repertoires: tuple[_Repertoire, ...]) -> Iterator[tuple[_Repertoire, str]]:
    """Divide text into runs that one set can encode, staying with a set as long as it goes."""
    start = 0
    current: _Repertoire | None = None
    for position, character in enumerate(text):
        if current is not None and _has(current, character):
            continue
        chosen = next((repertoire for repertoire in repertoires if _has(repertoire, character)), None)
        if chosen is None:
            raise UnicodeEncodeError("iso2022", text, position, position + 1, "not in the Specific Character Set")
        if current is not None:
            yield current, text[start:position]
        start, current = position, chosen
    if current is not None:
        yield current, text[start:]


def _has(repertoire: _Repertoire, character: str) -> bool:
    try:
        _encode_run(character, repertoire)
    except UnicodeEncodeError:
        return False
    return True


def _encode_run(text: str, repertoire: _Repertoire) -> bytes:
    encoded = text.encode(repertoire.codec)
    if repertoire.codec == "shift_jis" and len(encoded) != len(text):
        # The codec is wider than JIS X 0201, which is all that ISO_IR 13 has: one byte a character.
        raise UnicodeEncodeError("jis_x_0201", text, 0, len(text), "not in JIS X 0201")
    return encoded
