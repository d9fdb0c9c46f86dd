"""The vae lossy codec: a variational autoencoder with a hyperprior and residual blocks, exact where it decodes.

Format: docs/formats/vae.md. Source: Ballé, Minnen, Singh, Hwang, Johnston: Variational image compression with a scale
hyperprior, ICLR 2018.
"""

import struct
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray
from thinfilm_codecs.errors import CorruptStream, UnsupportedPixels
from thinfilm_codecs.lossless.grouping import frames_in
from thinfilm_codecs.lossless.neural.rans import Decoder, Encoder
from thinfilm_codecs.lossless.sealed import seal, unseal
from thinfilm_codecs.lossy.codec import LossyCodec
from thinfilm_codecs.lossy.vae import symbols, transforms
from thinfilm_codecs.lossy.vae.model import (
    CURRENT,
    HYPER_BLOCK,
    LARGEST_SYMBOL,
    QUALITIES,
    Model,
    named,
)
from thinfilm_codecs.lossy.vae.scaling import LARGEST_SHIFT, Scaling

VERSION = 1

_HEADER = struct.Struct("<B16siHHHB")
_PREFIX = struct.Struct("<BB")
_DEAD_ZONE = 0.1
_DEAD_SCALES = 24
_LARGEST_LATENT = 2**14 - 1

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Parameters:
    """What all groups of a stack share."""

    identity: bytes
    scaling: Scaling

    def packed(self) -> bytes:
        s = self.scaling
        offsets = s.maximum - s.minimum, s.centre - s.minimum
        return _HEADER.pack(VERSION, self.identity, s.minimum, *offsets, s.numerator, s.shift)

    @staticmethod
    def of(data: bytes) -> "_Parameters":
        if len(data) != _HEADER.size:
            raise CorruptStream(f"The vae parameters are of {len(data)} bytes; {_HEADER.size} are right.")
        version, identity, minimum, span, centre, numerator, shift = _HEADER.unpack(data)
        if version != VERSION:
            raise CorruptStream(f"The vae parameters are of version {version}: unknown.")
        if centre > span or not numerator or shift > LARGEST_SHIFT:
            raise CorruptStream("The vae parameters have a scaling that no encoder writes.")
        return _Parameters(identity, Scaling(minimum, minimum + span, minimum + centre, numerator, shift))

    def model(self) -> Model:
        return named(self.identity)


class Vae(LossyCodec):
    """The vae codec at a quality, 0 to 63. One object serves all threads. model: identity of a shipped model."""

    codec_id: ClassVar[str] = "vae"
    setting_name: ClassVar[str] = "quality"
    ladder: ClassVar[tuple[float, ...]] = tuple(float(quality) for quality in reversed(range(QUALITIES)))

    def __init__(self, quality: int = QUALITIES - 1, model: str = CURRENT) -> None:
        self._quality, self._model = quality, bytes.fromhex(model)

    @property
    def setting(self) -> float:
        """The quality, of `ladder`."""
        return float(self._quality)

    def at(self, setting: float) -> "Vae":
        """Return the codec at a quality. Raises ValueError if it is not on the ladder."""
        if setting not in self.ladder:
            raise ValueError(f"The vae codec has the qualities 0 to {QUALITIES - 1}, not {setting}.")
        return Vae(int(setting), self._model.hex())

    def supports(self, layout: BlockLayout) -> bool:
        """Tell whether the layout is of one component of at most 16 bits."""
        return layout.components == 1 and np.dtype(layout.dtype).itemsize <= 2

    def frames_per_group(self, layout: BlockLayout) -> int:
        """Return as many frames as make about 256 KiB."""
        return frames_in(layout)

    def prepare(self, stack: PixelBlock) -> bytes:
        """Return the model's name and the scaling of the stack."""
        return _Parameters(self._model, Scaling.of(stack.samples)).packed()

    def model_hashes(self, parameters: bytes) -> tuple[str, ...]:
        """Return the identity of the model that the parameters name."""
        return (_Parameters.of(parameters).identity.hex(),)

    def encode(self, group: PixelBlock, parameters: bytes) -> bytes:
        """Code the group. Raises UnsupportedPixels for a layout that the codec cannot keep."""
        if not self.supports(group.layout):
            raise UnsupportedPixels(f"The vae codec cannot code blocks of {group.layout.shape} {group.layout.dtype}.")
        p = _Parameters.of(parameters)
        model, encoder = p.model(), Encoder()
        rows, columns = _padded(group.layout)
        for frame in group.samples:
            missing = [(0, rows - frame.shape[0]), (0, columns - frame.shape[1])]
            latents = transforms.analyse(model, np.pad(p.scaling.values(frame), missing, mode="symmetric"))
            _put_latents(encoder, model, latents * model.gains[self._quality][:, None, None])
        return seal(_PREFIX.pack(VERSION, self._quality) + encoder.stream())

    def decode(self, stream: bytes, layout: BlockLayout, parameters: bytes) -> SampleArray:
        """Return the samples of the group. Raises CorruptStream for bytes that are no such stream."""
        if not self.supports(layout):
            raise CorruptStream(f"No vae stream is of blocks of {layout.shape} {layout.dtype}.")
        p = _Parameters.of(parameters)
        limits = np.iinfo(layout.dtype)
        if p.scaling.minimum < limits.min or p.scaling.maximum > limits.max:
            raise CorruptStream(f"The values of the vae parameters do not fit {layout.dtype}.")
        payload = unseal(stream)
        if len(payload) < _PREFIX.size:
            raise CorruptStream("The vae stream ends within its first bytes.")
        version, quality = _PREFIX.unpack_from(payload)
        if version != VERSION or quality >= QUALITIES:
            raise CorruptStream(f"The vae stream is of version {version} and quality {quality}: unknown.")
        model, decoder = p.model(), Decoder.of(payload[_PREFIX.size :])
        found = np.empty(layout.shape, layout.dtype)
        for frame in found:
            values = _take_latents(decoder, model, _padded(layout))
            outputs = transforms.synthesise(model, values, quality)[: layout.rows, : layout.columns]
            frame[:] = p.scaling.samples(outputs, layout.dtype)
        if not decoder.finished():
            raise CorruptStream("The vae stream has words behind its end.")
        return found


def _padded(layout: BlockLayout) -> tuple[int, int]:
    """Return rows and columns with what is missing to whole blocks of the side information."""
    return -(-layout.rows // HYPER_BLOCK) * HYPER_BLOCK, -(-layout.columns // HYPER_BLOCK) * HYPER_BLOCK


def _put_latents(encoder: Encoder, model: Model, scaled: npt.NDArray[np.float32]) -> None:
    """Put a frame: its side information, then the latents that are not certain to be 0."""
    hyper = transforms.analyse_latents(model, scaled)
    symbols.put(encoder, model.hyper_tables, _channels(hyper.shape), hyper.ravel())
    indices = transforms.scale_indices(model, hyper)
    coded = _coded(indices)
    dead = np.where(indices < _DEAD_SCALES, _DEAD_ZONE, 0)
    dead[0] = 0
    rounded = np.sign(scaled) * np.floor(np.abs(scaled) + 0.5 - dead)
    values = np.clip(rounded, -_LARGEST_LATENT, _LARGEST_LATENT).astype(np.int64)
    values[0] = symbols.differences(values[0])
    symbols.put(encoder, model.tables, indices[coded], values[coded])


def _take_latents(decoder: Decoder, model: Model, size: tuple[int, int]) -> Int64:
    """Take a frame's latents. Raises CorruptStream if the stream has none such."""
    shape = (model.hyper_latents, size[0] // HYPER_BLOCK, size[1] // HYPER_BLOCK)
    hyper = symbols.take(decoder, model.hyper_tables, _channels(shape)).reshape(shape)
    indices = transforms.scale_indices(model, hyper)
    coded = _coded(indices)
    values = np.zeros(indices.shape, np.int64)
    values[coded] = symbols.take(decoder, model.tables, indices[coded])
    values[0] = symbols.undo_differences(values[0])
    if np.abs(values).max() > LARGEST_SYMBOL:
        raise CorruptStream("A latent of the vae stream is larger than any that an encoder writes.")
    return values


def _coded(indices: Int64) -> npt.NDArray[np.bool_]:
    """Tell which latents are coded: all but those of the least scale, which are 0; of the first, all."""
    found = indices > 0
    found[0] = True
    return found


def _channels(shape: tuple[int, ...]) -> Int64:
    """Return the channel of each number of the side information: the index of its table."""
    return np.repeat(np.arange(shape[0]), shape[1] * shape[2])
