"""The kwavelet lossy codec: each frame as its largest level-3 wavelet coefficients; coding again changes nothing.

Format: docs/formats/kwavelet.md. Source: Thornton, MRI Image Compression with Deep Learning, "Quantized K-Wavelet".
"""

from typing import ClassVar

import numpy as np

from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray
from thinfilm_codecs.errors import CorruptStream, UnsupportedPixels
from thinfilm_codecs.lossless.grouping import frames_in
from thinfilm_codecs.lossless.sealed import seal, unseal
from thinfilm_codecs.lossy.codec import LossyCodec
from thinfilm_codecs.lossy.kwavelet import coefficients, wavelet
from thinfilm_codecs.lossy.kwavelet.approximation import COARSEST, approximated

VERSION = 1


class KWavelet(LossyCodec):
    """The kwavelet codec. One object serves all threads.

    coefficients: how many are kept, in thousandths of the samples, one of `ladder`.
    """

    codec_id: ClassVar[str] = "kwavelet"
    setting_name: ClassVar[str] = "coefficients"
    ladder: ClassVar[tuple[float, ...]] = (700, 500, 350, 250, 180, 125, 90, 65, 46, 32, 23, 16)

    def __init__(self, coefficients: float = ladder[0]) -> None:
        if coefficients not in self.ladder:
            raise ValueError(
                f"kwavelet keeps one of {self.ladder} thousandths of the coefficients; got {coefficients}."
            )
        self._thousandths = coefficients

    @property
    def setting(self) -> float:
        """How many coefficients are kept, in thousandths of the samples."""
        return self._thousandths

    def at(self, setting: float) -> "KWavelet":
        """Return the codec that keeps so many. Raises ValueError if that is not on the ladder."""
        return KWavelet(setting)

    def supports(self, layout: BlockLayout) -> bool:
        """Tell whether the samples are of 8 or 16 bits."""
        return np.dtype(layout.dtype).itemsize <= 2

    def frames_per_group(self, layout: BlockLayout) -> int:
        """Return as many frames as make about 256 KiB."""
        return frames_in(layout)

    def encode(self, group: PixelBlock, parameters: bytes) -> bytes:
        """Code the group, each component of each frame alone. Raises UnsupportedPixels for samples of 32 bits."""
        del parameters
        layout = group.layout
        if not self.supports(layout):
            raise UnsupportedPixels(f"kwavelet codes samples of 8 and 16 bits; these are {layout.dtype}.")
        count = round(layout.rows * layout.columns * self._thousandths / 1000)
        found = [approximated(plane, count) for plane in _planes(group.samples, layout).astype(np.int32)]
        steps = [plane.step for plane in found]
        stream = coefficients.encode(np.stack([plane.coefficients for plane in found]), steps)
        return seal(bytes([VERSION, *steps]) + stream)

    def decode(self, stream: bytes, layout: BlockLayout, parameters: bytes) -> SampleArray:
        """Return the samples of the group. Raises CorruptStream for bytes that are no such stream."""
        del parameters
        if not self.supports(layout):
            raise CorruptStream(f"No kwavelet stream is of blocks of {layout.dtype}.")
        payload = unseal(stream)
        planes = layout.frames * layout.components
        if not payload or payload[0] != VERSION:
            raise CorruptStream(f"The kwavelet stream is not of version {VERSION}.")
        steps = list(payload[1 : planes + 1])
        if len(steps) < planes or max(steps) > COARSEST:
            raise CorruptStream(f"The kwavelet stream lacks a step of 0 to {COARSEST} for each of {planes} planes.")
        found = coefficients.decode(payload[planes + 1 :], (planes, layout.rows, layout.columns), steps)
        limits = np.iinfo(layout.dtype)
        samples = np.empty(found.shape, layout.dtype)
        for target, plane in zip(samples, found, strict=True):
            values = wavelet.inverse(plane)
            if values.min() < limits.min or values.max() > limits.max:
                raise CorruptStream(f"A sample of the kwavelet stream does not fit {layout.dtype}.")
            target[...] = values
        components = samples.reshape(layout.frames, layout.components, layout.rows, layout.columns)
        return np.ascontiguousarray(np.moveaxis(components, 1, 3)).reshape(layout.shape)


def _planes(samples: SampleArray, layout: BlockLayout) -> SampleArray:
    """Return the components of all frames (planes, rows, columns)."""
    each = samples.reshape(layout.frames, layout.rows, layout.columns, layout.components)
    return np.moveaxis(each, 3, 1).reshape(-1, layout.rows, layout.columns)
