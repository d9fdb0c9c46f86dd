"""A kernel that computes wrongly is found by known answers, and by what another one decodes."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from support import neural_goldens, wrong_kernel
from support.datasets import ct_series
from support.objects import write_files
from thinfilm_codecs.blocks import PixelBlock
from thinfilm_codecs.lossless.neural import Neural, Preset, compiled, kernels
from thinfilm_codecs.lossless.neural.kernels import ANSWERS
from thinfilm_codecs.lossy.near_lossless import NearLossless
from thinfilm_gateway import installation
from thinfilm_gateway.archive.container.pack import Source, pack
from thinfilm_gateway.config import Settings
from thinfilm_gateway.policy import lossless

needs_avx2 = pytest.mark.skipif("avx2" not in compiled.instruction_sets(), reason="There is no AVX2 here.")


@pytest.fixture(scope="module")
def wrong_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wrong_kernel.build(tmp_path_factory.mktemp("wrong"))


@pytest.fixture(scope="module")
def wrong(wrong_path: Path) -> ModuleType:
    return wrong_kernel.loaded(wrong_path)


def block() -> PixelBlock:
    return PixelBlock(neural_goldens.tissue((4, 60, 64), 30).astype(np.uint16), 12)


def test_all_kernels_give_the_known_answers() -> None:
    kernels.forget()
    assert kernels.usable() == compiled.instruction_sets()
    assert kernels.faults() == {}


def test_the_known_answers_are_the_goldens_and_those_of_the_specification() -> None:
    made = neural_goldens.known_answers()
    with np.load(str(Path(kernels.__file__).with_name(ANSWERS))) as kept:
        assert sorted(kept.files) == sorted(made)
        for name in kept.files:
            assert np.array_equal(kept[name], made[name]), name
    widths = {answer.network.width for answer in kernels.answers()}
    assert widths == {96, 192}


@needs_avx2
def test_a_kernel_that_is_wrong_by_one_is_not_used_and_the_next_one_is(wrong: ModuleType) -> None:
    right = Neural(Preset.FAST)
    parameters = right.prepare(block())
    stream = right.encode(block(), parameters)
    with wrong_kernel.used(wrong):
        assert "avx2" not in kernels.usable()
        assert kernels.usable()[-1] == "portable"
        assert "kernel of the neural codec computes wrongly here and is not used" in kernels.faults()["avx2"]
        assert Neural(Preset.FAST).encode(block(), parameters) == stream
        assert np.array_equal(Neural().decode(stream, block().layout, parameters), block().samples)
        (warning,) = [each for each in installation.warnings(Settings()) if each.name == "kernel_wrong avx2"]
        assert warning.sentence == kernels.faults()["avx2"]
    assert "avx2" in kernels.usable()


@needs_avx2
def test_where_every_kernel_is_wrong_the_specification_decodes_and_nothing_is_encoded(
    wrong: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = PixelBlock(neural_goldens.tissue((1, 12, 13), 30).astype(np.uint16), 12)
    parameters = Neural(Preset.FAST).prepare(small)
    stream = Neural().encode(small, parameters)
    with wrong_kernel.used(wrong):
        monkeypatch.setattr(wrong, "instruction_sets", lambda: ["avx2"])
        assert kernels.usable() == []
        assert np.array_equal(Neural().decode(stream, small.layout, parameters), small.samples)
        with pytest.raises(Exception, match="computes wrongly here and is not used"):
            Neural().prepare(small)


@needs_avx2
def test_what_a_wrong_kernel_coded_and_decodes_itself_is_found_by_another(
    wrong: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = Neural(Preset.FAST)
    parameters = codec.prepare(block())
    assert codec.agrees(codec.encode(block(), parameters), block(), parameters)
    with wrong_kernel.used(wrong):
        monkeypatch.setattr(kernels, "_is_right", lambda name: True)  # as where the fault is in no known answer
        stream = codec.encode(block(), parameters)
        assert np.array_equal(codec.decode(stream, block().layout, parameters), block().samples)
        assert not codec.agrees(stream, block(), parameters)


@needs_avx2
def test_a_stack_that_another_kernel_decodes_otherwise_is_packed_by_another_codec(
    wrong: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (file,) = write_files(tmp_path, ct_series(1, size=96))
    with wrong_kernel.used(wrong):
        monkeypatch.setattr(kernels, "_is_right", lambda name: True)
        treatment = lossless.treatment(["neural", "jpegls"], "fast", "cpu")
        report = pack([Source(file.path, "ct.dcm")], tmp_path / "x.tfa", treatment)
    assert "another of its back ends decodes other samples." in " ".join(report.codec_failures)
    assert report.codecs == ("jpegls",)


def test_a_part_of_a_large_group_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Neural(Preset.FAST)
    parameters = codec.prepare(block())
    stream = codec.encode(block(), parameters)
    monkeypatch.setattr("thinfilm_codecs.lossless.neural.codec._AGREED_PIXELS", 2000)
    assert codec.agrees(stream, block(), parameters)
    changed = block().samples.copy()
    changed[0, 0, 0] += 1
    assert not codec.agrees(stream, PixelBlock(changed, 12), parameters)
    changed = block().samples.copy()
    changed[3, 59, 63] += 1  # behind the part
    assert codec.agrees(stream, PixelBlock(changed, 12), parameters)


def test_near_lossless_streams_are_compared_on_their_grid() -> None:
    codec = NearLossless().at(5.0)
    parameters = codec.prepare(block())
    stream = codec.encode(block(), parameters)
    decoded = codec.decode(stream, block().layout, parameters)
    assert codec.agrees(stream, PixelBlock(decoded, 12), parameters)
    other = decoded.copy()
    other[1, 20, 20] += 5
    assert not codec.agrees(stream, PixelBlock(other, 12), parameters)


def test_answers_are_asked_for_again_after_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(kernels, "_is_right", lambda name: not asked.append(name))
    kernels.forget()
    kernels.usable()
    kernels.usable()
    assert asked == compiled.instruction_sets()
    monkeypatch.setattr(kernels._state, "due", 0.0)
    kernels.usable()
    assert asked == 2 * compiled.instruction_sets()
    kernels.forget()


@needs_avx2
def test_compress_does_without_the_wrong_kernel_and_says_so(wrong_path: Path, tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    (tmp_path / "site").mkdir()
    write_files(tmp_path / "series", ct_series(2))
    environment = {"PATH": os.environ["PATH"], **wrong_kernel.sitecustomize(tmp_path / "site", wrong_path)}
    command = [sys.executable, "-m", "thinfilm_gateway"]
    archive = str(tmp_path / "x.tfa")
    options = ["compress", str(tmp_path / "series"), "-o", archive, "--codec", "neural", "--preset", "fast"]
    packed = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, check=True)
    assert "thinfilm: The avx2 kernel of the neural codec computes wrongly here and is not used" in packed.stderr
    back = [*command, "expand", archive, "-o", str(tmp_path / "back")]
    subprocess.run(back, env={"PATH": os.environ["PATH"]}, capture_output=True, check=True)
    for path in (tmp_path / "series").iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()
