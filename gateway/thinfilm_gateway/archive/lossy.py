"""Keep files lossily: what of them may be is coded and derived, ready to be packed; the rest stays as it is."""

import datetime as dt
import math
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import zstandard

from thinfilm_codecs.blocks import PixelBlock, SampleArray
from thinfilm_gateway.archive.container.format import DerivationNote, DicomHeader
from thinfilm_gateway.archive.container.frames import SECOND_EVERY, ReadyStack
from thinfilm_gateway.archive.container.order import SourceFrames, StackPlan, plan
from thinfilm_gateway.archive.container.pack import CannotPack, ReadyFrames, Source, source_frames
from thinfilm_gateway.archive.container.survey import Survey, map_file, reopen_pixels, survey
from thinfilm_gateway.archive.derivation import TRANSFER_SYNTAX_UID, CannotDerive, LossyStep, derive
from thinfilm_gateway.archive.permission import body_part, sample_limits, why_lossless
from thinfilm_gateway.archive.viewer import CannotCompare, Difference, difference
from thinfilm_gateway.dicom import part10
from thinfilm_gateway.dicom.inflating import Scratch
from thinfilm_gateway.policy import ceilings
from thinfilm_gateway.policy.ceilings import Ceiling, LosslessOnly
from thinfilm_gateway.policy.choice import NO_GAIN, Accepted, Outcome, choose
from thinfilm_gateway.policy.limits import SampleLimits
from thinfilm_gateway.policy.lossy import LossyTreatment


@dataclass(frozen=True)
class Decision:
    """What is to become of a source.

    dicom: what it says of itself, None for what is no DICOM file. derived_uid: SOP Instance UID of the object that
    takes its place, empty where it stays as it is. reason: one sentence, of the guard or on why it is kept lossless.
    ceiling: None where it has none. outcome: of the stack that its frames are in, None where it is kept lossless.
    stored_bits: what its samples take by Bits Stored, as they came; 0 for what has no frames.
    """

    dicom: DicomHeader | None
    derived_uid: str
    reason: str
    ceiling: Ceiling | None
    outcome: Outcome | None
    stored_bits: int = 0


@dataclass(frozen=True)
class LossyFiles:
    """Sources as they are to be packed, in the order in which they came, with the streams of those that were derived.

    decisions: one a source.
    """

    sources: tuple[Source, ...]
    ready: tuple[ReadyFrames, ...]
    decisions: tuple[Decision, ...]


def derive_files(
    sources: Sequence[Source],
    folder: Path,
    treatment: LossyTreatment,
    threads: int = 1,
    check: Callable[[], None] = lambda: None,
    made_at: dt.datetime | None = None,
) -> LossyFiles:
    """Code what may be lossy, and write the objects derived from it into `folder`, which the caller removes.

    threads: groups of frames coded at a time. check: called between trials of settings; what it raises ends the work.
    made_at: written into the file meta information as the time of receipt, where given.
    Raises CannotPack for a file that changes meanwhile, OSError.
    """
    return _Deriver(sources, folder, treatment, threads, check, made_at).run()


@dataclass(frozen=True)
class _Kind:
    """What frames must share to be coded together, besides what `plan` asks for."""

    ceiling: Ceiling
    limits: SampleLimits


@dataclass(frozen=True)
class _Derived:
    """What takes the place of a source. difference: as a viewer sees it."""

    source: Source
    decision: Decision
    difference: Difference


class _Deriver:
    def __init__(
        self,
        sources: Sequence[Source],
        folder: Path,
        treatment: LossyTreatment,
        threads: int,
        check: Callable[[], None],
        made_at: dt.datetime | None,
    ) -> None:
        self._sources = list(sources)
        self._folder = folder
        self._treatment = treatment
        self._threads = threads
        self._profile = ceilings.profile(treatment.profile)
        self._check = check
        self._made_at = made_at
        self._decisions: list[Decision] = []
        self._ready: list[ReadyFrames] = []

    def run(self) -> LossyFiles:
        scratch = Scratch(self._folder)
        kinds: dict[_Kind, list[SourceFrames]] = defaultdict(list)
        for number, source in enumerate(self._sources):
            self._check()
            found = survey(source.path, scratch)
            kind = self._kind(found, scratch)
            reason, ceiling = (kind, None) if isinstance(kind, str) else ("", kind.ceiling)
            self._decisions.append(Decision(found.dicom, "", reason, ceiling, None, _stored_bits(found)))
            if isinstance(kind, _Kind):
                kinds[kind].append(source_frames(number, found))
        for kind, frames in kinds.items():
            for stack_plan in self._whole_plans(frames):
                self._code(stack_plan, kind)
        return LossyFiles(tuple(self._sources), tuple(self._ready), tuple(self._decisions))

    def _kind(self, found: Survey, scratch: Scratch) -> _Kind | str:
        """Return what the frames of an object must be coded with, or why it is kept lossless."""
        if reason := why_lossless(found, scratch):
            return reason
        assert found.attributes is not None
        assert found.pixels is not None
        assert found.dicom is not None
        ceiling = self._profile.ceiling(found.dicom.modality, body_part(found.attributes))
        if isinstance(ceiling, LosslessOnly):
            return ceiling.reason
        return _Kind(ceiling, sample_limits(found.attributes, found.pixels.block))

    def _whole_plans(self, frames: list[SourceFrames]) -> Iterator[StackPlan]:
        """Give stacks of whole sources; a source that does not fit into one is kept lossless."""
        plans = plan(frames)
        frames_of = {each.source: each.layout.frames for each in frames}
        if all(piece.count == frames_of[piece.source] for each in plans for piece in each.slices):
            yield from plans
            return
        for source in frames:
            first, *others = plan([source])
            if others:
                self._keep_lossless([source.source], "Its frames do not fit into one stack.")
            else:
                yield first

    def _code(self, stack_plan: StackPlan, kind: _Kind) -> None:
        """Choose a setting for a stack and derive the objects of its sources, or note why it is kept lossless."""
        begin = time.perf_counter()
        numbers = [piece.source for piece in stack_plan.slices]
        block = self._block(stack_plan)
        chosen = choose(block, self._treatment, kind.ceiling, kind.limits, self._threads, self._check)
        if isinstance(chosen, LosslessOnly):
            self._keep_lossless(numbers, chosen.reason)
            return
        if not _agrees(chosen, block):
            self._keep_lossless(numbers, "Another back end of its codec decodes other samples.")
            return
        first = 0
        derived: list[_Derived] = []
        try:
            for piece in stack_plan.slices:
                samples = chosen.coded.samples[first : first + piece.count]
                derived.append(self._derive(piece.source, samples, chosen.outcome))
                first += piece.count
            outcome = _as_seen([one.difference for one in derived], chosen.outcome)
        except (CannotDerive, CannotCompare) as error:
            self._keep_lossless(numbers, str(error))
            return
        growth = _bytes_around(one.source for one in derived) - _bytes_around(self._sources[n] for n in numbers)
        if chosen.coded.nbytes + growth >= chosen.lossless_bytes:
            self._keep_lossless(numbers, NO_GAIN)
            return
        for number, one in zip(numbers, derived, strict=True):
            self._sources[number], self._decisions[number] = one.source, replace(one.decision, outcome=outcome)
        seconds = time.perf_counter() - begin
        self._ready.append(ReadyFrames(stack_plan.slices, _ready_stack(chosen, stack_plan), seconds))

    def _block(self, stack_plan: StackPlan) -> PixelBlock:
        samples = [self._samples(piece.source) for piece in stack_plan.slices]
        joined = samples[0] if len(samples) == 1 else np.concatenate(samples)
        return PixelBlock(joined, stack_plan.bits_stored, stack_plan.frame_axis, stack_plan.spacing)

    def _samples(self, number: int) -> SampleArray:
        dicom = self._decisions[number].dicom
        pixels = reopen_pixels(self._sources[number].path, dicom) if dicom else None
        if pixels is None:
            raise CannotPack(f"{self._sources[number].path} was changed while it was packed.")
        return pixels.block.samples

    def _derive(self, number: int, samples: SampleArray, outcome: Outcome) -> "_Derived":
        """Write the object derived from a source; return what takes the place of the source, and how near it is."""
        source, decision = self._sources[number], self._decisions[number]
        file = map_file(source.path)
        header = part10.locate(file)
        assert decision.dicom is not None
        dataset = file[decision.dicom.dataset_offset :]
        step = LossyStep(outcome.codec_id, outcome.setting, outcome.ratio_allocated)
        made = derive(dataset, decision.dicom.transfer_syntax_uid, samples, step)
        path = self._folder / f"{secrets.token_hex(16)}.dcm"
        with path.open("xb") as target:
            came_from = (header.source_ae_title, header.source_address) if header else ("", "")
            meta = (made.sop_class_uid, made.sop_instance_uid, TRANSFER_SYNTAX_UID, *came_from, self._made_at)
            target.write(part10.build(*meta))
            target.write(made.dataset)
        reason = " ".join(filter(None, (outcome.verdict.reason, outcome.shortfall)))
        decided = replace(decision, derived_uid=made.sop_instance_uid, reason=reason, outcome=outcome)
        return _Derived(Source(path, source.name, self._note(decided)), decided, difference(source.path, path))

    def _note(self, decision: Decision) -> DerivationNote:
        """Return what the container is to tell of a derived object."""
        dicom, ceiling, outcome = decision.dicom, decision.ceiling, decision.outcome
        assert dicom is not None
        assert ceiling is not None
        assert outcome is not None
        return DerivationNote(
            original_sop_instance_uid=dicom.sop_instance_uid,
            original_sha256=dicom.dataset_sha256,
            codec_id=outcome.codec_id,
            setting=outcome.setting,
            ratio=outcome.ratio_allocated,
            profile=self._treatment.profile,
            ceiling=float(ceiling.ratio),
            citation=ceiling.citation,
            error_bound=self._treatment.max_error,
        )

    def _keep_lossless(self, numbers: Sequence[int], reason: str) -> None:
        for number in numbers:
            self._decisions[number] = replace(self._decisions[number], reason=reason)


def _agrees(chosen: Accepted, block: PixelBlock) -> bool:
    """Tell whether another back end finds the same samples in some of the groups."""
    coded = chosen.coded
    step = coded.codec.frames_per_group(block.layout)
    decoded = replace(block, samples=coded.samples)
    return all(
        coded.codec.agrees(coded.streams[number], decoded.frames(number * step, step), coded.parameters)
        for number in range(0, len(coded.streams), SECOND_EVERY)
    )


def _as_seen(differences: Sequence[Difference], outcome: Outcome) -> Outcome:
    """Return the outcome of a stack with its errors as a viewer sees them.

    Raises CannotCompare where these are not those that the coder saw, since then one of the two read other samples.
    """
    max_error = max(one.max_error for one in differences)
    rmse = math.sqrt(sum(one.squares for one in differences) / sum(one.samples for one in differences))
    if max_error != outcome.max_error or not math.isclose(rmse, outcome.rmse, rel_tol=1e-6, abs_tol=1e-9):
        raise CannotCompare(f"A viewer would see errors up to {max_error}, where its coder saw {outcome.max_error}.")
    return replace(outcome, max_error=max_error, rmse=rmse)


def _bytes_around(sources: Iterable[Source]) -> int:
    """Return about what all of the sources but their pixels takes in a container."""
    stream = zstandard.ZstdCompressor().compressobj()
    taken = 0
    for source in sources:
        found = survey(source.path)
        position = 0
        for part in found.pixels.parts if found.pixels else ():
            taken += len(stream.compress(found.data[position : part.offset]))
            position = part.offset + part.length
        taken += len(stream.compress(found.data[position:]))
        if source.derived:
            taken += len(stream.compress(repr(source.derived).encode()))
    return taken + len(stream.flush())


def _stored_bits(found: Survey) -> int:
    if found.pixels is None:
        return 0
    block = found.pixels.block
    return block.layout.samples * block.bits_stored


def _ready_stack(chosen: Accepted, stack_plan: StackPlan) -> ReadyStack:
    coded = chosen.coded
    frames_per_group = coded.codec.frames_per_group(stack_plan.layout)
    return ReadyStack(stack_plan.layout, coded.codec.codec_id, coded.parameters, coded.streams, frames_per_group)
