"""The manifest as it lies in a container: compressed JSON, every bound in it checked when it is read."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import zstandard

from thinfilm_codecs.blocks import BlockLayout
from thinfilm_codecs.jpeg_lossless import ScanCoding
from thinfilm_gateway.archive.container.format import (
    COUNT_LIMIT,
    LITERAL_LIMIT,
    MANIFEST_LIMIT,
    STACK_LIMIT,
    TEXT_LIMIT,
    VERSION,
    DamagedContainer,
    DerivationNote,
    DicomHeader,
    Entry,
    FrameGroup,
    LiteralGroup,
    LiteralRun,
    Manifest,
    Piece,
    ScanRun,
    Section,
    Stack,
    StackCodec,
    check_names,
    check_section,
    check_version,
    frame_run,
    scan_run,
)
from thinfilm_gateway.dicom.pixels import Packing

_SHA256 = re.compile(r"[0-9a-f]{64}")
_CODEC_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

_LONGEST_SCAN_BYTES = 8  # a sample of a scan has at most 32 bits, each byte perhaps with a zero behind it

_T = TypeVar("_T")


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
    noted = {} if entry.derived is None else {"derived": dict(vars(entry.derived))}
    return noted | {
        "name": entry.name,
        "bytes": entry.file_bytes,
        "sha256": entry.sha256,
        "dicom": None if entry.dicom is None else dict(vars(entry.dicom)),
        "pieces": [_piece_json(piece) for piece in entry.pieces],
    }


def _piece_json(piece: Piece) -> list[Any]:
    if isinstance(piece, LiteralRun):
        return ["bytes", piece.group, piece.offset, piece.length]
    if isinstance(piece, ScanRun):
        return ["scan", piece.stack, piece.first, piece.length, piece.coding.to_json()]
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
        check_version(members.get("version"))
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
        dicom, derived = members.get("dicom"), members.get("derived")
        pieces = _each(members.get("pieces"), self._piece)
        if sum(piece.length for piece in pieces) != file_bytes:
            raise DamagedContainer("The pieces of an entry in the manifest do not add up to its size.")
        return Entry(
            name=_text(members.get("name")),
            file_bytes=file_bytes,
            sha256=_sha256(members.get("sha256")),
            dicom=None if dicom is None else self._dicom(_object(dicom), file_bytes),
            pieces=pieces,
            derived=None if derived is None else _derivation_note(_object(derived)),
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
        if kind == "scan":
            _, stack, frame, length, coding = _items(value, 5)
            index = _integer(stack, 0, len(self.stacks) - 1)
            layout = self.stacks[index].layout
            longest = _LONGEST_SCAN_BYTES * layout.with_frames(1).samples
            start = _integer(frame, 0, layout.frames - 1)
            return scan_run(index, layout, start, _scan_coding(coding), _integer(length, 1, longest))
        raise DamagedContainer("The manifest holds a piece of an unknown kind.")

    def _packing(self, value: object) -> Packing:
        key = json.dumps(value)
        if key not in self.packings:
            try:
                self.packings[key] = Packing.from_json(_object(value))
            except (ValueError, TypeError, KeyError):
                raise DamagedContainer("The manifest holds an impossible packing of samples.") from None
        return self.packings[key]


def _scan_coding(value: object) -> ScanCoding:
    try:
        return ScanCoding.from_json(_object(value))
    except (ValueError, TypeError):
        raise DamagedContainer("The manifest holds an impossible coding of a scan.") from None


def _derivation_note(members: dict[str, Any]) -> DerivationNote:
    bound = members.get("error_bound")
    return DerivationNote(
        original_sop_instance_uid=_text(members.get("original_sop_instance_uid")),
        original_sha256=_sha256(members.get("original_sha256")),
        codec_id=_text(members.get("codec_id")),
        setting=_text(members.get("setting")),
        ratio=_ratio(members.get("ratio")),
        profile=_text(members.get("profile")),
        ceiling=_ratio(members.get("ceiling")),
        citation=_text(members.get("citation")),
        error_bound=None if bound is None else _integer(bound, 1),
    )


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


def _ratio(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= COUNT_LIMIT:
        raise DamagedContainer("The manifest holds a ratio that is out of range.")
    return float(value)


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > TEXT_LIMIT:
        raise DamagedContainer("The manifest holds another value where a short text belongs.")
    return value


def _sha256(value: object) -> str:
    if not _SHA256.fullmatch(_text(value)):
        raise DamagedContainer("The manifest holds a SHA-256 that is none.")
    return str(value)
