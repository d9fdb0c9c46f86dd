"""Measuring one codec on one series, in a process that has one core and one thread."""

import enum
from dataclasses import dataclass
from functools import cache, lru_cache
from time import process_time

import numpy as np

from thinfilm_codecs.blocks import PixelBlock
from thinfilm_codecs.errors import UnsupportedPixels
from thinfilm_gateway.bench.entrant import Entrant, NotInstalled
from thinfilm_gateway.bench.lossless import entrants, noise
from thinfilm_gateway.bench.series import FileStack, Series


class Verdict(enum.Enum):
    """What came of a measurement."""

    EXACT = "exact"  # every sample came back
    UNSUPPORTED = "unsupported"  # the codec does not take such pixels
    NOT_INSTALLED = "not installed"
    FAILED = "failed"  # an error, or samples that are not the same


@dataclass(frozen=True)
class Measurement:
    """Size and CPU time of a series in a codec; zeros unless the verdict is EXACT, then reason is empty.

    encode_seconds: all of the encoder's, with fitting_seconds.
    """

    verdict: Verdict
    reason: str = ""
    coded_bytes: int = 0
    fitting_seconds: float = 0.0
    encode_seconds: float = 0.0
    decode_seconds: float = 0.0


def measure(series: Series, name: str) -> Measurement:
    """Code, decode and compare all stacks of a series."""
    try:
        entrant = _ready(name)
        parts = [_measure_stack(_read(stack), entrant) for stack in series.stacks]
    except NotInstalled as error:
        return Measurement(Verdict.NOT_INSTALLED, str(error))
    except UnsupportedPixels as error:
        return Measurement(Verdict.UNSUPPORTED, str(error))
    except Exception as error:  # whatever a codec does, the others are still to be measured
        return Measurement(Verdict.FAILED, f"{type(error).__name__}: {error}")
    return Measurement(
        Verdict.EXACT,
        coded_bytes=sum(part.coded_bytes for part in parts),
        fitting_seconds=sum(part.fitting_seconds for part in parts),
        encode_seconds=sum(part.encode_seconds for part in parts),
        decode_seconds=sum(part.decode_seconds for part in parts),
    )


def noise_entropy(series: Series) -> float:
    """Return the estimated bits of noise a sample, over all stacks."""
    bits = sum(noise.entropy(_read(stack)) * stack.layout.samples for stack in series.stacks)
    return bits / series.pixels


def _measure_stack(stack: PixelBlock, entrant: Entrant) -> Measurement:
    begin = process_time()
    coded = entrant.encode(stack)
    encoded = process_time()
    decoded = entrant.decode(coded, stack.layout)
    end = process_time()
    if decoded.dtype != stack.samples.dtype or not np.array_equal(decoded, stack.samples):
        raise ValueError("what it coded did not decode to the same samples")
    return Measurement(
        Verdict.EXACT,
        coded_bytes=coded.nbytes,
        fitting_seconds=coded.fitting_seconds,
        encode_seconds=encoded - begin,
        decode_seconds=end - encoded,
    )


@lru_cache(maxsize=1)
def _read(stack: FileStack) -> PixelBlock:
    return stack.read()


@cache
def _ready(name: str) -> Entrant:
    """Return the entrant after it has coded a small stack: libraries and models are loaded before the clock runs."""
    entrant = entrants.entrant(name)
    ramp = np.arange(2 * 16 * 16, dtype=np.uint16).reshape(2, 16, 16)
    entrant.decode(entrant.encode(PixelBlock(ramp, 16)), PixelBlock(ramp, 16).layout)
    return entrant
