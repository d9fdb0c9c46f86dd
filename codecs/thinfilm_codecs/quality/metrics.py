"""How far decoded samples lie from the originals: errors in stored values, in Hounsfield units, and of noise.

All take integer samples of one shape, a frame or a stack, and reckon in 64 bits, so that no difference or square wraps.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.blocks import SampleArray

_BODY = -500  # HU: what is above is no air
_BLOCK = 8
_HOMOGENEOUS = 25  # per cent of the blocks: those of least variance

_Integers = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """A display window: values from `low` to `high` are told apart, those beyond are not."""

    low: float
    high: float


BODY_WINDOW = Window(-150, 250)
LUNG_WINDOW = Window(-1350, 150)
BRAIN_WINDOW = Window(0, 80)
BONE_WINDOW = Window(-450, 1050)
"""The usual windows of CT, in Hounsfield units."""


@dataclass(frozen=True)
class HounsfieldErrors:
    """Errors inside the body, in Hounsfield units: root of the mean square, mean magnitude, largest magnitude."""

    rmse: float
    mean_absolute: float
    maximum: float


def absolute_errors(original: SampleArray, decoded: SampleArray) -> _Integers:
    """Return the magnitude of each sample's error. Raises ValueError if the shapes differ."""
    if original.shape != decoded.shape:
        raise ValueError(f"Samples of shape {decoded.shape} are not those of {original.shape}.")
    errors: _Integers = np.abs(original.astype(np.int64) - decoded.astype(np.int64))
    return errors


def rmse(original: SampleArray, decoded: SampleArray) -> float:
    """Return the root of the mean squared error."""
    return root_mean_square(absolute_errors(original, decoded))


def maximum_error(original: SampleArray, decoded: SampleArray) -> int:
    """Return the largest absolute error."""
    return int(absolute_errors(original, decoded).max())


def root_mean_square(errors: _Integers) -> float:
    """Return the root of the mean of the squares."""
    return float(np.sqrt(np.mean(errors.astype(np.float64) ** 2)))


def percentile_999(errors: _Integers) -> int:
    """Return the 99.9th percentile by nearest rank: the smallest error that 999 of 1000 do not exceed."""
    rank = -(-errors.size * 999 // 1000)
    return int(np.partition(errors, rank - 1, axis=None)[rank - 1])


def stored_range(bits_stored: int) -> int:
    """Return the range of values of so many bits."""
    return (1 << bits_stored) - 1


def volume_range(original: SampleArray, padding: int | None = None) -> int:
    """Return the range of the values that occur, at least 1; those of Pixel Padding Value do not count."""
    values = original if padding is None else original[original != padding]
    return max(1, int(values.max()) - int(values.min())) if values.size else 1


def psnr(original: SampleArray, decoded: SampleArray, data_range: float) -> float:
    """Return the peak signal-to-noise ratio in dB, infinite for samples without error.

    data_range: the peak, say stored_range or volume_range: a figure says little without it. Raises ValueError unless
    it is above 0.
    """
    return decibels(rmse(original, decoded), data_range)


def decibels(error: float, data_range: float) -> float:
    """Return the peak signal-to-noise ratio in dB of this root mean square error. Raises ValueError as psnr does."""
    if data_range <= 0:
        raise ValueError(f"A peak signal-to-noise ratio needs a range above 0; got {data_range}.")
    return float(20 * np.log10(data_range / error)) if error > 0 else float("inf")


def window_psnr(
    original: SampleArray, decoded: SampleArray, window: Window, slope: float = 1.0, intercept: float = 0.0
) -> float:
    """Return the peak signal-to-noise ratio in dB of what a display of this window shows.

    slope, intercept: from stored values to the unit of the window, by Rescale Slope and Rescale Intercept.
    """
    shown = [np.clip(_rescaled(samples, slope, intercept), window.low, window.high) for samples in (original, decoded)]
    error = float(np.sqrt(np.mean((shown[0] - shown[1]) ** 2)))
    return decibels(error, window.high - window.low)


def hounsfield_errors(
    original: SampleArray, decoded: SampleArray, slope: float = 1.0, intercept: float = 0.0
) -> HounsfieldErrors | None:
    """Return the errors of CT where the original is above -500 HU, that is not air; None where all is air.

    The air around a patient would halve every mean.
    """
    body = _rescaled(original, slope, intercept) > _BODY
    if not body.any():
        return None
    errors = abs(slope) * absolute_errors(original[body], decoded[body]).astype(np.float64)
    return HounsfieldErrors(float(np.sqrt(np.mean(errors**2))), float(errors.mean()), float(errors.max()))


def noise_texture_ratio(original: SampleArray, decoded: SampleArray) -> float | None:
    """Return the local variance of the decoded samples to that of the originals, where anatomy does not vary.

    Below 1 the noise was smoothed away, which PSNR rewards and readers do not. Homogeneous are the quarter of the
    blocks of 8 x 8 with the least variance, without those that do not vary at all (padding); None where there are none.
    The last two axes are rows and columns.
    """
    before, after = _block_variances(original), _block_variances(decoded)
    varied = before > 0
    if not varied.any():
        return None
    homogeneous = varied & (before <= np.percentile(before[varied], _HOMOGENEOUS))
    return float(after[homogeneous].sum() / before[homogeneous].sum())


def _rescaled(samples: SampleArray, slope: float, intercept: float) -> _Floats:
    rescaled: _Floats = samples.astype(np.float64) * slope + intercept
    return rescaled


def _block_variances(samples: SampleArray) -> _Floats:
    """Return the variance of each whole block of each frame, in one row."""
    rows, columns = (size // _BLOCK * _BLOCK for size in samples.shape[-2:])
    whole = samples[..., :rows, :columns].astype(np.float64)
    frames = samples.size // (samples.shape[-2] * samples.shape[-1])
    blocks = whole.reshape(frames, rows // _BLOCK, _BLOCK, columns // _BLOCK, _BLOCK)
    variances: _Floats = blocks.var(axis=(2, 4)).reshape(-1)
    return variances
