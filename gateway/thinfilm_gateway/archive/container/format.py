"""The bytes of a container and the manifest that explains them (docs/container-format.md), every bound checked."""

import itertools
import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, TypeVar

import google_crc32c
import numpy as np
import zstandard

from thinfilm_codecs.blocks import BlockLayout
from thinfilm_gateway.archive.pixels import Packing

MIB = 1024 * 1024

VERSION = 1
MAGIC = b"\x89TFA\r\n\x1a\n"  # a transfer that mangles line ends or the high bit mangles this first
END_MAGIC = b"TFA-END\n"

LITERALS = b"LITS"
PARAMETERS = b"PARM"
FRAMES = b"FRMS"
MANIFEST = b"MANI"
KINDS = (LITERALS, PARAMETERS, FRAMES, MANIFEST)

LITERAL_LIMIT = 16 * MIB  # raw bytes of one literal group
STACK_LIMIT = 256 * MIB  # raw bytes of one stack
MANIFEST_LIMIT = 64 * MIB  # raw bytes of the manifest
SECTION_LIMIT = 2 * STACK_LIMIT  # payload of a section; no codec may need more
COUNT_LIMIT = 2**48  # any number in a manifest

_SECTION_HEADER = struct.Struct("<4sIQ")
_FOOTER = struct.Struct("<QQQI")
_FOOTER_TAIL = struct.Struct("<I8s")
SECTION_HEADER_BYTES = _SECTION_HEADER.size
FOOTER_BYTES = _FOOTER.size + _FOOTER_TAIL.size

_SHA256 = re.compile(r"[0-9a-f]{64}")
_CODEC_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_TEXT_LIMIT = 4096

_T = TypeVar("_T")


class DamagedContainer(Exception):
    """The bytes are not a container, or not all of one; the message is one sentence that names the part."""


@dataclass(frozen=True)
class Section:
    """Where a section lies: `offset` of its header in the file, `length` of the payload behind the header, in bytes."""

    offset: int
    length: int


@dataclass(frozen=True)
class LiteralGroup:
    """Bytes of entries that were compressed together."""

    section: Section
    raw_bytes: int


@dataclass(frozen=True)
class StackCodec:
    """A codec that coded groups of a stack, with the section of its shared parameters where it has any."""

    codec_id: str
    parameters: Section | None


@dataclass(frozen=True)
class FrameGroup:
    """Consecutive frames of a stack, coded in one stream by `Stack.codecs[codec]`."""

    section: Section
    codec: int
    frames: int


@dataclass(frozen=True)
class Stack:
    """Frames of one layout, in coding order."""

    layout: BlockLayout
    codecs: tuple[StackCodec, ...]
    groups: tuple[FrameGroup, ...]

    @cached_property
    def group_starts(self) -> tuple[int, ...]:
        """The first frame of each group."""
        return tuple(itertools.accumulate((group.frames for group in self.groups[:-1]), initial=0))


@dataclass(frozen=True)
class LiteralRun:
    """A piece of an entry: bytes `offset` to `offset + length` of a raw literal group."""

    group: int
    offset: int
    length: int


@dataclass(frozen=True)
class FrameRun:
    """A piece of an entry: `count` frames of a stack, which `packing` turns into `length` bytes."""

    stack: int
    first: int
    count: int
    packing: Packing
    length: int


Piece = LiteralRun | FrameRun


def frame_run(stack: int, layout: BlockLayout, first: int, count: int, packing: Packing) -> FrameRun:
    """Return a run of frames of the stack of this number and layout.

    Raises DamagedContainer if the packing is not one of such samples.
    """
    sample_bits = 8 * np.dtype(layout.dtype).itemsize
    single_bits = packing.bits_allocated == 1 and layout.dtype == "uint8" and layout.components == 1
    if (packing.bits_allocated != sample_bits and not single_bits) or (packing.planar and layout.components == 1):
        raise DamagedContainer("The manifest holds a packing that does not fit its samples.")
    bits = layout.with_frames(count).samples * packing.bits_allocated
    return FrameRun(stack, first, count, packing, length=(bits + 7) // 8)


@dataclass(frozen=True)
class DicomHeader:
    """What the container says of an entry that is a DICOM file; values as in the data set, empty where absent.

    dataset_offset: where the data set begins in the file, behind preamble and file meta information; 0 where the file
    has neither, and then transfer_syntax_uid is empty.
    """

    dataset_offset: int
    dataset_sha256: str
    transfer_syntax_uid: str
    sop_instance_uid: str = ""
    sop_class_uid: str = ""
    series_instance_uid: str = ""
    study_instance_uid: str = ""
    modality: str = ""


@dataclass(frozen=True)
class Entry:
    """One file: its pieces, joined in order, are its bytes."""

    name: str
    file_bytes: int
    sha256: str
    dicom: DicomHeader | None
    pieces: tuple[Piece, ...]

    @property
    def frame_runs(self) -> tuple[FrameRun, ...]:
        """The pieces that are frames."""
        return tuple(piece for piece in self.pieces if isinstance(piece, FrameRun))


@dataclass(frozen=True)
class Manifest:
    """What is in a container and where."""

    literals: tuple[LiteralGroup, ...]
    stacks: tuple[Stack, ...]
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Footer:
    """The last bytes of a container: where the manifest section and its copy lie."""

    manifest: Section
    copy: Section


# Sections and footer


def section_header(kind: bytes, payload: bytes) -> bytes:
    """Return the header that stands before `payload`."""
    return _SECTION_HEADER.pack(kind, google_crc32c.value(payload), len(payload))


def read_section_header(header: bytes) -> tuple[bytes, int, int]:
    """Return (kind, CRC-32C, length) of a section header. Raises DamagedContainer if it is none."""
    if len(header) != SECTION_HEADER_BYTES:
        raise DamagedContainer("The container ends within a section header.")
    kind, checksum, length = _SECTION_HEADER.unpack(header)
    if kind not in KINDS:
        raise DamagedContainer("A section header is damaged.")
    return kind, checksum, length


def open_section(data: bytes, kind: bytes, section: Section, what: str) -> bytes:
    """Return the payload of a section read whole, header included.

    Raises DamagedContainer, naming `what`, if the header is not that of the section or the checksum is wrong.
    """
    header, payload = data[:SECTION_HEADER_BYTES], data[SECTION_HEADER_BYTES:]
    if len(payload) != section.length or header != section_header(kind, payload):
        raise DamagedContainer(f"The section of {what} at byte {section.offset} is damaged.")
    return payload


def footer_bytes(footer: Footer) -> bytes:
    """Return the footer as it stands at the end of the file."""
    fields = _FOOTER.pack(footer.manifest.offset, footer.copy.offset, footer.manifest.length, VERSION)
    return fields + _FOOTER_TAIL.pack(google_crc32c.value(fields), END_MAGIC)


def read_footer(data: bytes, size: int) -> Footer:
    """Return the footer of a container of `size` bytes. Raises DamagedContainer."""
    if len(data) != FOOTER_BYTES:
        raise DamagedContainer("The container is too short to have a footer.")
    checksum, magic = _FOOTER_TAIL.unpack_from(data, _FOOTER.size)
    if magic != END_MAGIC or checksum != google_crc32c.value(data[: _FOOTER.size]):
        raise DamagedContainer("The footer of the container is damaged.")
    offset, copy, length, version = _FOOTER.unpack_from(data)
    _check_version(version)
    sections = Section(offset, length), Section(copy, length)
    for section in sections:
        check_section(section, size)
    return Footer(*sections)


def _check_version(version: object) -> None:
    if version != VERSION:
        raise DamagedContainer(f"The container is of format version {version}; this reader knows version {VERSION}.")


def check_section(section: Section, size: int) -> None:
    """Raise DamagedContainer unless the section lies between magic and footer of a container of `size` bytes."""
    if section.length > SECTION_LIMIT:
        raise DamagedContainer("The container names a section that is too large.")
    end = section.offset + SECTION_HEADER_BYTES + section.length
    if section.offset < len(MAGIC) or section.length < 1 or end > size - FOOTER_BYTES:
        raise DamagedContainer("The container names a section that lies outside it.")


# Names


def check_name(name: str) -> None:
    """Raise ValueError unless `name` is a relative path that stays below the folder it is put in."""
    if "\0" in name or not name or len(name) > _TEXT_LIMIT:
        raise ValueError(f"An entry cannot be called {name[:100]!r}.")
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or PurePosixPath(name).is_absolute():
        raise ValueError(f"The name {name!r} is not a plain relative path.")


def check_names(names: list[str]) -> None:
    """Raise ValueError if a name is not plain, is there twice, or is also the folder of another."""
    known: set[str] = set()
    for name in names:
        check_name(name)
        if name in known:
            raise ValueError(f"The name {name!r} is there twice.")
        known.add(name)
    for name in names:
        for end in (match.start() for match in re.finditer("/", name)):
            if name[:end] in known:
                raise ValueError(f"The name {name[:end]!r} is both a file and a folder.")


# The manifest


def manifest_bytes(manifest: Manifest) -> bytes:
    """Return the payload of the manifest section. Raises ValueError if it is above MANIFEST_LIMIT."""
    document = {
        "version": VERSION,
        "literals": [[*_section_json(group.section), group.raw_bytes] for group in manifest.literals],
        "stacks": [_stack_json(stack) for stack in manifest.stacks],
        "entries": [_entry_json(entry) for entry in manifest.entries],
    }
    raw = json.dumps(document, separators=(",", ":"), sort_keys=True).encode("ascii")
    if len(raw) > MANIFEST_LIMIT:
        raise ValueError(f"{len(manifest.entries)} files are too many for one container.")
    return zstandard.ZstdCompressor(level=19).compress(raw)


def read_manifest(payload: bytes, size: int) -> Manifest:
    """Return the manifest of a container of `size` bytes, every number in it checked. Raises DamagedContainer."""
    raw = decompress(payload, MANIFEST_LIMIT, "manifest")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise DamagedContainer("The manifest of the container is not JSON.") from None
    return _ManifestReader(size).read(document)


def decompress(payload: bytes, limit: int, what: str) -> bytes:
    """Return the content of one zstd frame that declares its size, at most `limit` bytes. Raises DamagedContainer."""
    try:
        size = zstandard.frame_content_size(payload)
        if not 0 <= size <= limit:
            raise DamagedContainer(f"The {what} declares no size, or one above {limit} bytes.")
        return zstandard.ZstdDecompressor().decompress(payload, allow_extra_data=False)
    except zstandard.ZstdError:
        raise DamagedContainer(f"The {what} is not a zstd frame.") from None


def _section_json(section: Section) -> list[int]:
    return [section.offset, section.length]


def _stack_json(stack: Stack) -> dict[str, Any]:
    layout = stack.layout
    return {
        "layout": [layout.frames, layout.rows, layout.columns, layout.components, layout.dtype],
        "codecs": [
            [codec.codec_id, _section_json(codec.parameters) if codec.parameters else None] for codec in stack.codecs
        ],
        "groups": [[*_section_json(group.section), group.codec, group.frames] for group in stack.groups],
    }


def _entry_json(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "bytes": entry.file_bytes,
        "sha256": entry.sha256,
        "dicom": None if entry.dicom is None else dict(vars(entry.dicom)),
        "pieces": [_piece_json(piece) for piece in entry.pieces],
    }


def _piece_json(piece: Piece) -> list[Any]:
    if isinstance(piece, LiteralRun):
        return ["bytes", piece.group, piece.offset, piece.length]
    return ["frames", piece.stack, piece.first, piece.count, piece.packing.to_json()]


@dataclass
class _ManifestReader:
    """Reads the parts of a manifest, each checked against those before it."""

    size: int
    literals: tuple[LiteralGroup, ...] = ()
    stacks: tuple[Stack, ...] = ()
    packings: dict[str, Packing] = field(default_factory=dict)

    def read(self, document: object) -> Manifest:
        members = _object(document)
        _check_version(members.get("version"))
        self.literals = _each(members.get("literals"), self._literal_group)
        self.stacks = _each(members.get("stacks"), self._stack)
        entries = _each(members.get("entries"), self._entry)
        try:
            check_names([entry.name for entry in entries])
        except ValueError as error:
            raise DamagedContainer(f"The manifest holds an unsafe name: {error}") from None
        return Manifest(self.literals, self.stacks, entries)

    def _section(self, offset: object, length: object) -> Section:
        section = Section(_integer(offset), _integer(length))
        check_section(section, self.size)
        return section

    def _literal_group(self, value: object) -> LiteralGroup:
        offset, length, raw_bytes = _items(value, 3)
        return LiteralGroup(self._section(offset, length), _integer(raw_bytes, 1, LITERAL_LIMIT))

    def _stack(self, value: object) -> Stack:
        members = _object(value)
        *shape, dtype = _items(members.get("layout"), 5)
        try:
            frames, rows, columns, components = (_integer(number, 1) for number in shape)
            layout = BlockLayout(frames, rows, columns, components, _text(dtype))
        except ValueError as error:
            raise DamagedContainer(f"The manifest holds an impossible stack: {error}") from None
        if layout.nbytes > STACK_LIMIT:
            raise DamagedContainer("The manifest holds a stack that is too large.")
        codecs = _each(members.get("codecs"), self._codec)
        groups = _each(members.get("groups"), lambda group: self._frame_group(group, len(codecs), layout))
        if sum(group.frames for group in groups) != layout.frames:
            raise DamagedContainer("The groups of a stack in the manifest do not add up to its frames.")
        return Stack(layout, codecs, groups)

    def _codec(self, value: object) -> StackCodec:
        codec_id, parameters = _items(value, 2)
        if not _CODEC_ID.fullmatch(_text(codec_id)):
            raise DamagedContainer("The manifest holds an impossible codec name.")
        return StackCodec(_text(codec_id), None if parameters is None else self._section(*_items(parameters, 2)))

    def _frame_group(self, value: object, codecs: int, layout: BlockLayout) -> FrameGroup:
        offset, length, codec, frames = _items(value, 4)
        section = self._section(offset, length)
        return FrameGroup(section, _integer(codec, 0, codecs - 1), _integer(frames, 1, layout.frames))

    def _entry(self, value: object) -> Entry:
        members = _object(value)
        file_bytes = _integer(members.get("bytes"))
        dicom = members.get("dicom")
        pieces = _each(members.get("pieces"), self._piece)
        if sum(piece.length for piece in pieces) != file_bytes:
            raise DamagedContainer("The pieces of an entry in the manifest do not add up to its size.")
        return Entry(
            name=_text(members.get("name")),
            file_bytes=file_bytes,
            sha256=_sha256(members.get("sha256")),
            dicom=None if dicom is None else self._dicom(_object(dicom), file_bytes),
            pieces=pieces,
        )

    def _dicom(self, members: dict[str, Any], file_bytes: int) -> DicomHeader:
        return DicomHeader(
            dataset_offset=_integer(members.get("dataset_offset"), 0, file_bytes),
            dataset_sha256=_sha256(members.get("dataset_sha256")),
            transfer_syntax_uid=_text(members.get("transfer_syntax_uid")),
            sop_instance_uid=_text(members.get("sop_instance_uid")),
            sop_class_uid=_text(members.get("sop_class_uid")),
            series_instance_uid=_text(members.get("series_instance_uid")),
            study_instance_uid=_text(members.get("study_instance_uid")),
            modality=_text(members.get("modality")),
        )

    def _piece(self, value: object) -> Piece:
        kind = value[0] if isinstance(value, list) and value else None
        if kind == "bytes":
            _, group, offset, length = _items(value, 4)
            index = _integer(group, 0, len(self.literals) - 1)
            start = _integer(offset, 0, self.literals[index].raw_bytes)
            return LiteralRun(index, start, _integer(length, 1, self.literals[index].raw_bytes - start))
        if kind == "frames":
            _, stack, first, count, packing = _items(value, 5)
            index = _integer(stack, 0, len(self.stacks) - 1)
            layout = self.stacks[index].layout
            start = _integer(first, 0, layout.frames - 1)
            many = _integer(count, 1, layout.frames - start)
            return frame_run(index, layout, start, many, self._packing(packing))
        raise DamagedContainer("The manifest holds a piece of an unknown kind.")

    def _packing(self, value: object) -> Packing:
        key = json.dumps(value)
        if key not in self.packings:
            try:
                self.packings[key] = Packing.from_json(_object(value))
            except (ValueError, TypeError, KeyError):
                raise DamagedContainer("The manifest holds an impossible packing of samples.") from None
        return self.packings[key]


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DamagedContainer("The manifest holds another value where an object belongs.")
    return value


def _items(value: object, count: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != count:
        raise DamagedContainer(f"The manifest holds another value where a list of {count} belongs.")
    return value


def _each(value: object, read: Callable[[Any], _T]) -> tuple[_T, ...]:
    if not isinstance(value, list):
        raise DamagedContainer("The manifest holds another value where a list belongs.")
    return tuple(read(item) for item in value)


def _integer(value: object, low: int = 0, high: int = COUNT_LIMIT) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise DamagedContainer("The manifest holds a number that is out of range.")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _TEXT_LIMIT:
        raise DamagedContainer("The manifest holds another value where a short text belongs.")
    return value


def _sha256(value: object) -> str:
    if not _SHA256.fullmatch(_text(value)):
        raise DamagedContainer("The manifest holds a SHA-256 that is none.")
    return str(value)
