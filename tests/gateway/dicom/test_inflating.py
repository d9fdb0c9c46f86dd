"""Deflated data sets grow on the disk, within what may be taken of it."""

import os
import tracemalloc
import zlib
from pathlib import Path

import pytest

from support.bombs import deflated_data_set, deflated_zeros
from support.datasets import DEFLATED, EXPLICIT_LITTLE
from thinfilm_gateway.dicom.dataset import UnreadableDataSet, outline
from thinfilm_gateway.dicom.inflating import CannotInflate, DamagedDeflation, Scratch, inflated
from thinfilm_gateway.dicom.transcode import CannotTranscode, to_native, write_native

MIB = 1 << 20


def free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def test_a_data_set_is_inflated_without_its_size_in_memory(tmp_path: Path) -> None:
    tracemalloc.start()
    data = inflated(deflated_zeros(64 * MIB), Scratch(tmp_path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(data) == 64 * MIB
    assert peak < 16 * MIB
    assert not list(tmp_path.iterdir())


def test_inflating_stops_before_the_space_is_taken_that_must_stay_free(tmp_path: Path) -> None:
    free = free_bytes(tmp_path)
    with pytest.raises(CannotInflate, match=r"would stay free\.$"):
        inflated(deflated_zeros(256 * MIB), Scratch(tmp_path, free - 64 * MIB))
    assert free_bytes(tmp_path) > free - 64 * MIB
    assert len(inflated(deflated_zeros(32 * MIB), Scratch(tmp_path, free - 2000 * MIB))) == 32 * MIB


def test_the_space_is_watched_at_ingest_and_at_retrieval(tmp_path: Path) -> None:
    encoded = deflated_data_set(256 * MIB)
    scratch = Scratch(tmp_path, free_bytes(tmp_path) - 64 * MIB)
    with pytest.raises(CannotInflate, match="stay free"):
        outline(encoded.dataset, DEFLATED, scratch)
    with (tmp_path / "native").open("wb") as target, pytest.raises(CannotInflate, match="stay free"):
        write_native(encoded.dataset, DEFLATED, EXPLICIT_LITTLE, target, scratch)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotInflate, match=r"cannot be inflated in .*nowhere.*\.$"):
        inflated(deflated_zeros(100), Scratch(tmp_path / "nowhere"))


@pytest.mark.parametrize("deflated", [b"", b"\xff" * 20, deflated_zeros(1000)[:-3]], ids=["empty", "damaged", "cut"])
def test_what_cannot_be_inflated_is_refused_in_a_sentence(deflated: bytes, tmp_path: Path) -> None:
    with pytest.raises(DamagedDeflation, match=r"^The .*\.$"):
        inflated(deflated, Scratch(tmp_path))
    with pytest.raises(UnreadableDataSet, match=r"^The .*\.$"):
        outline(deflated, DEFLATED)
    with pytest.raises(CannotTranscode, match=r"^The .*\.$"):
        to_native(deflated, DEFLATED, EXPLICIT_LITTLE)


def test_bytes_behind_the_end_of_a_deflated_data_set_do_no_harm(tmp_path: Path) -> None:
    assert bytes(inflated(zlib.compress(b"data", wbits=-15) + bytes(7), Scratch(tmp_path))) == b"data"
