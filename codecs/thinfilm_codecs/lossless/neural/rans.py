"""The entropy coder: interleaved rANS with 64-bit states and 32-bit words, in plain Python.

Format: docs/formats/neural.md, "Entropy coding". The kernel has its own for samples.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from thinfilm_codecs.errors import CorruptStream

STATES = 4
TOTAL = 1 << 16
_LOWEST_STATE = 1 << 31


@dataclass
class Decoder:
    """Takes symbols from a stream of little-endian 32-bit words."""

    words: list[int]
    states: list[int]
    taken: int = 0

    @staticmethod
    def of(stream: bytes) -> "Decoder":
        """Return the decoder at the start of a stream. Raises CorruptStream if it is none."""
        if len(stream) % 4 or len(stream) < 8 * STATES:
            raise CorruptStream("The stream is not of whole words, or too short for its states.")
        words = np.frombuffer(stream, "<u4").tolist()
        states = [words[2 * i] | words[2 * i + 1] << 32 for i in range(STATES)]
        if min(states) < _LOWEST_STATE or max(states) >> 63:
            raise CorruptStream("A state of the stream is out of bounds.")
        return Decoder(words[: 2 * STATES - 1 : -1], states)

    def _take(self, start: int, frequency: int) -> None:
        index = self.taken % STATES
        self.taken += 1
        state = frequency * (self.states[index] >> 16) + (self.states[index] & 0xFFFF) - start
        if state < _LOWEST_STATE:
            if not self.words:
                raise CorruptStream("The stream ends before its symbols.")
            state = state << 32 | self.words.pop()
        self.states[index] = state

    def symbol(self, value: int | None, cumulative: Sequence[int]) -> int:
        """Take the next of the symbols with these bounds, which rise from 0 to TOTAL."""
        del value
        found = bisect_right(cumulative, self.states[self.taken % STATES] & 0xFFFF) - 1
        self._take(cumulative[found], cumulative[found + 1] - cumulative[found])
        return found

    def uniform(self, value: int | None, bits: int) -> int:
        """Take a number of so many bits."""
        del value
        if not bits:
            return 0
        found = (self.states[self.taken % STATES] & 0xFFFF) >> (16 - bits)
        self._take(found << (16 - bits), 1 << (16 - bits))
        return found

    def finished(self) -> bool:
        """Tell whether nothing is left of the stream."""
        return not self.words and all(state == _LOWEST_STATE for state in self.states)


@dataclass
class Encoder:
    """Gathers symbols in order; the stream is made backwards from the last."""

    symbols: list[tuple[int, int]] = field(default_factory=list)

    def symbol(self, value: int | None, cumulative: Sequence[int]) -> int:
        """Put one of the symbols with these bounds, which rise from 0 to TOTAL."""
        assert value is not None
        self.symbols.append((cumulative[value], cumulative[value + 1] - cumulative[value]))
        return value

    def uniform(self, value: int | None, bits: int) -> int:
        """Put a number of so many bits."""
        assert value is not None
        if bits:
            self.symbols.append((value << (16 - bits), 1 << (16 - bits)))
        return value

    def stream(self) -> bytes:
        """Return the stream of all symbols."""
        states, words = [_LOWEST_STATE] * STATES, []
        for place in reversed(range(len(self.symbols))):
            start, frequency = self.symbols[place]
            state = states[place % STATES]
            if state >= frequency << 47:
                words.append(state & 0xFFFFFFFF)
                state >>= 32
            states[place % STATES] = (state // frequency << 16) + state % frequency + start
        for state in reversed(states):
            words += [state >> 32, state & 0xFFFFFFFF]
        return np.array(words[::-1], "<u4").tobytes()


MAGNITUDES = 16
"""Magnitudes 0 to 14, and one symbol for all above."""


def magnitude_table(values: Any) -> list[int]:
    """Return the frequencies, of TOTAL, of the magnitudes of integers: MAGNITUDES numbers of at least 1."""
    counts = np.bincount(np.minimum(np.abs(values), MAGNITUDES - 1).ravel(), minlength=MAGNITUDES)
    shares = 1 + np.floor(counts * (TOTAL - MAGNITUDES) / max(counts.sum(), 1)).astype(int)
    shares[int(np.argmax(shares))] += TOTAL - shares.sum()
    found: list[int] = shares.tolist()
    return found


def put_integers(encoder: Encoder, values: Any, table: Sequence[int]) -> None:
    """Put integers of 16 bits: magnitude by the table, sign, and the whole number where the magnitude is large."""
    bounds = [0, *np.cumsum(table).tolist()]
    for value in np.asarray(values).ravel().tolist():
        size = encoder.symbol(min(abs(value), MAGNITUDES - 1), bounds)
        if size == MAGNITUDES - 1:
            encoder.uniform(value & 0xFFFF, 16)
        elif size:
            encoder.uniform(int(value < 0), 1)


def take_integers(decoder: Decoder, count: int, table: Sequence[int]) -> list[int]:
    """Take `count` integers that were put with this table."""
    bounds = [0, *np.cumsum(table).tolist()]
    values = []
    for _ in range(count):
        value = decoder.symbol(None, bounds)
        if value == MAGNITUDES - 1:
            value = decoder.uniform(None, 16)
            value -= value >> 15 << 16
        elif value and decoder.uniform(None, 1):
            value = -value
        values.append(value)
    return values
