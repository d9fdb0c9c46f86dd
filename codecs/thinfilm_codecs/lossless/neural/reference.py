"""The specification: decodes and encodes any group in plain numpy, slowly. The kernel must agree with every integer.

Format: docs/formats/neural.md, whose sections the functions are named after.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.errors import CorruptStream
from thinfilm_codecs.lossless.neural import shape
from thinfilm_codecs.lossless.neural.model import Linear, Model, Network
from thinfilm_codecs.lossless.neural.planes import (
    BIAS,
    PAD_BOTTOM,
    PAD_LEFT,
    PAD_RIGHT,
    PAD_TOP,
    Geometry,
    padded,
)
from thinfilm_codecs.lossless.neural.rans import Decoder, Encoder

Int64 = npt.NDArray[np.int64]
Planes = npt.NDArray[np.int16]

ACTIVITY_WEIGHTS = np.array([[0, 0, 0, 0, 1, 2, 3, 4], [0, 0, 1, 3, 4, 3, 1, 0], [0, 0, 1, 2, 4, 2, 1, 0]])
ERROR_WEIGHTS = np.array([[0, 0, 0, 0, 0, 1, 3, 7], [0, 0, 1, 3, 6, 3, 1, 0]])
ERROR_WEIGHTS_A = np.array([[0, 0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 3, 1, 0, 0], [0, 0, 0, 0, 1, 0, 0, 0]])


def logarithm(values: Any) -> Int64:
    """Return eight times the logarithm to base 2 of integers of at least 1, linear between powers of two."""
    wide = np.asarray(values, np.int64)
    whole = np.frexp(wide.astype(np.float64))[1].astype(np.int64) - 1
    found: Int64 = 8 * whole + (((wide << 3) >> whole) & 7)
    return found


def difference(a: Any, b: Any) -> Int64:
    """Return a - b, held to 16 bits without the most negative."""
    found: Int64 = np.clip(np.asarray(a, np.int64) - b, -32767, 32767)
    return found


# ---- Context ----


@dataclass(eq=False)
class Context:
    """What the neighbours of some pixels of one batch tell; one row a pixel."""

    reference: Int64
    activity: Int64
    mean: Int64
    scale: Int64
    flat: npt.NDArray[np.bool_]
    flat_context: Int64
    inputs: Int64


def context(g: Geometry, samples: Planes, errors: Planes, linear: Linear, pixels: Int64) -> Context:
    """Return the context of pixels (n, 3) of (frame, row, column), all of whose neighbours are known."""
    z, y, x = pixels.T
    flat_samples, flat_errors = samples.ravel().astype(np.int64), errors.ravel().astype(np.int64)
    inside = (y + PAD_TOP) * g.pitch + PAD_LEFT + x
    za = np.where(
        (g.lag_a > 0) & (z >= g.lag_a), z - g.lag_a, np.where((g.lag_b > 0) & (z >= g.lag_b), z - g.lag_b, -1)
    )
    zb = np.where((g.lag_b > 0) & (z >= g.lag_b), z - g.lag_b, za)
    has = za >= 0
    here, a, b = z * g.plane + inside, np.maximum(za, 0) * g.plane + inside, np.maximum(zb, 0) * g.plane + inside

    def run(source: Int64, at: Int64, row: int, first: int) -> Int64:
        found: Int64 = source[at[:, None] + row * g.pitch + first + np.arange(shape.BLOCK)]
        return found

    current = [run(flat_samples, here, 0, -8)] + [run(flat_samples, here, -i, -4) for i in (1, 2, 3)]
    of_a = [run(flat_samples, a, i, -4) for i in (-2, -1, 0, 1, 2)]
    of_b = [run(flat_samples, b, i, -4) for i in (-1, 0, 1)]
    errors_here = [run(flat_errors, here, 0, -8), run(flat_errors, here, -1, -4)]
    errors_a = [run(flat_errors, a, i, -4) for i in (-1, 0, 1)]

    west, north = current[0][:, 7], current[1]
    reference = (3 * west + 3 * north[:, 4] + north[:, 3] + north[:, 5] + 4) >> 3
    centred = reference[:, None]
    activity = sum(np.abs(difference(current[i], centred)) @ ACTIVITY_WEIGHTS[i] for i in range(3))
    level = logarithm(activity + 16)
    way = np.concatenate(
        [difference(current[0][:, 4:8], of_a[2][:, 0:4]), difference(current[1][:, 2:6], of_a[1][:, 2:6])], 1
    )
    apart = np.abs(way - ((way.sum(1) + 4) >> 3)[:, None]).sum(1)
    spread = np.where(has, np.clip(logarithm(4 * apart + 16) - level + 64, 0, 127), 64)
    consistency = (spread[:, None] >= linear.consistency_thresholds).sum(1)
    classes = (level[:, None] >= linear.activity_thresholds).sum(1) + np.where(
        has, shape.ACTIVITY_CLASSES * (1 + consistency), 0
    )

    taps = np.concatenate([*current[:3], *of_a[1:4], of_b[1]], 1)
    taps = difference(taps, centred)
    taps[~has, 3 * shape.BLOCK :] = 0
    product = (taps * linear.coefficients[classes].astype(np.int64)).sum(1)
    mean = np.clip(reference * 16 + ((product + 128) >> 8), -BIAS * 16, (g.maximum - BIAS) * 16)

    plain = sum(np.abs(errors_here[i]) @ ERROR_WEIGHTS[i] for i in range(2))
    beside = sum(np.abs(errors_a[i]) @ ERROR_WEIGHTS_A[i] for i in range(3))
    plain = plain + np.where(has, beside, plain >> 2)
    scale = plain + (activity >> 4) + 8
    equal = (
        (flat_samples[a] == reference) & (flat_samples[a + 1] == reference) & (flat_samples[a + g.pitch] == reference)
    )

    centre = (mean + 8) >> 4
    blank = np.full_like(of_a[0], 64)
    inputs = [_quantised(difference(block, centre[:, None]), 10, activity + 16) for block in [*current, *of_a, *of_b]]
    of_errors = [_quantised(block, 12, scale) for block in [*errors_here, *errors_a]]
    for blocks, first in ((inputs, 4), (of_errors, 2)):
        blocks[first:] = [np.where(has[:, None], block, blank) for block in blocks[first:]]
    noise, shift = logarithm(scale), bin_shift(scale)
    numbers = (
        np.minimum(level >> 1, 127),
        np.minimum(noise >> 1, 127),
        np.clip(noise - level + 64, 0, 127),
        spread,
        np.where(has, 96, 32),
        np.where(shift > 0, 64, (mean & 15) * 8),
        _quantised(difference(centre, -BIAS)[:, None], 12, scale)[:, 0],
        8 * shift,
    )
    return Context(
        reference,
        activity,
        mean,
        scale,
        (activity == 0) & (plain == 0),
        np.where(has, 1 + equal, 0),
        np.concatenate([*inputs, *of_errors, np.stack(numbers, 1)], 1),
    )


def _quantised(differences: Int64, units: int, scale: Int64) -> Int64:
    """Return 64 + units * 32 * differences / scale, rounded and held to 63 steps, through a 15-bit multiplier."""
    bits = np.frexp(scale.astype(np.float64))[1].astype(np.int64)
    multiplier = ((units << (bits + 10)) // scale)[:, None]
    shift = (bits + 5)[:, None]
    found: Int64 = 64 + np.clip((differences * multiplier + (1 << (shift - 1))) >> shift, -63, 63)
    return found


def bin_shift(scale: Int64) -> Int64:
    """Return the logarithm of the width of a bin."""
    found: Int64 = np.clip(np.frexp(scale.astype(np.float64))[1].astype(np.int64) - 8, 0, 12)
    return found


# ---- Network ----


def outputs(network: Network, inputs: Int64) -> Int64:
    """Return the network's outputs (n, OUTPUTS)."""
    x = inputs - 64
    for weights, biases, shift in zip(network.weights, network.biases, (5, 6, 0), strict=True):
        sums = x @ weights.T.astype(np.int64) + biases
        x = np.clip((sums + (1 << (shift - 1))) >> shift, 0, 127) if shift else sums
    return x


# ---- Distribution ----


def bin_starts() -> Int64:
    """Return the first distance of every bin; of the two escapes, what bounds them."""
    below = [np.array([-232]), -216 + 16 * np.arange(7), -104 + 4 * np.arange(16)]
    above = [40 + 4 * np.arange(16), 104 + 16 * np.arange(8)]
    return np.concatenate([*below, np.arange(-40, 40), *above])


_STARTS = bin_starts()
_BITS = np.repeat([4, 2, 0, 2, 4], [8, 16, 80, 16, 8])


@dataclass(frozen=True, eq=False)
class Distribution:
    """Bounds (BINS + 1 of them) of the cumulative frequencies of a pixel's bins, and where the bins lie."""

    cumulative: list[int]
    origin: int
    shift: int


def distribution(g: Geometry, model: Model, out: Int64, mean: int, scale: int) -> Distribution:
    """Return what the network's outputs say of one pixel."""
    logits = out[: shape.COMPONENTS] >> 7
    exponentials = model.exponential[np.minimum(logits.max() - logits, 255)].astype(np.int64)
    weights = exponentials * ((2**31 - 2**15) // exponentials.sum()) >> 15
    shift = int(bin_shift(np.array([scale]))[0])
    better = mean + (int(out[shape.COMPONENTS]) * scale >> 12)
    centre = min(max(better, -BIAS * 16), (g.maximum - BIAS) * 16) + 8 + BIAS * 16
    eighths = centre >> (shift + 1)
    apart = (int(out[shape.COMPONENTS + 1]) * scale >> 12) >> (shift + 1)
    phase = eighths & 7
    offsets = np.repeat([phase, phase + min(max(apart, -1024), 1024)], shape.COMPONENTS // 2)
    points = np.clip(shape.CURVE // 2 + 8 * _STARTS - offsets[:, None], 0, shape.CURVE - 1)
    values = np.take_along_axis(model.curves.astype(np.int64), points, 1)
    mixed = (weights[:, None] * values >> 16).sum(0)
    cumulative = np.append(np.arange(shape.BINS) + (mixed * 65408 >> 16), 65536)
    cumulative[0] = 0
    return Distribution(cumulative.tolist(), eighths >> 3, shift)


# ---- Group ----


def order(g: Geometry) -> Iterator[Int64]:
    """Yield the pixels (n, 3) of every step of the wavefront."""
    z, y, x = np.indices((g.frames, g.rows, g.columns)).reshape(3, -1)
    step = x + shape.ROW_LAG * y + shape.FRAME_LAG * z
    ranked = np.lexsort((y, z, step))
    pixels = np.stack([z, y, x], 1)[ranked]
    yield from np.split(pixels, np.flatnonzero(np.diff(step[ranked])) + 1)


def _store(g: Geometry, samples: Planes, z: int, y: int, x: int, value: int) -> None:
    """Write a decoded sample, and the margin that follows from it."""
    plane, row, column = samples[z], y + PAD_TOP, x + PAD_LEFT
    plane[row, column] = value
    if x == 0:
        plane[row + 1, :PAD_LEFT] = value
    if x == g.columns - 1:
        plane[row, column + 1 : column + 1 + PAD_RIGHT] = value
    if y == g.rows - 1:
        below = plane[row + 1 : row + 1 + PAD_BOTTOM]
        below[:, column] = value
        if x == 0:
            below[:, :PAD_LEFT] = plane[row, :PAD_LEFT]
        if x == g.columns - 1:
            below[:, column + 1 :] = value


def _code(
    g: Geometry, samples: Planes, linear: Linear, network: Network, model: Model, coder: Encoder | Decoder
) -> None:
    """Code all pixels of a group: samples are read by an encoder, filled in by a decoder."""
    errors = g.empty(0)
    decoding = isinstance(coder, Decoder)
    flags = [32768] * shape.FLAG_CONTEXTS
    for step in order(g):
        waiting: list[tuple[Int64, Context, int]] = []
        found = context(g, samples, errors, linear, step)
        for i, (z, y, x) in enumerate(step):
            if found.flat[i]:
                known = None if decoding else int(samples[z, y + PAD_TOP, x + PAD_LEFT]) == found.reference[i]
                if _flag(coder, flags, int(found.flat_context[i]), known):
                    value = int(found.reference[i])
                    if value > g.maximum - BIAS:
                        raise CorruptStream("A sample lies outside the range of the group.")
                    _settle(g, samples, errors, step[i], value, int(found.mean[i]))
                    continue
            waiting.append((step[i], found, i))
            if len(waiting) == shape.BATCH:
                _drain(g, samples, errors, network, model, coder, waiting)
        _drain(g, samples, errors, network, model, coder, waiting)


def _flag(coder: Encoder | Decoder, flags: list[int], which: int, known: bool | None) -> bool:
    """Code whether a flat surrounding goes on; its probability, of 2^16, moves by a 32nd of the way."""
    one = flags[which]
    value = coder.symbol(None if known is None else int(not known), [0, one, 65536]) == 0
    flags[which] = one + ((65504 - one) >> 5) if value else one - ((one - 32) >> 5)
    return value


def _settle(g: Geometry, samples: Planes, errors: Planes, pixel: Int64, value: int, mean: int) -> None:
    z, y, x = (int(i) for i in pixel)
    _store(g, samples, z, y, x, value)
    errors[z, y + PAD_TOP, x + PAD_LEFT] = difference(value, (mean + 8) >> 4)


def _drain(
    g: Geometry,
    samples: Planes,
    errors: Planes,
    network: Network,
    model: Model,
    coder: Encoder | Decoder,
    waiting: list[tuple[Int64, Context, int]],
) -> None:
    """Code the samples of the pixels that wait."""
    for pixel, found, i in waiting:
        z, y, x = (int(k) for k in pixel)
        mean, scale = int(found.mean[i]), int(found.scale[i])
        d = distribution(g, model, outputs(network, found.inputs[i : i + 1])[0], mean, scale)
        known = None if isinstance(coder, Decoder) else int(samples[z, y + PAD_TOP, x + PAD_LEFT]) + BIAS
        value = _sample(coder, d, known)
        if not 0 <= value <= g.maximum:
            raise CorruptStream("A sample lies outside the range of the group.")
        _settle(g, samples, errors, pixel, value - BIAS, mean)
    waiting.clear()


def _sample(coder: Encoder | Decoder, d: Distribution, known: int | None) -> int:
    """Code a sample: its bin, then its place in the bin."""
    chosen = None
    if known is not None:
        distance = (known >> d.shift) - d.origin
        chosen = 0 if distance < -216 else int(np.searchsorted(_STARTS[1:], distance, side="right"))
    chosen = coder.symbol(chosen, d.cumulative)
    if chosen in (0, shape.BINS - 1):
        return coder.uniform(known, 16)
    first = (d.origin + int(_STARTS[chosen])) << d.shift
    low = coder.uniform(None if known is None else known - first, d.shift + int(_BITS[chosen]))
    return first + low


def encode(values: npt.NDArray[np.uint16], g: Geometry, linear: Linear, network: Network, model: Model) -> bytes:
    """Return the entropy-coded values (frames, rows, columns) of a group."""
    encoder = Encoder()
    _code(g, padded(values, g), linear, network, model, encoder)
    return encoder.stream()


def decode(stream: bytes, g: Geometry, linear: Linear, network: Network, model: Model) -> Planes | None:
    """Return the padded samples of a group, or None if the stream is not one of such a group."""
    samples = g.empty(-BIAS)
    try:
        decoder = Decoder.of(stream)
        _code(g, samples, linear, network, model, decoder)
    except CorruptStream:
        return None
    return samples if decoder.finished() else None
