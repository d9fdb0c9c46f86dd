"""The kernel, called with checked arrays: the fast back end."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.lossless.neural import shape
from thinfilm_codecs.lossless.neural.model import Linear, Model, Network
from thinfilm_codecs.lossless.neural.planes import BIAS, PAD_LEFT, PAD_TOP, Geometry

try:
    from thinfilm_codecs.lossless.neural import _kernel
except ImportError:  # built without a compiler: reference.py decodes all the same
    _kernel = None  # type: ignore[assignment, unused-ignore]

Planes = npt.NDArray[np.int16]
Index = npt.NDArray[np.int64]
Float = npt.NDArray[np.float32]


def instruction_sets() -> list[str]:
    """Return the names of the kernels that run here, fastest first; empty if the kernel was not built."""
    return _kernel.instruction_sets() if _kernel else []


def _fastest() -> str:
    from thinfilm_codecs.lossless.neural import kernels  # which calls what is here

    return kernels.usable()[0]


@dataclass(frozen=True, eq=False)
class Group:
    """The padded planes of a group, and the linear stage's errors in planes of the same shape."""

    geometry: Geometry
    samples: Planes
    errors: Planes

    def __post_init__(self) -> None:
        g = self.geometry
        wanted = (g.frames, g.plane // g.pitch, g.pitch)
        for planes in (self.samples, self.errors):
            if planes.shape != wanted or planes.dtype != np.int16 or not planes.flags.c_contiguous:
                raise ValueError(f"The planes of this group are int16 of shape {wanted}.")


def _common(group: Group, linear: Linear, kernel: str | None) -> tuple[object, ...]:
    g = group.geometry
    geometry = (g.frames, g.rows, g.columns, g.lag_a, g.lag_b, g.maximum, g.pitch, g.plane)
    return (
        kernel or _fastest(),
        geometry,
        group.samples,
        group.errors,
        np.ascontiguousarray(linear.activity_thresholds, np.uint8),
        np.ascontiguousarray(linear.consistency_thresholds, np.uint8),
        np.ascontiguousarray(linear.coefficients, np.int16),
    )


def _checked(group: Group, index: Index) -> Index:
    g = group.geometry
    if index.size and (index.min() < 0 or index.max() >= g.frames * g.rows * g.columns):
        raise ValueError("An index lies outside the group.")
    return np.ascontiguousarray(index, np.int64)


def predict(group: Group, linear: Linear, kernel: str | None = None) -> None:
    """Fill the group's errors with those of the linear stage."""
    _kernel.predict(*_common(group, linear, kernel))


def taps(group: Group, linear: Linear, index: Index) -> tuple[npt.NDArray[np.int16], ...]:
    """Return (taps, targets, classes) of the pixels at flat indices: (n, TAPS), (n), (n)."""
    n = len(index)
    found = np.empty((n, shape.TAPS), np.int16), np.empty(n, np.int32), np.empty(n, np.int32)
    _kernel.taps(_common(group, linear, None), _checked(group, index), *found)
    return found  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class Equations:
    """Normal equations of the linear stage, class by class, in floats: sums over pixels, weighted by their activity.

    squares: (CLASSES, TAPS, TAPS). products: (CLASSES, TAPS). counts: (CLASSES).
    """

    squares: Float
    products: Float
    counts: Index


def equations(group: Group, linear: Linear, index: Index) -> Equations:
    """Return the normal equations of the pixels at flat indices, those in flat surroundings left out."""
    found = Equations(
        np.zeros((shape.CLASSES, shape.TAPS, shape.TAPS), np.float32),
        np.zeros((shape.CLASSES, shape.TAPS), np.float32),
        np.zeros(shape.CLASSES, np.int64),
    )
    _kernel.equations(_common(group, linear, None), _checked(group, index), found.squares, found.products, found.counts)
    return found


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the network sees of n pixels, and the samples it should have expected.

    inputs: (n, INPUTS) of 1 to 127. means: sixteenths, biased. scales: 32 times the expected error.
    flats: 0, or 1 (a surprise) or 2 where everything around the pixel is equal.
    """

    inputs: npt.NDArray[np.uint8]
    means: npt.NDArray[np.int32]
    scales: npt.NDArray[np.int32]
    flats: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int16]


def inputs(group: Group, linear: Linear, index: Index, kernel: str | None = None) -> Inputs:
    """Return the network's inputs of the pixels at flat indices; the errors must have been predicted."""
    n, g = len(index), group.geometry
    batch = np.empty((n, shape.INPUTS), np.uint8)
    means, scales, flats = (np.empty(n, np.int32) for _ in range(3))
    _kernel.inputs(_common(group, linear, kernel), _checked(group, index), batch, means, scales, flats)
    frame, within = np.divmod(index, g.rows * g.columns)
    row, column = np.divmod(within, g.columns)
    targets = group.samples[frame, row + PAD_TOP, column + PAD_LEFT]
    return Inputs(batch, means, scales, flats, targets)


def _layers(network: Network) -> tuple[int | bytes, ...]:
    """Return width, weights and biases as the kernel takes them; the first layer's biases count inputs from 0."""
    biases = [bias.astype(np.int32) for bias in network.biases]
    biases[0] = biases[0] - 64 * network.weights[0].astype(np.int32).sum(1, dtype=np.int32)
    return (
        network.width,
        b"".join(np.ascontiguousarray(w, np.int8).tobytes() for w in network.weights),
        b"".join(b.tobytes() for b in biases),
    )


def _tables(model: Model) -> tuple[bytes, bytes]:
    return (
        model.exponential.astype(np.uint16).tobytes() + bytes(4),
        model.curves.astype(np.uint16).tobytes() + bytes(4),
    )


def objective(
    network: Network, model: Model, batch: Inputs, gradient: bool, kernel: str | None = None
) -> tuple[Float, Float]:
    """Return the bits that the network would spend on the pixels of a batch, and the gradient of their sum, or nothing.

    The gradient is by all weights, layer by layer, then by all biases; it passes the rounding of activations
    unchanged. These are floats, for fitting only.
    """
    bits = np.empty(len(batch.means), np.float32)
    slopes = np.zeros(network.size if gradient else 0, np.float32)
    arrays = (batch.inputs, batch.means, batch.scales, batch.targets)
    _kernel.objective(kernel or _fastest(), *_layers(network), model.scales.astype(np.float32), *arrays, bits, slopes)
    return bits, slopes


def encode(group: Group, linear: Linear, network: Network, model: Model, kernel: str | None = None) -> bytes:
    """Return the entropy-coded samples of a group; fills its errors."""
    predict(group, linear, kernel)
    stream: bytes = _kernel.code(_common(group, linear, kernel), *_layers(network), *_tables(model), None)
    return stream


def decode(
    stream: bytes, geometry: Geometry, linear: Linear, network: Network, model: Model, kernel: str | None = None
) -> Planes | None:
    """Return the padded samples of a group, or None if the stream is not one of such a group."""
    group = Group(geometry, geometry.empty(-BIAS), geometry.empty(0))
    if len(stream) % 4:
        return None
    decoded = _kernel.code(_common(group, linear, kernel), *_layers(network), *_tables(model), stream)
    return group.samples if decoded else None


def decode_first(
    stream: bytes,
    geometry: Geometry,
    linear: Linear,
    network: Network,
    model: Model,
    kernel: str,
    last_step: int,
) -> Planes | None:
    """Return the padded samples of a group of which only the steps of the wavefront up to `last_step` are decoded."""
    group = Group(geometry, geometry.empty(-BIAS), geometry.empty(0))
    if len(stream) % 4:
        return None
    decoded = _kernel.code(_common(group, linear, kernel), *_layers(network), *_tables(model), stream, last_step)
    return group.samples if decoded else None


PREPARED = 4 + shape.COMPONENTS + 2
"""What a session must know of a pixel: flat (0, or 1 more than the flag's context), reference, mean, scale, outputs."""


@dataclass(frozen=True, eq=False)
class Session:
    """A group that is coded step by step, its networks run elsewhere: an encoder, or the decoder of a stream."""

    handle: object

    @staticmethod
    def encoder(geometry: Geometry, model: Model) -> "Session":
        """Return an encoder at the group's start."""
        pixels = geometry.frames * geometry.rows * geometry.columns
        return Session(_kernel.open_session(_fastest(), geometry.maximum, pixels, *_tables(model), None))

    @staticmethod
    def decoder(geometry: Geometry, model: Model, stream: bytes) -> "Session | None":
        """Return a decoder at the stream's start, None if there is no such stream."""
        handle = _kernel.open_session(_fastest(), geometry.maximum, 0, *_tables(model), stream)
        return Session(handle) if handle else None

    def code(self, counts: Index, prepared: npt.NDArray[np.int32], samples: Planes) -> None:
        """Code whole steps, of so many pixels each: prepared (n, PREPARED), samples (n), read or filled in."""
        if prepared.shape != (len(samples), PREPARED) or counts.sum() != len(samples):
            raise ValueError("The steps are not of as many pixels as were prepared.")
        _kernel.code_steps(self.handle, np.ascontiguousarray(counts, np.int64), prepared, samples)

    def stream(self) -> bytes:
        """Return what an encoder made."""
        made: bytes = _kernel.finish(self.handle)
        return made

    def decoded(self) -> bool:
        """Tell whether a decoder's stream was of these steps and no more."""
        return bool(_kernel.finish(self.handle))
