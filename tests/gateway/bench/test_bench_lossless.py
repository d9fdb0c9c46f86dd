import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from rich.console import Console

from support.datasets import (
    MR_IMAGE,
    ct_series,
    dose_32_bit,
    finish,
    instance,
    mr_series,
    multi_frame,
    phantom,
    structured_report,
    us_colour,
    with_pixels,
)
from thinfilm_codecs.blocks import BlockLayout, FrameAxis, PixelBlock
from thinfilm_gateway import cli
from thinfilm_gateway.bench import memory, scaling
from thinfilm_gateway.bench.entrant import Coded, Entrant
from thinfilm_gateway.bench.lossless import entrants, measure, noise, plot, run
from thinfilm_gateway.bench.lossless.entrants import Identity, UnknownEntrant
from thinfilm_gateway.bench.lossless.figures import Figures
from thinfilm_gateway.bench.lossless.measure import Measurement, Verdict
from thinfilm_gateway.bench.lossless.rows import Row
from thinfilm_gateway.bench.lossless.summary import summarise
from thinfilm_gateway.bench.processes import OneCore
from thinfilm_gateway.bench.series import FileStack, NothingToMeasure, Series, find
from thinfilm_gateway.commands.errors import CommandError

QUIET = Console(quiet=True)
CONTRACT = {"series", "modality", "codec", "preset", "bits_per_pixel", "encode_mpixel_s", "decode_mpixel_s"}


def found_below(folder: Path, slices: int | None = None, only: tuple[str, ...] = ()) -> dict[str, Series]:
    scratch = folder.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    series, _ = find(folder, scratch, slices, only, lambda count: None)
    return {each.name: each for each in series}


def volumes(count: int, slices: int = 3) -> list[np.ndarray]:
    """Return volumes of the same body, each with its own noise."""
    rng = np.random.default_rng(5)
    body = np.stack([phantom(40, 40, index / slices, noise=0) + 1000 for index in range(slices)])
    return [(body + rng.normal(0, 9, body.shape)).clip(0, 4095).astype(np.uint16) for _ in range(count)]


def write_diffusion(folder: Path, count: int = 2, slices: int = 3) -> None:
    """Write several volumes of the same places as one series of single frames."""
    for volume, samples in enumerate(volumes(count, slices)):
        for index, image in enumerate(samples):
            attributes = {
                **instance(MR_IMAGE, "MR", "diffusion", volume * slices + index + 1),
                "ImagePositionPatient": f"0\\0\\{2 * index}",
                "ImageOrientationPatient": "1\\0\\0\\0\\1\\0",
            }
            finish(with_pixels(attributes, image)).write(folder / f"{volume}-{index}.dcm")


def rows_of(name: str, sizes: dict[str, int], modality: str = "CT", seconds: float = 1.0) -> list[Row]:
    layout = BlockLayout(1, 1000, 1000, 1, "uint16")
    stack = FileStack((), layout, 16, FrameAxis.NONE, None)
    return [
        Row(
            Series(series, series, modality, False, (stack,)),
            name,
            3.0,
            Measurement(Verdict.EXACT, "", size, 0.5, seconds, 2.0),
        )
        for series, size in sizes.items()
    ]


def test_all_codecs_are_measured_on_all_series_and_what_is_no_image_is_counted(tmp_path):
    folder = tmp_path / "data"
    for number, image in enumerate(ct_series(5, 48)):
        image.write(folder / "CT" / f"{number}.dcm")
    us_colour(2).write(folder / "US" / "loop.dcm")
    dose_32_bit().write(folder / "dose.dcm")
    structured_report().write(folder / "report.dcm")
    (folder / "readme.txt").write_text("No image.")
    codecs = ["neural-fast", "gateway", "jpegls", "jpegls-words", "jpegxl", "jpegxl-e9", "htj2k", "zstd", "tomoz"]
    figures = run.run(QUIET, folder, codecs)
    document = json.loads(json.dumps(figures.to_json()))
    verdicts = {(row["series"], row["name"]): row["verdict"] for row in document["rows"]}
    assert verdicts.pop(("CT", "tomoz")) in ("exact", "not installed")
    assert {verdict for (series, _), verdict in verdicts.items() if series == "CT"} == {"exact"}
    assert verdicts["US", "jpegxl"] == verdicts["data", "zstd"] == "exact"
    assert verdicts["data", "jpegls"] == "unsupported"
    assert all(set(row) >= CONTRACT for row in document["rows"])
    assert {skipped["name"] for skipped in document["skipped"]} == {"report.dcm", "readme.txt"}
    sizes = {row["name"]: row["bits_per_pixel"] for row in document["rows"] if row["series"] == "CT"}
    assert sizes["gateway"] <= 1.001 * min(sizes["jpegls"], sizes["zstd"])
    assert sizes["jpegls"] != sizes["jpegls-words"]
    row = next(row for row in document["rows"] if (row["series"], row["name"]) == ("CT", "jpegls"))
    assert row["bits_per_pixel"] == pytest.approx(8 * row["coded_pixel_bytes"] / (5 * 48 * 48), rel=1e-4)
    assert row["excess_over_noise"] == pytest.approx(row["bits_per_pixel"] - row["noise_entropy"], abs=1e-3)
    assert not figures.failures
    assert {summary["group"] for summary in document["summary"]} == {"CT", "US", "RTDOSE", "all"}


def test_frames_are_stacked_by_place_whatever_the_files_are_called(tmp_path):
    names = ["c", "a", "d", "b"]
    for name, image in zip(names, ct_series(4, 32), strict=True):
        image.write(tmp_path / "data" / f"{name}.dcm")
    series = found_below(tmp_path / "data")["data"]
    (stack,) = series.stacks
    expected = [pydicom.dcmread(tmp_path / "data" / f"{name}.dcm").pixel_array for name in names]
    assert np.array_equal(stack.read().samples, expected)
    assert (stack.frame_axis, series.repeats_places, series.pixels) == (FrameAxis.SPACE, False, 4 * 32 * 32)


def test_encapsulated_images_are_decoded_first(tmp_path):
    for name in ("MR_small.dcm", "MR_small_jpeg_ls_lossless.dcm"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "1").write_bytes(Path(str(get_testdata_file(name))).read_bytes())
    native, decoded = (next(iter(found_below(tmp_path / "data", only=(name,)).values())) for name in ("l.dcm", "ls_"))
    assert np.array_equal(native.stacks[0].read().samples, decoded.stacks[0].read().samples)


def test_a_quick_run_takes_the_middle_files_of_a_series_and_the_middle_frames_of_a_single_file(tmp_path):
    for number, image in enumerate(mr_series(7, 16)):
        image.write(tmp_path / "data" / "MR" / f"{number}.dcm")
    cine = multi_frame(10).write(tmp_path / "data" / "XA" / "cine.dcm")
    found = found_below(tmp_path / "data", slices=3)
    assert [piece.path.name for piece in found["MR"].stacks[0].pieces] == ["2.dcm", "3.dcm", "4.dcm"]
    assert np.array_equal(found["XA"].stacks[0].read().samples, pydicom.dcmread(cine).pixel_array[3:6])


def test_several_series_of_one_folder_are_numbered_and_a_part_of_the_path_chooses(tmp_path):
    for series in ("one", "two"):
        ct_series(1, 16, series=series)[0].write(tmp_path / "data" / "CT" / f"{series}.dcm")
    mr_series(1, 16)[0].write(tmp_path / "data" / "MR" / "1.dcm")
    assert set(found_below(tmp_path / "data")) == {"CT#1", "CT#2", "MR"}
    assert set(found_below(tmp_path / "data", only=("MR/",))) == {"MR"}


def test_a_series_that_comes_back_to_a_place_is_told_from_one_that_does_not(tmp_path):
    write_diffusion(tmp_path / "data" / "diffusion")
    samples = np.concatenate(volumes(2))
    places = [{"PlanePositionSequence": [{"ImagePositionPatient": f"0\\0\\{2 * (i % 3)}"}]} for i in range(6)]
    attributes = {**instance(MR_IMAGE, "MR", "enhanced"), "PerFrameFunctionalGroupsSequence": places}
    finish(with_pixels(attributes, samples)).write(tmp_path / "data" / "enhanced" / "1.dcm")
    for number, samples in enumerate(volumes(2)):
        attributes = {**instance(MR_IMAGE, "MR", "mosaic", number + 1), "ImageType": "ORIGINAL\\PRIMARY\\M\\MOSAIC"}
        finish(with_pixels(attributes, samples.reshape(-1, 40))).write(tmp_path / "data" / "mosaic" / f"{number}.dcm")
    for number, image in enumerate(mr_series(4, 16)):
        image.write(tmp_path / "data" / "volume" / f"{number}.dcm")
    found = found_below(tmp_path / "data")
    assert {name: series.repeats_places for name, series in found.items()} == {
        "diffusion": True,
        "enhanced": True,
        "mosaic": True,
        "volume": False,
    }


def test_a_folder_without_images_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "readme.txt").write_text("No image.")
    with pytest.raises(NothingToMeasure, match=r"readme\.txt: It is no DICOM file"):
        run.run(QUIET, tmp_path, ["zstd"])
    with pytest.raises(CommandError, match="none"):
        run.run(QUIET, tmp_path / "none", ["zstd"])


@pytest.mark.parametrize("name", ["jpeg", "neural-best", "zstd-max", ""])
def test_a_codec_that_there_is_none_of_is_refused_before_anything_is_measured(tmp_path, name):
    with pytest.raises(UnknownEntrant, match=f"{name!r}"):
        run.run(QUIET, tmp_path, [name])


def test_names_stand_for_a_codec_and_a_preset():
    assert entrants.identity("neural") == Identity("neural", "default")
    assert entrants.identity("neural-max") == Identity("neural", "max")
    assert entrants.identity("jpegxl-e9") == Identity("jpegxl", "e9")
    assert entrants.identity("zstd") == Identity("zstd", "")


class _Forgetful(Entrant):
    """A codec with a fault: one sample comes back wrong."""

    def encode(self, stack: PixelBlock) -> Coded:
        return Coded(stack.samples.copy(), stack.layout.nbytes)

    def decode(self, coded: Coded, layout: BlockLayout) -> np.ndarray:
        coded.payload[0, 0, 0] ^= 1
        return coded.payload


def test_a_codec_that_does_not_give_back_the_samples_has_failed(tmp_path, monkeypatch):
    ct_series(1, 16)[0].write(tmp_path / "data" / "1.dcm")
    monkeypatch.setitem(entrants._OTHERS, "forgetful", (Identity("forgetful", ""), _Forgetful))
    series = found_below(tmp_path / "data")["data"]
    measured = measure.measure(series, "forgetful")
    assert measured.verdict is Verdict.FAILED
    assert "did not decode to the same samples" in measured.reason
    (row,) = [Row(series, "forgetful", 0.0, measured)]
    assert row.to_json()["bits_per_pixel"] is None
    assert len(Figures({}, (row,), summarise([row]), ()).failures) == 1


def test_a_codec_that_ends_its_process_has_failed_and_the_next_is_measured(tmp_path):
    class Deadly:
        def __reduce__(self):
            return os._exit, (3,)

    ct_series(1, 16)[0].write(tmp_path / "data" / "1.dcm")
    with OneCore() as core:
        assert run._measured(core, Deadly(), "zstd").verdict is Verdict.FAILED
        assert run._measured(core, found_below(tmp_path / "data")["data"], "zstd").verdict is Verdict.EXACT


def test_a_peer_that_is_not_installed_says_how_to_get_it_and_the_run_goes_on(tmp_path, monkeypatch):
    ct_series(1, 16)[0].write(tmp_path / "data" / "1.dcm")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    measure._ready.cache_clear()
    measured = measure.measure(found_below(tmp_path / "data")["data"], "tomoz")
    assert measured.verdict is Verdict.NOT_INSTALLED
    assert "thinfilm[bench]" in measured.reason


def test_ratios_are_geometric_means_with_an_interval_that_is_the_same_each_time():
    sizes = {f"{number}": 1000 + 100 * number for number in range(8)}
    rows = rows_of("jpegls", sizes) + rows_of("neural", {name: size * 8 // 10 for name, size in sizes.items()})
    rows += rows_of("jpegxl", {"0": 500, "1": 4400}) + rows_of("neural", {"mr": 700}, "MR")
    summaries = {(each.group, each.name): each for each in summarise(rows)}
    ratio = summaries["CT", "neural"].ratios[0]
    assert (ratio.reference, ratio.series, ratio.mean) == ("jpegls", 8, pytest.approx(0.8, rel=1e-3))
    spread = summaries["CT", "jpegxl"].ratios[0]
    assert spread.mean == pytest.approx(math.sqrt(0.5 * 4.0))
    assert (spread.low, spread.high) == (pytest.approx(0.5), pytest.approx(4.0))
    assert summaries["CT", "jpegxl"].above_jpegls == ("1",)
    assert summaries["all", "neural"].series == 9
    assert {group for group, _ in summaries} == {"CT", "MR", "CT and MR", "all"}
    assert summarise(rows) == summarise(rows)


def test_speeds_are_of_all_samples_in_all_seconds_with_fitting_and_without():
    rows = rows_of("neural", {"one": 5, "two": 5}, seconds=1.0) + rows_of("neural", {"three": 5}, seconds=2.0)
    summary = summarise(rows)[-1]
    assert summary.encode_mpixel_s == pytest.approx(3 / 4)
    assert summary.coding_mpixel_s == pytest.approx(3 / 2.5)
    assert summary.decode_mpixel_s == pytest.approx(0.5)


def test_a_rounded_gaussian_has_the_entropy_of_its_probabilities():
    rng = np.random.default_rng(0)
    for deviation in (0.3, 1.0, 3.9, 4.1, 20.0):
        _, counts = np.unique(np.rint(rng.normal(0, deviation, 2_000_000)), return_counts=True)
        shares = counts / counts.sum()
        assert noise.rounded_gaussian_entropy(deviation) == pytest.approx(-(shares * np.log2(shares)).sum(), abs=0.01)
    assert noise.rounded_gaussian_entropy(0.0) == 0.0


def test_the_noise_of_a_volume_is_estimated_within_a_fifth_of_a_bit():
    rng = np.random.default_rng(1)
    white = rng.normal(0, 9, (3, 136, 128))
    for samples in (white, np.hypot(*np.mgrid[:136, :128]) + white):
        block = PixelBlock(np.rint(samples + 500).astype(np.uint16), 12)
        assert noise.entropy(block) == pytest.approx(noise.rounded_gaussian_entropy(9), abs=0.2)


def test_noise_that_its_neighbours_foretell_counts_less_and_structure_does_not_count():
    rng = np.random.default_rng(2)
    white = rng.normal(0, 9, (3, 138, 128))
    smooth = white[:, :-2] + 2 * white[:, 1:-1] + white[:, 2:]
    smooth *= 9 / smooth.std()
    correlated = noise.entropy(PixelBlock(np.rint(smooth).astype(np.int16), 16))
    assert correlated < noise.rounded_gaussian_entropy(9) - 0.5
    assert noise.entropy(PixelBlock(np.full((3, 64, 64), 7, np.int16), 16)) == 0.0
    assert noise.entropy(PixelBlock(np.arange(12, dtype=np.uint8).reshape(1, 3, 4), 8)) == 0.0


def test_the_command_writes_table_json_and_plot(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    for number, image in enumerate(ct_series(3, 32)):
        image.write(tmp_path / "data" / f"{number}.dcm")
    arguments = ["bench", "lossless", "data", "--codecs", "jpegls,zstd", "--json", "out.json", "--plot", "out.svg"]
    assert _command(arguments, tmp_path, monkeypatch) == 0
    output = capsys.readouterr().out
    assert "data: 0.00 Mpixel: 2, " in output
    assert "jpegls" in output
    assert len(json.loads((tmp_path / "out.json").read_text())["rows"]) == 2
    assert "<svg" in (tmp_path / "out.svg").read_text()


def test_the_command_ends_with_status_1_where_a_measurement_failed(tmp_path, monkeypatch, capsys):
    series = rows_of("zstd", {"CT": 1})[0].series
    failed = Row(series, "zstd", 0.0, Measurement(Verdict.FAILED, "ValueError: not the same"))
    monkeypatch.setattr(run, "run", lambda *given: Figures({}, (failed,), (), ()))
    assert _command(["bench", "lossless", "data"], tmp_path, monkeypatch) == 1
    captured = capsys.readouterr()
    assert "FAILED zstd on CT: ValueError: not the same." in captured.out
    assert captured.err == "thinfilm: 1 of 1 measurements failed; they are named above.\n"


def test_a_plot_that_could_not_be_drawn_is_refused_before_anything_is_measured(monkeypatch):
    with pytest.raises(plot.CannotPlot, match="jpegls"):
        plot.check(Path("out.png"), ["neural"])
    with pytest.raises(plot.CannotPlot, match=r"\.svg"):
        plot.check(Path("out.pdf"), ["jpegls"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(plot.CannotPlot, match="thinfilm\\[bench\\]"):
        plot.check(Path("out.png"), ["jpegls"])


def test_scaling_compares_two_cores_with_one(monkeypatch):
    monkeypatch.setattr(scaling, "SLICES", 2)
    figures = scaling.run(QUIET)
    assert [row["direction"] for row in figures.to_json()["rows"]] == ["encode", "decode"]
    assert all(
        row.ratio == pytest.approx(row.two_cores_mpixel_s / row.one_core_mpixel_s, rel=0.02) for row in figures.rows
    )
    assert figures.table().row_count == 2


def test_memory_is_that_of_each_command_by_itself(monkeypatch):
    monkeypatch.setattr(memory, "SLICES", 2)
    monkeypatch.setattr(memory, "CODEC", "jpegls")  # which is not fitted, and so is quick
    figures = memory.run(QUIET)
    rows = figures.to_json()["rows"]
    assert [row["command"] for row in rows] == ["compress", "expand"]
    assert all(2**24 < row["peak_bytes"] < 2**32 for row in rows)


def _command(arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["thinfilm", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)
