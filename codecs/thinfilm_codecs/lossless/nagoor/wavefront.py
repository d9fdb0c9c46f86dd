"""Coding of a group along the diagonal wavefront: a step's pixels know their neighbours, so one product predicts them.

Format: docs/formats/nagoor.md, "Order". The encoder and the decoder are the same loop.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.errors import CorruptStream
from thinfilm_codecs.lossless.nagoor.model import OUTPUT_ONE_BITS, Model
from thinfilm_codecs.lossless.nagoor.network import Run
from thinfilm_codecs.lossless.nagoor.residuals import Counts, contexts_of, put, take
from thinfilm_codecs.lossless.nagoor.sampling import INPUT_ONE_BITS, Int64, Neighbourhood, Planes, Sample, sample
from thinfilm_codecs.lossless.neural.rans import Decoder, Encoder

UInt16 = npt.NDArray[np.uint16]

BATCH = 2048
"""Pixels of a step that go through the network at once; it bounds memory and changes no byte."""

_ERRORS = ((0, -1, 3), (-1, 0, 3), (-1, -1, 2), (-1, 1, 2), (0, -2, 1), (-2, 0, 1))
_ERROR_MARGIN = 2


def order(shape: Sequence[int], hood: Neighbourhood) -> Iterator[Int64]:
    """Yield the pixels (n, 3) of every step: frame, row, column, the first two rising."""
    frames, rows, columns = shape
    first = (hood.frame_lag * np.arange(frames)[:, None] + hood.row_lag * np.arange(rows)).ravel()
    for step in range(int(first[-1]) + columns):
        column = step - first
        lines = np.flatnonzero((column >= 0) & (column < columns))
        if len(lines):
            yield np.stack([lines // rows, lines % rows, column[lines]], 1)


class _Group:
    """What is known of a group so far: values, and the sizes of the errors made."""

    def __init__(self, planes: Planes, shape: Sequence[int], model: Model, maximum: int, run: Run) -> None:
        self._planes, self._model, self._maximum, self._run = planes, model, maximum, run
        frames, rows, columns = shape
        margin = 2 * _ERROR_MARGIN
        self._errors = np.zeros((frames + 1, rows + margin, columns + margin), np.uint16)

    def look(self, pixels: Int64) -> tuple[Int64, Int64]:
        """Return the predictions and the expected sizes (n,) of the errors of pixels (n, 3)."""
        parts = [self._look(pixels[first : first + BATCH]) for first in range(0, len(pixels), BATCH)]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _look(self, pixels: Int64) -> tuple[Int64, Int64]:
        sampled = sample(self._planes.gather(pixels, self._model.hood), self._model.hood)
        z, y, x = pixels[:, 0] + 1, pixels[:, 1] + _ERROR_MARGIN, pixels[:, 2] + _ERROR_MARGIN
        own = np.zeros(len(pixels), np.int64)
        for row, column, weight in _ERRORS:
            own += weight * self._errors[z, y + row, x + column].astype(np.int64)
        back = np.where(z > 1, 4 * self._errors[z - 1, y, x].astype(np.int64), own // 3)
        return self._predictions(sampled), own + back + (sampled.activities >> 3)

    def _predictions(self, sampled: Sample) -> Int64:
        found = sampled.references.copy()
        lively = np.flatnonzero(sampled.activities)
        if len(lively):
            sums = self._run(sampled.inputs[lively]).astype(np.float64)
            shifts = OUTPUT_ONE_BITS - INPUT_ONE_BITS + sampled.gains[lively]
            found[lively] += np.floor(np.ldexp(sums, -shifts) + 0.5).astype(np.int64)
        return np.clip(found, 0, self._maximum)

    def settle(self, pixels: Int64, values: Int64, errors: Int64) -> None:
        """Write values, and the sizes of their errors."""
        z, y, x = pixels.T
        self._planes.inside[z, y, x] = values
        self._errors[z + 1, y + _ERROR_MARGIN, x + _ERROR_MARGIN] = np.abs(errors)


def encode(values: UInt16, maximum: int, model: Model, run: Run) -> tuple[bytes, Counts]:
    """Return the entropy-coded values (frames, rows, columns), and the counts that were met."""
    group = _Group(Planes.of(values, model.hood.margin), values.shape, model, maximum, run)
    encoder, counts = Encoder(), Counts(model.residuals)
    for pixels in order(values.shape, model.hood):
        predictions, expected = group.look(pixels)
        known = values[tuple(pixels.T)].astype(np.int64)
        put(encoder, counts, *contexts_of(expected), known - predictions)
        group.settle(pixels, known, known - predictions)
    return encoder.stream(), counts


def decode(stream: bytes, shape: Sequence[int], maximum: int, model: Model, run: Run) -> UInt16:
    """Return the values (frames, rows, columns). Raises CorruptStream if the stream is not one of such a group."""
    planes = Planes.empty(shape, model.hood.margin)
    group = _Group(planes, shape, model, maximum, run)
    decoder, counts = Decoder.of(stream), Counts(model.residuals)
    for pixels in order(shape, model.hood):
        predictions, expected = group.look(pixels)
        residuals = take(decoder, counts, *contexts_of(expected))
        found = predictions + residuals
        if found.min() < 0 or found.max() > maximum:
            raise CorruptStream("A sample of the nagoor stream lies outside the range of the stack.")
        group.settle(pixels, found, residuals)
    if not decoder.finished():
        raise CorruptStream("The nagoor stream has words behind its end.")
    return planes.inside.astype(np.uint16)
