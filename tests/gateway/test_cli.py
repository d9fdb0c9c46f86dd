import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import pytest

from support.part10_files import smooth_slices, write_image, write_series
from thinfilm_codecs.lossless.neural import compiled
from thinfilm_codecs.lossy.siren import codec as siren
from thinfilm_gateway import cli
from thinfilm_gateway.config import ENVIRONMENT_PREFIX


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    output: str
    errors: str

    @property
    def sentence(self) -> str:
        """The one line on standard error."""
        lines = self.errors.splitlines()
        assert len(lines) == 1, self.errors
        return lines[0]


class Thinfilm:
    """The command line, in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: object) -> Ended:
        self._monkeypatch.setattr(sys, "argv", ["thinfilm", *map(str, arguments)])
        self._capsys.readouterr()
        umask = os.umask(0o022)
        try:
            with pytest.raises(SystemExit) as caught:
                cli.main()
        finally:
            os.umask(umask)
        status = caught.value.code
        return Ended(0 if status is None else int(status), *self._capsys.readouterr())


@pytest.fixture
def thinfilm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Thinfilm:
    for name in [name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return Thinfilm(capsys, monkeypatch)


COMMANDS = (
    "serve",
    "worker",
    "demo",
    "compress",
    "expand",
    "inspect",
    "status",
    "scrub",
    "tidy",
    "reindex",
    "db",
    "bench",
)


def test_help_names_every_command(thinfilm):
    ended = thinfilm("--help")
    assert ended.status == 0
    assert [command for command in COMMANDS if f" {command} " not in ended.output] == []


def test_the_module_runs_as_the_command_does():
    command = [sys.executable, "-m", "thinfilm_gateway", "serve", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    for option in ("--data-dir", "--dicom-port", "--http-port", "--ae-title", "--config"):
        assert option in done.stdout


def test_a_wrong_command_line_ends_with_status_2(thinfilm):
    assert thinfilm("serve", "--dicom-prt", "104").status == 2


def test_a_wrong_setting_is_one_sentence_and_status_1(thinfilm):
    ended = thinfilm("serve", "--dicom-port", "70000")
    assert ended.status == 1
    assert ended.sentence.startswith("thinfilm: The setting dicom_port on the command line is wrong")


def test_an_unknown_key_of_the_file_is_one_sentence_and_status_1(thinfilm, tmp_path):
    (tmp_path / "thinfilm.toml").write_text("dicom_prt = 104")
    ended = thinfilm("serve", "--config", "thinfilm.toml")
    assert ended.status == 1
    assert ended.sentence.endswith("did you mean dicom_port.")


def test_a_missing_file_is_one_sentence_that_names_it(thinfilm):
    ended = thinfilm("inspect", "none.tfa")
    assert ended.status == 1
    assert "none.tfa: No such file or directory." in ended.sentence


def test_an_error_that_nobody_foresaw_is_one_sentence_too(thinfilm, monkeypatch):
    monkeypatch.setattr(cli.config, "load", lambda *given, **overrides: 1 // 0)
    ended = thinfilm("status")
    assert ended.status == 1
    assert "ZeroDivisionError" in ended.sentence


def test_interrupt_ends_with_status_130(thinfilm, monkeypatch):
    def interrupt(*given: object, **overrides: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.config, "load", interrupt)
    assert thinfilm("status").status == 130


def test_compress_inspect_and_expand_give_the_documents_of_the_contract_and_the_files_back(thinfilm, tmp_path):
    files = write_series(tmp_path / "series", 5)
    compressed = json.loads(thinfilm("compress", "series", "-o", "series.tfa", "--json").output)
    assert set(compressed) == {"files_in", "bytes_in", "archive_bytes", "model_hashes", "series"}
    assert compressed["files_in"] == 5
    assert compressed["bytes_in"] == sum(file.stat().st_size for file in files)
    assert compressed["archive_bytes"] == (tmp_path / "series.tfa").stat().st_size
    (series,) = compressed["series"]
    assert set(series) == {
        "series_instance_uid", "modality", "instances", "codec", "preset", "pixels",
        "native_pixel_bytes", "coded_pixel_bytes", "bits_per_pixel", "encode_seconds",
    }  # fmt: skip

    inspected = json.loads(thinfilm("inspect", "series.tfa", "--json").output)
    assert sorted(entry["name"] for entry in inspected["entries"]) == sorted(file.name for file in files)

    expanded = json.loads(thinfilm("expand", "series.tfa", "-o", "back", "--json").output)
    assert set(expanded) == {"instances", "verified", "pixels", "decode_seconds"}
    assert expanded["verified"] == 5
    for file in files:
        assert (tmp_path / "back" / file.name).read_bytes() == file.read_bytes()


def test_for_people_compress_inspect_and_expand_speak_in_lines(thinfilm, tmp_path):
    write_series(tmp_path / "series", 3)
    assert "3 files in 1 series" in thinfilm("compress", "series", "-o", "series.tfa", "--codec", "jpegls").output
    assert "jpegls" in thinfilm("inspect", "series.tfa").output
    assert "3 of 3 files" in thinfilm("expand", "series.tfa", "-o", "back").output


def test_an_unknown_codec_is_one_sentence_with_the_known_ones(thinfilm, tmp_path):
    write_series(tmp_path / "series", 1)
    ended = thinfilm("compress", "series", "-o", "series.tfa", "--codec", "jpegxxl")
    assert ended.status == 1
    assert "jpegxl" in ended.errors
    assert not (tmp_path / "series.tfa").exists()


def test_a_preset_is_used_and_told_with_the_model_that_it_took(thinfilm, tmp_path):
    (tmp_path / "series").mkdir()
    write_image(tmp_path / "series" / "cine.dcm", smooth_slices(6, 96))
    made = thinfilm("compress", "series", "-o", "x.tfa", "--codec", "neural", "--preset", "fast", "--json")
    document = json.loads(made.output)
    assert [(row["codec"], row["preset"]) for row in document["series"]] == [("neural", "fast")]
    assert len(document["model_hashes"]) == 1
    assert json.loads(thinfilm("inspect", "x.tfa", "--json").output)["model_hashes"] == document["model_hashes"]
    assert thinfilm("expand", "x.tfa", "-o", "back").status == 0


def test_an_unknown_preset_is_one_sentence_with_the_known_ones(thinfilm, tmp_path):
    write_series(tmp_path / "series", 1)
    ended = thinfilm("compress", "series", "-o", "x.tfa", "--preset", "best")
    assert ended.status == 1
    assert "fast, default, max" in ended.sentence


def test_a_gpu_is_used_or_its_absence_is_one_sentence(thinfilm, tmp_path):
    write_series(tmp_path / "series", 1)
    options = ("--codec", "neural", "--preset", "fast", "--device", "cuda")
    ended = thinfilm("compress", "series", "-o", "x.tfa", *options)
    assert ended.status == 0 or "'cuda'" in ended.sentence
    assert (ended.status == 0) == (tmp_path / "x.tfa").exists()


def test_expand_of_a_damaged_container_writes_what_is_whole_and_ends_with_status_1(thinfilm, tmp_path):
    write_series(tmp_path / "series", 1)
    thinfilm("compress", "series", "-o", "series.tfa")
    content = bytearray((tmp_path / "series.tfa").read_bytes())
    content[len(content) // 4] ^= 0xFF
    (tmp_path / "series.tfa").write_bytes(content)
    ended = thinfilm("expand", "series.tfa", "-o", "back")
    assert ended.status == 1
    assert "damaged" in ended.errors
    assert "Traceback" not in ended.errors


def test_the_index_is_made_checked_and_told_of(thinfilm, monkeypatch):
    before = thinfilm("db", "check", "--data-dir", "data")
    assert before.status == 1
    assert thinfilm("db", "upgrade", "--data-dir", "data").status == 0
    assert thinfilm("db", "check", "--data-dir", "data").status == 0
    monkeypatch.setenv("THINFILM_MINIMUM_FREE_BYTES", "0")
    assert "nothing needs a hand" in thinfilm("status", "--data-dir", "data").output
    document = json.loads(thinfilm("status", "--data-dir", "data", "--json").output)
    assert document["instances"] == 0
    assert document["problems"] == []


def test_status_without_an_index_is_one_sentence(thinfilm):
    Path("empty").mkdir()
    ended = thinfilm("status", "--data-dir", "empty")
    assert ended.status == 1
    assert "has no tables yet; run `thinfilm db upgrade`" in ended.sentence
    assert list(Path("empty").iterdir()) == []


@pytest.mark.parametrize("command", [["status"], ["db", "check"], ["scrub"], ["worker"], ["retry"], ["reindex"]])
def test_a_data_folder_that_is_not_there_or_is_a_file_is_one_sentence(thinfilm, command):
    ended = thinfilm(*command, "--data-dir", "nowhere")
    assert ended.status == 1
    assert ended.sentence.startswith("thinfilm: The data folder nowhere does not exist")
    assert not Path("nowhere").exists()
    Path("afile").touch()
    assert "The data folder afile is a file" in thinfilm(*command, "--data-dir", "afile").sentence


@pytest.mark.parametrize("command", [["serve"], ["db", "upgrade"]])
def test_no_data_folder_is_made_where_a_file_is(thinfilm, command):
    Path("afile").touch()
    ended = thinfilm(*command, "--data-dir", "afile")
    assert ended.status == 1
    assert "The data folder afile is a file" in ended.sentence


def test_status_tells_that_objects_are_refused_for_want_of_space(thinfilm, monkeypatch):
    thinfilm("db", "upgrade", "--data-dir", "data")
    monkeypatch.setenv("THINFILM_MINIMUM_FREE_BYTES", str(2**60))
    assert "C-STORE is refused" in thinfilm("status", "--data-dir", "data").output
    document = json.loads(thinfilm("status", "--data-dir", "data", "--json").output)
    assert 0 < document["free_bytes"] < 2**60
    assert document["refusal"].startswith("C-STORE is refused")


class Unavailable:
    """A library of imagecodecs that a build of it lacks."""

    available = False


@pytest.fixture
def lacks(monkeypatch):
    """Take away what a codec needs to encode."""

    def take(what):
        if what == "kernel":
            monkeypatch.setattr(compiled, "_kernel", None)
        elif what == "torch":
            monkeypatch.setitem(sys.modules, "torch", None)
            monkeypatch.setattr(siren, "find_spec", lambda name: None)
        elif what == "GPU":
            torch = pytest.importorskip("torch")
            monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        else:
            monkeypatch.setattr(imagecodecs, what, Unavailable)

    return take


@pytest.mark.parametrize(
    ("what", "options", "mend"),
    [
        ("kernel", ["--codec", "neural"], "install the wheel of this platform, or a C compiler"),
        ("kernel", ["--codec", "near_lossless"], "install the wheel of this platform, or a C compiler"),
        ("kernel", ["--codec", "pca"], "install the wheel of this platform, or a C compiler"),
        ("torch", ["--codec", "siren"], "the extra thinfilm[gpu] brings it"),
        ("torch", ["--codec", "nagoor", "--device", "cuda"], "the extra thinfilm[gpu] brings it"),
        ("torch", ["--device", "cuda"], "the extra thinfilm[gpu] brings it"),
        ("GPU", ["--codec", "neural", "--device", "cuda"], "needs an NVIDIA GPU with its driver"),
        ("GPU", ["--codec", "jpegls", "--device", "cuda"], "needs an NVIDIA GPU with its driver"),
        ("GPU", ["--codec", "near_lossless", "--device", "cuda"], "needs an NVIDIA GPU with its driver"),
        ("JPEGXL", ["--codec", "jpegxl"], "install imagecodecs from its wheel"),
        ("HTJ2K", ["--codec", "htj2k"], "install imagecodecs from its wheel"),
        ("JPEGLS", ["--codec", "jpegls"], "install imagecodecs from its wheel"),
    ],
)
def test_a_codec_or_device_that_is_named_and_cannot_be_used_is_an_error_with_its_mend(
    tmp_path, thinfilm, lacks, what, options, mend
):
    file = write_image(tmp_path / "in.dcm", smooth_slices(1, 64)[0])
    lacks(what)
    ended = thinfilm("compress", file, "-o", tmp_path / "out.tfa", *options)
    assert ended.status == 1
    assert mend in ended.sentence
    assert not (tmp_path / "out.tfa").exists()


def test_a_codec_that_the_settings_name_and_that_cannot_be_used_is_an_error(tmp_path, thinfilm, lacks, monkeypatch):
    file = write_image(tmp_path / "in.dcm", smooth_slices(1, 64)[0])
    lacks("kernel")
    monkeypatch.setenv("THINFILM_LOSSLESS_CODECS", "neural,jpegls")
    ended = thinfilm("compress", file, "-o", tmp_path / "out.tfa")
    assert (ended.status, "install the wheel of this platform" in ended.sentence) == (1, True)


def test_a_codec_that_is_there_by_default_and_cannot_be_used_is_told_and_others_do_the_work(tmp_path, thinfilm, lacks):
    file = write_image(tmp_path / "in.dcm", smooth_slices(1, 64)[0])
    lacks("kernel")
    ended = thinfilm("compress", file, "-o", tmp_path / "out.tfa", "--json")
    assert ended.status == 0
    assert "install the wheel of this platform" in ended.errors.splitlines()[0]
    assert json.loads(ended.output)["files_in"] == 1


LOSSY_RULE = json.dumps([{"modality": "CT", "delay_days": 1, "keep_original_days": 1}])


@pytest.mark.parametrize(
    ("setting", "value"), [("THINFILM_LOSSLESS_CODECS", "neural,jpegls"), ("THINFILM_LOSSY", LOSSY_RULE)]
)
@pytest.mark.parametrize("command", [["serve"], ["worker"], ["celery", "worker"]])
def test_no_process_that_compresses_starts_on_a_codec_that_is_named_and_cannot_be_used(
    tmp_path, thinfilm, lacks, monkeypatch, command, setting, value
):
    monkeypatch.setenv("THINFILM_DATA_DIR", str(tmp_path))
    assert thinfilm("db", "upgrade").status == 0
    lacks("kernel")
    monkeypatch.setenv(setting, value)
    if command[0] == "celery":
        monkeypatch.setenv("THINFILM_BROKER_URL", "redis://127.0.0.1:1/0")
    ended = thinfilm(*command)
    assert (ended.status, "install the wheel of this platform" in ended.sentence) == (1, True)
