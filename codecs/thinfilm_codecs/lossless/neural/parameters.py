"""What all groups of a stack share: value map, references, and the stack's own differences from the shipped model.

Format: docs/formats/neural.md, "Parameters".
"""

import lzma
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.errors import CorruptStream
from thinfilm_codecs.lossless.neural import shape
from thinfilm_codecs.lossless.neural.model import LAYER_SHAPES, Linear, Model, Network
from thinfilm_codecs.lossless.neural.values import ValueMap

VERSION = 1
COEFFICIENT_STEP = 32
BIAS_STEPS = (16, 32, 32)

_HEADER = struct.Struct("<BB16sqHHH")
_LEVELS, _LINEAR, _NETWORK = 1, 2, 4
_FILTERS = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 18, "lc": 0, "lp": 0, "pb": 0}]


@dataclass(frozen=True, eq=False)
class Parameters:
    """All a group's decoder needs besides its stream and layout."""

    values: ValueMap
    lag_a: int
    lag_b: int
    linear: Linear
    network: Network


def quantised_linear(linear: Linear, model: Model) -> Linear:
    """Return the linear stage as the parameters can carry it: whole steps from the shipped one, sums in bounds."""
    base = model.linear.coefficients.astype(np.int64)
    steps = np.rint((linear.coefficients - base) / COEFFICIENT_STEP).astype(np.int64)
    coefficients = base + steps * COEFFICIENT_STEP
    for row in np.flatnonzero(np.abs(coefficients).sum(1) > 32767):
        coefficients[row] = base[row]
    return Linear(linear.activity_thresholds, linear.consistency_thresholds, coefficients.astype(np.int16))


def pack(parameters: Parameters, model: Model) -> bytes:
    """Return the bytes of parameters whose linear stage and network are whole steps from the model's."""
    flags, body = 0, []
    values = parameters.values
    if values.levels is not None:
        flags |= _LEVELS
        body.append(_halves(np.diff(values.levels.astype(np.int64), prepend=0)))
    if parameters.linear is not model.linear:
        flags |= _LINEAR
        body.append(parameters.linear.activity_thresholds.tobytes())
        body.append(parameters.linear.consistency_thresholds.tobytes())
        steps = parameters.linear.coefficients.astype(np.int64) - model.linear.coefficients
        body.append(_halves(steps // COEFFICIENT_STEP))
    if parameters.network is not model.network:
        flags |= _NETWORK
        for mine, shipped in zip(parameters.network.weights, model.network.weights, strict=True):
            body.append(_halves(mine.astype(np.int64) - shipped))
        for mine, shipped, step in zip(parameters.network.biases, model.network.biases, BIAS_STEPS, strict=True):
            body.append(_halves((mine.astype(np.int64) - shipped) // step))
    header = _HEADER.pack(
        VERSION, flags, model.identity, values.minimum, values.maximum, parameters.lag_a, parameters.lag_b
    )
    packed = b"".join(body)
    return header + (lzma.compress(packed, lzma.FORMAT_RAW, filters=_FILTERS) if packed else b"")


def unpack(data: bytes, model: Model) -> Parameters:
    """Return the parameters of these bytes. Raises CorruptStream if they are none."""
    if len(data) < _HEADER.size:
        raise CorruptStream("The neural parameters end within their header.")
    version, flags, identity, minimum, maximum, lag_a, lag_b = _HEADER.unpack_from(data)
    if version != VERSION or flags & ~(_LEVELS | _LINEAR | _NETWORK):
        raise CorruptStream(f"The neural parameters are of version {version}, flags {flags}; this decoder knows none.")
    if identity != model.identity:
        raise CorruptStream(f"The neural parameters name the model {identity.hex()}, which is not at hand.")
    body = _Body(_inflated(data[_HEADER.size :], _body_size(flags, maximum)))
    levels = None
    if flags & _LEVELS:
        gaps = body.halves((maximum + 1,))
        climbing = np.cumsum(gaps)
        if gaps[0] != 0 or (gaps[1:] < 1).any() or climbing[-1] > 65535:
            raise CorruptStream("The levels of the neural parameters do not rise from 0 within 16 bits.")
        levels = climbing.astype(np.uint16)
    linear, network = model.linear, model.network
    try:
        if flags & _LINEAR:
            activity = body.bytes(shape.ACTIVITY_CLASSES - 1)
            consistency = body.bytes(shape.CONSISTENCY_CLASSES - 1)
            steps = body.halves((shape.CLASSES, shape.TAPS), signed=True)
            coefficients = _narrowed(linear.coefficients + steps * COEFFICIENT_STEP, np.int16)
            linear = Linear(activity, consistency, coefficients)
        if flags & _NETWORK:
            changes = [body.halves(layer, signed=True) for layer in LAYER_SHAPES]
            weights = [_narrowed(w + d, np.int8) for w, d in zip(network.weights, changes, strict=True)]
            offsets = [body.halves(layer[:1], signed=True) for layer in LAYER_SHAPES]
            biases = [
                _narrowed(b + d * step, np.int32)
                for b, d, step in zip(network.biases, offsets, BIAS_STEPS, strict=True)
            ]
            network = Network((weights[0], weights[1], weights[2]), (biases[0], biases[1], biases[2]))
    except ValueError as error:
        raise CorruptStream(f"The neural parameters are out of bounds: {error}") from error
    return Parameters(ValueMap(minimum, maximum, levels), lag_a, lag_b, linear, network)


def _body_size(flags: int, maximum: int) -> int:
    size = 2 * (maximum + 1) if flags & _LEVELS else 0
    if flags & _LINEAR:
        size += shape.ACTIVITY_CLASSES + shape.CONSISTENCY_CLASSES - 2 + 2 * shape.CLASSES * shape.TAPS
    if flags & _NETWORK:
        size += 2 * sum(outs * (ins + 1) for outs, ins in LAYER_SHAPES)
    return size


def _inflated(data: bytes, size: int) -> bytes:
    """Return exactly `size` bytes. Raises CorruptStream if the data hold anything else."""
    if not size:
        if data:
            raise CorruptStream("The neural parameters have bytes behind their end.")
        return b""
    inflater = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
    try:
        body = inflater.decompress(data, size + 1)
    except lzma.LZMAError as error:
        raise CorruptStream("The body of the neural parameters is damaged.") from error
    if len(body) != size or not inflater.eof or inflater.unused_data:
        raise CorruptStream(f"The body of the neural parameters is not of {size} bytes.")
    return body


def _halves(values: npt.NDArray[Any]) -> bytes:
    """Return 16-bit values, all low bytes before all high bytes."""
    pairs = np.ascontiguousarray(values.ravel().astype("<i4").astype("<u2")).view(np.uint8).reshape(-1, 2)
    return pairs.T.tobytes()


def _narrowed(values: npt.NDArray[Any], dtype: Any) -> npt.NDArray[Any]:
    limits = np.iinfo(dtype)
    if values.min() < limits.min or values.max() > limits.max:
        raise ValueError(f"a value does not fit {np.dtype(dtype).name}")
    return values.astype(dtype)


class _Body:
    """The inflated body, read from front to back."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def bytes(self, count: int) -> npt.NDArray[np.uint8]:
        """Return the next bytes."""
        self._at += count
        return np.frombuffer(self._data[self._at - count : self._at], np.uint8)

    def halves(self, wanted: tuple[int, ...], *, signed: bool = False) -> npt.NDArray[np.int64]:
        """Return the next 16-bit values in this shape."""
        count = int(np.prod(wanted))
        pairs = self.bytes(2 * count).reshape(2, count).astype(np.int64)
        values = pairs[0] | pairs[1] << 8
        if signed:
            values = values - (values >> 15 << 16)
        return values.reshape(wanted)
