from pathlib import Path

import numpy as np
import pytest

from support.containers import open_bytes, pack_files
from support.datasets import MR_IMAGE, finish, instance, with_pixels
from thinfilm_codecs.blocks import BlockLayout, FrameAxis
from thinfilm_gateway.archive.container.format import STACK_LIMIT
from thinfilm_gateway.archive.container.order import FrameSlice, SourceFrames, plan

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def single(source: int, **known: object) -> SourceFrames:
    fields = {"layout": BlockLayout(1, 64, 64, 1, "int16"), "spacing": (0.0, 0.7, 0.8)} | known
    return SourceFrames(source, "1.2", bits_stored=12, frame_axis=FrameAxis.NONE, **fields)  # type: ignore[arg-type]


def sources(frames: list[SourceFrames]) -> list[int]:
    (stack,) = plan(frames)
    return [piece.source for piece in stack.slices for _ in range(piece.count)]


def test_slices_are_ordered_along_the_normal_with_their_distance() -> None:
    frames = [single(n, orientation=AXIAL, position=(7.0, n, 2.5 * place)) for n, place in enumerate((3, 0, 2, 1))]
    (stack,) = plan(frames)
    assert [piece.source for piece in stack.slices] == [1, 3, 2, 0]
    assert (stack.frame_axis, stack.spacing) == (FrameAxis.SPACE, (2.5, 0.7, 0.8))


def test_an_oblique_normal_counts_not_an_axis_of_the_room() -> None:
    frames = [single(n, orientation=SAGITTAL, position=(-float(n), 5.0 * n % 3, 0.0)) for n in range(6)]
    assert sources(frames) == [0, 1, 2, 3, 4, 5]
    normal = np.cross(SAGITTAL[:3], SAGITTAL[3:])
    assert normal.tolist() == [-1.0, 0.0, 0.0]


def test_several_phases_of_one_place_follow_each_other_by_instance_number() -> None:
    frames = [single(n, orientation=AXIAL, position=(0.0, 0.0, float(n % 2)), instance_number=10 - n) for n in range(6)]
    (stack,) = plan(frames)
    assert [piece.source for piece in stack.slices] == [4, 2, 0, 5, 3, 1]
    assert (stack.frame_axis, stack.spacing) == (FrameAxis.TIME, None)


def test_planes_of_several_orientations_are_kept_together_each() -> None:
    frames = [
        single(n, orientation=SAGITTAL if n % 2 else AXIAL, position=(-float(n), 0.0, float(n))) for n in range(6)
    ]
    (stack,) = plan(frames)
    assert [piece.source for piece in stack.slices] == [1, 3, 5, 0, 2, 4]
    assert stack.frame_axis is FrameAxis.NONE


def test_one_slice_without_a_place_leaves_the_order_to_instance_number() -> None:
    frames = [single(n, orientation=AXIAL, position=(0.0, 0.0, float(n)), instance_number=9 - n) for n in range(3)]
    frames.append(single(3, instance_number=5))
    assert sources(frames) == [3, 2, 1, 0]


def test_without_place_and_number_the_order_given_stays() -> None:
    assert sources([single(n, instance_number=None if n == 1 else 9 - n) for n in range(3)]) == [0, 1, 2]


def test_frames_of_other_layout_or_bits_have_a_stack_of_their_own() -> None:
    small = BlockLayout(1, 32, 32, 1, "int16")
    stacks = plan([single(0), single(1, layout=small), single(2)])
    assert [[piece.source for piece in stack.slices] for stack in stacks] == [[0, 2], [1]]


def test_a_loop_is_a_stack_of_its_own_with_what_it_tells() -> None:
    cine = SourceFrames(1, "1.2", BlockLayout(30, 64, 64, 1, "uint8"), 8, FrameAxis.TIME, None)
    (first, second) = plan([single(0), cine])
    assert second.slices == (FrameSlice(1, 0, 30),)
    assert (first.layout.frames, second.layout.frames, second.frame_axis) == (1, 30, FrameAxis.TIME)


def volume(source: int, **known: object) -> SourceFrames:
    fields = {"layout": BlockLayout(20, 64, 64, 1, "uint16"), "bits_stored": 12, "frame_axis": FrameAxis.NONE} | known
    return SourceFrames(source, "1.2", spacing=None, **fields)  # type: ignore[arg-type]


def test_volumes_of_one_series_follow_each_other_by_instance_number() -> None:
    (stack,) = plan([volume(n, instance_number=9 - n) for n in range(3)])
    assert stack.slices == (FrameSlice(2, 0, 20), FrameSlice(1, 0, 20), FrameSlice(0, 0, 20))
    assert stack.layout.frames == 60


def test_loops_masks_and_volumes_of_other_lengths_are_stacks_of_their_own() -> None:
    longer = BlockLayout(21, 64, 64, 1, "uint16")
    frames = [
        *(volume(n, frame_axis=FrameAxis.TIME) for n in range(2)),
        *(volume(n, bits_stored=1) for n in range(2, 4)),
        volume(4),
        volume(5, layout=longer),
    ]
    assert [[piece.source for piece in stack.slices] for stack in plan(frames)] == [[n] for n in range(6)]


def test_volumes_that_share_a_stack_come_back_byte_for_byte(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    files = []
    for number in range(3):
        samples = rng.integers(0, 900, (5, 12, 14)).astype(np.uint16)
        image = finish(with_pixels(instance(MR_IMAGE, "MR", "volumes", 3 - number), samples))
        files.append(image.write(tmp_path / f"{number}.dcm"))
    pack_files(files, tmp_path / "volumes.tfa")
    container = open_bytes((tmp_path / "volumes.tfa").read_bytes())
    assert [stack.layout.frames for stack in container.manifest.stacks] == [15]
    for number, file in enumerate(files):
        assert b"".join(container.stream(number)) == file.read_bytes()


def test_files_of_no_series_are_never_stacked() -> None:
    frames = [SourceFrames(n, "", BlockLayout(1, 8, 8, 1, "uint8"), 8, FrameAxis.NONE, None) for n in range(3)]
    assert [stack.layout.frames for stack in plan(frames)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("frame_bytes", "frames"), [(2**20, 600), (3 * 2**20, 200), (100 * 2**20, 5), (STACK_LIMIT, 2)]
)
def test_a_stack_never_passes_its_limit_and_is_cut_at_whole_bytes(frame_bytes: int, frames: int) -> None:
    layout = BlockLayout(frames, frame_bytes // 1024, 1024, 1, "uint8")
    stacks = plan([SourceFrames(0, "1.2", layout, 8, FrameAxis.NONE, None)])
    assert sum(stack.layout.frames for stack in stacks) == frames
    assert max(stack.layout.nbytes for stack in stacks) <= STACK_LIMIT
    firsts = [stack.slices[0].first for stack in stacks]
    assert firsts == np.cumsum([0, *(stack.layout.frames for stack in stacks[:-1])]).tolist()
    assert all(first % 8 == 0 or frame_bytes > STACK_LIMIT // 16 for first in firsts)
