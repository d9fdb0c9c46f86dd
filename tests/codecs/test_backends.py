"""Every back end of the neural codec writes the same bytes and reads the same samples, today and for ever."""

import itertools
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
import torch

from support import neural_goldens
from thinfilm_codecs.errors import CodecError, MissingDevice
from thinfilm_codecs.lossless.neural import Neural, Preset, compiled, reference, shape
from thinfilm_codecs.lossless.neural.backends import BackEnd, Kernel, back_end
from thinfilm_codecs.lossless.neural.model import Network, shipped
from thinfilm_codecs.lossless.neural.planes import Geometry, unpadded
from thinfilm_codecs.lossless.neural.torch_backend import TorchBackEnd

NAMES = sorted(neural_goldens.goldens())
SMALL = ("1-bit", "32-bit", "column", "extremes", "lag-beyond-the-group", "pixel", "sparse", "two-components")
TINY = ("column", "lag-beyond-the-group", "pixel")
HASHES = json.loads(neural_goldens.HASHES.read_text())


@cache
def goldens() -> dict[str, neural_goldens.Golden]:
    return neural_goldens.goldens()


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def codec_on(runs_on: BackEnd, monkeypatch: pytest.MonkeyPatch) -> Neural:
    monkeypatch.setattr("thinfilm_codecs.lossless.neural.codec.back_end", lambda device: runs_on)
    return Neural(Preset.FAST)


def test_hashes_are_kept_for_every_golden() -> None:
    assert sorted(HASHES) == NAMES
    for name in NAMES:
        assert neural_goldens.hashed(goldens()[name].block.samples.tobytes()) == HASHES[name]["samples"], name
        assert neural_goldens.hashed(neural_goldens.parameters_and_stream(name)[1]) == HASHES[name]["stream"], name


def conforms(runs_on: BackEnd, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec, block = codec_on(runs_on, monkeypatch), goldens()[name].block
    parameters, stream = neural_goldens.parameters_and_stream(name)
    assert codec.encode(block, parameters) == stream
    decoded = codec.decode(stream, block.layout, parameters)
    assert decoded.dtype == block.samples.dtype
    assert neural_goldens.hashed(decoded.tobytes()) == HASHES[name]["samples"]


@pytest.mark.parametrize("name", NAMES)
def test_the_specification_conforms(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    conforms(reference, name, monkeypatch)


@pytest.mark.parametrize("name", NAMES)
def test_every_instruction_set_conforms(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for instruction_set in compiled.instruction_sets():
        conforms(Kernel(instruction_set), name, monkeypatch)


@pytest.mark.parametrize("name", NAMES)
def test_torch_conforms(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with threads(1):
        conforms(TorchBackEnd("cpu", 4096), name, monkeypatch)


@pytest.mark.parametrize("name", SMALL)
def test_torch_conforms_with_two_threads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with threads(2):
        conforms(TorchBackEnd("cpu", 4096), name, monkeypatch)


@pytest.mark.parametrize("name", SMALL)
def test_torch_conforms_in_batches_of_seven(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with threads(1):
        conforms(TorchBackEnd("cpu", 7), name, monkeypatch)


@pytest.mark.parametrize("name", TINY)
def test_torch_conforms_pixel_by_pixel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with threads(1):
        conforms(TorchBackEnd("cpu", 1), name, monkeypatch)


def test_groups_coded_together_are_coded_as_each_alone() -> None:
    model = shipped()
    groups = [neural_goldens.tissue((3, 24, 26), 30, seed).astype(np.uint16) for seed in range(4)]
    shared = (Geometry(3, 24, 26, 1, 2, 4095), model.linear, model.network, model)
    streams = [Kernel().encode(values, *shared) for values in groups]
    for count in (1, 2):
        with threads(count):
            torch_cpu = TorchBackEnd("cpu", 4096)
            assert torch_cpu.encode_groups(groups, *shared) == streams
            cut = [streams[0], b"no stream", streams[2][:-4], streams[3]]
            planes = torch_cpu.decode_groups(cut, *shared)
        assert [found is None for found in planes] == [False, True, True, False]
        for at in (0, 3):
            assert np.array_equal(planes[at], Kernel().decode(streams[at], *shared))
            assert np.array_equal(unpadded(planes[at], shared[0]), groups[at])


@pytest.mark.parametrize("width", shape.WIDTHS)
def test_torch_runs_networks_of_every_width(width: int) -> None:
    random = np.random.default_rng(width)
    sizes = (shape.INPUTS, width, shape.HIDDEN_2, shape.OUTPUTS)
    first, second, third = (
        random.integers(-30, 31, (outs, ins)).astype(np.int8) for ins, outs in itertools.pairwise(sizes)
    )
    one, two, three = (random.integers(-500, 501, outs).astype(np.int32) for outs in sizes[1:])
    model, network = shipped(), Network((first, second, third), (one, two, three))
    values = neural_goldens.tissue((2, 20, 19), 30).astype(np.uint16)
    shared = (Geometry(2, 20, 19, 1, 2, 4095), model.linear, network, model)
    with threads(1):
        stream = TorchBackEnd("cpu").encode(values, *shared)
        planes = TorchBackEnd("cpu").decode(stream, *shared)
    assert stream == Kernel().encode(values, *shared)
    assert np.array_equal(planes, Kernel().decode(stream, *shared))


def test_a_device_that_is_not_there_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingDevice, match="runs on cpu, cuda, torch-cpu, not on 'tpu'"):
        Neural(device="tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingDevice, match="needs an NVIDIA GPU"):
        Neural(device="cuda")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(CodecError, match=r"thinfilm\[gpu\]"):
        Neural(device="torch-cpu")


def test_without_a_kernel_the_specification_codes_and_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "instruction_sets", list)
    assert back_end("cpu") is reference
    with pytest.raises(MissingDevice, match="was not built"):
        back_end("torch-cpu")
