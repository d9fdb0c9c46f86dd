"""Requests for storage commitment: what was asked, what came of it, and who is to be told (PS3.4 Annex J).

Whoever works on one holds it for some time, and names the end of that time when it writes: who is late changes nothing.
"""

import base64
import datetime as dt
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from thinfilm_gateway.index import audit
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.jobs import backoff
from thinfilm_gateway.index.models import Commitment, Instance
from thinfilm_gateway.index.sql import one_of
from thinfilm_gateway.index.states import CommitmentState
from thinfilm_gateway.index.transitions import move_commitment

REPORT_FOR = dt.timedelta(days=3)  # how long a report is tried: over a weekend
KEPT_FOR = dt.timedelta(days=90)  # how long a Transaction UID is remembered

WAITING_BYTES_OF_A_PEER = 32 * 1024**2  # of what one AE title asked, packed, that is not reported yet
WAITING_BYTES = 256 * 1024**2  # of all

_COMMITTED = 0
_PACKED = "z"  # before a packed list; without it, as JSON, which begins otherwise
_RACES = 20
_OPEN = (CommitmentState.REQUESTED, CommitmentState.EXAMINED)


class TooMuchWaits(Exception):
    """Requests that are not reported yet take all the room that there is for them; the message is one sentence."""


class Reference(NamedTuple):
    """An instance for which storage commitment was asked."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class HeldCommitment:
    """A storage commitment that its holder may work on until `held_until`.

    is_repeated: the Transaction UID was in use already. failure_reasons: of each reference, None where it was
    committed; empty until it has been examined. attempts: this one counted.
    """

    pk: int
    transaction_uid: str
    is_repeated: bool
    ae_title: str
    references: tuple[Reference, ...]
    failure_reasons: tuple[int | None, ...]
    state: CommitmentState
    attempts: int
    requested_at: dt.datetime
    held_until: dt.datetime


def request(
    database: Database,
    transaction_uid: str,
    ae_title: str,
    references: Sequence[Reference],
    hold: dt.timedelta,
    now: dt.datetime | None = None,
) -> HeldCommitment:
    """Enter a request, durable on return, and hold it.

    Raises TooMuchWaits, SQLAlchemyError if the index is away.
    """
    now = now or _now()
    referenced = _packed(references)  # here, where no lock is held meanwhile
    for race in range(1, _RACES + 1):
        try:
            with database.session() as session:
                return _enter(session, transaction_uid, ae_title, referenced, now + hold, now)
        except IntegrityError:  # another process has just entered this Transaction UID
            if race == _RACES:
                raise
    raise AssertionError("unreachable")


def claim_due(database: Database, hold: dt.timedelta, now: dt.datetime | None = None) -> HeldCommitment | None:
    """Take the storage commitment that has been due the longest, if any, and hold it; this counts as an attempt."""
    now = now or _now()
    due = select(Commitment).where(Commitment.state.in_(_OPEN), Commitment.not_before <= now)
    with database.reading() as session:  # mostly there is none, and the write lock of SQLite is not asked for
        row = session.scalars(due.order_by(Commitment.not_before).limit(1)).first()
    if row is None:
        return None
    held_until = now + hold
    with database.session() as session:
        statement = update(Commitment).where(Commitment.id == row.id, Commitment.not_before == row.not_before)
        statement = statement.where(Commitment.state == row.state)
        taken: Any = session.execute(statement.values(not_before=held_until, attempts=row.attempts + 1))
    return _held(row, row.attempts + 1, held_until) if taken.rowcount == 1 else None


def hold_on(
    session: Session, held: HeldCommitment, hold: dt.timedelta, now: dt.datetime | None = None
) -> HeldCommitment | None:
    """Hold a storage commitment for longer; None if it is somebody else's by now."""
    return _until(session, held, (now or _now()) + hold)


def record_outcome(
    session: Session, held: HeldCommitment, failure_reasons: Sequence[int | None], now: dt.datetime | None = None
) -> HeldCommitment | None:
    """Note what an examination found, and that what it committed is committed; None if it is somebody else's by now.

    failure_reasons: of each reference (PS3.3 C.14.1.1), None where it is committed.
    """
    now = now or _now()
    as_text = _packed([reason or _COMMITTED for reason in failure_reasons])
    examined = CommitmentState.EXAMINED
    if not move_commitment(session, held.pk, held.state, examined, held.held_until, failure_reasons=as_text):
        return None
    outcomes = list(zip(held.references, failure_reasons, strict=True))
    committed = [reference.sop_instance_uid for reference, reason in outcomes if reason is None]
    if committed:
        statement = update(Instance).where(
            one_of(session, Instance.sop_instance_uid, committed), Instance.committed_at.is_(None)
        )
        session.execute(statement.values(committed_at=now).execution_options(synchronize_session=False))
    detail = f"{len(committed)} of {len(outcomes)} instances committed in transaction {held.transaction_uid}."
    audit.record(session, "storage_commitment", peer=held.ae_title, detail=detail, now=now)
    return replace(held, failure_reasons=tuple(failure_reasons), state=examined)


def record_report(session: Session, held: HeldCommitment, now: dt.datetime | None = None) -> bool:
    """Note that the peer has taken the report; False if it is somebody else's by now.

    What was asked is not needed any more; the Transaction UID is remembered.
    """
    done = {"finished_at": now or _now(), "error": None, "referenced": _packed([]), "failure_reasons": None}
    return move_commitment(session, held.pk, held.state, CommitmentState.REPORTED, held.held_until, **done)


def put_off(session: Session, held: HeldCommitment, error: str, now: dt.datetime | None = None) -> CommitmentState:
    """Note that the attempt failed, and let the next one wait, longer each time; return the state.

    That is FAILED once the peer has had REPORT_FOR to take the report.
    """
    now = now or _now()
    if now - held.requested_at > REPORT_FOR:
        ended = {"finished_at": now, "error": error}
        move_commitment(session, held.pk, held.state, CommitmentState.FAILED, held.held_until, **ended)
        return CommitmentState.FAILED
    _until(session, held, now + backoff(held.attempts), error=error)
    return held.state


def release(session: Session, held: HeldCommitment, now: dt.datetime | None = None) -> None:
    """Hold a storage commitment no longer; it is due at once."""
    _until(session, held, now or _now())


def retry_failed(session: Session, now: dt.datetime | None = None) -> int:
    """Let the reports that were given up be tried again, after a new examination; return how many."""
    now = now or _now()
    rows = session.execute(
        select(Commitment.id, Commitment.not_before).where(Commitment.state == CommitmentState.FAILED)
    ).all()
    again = {"not_before": now, "requested_at": now, "attempts": 0, "finished_at": None, "failure_reasons": None}
    for row in rows:
        move_commitment(session, row.id, CommitmentState.FAILED, CommitmentState.REQUESTED, row.not_before, **again)
    return len(rows)


def forget(session: Session, finished_before: dt.datetime) -> int:
    """Remove the storage commitments that were finished before then; what they committed stays committed."""
    statement = delete(Commitment).where(Commitment.finished_at < finished_before)
    removed: Any = session.execute(statement.execution_options(synchronize_session=False))
    return int(removed.rowcount)


def presume_all(session: Session, now: dt.datetime | None = None) -> None:
    """Count every instance as committed: after a rebuild nobody knows for which of them it was promised."""
    session.execute(update(Instance).values(committed_at=now or _now()).execution_options(synchronize_session=False))


def _enter(
    session: Session,
    transaction_uid: str,
    ae_title: str,
    referenced: str,
    held_until: dt.datetime,
    now: dt.datetime,
) -> HeldCommitment:
    _make_sure_of_room(session, ae_title, len(referenced))
    known = select(func.max(Commitment.repetition)).where(Commitment.transaction_uid == transaction_uid)
    row = Commitment(
        transaction_uid=transaction_uid,
        repetition=(session.scalar(known) or 0) + 1,
        ae_title=ae_title,
        referenced=referenced,
        failure_reasons=None,
        state=CommitmentState.REQUESTED,
        not_before=held_until,
        attempts=1,
        requested_at=now,
    )
    session.add(row)
    session.flush()
    return _held(row, row.attempts, row.not_before)


def _held(row: Commitment, attempts: int, held_until: dt.datetime) -> HeldCommitment:
    reasons = _unpacked(row.failure_reasons) if row.failure_reasons else ()
    return HeldCommitment(
        pk=row.id,
        transaction_uid=row.transaction_uid,
        is_repeated=row.repetition > 1,
        ae_title=row.ae_title,
        references=tuple(Reference(*reference) for reference in _unpacked(row.referenced)),
        failure_reasons=tuple(reason or None for reason in reasons),
        state=row.state,
        attempts=attempts,
        requested_at=row.requested_at,
        held_until=held_until,
    )


def _make_sure_of_room(session: Session, ae_title: str, more: int) -> None:
    """Look whether so many bytes more may wait, of this peer and of all. Raises TooMuchWaits."""
    waiting = select(func.coalesce(func.sum(func.length(Commitment.referenced)), 0)).where(
        Commitment.state.in_((*_OPEN, CommitmentState.FAILED))
    )
    if int(session.scalar(waiting.where(Commitment.ae_title == ae_title)) or 0) + more > WAITING_BYTES_OF_A_PEER:
        raise TooMuchWaits(f"{ae_title} has not taken the reports of too many requests.")
    if int(session.scalar(waiting) or 0) + more > WAITING_BYTES:
        raise TooMuchWaits("Too many requests wait for their reports to be taken.")


def _packed(values: Sequence[Any]) -> str:
    """Return a list as text that is short: UIDs have much in common."""
    return _PACKED + base64.b64encode(zlib.compress(json.dumps(values).encode("ascii"))).decode("ascii")


def _unpacked(text: str) -> list[Any]:
    if text.startswith(_PACKED):
        text = zlib.decompress(base64.b64decode(text[len(_PACKED) :])).decode("ascii")
    values: list[Any] = json.loads(text)
    return values


def _until(session: Session, held: HeldCommitment, until: dt.datetime, **values: Any) -> HeldCommitment | None:
    statement = update(Commitment).where(
        Commitment.id == held.pk, Commitment.state == held.state, Commitment.not_before == held.held_until
    )
    statement = statement.values(not_before=until, **values).execution_options(synchronize_session=False)
    changed: Any = session.execute(statement)
    return replace(held, held_until=until) if changed.rowcount == 1 else None


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
