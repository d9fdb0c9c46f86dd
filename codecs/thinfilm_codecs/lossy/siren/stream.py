"""The bytes of a group: how its frames lie, and the networks in integers, packed by LZMA.

Format: docs/formats/siren.md.
"""

import lzma
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.blocks import BlockLayout
from thinfilm_codecs.errors import CorruptStream
from thinfilm_codecs.lossless.neural.values import ValueMap
from thinfilm_codecs.lossless.sealed import seal, unseal
from thinfilm_codecs.lossy.arrangement import Arrangement
from thinfilm_codecs.lossy.siren.network import LARGEST_BIAS, MANTISSAS, SHIFTS, WIDEST, Layer

VERSION = 1
DEEPEST = 8

_HEADER = struct.Struct("<BBBHIIiH")
_FILTERS = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 16, "lc": 0, "lp": 0, "pb": 0}]
"""No context, since a weight tells nothing of the next; a small window, since nothing recurs."""

_SPARE_WEIGHTS = 4096


@dataclass(frozen=True, eq=False)
class Shape:
    """How large the networks are.

    inputs: 2 for the networks of a place each, (row, column); 3 for one network of all, (place, row, column).
    hidden: layers of sines, each with `width` outputs. outputs: volumes of a place.
    """

    inputs: int
    hidden: int
    width: int
    outputs: int

    @property
    def layers(self) -> list[tuple[int, int]]:
        """(out, in) of each layer."""
        widths = [self.inputs, *[self.width] * self.hidden, self.outputs]
        return list(zip(widths[1:], widths[:-1], strict=True))

    @property
    def weights(self) -> int:
        """Number of weights of a network."""
        return sum(outs * ins for outs, ins in self.layers)

    @property
    def biases(self) -> int:
        """Number of biases of a network."""
        return sum(outs for outs, _ in self.layers)

    def networks(self, arrangement: Arrangement) -> int:
        """Return how many networks a group has."""
        return arrangement.places if self.inputs == 2 else 1

    def allowed(self, layout: BlockLayout, arrangement: Arrangement) -> bool:
        """Tell whether the networks are small beside the samples, and sums of whole numbers stay in float64."""
        most = (layout.samples // 2 + _SPARE_WEIGHTS) // self.networks(arrangement)
        return self.width <= WIDEST and self.hidden <= DEEPEST and self.weights <= most


@dataclass(frozen=True, eq=False)
class Group:
    """What a stream says. Samples lie from minimum to minimum + span."""

    arrangement: Arrangement
    shape: Shape
    minimum: int
    span: int
    networks: list[list[Layer]]


def pack(group: Group) -> bytes:
    """Return the sealed stream of a group."""
    shape, place = group.shape, group.arrangement
    header = _HEADER.pack(
        VERSION, shape.inputs, shape.hidden, shape.width, place.places, place.run, group.minimum, group.span
    )
    layers = [layer for network in group.networks for layer in network]
    scales = bytes(number for layer in layers for number in (layer.mantissa, layer.shift))
    weights = np.concatenate([layer.weights.ravel() for layer in layers])
    phases = np.concatenate([layer.biases for network in group.networks for layer in network[:-1]]).astype(np.uint8)
    levels = np.concatenate([network[-1].biases for network in group.networks])
    numbers = _planes(weights, 2) + phases.tobytes() + _planes(levels, 3)
    return seal(header + scales + lzma.compress(numbers, lzma.FORMAT_RAW, filters=_FILTERS))


def unpack(stream: bytes, layout: BlockLayout) -> Group:
    """Return what a stream of a group of this layout says. Raises CorruptStream if it is none."""
    payload = unseal(stream)
    if len(payload) < _HEADER.size:
        raise CorruptStream("The siren stream ends within its header.")
    version, inputs, hidden, width, places, run, minimum, span = _HEADER.unpack_from(payload)
    if version != VERSION:
        raise CorruptStream(f"The siren stream is of version {version}: unknown.")
    if not ValueMap(minimum, span).fits(layout.dtype):
        raise CorruptStream(f"The samples of the siren stream do not fit {layout.dtype}.")
    arrangement = Arrangement.stated("siren", places, run, layout.frames)
    shape = Shape(inputs, hidden, width, arrangement.volumes(layout.frames))
    if inputs not in (2, 3) or not (hidden and width and shape.allowed(layout, arrangement)):
        raise CorruptStream(f"The siren stream has networks of {inputs}-{hidden}x{width}, which no encoder writes.")
    return Group(
        arrangement, shape, minimum, span, _networks(payload[_HEADER.size :], shape, shape.networks(arrangement))
    )


def _networks(data: bytes, shape: Shape, count: int) -> list[list[Layer]]:
    """Return the networks that follow the header. Raises CorruptStream if the data are not those of so many."""
    scales = np.frombuffer(data[: 2 * len(shape.layers) * count], np.uint8)
    if len(scales) < 2 * len(shape.layers) * count:
        raise CorruptStream("The siren stream ends within its scales.")
    mantissas, shifts = scales.reshape(count, -1, 2).transpose(2, 0, 1)
    if not (np.isin(mantissas, MANTISSAS).all() and np.isin(shifts, SHIFTS).all()):
        raise CorruptStream("A scale of the siren stream is out of bounds.")
    phases = shape.biases - shape.outputs
    numbers = _unpacked(data[scales.size :], count * (2 * shape.weights + phases + 3 * shape.outputs))
    ends = count * np.cumsum([2 * shape.weights, phases])
    all_weights = _whole(numbers[: ends[0]], 2).astype(np.int16).reshape(count, -1)
    all_phases = numbers[ends[0] : ends[1]].astype(np.int32).reshape(count, -1)
    all_levels = _whole(numbers[ends[1] :], 3).reshape(count, -1)
    if np.abs(all_levels).max() > LARGEST_BIAS:
        raise CorruptStream("A bias of the siren stream is out of bounds.")
    weight_ends = np.cumsum([outs * ins for outs, ins in shape.layers])[:-1]
    networks = []
    for number in range(count):
        weights = np.split(all_weights[number], weight_ends)
        biases = [*np.split(all_phases[number], shape.hidden), all_levels[number]]
        networks.append(
            [
                Layer(
                    weights[place].reshape(size),
                    biases[place],
                    int(mantissas[number, place]),
                    int(shifts[number, place]),
                )
                for place, size in enumerate(shape.layers)
            ]
        )
    return networks


def _planes(values: npt.NDArray[Any], count: int) -> bytes:
    """Return integers as planes of bytes, the lowest first; but the highest, a plane is signed: small ones leave 0."""
    rest, planes = values.astype(np.int32), []
    for _ in range(count):
        low = (rest & 0xFF).astype(np.uint8).view(np.int8)
        planes.append(low.tobytes())
        rest = (rest - low) >> 8
    return b"".join(planes)


def _whole(planes: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.int32]:
    """Return the integers of planes of bytes: the inverse of `_planes`."""
    whole: npt.NDArray[np.int32] = np.zeros(len(planes) // count, np.int32)
    for number, plane in enumerate(planes.view(np.int8).reshape(count, -1)):
        whole += plane.astype(np.int32) << (8 * number)
    return whole


def _unpacked(data: bytes, size: int) -> npt.NDArray[np.uint8]:
    """Return what LZMA packed, of which the size is known. Raises CorruptStream unless it is that and no more."""
    opened = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
    try:
        numbers = opened.decompress(data, size)
        if not opened.eof:
            numbers += opened.decompress(b"", 1)
    except (lzma.LZMAError, EOFError) as error:
        raise CorruptStream("The networks of the siren stream are not what LZMA packs.") from error
    if len(numbers) != size or not opened.eof or opened.unused_data:
        raise CorruptStream("The siren stream has other networks than its header says.")
    return np.frombuffer(numbers, np.uint8)
