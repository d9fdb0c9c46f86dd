"""The only functions that change the state of an instance, job or commitment, each change checked by states.py."""

import datetime as dt
from collections.abc import Collection
from typing import Any, cast

from sqlalchemy import CursorResult, update
from sqlalchemy.orm import Session

from thinfilm_gateway.index.models import Commitment, Instance, Job
from thinfilm_gateway.index.states import (
    CommitmentState,
    InstanceState,
    JobState,
    check_commitment,
    check_instance,
    check_job,
)


def move_instances(
    session: Session, instance_pks: Collection[int], old: InstanceState, new: InstanceState, **values: Any
) -> int:
    """Take those of the instances that are in state `old` to `new`, setting columns to `values`; return how many.

    Raises ForbiddenTransition.
    """
    check_instance(old, new)
    statement = update(Instance).where(Instance.id.in_(instance_pks), Instance.state == old)
    return _rows(session, statement.values(state=new, **values))


def move_job(session: Session, job_pk: int, old: JobState, new: JobState, owner: str | None, **values: Any) -> bool:
    """Take a job from state `old`, in which `owner` holds its lease, to `new`; tell whether it was so.

    Raises ForbiddenTransition.
    """
    check_job(old, new)
    statement = update(Job).where(Job.id == job_pk, Job.state == old, Job.lease_owner == owner)
    return _rows(session, statement.values(state=new, **values)) == 1


def move_commitment(
    session: Session, pk: int, old: CommitmentState, new: CommitmentState, held_until: dt.datetime, **values: Any
) -> bool:
    """Take a storage commitment from state `old`, in which it is held until then, to `new`; tell whether it was so.

    Raises ForbiddenTransition.
    """
    check_commitment(old, new)
    statement = update(Commitment).where(
        Commitment.id == pk, Commitment.state == old, Commitment.not_before == held_until
    )
    return _rows(session, statement.values(state=new, **values)) == 1


def _rows(session: Session, statement: Any) -> int:
    statement = statement.execution_options(synchronize_session=False)
    return cast("CursorResult[Any]", session.execute(statement)).rowcount
