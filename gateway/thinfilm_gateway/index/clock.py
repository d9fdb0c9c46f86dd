"""Times in the index that only a clock that ran ahead can have written: pulled back, so that nothing waits for years.

Leases, pauses and backoffs are times of the wall clock, since many hosts share them. When a clock is set back, what was
due in a minute is due in a minute and the length of the jump. Nobody ever writes a time farther ahead than the limits
here; what lies beyond them is brought to where it would be had it been written now.
"""

import datetime as dt
from typing import Any, cast

from sqlalchemy import CursorResult, update
from sqlalchemy.orm import Session

from thinfilm_gateway.index.jobs import COMPRESS, LONGEST_BACKOFF
from thinfilm_gateway.index.models import Commitment, Job
from thinfilm_gateway.index.states import CommitmentState, JobState

LONGEST_HOLD = dt.timedelta(hours=1)  # of a storage commitment: longer than any hold or backoff of one


def pull_back(session: Session, lease: dt.timedelta, quiet: dt.timedelta, now: dt.datetime | None = None) -> int:
    """Bring the times beyond all limits back; return how many rows that were.

    lease: what a worker gets; a job whose worker lives is renewed within it. quiet: how long a series must be silent.
    Twice of each is let pass, since clocks of several hosts differ a little.
    """
    now = now or dt.datetime.now(dt.UTC)
    leased = update(Job).where(Job.state == JobState.RUNNING, Job.lease_until > now + 2 * lease)
    waiting = update(Job).where(
        Job.kind == COMPRESS, Job.state == JobState.WAITING, Job.not_before > now + 2 * max(quiet, LONGEST_BACKOFF)
    )
    held = update(Commitment).where(
        Commitment.state.in_((CommitmentState.REQUESTED, CommitmentState.EXAMINED)),
        Commitment.not_before > now + 2 * LONGEST_HOLD,
    )
    return sum(
        _rows(session, statement)
        for statement in (
            leased.values(lease_until=now + lease),
            waiting.values(not_before=now + quiet, sent_at=None),
            held.values(not_before=now),
        )
    )


def _rows(session: Session, statement: Any) -> int:
    statement = statement.execution_options(synchronize_session=False)
    return cast("CursorResult[Any]", session.execute(statement)).rowcount
