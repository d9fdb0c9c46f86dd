"""Packing files into a container: literal bytes first, then the frames of each series, then the manifest."""

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset

from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray
from thinfilm_codecs.jpeg_lossless import ScanCoding
from thinfilm_gateway.archive.ahead import in_order
from thinfilm_gateway.archive.container.format import (
    STACK_LIMIT,
    DerivationNote,
    DicomHeader,
    Entry,
    FrameRun,
    LiteralRun,
    Manifest,
    Piece,
    ScanRun,
    Stack,
    check_names,
    frame_run,
    scan_run,
)
from thinfilm_gateway.archive.container.frames import PreparedStack, ReadyStack, prepare_stack, write_ready, write_stack
from thinfilm_gateway.archive.container.literals import LiteralWriter
from thinfilm_gateway.archive.container.order import FrameSlice, SourceFrames, StackPlan, plan
from thinfilm_gateway.archive.container.report import PackedEntry, PackReport, frame_codecs, series_rows, stored_shares
from thinfilm_gateway.archive.container.survey import FrameBytes, SourcePixels, Survey, reopen_pixels, survey
from thinfilm_gateway.archive.container.writer import ContainerWriter
from thinfilm_gateway.archive.store import sync
from thinfilm_gateway.dicom import values
from thinfilm_gateway.dicom.dataset import UnreadableDataSet
from thinfilm_gateway.dicom.inflating import Scratch
from thinfilm_gateway.policy.lossless import Treatment

_AHEAD_BYTES = STACK_LIMIT // 2  # raw bytes of stacks that are fitted while those before them are coded
_FARTHEST_MM = 1e6  # a place farther away is no place in a patient


class CannotPack(Exception):
    """The files cannot be packed as they are; the message is one sentence.

    source: number of the file that keeps the others from being packed; None where it is not one alone.
    """

    def __init__(self, sentence: str, source: int | None = None) -> None:
        super().__init__(sentence)
        self.source = source


@dataclass(frozen=True)
class Source:
    """A file to pack, and its name in the container: a relative path with slashes. derived: how it was made here."""

    path: Path
    name: str
    derived: DerivationNote | None = None


@dataclass(frozen=True)
class ReadyFrames:
    """Frames whose streams were made before: slices of the sources, in order, and their stack.

    The streams must decode to the very samples of the sources; the packer does not try. seconds: what coding took.
    """

    slices: tuple[FrameSlice, ...]
    stack: ReadyStack
    seconds: float


def pack(
    sources: Sequence[Source],
    destination: Path,
    treatment: Treatment,
    progress: Callable[[int], None] | None = None,
    threads: int = 1,
    ready: Sequence[ReadyFrames] = (),
) -> PackReport:
    """Pack files into the container `destination`, which is on the disk, whole, on return; on failure nothing is left.

    The same files give the same bytes. Memory stays within a few stacks, whatever the size of the files.
    treatment: the codecs to measure, and how hard they try; zstd and raw take what they cannot keep.
    progress: is told how many more bytes of the sources were packed.
    threads: groups of frames that are coded, or stacks that are fitted, at a time.
    ready: streams for all frames of some sources, whose number is their place in `sources`; other frames are coded.
    Raises CannotPack for no files, names that collide or escape, and files that change meanwhile; OSError.
    """
    if not sources:
        raise CannotPack("There is no file to pack.")
    try:
        check_names([source.name for source in sources])
    except ValueError as error:
        raise CannotPack(str(error)) from None
    part = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file, ThreadPoolExecutor(threads) as pool:
            report = _Packer(ContainerWriter(file), treatment, progress or (lambda count: None), pool).pack(
                sources, ready, Scratch(destination.parent)
            )
        sync(part)
        part.rename(destination)
        sync(destination.parent)
    finally:
        part.unlink(missing_ok=True)
    return report


@dataclass
class _Draft:
    """An entry while its frames are not written.

    before: the literal runs before each part of the frames. runs: those of each part, so far. after: behind the last.
    """

    source: Source
    file_bytes: int
    sha256: str
    dicom: DicomHeader | None
    layout: BlockLayout | None
    parts: tuple[FrameBytes, ...]
    before: list[list[LiteralRun]]
    runs: list[list[FrameRun | ScanRun]]
    after: list[LiteralRun]

    def entry(self) -> Entry:
        """Return the entry, its pieces in the order of the file."""
        pieces: list[Piece] = []
        for literals, runs in zip(self.before, self.runs, strict=True):
            pieces += [*literals, *runs]
        pieces += self.after
        return Entry(self.source.name, self.file_bytes, self.sha256, self.dicom, tuple(pieces), self.source.derived)

    def add_frames(self, stack: int, layout: BlockLayout, first_in_stack: int, piece: FrameSlice) -> int:
        """Note that the frames of a slice lie in a stack, from `first_in_stack` on; return their bytes in the file."""
        start = file_bytes = 0
        for part, runs in zip(self.parts, self.runs, strict=True):
            begin, end = max(piece.first, start), min(piece.first + piece.count, start + part.count)
            start += part.count
            if begin >= end:
                continue
            place = first_in_stack + begin - piece.first
            if isinstance(part.packing, ScanCoding):
                runs.append(scan_run(stack, layout, place, part.packing, part.length))
            else:
                runs.append(frame_run(stack, layout, place, end - begin, part.packing))
            file_bytes += runs[-1].length
        return file_bytes


class _Packer:
    """Packs into one writer."""

    def __init__(
        self, writer: ContainerWriter, treatment: Treatment, progress: Callable[[int], None], pool: ThreadPoolExecutor
    ) -> None:
        self._writer = writer
        self._treatment = treatment
        self._candidates = treatment.candidates()
        self._progress = progress
        self._pool = pool
        self._literals = LiteralWriter(writer)
        self._drafts: list[_Draft] = []
        self._frames: list[SourceFrames] = []
        self._stacks: list[Stack] = []
        self._stack_seconds: list[float] = []
        self._failures: list[str] = []
        self._opening = threading.Lock()
        self._reopened: tuple[int, SourcePixels] | None = None

    def pack(self, sources: Sequence[Source], ready: Sequence[ReadyFrames], scratch: Scratch) -> PackReport:
        for source in sources:
            self._keep_literals(source, survey(source.path, scratch))
        literals = self._literals.finish()
        for frames in ready:
            self._keep_ready(frames)
        coded = {piece.source for frames in ready for piece in frames.slices}
        plans = plan([frames for frames in self._frames if frames.source not in coded])
        prepared = in_order(self._pool, self._prepare, plans, lambda each: each.layout.nbytes, _AHEAD_BYTES)
        for stack_plan, stack in zip(plans, prepared, strict=True):
            self._keep_frames(stack_plan, stack)
        manifest = Manifest(literals, tuple(self._stacks), tuple(draft.entry() for draft in self._drafts))
        try:
            self._writer.finish(manifest)
        except ValueError as error:
            raise CannotPack(str(error)) from None
        shares = stored_shares(manifest, self._writer.size)
        return PackReport(
            entries=tuple(
                PackedEntry(entry.name, share) for entry, share in zip(manifest.entries, shares, strict=True)
            ),
            series=series_rows(manifest, self._stack_seconds, self._treatment.preset),
            codecs=frame_codecs(manifest.stacks),
            codec_failures=tuple(self._failures),
            archive_bytes=self._writer.size,
        )

    def _keep_literals(self, source: Source, found: Survey) -> None:
        """Write what is not pixels; note the pixels for later."""
        data, parts = found.data, found.pixels.parts if found.pixels else ()
        if found.failure:
            self._failures.append(f"{source.name}: {found.failure}")
        if found.pixels:
            self._frames.append(source_frames(len(self._drafts), found))
        done = 0
        before = []
        for part in parts:
            before.append(self._literals.add(data[done : part.offset]))
            done = part.offset + part.length
        after = self._literals.add(data[done:])
        self._progress(len(data) - sum(part.length for part in parts))
        layout = found.pixels.block.layout if found.pixels else None
        runs: list[list[FrameRun | ScanRun]] = [[] for _ in parts]
        self._drafts.append(_Draft(source, len(data), found.sha256, found.dicom, layout, parts, before, runs, after))

    def _block(self, stack_plan: StackPlan) -> PixelBlock:
        samples = [self._samples(piece) for piece in stack_plan.slices]
        return PixelBlock(
            samples[0] if len(samples) == 1 else np.concatenate(samples),
            stack_plan.bits_stored,
            stack_plan.frame_axis,
            stack_plan.spacing,
        )

    def _prepare(self, stack_plan: StackPlan) -> PreparedStack:
        with self._opening:
            block = self._block(stack_plan)
        return prepare_stack(block, self._candidates)

    def _keep_ready(self, ready: ReadyFrames) -> None:
        """Write streams that were made before and tell their sources where their frames lie."""
        self._progress(self._place_frames(ready.slices, ready.stack.layout))
        self._stacks.append(write_ready(ready.stack, self._writer))
        self._stack_seconds.append(ready.seconds)

    def _keep_frames(self, stack_plan: StackPlan, prepared: PreparedStack) -> None:
        """Code a stack and tell its sources where their frames lie."""
        begin = time.perf_counter()
        placed = self._place_frames(stack_plan.slices, stack_plan.layout)
        progress = self._frame_progress(placed, stack_plan.layout.frames)
        written = write_stack(prepared, self._writer, self._pool, progress)
        first = self._drafts[stack_plan.slices[0].source].source.name
        self._failures.extend(f"The frames of {first} and its like: {failure}" for failure in written.failures)
        self._stacks.append(written.stack)
        self._stack_seconds.append(prepared.seconds + time.perf_counter() - begin)

    def _place_frames(self, slices: Sequence[FrameSlice], layout: BlockLayout) -> int:
        """Tell the sources of the next stack where their frames lie; return the bytes of the files that these are."""
        first = file_bytes = 0
        for piece in slices:
            draft = self._drafts[piece.source]
            file_bytes += draft.add_frames(len(self._stacks), layout, first, piece)
            first += piece.count
        return file_bytes

    def _frame_progress(self, file_bytes: int, frames: int) -> Callable[[int], None]:
        """Return what turns frames done, of a stack that stands for so many bytes of the files, into progress."""
        told = 0

        def frames_done(done: int) -> None:
            nonlocal told
            now = max(told, file_bytes * done // frames)  # a stack may be coded twice
            self._progress(now - told)
            told = now

        return frames_done

    def _samples(self, piece: FrameSlice) -> SampleArray:
        """Open the frames of a source again: not all sources could stay open at a time."""
        if self._reopened is None or self._reopened[0] != piece.source:
            self._reopened = piece.source, self._reopen(piece.source)
        return self._reopened[1].block.frames(piece.first, piece.count).samples

    def _reopen(self, number: int) -> SourcePixels:
        draft = self._drafts[number]
        assert draft.dicom is not None
        try:
            pixels = reopen_pixels(draft.source.path, draft.dicom)
        except UnreadableDataSet:
            pixels = None
        if pixels is None or (pixels.block.layout, pixels.parts) != (draft.layout, draft.parts):
            raise CannotPack(f"{draft.source.path} was changed while it was packed.", number)
        return pixels


def source_frames(number: int, found: Survey) -> SourceFrames:
    """Return what is known of the frames of source `number`, which must have pixels."""
    assert found.pixels is not None
    assert found.dicom is not None
    assert found.attributes is not None
    block = found.pixels.block
    return SourceFrames(
        source=number,
        series=found.dicom.series_instance_uid,
        layout=block.layout,
        bits_stored=block.bits_stored,
        frame_axis=block.frame_axis,
        spacing=block.spacing,
        orientation=_numbers(found.attributes, "ImageOrientationPatient", 6),
        position=_numbers(found.attributes, "ImagePositionPatient", 3),
        instance_number=values.integer(found.attributes, "InstanceNumber"),
    )


def _numbers(attributes: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    found = values.numbers(attributes, keyword)
    return found if len(found) == count and all(abs(number) < _FARTHEST_MM for number in found) else None
