"""Rows of archived studies that never were, for measurements on a large index; there are no files behind them."""

import datetime as dt
import hashlib
from collections.abc import Callable

from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from sqlalchemy import text

from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.models import Base, Container, Instance, Job, Patient, Series, Study, StudyPatient
from thinfilm_gateway.index.rows import Row as Columns
from thinfilm_gateway.index.rows import (
    description_identity,
    instance_row,
    patient_identity,
    patient_row,
    series_row,
    study_row,
)
from thinfilm_gateway.index.states import InstanceState, JobState

STUDY_INSTANCES, STUDY_SERIES = 50, 2
PATIENT_STUDIES = 2

_UID_ROOT = "1.2.826.0.1.3680043.8.498.1"
_FIRST_DAY = dt.date(2010, 1, 1)
_DAYS = 5800
_FAMILY_NAMES = ("Andersson", "Bauer", "Costa", "Dubois", "Eriksen", "Fischer", "Garcia", "Horvat", "Ivanova", "Jansen")
_CHUNK_STUDIES = 200
_TABLES: tuple[type[Base], ...] = (Container, Patient, Study, StudyPatient, Series, Instance, Job)


def fill(database: Database, studies: range, advance: Callable[[], None]) -> None:
    """Make the rows of archived studies, many at a time; then let the database count them, as it does by itself."""
    now = dt.datetime.now(dt.UTC)
    for first in range(studies.start, studies.stop, _CHUNK_STUDIES):
        chunk = range(first, min(first + _CHUNK_STUDIES, studies.stop))
        rows: dict[type[Base], list[Columns]] = {
            Container: [_container_row(number, now) for number in chunk],
            Patient: [_patient_row(number) for number in chunk if number % PATIENT_STUDIES == 0],
            Study: [_study_row(number) for number in chunk],
            StudyPatient: [_study_patient_row(number) for number in chunk],
            Series: [_series_row(number, each) for number in chunk for each in range(STUDY_SERIES)],
            Instance: [_instance_row(number, place, now) for number in chunk for place in range(STUDY_INSTANCES)],
            Job: [_job_row(number, each, now) for number in chunk for each in range(STUDY_SERIES)],
        }
        with database.session() as session:
            for model, values in rows.items():
                session.connection().execute(model.__table__.insert(), values)  # type: ignore[attr-defined]
        for _ in chunk:
            advance()
    with database.session() as session:
        if not database.is_sqlite:  # rows are numbered by us here, by sequences afterwards
            for model in _TABLES:
                name = model.__tablename__
                session.execute(text(f"SELECT setval('{name}_id_seq', (SELECT max(id) FROM {name}))"))  # noqa: S608
        session.execute(text("ANALYZE"))


def made_study(number: int) -> Dataset:
    """Return the attributes of a made study, those of patient and study alone."""
    patient = number // PATIENT_STUDIES
    attributes = Dataset()
    attributes.PatientID = f"BENCH{patient:07d}"
    attributes.PatientName = f"{_FAMILY_NAMES[patient % len(_FAMILY_NAMES)]}{patient:05d}^Given{patient % 97}"
    attributes.PatientBirthDate = f"{1930 + patient % 80}0101"
    attributes.PatientSex = "FMO"[patient % 3]
    attributes.StudyInstanceUID = f"{_UID_ROOT}.{number}"
    attributes.StudyDate = f"{_FIRST_DAY + dt.timedelta(days=number * 7919 % _DAYS):%Y%m%d}"
    attributes.StudyTime = f"{number % 24:02d}3000"
    attributes.AccessionNumber = f"A{number:08d}"
    attributes.StudyDescription = f"Made study {number % 40}"
    return attributes


def made_object(number: int, place: int) -> Dataset:
    """Return the attributes of the object at `place` of a made study."""
    attributes = made_study(number)
    series = place * STUDY_SERIES // STUDY_INSTANCES
    attributes.Modality = ("CT", "MR", "PT", "CR")[number % 4]
    attributes.SeriesInstanceUID = f"{attributes.StudyInstanceUID}.{series}"
    attributes.SeriesNumber = series + 1
    attributes.InstanceNumber = place + 1
    attributes.Rows = attributes.Columns = 512
    return attributes


def made_uid(number: int, place: int) -> str:
    """Return the SOP Instance UID of the object at `place` of a made study."""
    return f"{_UID_ROOT}.{number}.{place * STUDY_SERIES // STUDY_INSTANCES}.{place}"


def made_sha256(number: int, place: int) -> str:
    """Return what stands for the SHA-256, hexadecimal, of its data set."""
    return hashlib.sha256(f"{number}.{place}".encode()).hexdigest()


def _container_row(number: int, now: dt.datetime) -> Columns:
    key = f"bench/{number}"
    return {"id": number + 1, "key": key, "size_bytes": 1 << 23, "codecs": "neural", "created_at": now,
            "verified_at": now}  # fmt: skip


def _patient_row(number: int) -> Columns:
    attributes = made_study(number)
    identity = patient_identity(attributes, attributes.StudyInstanceUID)
    return {"id": number // PATIENT_STUDIES + 1, "identity": identity, **patient_row(attributes)}


def _study_row(number: int) -> Columns:
    attributes = made_study(number)
    return {"id": number + 1, "study_instance_uid": attributes.StudyInstanceUID, **study_row(attributes)}


def _study_patient_row(number: int) -> Columns:
    attributes = made_study(number)
    keys = {"id": number + 1, "study_pk": number + 1, "patient_pk": number // PATIENT_STUDIES + 1}
    identity = description_identity(attributes, attributes.StudyInstanceUID)
    return {**keys, "identity": identity, **patient_row(attributes)}


def _series_row(number: int, series: int) -> Columns:
    attributes = made_object(number, series * STUDY_INSTANCES // STUDY_SERIES)
    keys = {"id": number * STUDY_SERIES + series + 1, "study_pk": number + 1}
    return {**keys, "series_instance_uid": attributes.SeriesInstanceUID, **series_row(attributes)}


def _instance_row(number: int, place: int, now: dt.datetime) -> Columns:
    return {
        "series_pk": number * STUDY_SERIES + place * STUDY_SERIES // STUDY_INSTANCES + 1,
        "study_patient_pk": number + 1,
        "id": number * STUDY_INSTANCES + place + 1,
        "sop_instance_uid": made_uid(number, place),
        "revision": 1,
        "current": True,
        "sop_class_uid": CTImageStorage,
        "transfer_syntax_uid": ExplicitVRLittleEndian,
        **instance_row(Dataset()),
        "instance_number": place + 1,
        "rows": 512,
        "columns": 512,
        "state": InstanceState.ARCHIVED,
        "sha256": made_sha256(number, place),
        "dataset_bytes": 1 << 19,
        "dataset_offset": 512,
        "sender_ae_title": "BENCH",
        "sender_address": "127.0.0.1",
        "received_at": now,
        "last_read_at": now,
        "container_pk": number + 1,
        "container_entry": place,
        "stored_bytes": 1 << 17,
    }


def _job_row(number: int, series: int, now: dt.datetime) -> Columns:
    return {
        "id": number * STUDY_SERIES + series + 1,
        "kind": "compress",
        "series_pk": number * STUDY_SERIES + series + 1,
        "queue": "compress.cpu",
        "state": JobState.DONE,
        "not_before": now,
        "attempts": 1,
        "created_at": now,
        "finished_at": now,
    }
