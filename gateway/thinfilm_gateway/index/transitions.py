"""The only functions that change the state of an instance or of a job: each change is checked against states.py."""

from collections.abc import Collection
from typing import Any, cast

from sqlalchemy import CursorResult, update
from sqlalchemy.orm import Session

from thinfilm_gateway.index.models import Instance, Job
from thinfilm_gateway.index.states import InstanceState, JobState, check_instance, check_job


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


def _rows(session: Session, statement: Any) -> int:
    statement = statement.execution_options(synchronize_session=False)
    return cast("CursorResult[Any]", session.execute(statement)).rowcount
