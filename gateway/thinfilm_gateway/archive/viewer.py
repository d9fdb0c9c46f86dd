"""What a viewer sees of an image before and after it was made lossy: pydicom reads both, none of our readers does."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import iter_pixels

from thinfilm_codecs.blocks import SampleArray
from thinfilm_codecs.quality.metrics import absolute_errors

_LOSSLESS_JPEG = frozenset(("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"))
"""pydicom brings no decoder of these; imagecodecs decodes the frames that pydicom finds."""

_SAME = (
    "SOPClassUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "PatientID",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
)
"""Keywords of what must be equal in both, that errors of samples mean anything."""


class CannotCompare(Exception):
    """A viewer could not show both images, or not as the same kind of image; the message is one sentence."""


@dataclass(frozen=True)
class Difference:
    """The errors of all samples together. squares: the sum of their squares."""

    max_error: int
    squares: int
    samples: int


def difference(original: Path, derived: Path) -> Difference:
    """Return how far the samples of a derived Part 10 file lie from those of its original. Raises CannotCompare."""
    try:
        was, found = pydicom.dcmread(original), pydicom.dcmread(derived)
        for keyword in _SAME:
            if was.get(keyword) != found.get(keyword):
                raise CannotCompare(f"The derived object has another {keyword} than the original.")
        return _difference(_frames(was), _frames(found))
    except CannotCompare:
        raise
    except Exception as error:  # pydicom raises of all kinds, and any keeps the image from being judged
        raise CannotCompare(f"It could not be read once more, as a viewer does: {error}".rstrip(".") + ".") from error


def _difference(was: Iterator[SampleArray], found: Iterator[SampleArray]) -> Difference:
    max_error = squares = samples = 0
    for before, after in zip_longest(was, found):
        if before is None or after is None or before.shape != after.shape:
            raise CannotCompare("The derived object has other frames than the original.")
        errors = absolute_errors(before, after)
        max_error = max(max_error, int(errors.max()))
        squares += int(np.square(errors).sum())
        samples += errors.size
    return Difference(max_error, squares, samples)


def _frames(data_set: Dataset) -> Iterator[SampleArray]:
    """Give the frames as stored values, without any conversion of colours."""
    if data_set.file_meta.TransferSyntaxUID not in _LOSSLESS_JPEG:
        yield from iter_pixels(data_set, raw=True)
        return
    for stream in generate_frames(data_set.PixelData, number_of_frames=int(data_set.get("NumberOfFrames") or 1)):
        colours = None if data_set.SamplesPerPixel == 1 else "RGB"
        samples = imagecodecs.jpeg8_decode(stream, colorspace=colours, outcolorspace=colours)
        yield _signed(samples, data_set.BitsStored) if data_set.PixelRepresentation == 1 else samples


def _signed(samples: SampleArray, bits_stored: int) -> SampleArray:
    """Read the lowest bits as two's complement."""
    unused = 8 * samples.itemsize - bits_stored
    return (samples << unused).view(np.dtype(f"int{8 * samples.itemsize}")) >> unused
