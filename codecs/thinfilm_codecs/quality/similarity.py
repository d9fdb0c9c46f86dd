"""Structural similarity: SSIM of Wang et al. (IEEE TIP 13, 600, 2004), and over scales, MS-SSIM (Asilomar 2003).

Settings are those of the papers: a Gaussian window of standard deviation 1.5 and 11 x 11 samples, population
covariance, K1 = 0.01, K2 = 0.03. Only windows that lie within the image count. Where a side is shorter than 11, it is
mirrored.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.blocks import SampleArray

_Floats = npt.NDArray[np.float64]

_REACH = 5
_OFFSETS = np.arange(-_REACH, _REACH + 1)
_WINDOW = np.exp(-0.5 * (_OFFSETS / 1.5) ** 2)
_WINDOW /= _WINDOW.sum()
_K1, _K2 = 0.01, 0.03
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def structural_similarity(original: SampleArray, decoded: SampleArray, data_range: float) -> float:
    """Return the mean SSIM over all frames: 1 for equal samples.

    original, decoded: (..., rows, columns). data_range: of the values that matter; that of the sample type would make
    all of 12 bits in 16 look alike. Raises ValueError unless it is above 0.
    """
    return _mean_over_frames(_similarity, original, decoded, data_range)


def multiscale_similarity(original: SampleArray, decoded: SampleArray, data_range: float) -> float:
    """Return the mean MS-SSIM over all frames: SSIM on five scales, each half the one before, weighted by the paper.

    Arguments as in structural_similarity. Images too small for five scales are seen on those that there are.
    """
    return _mean_over_frames(_multiscale, original, decoded, data_range)


def similarity_decibels(similarity: float) -> float:
    """Return -10 log10(1 - similarity), which tells values near 1 apart; infinite for 1."""
    return float(-10 * np.log10(1 - similarity)) if similarity < 1 else float("inf")


def _mean_over_frames(
    measure: Callable[[_Floats, _Floats, float], float], original: SampleArray, decoded: SampleArray, data_range: float
) -> float:
    if original.shape != decoded.shape or original.ndim < 2:
        raise ValueError(f"Similarity is of frames of one shape; got {original.shape} and {decoded.shape}.")
    if data_range <= 0:
        raise ValueError(f"Similarity needs a data range above 0; got {data_range}.")
    sides = original.shape[-2:]
    frames = zip(original.reshape(-1, *sides), decoded.reshape(-1, *sides), strict=True)
    found = [measure(one.astype(np.float64), other.astype(np.float64), data_range) for one, other in frames]
    return float(np.mean(found))


def _similarity(original: _Floats, decoded: _Floats, data_range: float) -> float:
    luminance, structure = _luminance_and_structure(original, decoded, data_range)
    return float(np.mean(luminance * structure))


def _multiscale(original: _Floats, decoded: _Floats, data_range: float) -> float:
    """Return the product of the scales' mean structure, and of SSIM on the coarsest, each to its weight."""
    factors: list[float] = []
    while True:
        luminance, structure = _luminance_and_structure(original, decoded, data_range)
        last = len(factors) + 1 == len(_SCALE_WEIGHTS) or min(original.shape) // 2 <= 2 * _REACH
        factors.append(max(0.0, float(np.mean(luminance * structure if last else structure))))
        if last:
            break
        original, decoded = _halved(original), _halved(decoded)
    weights = np.array(_SCALE_WEIGHTS[: len(factors)])
    return float(np.prod(np.array(factors) ** (weights / weights.sum())))


def _luminance_and_structure(original: _Floats, decoded: _Floats, data_range: float) -> tuple[_Floats, _Floats]:
    """Return the two factors of SSIM around each sample."""
    low, high = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    mean, mean_decoded = _windowed(original), _windowed(decoded)
    variances = (_windowed(original**2) - mean**2) + (_windowed(decoded**2) - mean_decoded**2)
    covariance = _windowed(original * decoded) - mean * mean_decoded
    luminance = (2 * mean * mean_decoded + low) / (mean**2 + mean_decoded**2 + low)
    return luminance, (2 * covariance + high) / (variances + high)


def _windowed(image: _Floats) -> _Floats:
    """Return the weighted mean of each window that lies within the image."""
    short = [_REACH if size <= 2 * _REACH else 0 for size in image.shape]
    image = np.pad(image, [(size, size) for size in short], mode="symmetric")
    return _down(_down(image).T).T


def _down(image: _Floats) -> _Floats:
    """Return the weighted mean of each eleven samples below each other."""
    size = len(image) - 2 * _REACH
    total: _Floats = _WINDOW[_REACH] * image[_REACH : _REACH + size]
    for offset in range(1, _REACH + 1):
        pair = image[_REACH - offset : _REACH - offset + size] + image[_REACH + offset : _REACH + offset + size]
        total += _WINDOW[_REACH + offset] * pair
    return total


def _halved(image: _Floats) -> _Floats:
    """Return the means of 2 x 2 samples; an odd last row or column is left out."""
    rows, columns = (size // 2 * 2 for size in image.shape)
    halved: _Floats = image[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3))
    return halved
