"""The tables of the index.

Text from the data set is kept in its original characters; a `*_folded` column holds the case- and accent-folded form for
matching. Times of our own are UTC. Dates and times from the data set stay DICOM text (DA, TM), which sorts as it matches.
"""

import datetime as dt
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, String, Text, TypeDecorator, UniqueConstraint
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import DateTime

from thinfilm_gateway.index.states import InstanceState, JobState


class UtcDateTime(TypeDecorator[dt.datetime]):
    """A timezone-aware time, stored as UTC on every database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """Refuse naive times; hand UTC to the database."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("Times in the index carry a time zone.")
        value = value.astimezone(dt.UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """Give UTC back."""
        if value is None:
            return None
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


# SQLite numbers rows by itself only for INTEGER PRIMARY KEY.
RowId = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """The metadata of all tables."""

    type_annotation_map = {int: BigInteger, dt.datetime: UtcDateTime, dict[str, Any]: JSON}  # noqa: RUF012


class Patient(Base):
    """A patient: Patient ID within its issuer; without an ID, one row a study."""

    __tablename__ = "patients"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    identity: Mapped[str] = mapped_column(String(600), unique=True)  # issuer and Patient ID, or the study's UID
    patient_id: Mapped[str] = mapped_column(String(256), index=True)
    issuer_of_patient_id: Mapped[str] = mapped_column(String(256), default="")
    patient_name: Mapped[str] = mapped_column(Text, default="")
    patient_name_folded: Mapped[str] = mapped_column(Text, default="", index=True)
    patient_birth_date: Mapped[str] = mapped_column(String(32), default="")
    patient_sex: Mapped[str] = mapped_column(String(32), default="")
    specific_character_set: Mapped[str] = mapped_column(String(256), default="")  # as received, values joined by \

    studies: Mapped[list["Study"]] = relationship(back_populates="patient")


class Study(Base):
    """A study."""

    __tablename__ = "studies"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    patient_pk: Mapped[int] = mapped_column(ForeignKey("patients.id"), index=True)
    study_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    study_date: Mapped[str] = mapped_column(String(32), default="", index=True)
    study_time: Mapped[str] = mapped_column(String(32), default="")
    accession_number: Mapped[str] = mapped_column(String(256), default="", index=True)
    study_id: Mapped[str] = mapped_column(String(256), default="")
    study_description: Mapped[str] = mapped_column(Text, default="")
    study_description_folded: Mapped[str] = mapped_column(Text, default="")
    referring_physician_name: Mapped[str] = mapped_column(Text, default="")
    referring_physician_name_folded: Mapped[str] = mapped_column(Text, default="")
    specific_character_set: Mapped[str] = mapped_column(String(256), default="")

    patient: Mapped[Patient] = relationship(back_populates="studies")
    series: Mapped[list["Series"]] = relationship(back_populates="study")


class Series(Base):
    """A series within its study."""

    __tablename__ = "series"
    __table_args__ = (UniqueConstraint("study_pk", "series_instance_uid"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    study_pk: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    series_instance_uid: Mapped[str] = mapped_column(String(64), index=True)
    modality: Mapped[str] = mapped_column(String(64), default="", index=True)
    series_number: Mapped[str] = mapped_column(String(64), default="")
    series_description: Mapped[str] = mapped_column(Text, default="")
    series_description_folded: Mapped[str] = mapped_column(Text, default="")
    body_part_examined: Mapped[str] = mapped_column(String(64), default="")
    laterality: Mapped[str] = mapped_column(String(32), default="")
    performed_procedure_step_start_date: Mapped[str] = mapped_column(String(32), default="")
    performed_procedure_step_start_time: Mapped[str] = mapped_column(String(32), default="")
    specific_character_set: Mapped[str] = mapped_column(String(256), default="")
    last_received_at: Mapped[dt.datetime]

    study: Mapped[Study] = relationship(back_populates="series")
    instances: Mapped[list["Instance"]] = relationship(back_populates="series")


class Instance(Base):
    """One received object.

    A second object under a SOP Instance UID that is already there, with other content, is kept as a further revision:
    nothing that was acknowledged is dropped. Queries and retrieval see only the current revision.
    """

    __tablename__ = "instances"
    __table_args__ = (
        UniqueConstraint("sop_instance_uid", "revision"),
        Index("ix_instances_series_state", "series_pk", "state"),
        Index("ix_instances_cached", "spool_name", "last_read_at"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    series_pk: Mapped[int] = mapped_column(ForeignKey("series.id"))
    sop_instance_uid: Mapped[str] = mapped_column(String(64))
    revision: Mapped[int] = mapped_column(default=1)  # 1 is the first that arrived
    current: Mapped[bool] = mapped_column(default=True)  # the revision that is served
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    transfer_syntax_uid: Mapped[str] = mapped_column(String(64))  # as received
    instance_number: Mapped[str] = mapped_column(String(64), default="")
    rows: Mapped[int | None]
    columns: Mapped[int | None]
    number_of_frames: Mapped[int | None]
    content_date: Mapped[str] = mapped_column(String(32), default="")
    content_time: Mapped[str] = mapped_column(String(32), default="")
    state: Mapped[InstanceState] = mapped_column(String(16))
    sha256: Mapped[str] = mapped_column(String(64))  # of the encoded data set, hexadecimal
    dataset_bytes: Mapped[int]  # length of the encoded data set
    dataset_offset: Mapped[int]  # where it begins in the Part 10 file that spool and container keep
    sender_ae_title: Mapped[str] = mapped_column(String(16), default="")
    sender_address: Mapped[str] = mapped_column(String(64), default="")
    received_at: Mapped[dt.datetime]
    last_read_at: Mapped[dt.datetime]  # when the cache may forget the spool copy: least recently first
    spool_name: Mapped[str | None] = mapped_column(String(64), unique=True)  # None once the cache let it go
    container_pk: Mapped[int | None] = mapped_column(ForeignKey("containers.id"), index=True)
    container_entry: Mapped[int | None]  # position in the container's list of entries
    stored_bytes: Mapped[int | None]  # its share of the container

    series: Mapped[Series] = relationship(back_populates="instances")
    container: Mapped["Container | None"] = relationship(back_populates="instances")


class Container(Base):
    """An immutable object of the archive."""

    __tablename__ = "containers"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    key: Mapped[str] = mapped_column(String(128), unique=True)  # name in the object store
    size_bytes: Mapped[int]
    entries: Mapped[int]
    codecs: Mapped[str] = mapped_column(String(256), default="")  # ids of the codecs of its stacks, joined by commas
    created_at: Mapped[dt.datetime]
    verified_at: Mapped[dt.datetime]  # last time it was read back and every SHA-256 was right

    instances: Mapped[list[Instance]] = relationship(back_populates="container")


class Job(Base):
    """A piece of work; this table, not the broker, is the truth."""

    __tablename__ = "jobs"
    __table_args__ = (Index("ix_jobs_due", "state", "not_before"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))  # the function that does it: "compress"
    series_pk: Mapped[int | None] = mapped_column(ForeignKey("series.id"), index=True)
    queue: Mapped[str] = mapped_column(String(32))  # compress.cpu, compress.gpu or maintenance
    state: Mapped[JobState] = mapped_column(String(16))
    not_before: Mapped[dt.datetime]  # due from here on; each arrival in the series moves it
    attempts: Mapped[int] = mapped_column(default=0)  # how often it was taken
    lease_owner: Mapped[str | None] = mapped_column(String(128))
    lease_until: Mapped[dt.datetime | None]  # after this, the sweep gives it to another worker
    sent_at: Mapped[dt.datetime | None]  # when the broker was last told of it
    error: Mapped[str | None] = mapped_column(Text)  # one sentence about the last failure
    created_at: Mapped[dt.datetime]
    finished_at: Mapped[dt.datetime | None]


class AuditEvent(Base):
    """Something an admin may have to account for later."""

    __tablename__ = "audit_events"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    at: Mapped[dt.datetime] = mapped_column(index=True)
    kind: Mapped[str] = mapped_column(String(64), index=True)  # "content_conflict", "quarantined", "codec_fallback" ...
    sop_instance_uid: Mapped[str | None] = mapped_column(String(64), index=True)
    peer: Mapped[str | None] = mapped_column(String(128))
    detail: Mapped[str] = mapped_column(Text, default="")
