import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from support.part10_files import write_series
from thinfilm_gateway.archive.container.pack import Source, pack
from thinfilm_gateway.archive.container.reader import open_container
from thinfilm_gateway.archive.container.report import PackReport
from thinfilm_gateway.archive.store import FileReader
from thinfilm_gateway.commands import compress as command
from thinfilm_gateway.commands.compress import Compressed, compress, sources
from thinfilm_gateway.commands.errors import CommandError
from thinfilm_gateway.commands.expand import expand

CODECS = ("jpegls", "htj2k")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as it comes from a workstation: two series, a report, files that are no DICOM, one of them empty."""
    root = tmp_path / "study"
    write_series(root / "CT" / "axial", 6)
    write_series(root / "CT" / "thin", 2, rows=40)
    for name in ("test-SR.dcm", "JPEG2000.dcm", "SC_rgb_small_odd.dcm"):
        (root / name).write_bytes(Path(str(get_testdata_file(name, download=False))).read_bytes())
    (root / "LIESMICH ü.txt").write_text("read me")
    (root / "empty").touch()
    (root / os.fsdecode(b"not-utf-8-\xff")).write_bytes(b"a name that is no text")
    return root


def tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def compressed(folder: Path, output: Path) -> Compressed:
    return compress(sources([folder]), output, CODECS)


def spoil(archive: Path, name: str) -> None:
    """Damage the frames of one entry."""
    with FileReader(archive) as reader:
        container = open_container(reader)
        run = next(entry for entry in container.entries if entry.name == name).frame_runs[0]
        section = container.manifest.stacks[run.stack].groups[0].section
    data = bytearray(archive.read_bytes())
    data[section.offset + 20] ^= 0xFF
    archive.write_bytes(data)


def test_a_folder_comes_back_byte_for_byte(tmp_path: Path, folder: Path) -> None:
    made = compressed(folder, tmp_path / "x.tfa")
    expanded = expand(tmp_path / "x.tfa", tmp_path / "back")
    assert tree(tmp_path / "back") == tree(folder)
    assert made.files_in == expanded.instances == expanded.verified == len(tree(folder))
    assert made.bytes_in == sum(map(len, tree(folder).values()))
    assert expanded.pixels == sum(row.pixels for row in made.report.series)
    assert expanded.damages == ()


def test_the_json_of_compress_is_that_of_the_contract(tmp_path: Path, folder: Path) -> None:
    document = json.loads(json.dumps(compressed(folder, tmp_path / "x.tfa").to_json()))
    assert list(document) == ["files_in", "bytes_in", "archive_bytes", "model_hashes", "series"]
    assert document["archive_bytes"] == (tmp_path / "x.tfa").stat().st_size
    assert document["model_hashes"] == []
    for row in document["series"]:
        assert list(row) == [
            "series_instance_uid",
            "modality",
            "instances",
            "codec",
            "preset",
            "pixels",
            "native_pixel_bytes",
            "coded_pixel_bytes",
            "bits_per_pixel",
            "encode_seconds",
        ]
    assert sum(row["instances"] for row in document["series"]) == document["files_in"]
    assert {codec for row in document["series"] for codec in row["codec"].split(",")} <= {"zstd", "raw", *CODECS}


def test_the_json_of_expand_is_that_of_the_contract(tmp_path: Path, folder: Path) -> None:
    compressed(folder, tmp_path / "x.tfa")
    document = json.loads(json.dumps(expand(tmp_path / "x.tfa", tmp_path / "back").to_json()))
    assert list(document) == ["instances", "verified", "pixels", "decode_seconds"]


def test_the_same_folder_gives_the_same_container(tmp_path: Path, folder: Path) -> None:
    compressed(folder, tmp_path / "one.tfa")
    compressed(folder, tmp_path / "two.tfa")
    assert (tmp_path / "one.tfa").read_bytes() == (tmp_path / "two.tfa").read_bytes()


def test_names_are_relative_to_the_one_folder_or_to_what_holds_all_paths(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names(*paths: Path) -> list[str]:
        return [source.name for source in sources(paths)]

    axial, thin = folder / "CT" / "axial", folder / "CT" / "thin"
    assert names(axial) == [f"00{number}.dcm" for number in range(1, 7)]
    assert names(thin / "001.dcm") == ["001.dcm"]
    assert names(thin, axial / "003.dcm") == ["thin/001.dcm", "thin/002.dcm", "axial/003.dcm"]
    assert names(axial / "001.dcm", thin / "001.dcm") == ["axial/001.dcm", "thin/001.dcm"]
    monkeypatch.chdir(thin)
    assert names(Path(), Path("../axial/001.dcm")) == ["thin/001.dcm", "thin/002.dcm", "axial/001.dcm"]


def test_what_cannot_be_taken_is_refused_by_name(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(CommandError, match=r"There is no .*missing"):
        sources([folder, folder / "missing"])
    with pytest.raises(CommandError, match="given twice"):
        sources([folder, folder / "CT"])
    with pytest.raises(CommandError, match="Give at least one"):
        sources([])
    (tmp_path / "bare").mkdir()
    with pytest.raises(CommandError, match=r"no file in .*bare"):
        sources([tmp_path / "bare"])
    (folder / "loop").symlink_to(folder)
    with pytest.raises(CommandError, match="loop is a link to a folder"):
        sources([folder])
    (folder / "loop").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(CommandError, match="pipe is neither a file nor a folder"):
        sources([folder])


def test_a_socket_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("door")
        with pytest.raises(CommandError, match="door is neither"):
            sources([Path("door")])


def test_codec_preset_and_device_must_be_known(tmp_path: Path, folder: Path) -> None:
    found = sources([folder])
    with pytest.raises(CommandError, match="No codec is called 'jpeg9'"):
        compress(found, tmp_path / "x.tfa", ["jpeg9"])
    with pytest.raises(CommandError, match="No preset is called 'best'"):
        compress(found, tmp_path / "x.tfa", CODECS, preset="best")
    with pytest.raises(CommandError, match="No device is called 'tpu'"):
        compress(found, tmp_path / "x.tfa", CODECS, device="tpu")
    assert not (tmp_path / "x.tfa").exists()


def test_compress_never_overwrites(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "x.tfa").write_text("dear")
    with pytest.raises(CommandError, match="is there already"):
        compressed(folder, tmp_path / "x.tfa")
    assert (tmp_path / "x.tfa").read_text() == "dear"


def test_compress_into_a_folder_that_is_not_there_says_so(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(CommandError, match="No such file or directory"):
        compressed(folder, tmp_path / "missing" / "x.tfa")


def test_expand_never_overwrites_and_then_writes_nothing(tmp_path: Path, folder: Path) -> None:
    compressed(folder, tmp_path / "x.tfa")
    back = tmp_path / "back"
    back.mkdir()
    (back / "test-SR.dcm").write_text("dear")
    with pytest.raises(CommandError, match=r"test-SR\.dcm is there already"):
        expand(tmp_path / "x.tfa", back)
    assert tree(back) == {"test-SR.dcm": b"dear"}


def test_expand_does_not_follow_links_out_of_the_folder(tmp_path: Path, folder: Path) -> None:
    compressed(folder, tmp_path / "x.tfa")
    (tmp_path / "outside").mkdir()
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "CT").symlink_to(tmp_path / "outside")
    with pytest.raises(CommandError, match="outside"):
        expand(tmp_path / "x.tfa", tmp_path / "back")
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_damaged_file_is_left_out_and_named_and_the_others_come_back(tmp_path: Path, folder: Path) -> None:
    compressed(folder, tmp_path / "x.tfa")
    spoil(tmp_path / "x.tfa", "SC_rgb_small_odd.dcm")
    expanded = expand(tmp_path / "x.tfa", tmp_path / "back")
    original = tree(folder)
    del original["SC_rgb_small_odd.dcm"]
    assert tree(tmp_path / "back") == original
    assert expanded.verified == expanded.instances - 1
    (damage,) = expanded.damages
    assert "SC_rgb_small_odd.dcm" in damage


def test_damage_that_loses_nothing_is_told_all_the_same(tmp_path: Path, folder: Path) -> None:
    compressed(folder, tmp_path / "x.tfa")
    data = bytearray((tmp_path / "x.tfa").read_bytes())
    data[-1] ^= 0xFF
    (tmp_path / "x.tfa").write_bytes(data)
    expanded = expand(tmp_path / "x.tfa", tmp_path / "back")
    assert tree(tmp_path / "back") == tree(folder)
    assert expanded.verified == expanded.instances
    (damage,) = expanded.damages
    assert "footer" in damage


def test_a_file_that_is_no_container_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.tfa").write_text("nothing of the kind")
    with pytest.raises(CommandError, match=r"x\.tfa: The"):
        expand(tmp_path / "x.tfa", tmp_path / "back")
    with pytest.raises(CommandError, match=r"missing\.tfa: No such file"):
        expand(tmp_path / "missing.tfa", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_folder_of_real_dicom_comes_back_byte_for_byte(tmp_path: Path, folder: Path) -> None:
    real = Path(os.environ.get("THINFILM_DATA", folder))
    compressed(real, tmp_path / "x.tfa")
    assert expand(tmp_path / "x.tfa", tmp_path / "back").damages == ()
    assert tree(tmp_path / "back") == tree(real)


def test_a_container_that_does_not_read_back_is_removed_and_the_files_stay(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(folder)

    def pack_on_a_bad_disk(sources: Sequence[Source], output: Path, *others: Any) -> PackReport:
        report = pack(sources, output, *others)
        spoil(output, "CT/axial/" + min(path.name for path in (folder / "CT" / "axial").iterdir()))
        return report

    monkeypatch.setattr(command, "pack", pack_on_a_bad_disk)
    with pytest.raises(CommandError, match="did not read back"):
        compressed(folder, tmp_path / "x.tfa")
    assert list(tmp_path.glob("*.tfa")) == []
    assert tree(folder) == before
