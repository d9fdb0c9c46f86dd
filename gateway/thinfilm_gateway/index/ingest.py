"""Enters received objects into the index, in one transaction with the job that will compress them."""

import datetime as dt
import enum
import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pydicom import Dataset
from sqlalchemy import bindparam, select, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from thinfilm_gateway.archive.presence import NamedCopies, Presence
from thinfilm_gateway.config import Duplicates
from thinfilm_gateway.dicom.values import text
from thinfilm_gateway.index import audit, jobs, patients, returned
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.duplicates import CONTENT_CONFLICT, RELATIONAL_MISMATCH
from thinfilm_gateway.index.homes import Belonging, FoundHomes, Home, describe_anew, find_or_make
from thinfilm_gateway.index.models import Container, Instance, Series, Study
from thinfilm_gateway.index.returned import Retired
from thinfilm_gateway.index.rows import Row, instance_row
from thinfilm_gateway.index.sql import insert_into
from thinfilm_gateway.index.states import InstanceState
from thinfilm_gateway.index.transitions import move_instances

LONGEST_UID = 256  # the standard has 64; longer ones are sent, and must still fit an index

RACES = (
    20  # how often a batch is tried again because another process entered the same patient, study or object just now
)


# Made once, since SQLAlchemy takes longer to make a statement than to execute it, and ingest waits for both.
_KEPT_UNDER = (
    select(
        Instance.sop_instance_uid,
        Instance.revision,
        Instance.sha256,
        Instance.transfer_syntax_uid,
        Instance.state,
        Instance.spool_name,
        (Instance.dataset_offset + Instance.dataset_bytes).label("spool_bytes"),
        Container.key,
        Container.size_bytes,
        Instance.id,
        Instance.committed_at,
        Series.series_instance_uid,
        Study.study_instance_uid,
    )
    .join(Series, Series.id == Instance.series_pk)
    .join(Study, Study.id == Series.study_pk)
    .outerjoin(Container, Container.id == Instance.container_pk)
    .where(Instance.sop_instance_uid.in_(bindparam("uids", expanding=True)))
    .order_by(Instance.revision)
)


class UnindexableDataSet(Exception):
    """The data set lacks a UID without which it cannot be found again; the message is one sentence."""


class LostRace(Exception):
    """Another process changed what this transaction had read; tried again, it will see that."""


class Outcome(enum.Enum):
    """What became of a received object."""

    STORED = "stored"  # it is in the index; its spool file is the object of record
    IDENTICAL = "identical"  # kept already, by the index; its spool file is set aside until that copy was read
    CONFLICT = "conflict"  # kept as a further revision beside other bytes of the same SOP Instance UID
    REJECTED = "rejected"  # other bytes of a SOP Instance UID that is there already; they are not kept
    SURPLUS = "surplus"  # other bytes of one that has as many contents as are kept; these are not


@dataclass(frozen=True)
class RequiredUids:
    """The UIDs by which an object is found; sop_class_uid is empty where the data set has none."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str


@dataclass(frozen=True, eq=False)
class Received:
    """An object that is durable in the spool, or proven in a container, and about to be entered.

    sha256 (hexadecimal), dataset_bytes: of the encoded data set; dataset_offset: where it begins in the spool file.
    spool_name: None only while the index is rebuilt from containers.
    """

    attributes: Dataset
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    sha256: str
    dataset_bytes: int
    dataset_offset: int
    spool_name: str | None
    sender_ae_title: str
    sender_address: str
    received_at: dt.datetime


def policy_for_kept(duplicates: Duplicates) -> Duplicates:
    """Return how to enter what is kept already: it stays, whatever the settings reject by now."""
    return "version" if duplicates == "version" else "keep-first"


def required_uids(attributes: Dataset) -> RequiredUids:
    """Read the UIDs that every object must have. Raises UnindexableDataSet if one is missing."""
    uids = RequiredUids(
        text(attributes, "StudyInstanceUID"),
        text(attributes, "SeriesInstanceUID"),
        text(attributes, "SOPInstanceUID"),
        text(attributes, "SOPClassUID"),
    )
    for name, value in (
        ("Study Instance UID (0020,000D)", uids.study_instance_uid),
        ("Series Instance UID (0020,000E)", uids.series_instance_uid),
        ("SOP Instance UID (0008,0018)", uids.sop_instance_uid),
    ):
        if not value:
            raise UnindexableDataSet(f"The data set has no {name}.")
        if len(value) > LONGEST_UID or not value.isascii() or not value.isprintable():
            raise UnindexableDataSet(f"The {name} of the data set is not a UID.")
    return uids


def register_all(
    database: Database,
    batch: Sequence[Received],
    quiet: dt.timedelta,
    now: dt.datetime | None = None,
    presence: Presence | None = None,
    duplicates: Duplicates = "keep-first",
    maximum_revisions: int | None = None,
) -> list[Outcome]:
    """Enter a batch in one transaction, durable on return; the outcomes are in the order of the batch.

    `quiet` after this, the jobs of the series are due. Safe while other processes enter the same series.
    presence: looks for the kept copy before an object counts as IDENTICAL; give it where that lets the new one go.
    duplicates: what becomes of other content under a known SOP Instance UID; only with "reject" is it REJECTED.
    maximum_revisions: where as many contents are kept under a UID, a further one is SURPLUS; None: without a bound.
    Raises UnindexableDataSet (nothing of the batch is entered) and SQLAlchemyError if the index is away.
    """
    entries = [_Entry(received, required_uids(received.attributes)) for received in batch]
    for attempt in range(1, RACES + 1):
        try:
            with database.session() as session:
                return _register(
                    session, entries, quiet, now or dt.datetime.now(dt.UTC), presence, duplicates, maximum_revisions
                )
        except (LostRace, IntegrityError, OperationalError) as error:
            if attempt == RACES or not _is_race(error):
                raise
    raise AssertionError("unreachable")


def register(
    session: Session,
    received: Received,
    quiet: dt.timedelta,
    now: dt.datetime | None = None,
    duplicates: Duplicates = "keep-first",
) -> Outcome:
    """Enter one object in the caller's transaction, which the caller tries again after LostRace or IntegrityError.

    Raises UnindexableDataSet.
    """
    entries = [_Entry(received, required_uids(received.attributes))]
    return _register(session, entries, quiet, now or dt.datetime.now(dt.UTC), None, duplicates, None)[0]


@dataclass(frozen=True, eq=False)
class _Entry:
    received: Received
    uids: RequiredUids

    @property
    def series_key(self) -> tuple[str, str]:
        return self.uids.study_instance_uid, self.uids.series_instance_uid

    @functools.cached_property
    def belonging(self) -> Belonging:
        return Belonging.of(self.received.attributes, *self.series_key)


@dataclass(frozen=True)
class _Revision:
    """What is kept already under a SOP Instance UID; instance_pk is None for one of the same batch."""

    revision: int
    sha256: str
    transfer_syntax_uid: str
    series_key: tuple[str, str]
    state: InstanceState
    copies: NamedCopies
    instance_pk: int | None
    is_committed: bool = False  # storage commitment was given for it: it stays what is served

    def holds(self, received: Received) -> bool:
        return self.sha256 == received.sha256 and self.transfer_syntax_uid == received.transfer_syntax_uid

    def is_row_of(self, received: Received) -> bool:
        """Tell whether it was entered from this very file, by an attempt whose success was not confirmed."""
        return received.spool_name is not None and self.copies.spool_name == received.spool_name

    def is_sound(self, presence: Presence | None) -> bool:
        if self.state is InstanceState.QUARANTINED or not self.copies:
            return False
        return presence is None or presence.any_lies_there(self.copies)

    def may_be_away(self, presence: Presence | None) -> bool:
        return (
            self.state is not InstanceState.QUARANTINED and presence is not None and presence.may_be_away(self.copies)
        )


@dataclass(frozen=True, eq=False)
class _New:
    """An object to be entered. again: the original that was retired, where it is that one that has come again."""

    entry: _Entry
    revision: int
    is_served: bool
    again: Retired | None

    @property
    def sop_instance_uid(self) -> str:
        return self.entry.received.sop_instance_uid


def _register(
    session: Session,
    entries: Sequence[_Entry],
    quiet: dt.timedelta,
    now: dt.datetime,
    presence: Presence | None,
    duplicates: Duplicates,
    maximum_revisions: int | None,
) -> list[Outcome]:
    known = _known_revisions(session, [entry.received.sop_instance_uid for entry in entries])
    gone = returned.retired_originals(session, _uids_of_new(entries, known))
    outcomes: list[Outcome] = []
    new: list[_New] = []
    healing: list[tuple[_Entry, _Revision]] = []
    for entry in entries:
        received = entry.received
        revisions = known.setdefault(received.sop_instance_uid, [])
        same = next((revision for revision in revisions if revision.holds(received)), None)
        if same is not None and same.is_row_of(received):
            outcomes.append(Outcome.STORED)
        elif same is not None and same.is_sound(presence):
            outcomes.append(Outcome.IDENTICAL)
        elif same is not None:
            healing.append((entry, same))
            revisions[revisions.index(same)] = _kept(entry, same.revision)
            outcomes.append(Outcome.STORED)
        else:
            originals = gone.get(received.sop_instance_uid, [])
            again = next((original for original in originals if original.sha256 == received.sha256), None)
            is_other = again is None and bool(revisions or originals)
            number = max((revision.revision for revision in revisions), default=int(is_other)) + 1
            committed = any(revision.is_committed for revision in revisions)
            policy: Duplicates = "keep-first" if committed and duplicates == "version" else duplicates
            is_surplus = maximum_revisions is not None and len(revisions) >= maximum_revisions
            if is_other:
                series_keys = {one.series_key for one in revisions} | {one.series_key for one in originals}
                _record_conflict(session, entry, series_keys, number, "reject" if is_surplus else policy, now)
            if is_other and (is_surplus or policy == "reject"):
                outcomes.append(Outcome.REJECTED if policy == "reject" else Outcome.SURPLUS)
                continue
            revisions.append(_kept(entry, number))
            is_served = not committed and (not is_other or policy == "version")
            new.append(_New(entry, number, is_served, again))
            outcomes.append(Outcome.CONFLICT if is_other else Outcome.STORED)
    placed = [*(one.entry for one in new), *(entry for entry, _ in healing)]
    first: dict[Belonging, Dataset] = {}
    for entry in placed:
        first.setdefault(entry.belonging, entry.received.attributes)
    found = find_or_make(session, first)
    homes = found.homes
    for entry, damaged in healing:
        if damaged.may_be_away(presence):
            _keep_beside(session, damaged, entry.received)
        else:
            _heal(session, damaged, entry.received, homes[entry.belonging])
    _insert(session, new, homes)
    _let_derived_give_way(session, new, gone, now)
    if found.new_study_patients:
        _note_patients(session, placed, found, now)
    # Last, because the rows of the jobs stay locked until the commit.
    jobs.request_compression(session, {home.series_pk for home in homes.values()}, now + quiet, now)
    return outcomes


def _note_patients(session: Session, entries: Sequence[_Entry], found: FoundHomes, now: dt.datetime) -> None:
    """Note where what is said of a patient does not agree with what was known."""
    first = {entry.belonging: entry.received for entry in reversed(entries)}
    for belonging, received in first.items():
        study_patient_pk = found.homes[belonging].study_patient_pk
        if study_patient_pk in found.new_study_patients:
            patients.note(session, study_patient_pk, received.sop_instance_uid, received.sender_ae_title, now)


def _insert(session: Session, new: Sequence[_New], homes: dict[Belonging, Home]) -> None:
    """Insert the rows of new objects: each the first under its UID, or a further revision."""
    served = {one.sop_instance_uid: one.revision for one in new if one.is_served}
    superseded = [uid for uid, revision in served.items() if revision > 1]
    if superseded:
        statement = update(Instance).where(Instance.sop_instance_uid.in_(superseded), Instance.current.is_(True))
        session.execute(statement.values(current=False).execution_options(synchronize_session=False))
    rows = [
        _row_in(homes[one.entry.belonging], one) | {"current": served.get(one.sop_instance_uid) == one.revision}
        for one in new
    ]
    if rows:
        session.connection().execute(insert_into(session, Instance), rows)
    for one in new:
        if one.revision > 1 and served.get(one.sop_instance_uid) == one.revision:
            describe_anew(session, homes[one.entry.belonging], one.entry.received.attributes)


def _row_in(home: Home, one: _New) -> Row:
    return received_row(one.entry.received, one.revision, home.series_pk, home.study_patient_pk)


def _let_derived_give_way(
    session: Session, new: Sequence[_New], gone: dict[str, list[Retired]], now: dt.datetime
) -> None:
    """Serve objects that came under the UIDs of originals that are gone in the place of what was derived from these."""
    served = {one.sop_instance_uid for one in new if one.is_served}
    if replaced := [original for uid in served for original in gone.get(uid, ())]:
        returned.serve_no_longer(session, replaced)
    for one in new:
        if one.again is not None:
            returned.note_return(session, one.again, now)


def _uids_of_new(entries: Sequence[_Entry], known: dict[str, list[_Revision]]) -> set[str]:
    """Return the UIDs of objects that are not kept yet with just that content."""
    received = [entry.received for entry in entries]
    return {
        one.sop_instance_uid
        for one in received
        if not any(revision.holds(one) for revision in known.get(one.sop_instance_uid, ()))
    }


def _kept(entry: _Entry, revision: int) -> _Revision:
    """Describe an object of this batch as those after it will find it."""
    received = entry.received
    return _Revision(
        revision,
        received.sha256,
        received.transfer_syntax_uid,
        entry.series_key,
        InstanceState.RECEIVED,
        NamedCopies(received.spool_name, received.dataset_offset + received.dataset_bytes, None, None),
        instance_pk=None,
    )


def _known_revisions(session: Session, sop_instance_uids: Collection[str]) -> dict[str, list[_Revision]]:
    """Look up what is kept under these UIDs, oldest revision first."""
    known: dict[str, list[_Revision]] = {}
    for row in session.connection().execute(_KEPT_UNDER, {"uids": list(set(sop_instance_uids))}):
        revision = _Revision(
            row.revision,
            row.sha256,
            row.transfer_syntax_uid,
            (row.study_instance_uid, row.series_instance_uid),
            row.state,
            NamedCopies(row.spool_name, row.spool_bytes, row.key, row.size_bytes),
            row.id,
            is_committed=row.committed_at is not None,
        )
        known.setdefault(row.sop_instance_uid, []).append(revision)
    return known


def _keep_beside(session: Session, known: _Revision, received: Received) -> None:
    """Keep the copy that has just arrived beside one that cannot be looked at while the archive is away."""
    statement = update(Instance).where(Instance.id == known.instance_pk, Instance.state == known.state)
    kept = {"spool_name": received.spool_name, "dataset_offset": received.dataset_offset}
    session.execute(statement.values(**kept).execution_options(synchronize_session=False))


def _heal(session: Session, damaged: _Revision, received: Received, home: Home) -> None:
    """Put the copy that has just arrived in the place of bytes that were damaged or lost.

    What the row says of the object is renewed too: it may have been read out of the damaged bytes.
    """
    assert damaged.instance_pk is not None
    fresh = {
        **instance_row(received.attributes),
        "series_pk": home.series_pk,
        "study_patient_pk": home.study_patient_pk,
        "dataset_bytes": received.dataset_bytes,
        "spool_name": received.spool_name,
        "dataset_offset": received.dataset_offset,
        "container_pk": None,
        "container_entry": None,
        "stored_bytes": None,
        "received_at": received.received_at,
        "last_read_at": received.received_at,
        "sender_ae_title": received.sender_ae_title,
        "sender_address": received.sender_address,
    }
    if damaged.state is not InstanceState.QUARANTINED:  # lost, by whatever accident: that is damage too
        move_instances(session, [damaged.instance_pk], damaged.state, InstanceState.QUARANTINED)
        detail = "The index named a copy that is not where it should lie."
        audit.record(session, "copy_lost", received.sop_instance_uid, detail=detail)
    if not move_instances(session, [damaged.instance_pk], InstanceState.QUARANTINED, InstanceState.RECEIVED, **fresh):
        raise LostRace(f"Another copy of {received.sop_instance_uid} has just healed it.")
    audit.record(session, "healed", received.sop_instance_uid, received.sender_ae_title, "An identical copy arrived.")


def _record_conflict(
    session: Session,
    entry: _Entry,
    series_keys: Collection[tuple[str, str]],
    revision: int,
    duplicates: Duplicates,
    now: dt.datetime,
) -> None:
    """Note that other content came. series_keys: of what came under its UID before. revision: that it becomes."""
    received = entry.received
    if entry.series_key in series_keys:
        kind, difference = CONTENT_CONFLICT, "other content"
    else:
        kind, difference = RELATIONAL_MISMATCH, "another study or series"
    kept_as = f"Kept as revision {revision}"
    fate = {
        "keep-first": f"{kept_as}, not served",
        "version": f"{kept_as}, which is served from now on",
        "reject": "Rejected",
    }
    detail = f"{fate[duplicates]}: it has {difference}."
    audit.record(session, kind, received.sop_instance_uid, received.sender_ae_title, detail, now)


def received_row(received: Received, revision: int, series_pk: int, study_patient_pk: int | None) -> Row:
    """Return the row of an object, all but whether it is served, and where it lies in a container."""
    return {
        "series_pk": series_pk,
        "study_patient_pk": study_patient_pk,
        "sop_instance_uid": received.sop_instance_uid,
        "revision": revision,
        "sop_class_uid": received.sop_class_uid,
        "transfer_syntax_uid": received.transfer_syntax_uid,
        **instance_row(received.attributes),
        "state": InstanceState.RECEIVED,
        "sha256": received.sha256,
        "dataset_bytes": received.dataset_bytes,
        "dataset_offset": received.dataset_offset,
        "sender_ae_title": received.sender_ae_title,
        "sender_address": received.sender_address,
        "received_at": received.received_at,
        "last_read_at": received.received_at,
        "spool_name": received.spool_name,
    }


def _is_race(error: LostRace | IntegrityError | OperationalError) -> bool:
    """Tell whether another process was quicker (unique key taken, deadlock), so that trying again helps."""
    return not isinstance(error, OperationalError) or getattr(error.orig, "sqlstate", None) in ("40001", "40P01")
