"""The codecs of the field, used as the field uses them: image standards frame by frame, Tomoz on whole volumes."""

import importlib.util
from abc import abstractmethod
from typing import Any

import imagecodecs
import numpy as np
from jpeg_ls import CharLS

from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray
from thinfilm_codecs.errors import UnsupportedPixels
from thinfilm_gateway.bench.entrant import Coded, Entrant, NotInstalled

_MOST_BITS = 16


class _FrameByFrame(Entrant):
    """An image codec. Samples are made unsigned, of as few bits as the range of the stack needs."""

    def encode(self, stack: PixelBlock) -> Coded:
        """Code each frame by itself. Raises UnsupportedPixels."""
        minimum = int(stack.samples.min())
        bits = max(1, (int(stack.samples.max()) - minimum).bit_length())
        if bits > _MOST_BITS or stack.layout.components not in (1, 3):
            raise UnsupportedPixels(f"Image codecs are given 1 or 3 components of up to {_MOST_BITS} bits.")
        dtype = np.uint8 if bits <= 8 else np.uint16
        images = ((frame.astype(np.int64) - minimum).astype(dtype) for frame in stack.samples)
        streams = [self._encode_image(image, bits) for image in images]
        return Coded((minimum, streams), sum(map(len, streams)))

    def decode(self, coded: Coded, layout: BlockLayout) -> SampleArray:
        """Decode all frames."""
        minimum, streams = coded.payload
        samples = np.empty(layout.shape, layout.dtype)
        for frame, stream in zip(samples, streams, strict=True):
            frame[...] = self._decode_image(stream, frame.shape).astype(np.int64) + minimum
        return samples

    @abstractmethod
    def _encode_image(self, image: SampleArray, bits: int) -> bytes:
        """Code (rows, columns) or (rows, columns, 3), uint8 for up to 8 bits, else uint16."""

    @abstractmethod
    def _decode_image(self, stream: bytes, shape: tuple[int, ...]) -> SampleArray:
        """Return the image."""


class JpegLs(_FrameByFrame):
    """JPEG-LS through CharLS; the planes of colour below each other.

    whole_words: code 8 or 16 bits, as tools do that do not look at Bits Stored, instead of the number in use.
    """

    def __init__(self, whole_words: bool = False) -> None:
        self._whole_words = whole_words

    def _encode_image(self, image: SampleArray, bits: int) -> bytes:
        plane = image if image.ndim == 2 else np.concatenate(list(np.moveaxis(image, 2, 0)))
        rows, columns = plane.shape
        depth = 8 * image.dtype.itemsize if self._whole_words else bits
        little = plane.astype(image.dtype.newbyteorder("<"))
        return bytes(CharLS.encode_buffer(little.tobytes(), rows, columns, 1, depth))

    def _decode_image(self, stream: bytes, shape: tuple[int, ...]) -> SampleArray:
        plane: SampleArray = imagecodecs.jpegls_decode(stream)
        return plane if len(shape) == 2 else np.stack(np.split(plane, shape[2]), axis=2)


class JpegXl(_FrameByFrame):
    """JPEG XL through libjxl, modular and reversible."""

    def __init__(self, effort: int) -> None:
        self._effort = effort

    def _encode_image(self, image: SampleArray, bits: int) -> bytes:
        return bytes(
            imagecodecs.jpegxl_encode(
                image, lossless=True, effort=self._effort, bitspersample=bits, usecontainer=False, numthreads=1
            )
        )

    def _decode_image(self, stream: bytes, shape: tuple[int, ...]) -> SampleArray:
        image: SampleArray = imagecodecs.jpegxl_decode(stream, numthreads=1)
        return image


class HighThroughputJpeg2000(_FrameByFrame):
    """HTJ2K through OpenJPH, reversible."""

    def _encode_image(self, image: SampleArray, bits: int) -> bytes:
        return bytes(imagecodecs.htj2k_encode(image, reversible=True))

    def _decode_image(self, stream: bytes, shape: tuple[int, ...]) -> SampleArray:
        image: SampleArray = imagecodecs.htj2k_decode(stream)
        return image


class Tomoz(Entrant):
    """Tomoz on the whole stack, with its defaults on one thread; the components of colour follow one another."""

    def __init__(self) -> None:
        if importlib.util.find_spec("tomoz") is None:
            raise NotInstalled("Tomoz is not installed: pip install 'thinfilm[bench]'.")
        import tomoz

        self._tomoz: Any = tomoz

    def encode(self, stack: PixelBlock) -> Coded:
        """Code the stack as one volume. Raises UnsupportedPixels."""
        if stack.samples.itemsize > 2:
            raise UnsupportedPixels("Tomoz codes samples of 8 and 16 bits.")
        samples = stack.samples
        if samples.ndim == 4:
            samples = np.moveaxis(samples, 3, 1).reshape(-1, *samples.shape[1:3])
        stream = self._tomoz.encode(np.ascontiguousarray(samples), threads=1)
        return Coded(stream, len(stream))

    def decode(self, coded: Coded, layout: BlockLayout) -> SampleArray:
        """Decode the volume."""
        samples: SampleArray = np.asarray(self._tomoz.decode(coded.payload, threads=1))
        if layout.components > 1:
            planes = samples.reshape(layout.frames, layout.components, layout.rows, layout.columns)
            samples = np.moveaxis(planes, 1, 3)
        return samples
