"""DICOM files as a sender sees them: which object each one is, and where its data set begins."""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from thinfilm_gateway.archive import part10
from thinfilm_gateway.archive.dataset import UnreadableDataSet, outline


class NotSendable(Exception):
    """A file that C-STORE cannot carry; the message is one sentence that says why."""


@dataclass(frozen=True)
class DicomFile:
    """A Part 10 file to send, and what must come back.

    path: the file that is sent; for a source without a usable Part 10 header, a copy with one.
    sha256: of the encoded data set, hexadecimal.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    dataset_bytes: int
    sha256: str


def read(source: Path, scratch: Path) -> DicomFile:
    """Describe a file; one without a usable Part 10 header is copied into the folder `scratch` with one before it.

    A file with a header is sent whatever its data set is like: what cannot be read in it is empty here.
    Raises NotSendable for what is not DICOM or names no SOP class and instance.
    """
    content = source.read_bytes()
    header = part10.locate(content)
    if header and header.sop_class_uid and header.sop_instance_uid and header.transfer_syntax_uid:
        dataset = memoryview(content)[header.dataset_offset :]
        return _describe(source, header, dataset, _readable(dataset, header.transfer_syntax_uid))
    attributes = _forced(source)
    new_header = part10.build(
        _text(attributes, "SOPClassUID"), _text(attributes, "SOPInstanceUID"), _guess_transfer_syntax(attributes)
    )
    dataset = memoryview(content)[header.dataset_offset if header else 0 :]
    copy = scratch / f"{hashlib.sha256(content).hexdigest()}.dcm"
    copy.write_bytes(new_header + dataset)
    located = part10.locate(new_header)
    assert located is not None
    return _describe(copy, located, dataset, attributes)


def _describe(path: Path, header: part10.Part10, dataset: memoryview, attributes: pydicom.Dataset) -> DicomFile:
    return DicomFile(
        path=path,
        sop_class_uid=header.sop_class_uid,
        sop_instance_uid=header.sop_instance_uid,
        transfer_syntax_uid=header.transfer_syntax_uid,
        study_instance_uid=_text(attributes, "StudyInstanceUID"),
        series_instance_uid=_text(attributes, "SeriesInstanceUID"),
        modality=_text(attributes, "Modality"),
        dataset_bytes=len(dataset),
        sha256=hashlib.sha256(dataset).hexdigest(),
    )


def _readable(dataset: memoryview, transfer_syntax_uid: str) -> pydicom.Dataset:
    try:
        return outline(dataset, transfer_syntax_uid).attributes
    except UnreadableDataSet:
        return pydicom.Dataset()


def _forced(source: Path) -> pydicom.Dataset:
    """Read a data set that nothing announces. Raises NotSendable if it is none, or lacks the UIDs of its object."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values are the sender's; they are sent as they are
            attributes = pydicom.dcmread(source, force=True, stop_before_pixels=True)
    except Exception as error:  # pydicom raises whatever the bytes lead it to
        raise NotSendable(f"{source.name} is not DICOM: {error}.") from error
    if not _text(attributes, "SOPClassUID") or not _text(attributes, "SOPInstanceUID"):
        raise NotSendable(f"{source.name} names no SOP Class UID and SOP Instance UID.")
    return attributes


def _text(attributes: pydicom.Dataset, keyword: str) -> str:
    try:
        return str(attributes.get(keyword) or "")
    except Exception:  # a value that pydicom cannot decode is as good as none here
        return ""


def _guess_transfer_syntax(attributes: pydicom.Dataset) -> str:
    implicit, little_endian = attributes.original_encoding
    if implicit:
        return str(ImplicitVRLittleEndian)
    return str(ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian)
