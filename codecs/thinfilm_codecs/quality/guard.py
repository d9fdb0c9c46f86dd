"""The guard: a lossy frame is kept only where it errs no more than JPEG does at the ratio that guidance permits.

The ratios that radiology societies accept were found with JPEG, so JPEG's error at such a ratio is the most that a
frame may have. It must hold in every metric, since one alone can be met by blurring.
"""

from collections.abc import Iterator
from dataclasses import astuple, dataclass

import numpy as np

from thinfilm_codecs.blocks import PixelBlock, SampleArray
from thinfilm_codecs.quality.anchors import Anchor, Jpeg, Jpeg2000
from thinfilm_codecs.quality.metrics import absolute_errors, percentile_999, root_mean_square, volume_range
from thinfilm_codecs.quality.similarity import structural_similarity

_FRAMES = 8
_METRICS = ("root mean square error", "99.9th percentile of the error", "maximum error", "dissimilarity")
_LONGEST_JPEG_SIDE = 65_500  # of libjpeg
_MOST_BITS = 16


@dataclass(frozen=True)
class FrameErrors:
    """Errors of one component of one frame, in stored values.

    rmse: root of the mean square. p999, maximum: 99.9th percentile and largest of the magnitudes.
    dissimilarity: 1 - SSIM.
    """

    rmse: float
    p999: int
    maximum: int
    dissimilarity: float


@dataclass(frozen=True)
class Verdict:
    """Whether lossy frames may be kept, and why, in one sentence.

    ours, reference: of the first frame that was refused; where none was, of the one that comes nearest to its
    reference in root mean square error.
    """

    kept: bool
    reason: str
    ours: FrameErrors
    reference: FrameErrors


def frame_errors(original: SampleArray, decoded: SampleArray, data_range: float) -> FrameErrors:
    """Return the errors of (rows, columns) of integers; data_range: for SSIM. Raises ValueError if shapes differ."""
    errors = absolute_errors(original, decoded)
    return FrameErrors(
        rmse=root_mean_square(errors),
        p999=percentile_999(errors),
        maximum=int(errors.max()),
        dissimilarity=1 - structural_similarity(original, decoded, data_range),
    )


def reference_errors(frame: SampleArray, bits_stored: int, bits_per_pixel: float) -> FrameErrors:
    """Return what JPEG, at its best quality within a rate, makes of a frame: (rows, columns) of integers.

    Samples are made unsigned by taking away the least. The standard is JPEG for up to 8 bits, stored and in use; 12-bit
    JPEG while the range in use is below 12 bits; JPEG 2000 up to 16 bits. Where even its coarsest quality is above the
    rate, that is the reference: it errs less than any within the rate could, so the guard is only stricter. Where no
    standard takes the samples, the reference is the frame itself, which nothing lossy can match.
    SSIM has the range in use as its data range.
    """
    least = int(frame.min())
    bits = (int(frame.max()) - least).bit_length()
    if bits > _MOST_BITS:
        return FrameErrors(0.0, 0, 0, 0.0)
    eight = max(bits, bits_stored) <= 8
    image = (frame.astype(np.int64) - least).astype(np.uint8 if eight else np.uint16)
    anchor = _anchor(image, 8 if eight else bits)
    return frame_errors(image, anchor.decode(anchor.within(image, bits_per_pixel)), volume_range(frame))


def judge(original: PixelBlock, decoded: SampleArray, bits_per_pixel: float, max_error: int | None) -> Verdict:
    """Tell whether decoded frames may stand for the originals.

    bits_per_pixel: the rate that the ceiling permits, in bits a sample. max_error: the policy's own bound of every
    sample's error, in stored values. The frame with the largest error is judged first, so the bound holds for all
    samples; besides it up to eight others, evenly spread; each component of colour by itself.
    Raises ValueError unless `decoded` has the shape of the original.
    """
    largest = [int(absolute_errors(*pair).max()) for pair in zip(original.samples, decoded, strict=True)]
    worst = int(np.argmax(largest))
    nearest: tuple[float, FrameErrors, FrameErrors] | None = None
    for number in _spread(len(largest), worst):
        for frame, result in _components(original.samples[number], decoded[number]):
            ours = frame_errors(frame, result, volume_range(frame))
            reference = reference_errors(frame, original.bits_stored, bits_per_pixel)
            reason = _objection(ours, reference, bits_per_pixel)
            if max_error is not None and ours.maximum > max_error:
                reason = f"Its maximum error of {ours.maximum} is above the policy's {max_error}."
            if reason:
                return Verdict(False, reason, ours, reference)
            share = ours.rmse / reference.rmse if reference.rmse else 0.0
            if nearest is None or share > nearest[0]:
                nearest = share, ours, reference
    assert nearest is not None
    _, ours, reference = nearest
    reason = (
        f"Its root mean square error of {ours.rmse:g} and maximum of {ours.maximum} are not above JPEG's "
        f"{reference.rmse:g} and {reference.maximum} at {bits_per_pixel:.3g} bits a sample."
    )
    return Verdict(True, reason, ours, reference)


def _anchor(image: SampleArray, bits: int) -> Anchor:
    if bits > 12 or max(image.shape) > _LONGEST_JPEG_SIDE:
        return Jpeg2000(max(bits, 1))
    return Jpeg(8 if image.dtype == np.uint8 else 12)


def _objection(ours: FrameErrors, reference: FrameErrors, bits_per_pixel: float) -> str:
    """Return the sentence that names the first metric in which ours is above the reference; empty where none is."""
    for metric, mine, limit in zip(_METRICS, astuple(ours), astuple(reference), strict=True):
        if mine > limit:
            return f"Its {metric} of {mine:g} is above JPEG's {limit:g} at {bits_per_pixel:.3g} bits a sample."
    return ""


def _spread(frames: int, worst: int) -> list[int]:
    """Return the numbers of the frames to compare: that of the largest error first."""
    spread = np.unique(np.linspace(0, frames - 1, min(frames, _FRAMES)).round().astype(int))
    return [worst, *(int(number) for number in spread if number != worst)]


def _components(frame: SampleArray, decoded: SampleArray) -> Iterator[tuple[SampleArray, SampleArray]]:
    if frame.ndim == 2:
        yield frame, decoded
    else:
        yield from zip(np.moveaxis(frame, -1, 0), np.moveaxis(decoded, -1, 0), strict=True)
