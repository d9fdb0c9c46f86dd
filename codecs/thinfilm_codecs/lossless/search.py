"""Choose the codecs of a stack: measure each candidate on a spread sample of its frames."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from thinfilm_codecs import registry
from thinfilm_codecs.blocks import PixelBlock
from thinfilm_codecs.codec import Codec
from thinfilm_codecs.errors import UnsupportedPixels

SAMPLE_BUDGET = 2_000_000
"""Samples that each candidate codes for the measurement, at most."""

_LADDER_END = ("zstd", "raw")

_CHEAP = ("jpegls", "zstd")
"""These cost so little that every group is coded by them too, in case it is unlike the sample."""

_NEAR = 1.05
"""A codec within this of the best on the sample may well be the best of a group."""

_FITTING_GAIN = 0.96
"""What a codec that can try harder than it is measured is expected to make of its size."""

_HOPE = 1.25
"""Such a codec within this of the best on the sample is tried: synthetic images can gain far more than is expected."""


@dataclass(frozen=True)
class Choice:
    """The codecs of a stack, and a sentence for each candidate with a fault.

    tiers: of the first tier the smallest stream of a group is kept; a further tier is tried where all before it fail.
    The very first codec is the one that is expected to win, so its groups are those of the stack.
    """

    tiers: tuple[tuple[Codec, ...], ...]
    failures: tuple[str, ...] = ()


def choose(stack: PixelBlock, candidates: Sequence[Codec]) -> Choice:
    """Rank the candidates by what they make of a sample of the stack; zstd and raw are always the last tier.

    Codecs with presets are measured in their fastest. A candidate that does not support the layout, or fails on the
    sample, is left out. A single candidate is not measured, and has no rivals.
    """
    usable = {codec.codec_id: codec for codec in candidates if codec.supports(stack.layout)}
    end = tuple(map(registry.get, _LADDER_END))
    if len(usable) < 2:
        return Choice((*((codec,) for codec in usable.values()), end))
    usable.setdefault("zstd", registry.get("zstd"))
    sizes, failures = _measured(stack, list(usable.values()))
    ranked = sorted(sizes, key=sizes.__getitem__)
    best = sizes[ranked[0]]
    fitted = [name for name in ranked if _fastest(usable[name]) is not usable[name]]
    plain = [name for name in ranked if name not in fitted]
    # What must be fitted goes first or not at all: it costs too much for a rival, and wants groups of its own length.
    ranked = [name for name in fitted[:1] if sizes[name] <= _HOPE * best] + plain
    near = _NEAR * min(sizes[name] for name in plain)
    first = [name for name in ranked if name in fitted or sizes[name] <= near or name in _CHEAP]
    rest = [(usable[name],) for name in ranked if name not in first]
    return Choice((tuple(usable[name] for name in first), *rest, end), failures)


def _measured(stack: PixelBlock, codecs: Sequence[Codec]) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return what those codecs that can code the sample make of it, in bytes, and what was wrong with the others."""
    windows = _spread_windows(stack, max(codec.frames_per_group(stack.layout) for codec in codecs))
    sizes: dict[str, float] = {}
    failures: list[str] = []
    for codec in codecs:
        fastest = _fastest(codec)
        try:
            size = _measure(fastest, windows, stack.layout.frames)
        except UnsupportedPixels:  # a refusal, no fault
            continue
        except Exception as error:  # a codec with a fault must not stop the others
            failures.append(f"{codec.codec_id}: {error}")
        else:
            sizes[codec.codec_id] = size if fastest is codec else size * _FITTING_GAIN
    return sizes, tuple(failures)


def _fastest(codec: Codec) -> Codec:
    return codec.tuned(registry.PRESETS[0], "cpu")


def _spread_windows(stack: PixelBlock, window_frames: int) -> list[PixelBlock]:
    """Return runs of frames, evenly spread over the stack, of at most SAMPLE_BUDGET samples together."""
    layout = stack.layout
    frame_samples = layout.samples // layout.frames
    if frame_samples > SAMPLE_BUDGET:
        rows = max(1, SAMPLE_BUDGET // (layout.columns * layout.components))
        first_row = (layout.rows - rows) // 2
        middle = stack.frames(layout.frames // 2, 1)
        return [replace(middle, samples=middle.samples[:, first_row : first_row + rows])]
    budget_frames = min(layout.frames, SAMPLE_BUDGET // frame_samples)
    window_frames = min(window_frames, budget_frames)
    count = budget_frames // window_frames
    starts = (
        np.linspace(0, layout.frames - window_frames, count).round().astype(int)
        if count > 1
        else [(layout.frames - window_frames) // 2]
    )
    return [stack.frames(int(start), window_frames) for start in starts]


def _measure(codec: Codec, windows: Sequence[PixelBlock], stack_frames: int) -> float:
    """Return the bytes that the sample takes with this codec, with its share of the parameters."""
    sample = replace(windows[0], samples=np.concatenate([window.samples for window in windows]))
    parameters = codec.prepare(sample)
    total = len(parameters) * sample.layout.frames / stack_frames
    for window in windows:
        step = codec.frames_per_group(window.layout)
        for first in range(0, window.layout.frames, step):
            total += len(codec.encode(window.frames(first, step), parameters))
    return total
