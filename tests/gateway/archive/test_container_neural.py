"""Stacks of the neural codec in a container: one instance at a time, damage, and models that are not there."""

from pathlib import Path

import pytest

from support.containers import BytesReader, open_bytes, pack_files
from support.part10_files import smooth_slices, write_image
from thinfilm_gateway.archive.container.cache import FrameCache
from thinfilm_gateway.archive.container.format import (
    PARAMETERS,
    SECTION_HEADER_BYTES,
    MissingDecoder,
    Section,
    section_header,
)
from thinfilm_gateway.archive.container.reader import open_container
from thinfilm_gateway.commands.inspect import inspect

SLICES = 12  # of 512 x 512: two groups


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("series")
    samples = smooth_slices(SLICES, 512)
    samples[:, :380] = -1000  # most of it air, which takes no time
    return [
        write_image(folder / f"{number:02}.dcm", samples[number], InstanceNumber=number) for number in range(SLICES)
    ]


@pytest.fixture(scope="module")
def path(series: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    destination = tmp_path_factory.mktemp("packed") / "x.tfa"
    report = pack_files(series, destination, ("neural",))
    assert report.series[0].codec == "neural"
    return destination


def span(section: Section) -> tuple[int, int]:
    return section.offset, SECTION_HEADER_BYTES + section.length


def test_one_instance_costs_its_group_and_the_parameters_and_no_other_group(path: Path, series: list[Path]) -> None:
    reader = BytesReader(path.read_bytes())
    container = open_container(reader)
    (stack,) = container.manifest.stacks
    (codec,) = stack.codecs
    assert len(stack.groups) == 2
    assert codec.parameters is not None
    opened = len(reader.ranges)
    assert b"".join(container.stream(SLICES - 1)) == series[SLICES - 1].read_bytes()
    literals = container.manifest.literals[0].section
    assert reader.ranges[opened:] == [span(literals), span(codec.parameters), span(stack.groups[1].section)]


def test_read_entry_after_entry_each_group_is_decoded_once_whatever_the_cache(path: Path, series: list[Path]) -> None:
    reader = BytesReader(path.read_bytes())
    container = open_container(reader, cache=FrameCache(0))
    order = container.reading_order()
    for number in container.each(order):
        assert b"".join(container.stream(number)) == series[number].read_bytes()
    frames = [span(group.section) for group in container.manifest.stacks[0].groups]
    assert [reader.ranges.count(each) for each in frames] == [1, 1]


def test_a_damaged_group_loses_its_slices_and_no_others(path: Path, series: list[Path]) -> None:
    data = bytearray(path.read_bytes())
    (stack,) = open_bytes(bytes(data)).manifest.stacks
    data[stack.groups[0].section.offset + 500] ^= 1
    container = open_bytes(bytes(data))
    damages = container.verify()
    assert len(damages) == stack.groups[0].frames
    assert all("frames" in damage for damage in damages)
    for number in range(stack.groups[0].frames, SLICES):
        assert b"".join(container.stream(number)) == series[number].read_bytes()


def test_damaged_parameters_lose_the_stack_and_name_no_model(path: Path) -> None:
    data = bytearray(path.read_bytes())
    (stack,) = open_bytes(bytes(data)).manifest.stacks
    assert stack.codecs[0].parameters is not None
    data[stack.codecs[0].parameters.offset + 40] ^= 1
    container = open_bytes(bytes(data))
    assert len(container.verify()) == SLICES
    assert container.model_hashes() == ()


def test_the_models_that_are_needed_are_named(path: Path) -> None:
    (model,) = open_bytes(path.read_bytes()).model_hashes()
    assert len(bytes.fromhex(model)) == 16
    assert inspect(path).model_hashes == (model,)


def test_a_model_that_is_not_at_hand_is_named_and_nothing_is_called_damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    (stack,) = open_bytes(bytes(data)).manifest.stacks
    section = stack.codecs[0].parameters
    assert section is not None
    begin = section.offset + SECTION_HEADER_BYTES
    data[begin + 3 : begin + 19] = bytes(range(16))  # the identity of the model, by docs/formats/neural.md
    payload = bytes(data[begin : begin + section.length])
    data[section.offset : begin] = section_header(PARAMETERS, payload)
    container = open_bytes(bytes(data))
    assert container.model_hashes() == (bytes(range(16)).hex(),)
    with pytest.raises(MissingDecoder, match=f"its model {bytes(range(16)).hex()}, which is not installed; install"):
        container.verify()
