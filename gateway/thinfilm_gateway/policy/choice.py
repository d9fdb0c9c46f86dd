"""Choose the setting of a lossy codec for a stack: the coarsest that its ceiling, the guard and the bounds allow."""

from collections.abc import Callable
from dataclasses import dataclass

from thinfilm_codecs import registry
from thinfilm_codecs.blocks import PixelBlock
from thinfilm_codecs.errors import CodecError, UnsupportedPixels
from thinfilm_codecs.lossy import stack as lossy_stack
from thinfilm_codecs.lossy.codec import LossyCodec
from thinfilm_codecs.lossy.stack import CodedStack
from thinfilm_codecs.quality.guard import Verdict, judge
from thinfilm_codecs.quality.metrics import absolute_errors, root_mean_square
from thinfilm_gateway.policy.ceilings import Ceiling, LosslessOnly
from thinfilm_gateway.policy.limits import SampleLimits
from thinfilm_gateway.policy.lossy import LossyTreatment

_SAMPLE_BUDGET = 500_000
"""Samples of a stack that tell near which setting to look; a smaller stack tells by itself."""

NO_GAIN = "Kept lossless, these frames take no more."
"""Why frames stay lossless that would not become smaller."""

_RIVAL = "jpegls"  # what a lossy stream must be smaller than: cheap, and seldom far from the best


@dataclass(frozen=True)
class Outcome:
    """A stack as it is kept lossily, and how near it is.

    ratio_allocated, ratio_stored: bits of the samples, as allocated and as stored, to coded bits with all parameters.
    max_error, rmse: of all samples of the stack. verdict: of the guard, with the errors of the frame that it names.
    shortfall: why the ratio that was asked for is not reached, empty where it is, or none was asked for.
    """

    codec_id: str
    setting: str
    ratio_allocated: float
    ratio_stored: float
    max_error: int
    rmse: float
    verdict: Verdict
    samples: int
    bits_stored: int
    shortfall: str


@dataclass(frozen=True, eq=False)
class Accepted:
    """The streams that are to be kept, and what is to be recorded of them.

    lossless_bytes: what the frames take where they are kept as they are.
    """

    coded: CodedStack
    outcome: Outcome
    lossless_bytes: int


def choose(
    stack: PixelBlock,
    treatment: LossyTreatment,
    ceiling: Ceiling,
    limits: SampleLimits,
    threads: int = 1,
    check: Callable[[], None] = lambda: None,
) -> Accepted | LosslessOnly:
    """Return the stack coded by the coarsest setting that may be, or why there is none.

    A setting may be where neither ratio is above the ceiling, the guard keeps it at the ceiling's rate, no error is
    above the bound of the treatment, and the samples keep to their limits. With a ratio asked for, no setting is
    taken that is coarser than the gentlest that reaches it.
    threads: groups of frames coded at a time. check: called between the trials; what it raises ends the search.
    """
    codec = treatment.codec()
    if not codec.supports(stack.layout):
        return LosslessOnly(f"The codec {codec.codec_id} does not code frames of this kind.")
    trials = _Trials(stack, treatment, ceiling, limits, check)
    try:
        start = 0
        if (sample := _sample(stack)) is not stack:
            expected = _search(sample, treatment.fastest(), _Trials(sample, treatment, ceiling, limits, check), threads)
            start = codec.ladder.index(expected.codec.setting) if expected else 0
        chosen = _search(stack, codec, trials, threads, start)
    except CodecError as error:
        return LosslessOnly(f"The codec {codec.codec_id} cannot code these frames: {error}")
    if chosen is None:
        return LosslessOnly(f"No setting of {codec.codec_id} may be taken. {trials.complaint}")
    lossless_bytes = _lossless_bytes(stack)
    if chosen.nbytes >= lossless_bytes:
        return LosslessOnly(NO_GAIN)
    return Accepted(chosen, trials.outcome(chosen), lossless_bytes)


def _search(stack: PixelBlock, codec: LossyCodec, trials: "_Trials", threads: int, start: int = 0) -> CodedStack | None:
    """Return the stack at the setting that is wanted and may be; None if there is none. start: where it is expected."""
    wanted = None
    if trials.is_ratio_wanted:
        wanted = lossy_stack.gentlest(stack, codec, trials.reaches, threads, start)
        if wanted is not None and trials.accepts(wanted):
            return wanted
        trials.fall_short()
    return lossy_stack.coarsest(stack, codec, trials.accepts_as_gentle(wanted), threads, start)


def _sample(stack: PixelBlock) -> PixelBlock:
    """Return the middle frames of a stack, at most _SAMPLE_BUDGET samples of them, but one frame at least."""
    layout = stack.layout
    count = max(1, _SAMPLE_BUDGET * layout.frames // layout.samples)
    return stack if count >= layout.frames else stack.frames((layout.frames - count) // 2, count)


class _Trials:
    """Judges what settings make of a stack. complaint: why the last one may not be; where none may, the gentlest."""

    def __init__(
        self,
        stack: PixelBlock,
        treatment: LossyTreatment,
        ceiling: Ceiling,
        limits: SampleLimits,
        check: Callable[[], None],
    ) -> None:
        self.complaint = ""
        self._stack = stack
        self._treatment = treatment
        self._ceiling = ceiling.ratio
        self._limits = limits
        self._check = check
        self._verdicts: dict[float, Verdict] = {}
        self._shortfall = ""
        self._bits_allocated = 8 * stack.samples.itemsize

    @property
    def is_ratio_wanted(self) -> bool:
        """Whether a ratio is asked for."""
        return self._treatment.ratio is not None

    def reaches(self, coded: CodedStack) -> bool:
        """Tell whether the ratio that is asked for is reached."""
        self._check()
        return self._treatment.ratio is not None and self._ratio(coded, self._bits_allocated) >= self._treatment.ratio

    def fall_short(self) -> None:
        """Note that the ratio that is asked for is not reached, and why the setting may not be that would."""
        why = self.complaint or "No setting is so coarse."
        self._shortfall = f"The ratio of {self._treatment.ratio:g} that was asked for is not reached. {why}"

    def accepts_as_gentle(self, wanted: CodedStack | None) -> Callable[[CodedStack], bool]:
        """Return `accepts`, of settings that are no coarser than the wanted one."""
        if wanted is None:
            return self.accepts
        ladder = wanted.codec.ladder
        coarsest = ladder.index(wanted.codec.setting)
        return lambda coded: ladder.index(coded.codec.setting) <= coarsest and self.accepts(coded)

    def accepts(self, coded: CodedStack) -> bool:
        """Tell whether a setting may be."""
        self._check()
        ratio = max(self._ratios(coded))
        if ratio > self._ceiling:
            self.complaint = f"The ratio would be {ratio:.2f}, above the ceiling of {self._ceiling:g}."
        else:
            self.complaint = self._limits.complaint(self._stack.samples, coded.samples)
        if not self.complaint:
            rate = self._bits_allocated / self._ceiling
            verdict = judge(self._stack, coded.samples, rate, self._treatment.max_error)
            self._verdicts[coded.codec.setting] = verdict
            self.complaint = "" if verdict.kept else verdict.reason
        return not self.complaint

    def outcome(self, coded: CodedStack) -> Outcome:
        """Return what is to be recorded of a setting that was accepted."""
        ratio_allocated, ratio_stored = self._ratios(coded)
        errors = absolute_errors(self._stack.samples, coded.samples)
        return Outcome(
            codec_id=coded.codec.codec_id,
            setting=_described(coded.codec),
            ratio_allocated=ratio_allocated,
            ratio_stored=ratio_stored,
            max_error=int(errors.max()),
            rmse=root_mean_square(errors),
            verdict=self._verdicts[coded.codec.setting],
            samples=self._stack.layout.samples,
            bits_stored=self._stack.bits_stored,
            shortfall=self._shortfall,
        )

    def _ratios(self, coded: CodedStack) -> tuple[float, float]:
        """Return the ratios of bits as allocated, and as stored."""
        return self._ratio(coded, self._bits_allocated), self._ratio(coded, self._stack.bits_stored)

    def _ratio(self, coded: CodedStack, bits: int) -> float:
        return self._stack.layout.samples * bits / (8 * coded.nbytes)


def _lossless_bytes(stack: PixelBlock) -> int:
    """Return what the frames take by a lossless codec, or as they are where that is less."""
    rival = registry.get(_RIVAL)
    step = rival.frames_per_group(stack.layout)
    try:
        coded = sum(len(rival.encode(stack.frames(first, step), b"")) for first in range(0, stack.layout.frames, step))
    except UnsupportedPixels:
        return stack.layout.nbytes
    return min(coded, stack.layout.nbytes)


def _described(codec: LossyCodec) -> str:
    """Return the setting, and what it promises, as people read it in descriptions of derived objects."""
    setting = f"{codec.setting_name} {codec.setting:g}"
    return setting if codec.promised_error is None else f"{setting}, no error above {codec.promised_error}"
