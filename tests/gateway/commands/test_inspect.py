import hashlib
import io
import json
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file
from rich.console import Console

from support.part10_files import SERIES_UID, write_series
from thinfilm_gateway.commands.compress import compress, sources
from thinfilm_gateway.commands.errors import CommandError
from thinfilm_gateway.commands.inspect import Inspection, inspect, render


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return [*write_series(tmp_path, 3), Path(str(get_testdata_file("test-SR.dcm", download=False)))]


@pytest.fixture
def inspection(tmp_path: Path, paths: list[Path]) -> Inspection:
    (tmp_path / "[red]notes.txt").write_text("not an image")
    (tmp_path / "report.dcm").write_bytes(paths[-1].read_bytes())
    compress(sources([tmp_path]), tmp_path / "x.tfa", ["jpegls"])
    return inspect(tmp_path / "x.tfa")


def test_it_tells_names_codecs_sizes_and_checksums(tmp_path: Path, paths: list[Path], inspection: Inspection) -> None:
    entries = {entry.name: entry for entry in inspection.entries}
    assert list(entries) == ["001.dcm", "002.dcm", "003.dcm", "[red]notes.txt", "report.dcm"]
    image = entries["001.dcm"]
    assert (image.codec, image.modality, image.series_instance_uid) == ("jpegls", "CT", SERIES_UID)
    assert image.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    assert image.file_bytes == (tmp_path / "001.dcm").stat().st_size > image.stored_bytes > 0
    assert image.sha256 == hashlib.sha256((tmp_path / "001.dcm").read_bytes()).hexdigest()
    assert (entries["report.dcm"].codec, entries["report.dcm"].modality) == ("zstd", "SR")
    assert (entries["[red]notes.txt"].sop_instance_uid, entries["[red]notes.txt"].dataset_sha256) == ("", "")
    assert inspection.archive_bytes == (tmp_path / "x.tfa").stat().st_size
    assert inspection.model_hashes == ()


def test_its_json_holds_the_same(inspection: Inspection) -> None:
    document = json.loads(json.dumps(inspection.to_json()))
    assert list(document) == ["version", "archive_bytes", "model_hashes", "entries"]
    assert [entry["name"] for entry in document["entries"]] == [entry.name for entry in inspection.entries]


def test_the_table_shows_every_file_as_it_is_called(inspection: Inspection) -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(render(inspection))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    for entry in inspection.entries:
        assert entry.name in shown
        assert entry.sha256 in shown
    assert "5 files" in shown
    assert "model hashes: none" in shown


def test_a_file_that_is_no_container_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.tfa").write_bytes(b"")
    with pytest.raises(CommandError, match=r"x\.tfa: The container is too short"):
        inspect(tmp_path / "x.tfa")
