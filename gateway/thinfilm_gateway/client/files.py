"""DICOM files as a sender sees them: which object each one is, and where its data set begins."""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from thinfilm_gateway.archive import part10


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

    Raises NotSendable for what is not DICOM or names no SOP class and instance.
    """
    content = source.read_bytes()
    header = part10.locate(content)
    attributes = _attributes(source)
    meta = getattr(attributes, "file_meta", pydicom.Dataset())
    sop_class_uid = _text(meta, "MediaStorageSOPClassUID") or _text(attributes, "SOPClassUID")
    sop_instance_uid = _text(meta, "MediaStorageSOPInstanceUID") or _text(attributes, "SOPInstanceUID")
    if not sop_class_uid or not sop_instance_uid:
        raise NotSendable(f"{source.name} names no SOP Class UID and SOP Instance UID.")
    transfer_syntax_uid = _text(meta, "TransferSyntaxUID")
    dataset = content[header.dataset_offset if header else 0 :]
    path = source
    if not (header and transfer_syntax_uid and _text(meta, "MediaStorageSOPInstanceUID")):
        transfer_syntax_uid = transfer_syntax_uid or _guess_transfer_syntax(attributes)
        path = scratch / f"{hashlib.sha256(content).hexdigest()}.dcm"
        path.write_bytes(part10.build(sop_class_uid, sop_instance_uid, transfer_syntax_uid, "THINFILM") + dataset)
    return DicomFile(
        path=path,
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        study_instance_uid=_text(attributes, "StudyInstanceUID"),
        series_instance_uid=_text(attributes, "SeriesInstanceUID"),
        modality=_text(attributes, "Modality"),
        dataset_bytes=len(dataset),
        sha256=hashlib.sha256(dataset).hexdigest(),
    )


def _attributes(source: Path) -> pydicom.Dataset:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values are the sender's; they are sent as they are
            return pydicom.dcmread(source, force=True, stop_before_pixels=True)
    except Exception as error:  # pydicom raises whatever the bytes lead it to
        raise NotSendable(f"{source.name} is not DICOM: {error}.") from error


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
