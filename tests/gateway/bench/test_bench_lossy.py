import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from support.datasets import CT_IMAGE, ct_series, finish, instance, mr_series, phantom, structured_report, with_pixels
from thinfilm_codecs import registry
from thinfilm_codecs.blocks import PixelBlock
from thinfilm_codecs.quality.generations import generations
from thinfilm_gateway import cli
from thinfilm_gateway.bench.lossy import bjontegaard, entrants, limits, plot, run
from thinfilm_gateway.bench.lossy.anchors import STANDARDS
from thinfilm_gateway.bench.lossy.bjontegaard import delta_rate, quality_at
from thinfilm_gateway.bench.lossy.ceilings import permitted_rate
from thinfilm_gateway.bench.lossy.entrants import UnknownEntrant
from thinfilm_gateway.bench.lossy.limits import BadLimit
from thinfilm_gateway.bench.lossy.measure import Measurement, Verdict, gentlest_setting, measure
from thinfilm_gateway.bench.series import NothingToMeasure, cut, find

QUIET = Console(quiet=True)
CONTRACT = {
    "series",
    "modality",
    "codec",
    "setting",
    "bits_per_pixel",
    "psnr_stored",
    "psnr_volume",
    "ssim",
    "max_error",
    "p999_error",
    "encode_mpixel_s",
    "decode_mpixel_s",
}


def stack(frames=2, size=48, dtype="int16"):
    return PixelBlock(np.stack([phantom(size, size, index / frames) for index in range(frames)]).astype(dtype), 16)


def write_lossy(folder: Path) -> None:
    """Write an image that was compressed lossily before it was stored without compression."""
    attributes = {**instance(CT_IMAGE, "CT", "lossy"), "LossyImageCompression": "01"}
    finish(with_pixels(attributes, phantom(32, 32, 0.5).astype(np.int16))).write(folder / "1.dcm")


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """The JSON of a run over a CT and an MR series, one codec of our own with a limit."""
    folder = tmp_path_factory.mktemp("bench") / "data"
    for name, series in (("CT", ct_series(2, 64)), ("MR", mr_series(1, 64))):
        for number, image in enumerate(series):
            image.write(folder / name / f"{number}.dcm")
    write_lossy(folder / "CT-lossy")
    structured_report().write(folder / "report.dcm")
    codecs = ["near_lossless", "kwavelet", "jpeg", "jpeg12", "jpeg2000", "jpegls-near", "jpegxl"]
    figures = run.run(QUIET, folder, codecs, limits={"kwavelet": 64 * 64})
    assert not figures.failures
    return json.loads(json.dumps(figures.to_json(), allow_nan=False))


def of_kind(document, kind):
    return [entry for entry in document["summary"] if entry["kind"] == kind]


def test_every_codec_has_rows_at_rates_that_it_keeps_to(document):
    rows = document["rows"]
    assert all(set(row) >= CONTRACT for row in rows)
    assert {row["codec"] for row in rows if row["series"] == "CT"} == set(entrants.names()) & {
        "near_lossless",
        "jpeg",
        "jpeg12",
        "jpeg2000",
        "jpegls-near",
        "jpegxl",
    }
    assert all(row["bits_per_pixel"] <= min(row["target_bits_per_pixel"]) for row in rows)
    assert all(row["ratio_allocated"] == pytest.approx(16 / row["bits_per_pixel"], rel=1e-3) for row in rows)
    assert all(row["max_error"] <= row["setting"] // 2 for row in rows if row["codec"] == "near_lossless")
    assert all(row["max_error"] <= row["setting"] for row in rows if row["codec"] == "jpegls-near")
    of_jpeg = [row for row in rows if (row["series"], row["codec"]) == ("CT", "jpeg2000")]
    assert [row["bits_per_pixel"] for row in of_jpeg] == sorted(
        (row["bits_per_pixel"] for row in of_jpeg), reverse=True
    )
    assert [row["psnr_stored"] for row in of_jpeg] == sorted((row["psnr_stored"] for row in of_jpeg), reverse=True)


def test_a_codec_with_a_limit_is_measured_on_the_middle_frames_beside_jpeg_2000(document):
    apart = {(row["series"], row["codec"]) for row in document["rows"] if row["group"].endswith("cut")}
    assert {codec for series, codec in apart if series == "CT [1]"} == {"kwavelet", "near_lossless", "jpeg2000"}
    whole = {row["codec"] for row in document["rows"] if row["series"] == "CT"}
    assert "kwavelet" not in whole


def test_what_was_lossy_before_is_left_out_with_what_is_no_image(document):
    assert {skipped["name"] for skipped in document["skipped"]} == {"CT-lossy", "report.dcm"}
    assert "CT-lossy" not in {row["series"] for row in document["rows"]}


def test_the_summary_names_winners_rates_speeds_and_generations(document):
    for group in ("CT", "MR"):
        at_ceiling = [entry for entry in of_kind(document, "ceiling") if entry["group"] == group]
        assert {entry["codec"] for entry in at_ceiling} >= {"near_lossless", "jpeg2000"}
        assert all(entry["bits_per_pixel"] <= 3.2 for entry in at_ceiling)
        assert sum(entry["wins_psnr"] for entry in at_ceiling) >= 1
    assert {entry["group"] for entry in of_kind(document, "bd_rate")} >= {"CT", "MR", "CT and MR"}
    assert "jpeg2000" not in {entry["codec"] for entry in of_kind(document, "bd_rate")}
    (both,) = [e for e in of_kind(document, "near_lossless_beside_jpeg2000") if e["group"] == "CT and MR"]
    assert both["series"] == 2
    assert 0 < both["max_error_ratio"] <= both["largest_ratio"]
    assert {entry["codec"] for entry in of_kind(document, "speed")} == {row["codec"] for row in document["rows"]}
    generations = {entry["codec"]: entry["rmse"] for entry in of_kind(document, "generations")}
    assert set(generations) == {"near_lossless", "kwavelet", "jpeg", "jpeg12", "jpeg2000"}
    assert all(len(errors) == 100 for errors in generations.values())
    assert len(set(generations["near_lossless"])) == 1
    assert generations["jpeg2000"][-1] > generations["jpeg2000"][0]


def test_the_setting_found_is_the_gentlest_within_the_rate():
    block = stack()
    for name, rate in (("jpeg2000", 2.0), ("near_lossless", 2.0), ("jpegls-near", 3.0)):
        setting = gentlest_setting(block, name, rate)
        ladder = entrants.ladder(name)
        place = ladder.index(setting)
        within, above = (
            8 * entrants.entrant(name, ladder[at], "fast").encode(block).nbytes / block.layout.samples
            for at in (place, place - 1)
        )
        assert within <= rate < above


def test_no_setting_is_found_where_the_coarsest_is_above_the_rate():
    assert gentlest_setting(stack(), "near_lossless", 1e-6) is None


@pytest.mark.parametrize("name", STANDARDS)
@pytest.mark.parametrize("dtype", ["int16", "uint8"])
def test_the_gentlest_setting_of_a_standard_gives_nearly_the_samples_back(name, dtype):
    block = stack()
    if dtype == "uint8":
        block = PixelBlock(((block.samples + 1024) // 16).clip(0, 255).astype(np.uint8), 8)
    colour = PixelBlock(np.stack([block.samples, block.samples[:, ::-1]], axis=-1), block.bits_stored)
    for each in (block, colour):
        entrant = entrants.entrant(name, entrants.ladder(name)[0])
        decoded = entrant.decode(entrant.encode(each), each.layout)
        assert decoded.dtype == each.samples.dtype
        spread = int(np.ptp(each.samples))
        assert np.abs(decoded.astype(int) - each.samples).max() <= max(2, spread / 64)


@pytest.mark.parametrize("name", ["jpeg", "jpeg2000"])
def test_coding_again_does_not_drift_where_only_the_range_would_move(name):
    """Range and offset are those of the first pass, so that what grows is the loss of the standard."""
    block = stack(frames=1)
    entrant = entrants.entrant(name, entrants.ladder(name)[0], of=block)

    errors = generations(block, lambda each: entrant.decode(entrant.encode(each), each.layout), 12)

    assert errors[-1] <= 1.5 * errors[0]


def test_samples_wider_than_12_bits_are_not_for_12_bit_jpeg(tmp_path):
    attributes = instance(CT_IMAGE, "CT", "wide")
    wide = (phantom(32, 32, 0.5).astype(int) * 20).clip(-32768, 32767).astype(np.int16)
    finish(with_pixels(attributes, wide)).write(tmp_path / "data" / "1.dcm")
    (series,), _ = find(tmp_path / "data", tmp_path, None, (), lambda count: None)

    measured = measure(series, "jpeg12", [2.0])

    assert measured.verdict is Verdict.UNSUPPORTED
    assert "12 bits" in measured.reason


def test_a_codec_that_fails_is_named(monkeypatch, tmp_path):
    ct_series(1, 32)[0].write(tmp_path / "data" / "1.dcm")
    (series,), _ = find(tmp_path / "data", tmp_path, None, (), lambda count: None)

    assert measure(series, "none", [2.0]) == Measurement(Verdict.FAILED, "KeyError: " + repr(_unknown("none")))


def _unknown(name):
    with pytest.raises(KeyError) as caught:
        registry.lossy(name)
    return caught.value.args[0]


def test_a_cut_series_is_its_middle_frames(tmp_path):
    for number, image in enumerate(ct_series(5, 32)):
        image.write(tmp_path / "data" / f"{number}.dcm")
    (series,), _ = find(tmp_path / "data", tmp_path, None, (), lambda count: None)
    samples = series.stacks[0].read().samples

    for pixels, expected in ((3 * 32 * 32, samples[1:4]), (1, samples[2:3]), (10**9, samples)):
        assert np.array_equal(cut(series, pixels).stacks[0].read().samples, expected)


def test_the_bd_rate_of_a_curve_with_a_tenth_fewer_bits_is_a_tenth():
    reference = [(0.25, 30.0), (0.5, 34.0), (1.0, 38.5), (2.0, 44.0), (4.0, 52.0)]

    assert delta_rate([(0.9 * rate, quality) for rate, quality in reference], reference) == pytest.approx(-0.1)
    assert delta_rate(reference, reference) == pytest.approx(0.0)
    # Over 34 to 44 dB alone, where it takes twice the bits.
    assert delta_rate([(1.0, 34.0), (2.0, 38.5), (4.0, 44.0)], reference) == pytest.approx(1.0, rel=0.05)


def test_curves_without_a_common_quality_have_no_bd_rate():
    low, high = [(0.5, 20.0), (1.0, 25.0)], [(0.5, 40.0), (1.0, 45.0)]

    assert delta_rate(low, high) is None
    assert delta_rate(low, [(0.5, 22.0)]) is None
    assert delta_rate([(1.0, 25.0), (2.0, math.inf)], low) is None


def test_points_that_cost_more_for_less_quality_are_left_out():
    clean = [(0.5, 20.0), (1.0, 25.0), (2.0, 31.0)]

    assert delta_rate([*clean, (1.5, 24.0)], clean) == pytest.approx(0.0)
    assert quality_at(clean, 1.0) == pytest.approx(25.0)
    assert quality_at(clean, 3.0) is None


def test_ceilings_are_those_of_the_default_profile():
    assert permitted_rate("CT", 16) == pytest.approx(3.2)
    assert permitted_rate("US", 8) == pytest.approx(0.8)
    assert permitted_rate("MG", 16) is None


def test_a_codec_or_limit_that_there_is_none_of_is_refused():
    with pytest.raises(UnknownEntrant, match="'neural'"):
        entrants.check(["jpeg2000", "neural"])
    with pytest.raises(UnknownEntrant, match="'tiff'"):
        limits.parse(["tiff=1"])
    with pytest.raises(BadLimit, match="'jpeg2000'"):
        limits.parse(["jpeg2000"])
    assert limits.parse(["jpeg2000=0.25"]) == {"jpeg2000": 250_000}


def test_a_folder_of_lossy_images_alone_is_refused_in_a_sentence(tmp_path):
    write_lossy(tmp_path)

    with pytest.raises(NothingToMeasure, match="lossily"):
        run.run(QUIET, tmp_path, ["jpeg2000"])


def test_the_command_writes_json_plot_and_report(tmp_path, monkeypatch, capsys):
    for number, image in enumerate(ct_series(1, 96)):
        image.write(tmp_path / "data" / f"{number}.dcm")
    monkeypatch.chdir(tmp_path)
    files = ["--json", "out.json", "--plot", "out.svg", "--report", "out.md"]
    monkeypatch.setattr(sys, "argv", ["thinfilm", "bench", "lossy", "data", "--codecs", "jpegls-near,jpeg2000", *files])

    with pytest.raises(SystemExit) as caught:
        cli.main()

    assert not caught.value.code
    assert "BD-rate (PSNR) to JPEG 2000" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["rows"]
    assert "<svg" in (tmp_path / "out.svg").read_text()
    report = (tmp_path / "out.md").read_text()
    assert "![Rate and distortion](out.svg)" in report
    assert "| jpegls-near |" in report


def test_a_plot_of_another_format_is_refused_before_anything_is_measured():
    with pytest.raises(plot.CannotPlot, match=r"\.svg"):
        plot.check(Path("out.pdf"))


def test_without_scipy_nothing_is_measured(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(bjontegaard.CannotCompare, match=r"thinfilm\[bench\]"):
        bjontegaard.check()
