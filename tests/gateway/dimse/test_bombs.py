"""Small objects that ask for much take little of a receiver's memory, when they come and when they are asked for."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from support import dcmtk
from support.bombs import all_bombs
from support.datasets import EncodedDataSet, ct_series
from support.receiver import Running, receiver_process
from support.scu import store_all

MIB = 1 << 20
MOST_MEMORY = 512 * MIB
PATIENCE_SECONDS = 250  # hundreds of megabytes are inflated on a disk that may be busy

BOMBS = all_bombs()
DELIVERED = {
    "frames without end",
    "RLE of a huge segment",
    "deflated frame that grows",
    "deflated data set",
    "deflated data set of many elements",
}
"""All others are too much to be decoded, or not what they say."""


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Running]:
    with receiver_process(tmp_path, network_timeout_seconds=PATIENCE_SECONDS) as running:
        yield running


def peak_memory(receiver: Running) -> int:
    """Return the most memory that the process ever had, mapped files included, in bytes."""
    assert receiver.process is not None
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{receiver.process.pid}/status").read_text())
    return int(line) * 1024


def retrieve(receiver: Running, encoded: EncodedDataSet, folder: Path) -> list[Path]:
    """Ask for an object natively, as viewers do that know nothing else; return the files that came."""
    folder.mkdir()
    dcmtk.getscu(
        receiver.port,
        ["QueryRetrieveLevel=IMAGE", *keys_of(receiver, encoded)],
        folder,
        "-S",
    )
    return sorted(folder.iterdir())


def keys_of(receiver: Running, encoded: EncodedDataSet) -> list[str]:
    (row,) = [row for row in receiver.instances() if row.sop_instance_uid == encoded.sop_instance_uid]
    header = dcmread(receiver.spool.path(str(row.spool_name)), stop_before_pixels=True, defer_size=MIB)
    return [
        f"StudyInstanceUID={header.StudyInstanceUID}",
        f"SeriesInstanceUID={header.SeriesInstanceUID}",
        f"SOPInstanceUID={encoded.sop_instance_uid}",
    ]


@pytest.mark.timeout(900)
def test_memory_stays_small_whatever_bombs_are_sent_and_asked_for(receiver: Running, tmp_path: Path) -> None:
    (image,) = ct_series(1, 64)
    answers = store_all(receiver.port, [*BOMBS.values(), image], PATIENCE_SECONDS)
    assert answers[-1].status == 0
    taken = [encoded for encoded, answer in zip(BOMBS.values(), answers, strict=False) if answer.status == 0]
    assert len(taken) > len(BOMBS) - 3
    assert peak_memory(receiver) < MOST_MEMORY
    for number, (name, encoded) in enumerate(BOMBS.items()):
        if encoded in taken:
            files = retrieve(receiver, encoded, tmp_path / f"got {number}")
            assert bool(files) == (name in DELIVERED), name
            for file in files:
                file.unlink()
            assert peak_memory(receiver) < MOST_MEMORY, name
    (file,) = retrieve(receiver, image, tmp_path / "image")
    assert dcmread(file).PixelData in image.dataset
