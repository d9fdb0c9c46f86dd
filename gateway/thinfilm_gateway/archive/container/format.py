"""The bytes of a container and the parts of its manifest (docs/container-format.md)."""

import itertools
import re
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

import google_crc32c
import numpy as np

from thinfilm_codecs.blocks import BlockLayout
from thinfilm_codecs.jpeg_lossless import ScanCoding
from thinfilm_gateway.archive.store import StorageAway
from thinfilm_gateway.dicom.pixels import Packing

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
TEXT_LIMIT = 4096  # characters of any text in a manifest

_SECTION_HEADER = struct.Struct("<4sIQ")
_FOOTER = struct.Struct("<QQQI")
_FOOTER_TAIL = struct.Struct("<I8s")
SECTION_HEADER_BYTES = _SECTION_HEADER.size
FOOTER_BYTES = _FOOTER.size + _FOOTER_TAIL.size


class DamagedContainer(Exception):
    """The bytes are not a container, or not all of one; the message is one sentence that names the part."""


class MissingDecoder(StorageAway):
    """What decodes the frames is not installed, so they are not known to be damaged; a sentence with the mend."""


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


@dataclass(frozen=True)
class ScanRun:
    """A piece of an entry: a frame of a stack, which `coding` turns into `length` bytes of a lossless JPEG."""

    stack: int
    first: int
    coding: ScanCoding
    length: int

    @property
    def count(self) -> int:
        """A scan is one frame."""
        return 1


Piece = LiteralRun | FrameRun | ScanRun


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


def scan_run(stack: int, layout: BlockLayout, frame: int, coding: ScanCoding, length: int) -> ScanRun:
    """Return a run of one frame of the stack of this number and layout.

    Raises DamagedContainer if the coding is not one of such samples.
    """
    sample_bits = 8 * np.dtype(layout.dtype).itemsize
    if coding.precision > sample_bits or sample_bits > 16 or len(coding.tables) != layout.components:
        raise DamagedContainer("The manifest holds the coding of a scan that does not fit its samples.")
    return ScanRun(stack, frame, coding, length)


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
class DerivationNote:
    """What whoever made a container notes of an object that it derived itself: of what, how, and what was allowed.

    original_sha256: of the encoded data set. ratio: native bits, as allocated, to coded bits. ceiling, citation: of the
    profile. error_bound: the largest error that was allowed besides; None: no bound.
    """

    original_sop_instance_uid: str
    original_sha256: str
    codec_id: str
    setting: str
    ratio: float
    profile: str
    ceiling: float
    citation: str
    error_bound: int | None


@dataclass(frozen=True)
class Entry:
    """One file: its pieces, joined in order, are its bytes. derived: None for what came as it is."""

    name: str
    file_bytes: int
    sha256: str
    dicom: DicomHeader | None
    pieces: tuple[Piece, ...]
    derived: DerivationNote | None = None

    @property
    def frame_runs(self) -> tuple[FrameRun | ScanRun, ...]:
        """The pieces that are frames."""
        return tuple(piece for piece in self.pieces if not isinstance(piece, LiteralRun))


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
    check_version(version)
    sections = Section(offset, length), Section(copy, length)
    for section in sections:
        check_section(section, size)
    return Footer(*sections)


def check_version(version: object) -> None:
    """Raise DamagedContainer for a version of the format that this reader does not know."""
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
    if "\0" in name or not name or len(name) > TEXT_LIMIT:
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
