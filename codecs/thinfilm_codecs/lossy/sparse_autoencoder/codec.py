"""The sparse_autoencoder lossy codec: latents of a convolutional network, rounded and coded adaptively.

Format: docs/formats/autoencoders.md. Source: Thornton, MRI Image Compression with Deep Learning, "Convolutional Neural
Network, No Wavelets".
"""

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from thinfilm_codecs.errors import CorruptStream
from thinfilm_codecs.lossless.neural.rans import Decoder, Encoder
from thinfilm_codecs.lossy import adaptive
from thinfilm_codecs.lossy.adaptive import Counts, Int64
from thinfilm_codecs.lossy.autoencoders.codec import AutoencoderCodec, Codes
from thinfilm_codecs.lossy.autoencoders.layers import ONE_BITS, Network
from thinfilm_codecs.lossy.diagonals import MARGIN, diagonals
from thinfilm_codecs.lossy.exact import Floats, rescale
from thinfilm_codecs.lossy.sparse_autoencoder.network import CURRENT, named

LARGEST_LATENT = 1023

_NEIGHBOURS = ((0, -1, 4), (-1, 0, 4), (-1, -1, 2), (-1, 1, 2), (0, -2, 2), (-2, 0, 2))


class SparseAutoencoder(AutoencoderCodec):
    """The sparse_autoencoder codec. One object serves all threads."""

    codec_id: ClassVar[str] = "sparse_autoencoder"
    setting_name: ClassVar[str] = "filters"
    ladder: ClassVar[tuple[float, ...]] = (16, 12, 8, 6, 4, 3, 2, 1)
    current: ClassVar[str] = CURRENT

    def _network(self, identity: bytes) -> Network:
        return named(identity)

    def _quantised(self, found: Floats) -> Codes:
        return rescale(found, ONE_BITS, LARGEST_LATENT).astype(np.int32)

    def _activations(self, code: Codes) -> Floats:
        found: Floats = code.astype(np.float64) * 2**ONE_BITS
        return found

    def _put(self, codes: Codes) -> bytes:
        encoder = Encoder()

        def put(counts: Counts, contexts: Int64, numbers: Int64) -> Int64:
            adaptive.put(encoder, counts, contexts, numbers)
            return numbers

        _walk(codes, put)
        return encoder.stream()

    def _take(self, stream: bytes, shape: tuple[int, int, int, int]) -> Codes:
        decoder = Decoder.of(stream)

        def take(counts: Counts, contexts: Int64, numbers: Int64) -> Int64:
            del numbers
            found = adaptive.take(decoder, counts, contexts)
            if np.abs(found).max() > LARGEST_LATENT:
                raise CorruptStream("A latent of the sparse_autoencoder stream is too large.")
            return found

        codes = _walk(np.zeros(shape, np.int32), take)
        if not decoder.finished():
            raise CorruptStream("The sparse_autoencoder stream has words behind its end.")
        return codes


def _walk(codes: Codes, code: Callable[[Counts, Int64, Int64], Int64]) -> Codes:
    """Code the latents (planes, kept, rows, columns), each filter by its own counts, and return what was coded.

    `code` takes counts, contexts and numbers, and returns the numbers; a decoder takes no notice of those given.
    """
    planes, _, rows, columns = codes.shape
    padded = np.pad(codes, ((0, 0), (0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)))
    for latents in padded.swapaxes(0, 1):
        counts = Counts()
        for plane, y, x in diagonals([(rows, columns)] * planes):
            expected = np.zeros(len(plane), np.int64)
            for row, column, weight in _NEIGHBOURS:
                expected += weight * np.abs(latents[plane, y + row, x + column].astype(np.int64))
            numbers = latents[plane, y, x].astype(np.int64)
            latents[plane, y, x] = code(counts, adaptive.contexts_of(expected), numbers)
    return padded[:, :, MARGIN : MARGIN + rows, MARGIN : MARGIN + columns]
