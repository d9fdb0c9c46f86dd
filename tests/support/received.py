"""Builds received objects for tests of the index, without a network."""

import datetime as dt
import hashlib
import itertools
import uuid
from collections.abc import Iterable
from typing import Any

from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from thinfilm_gateway.dicom.values import text
from thinfilm_gateway.index.ingest import Received

QUIET = dt.timedelta(seconds=30)
EARLY = dt.datetime(2026, 5, 4, 12, 0, tzinfo=dt.UTC)

_numbers = itertools.count(1)


def new_uid() -> str:
    return f"2.25.{uuid.uuid4().int}"


def attributes(**values: Any) -> Dataset:
    """A small CT instance with new UIDs; `values` replace or add attributes by keyword, None takes one away."""
    dataset = Dataset()
    defaults = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": new_uid(),
        "StudyInstanceUID": new_uid(),
        "SeriesInstanceUID": new_uid(),
        "PatientID": "P1",
        "PatientName": "Doe^Jane",
        "StudyDate": "20260504",
        "StudyTime": "101500",
        "AccessionNumber": "A1",
        "StudyID": "S1",
        "Modality": "CT",
        "SeriesNumber": 1,
        "InstanceNumber": next(_numbers),
        "Rows": 512,
        "Columns": 512,
    }
    for keyword, value in (defaults | values).items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def raw_attributes(**values: bytes) -> Dataset:
    """The same instance as it is read from the network: `values` are elements that pydicom has not looked at."""
    dataset = attributes()
    for keyword, value in values.items():
        tag = Tag(keyword)
        dataset._dict[tag] = RawDataElement(tag, None, len(value), value, 0, True, True)
    return dataset


def received(content: bytes | None = None, dataset: Dataset | None = None, **values: Any) -> Received:
    """An object as the receiver hands it to the index; without `content`, its bytes are like no other's."""
    dataset = attributes(**values) if dataset is None else dataset
    content = uuid.uuid4().bytes if content is None else content
    return Received(
        attributes=dataset,
        sop_instance_uid=text(dataset, "SOPInstanceUID"),
        sop_class_uid=text(dataset, "SOPClassUID"),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        sha256=hashlib.sha256(content).hexdigest(),
        dataset_bytes=len(content),
        dataset_offset=300,
        spool_name=uuid.uuid4().hex,
        sender_ae_title="SCANNER",
        sender_address="192.0.2.1",
        received_at=EARLY,
    )


def series_of(count: int, **values: Any) -> list[Received]:
    """`count` instances of one new series."""
    shared = {"StudyInstanceUID": new_uid(), "SeriesInstanceUID": new_uid()} | values
    return [received(**shared) for _ in range(count)]


def uids(objects: Iterable[Received]) -> list[str]:
    return [one.sop_instance_uid for one in objects]
