"""Measuring one lossy codec on one series: the gentlest settings that keep to given rates, and what they make of it."""

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from time import process_time

import numpy as np

from thinfilm_codecs import registry
from thinfilm_codecs.blocks import PixelBlock, SampleArray
from thinfilm_codecs.errors import UnsupportedPixels
from thinfilm_codecs.quality import metrics, similarity
from thinfilm_gateway.bench.entrant import Coded, Entrant
from thinfilm_gateway.bench.lossy import entrants
from thinfilm_gateway.bench.series import FileStack, Series


class Verdict(enum.Enum):
    """What came of a measurement."""

    MEASURED = "measured"
    UNSUPPORTED = "unsupported"  # the codec does not take such pixels
    FAILED = "failed"


@dataclass(frozen=True)
class Point:
    """A series coded at one setting.

    targets: the rates, in bits a sample, for which this is the gentlest setting that keeps to them. Decibels are peak
    signal-to-noise ratios, infinite where no sample erred: psnr_stored of the range of Bits Stored, psnr_volume of the
    range that occurs. ssim, ms_ssim: of the range that occurs, mean over all frames. noise_texture: variance of the
    noise to that of the original's, None where nothing is homogeneous. Seconds are of CPU time.
    """

    setting: float
    targets: tuple[float, ...]
    coded_bytes: int
    rmse: float
    psnr_stored: float
    psnr_volume: float
    ssim: float
    ms_ssim: float
    max_error: int
    p999_error: int
    noise_texture: float | None
    encode_seconds: float
    decode_seconds: float


@dataclass(frozen=True)
class Measurement:
    """The points of a codec on a series, highest rate first; none, but a reason, unless the verdict is MEASURED."""

    verdict: Verdict
    reason: str = ""
    points: tuple[Point, ...] = ()


def measure(series: Series, name: str, rates: Sequence[float]) -> Measurement:
    """Find the gentlest setting that keeps to each rate, and measure those settings."""
    try:
        _warm(name)
        stacks = [_read(stack) for stack in series.stacks]
        return Measurement(Verdict.MEASURED, points=tuple(_points(stacks, name, rates)))
    except UnsupportedPixels as error:
        return Measurement(Verdict.UNSUPPORTED, str(error))
    except Exception as error:  # whatever a codec does, the others are still to be measured
        return Measurement(Verdict.FAILED, f"{type(error).__name__}: {error}")


def gentlest_setting(stack: PixelBlock, name: str, rate: float) -> float | None:
    """Return the gentlest setting that takes no more than `rate` bits a sample; None if none does."""
    search = _Search([stack], name)
    place = search.gentlest(rate)
    return None if place is None else search.ladder[place]


@dataclass(frozen=True, eq=False)
class _Trial:
    """All stacks coded at a setting; coded: one a stack."""

    entrant: Entrant
    coded: tuple[Coded, ...]
    encode_seconds: float

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in self.coded)


class _Search:
    """Codes at settings of a ladder as they are asked for, none twice, with the preset that is for searching."""

    def __init__(self, stacks: Sequence[PixelBlock], name: str) -> None:
        self._stacks = stacks
        self._name = name
        self.ladder = entrants.ladder(name)
        self._samples = sum(stack.layout.samples for stack in stacks)
        self.trials: dict[int, _Trial] = {}

    def gentlest(self, rate: float) -> int | None:
        """Return the place of the gentlest setting that takes no more than `rate` bits a sample; None if none does.

        Places double until one keeps to the rate; from there interpolation and bisection take turns.
        """
        above = max((place for place in self.trials if self._rate(place) > rate), default=-1)
        within = min((place for place in self.trials if self._rate(place) <= rate and place > above), default=None)
        bisect = False
        while (len(self.ladder) if within is None else within) - above > 1:
            place = (
                min(2 * above + 2, len(self.ladder) - 1)
                if within is None
                else self._between(above, within, rate, bisect)
            )
            if self._rate(place) > rate:
                above = place
            else:
                within = place
            bisect = not bisect
        return within

    def _between(self, above: int, within: int, rate: float, bisect: bool) -> int:
        if bisect or above < 0:
            return (above + within) // 2
        share = (self._rate(above) - rate) / (self._rate(above) - self._rate(within))
        return min(max(above + round(share * (within - above)), above + 1), within - 1)

    def _rate(self, place: int) -> float:
        if place not in self.trials:
            self.trials[place] = self.code(place, entrants.SEARCH_PRESET)
        return 8 * self.trials[place].nbytes / self._samples

    def code(self, place: int, preset: str) -> _Trial:
        """Code all stacks at the setting of a place."""
        entrant = entrants.entrant(self._name, self.ladder[place], preset)
        begin = process_time()
        coded = tuple(entrant.encode(stack) for stack in self._stacks)
        return _Trial(entrant, coded, process_time() - begin)


def _points(stacks: Sequence[PixelBlock], name: str, rates: Sequence[float]) -> Iterator[Point]:
    search = _Search(stacks, name)
    targets: dict[int, list[float]] = {}
    for rate in sorted(rates, reverse=True):
        place = search.gentlest(rate)
        if place is not None:
            targets.setdefault(place, []).append(rate)
    for place, reached in targets.items():
        again = entrants.has_presets(name)
        trial = search.code(place, registry.DEFAULT_PRESET) if again else search.trials[place]
        yield _point(stacks, search.ladder[place], tuple(reached), trial)


def _point(stacks: Sequence[PixelBlock], setting: float, targets: tuple[float, ...], trial: _Trial) -> Point:
    begin = process_time()
    decoded = [trial.entrant.decode(coded, stack.layout) for coded, stack in zip(trial.coded, stacks, strict=True)]
    decode_seconds = process_time() - begin
    pairs = [(_planes(stack.samples), _planes(result)) for stack, result in zip(stacks, decoded, strict=True)]
    errors = np.concatenate([metrics.absolute_errors(*pair).reshape(-1) for pair in pairs])
    widest = max(metrics.volume_range(original) for original, _ in pairs)
    rmse = metrics.root_mean_square(errors)
    textures = [found for pair in pairs if (found := metrics.noise_texture_ratio(*pair)) is not None]
    return Point(
        setting=setting,
        targets=targets,
        coded_bytes=trial.nbytes,
        rmse=rmse,
        psnr_stored=metrics.decibels(rmse, metrics.stored_range(max(stack.bits_stored for stack in stacks))),
        psnr_volume=metrics.decibels(rmse, widest),
        ssim=_mean([similarity.structural_similarity(*pair, widest) for pair in pairs], pairs),
        ms_ssim=_mean([similarity.multiscale_similarity(*pair, widest) for pair in pairs], pairs),
        max_error=int(errors.max()),
        p999_error=metrics.percentile_999(errors),
        noise_texture=float(np.mean(textures)) if textures else None,
        encode_seconds=trial.encode_seconds,
        decode_seconds=decode_seconds,
    )


def _mean(figures: Sequence[float], pairs: Sequence[tuple[SampleArray, SampleArray]]) -> float:
    """Return the mean over stacks, each as heavy as it has frames."""
    return float(np.average(figures, weights=[len(original) for original, _ in pairs]))


def _planes(samples: SampleArray) -> SampleArray:
    """Return (frames or components of them, rows, columns)."""
    if samples.ndim == 3:
        return samples
    return np.moveaxis(samples, 3, 1).reshape(-1, *samples.shape[1:3])


@lru_cache(maxsize=4)
def _read(stack: FileStack) -> PixelBlock:
    return stack.read()


@cache
def _warm(name: str) -> None:
    """Code a small stack, so that libraries and models are loaded before the clock runs."""
    stack = PixelBlock(np.arange(2 * 16 * 16, dtype=np.uint16).reshape(2, 16, 16), 16)
    entrant = entrants.entrant(name, entrants.ladder(name)[0])
    entrant.decode(entrant.encode(stack), stack.layout)
