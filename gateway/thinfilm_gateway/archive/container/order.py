"""Which frames are coded together and in which order: each next to those that look like it."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from thinfilm_codecs.blocks import BlockLayout, FrameAxis
from thinfilm_gateway.archive.container.format import STACK_LIMIT

_FRAME_MULTIPLE = 8  # a cut after so many frames falls on a byte, even where samples are single bits


@dataclass(frozen=True)
class SourceFrames:
    """The frames of one source file, and what is known of their place.

    source: number of the source. series: Series Instance UID, empty if unknown.
    orientation, position: Image Orientation and Image Position (Patient) of a single frame, in mm.
    """

    source: int
    series: str
    layout: BlockLayout
    bits_stored: int
    frame_axis: FrameAxis
    spacing: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None = None
    position: tuple[float, ...] | None = None
    instance_number: int | None = None


@dataclass(frozen=True)
class FrameSlice:
    """Frames `first` to `first + count` of a source."""

    source: int
    first: int
    count: int


@dataclass(frozen=True)
class StackPlan:
    """Frames of one layout in coding order, at most STACK_LIMIT bytes of them; fields as in PixelBlock."""

    slices: tuple[FrameSlice, ...]
    layout: BlockLayout
    bits_stored: int
    frame_axis: FrameAxis
    spacing: tuple[float, float, float] | None


def plan(sources: Sequence[SourceFrames]) -> list[StackPlan]:
    """Put all frames into stacks.

    Single frames of one series and layout are stacked by their place in the patient where all of them tell it, else by
    Instance Number, else as given. Multi-frame sources of one series with as many frames each are the volumes of a 4-D
    acquisition: they follow one another by Instance Number. Other multi-frame sources are stacks of their own.
    """
    alike: dict[tuple[object, ...], list[SourceFrames]] = defaultdict(list)
    for frames in sources:
        alone = not frames.series or _is_loop_or_mask(frames)
        alike[frames.series, frames.layout, frames.bits_stored, frames.source if alone else None].append(frames)
    return [stack for frames in alike.values() for stack in _stacks(frames)]


def _is_loop_or_mask(frames: SourceFrames) -> bool:
    """Tell whether a multi-frame source is a cine loop, or of single bits, whose frames may end within a byte."""
    return frames.layout.frames > 1 and (frames.frame_axis is FrameAxis.TIME or frames.bits_stored == 1)


def _stacks(sources: list[SourceFrames]) -> Iterator[StackPlan]:
    ordered, frame_axis, spacing = _ordered(sources) if len(sources) > 1 else _as_given(sources)
    frame_layout = ordered[0].layout.with_frames(1)
    most = max(STACK_LIMIT // frame_layout.nbytes, 1)
    if most > _FRAME_MULTIPLE:
        most -= most % _FRAME_MULTIPLE
    frames = [FrameSlice(each.source, first, 1) for each in ordered for first in range(each.layout.frames)]
    for start in range(0, len(frames), most):
        chosen = frames[start : start + most]
        layout = frame_layout.with_frames(len(chosen))
        yield StackPlan(tuple(_joined(chosen)), layout, ordered[0].bits_stored, frame_axis, spacing)


def _joined(frames: list[FrameSlice]) -> Iterator[FrameSlice]:
    """Join frames that follow each other in one source."""
    current = frames[0]
    for frame in frames[1:]:
        if frame.source == current.source and frame.first == current.first + current.count:
            current = FrameSlice(current.source, current.first, current.count + 1)
        else:
            yield current
            current = frame
    yield current


_Ordered = tuple[list[SourceFrames], FrameAxis, tuple[float, float, float] | None]


def _as_given(sources: list[SourceFrames]) -> _Ordered:
    return sources, sources[0].frame_axis, sources[0].spacing


def _ordered(sources: list[SourceFrames]) -> _Ordered:
    """Order single frames, those at the same place by Instance Number; or volumes, by Instance Number."""
    if sources[0].layout.frames > 1:
        return sorted(sources, key=_number), sources[0].frame_axis, sources[0].spacing
    depths = [_depth(frames) for frames in sources]
    known = [depth for depth in depths if depth is not None]
    if len(known) == len(sources):
        keyed = sorted(zip(known, sources, strict=True), key=lambda pair: (*pair[0], *_number(pair[1])))
        ordered = [frames for _, frames in keyed]
        orientations = {orientation for (orientation, _), _ in keyed}
        steps = np.diff([depth for (_, depth), _ in keyed])
        if len(orientations) > 1:
            return ordered, FrameAxis.NONE, None
        if not steps.all():
            return ordered, FrameAxis.TIME, None
        in_plane = ordered[0].spacing
        spacing = None if in_plane is None else (float(np.median(steps)), *in_plane[1:])
        return ordered, FrameAxis.SPACE, spacing
    if all(frames.instance_number is not None for frames in sources):
        return sorted(sources, key=_number), FrameAxis.NONE, None
    return sources, FrameAxis.NONE, None


def _depth(frames: SourceFrames) -> tuple[tuple[float, ...], float] | None:
    """Return (orientation, position along its normal in mm) of a single frame, rounded against noise.

    The normal is that of PS3.3 C.7.6.2.1.1.
    """
    if frames.orientation is None or frames.position is None:
        return None
    normal = np.cross(frames.orientation[:3], frames.orientation[3:])
    depth = round(float(np.dot(normal, frames.position)), 3)
    return tuple(round(number, 2) + 0.0 for number in frames.orientation), depth


def _number(frames: SourceFrames) -> tuple[int, int]:
    return frames.instance_number or 0, frames.source
