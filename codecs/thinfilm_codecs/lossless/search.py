"""Choose the codec of a stack: measure each candidate on a spread sample of its frames."""

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


@dataclass(frozen=True)
class Choice:
    """The codecs to try on each group of a stack, best first; a sentence for each candidate with a fault."""

    codecs: tuple[Codec, ...]
    failures: tuple[str, ...] = ()


def choose(stack: PixelBlock, candidates: Sequence[str]) -> Choice:
    """Rank the candidates by what they make of a sample of the stack; zstd and raw close the list.

    A candidate that does not support the layout, fails on the sample, or is behind zstd is left out. A single
    candidate is not measured. Raises KeyError for an id that is unknown.
    """
    usable = [codec for codec in map(registry.get, dict.fromkeys(candidates)) if codec.supports(stack.layout)]
    ranked = Choice(tuple(usable))
    if len(usable) > 1:
        ranked = _ranked(stack, list(dict.fromkeys((*usable, registry.get("zstd")))))
    ids = [codec.codec_id for codec in ranked.codecs]
    end = min((ids.index(codec_id) + 1 for codec_id in _LADDER_END if codec_id in ids), default=len(ids))
    ladder = dict.fromkeys((*ids[:end], *_LADDER_END))
    return Choice(tuple(map(registry.get, ladder)), ranked.failures)


def _ranked(stack: PixelBlock, codecs: Sequence[Codec]) -> Choice:
    """Return those of the codecs that can code the sample, smallest total first."""
    windows = _spread_windows(stack, max(codec.frames_per_group(stack.layout) for codec in codecs))
    sized: list[tuple[float, Codec]] = []
    failures: list[str] = []
    for codec in codecs:
        try:
            sized.append((_measure(codec, windows, stack.layout.frames), codec))
        except UnsupportedPixels:  # a refusal, no fault
            continue
        except Exception as error:  # a codec with a fault must not stop the others
            failures.append(f"{codec.codec_id}: {error}")
    return Choice(tuple(codec for _, codec in sorted(sized, key=lambda pair: pair[0])), tuple(failures))


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
