"""The tables of the index.

Text from the data set is kept in its original characters and at any length: senders violate what the standard allows.
A `*_folded` column holds the form in which a value is matched (folding.py): descriptions, and names, one column a
component group, without case and accents; dates as YYYYMMDD, times as HHMMSSFFFFFF, empty where the value is neither.
Our own times are UTC.
"""

import datetime as dt
import enum
import functools
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Enum,
    ForeignKey,
    Index,
    Integer,
    Text,
    TypeDecorator,
    UniqueConstraint,
    and_,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import DateTime

from thinfilm_gateway.index.states import CommitmentState, InstanceState, JobState

INDEXED_CHARACTERS = 600
"""Characters that an indexed column keeps: a B-tree entry of PostgreSQL holds 2704 bytes, at up to 4 a character."""

# Compared by code point on every database: equality, ranges and prefixes then mean the same and can all use one B-tree.
CodePointText = Text().with_variant(Text(collation="C"), "postgresql")


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


def storable(text: str) -> str:
    """Replace what a database cannot hold: NUL by a space, which every character set has, surrogates by `?`."""
    text = text.replace("\0", " ")
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


class AnyText(TypeDecorator[str]):
    """Text of any length and content, made storable."""

    impl = CodePointText
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Make the text storable."""
        del dialect
        return None if value is None else storable(value)


class IndexedText(AnyText):
    """AnyText cut after INDEXED_CHARACTERS, for columns with an index."""

    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Make the text storable, then cut it."""
        value = super().process_bind_param(value, dialect)
        return None if value is None else value[:INDEXED_CHARACTERS]


class WholeNumber(TypeDecorator[int]):
    """An integer of the data set; one beyond 64 bits is kept as unknown."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:
        """Drop what the database cannot hold."""
        del dialect
        return value if value is not None and -(2**63) <= value < 2**63 else None


def _values(members: type[enum.Enum]) -> list[str]:
    return [member.value for member in members]


_state = functools.partial(Enum, native_enum=False, length=16, values_callable=_values)

# SQLite numbers rows by itself only for INTEGER PRIMARY KEY.
RowId = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """The metadata of all tables."""

    type_annotation_map = {  # noqa: RUF012
        str: AnyText,
        int: BigInteger,
        dt.datetime: UtcDateTime,
        InstanceState: _state(InstanceState, name="instance_state"),
        JobState: _state(JobState, name="job_state"),
        CommitmentState: _state(CommitmentState, name="commitment_state"),
    }


def _text(*, indexed: bool = False, **options: Any) -> Mapped[str]:
    """Text of the data set; empty where the data set has none."""
    return mapped_column(IndexedText if indexed else AnyText, default="", **options)


def _json() -> Mapped[str]:
    """Further attributes of the data set, or the forms that match them, as attributes.py keeps them."""
    return mapped_column(AnyText, default="{}")


class PatientColumns:
    """What an object says of its patient."""

    patient_id: Mapped[str] = _text(indexed=True, index=True)
    issuer_of_patient_id: Mapped[str] = _text()
    patient_name: Mapped[str] = _text()
    patient_name_alphabetic_folded: Mapped[str] = _text(indexed=True)
    patient_name_ideographic_folded: Mapped[str] = _text(indexed=True)
    patient_name_phonetic_folded: Mapped[str] = _text(indexed=True)
    patient_birth_date: Mapped[str] = _text()
    patient_birth_date_folded: Mapped[str] = _text(indexed=True, index=True)
    patient_sex: Mapped[str] = _text()
    attributes: Mapped[str] = _json()
    attributes_folded: Mapped[str] = _json()
    specific_character_set: Mapped[str] = _text()  # as received, values joined by \


class Patient(PatientColumns, Base):
    """A patient: Patient ID within its issuer; without an ID, one row a study. The first object that arrives tells."""

    __tablename__ = "patients"
    __table_args__ = (
        Index("ix_patients_name_alphabetic", "patient_name_alphabetic_folded"),
        Index("ix_patients_name_ideographic", "patient_name_ideographic_folded"),
        Index("ix_patients_name_phonetic", "patient_name_phonetic_folded"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    identity: Mapped[str] = mapped_column(unique=True)  # SHA-256 of issuer and Patient ID, or of the study's UID


class StudyPatient(PatientColumns, Base):
    """The patient of a study as objects of it describe him; a study whose objects differ in that has several.

    In the Study Root they are attributes of the study (PS3.4 C.6.2.1).
    """

    __tablename__ = "study_patients"
    __table_args__ = (
        UniqueConstraint("study_pk", "identity"),
        Index("ix_study_patients_name_alphabetic", "patient_name_alphabetic_folded"),
        Index("ix_study_patients_name_ideographic", "patient_name_ideographic_folded"),
        Index("ix_study_patients_name_phonetic", "patient_name_phonetic_folded"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    study_pk: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    patient_pk: Mapped[int] = mapped_column(ForeignKey("patients.id"), index=True)
    identity: Mapped[str]  # SHA-256 of the patient's identity, name, birth date and sex


class Study(Base):
    """A study. The first object that arrives describes it, or the last that was served in another's place."""

    __tablename__ = "studies"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(unique=True)
    study_date: Mapped[str] = _text()
    study_date_folded: Mapped[str] = _text(indexed=True, index=True)
    study_time: Mapped[str] = _text()
    study_time_folded: Mapped[str] = _text()
    accession_number: Mapped[str] = _text(indexed=True, index=True)
    study_id: Mapped[str] = _text(indexed=True, index=True)
    study_description: Mapped[str] = _text()
    study_description_folded: Mapped[str] = _text()
    referring_physician_name: Mapped[str] = _text()
    referring_physician_name_alphabetic_folded: Mapped[str] = _text()
    referring_physician_name_ideographic_folded: Mapped[str] = _text()
    referring_physician_name_phonetic_folded: Mapped[str] = _text()
    attributes: Mapped[str] = _json()
    attributes_folded: Mapped[str] = _json()
    specific_character_set: Mapped[str] = _text()


class Series(Base):
    """A series within its study; described as that is."""

    __tablename__ = "series"
    __table_args__ = (UniqueConstraint("study_pk", "series_instance_uid"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    study_pk: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    series_instance_uid: Mapped[str] = mapped_column(index=True)
    modality: Mapped[str] = _text()
    series_number: Mapped[int | None] = mapped_column(WholeNumber)
    series_description: Mapped[str] = _text()
    series_description_folded: Mapped[str] = _text()
    body_part_examined: Mapped[str] = _text()
    laterality: Mapped[str] = _text()
    performed_procedure_step_start_date: Mapped[str] = _text()
    performed_procedure_step_start_date_folded: Mapped[str] = _text()
    performed_procedure_step_start_time: Mapped[str] = _text()
    performed_procedure_step_start_time_folded: Mapped[str] = _text()
    attributes: Mapped[str] = _json()
    attributes_folded: Mapped[str] = _json()
    specific_character_set: Mapped[str] = _text()


class Instance(Base):
    """One received object.

    A second object under a SOP Instance UID that is already there, with other content, is kept as a further revision:
    nothing that was acknowledged is dropped. Queries and retrieval see only the current revision.
    """

    __tablename__ = "instances"
    __table_args__ = (
        UniqueConstraint("sop_instance_uid", "revision"),
        Index("ix_instances_series", "series_pk", "current", "state"),
        Index("ix_instances_cached", "last_read_at", sqlite_where=text("spool_name IS NOT NULL AND state = 'archived'"),
              postgresql_where=text("spool_name IS NOT NULL AND state = 'archived'")),
        Index("ix_instances_exceptional", "state", sqlite_where=text("state IN ('as_received', 'quarantined')"),
              postgresql_where=text("state IN ('as_received', 'quarantined')")),
    )  # fmt: skip

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    series_pk: Mapped[int] = mapped_column(ForeignKey("series.id"))
    study_patient_pk: Mapped[int | None] = mapped_column(ForeignKey("study_patients.id"))  # whom it shows; always there
    sop_instance_uid: Mapped[str]
    revision: Mapped[int]  # 1 is the first that arrived
    current: Mapped[bool]  # the revision that is served
    sop_class_uid: Mapped[str]
    transfer_syntax_uid: Mapped[str]  # as received
    instance_number: Mapped[int | None] = mapped_column(WholeNumber)
    rows: Mapped[int | None] = mapped_column(WholeNumber)
    columns: Mapped[int | None] = mapped_column(WholeNumber)
    number_of_frames: Mapped[int | None] = mapped_column(WholeNumber)
    content_date: Mapped[str] = _text()
    content_date_folded: Mapped[str] = _text()
    content_time: Mapped[str] = _text()
    content_time_folded: Mapped[str] = _text()
    attributes: Mapped[str] = _json()
    attributes_folded: Mapped[str] = _json()
    state: Mapped[InstanceState]
    sha256: Mapped[str]  # of the encoded data set, hexadecimal
    dataset_bytes: Mapped[int]  # length of the encoded data set
    dataset_offset: Mapped[int]  # where it begins in the Part 10 file that spool and container keep
    sender_ae_title: Mapped[str]
    sender_address: Mapped[str]
    received_at: Mapped[dt.datetime]
    last_read_at: Mapped[dt.datetime]  # when the cache may forget the spool copy: least recently first
    spool_name: Mapped[str | None] = mapped_column(unique=True)  # None once the cache let it go
    container_pk: Mapped[int | None] = mapped_column(ForeignKey("containers.id"), index=True)
    container_entry: Mapped[int | None]  # position in the container's list of entries
    stored_bytes: Mapped[int | None]  # its share of the container
    committed_at: Mapped[dt.datetime | None]  # when storage commitment was given first: its bytes are promised since


class Container(Base):
    """An immutable object of the archive."""

    __tablename__ = "containers"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)  # name in the object store
    size_bytes: Mapped[int]
    codecs: Mapped[str]  # ids of the codecs of its stacks, joined by commas
    created_at: Mapped[dt.datetime]
    verified_at: Mapped[dt.datetime]  # last time it was read back and every SHA-256 was right
    unused_since: Mapped[dt.datetime | None]  # when all that lies in it was first proven to be kept elsewhere


class Job(Base):
    """A piece of work; this table, not the broker, is the truth."""

    __tablename__ = "jobs"
    __table_args__ = (
        # A series has one job that waits and one that runs, at most.
        Index("ux_jobs_open", "series_pk", "kind", "state", unique=True,
              sqlite_where=text("state IN ('waiting', 'running')"),
              postgresql_where=text("state IN ('waiting', 'running')")),
        Index("ix_jobs_due", "state", "not_before"),
    )  # fmt: skip

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    kind: Mapped[str]  # the function that does it: "compress", "recompress" or "retire"
    series_pk: Mapped[int | None] = mapped_column(ForeignKey("series.id"))
    queue: Mapped[str]  # compress.cpu or maintenance (dispatch.Broker may send compress.cpu to compress.gpu)
    state: Mapped[JobState]
    not_before: Mapped[dt.datetime]  # due from here on; each arrival in the series moves it
    attempts: Mapped[int]  # how often it was taken
    lease_owner: Mapped[str | None]
    lease_until: Mapped[dt.datetime | None]  # after this, the sweep gives it to another worker
    sent_at: Mapped[dt.datetime | None]  # when the broker was last told of it
    error: Mapped[str | None]  # one sentence about the last failure
    created_at: Mapped[dt.datetime]
    finished_at: Mapped[dt.datetime | None]


class Commitment(Base):
    """A request for storage commitment, what came of it, and how the report of it goes (PS3.4 Annex J)."""

    __tablename__ = "commitments"
    __table_args__ = (
        UniqueConstraint("transaction_uid", "repetition"),
        Index("ix_commitments_due", "state", "not_before"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    transaction_uid: Mapped[str]
    repetition: Mapped[int]  # 1 is the first request under this UID; the others commit nothing
    ae_title: Mapped[str]  # who asked, and is told
    referenced: Mapped[str]  # a list of [SOP Class UID, SOP Instance UID], packed; emptied once it is reported
    failure_reasons: Mapped[str | None]  # of each of these, 0 where it was committed, packed; None until examined
    state: Mapped[CommitmentState]
    not_before: Mapped[dt.datetime]  # due from here on; until then somebody may be at work on it
    attempts: Mapped[int]  # how often it was taken
    error: Mapped[str | None]  # one sentence about the last failure
    requested_at: Mapped[dt.datetime]  # or begun anew by `thinfilm retry`
    finished_at: Mapped[dt.datetime | None]


class ScrubPass(Base):
    """One reading of all that is kept, by and by; the newest one may still be under way."""

    __tablename__ = "scrub_passes"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    began_at: Mapped[dt.datetime]
    last_container_pk: Mapped[int]  # containers up to this one have been read
    last_instance_pk: Mapped[int]  # and, of what lies in none, the instances up to this one
    share: Mapped[float]  # of the pass that is done, 0 to 1
    damages: Mapped[int]  # found so far
    finished_at: Mapped[dt.datetime | None]


class Volume(Base):
    """A folder of files that the index names, and the mark that lies in it (archive/mark.py)."""

    __tablename__ = "volumes"

    name: Mapped[str] = mapped_column(primary_key=True)  # "spool" or "archive"
    mark: Mapped[str]


class Heartbeat(Base):
    """A process of the site, as long as it writes (heartbeats.py)."""

    __tablename__ = "heartbeats"

    name: Mapped[str] = mapped_column(primary_key=True)  # HOST:PID, as lease_owner of a job
    kind: Mapped[str]  # "gateway", "local worker" or "celery worker"
    queues: Mapped[str]  # whose jobs it takes, joined by commas
    started_at: Mapped[dt.datetime]
    beat_at: Mapped[dt.datetime]  # when it wrote last
    warnings: Mapped[str]  # JSON: what it finds wrong with itself


class Derivation(Base):
    """What a lossy rule made of an archived image: the object derived from it, or why it stays lossless.

    The map from original to derived. While the original is kept, it is served; from `retired_at` on, the derived one.
    """

    __tablename__ = "derivations"
    __table_args__ = (
        UniqueConstraint("original_sop_instance_uid", "original_sha256"),
        Index("ix_derivations_retire", "retire_at", sqlite_where=text("retire_at IS NOT NULL AND retired_at IS NULL"),
              postgresql_where=text("retire_at IS NOT NULL AND retired_at IS NULL")),
    )  # fmt: skip

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    series_pk: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    original_sop_instance_uid: Mapped[str]
    original_sha256: Mapped[str]  # of the encoded data set
    derived_sop_instance_uid: Mapped[str | None] = mapped_column(index=True)  # None: it stays lossless
    derived_sha256: Mapped[str | None]  # of its encoded data set: what is served in the original's place, nothing else
    codec: Mapped[str | None]
    setting: Mapped[str | None]  # "step 7, no error above 3"
    ratio_allocated: Mapped[float | None]  # bits of the samples, as allocated and as stored, to coded bits
    ratio_stored: Mapped[float | None]
    max_error: Mapped[int | None]  # of all samples of its stack, in stored values
    rmse: Mapped[float | None]
    guarded: Mapped[str | None]  # JSON: the guard's errors of a frame, ours and the reference's
    profile: Mapped[str]  # whose ceilings held
    ceiling: Mapped[float | None]  # the ratio that it allowed, and where that comes from; None where it allows nothing
    citation: Mapped[str | None]
    error_bound: Mapped[int | None]  # the largest error that the rule allowed; None: no bound
    reason: Mapped[str]  # one sentence, of the guard or on why it stays lossless
    serve: Mapped[str]  # "derived" or "failure": what a request for the original's UID gets once that is gone
    decided_at: Mapped[dt.datetime]
    retire_at: Mapped[dt.datetime | None]  # from here on the original may go; None: it stays
    retired_at: Mapped[dt.datetime | None]  # since when the original is gone
    original_bytes: Mapped[int | None]  # length of its encoded data set; None while it is kept, or where nobody knows


def tells_of(original: type[Instance]) -> ColumnElement[bool]:
    """Return the condition that a row of the map tells of an instance as its original."""
    return and_(
        Derivation.original_sop_instance_uid == original.sop_instance_uid,
        Derivation.original_sha256 == original.sha256,
    )


class AuditEvent(Base):
    """Something an admin may have to account for later."""

    __tablename__ = "audit_events"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    at: Mapped[dt.datetime] = mapped_column(index=True)
    kind: Mapped[str] = mapped_column(index=True)  # "content_conflict", "quarantined", "codec_fallback" ...
    sop_instance_uid: Mapped[str | None] = mapped_column(index=True)
    peer: Mapped[str | None]
    detail: Mapped[str]
