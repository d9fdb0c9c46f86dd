"""Encoded data sets on their way into a gateway and out of it again."""

from collections.abc import Iterable
from pathlib import Path

from support.datasets import EncodedDataSet
from thinfilm_gateway.archive import part10
from thinfilm_gateway.client.files import DicomFile, read


def dataset_of(file: Path | bytes) -> bytes:
    """Return the encoded data set of a Part 10 file."""
    content = file.read_bytes() if isinstance(file, Path) else file
    header = part10.locate(content)
    assert header is not None, "It is no Part 10 file."
    return content[header.dataset_offset :]


def datasets_in(folder: Path) -> dict[str, bytes]:
    """Return the data sets of all files of a folder, by SOP Instance UID as the file meta information has it."""
    found = {}
    for path in folder.iterdir():
        header = part10.locate(path.read_bytes())
        assert header is not None, path
        assert header.sop_instance_uid not in found, f"{header.sop_instance_uid} is there twice."
        found[header.sop_instance_uid] = path.read_bytes()[header.dataset_offset :]
    return found


def write_files(folder: Path, data_sets: Iterable[EncodedDataSet]) -> list[DicomFile]:
    """Write data sets as Part 10 files to send."""
    return [read(data_set.write(folder / f"{number:04d}.dcm"), folder) for number, data_set in enumerate(data_sets)]
