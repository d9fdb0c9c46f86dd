"""What all groups of a stack share: value map, references, and the stack's own differences from the shipped model.

Format: docs/formats/neural.md, "Parameters".
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.errors import CorruptStream
from thinfilm_codecs.lossless.neural import shape
from thinfilm_codecs.lossless.neural.model import Linear, Model, Network, named
from thinfilm_codecs.lossless.neural.rans import (
    MAGNITUDES,
    TOTAL,
    Decoder,
    Encoder,
    magnitude_table,
    put_integers,
    take_integers,
)
from thinfilm_codecs.lossless.neural.values import ValueMap

VERSION = 1
COEFFICIENT_STEPS = (32, 8)

_HEADER = struct.Struct("<BBB16sqHHH")
_LEVELS, _LINEAR, _NETWORK = 1, 2, 4
_TABLE = struct.Struct(f"<{MAGNITUDES - 1}H")


@dataclass(frozen=True, eq=False)
class Parameters:
    """All a group's decoder needs besides its stream and layout."""

    model: Model
    values: ValueMap
    lag_a: int
    lag_b: int
    linear: Linear
    network: Network
    coefficient_step: int = COEFFICIENT_STEPS[0]


def quantised_linear(linear: Linear, model: Model, step: int) -> Linear:
    """Return the linear stage as the parameters can carry it: whole steps from the shipped one, sums in bounds."""
    base = model.linear.coefficients.astype(np.int64)
    coefficients = base + np.rint((linear.coefficients - base) / step).astype(np.int64) * step
    for row in np.flatnonzero(np.abs(coefficients).sum(1) > 32767):
        coefficients[row] = base[row]
    return Linear(linear.activity_thresholds, linear.consistency_thresholds, coefficients.astype(np.int16))


def pack(parameters: Parameters) -> bytes:
    """Return the bytes of parameters whose linear stage and network are whole steps from the model's."""
    model, flags, values, linear = parameters.model, 0, parameters.values, parameters.linear
    plain = b""
    lists: list[npt.NDArray[Any]] = []
    if linear is not model.linear:
        flags |= _LINEAR
        plain = linear.activity_thresholds.tobytes() + linear.consistency_thresholds.tobytes()
        moved = linear.coefficients.astype(np.int64) - model.linear.coefficients
        lists.append(moved.ravel() // parameters.coefficient_step)
    if parameters.network is not model.network:
        flags |= _NETWORK
        weights = zip(parameters.network.weights, model.network.weights, strict=True)
        biases = zip(parameters.network.biases, model.network.biases, shape.BIAS_STEPS, strict=True)
        lists.append(np.concatenate([(mine.astype(np.int64) - base).ravel() for mine, base in weights]))
        lists.append(np.concatenate([(mine.astype(np.int64) - base) // step for mine, base, step in biases]))
    if values.levels is not None:
        flags |= _LEVELS
        lists.append(np.diff(values.levels.astype(np.int64), prepend=0))
    header = _HEADER.pack(
        VERSION,
        flags,
        parameters.coefficient_step,
        model.identity,
        values.minimum,
        values.maximum,
        parameters.lag_a,
        parameters.lag_b,
    )
    encoder, tables = Encoder(), b""
    for each in lists:
        table = magnitude_table(each)
        tables += _TABLE.pack(*(frequency - 1 for frequency in table[:-1]))
        put_integers(encoder, each, table)
    return header + plain + tables + (encoder.stream() if lists else b"")


def model_identity(data: bytes) -> bytes:
    """Return the identity of the model that parameters name, be it installed or not. Raises CorruptStream."""
    identity: bytes = _header(data)[3]
    return identity


def _header(data: bytes) -> tuple[Any, ...]:
    if len(data) < _HEADER.size:
        raise CorruptStream("The neural parameters end within their header.")
    header = _HEADER.unpack_from(data)
    version, flags, step, *_ = header
    if version != VERSION or flags & ~(_LEVELS | _LINEAR | _NETWORK) or step not in COEFFICIENT_STEPS:
        raise CorruptStream(f"The neural parameters are of version {version}, flags {flags}, step {step}: unknown.")
    return header


def unpack(data: bytes) -> Parameters:
    """Return the parameters of these bytes. Raises CorruptStream if they are none, MissingModel."""
    _, flags, step, identity, minimum, maximum, lag_a, lag_b = _header(data)
    model = named(identity)
    at, linear, network = _HEADER.size, model.linear, model.network
    levels: npt.NDArray[np.uint16] | None = None
    thresholds = np.frombuffer(data[at : at + _THRESHOLDS], np.uint8) if flags & _LINEAR else None
    if thresholds is not None and len(thresholds) < _THRESHOLDS:
        raise CorruptStream("The neural parameters end within their thresholds.")
    lists = _lists(data[at + (_THRESHOLDS if flags & _LINEAR else 0) :], _counts(flags, maximum, network))
    try:
        if thresholds is not None:
            moved = linear.coefficients + next(lists).reshape(shape.CLASSES, shape.TAPS) * step
            activity, consistency = np.split(thresholds, [shape.ACTIVITY_CLASSES - 1])
            linear = Linear(activity, consistency, _narrowed(moved, np.int16))
        if flags & _NETWORK:
            network = _moved(network, next(lists), next(lists))
        if flags & _LEVELS:
            rising = np.cumsum(next(lists))
            if rising[0] != 0 or (np.diff(rising) < 1).any():
                raise ValueError("the levels do not rise from 0")
            levels = _narrowed(rising, np.uint16)
    except ValueError as error:
        raise CorruptStream(f"The neural parameters are out of bounds: {error}") from error
    return Parameters(model, ValueMap(minimum, maximum, levels), lag_a, lag_b, linear, network, step)


_THRESHOLDS = shape.ACTIVITY_CLASSES + shape.CONSISTENCY_CLASSES - 2


def _counts(flags: int, maximum: int, network: Network) -> list[int]:
    """Return the lengths of the lists of integers that follow the header."""
    counts = [shape.CLASSES * shape.TAPS] if flags & _LINEAR else []
    if flags & _NETWORK:
        counts += [sum(w.size for w in network.weights), sum(b.size for b in network.biases)]
    return [*counts, maximum + 1] if flags & _LEVELS else counts


def _lists(data: bytes, counts: list[int]) -> Iterator[npt.NDArray[np.int64]]:
    """Return the lists of integers. Raises CorruptStream unless the data hold them and no more."""
    if not counts:
        if data:
            raise CorruptStream("The neural parameters have bytes behind their end.")
        return iter(())
    if len(data) < _TABLE.size * len(counts):
        raise CorruptStream("The neural parameters end within their tables.")
    tables = []
    for place in range(len(counts)):
        table = [frequency + 1 for frequency in _TABLE.unpack_from(data, place * _TABLE.size)]
        if sum(table) >= TOTAL:
            raise CorruptStream("A table of the neural parameters has no room for its last symbol.")
        tables.append([*table, TOTAL - sum(table)])
    decoder = Decoder.of(data[_TABLE.size * len(counts) :])
    lists = [np.array(take_integers(decoder, n, t), np.int64) for n, t in zip(counts, tables, strict=True)]
    if not decoder.finished():
        raise CorruptStream("The neural parameters have words behind their end.")
    return iter(lists)


def _moved(network: Network, weights: npt.NDArray[np.int64], biases: npt.NDArray[np.int64]) -> Network:
    """Return the network moved by these steps."""
    weight_ends, bias_ends = (np.cumsum([a.size for a in layers])[:-1] for layers in (network.weights, network.biases))
    w = [
        _narrowed(base + change.reshape(base.shape), np.int8)
        for base, change in zip(network.weights, np.split(weights, weight_ends), strict=True)
    ]
    b = [
        _narrowed(base + change * step, np.int32)
        for base, change, step in zip(network.biases, np.split(biases, bias_ends), shape.BIAS_STEPS, strict=True)
    ]
    return Network((w[0], w[1], w[2]), (b[0], b[1], b[2]))


def _narrowed(values: npt.NDArray[Any], dtype: Any) -> npt.NDArray[Any]:
    limits = np.iinfo(dtype)
    if values.min() < limits.min or values.max() > limits.max:
        raise ValueError(f"a value does not fit {np.dtype(dtype).name}")
    return values.astype(dtype)
