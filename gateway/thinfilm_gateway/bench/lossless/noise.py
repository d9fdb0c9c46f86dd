"""How many bits a sample the noise of a stack has, by estimate: less no model can spend, whatever it learns.

Three steps, each known by itself. (1) What a stationary Gaussian process costs is the entropy of the error of its best
linear predictor (Kolmogorov; Cover and Thomas, Elements of Information Theory, 12.5): the predictor is fitted to the
stack by weighted least squares, so that the correlation which reconstruction leaves in noise is not counted as noise.
(2) The standard deviation of that error is taken in small blocks, from its median size, and the lower quartile among
blocks of about the same brightness is the noise at this brightness, because anatomy only adds to it (Olsen, Estimation
of noise in images, CVGIP 1993). (3) A Gaussian of that deviation, rounded to the steps of the samples, has the entropy
given by Pence, White and Seaman, PASP 122, 1065 (2010), computed exactly here for small deviations.

On white noise the quartile makes it 0.13 bits too low; noise below about half a step counts as none.
"""

import itertools
from dataclasses import dataclass
from math import e as euler
from math import erf, log2, pi, sqrt

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.blocks import PixelBlock, SampleArray

_BANDS = 6
_BAND_PIXELS = 1 << 18
_BLOCK = 8
_REACH = 3  # rows and columns in the frame itself
_REACH_BEFORE = 2  # in the frame before
_ROUNDS = 2
_BRIGHTNESSES = 16
_QUARTILE = 25
_NORMAL = 1.4826  # standard deviation of a Gaussian to its median absolute deviation
_DENSE = 0.75  # sparser levels are numbered through, as lossless codecs do

Float = npt.NDArray[np.float32]


def entropy(stack: PixelBlock) -> float:
    """Return the estimated entropy of the noise, in bits a sample; the mean over the components of colour."""
    samples = stack.samples[..., None] if stack.samples.ndim == 3 else stack.samples
    return float(np.mean([_entropy(samples[..., component]) for component in range(samples.shape[3])]))


def rounded_gaussian_entropy(deviation: float) -> float:
    """Return the entropy in bits of a Gaussian of this standard deviation, rounded to whole numbers."""
    if deviation > 4:
        return 0.5 * log2(2 * pi * euler * deviation**2)
    if deviation < 0.01:
        return 0.0
    below = [erf((step + 0.5) / (deviation * sqrt(2))) for step in range(-25, 25)]
    shares = [(high - low) / 2 for low, high in itertools.pairwise(below)]
    return -sum(share * log2(share) for share in shares if share > 0)


@dataclass(frozen=True, eq=False)
class _Band:
    """Rows of a frame: for each pixel the known neighbours and itself, all less the mean of the neighbours.

    taps: (rows, columns, neighbours). target, brightness: (rows, columns); whole blocks of both.
    """

    taps: Float
    target: Float
    brightness: Float


def _entropy(frames: SampleArray) -> float:
    bands = _bands(frames)
    if not bands:
        return 0.0
    weights = [np.ones_like(band.target) for band in bands]
    deviations: list[Float] = []
    for _ in range(_ROUNDS):
        coefficients = _fitted(bands, weights)
        errors = [band.target - band.taps @ coefficients for band in bands]
        deviations = [_deviations(error) for error in errors]
        weights = [_weights(error, deviation) for error, deviation in zip(errors, deviations, strict=True)]
    deviation = np.concatenate([each.reshape(-1) for each in deviations])
    brightness = np.concatenate([_blocks(band.brightness).mean(2).reshape(-1) for band in bands])
    alike = np.array_split(deviation[np.argsort(brightness, kind="stable")], _BRIGHTNESSES)
    bits = [len(part) * rounded_gaussian_entropy(float(np.percentile(part, _QUARTILE))) for part in alike if len(part)]
    return sum(bits) / len(deviation)


def _bands(frames: SampleArray) -> list[_Band]:
    """Return bands of rows, evenly spread over the frames, each with the frame before where there is one."""
    count, rows, columns = frames.shape
    height = min(rows, max(_BLOCK, _BAND_PIXELS // columns)) // _BLOCK * _BLOCK
    if height == 0 or columns < _BLOCK:
        return []
    places = [(frame, row) for frame in range(min(1, count - 1), count) for row in range(0, rows - height + 1, height)]
    picked = np.unique(np.linspace(0, len(places) - 1, _BANDS).round().astype(int))
    found = [
        frames[max(frame - 1, 0) : frame + 1, row : row + height] for frame, row in map(places.__getitem__, picked)
    ]
    return [_band(window) for window in _whole_steps(found)]


def _whole_steps(windows: list[SampleArray]) -> list[Float]:
    """Return the samples in units of the steps that occur; sparse levels are numbered through."""
    levels = np.unique(np.concatenate([window.reshape(-1) for window in windows])).astype(np.int64)
    span = int(levels[-1] - levels[0]) + 1
    if len(levels) < _DENSE * span:
        return [np.searchsorted(levels, window).astype(np.float32) for window in windows]
    return [(window.astype(np.int64) - levels[0]).astype(np.float32) for window in windows]


def _band(window: Float) -> _Band:
    """Gather the neighbours in the last frame of a window, and in the one before where there are two."""
    _, rows, columns = window.shape
    columns -= columns % _BLOCK
    around = np.pad(window, ((0, 0), (_REACH, _REACH), (_REACH, _REACH)), mode="edge")

    def shifted(frame: int, down: int, right: int) -> Float:
        return around[frame, _REACH + down : _REACH + down + rows, _REACH + right : _REACH + right + columns]

    here = [
        (down, right) for down in range(-_REACH, 1) for right in range(-_REACH, _REACH + 1) if (down, right) < (0, 0)
    ]
    before = range(-_REACH_BEFORE, _REACH_BEFORE + 1)
    taps = [shifted(-1, *place) for place in here]
    if len(window) > 1:
        taps += [shifted(0, down, right) for down in before for right in before]
    neighbours = np.stack(taps, axis=2)
    brightness = neighbours.mean(2)
    return _Band(neighbours - brightness[..., None], shifted(-1, 0, 0) - brightness, brightness)


def _fitted(bands: list[_Band], weights: list[Float]) -> Float:
    """Return the coefficients of least weighted squared error."""
    count = bands[0].taps.shape[2]
    products = 1e-3 * np.eye(count)
    aims = np.zeros(count)
    for band, weight in zip(bands, weights, strict=True):
        taps = band.taps.reshape(-1, count)
        weighted = (taps * weight.reshape(-1, 1)).T
        products += weighted @ taps
        aims += weighted @ band.target.reshape(-1)
    return np.linalg.solve(products, aims).astype(np.float32)


def _deviations(errors: Float) -> Float:
    """Return a robust standard deviation of each block."""
    deviations: Float = (_NORMAL * np.median(np.abs(_blocks(errors)), axis=2)).astype(np.float32)
    return deviations


def _weights(errors: Float, deviations: Float) -> Float:
    """Let quiet blocks count more, and edges in them not at all."""
    spread = np.kron(deviations, np.ones((_BLOCK, _BLOCK), np.float32))
    weights: Float = ((np.abs(errors) < 3 * spread + 0.5) / (spread**2 + 0.5)).astype(np.float32)
    return weights


def _blocks(image: Float) -> Float:
    """Return (block rows, block columns, pixels of a block)."""
    rows, columns = image.shape
    tiles = image.reshape(rows // _BLOCK, _BLOCK, columns // _BLOCK, _BLOCK).swapaxes(1, 2)
    return tiles.reshape(rows // _BLOCK, columns // _BLOCK, _BLOCK * _BLOCK)
