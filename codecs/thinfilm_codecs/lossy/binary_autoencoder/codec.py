"""The binary_autoencoder lossy codec: planes of yes and no from a residual network, coded in their contexts.

Format: docs/formats/autoencoders.md. Source: Gong, Lin, Pauly: Efficient MR Image Compression using Deep Learning
Models for Multi-contrast MRI, ISMRM 2019.
"""

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from thinfilm_codecs.errors import CorruptStream
from thinfilm_codecs.lossless.neural.rans import TOTAL, Decoder, Encoder
from thinfilm_codecs.lossy.adaptive import Int64
from thinfilm_codecs.lossy.autoencoders.codec import AutoencoderCodec, Codes
from thinfilm_codecs.lossy.autoencoders.layers import ONE_BITS, Network
from thinfilm_codecs.lossy.binary_autoencoder.network import CURRENT, named
from thinfilm_codecs.lossy.diagonals import MARGIN, diagonals
from thinfilm_codecs.lossy.exact import Floats

_NEIGHBOURS = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0))
_CONTEXTS = 1 << len(_NEIGHBOURS)
_INCREMENT = 24
_MOST = 1 << 12
_SURE = 32


class BinaryAutoencoder(AutoencoderCodec):
    """The binary_autoencoder codec. One object serves all threads."""

    codec_id: ClassVar[str] = "binary_autoencoder"
    setting_name: ClassVar[str] = "code_planes"
    ladder: ClassVar[tuple[float, ...]] = (32, 24, 16, 12, 8, 6, 4, 2)
    current: ClassVar[str] = CURRENT

    def _network(self, identity: bytes) -> Network:
        return named(identity)

    def _quantised(self, found: Floats) -> Codes:
        return (found > 0).astype(np.int32)

    def _activations(self, code: Codes) -> Floats:
        found: Floats = (2.0 * code - 1) * 2**ONE_BITS
        return found

    def _put(self, codes: Codes) -> bytes:
        encoder = Encoder()

        def put(shares: Int64, bits: Int64) -> Int64:
            for share, bit in zip(shares.tolist(), bits.tolist(), strict=True):
                encoder.symbol(bit, (0, share, TOTAL))
            return bits

        _walk(codes, put)
        return encoder.stream()

    def _take(self, stream: bytes, shape: tuple[int, int, int, int]) -> Codes:
        decoder = Decoder.of(stream)

        def take(shares: Int64, bits: Int64) -> Int64:
            del bits
            return np.array([decoder.symbol(None, (0, share, TOTAL)) for share in shares.tolist()], np.int64)

        codes = _walk(np.zeros(shape, np.int32), take)
        if not decoder.finished():
            raise CorruptStream("The binary_autoencoder stream has words behind its end.")
        return codes


def _walk(codes: Codes, code: Callable[[Int64, Int64], Int64]) -> Codes:
    """Code the bits (planes, kept, rows, columns), each in the context of those around it, and return what was coded.

    `code` takes the share of 0, of TOTAL, and the bits (n,), and returns the bits; a decoder takes no notice of those.
    """
    planes, kept, rows, columns = codes.shape
    padded = np.pad(codes.reshape(planes * kept, rows, columns), ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)))
    counts = np.full((kept, _CONTEXTS, 2), _INCREMENT, np.int64)
    for plane, y, x in diagonals([(rows, columns)] * (planes * kept)):
        context = np.zeros(len(plane), np.int64)
        for row, column in _NEIGHBOURS:
            context = 2 * context + padded[plane, y + row, x + column]
        met = counts[plane % kept, context]
        shares = (met[:, 0] * TOTAL // met.sum(1)).clip(_SURE, TOTAL - _SURE)
        bits = code(shares, padded[plane, y, x].astype(np.int64))
        padded[plane, y, x] = bits
        np.add.at(counts, (plane % kept, context, bits), _INCREMENT)
        counts[counts.sum(2) > _MOST] >>= 1
    found = padded[:, MARGIN : MARGIN + rows, MARGIN : MARGIN + columns]
    return found.reshape(codes.shape)
