"""The pca lossy codec: principal components across the volumes of a group, rounded, and kept by the neural codec.

Format: docs/formats/pca.md.
"""

import struct
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.blocks import BlockLayout, FrameAxis, PixelBlock, SampleArray
from thinfilm_codecs.errors import CorruptStream, UnsupportedPixels
from thinfilm_codecs.lossless.neural import Neural
from thinfilm_codecs.lossless.neural.values import ValueMap
from thinfilm_codecs.lossless.sealed import seal, unseal
from thinfilm_codecs.lossy.arrangement import ALONE, Arrangement, arrangement_of, frames_per_group
from thinfilm_codecs.lossy.codec import LossyCodec

VERSION = 1

_HEADER = struct.Struct("<BHHIIiH")
_BASIS_BITS = 14
_MEAN_BITS = 4
_MOST_VOLUMES = 512
_LARGEST_STEP = 1024
_CHUNK = 1 << 17


@dataclass(frozen=True, eq=False)
class _Basis:
    """What the samples of a place are combinations of.

    step: to which scores are rounded, in units of a sample. minimum, span: what samples are held to. means: (volumes,)
    in sixteenths of a sample above the minimum. components: (volumes, components), int16; 2^14 is 1.
    """

    arrangement: Arrangement
    step: int
    minimum: int
    span: int
    means: npt.NDArray[np.int32]
    components: npt.NDArray[np.int16]

    def scores(self, group: PixelBlock) -> PixelBlock:
        """Return the rounded scores, (components x places, rows, columns) of int16: all places of the first component.

        Raises UnsupportedPixels for scores beyond 16 bits.
        """
        layout = group.layout
        frames = self.arrangement.frames_of(layout.frames)
        found = np.empty((self.components.shape[1], len(frames), layout.rows * layout.columns), np.int16)
        weights = self.components.astype(np.float64) / (self.step << _BASIS_BITS)
        for place, numbers in enumerate(frames):
            apart = _apart(group, numbers, self.minimum, self.means / (1 << _MEAN_BITS))
            scores = np.rint(weights[: len(numbers)].T @ apart)
            if np.abs(scores).max() > np.iinfo(np.int16).max:
                raise UnsupportedPixels(f"The pca codec keeps scores of 16 bits; the step {self.step} is too fine.")
            found[:, place] = scores
        samples = found.reshape(-1, layout.rows, layout.columns)
        return PixelBlock(samples, 16, FrameAxis.SPACE if len(frames) > 1 else FrameAxis.NONE, group.spacing)

    def samples(self, scores: npt.NDArray[np.int16], layout: BlockLayout) -> SampleArray:
        """Return the samples of a group. Every sum is a whole number below 2^50 in magnitude, exact in float64."""
        frames, points = self.arrangement.frames_of(layout.frames), layout.rows * layout.columns
        found = np.empty((layout.frames, points), layout.dtype)
        weights = self.components.astype(np.float64) * self.step
        offsets = (self.means.astype(np.int64) << (_BASIS_BITS - _MEAN_BITS)) + (1 << (_BASIS_BITS - 1))
        each = scores.reshape(self.components.shape[1], len(frames), points)
        step = max(1, _CHUNK // len(self.means))
        for place, numbers in enumerate(frames):
            for first in range(0, points, step):
                part = each[:, place, first : first + step].astype(np.float64)
                sums = (weights[: len(numbers)] @ part).astype(np.int64) + offsets[: len(numbers), None]
                values = (sums >> _BASIS_BITS).clip(0, self.span) + self.minimum
                found[numbers, first : first + step] = values
        return found.reshape(layout.shape)


class PrincipalComponents(LossyCodec):
    """The pca codec. One object serves all threads. step: to which scores are rounded, one of the ladder."""

    codec_id: ClassVar[str] = "pca"
    setting_name: ClassVar[str] = "step"
    ladder: ClassVar[tuple[float, ...]] = (
        *(2, 3, 4, 5, 6, 7),
        *(mantissa << exponent for exponent in range(1, 8) for mantissa in range(4, 8)),
    )

    def __init__(self, step: int = 2, engine: Neural | None = None) -> None:
        self._step = step
        self._engine = engine or Neural()

    @property
    def setting(self) -> float:
        """The step of the scores, in units of a sample."""
        return self._step

    def at(self, setting: float) -> Self:
        """Return the codec of this step. Raises ValueError if it is not on the ladder."""
        if setting not in self.ladder:
            raise ValueError(f"pca has steps of 2 to {self.ladder[-1]}, four an octave; got {setting}.")
        return type(self)(int(setting), self._engine)

    def tuned(self, preset: str, device: str) -> Self:
        """Return the codec whose engine tries as hard as `preset` says, on `device`."""
        return type(self)(self._step, self._engine.tuned(preset, device))

    def obstacle(self) -> str | None:
        """Return the engine's."""
        return self._engine.obstacle()

    def supports(self, layout: BlockLayout) -> bool:
        """Tell whether the layout is of one component of at most 16 bits, and the engine supports its scores."""
        narrow = layout.components == 1 and np.dtype(layout.dtype).itemsize <= 2
        return narrow and self._engine.supports(_of_scores(1, layout))

    def frames_per_group(self, layout: BlockLayout) -> int:
        """Return the length of even groups: of as many volumes as 8 million samples are."""
        return frames_per_group(layout)

    def prepare(self, stack: PixelBlock) -> bytes:
        """Fit the engine to the scores of all groups.

        Raises UnsupportedPixels for scores beyond 16 bits, or where the engine cannot encode.
        """
        step = self.frames_per_group(stack.layout)
        groups = [stack.frames(first, step) for first in range(0, stack.layout.frames, step)]
        parts = [_basis(group, self._step).scores(group) for group in groups]
        return self._engine.prepare(
            PixelBlock(np.concatenate([part.samples for part in parts]), 16, parts[0].frame_axis, stack.spacing)
        )

    def model_hashes(self, parameters: bytes) -> tuple[str, ...]:
        """Return those of the engine's parameters."""
        return self._engine.model_hashes(parameters)

    def encode(self, group: PixelBlock, parameters: bytes) -> bytes:
        """Code the group. Raises UnsupportedPixels if it is not of the prepared stack."""
        basis = _basis(group, self._step)
        return seal(_packed(basis) + self._engine.encode(basis.scores(group), parameters))

    def decode(self, stream: bytes, layout: BlockLayout, parameters: bytes) -> SampleArray:
        """Return the samples of the group. Raises CorruptStream for bytes that are no such stream."""
        if not self.supports(layout):
            raise CorruptStream(f"No pca stream is of blocks of {layout.shape} {layout.dtype}.")
        basis, kept = _unpacked(unseal(stream), layout)
        frames = basis.components.shape[1] * basis.arrangement.places
        return basis.samples(self._engine.decode(kept, _of_scores(frames, layout), parameters), layout)


def _of_scores(frames: int, layout: BlockLayout) -> BlockLayout:
    return BlockLayout(frames, layout.rows, layout.columns, 1, "int16")


def _apart(
    group: PixelBlock, frames: npt.NDArray[np.int64], minimum: int, means: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return how far the samples (frames, points) of a place lie from the means of their volumes."""
    samples = group.samples[frames].reshape(len(frames), -1).astype(np.float64)
    apart: npt.NDArray[np.float64] = samples - (minimum + means[: len(frames), None])
    return apart


def _basis(group: PixelBlock, step: int) -> _Basis:
    """Return the components of the group that vary by more than the rounding of a score adds."""
    arrangement = arrangement_of(group)
    count = group.layout.frames
    if arrangement.volumes(count) > _MOST_VOLUMES:
        arrangement = Arrangement(-(-count // _MOST_VOLUMES), _MOST_VOLUMES) if arrangement == ALONE else ALONE
    minimum = int(group.samples.min())
    frames = arrangement.frames_of(count)
    volumes = len(frames[0])
    points = np.zeros(volumes)
    sums = np.zeros(volumes)
    for numbers in frames:
        sums[: len(numbers)] += group.samples[numbers].reshape(len(numbers), -1).mean(1) - minimum
        points[: len(numbers)] += 1
    means = np.rint((1 << _MEAN_BITS) * sums / points).astype(np.int32)
    covariance = np.zeros((volumes, volumes))
    for numbers in frames:
        apart = _apart(group, numbers, minimum, means / (1 << _MEAN_BITS))
        covariance[: len(numbers), : len(numbers)] += apart @ apart.T
    variances, vectors = np.linalg.eigh(covariance / (len(frames) * group.samples[0].size))
    kept = max(1, int(np.count_nonzero(variances > step * step / 12)))
    components = np.rint(vectors[:, ::-1][:, :kept] * (1 << _BASIS_BITS)).astype(np.int16)
    return _Basis(arrangement, step, minimum, int(group.samples.max()) - minimum, means, components)


def _packed(basis: _Basis) -> bytes:
    place = basis.arrangement
    header = _HEADER.pack(
        VERSION, basis.step, basis.components.shape[1], place.places, place.run, basis.minimum, basis.span
    )
    return header + basis.means.astype("<i4").tobytes() + basis.components.astype("<i2").tobytes()


def _unpacked(payload: bytes, layout: BlockLayout) -> tuple[_Basis, bytes]:
    """Return the basis, and what the engine kept. Raises CorruptStream if the payload begins with no basis."""
    if len(payload) < _HEADER.size:
        raise CorruptStream("The pca stream ends within its header.")
    version, step, components, places, run, minimum, span = _HEADER.unpack_from(payload)
    if version != VERSION or not 1 <= step <= _LARGEST_STEP:
        raise CorruptStream(f"The pca stream is of version {version}, step {step}: unknown.")
    if not ValueMap(minimum, span).fits(layout.dtype):
        raise CorruptStream(f"The samples of the pca stream do not fit {layout.dtype}.")
    arrangement = Arrangement.stated("pca", places, run, layout.frames)
    volumes = arrangement.volumes(layout.frames)
    if not 1 <= components <= volumes <= _MOST_VOLUMES:
        raise CorruptStream(f"The pca stream has {components} components of {volumes} volumes.")
    ends = np.cumsum([_HEADER.size, 4 * volumes, 2 * volumes * components]).tolist()
    if len(payload) < ends[2]:
        raise CorruptStream("The pca stream ends within its components.")
    means = np.frombuffer(payload[ends[0] : ends[1]], "<i4").astype(np.int32)
    basis = np.frombuffer(payload[ends[1] : ends[2]], "<i2").astype(np.int16).reshape(volumes, components)
    if means.min() < 0 or means.max() >= 1 << (16 + _MEAN_BITS) or np.abs(basis.astype(int)).max() > 1 << _BASIS_BITS:
        raise CorruptStream("The means or components of the pca stream are out of bounds.")
    return _Basis(arrangement, step, minimum, span, means, basis), payload[ends[2] :]
