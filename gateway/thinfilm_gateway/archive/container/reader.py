"""Container: the entries of a container file, read one at a time by byte ranges, checked against their SHA-256."""

import bisect
import contextlib
import hashlib
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from concurrent.futures import wait
from functools import partial

import numpy as np
import structlog

from thinfilm_codecs import registry
from thinfilm_codecs.blocks import SampleArray
from thinfilm_codecs.errors import CodecError, MissingModel
from thinfilm_codecs.jpeg_lossless import scan_bytes
from thinfilm_gateway.archive.container.cache import Decoded, FrameCache
from thinfilm_gateway.archive.container.decoding import ahead_bytes
from thinfilm_gateway.archive.container.format import (
    FOOTER_BYTES,
    FRAMES,
    LITERAL_LIMIT,
    LITERALS,
    MAGIC,
    MANIFEST,
    MIB,
    PARAMETERS,
    SECTION_HEADER_BYTES,
    SECTION_LIMIT,
    DamagedContainer,
    Entry,
    Footer,
    FrameRun,
    LiteralRun,
    Manifest,
    MissingDecoder,
    ScanRun,
    Section,
    Stack,
    open_section,
    read_footer,
    read_section_header,
)
from thinfilm_gateway.archive.container.manifest import decompress, read_manifest
from thinfilm_gateway.archive.store import RangeReader
from thinfilm_gateway.dicom.pixels import pixel_bytes

_DECODING_FACTOR = 2  # what decoding a group takes, in its bytes: the samples, and what they are made of
_PRIVATE_CACHE_BYTES = 32 * MIB  # enough to decode each group once when entries are read in reading_order()

_log = structlog.get_logger()


def open_container(reader: RangeReader, key: str = "", cache: FrameCache | None = None) -> "Container":
    """Open a container: two reads, of its footer and its manifest.

    Where footer or manifest are damaged, the copy of the manifest is used, found by a scan if need be; `verify` tells.
    key: names the container in a shared `cache`; the store's key.
    Raises DamagedContainer, and OSError of the reader.
    """
    try:
        manifest = _read_manifest(reader, read_footer(_tail(reader), reader.size))
    except DamagedContainer as error:
        manifest = recover(reader, error)
        _log.warning("container_recovered", key=key, reason=str(error))
    return Container(reader, manifest, key or object(), cache or FrameCache(_PRIVATE_CACHE_BYTES))


def recover(reader: RangeReader, reason: DamagedContainer) -> Manifest:
    """Find a whole manifest by going from section header to section header.

    Raises `reason`, what stood against the ordinary way, if there is none.
    """
    for kind, section in reversed(list(sections(reader))):
        if kind == MANIFEST:
            try:
                return read_manifest(_payload(reader, MANIFEST, section, "the manifest"), reader.size)
            except DamagedContainer:
                continue
    raise reason


def sections(reader: RangeReader) -> Iterator[tuple[bytes, Section]]:
    """Give (kind, section) of one section after the other, up to the footer or the first damaged header."""
    offset = len(MAGIC)
    while offset + SECTION_HEADER_BYTES <= reader.size:
        try:
            kind, _, length = read_section_header(reader.read(offset, SECTION_HEADER_BYTES))
        except DamagedContainer:
            return
        if length > min(reader.size - offset - SECTION_HEADER_BYTES, SECTION_LIMIT):
            return
        yield kind, Section(offset, length)
        offset += SECTION_HEADER_BYTES + length


class Container:
    """An open container; many threads may read it at a time."""

    def __init__(self, reader: RangeReader, manifest: Manifest, key: Hashable, cache: FrameCache) -> None:
        """Use open_container."""
        self._reader = reader
        self._manifest = manifest
        self._key = key
        self._cache = cache
        self._parameters: dict[tuple[int, int], bytes] = {}

    @property
    def manifest(self) -> Manifest:
        """All that is said of literals, stacks and entries."""
        return self._manifest

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The files in the container; an entry's number is its place here."""
        return self._manifest.entries

    @property
    def size(self) -> int:
        """Bytes of the container."""
        return self._reader.size

    def samples(self, entry: int) -> int:
        """Return the number of samples that an entry has in frames."""
        stacks = self._manifest.stacks
        return sum(
            run.count * stacks[run.stack].layout.with_frames(1).samples for run in self.entries[entry].frame_runs
        )

    def reading_order(self) -> list[int]:
        """Return the numbers of all entries, ordered so that each group needs to be decoded only once."""
        return sorted(range(len(self.entries)), key=lambda number: _place(self.entries[number]))

    def start(self, entry: int) -> list[Decoded]:
        """Begin to decode the frames of an entry, of long runs the first group; whoever holds the result holds these.

        That a group is damaged is told when the entry is read.
        """
        return [self._frames(run.stack, self._groups(run)[0]) for run in self.entries[entry].frame_runs]

    def each(self, entries: Iterable[int]) -> Iterator[int]:
        """Give the entries one by one while the frames of those that follow are being decoded, on all cores."""
        begun: deque[tuple[int, list[Decoded]]] = deque()
        ahead = 0
        try:
            for entry in entries:
                ahead += self.entries[entry].file_bytes
                while begun and ahead > ahead_bytes():
                    current = begun.popleft()  # held while it is read
                    ahead -= self.entries[current[0]].file_bytes
                    yield current[0]
                begun.append((entry, self.start(entry)))
            while begun:
                current = begun.popleft()
                yield current[0]
        finally:  # nobody reads the container when it has been closed
            wait([decoded for _, entry_begun in begun for decoded in entry_begun])

    def stream(self, entry: int) -> Iterator[bytes]:
        """Give the bytes of a file, at most a few groups of frames in memory.

        Raises DamagedContainer, at the latest after the last byte, where they are not those of the original.
        """
        yield from self._checked(entry, 0, self.entries[entry].sha256)

    def stream_dataset(self, entry: int) -> Iterator[bytes]:
        """Give the bytes of the data set of a DICOM entry, behind preamble and file meta information.

        Raises DamagedContainer as `stream` does, ValueError for an entry that is not DICOM.
        """
        dicom = self.entries[entry].dicom
        if dicom is None:
            raise ValueError(f"{self.entries[entry].name} is not a DICOM file.")
        yield from self._checked(entry, dicom.dataset_offset, dicom.dataset_sha256)

    def read_dataset(self, entry: int) -> bytes:
        """Return the whole data set of a DICOM entry; see stream_dataset."""
        return b"".join(self.stream_dataset(entry))

    def verify(self) -> list[str]:
        """Read all that is stored and return one sentence a damage; an empty list proves every SHA-256.

        Raises MissingDecoder.
        """
        damages = list(self.structural_damages())
        for number in self.each(self.reading_order()):
            try:
                self._prove(number)
            except DamagedContainer as error:
                damages.append(str(error))
        return damages

    def structural_damages(self) -> Iterator[str]:
        """Give a sentence for damage to magic, footer, manifest or its copy, none of which loses an entry by itself."""
        if self._reader.read(0, len(MAGIC)) != MAGIC:
            yield "The first bytes of the container are damaged."
        try:
            footer = read_footer(_tail(self._reader), self.size)
        except DamagedContainer as error:
            yield str(error)
            return
        for section, what in ((footer.manifest, "the manifest"), (footer.copy, "the manifest's copy")):
            try:
                read_manifest(_payload(self._reader, MANIFEST, section, what), self.size)
            except DamagedContainer as error:
                yield str(error)

    def check_stored_bytes(self) -> None:
        """Read every section and compare its checksum, without decoding anything.

        What was proven when it was made, and is stored as it was then, can still be read. Raises DamagedContainer.
        """
        manifest = self._manifest
        for literals in manifest.literals:
            _payload(self._reader, LITERALS, literals.section, "literal bytes")
        for stack in manifest.stacks:
            for codec in stack.codecs:
                if codec.parameters is not None:
                    _payload(self._reader, PARAMETERS, codec.parameters, "codec parameters")
            for group in stack.groups:
                _payload(self._reader, FRAMES, group.section, "frames")

    def model_hashes(self) -> tuple[str, ...]:
        """Return the hashes of the models without which the frames cannot be decoded, each once, in order.

        Parameters that are damaged, or of codecs that are not known, tell none; `verify` names them.
        """
        found: set[str] = set()
        for number, stack in enumerate(self._manifest.stacks):
            for place, stack_codec in enumerate(stack.codecs):
                with contextlib.suppress(KeyError, CodecError, DamagedContainer):
                    codec = registry.decoder(stack_codec.codec_id)
                    found.update(codec.model_hashes(self._stack_parameters(stack, number, place)))
        return tuple(sorted(found))

    def _prove(self, number: int) -> None:
        """Read an entry and compare the SHA-256 of the file and, in the same pass, of its data set."""
        entry = self.entries[number]
        dataset = hashlib.sha256()
        position = 0
        for part in self.stream(number):
            if entry.dicom is not None:
                dataset.update(memoryview(part)[max(entry.dicom.dataset_offset - position, 0) :])
            position += len(part)
        if entry.dicom is not None and dataset.hexdigest() != entry.dicom.dataset_sha256:
            raise DamagedContainer(f"{entry.name}: its data set does not have the SHA-256 of the original.")

    def _checked(self, number: int, start: int, sha256: str) -> Iterator[bytes]:
        """Give the bytes of an entry from `start` on, and refuse in the end what does not have the SHA-256."""
        name = self.entries[number].name
        digest = hashlib.sha256()
        try:
            for part in self._parts(self.entries[number], start):
                digest.update(part)
                yield part
        except DamagedContainer as error:
            raise DamagedContainer(f"{name}: {error}") from None
        if digest.hexdigest() != sha256:
            raise DamagedContainer(f"{name}: the bytes do not have the SHA-256 of the original.")

    def _parts(self, entry: Entry, start: int) -> Iterator[bytes]:
        """Give the bytes of an entry from `start` on; groups that lie wholly before it are not read."""
        position = 0
        for piece in entry.pieces:
            skip = min(max(start - position, 0), piece.length)
            position += piece.length
            if skip == piece.length:
                continue
            if isinstance(piece, LiteralRun):
                raw = self._literals(piece.group)
                yield raw[piece.offset + skip : piece.offset + piece.length].tobytes()
            elif isinstance(piece, ScanRun):
                yield from _without_first(iter([self._scan(piece)]), skip)
            else:
                yield from _without_first(self._run(piece), skip)

    def _scan(self, run: ScanRun) -> bytes:
        """Give the bytes of the scan of a frame."""
        (samples,) = self._run_samples(run)
        try:
            scan = scan_bytes(samples[0], run.coding)
        except ValueError as error:
            raise DamagedContainer(f"A scan cannot be made again: {error}") from None
        if len(scan) != run.length:
            raise DamagedContainer("A scan that was made again does not have the length that the manifest tells.")
        return scan

    def _run(self, run: FrameRun) -> Iterator[bytes]:
        """Give the bytes of a run of frames, group after group."""
        parts = self._run_samples(run)
        if run.packing.bits_allocated == 1:  # a frame may end within a byte
            parts = iter([np.concatenate(list(parts))])
        for samples in parts:
            yield pixel_bytes(samples, run.packing)

    def _run_samples(self, run: FrameRun | ScanRun) -> Iterator[SampleArray]:
        """Give the samples of a run, group after group, while the next groups are being decoded on all cores."""
        stack, groups = self._manifest.stacks[run.stack], self._groups(run)
        group_bytes = stack.layout.with_frames(stack.groups[groups[0]].frames).nbytes
        ahead = max(1, ahead_bytes() // group_bytes)
        begun = deque(self._frames(run.stack, number) for number in groups[:ahead])
        first, end = run.first, run.first + run.count
        try:
            for number in groups:
                samples = begun.popleft().result()
                if number + ahead in groups:
                    begun.append(self._frames(run.stack, number + ahead))
                start = stack.group_starts[number]
                stop = min(end, start + stack.groups[number].frames)
                yield samples[first - start : stop - start]
                first = stop
        finally:  # nobody reads the container when it has been closed
            wait(begun)

    def _groups(self, run: FrameRun | ScanRun) -> range:
        """Return the numbers of the groups in which a run lies."""
        starts = self._manifest.stacks[run.stack].group_starts
        last = run.first + run.count - 1
        return range(bisect.bisect_right(starts, run.first) - 1, bisect.bisect_right(starts, last))

    def _literals(self, number: int) -> SampleArray:
        return self._cache.get((self._key, "literals", number), partial(self._load_literals, number))

    def _load_literals(self, number: int) -> SampleArray:
        group = self._manifest.literals[number]
        payload = _payload(self._reader, LITERALS, group.section, "literal bytes")
        raw = decompress(payload, LITERAL_LIMIT, "section of literal bytes")
        if len(raw) != group.raw_bytes:
            raise DamagedContainer("A section of literal bytes does not have the length that the manifest tells.")
        return np.frombuffer(raw, np.uint8)

    def _frames(self, stack: int, group: int) -> Decoded:
        kept = self._manifest.stacks[stack]
        nbytes = _DECODING_FACTOR * kept.layout.with_frames(kept.groups[group].frames).nbytes
        return self._cache.start((self._key, "frames", stack, group), partial(self._load_frames, stack, group), nbytes)

    def _load_frames(self, stack_number: int, group_number: int) -> SampleArray:
        stack = self._manifest.stacks[stack_number]
        group = stack.groups[group_number]
        codec_id = stack.codecs[group.codec].codec_id
        try:
            codec = registry.decoder(codec_id)
        except KeyError:
            raise MissingDecoder(
                f"Its frames need the codec {codec_id}, which this version of Thinfilm does not have; install the "
                "version that wrote them, or a later one."
            ) from None
        layout = stack.layout.with_frames(group.frames)
        parameters = self._stack_parameters(stack, stack_number, group.codec)
        stream = _payload(self._reader, FRAMES, group.section, "frames")
        try:
            samples = codec.decode(stream, layout, parameters)
        except MissingModel as error:
            raise MissingDecoder(str(error)) from None
        except CodecError as error:
            raise DamagedContainer(f"A group of frames cannot be decoded by {codec_id}: {error}") from None
        if samples.shape != layout.shape or samples.dtype.name != layout.dtype:
            raise DamagedContainer(f"A group of frames decodes by {codec_id} to another layout.")
        return samples

    def _stack_parameters(self, stack: Stack, number: int, codec: int) -> bytes:
        section = stack.codecs[codec].parameters
        if section is None:
            return b""
        if (number, codec) not in self._parameters:
            self._parameters[number, codec] = _payload(self._reader, PARAMETERS, section, "codec parameters")
        return self._parameters[number, codec]


def _tail(reader: RangeReader) -> bytes:
    return reader.read(max(reader.size - FOOTER_BYTES, 0), FOOTER_BYTES)


def _read_manifest(reader: RangeReader, footer: Footer) -> Manifest:
    try:
        return read_manifest(_payload(reader, MANIFEST, footer.manifest, "the manifest"), reader.size)
    except DamagedContainer:
        return read_manifest(_payload(reader, MANIFEST, footer.copy, "the manifest's copy"), reader.size)


def _payload(reader: RangeReader, kind: bytes, section: Section, what: str) -> bytes:
    return open_section(reader.read(section.offset, SECTION_HEADER_BYTES + section.length), kind, section, what)


def _place(entry: Entry) -> tuple[int, ...]:
    """Where the first frames of an entry lie, or, without frames, its first literal bytes."""
    runs = entry.frame_runs
    if runs:
        return 1, runs[0].stack, runs[0].first
    return (0, *(piece.group for piece in entry.pieces[:1] if isinstance(piece, LiteralRun)))


def _without_first(parts: Iterator[bytes], skip: int) -> Iterator[bytes]:
    for part in parts:
        if skip < len(part):
            yield part[skip:]
        skip = max(skip - len(part), 0)
