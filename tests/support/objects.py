"""Encoded data sets on their way into a gateway and out of it again."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from pydicom import Dataset

from support.datasets import EncodedDataSet
from thinfilm_gateway.client.files import DicomFile
from thinfilm_gateway.dicom import part10, values
from thinfilm_gateway.dicom.dataset import UnreadableDataSet, outline


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
    """Write data sets as Part 10 files, to be sent under the UIDs that they were given with."""
    files = []
    for number, data_set in enumerate(data_sets):
        dataset, transfer_syntax_uid, sop_class_uid, sop_instance_uid = data_set
        path = data_set.write(folder / f"{number:04d}.dcm")
        try:
            attributes = outline(dataset, transfer_syntax_uid).attributes
        except UnreadableDataSet:
            attributes = Dataset()
        files.append(
            DicomFile(
                path=path,
                dataset_offset=path.stat().st_size - len(dataset),
                sop_class_uid=sop_class_uid,
                sop_instance_uid=sop_instance_uid,
                transfer_syntax_uid=transfer_syntax_uid,
                study_instance_uid=values.text(attributes, "StudyInstanceUID"),
                series_instance_uid=values.text(attributes, "SeriesInstanceUID"),
                modality=values.text(attributes, "Modality"),
                dataset_bytes=len(dataset),
                sha256=hashlib.sha256(dataset).hexdigest(),
            )
        )
    return files
