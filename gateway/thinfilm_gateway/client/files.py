"""DICOM files as a sender sees them: which object each one is, and where its data set begins."""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from thinfilm_gateway.dicom import part10, values
from thinfilm_gateway.dicom.dataset import UnreadableDataSet, outline


class NotSendable(Exception):
    """A file that C-STORE cannot carry; the message is one sentence that says why."""


@dataclass(frozen=True)
class DicomFile:
    """A file to send, and what must come back.

    dataset_offset: where its encoded data set begins. sha256: of that, hexadecimal.
    """

    path: Path
    dataset_offset: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    dataset_bytes: int
    sha256: str

    def dataset(self) -> memoryview:
        """Return the encoded data set."""
        return memoryview(self.path.read_bytes())[self.dataset_offset :]


def read(path: Path) -> DicomFile:
    """Describe a file as a sender would send it: under the UIDs of its data set, those of its header where it has none.

    A file with a Part 10 header is sent whatever its data set is like: what cannot be read in it is empty here.
    Raises NotSendable for what is not DICOM or names no SOP class and instance.
    """
    content = path.read_bytes()
    header = part10.locate(content)
    dataset = memoryview(content)[header.dataset_offset if header else 0 :]
    if header and header.transfer_syntax_uid:
        attributes = _readable(dataset, header.transfer_syntax_uid)
        transfer_syntax_uid = header.transfer_syntax_uid
    else:
        attributes = _forced(path)
        transfer_syntax_uid = _guess_transfer_syntax(attributes)
    sop_class_uid = values.text(attributes, "SOPClassUID") or (header.sop_class_uid if header else "")
    sop_instance_uid = values.text(attributes, "SOPInstanceUID") or (header.sop_instance_uid if header else "")
    if not sop_class_uid or not sop_instance_uid:
        raise NotSendable(f"{path.name} names no SOP Class UID and SOP Instance UID.")
    return DicomFile(
        path=path,
        dataset_offset=len(content) - len(dataset),
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        study_instance_uid=values.text(attributes, "StudyInstanceUID"),
        series_instance_uid=values.text(attributes, "SeriesInstanceUID"),
        modality=values.text(attributes, "Modality"),
        dataset_bytes=len(dataset),
        sha256=hashlib.sha256(dataset).hexdigest(),
    )


def _readable(dataset: memoryview, transfer_syntax_uid: str) -> pydicom.Dataset:
    try:
        return outline(dataset, transfer_syntax_uid).attributes
    except UnreadableDataSet:
        return pydicom.Dataset()


def _forced(path: Path) -> pydicom.Dataset:
    """Read a data set of which nothing says the transfer syntax. Raises NotSendable if it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values are the sender's; they are sent as they are
            return pydicom.dcmread(path, force=True, stop_before_pixels=True)
    except Exception as error:  # pydicom raises whatever the bytes lead it to
        raise NotSendable(f"{path.name} is not DICOM: {error}.") from error


def _guess_transfer_syntax(attributes: pydicom.Dataset) -> str:
    implicit, little_endian = attributes.original_encoding
    if implicit:
        return str(ImplicitVRLittleEndian)
    return str(ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian)
