"""What lossy rules ask for and what came of it: images that are due, the map to derived objects, originals that may go.

An original is served until it is retired; then the object derived from it is.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import and_, delete, insert, or_, select, update
from sqlalchemy.orm import Session, aliased

from thinfilm_gateway.archive.container.format import DerivationNote
from thinfilm_gateway.index import audit
from thinfilm_gateway.index.ingest import Received, received_row
from thinfilm_gateway.index.jobs import RECOMPRESS, RETIRE
from thinfilm_gateway.index.models import Container, Derivation, Instance, Job, Series, tells_of
from thinfilm_gateway.index.sql import insert_into, insert_missing_into, one_of
from thinfilm_gateway.index.states import InstanceState, JobState
from thinfilm_gateway.policy.ceilings import Ceiling
from thinfilm_gateway.policy.rules import LossyRule, matching_rule

_OPEN_OR_FAILED = (JobState.WAITING, JobState.RUNNING, JobState.FAILED)


@dataclass(frozen=True)
class Archived:
    """An instance in a container."""

    instance_pk: int
    sop_instance_uid: str
    sha256: str
    dataset_bytes: int
    container_key: str
    entry: int


@dataclass(frozen=True)
class Measured:
    """How an image is kept lossily; see Derivation. guarded: JSON. None is what nobody knows any more."""

    codec: str
    setting: str
    ratio_allocated: float
    ratio_stored: float | None = None
    max_error: int | None = None
    rmse: float | None = None
    guarded: str | None = None


@dataclass(frozen=True, eq=False)
class Derived:
    """A derived object as it lies in its container."""

    received: Received
    entry: int
    stored_bytes: int
    measured: Measured


@dataclass(frozen=True)
class StoredContainer:
    """A container in the store. codecs: of its frames. shares: the bytes that each entry accounts for."""

    key: str
    size_bytes: int
    codecs: tuple[str, ...]
    shares: tuple[int, ...]


@dataclass(frozen=True)
class Decided:
    """What is decided of an original: the object derived from it, or that it stays lossless, for this reason.

    ceiling: that it was kept below, None where it has none.
    """

    original: Archived
    derived: Derived | None
    ceiling: Ceiling | None
    reason: str


@dataclass(frozen=True)
class Retiring:
    """An original that may go, and the object derived from it, as it lies in its container."""

    derivation_pk: int
    original_pk: int
    original_uid: str
    original_spool_name: str | None
    derived: Archived


def rule_of(session: Session, rules: Sequence[LossyRule], series_pk: int) -> LossyRule | None:
    """Return the rule for the images of a series; None if there is none."""
    row = session.execute(select(Series.modality, Series.body_part_examined).where(Series.id == series_pk)).one()
    return matching_rule(rules, row.modality, row.body_part_examined.upper())


def series_due(session: Session, rules: Sequence[LossyRule], now: dt.datetime) -> set[int]:
    """Return the series with images that a rule is due for and that have no open or failed job of it.

    Looks at every instance of the modalities that the rules name: seldom, not at every sweep.
    """
    due: set[int] = set()
    for rule in rules:
        statement = (
            select(Series.id)
            .distinct()
            .join(Instance, Instance.series_pk == Series.id)
            .where(Series.modality == rule.modality, *_due(rule, now), ~_has_job(RECOMPRESS, Series.id))
        )
        due.update(pk for pk in session.scalars(statement) if rule_of(session, rules, pk) is rule)
    return due


def originals_due(session: Session, series_pk: int, rule: LossyRule, now: dt.datetime) -> list[Archived]:
    """Return the images of a series that its rule is due for, by container and place in it."""
    return _archived(session, and_(Instance.series_pk == series_pk, *_due(rule, now)))


def record(
    session: Session,
    series_pk: int,
    rule: LossyRule,
    decisions: Sequence[Decided],
    stored: StoredContainer | None,
    now: dt.datetime,
) -> bool:
    """Enter decisions, and the objects that were derived, in their proven container.

    An original stays lossless where another object has the derived UID already. Tells whether the container is needed:
    an original that is gone, or of which something was decided meanwhile, is passed over, and a derived object that is
    kept already needs no other home.
    """
    pks = [decided.original.instance_pk for decided in decisions]
    originals = (
        select(Instance.id, Instance.study_patient_pk)
        .where(Instance.id.in_(pks), Instance.state == InstanceState.ARCHIVED, ~_is_decided())
        .with_for_update()
    )
    still: dict[int, int | None] = {row.id: row.study_patient_pk for row in session.execute(originals)}
    decisions = [decided for decided in decisions if decided.original.instance_pk in still]
    kept = _kept(session, [decided.derived.received.sop_instance_uid for decided in decisions if decided.derived])
    decisions = [_unless_another_has_its_uid(decided, kept) for decided in decisions]
    rows = [
        received_row(decided.derived.received, 1, series_pk, still[decided.original.instance_pk])
        | {
            "current": False,
            "state": InstanceState.ARCHIVED,
            "container_entry": decided.derived.entry,
            "stored_bytes": decided.derived.stored_bytes,
        }
        for decided in decisions
        if decided.derived and decided.derived.received.sop_instance_uid not in kept
    ]
    if rows and stored is not None:
        entered = insert(Container).values(
            key=stored.key,
            size_bytes=stored.size_bytes,
            codecs=",".join(stored.codecs),
            created_at=now,
            verified_at=now,
        )
        container_pk = session.execute(entered.returning(Container.id)).scalar_one()
        session.connection().execute(
            insert_into(session, Instance), [row | {"container_pk": container_pk} for row in rows]
        )
    for decided in decisions:
        _decide(session, series_pk, rule, decided, now)
    return bool(rows)


def series_to_retire(session: Session, rules: Sequence[LossyRule], now: dt.datetime) -> set[int]:
    """Return the series with originals that may go and that have no open or failed job of it."""
    statement = select(Derivation.series_pk).distinct().where(*_retirable(now), ~_has_job(RETIRE, Derivation.series_pk))
    found = session.scalars(statement).all()
    rule_for = {pk: rule_of(session, rules, pk) for pk in found}
    return {pk for pk, rule in rule_for.items() if rule and originals_to_retire(session, pk, rule, now)}


def originals_to_retire(session: Session, series_pk: int, rule: LossyRule, now: dt.datetime) -> list[Retiring]:
    """Return the originals of a series that may go by now.

    rule: the present one for the series; it may keep them longer than that by which was decided, never shorter.
    One for which storage commitment was given may only where the rule declares for how long originals are kept.
    """
    original, derived = aliased(Instance), aliased(Instance)
    statement: Any = (
        select(
            Derivation.id,
            original.id,
            original.sop_instance_uid,
            original.spool_name,
            derived.id,
            derived.sop_instance_uid,
            derived.sha256,
            derived.dataset_bytes,
            Container.key,
            derived.container_entry,
        )
        .join(
            original,
            and_(
                tells_of(original),
                original.state == InstanceState.ARCHIVED,
                original.current,
            ),
        )
        .join(
            derived,
            and_(
                derived.sop_instance_uid == Derivation.derived_sop_instance_uid,
                derived.sha256 == Derivation.derived_sha256,
                derived.state == InstanceState.ARCHIVED,
                derived.revision == 1,
            ),
        )
        .join(Container, Container.id == derived.container_pk)
        .where(
            Derivation.series_pk == series_pk,
            Derivation.decided_at <= now - dt.timedelta(days=rule.keep_original_days),
            *_retirable(now),
            ~_is_another_served(derived),
        )
        .order_by(derived.container_pk, derived.container_entry)
    )
    if not rule.declared_retention:
        statement = statement.where(original.committed_at.is_(None))
    return [
        Retiring(pk, original_pk, uid, spool_name, Archived(*found))
        for pk, original_pk, uid, spool_name, *found in session.execute(statement)
    ]


def retire(
    session: Session, retiring: Sequence[Retiring], declared_retention: bool, now: dt.datetime
) -> list[Retiring]:
    """Serve the derived objects, which were proven, in the place of the originals, whose rows go; return which.

    An original that was committed meanwhile is passed over, and so is a derived object that was lost or is not the one
    that would be served, because another has its UID.
    """
    gone = []
    for one in retiring:
        is_derived = and_(
            Instance.id == one.derived.instance_pk,
            Instance.sha256 == one.derived.sha256,
            ~_is_another_served(Instance),
        )
        locked = select(Instance.id, Instance.state, Instance.committed_at, Instance.dataset_bytes)
        locked = locked.where(or_(Instance.id == one.original_pk, is_derived))
        rows = {row.id: row for row in session.execute(locked.order_by(Instance.id).with_for_update())}
        if len(rows) < 2 or any(row.state is not InstanceState.ARCHIVED for row in rows.values()):
            continue
        if rows[one.original_pk].committed_at is not None and not declared_retention:
            continue
        session.execute(_quietly(delete(Instance).where(Instance.id == one.original_pk)))
        session.execute(_quietly(update(Instance).where(Instance.id == one.derived.instance_pk).values(current=True)))
        noted = {"retired_at": now, "original_bytes": rows[one.original_pk].dataset_bytes}
        session.execute(_quietly(update(Derivation).where(Derivation.id == one.derivation_pk).values(noted)))
        detail = f"The original went; {one.derived.sop_instance_uid} is served in its place."
        audit.record(session, "original_retired", one.original_uid, detail=detail, now=now)
        gone.append(one)
    return gone


def retired_for(session: Session, original_uid: str, original_sha256: str) -> tuple[str, str] | None:
    """Return UID and SHA-256 of what is served in the place of an original that is gone; None if it is not gone."""
    statement: Any = select(Derivation.derived_sop_instance_uid, Derivation.derived_sha256).where(
        Derivation.original_sop_instance_uid == original_uid,
        Derivation.original_sha256 == original_sha256,
        Derivation.retired_at.is_not(None),
        Derivation.derived_sha256.is_not(None),
    )
    row = session.execute(statement).first()
    return None if row is None else (row[0], row[1])


def rebuild(
    session: Session, derived: Received, note: DerivationNote, rules: Sequence[LossyRule], newest_counts: bool
) -> None:
    """Enter an object that was derived here, and is in the index already, into the map, by what its container notes.

    Where its original is kept too, that is served. What the guard said then is not known any more.
    newest_counts: other content that came later under the UID of the original is served, not kept beside.
    """
    first = select(Instance.series_pk, Instance.sha256)
    first = first.where(Instance.sop_instance_uid == derived.sop_instance_uid, Instance.revision == 1)
    series_pk, sha256 = session.execute(first).one()
    if sha256 != derived.sha256:  # as in `record`
        return
    is_kept = _serve_one(session, derived, note, newest_counts)
    rule = rule_of(session, rules, series_pk)
    keep = dt.timedelta(days=rule.keep_original_days) if rule else None
    values = {
        "series_pk": series_pk,
        "original_sop_instance_uid": note.original_sop_instance_uid,
        "original_sha256": note.original_sha256,
        "derived_sop_instance_uid": derived.sop_instance_uid,
        "derived_sha256": derived.sha256,
        **vars(Measured(note.codec_id, note.setting, note.ratio)),
        "profile": note.profile,
        "ceiling": note.ceiling,
        "citation": note.citation,
        "error_bound": note.error_bound,
        "reason": "Entered anew from the derived object.",
        "serve": rule.serve if rule else "derived",
        "decided_at": derived.received_at,
        "retire_at": derived.received_at + keep if keep is not None else None,
        "retired_at": None if is_kept else derived.received_at,
    }
    session.execute(insert_missing_into(session, Derivation).values(values))


def _serve_one(session: Session, derived: Received, note: DerivationNote, newest_counts: bool) -> bool:
    """Serve either a derived object or one under the UID of its original; tell whether that itself is kept."""
    is_under_uid = Instance.sop_instance_uid == note.original_sop_instance_uid
    is_original = and_(Instance.sha256 == note.original_sha256, Instance.state != InstanceState.QUARANTINED)
    under_uid = session.execute(select(is_original, Instance.received_at).where(is_under_uid)).all()
    is_kept = any(row[0] for row in under_uid)
    is_replaced = is_kept or (newest_counts and any(row.received_at > derived.received_at for row in under_uid))
    if not (newest_counts and is_replaced):
        session.execute(_quietly(update(Instance).where(is_under_uid).values(current=is_original)))
    if is_replaced:
        is_derived = Instance.sop_instance_uid == derived.sop_instance_uid, Instance.sha256 == derived.sha256
        session.execute(_quietly(update(Instance).where(*is_derived).values(current=False)))
    return is_kept


def _kept(session: Session, uids: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return SHA-256 and transfer syntax of what is kept first under each of these UIDs."""
    statement: Any = select(Instance.sop_instance_uid, Instance.sha256, Instance.transfer_syntax_uid)
    statement = statement.where(one_of(session, Instance.sop_instance_uid, uids), Instance.revision == 1)
    return {uid: (sha256, syntax) for uid, sha256, syntax in session.execute(statement)}


def _unless_another_has_its_uid(decided: Decided, kept: dict[str, tuple[str, str]]) -> Decided:
    """Return the decision to stay lossless where the derived UID is that of other content: anybody may send such."""
    if decided.derived is None:
        return decided
    received = decided.derived.received
    content = received.sha256, received.transfer_syntax_uid
    if kept.get(received.sop_instance_uid, content) == content:
        return decided
    return replace(decided, derived=None, reason=f"Another object has the derived UID, {received.sop_instance_uid}.")


def _is_another_served(derived: type[Instance]) -> Any:
    """Return the condition that a request for the UID of a derived object gets another revision."""
    other = aliased(Instance)
    found = select(other.id).where(
        other.sop_instance_uid == derived.sop_instance_uid, other.current, other.id != derived.id
    )
    return found.exists()


def _decide(session: Session, series_pk: int, rule: LossyRule, decided: Decided, now: dt.datetime) -> None:
    original, derived = decided.original, decided.derived
    values: dict[str, Any] = {
        "series_pk": series_pk,
        "original_sop_instance_uid": original.sop_instance_uid,
        "original_sha256": original.sha256,
        "profile": rule.profile,
        "ceiling": decided.ceiling and decided.ceiling.ratio,
        "citation": decided.ceiling and decided.ceiling.citation,
        "error_bound": rule.max_error,
        "reason": decided.reason,
        "serve": rule.serve,
        "decided_at": now,
    }
    detail = f"Kept lossless: {decided.reason}"
    if derived is not None:
        uid = derived.received.sop_instance_uid
        retire_at = now + dt.timedelta(days=rule.keep_original_days)
        values |= {
            "derived_sop_instance_uid": uid,
            "derived_sha256": derived.received.sha256,
            "retire_at": retire_at,
            **vars(derived.measured),
        }
        detail = f"Kept lossily by {derived.measured.codec}, {derived.measured.setting}, as {uid}: {decided.reason}"
    session.execute(insert(Derivation).values(values))
    kind = "kept_lossless" if derived is None else "kept_lossily"
    detail = f"{detail} {_allowed(rule, decided.ceiling)}"
    audit.record(session, kind, original.sop_instance_uid, detail=detail, now=now)


def _allowed(rule: LossyRule, ceiling: Ceiling | None) -> str:
    """Return the sentence on what was allowed, and by whom."""
    below = "no ceiling" if ceiling is None else f"ceiling {ceiling.ratio:g} ({ceiling.citation})"
    bound = "no bound on errors" if rule.max_error is None else f"no error above {rule.max_error}"
    return f"Profile {rule.profile}, {below}, {bound}."


def _due(rule: LossyRule, now: dt.datetime) -> list[Any]:
    """Return the conditions that an image is to be kept lossily by a rule by now."""
    conditions = [
        Instance.state == InstanceState.ARCHIVED,
        Instance.current,
        Instance.received_at <= now - dt.timedelta(days=rule.delay_days),
        ~_is_decided(),
        ~select(Derivation.id).where(Derivation.derived_sop_instance_uid == Instance.sop_instance_uid).exists(),
    ]
    if not rule.declared_retention:
        conditions.append(Instance.committed_at.is_(None))
    return conditions


def _is_decided() -> Any:
    return select(Derivation.id).where(tells_of(Instance)).exists()


def _retirable(now: dt.datetime) -> list[Any]:
    return [
        Derivation.derived_sop_instance_uid.is_not(None),
        Derivation.retire_at <= now,
        Derivation.retired_at.is_(None),
    ]


def _has_job(kind: str, series_pk: Any) -> Any:
    return select(Job.id).where(Job.series_pk == series_pk, Job.kind == kind, Job.state.in_(_OPEN_OR_FAILED)).exists()


def _archived(session: Session, condition: Any) -> list[Archived]:
    statement: Any = (
        select(
            Instance.id,
            Instance.sop_instance_uid,
            Instance.sha256,
            Instance.dataset_bytes,
            Container.key,
            Instance.container_entry,
        )
        .join(Container, Container.id == Instance.container_pk)
        .where(condition)
        .order_by(Instance.container_pk, Instance.container_entry)
    )
    return [Archived(*row) for row in session.execute(statement)]


def _quietly(statement: Any) -> Any:
    return statement.execution_options(synchronize_session=False)
