"""The life of an instance, a job and a storage commitment: the states, and the only transitions there are."""

import enum


class InstanceState(enum.StrEnum):
    """Where an instance stands on its way from the network into the archive."""

    RECEIVED = "received"  # durable in the spool; its series has not been compressed yet
    ARCHIVED = "archived"  # proven in a container; a spool copy may still lie in the cache
    AS_RECEIVED = "as_received"  # compression was given up; the spool copy is the object of record
    QUARANTINED = "quarantined"  # its stored bytes no longer match its SHA-256; never sent


class JobState(enum.StrEnum):
    """Where a job stands."""

    WAITING = "waiting"  # not due yet, or due and not taken by a worker
    RUNNING = "running"  # leased by a worker until lease_until
    DONE = "done"
    FAILED = "failed"  # max_attempts reached; listed by `thinfilm status`


class CommitmentState(enum.StrEnum):
    """Where a request for storage commitment stands."""

    REQUESTED = "requested"  # what it names has not been examined yet
    EXAMINED = "examined"  # the outcome is known; the peer has not taken the report of it yet
    REPORTED = "reported"  # the peer has taken the report
    FAILED = "failed"  # the peer did not take the report in all the time it had; listed by `thinfilm status`


INSTANCE_TRANSITIONS: dict[InstanceState, frozenset[InstanceState]] = {
    InstanceState.RECEIVED: frozenset({InstanceState.ARCHIVED, InstanceState.AS_RECEIVED, InstanceState.QUARANTINED}),
    InstanceState.ARCHIVED: frozenset({InstanceState.QUARANTINED}),
    InstanceState.AS_RECEIVED: frozenset({InstanceState.RECEIVED, InstanceState.ARCHIVED, InstanceState.QUARANTINED}),
    InstanceState.QUARANTINED: frozenset({InstanceState.RECEIVED, InstanceState.ARCHIVED, InstanceState.AS_RECEIVED}),
}

JOB_TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.WAITING: frozenset({JobState.RUNNING}),
    JobState.RUNNING: frozenset({JobState.WAITING, JobState.DONE, JobState.FAILED}),
    JobState.DONE: frozenset(),
    JobState.FAILED: frozenset({JobState.WAITING}),
}


COMMITMENT_TRANSITIONS: dict[CommitmentState, frozenset[CommitmentState]] = {
    CommitmentState.REQUESTED: frozenset({CommitmentState.EXAMINED, CommitmentState.FAILED}),
    CommitmentState.EXAMINED: frozenset({CommitmentState.REPORTED, CommitmentState.FAILED}),
    CommitmentState.REPORTED: frozenset(),
    CommitmentState.FAILED: frozenset({CommitmentState.REQUESTED}),
}


class ForbiddenTransition(Exception):
    """A state change that the table does not know."""


def check_instance(old: InstanceState, new: InstanceState) -> None:
    """Raise ForbiddenTransition unless an instance may go from `old` to `new`."""
    if new not in INSTANCE_TRANSITIONS[old]:
        raise ForbiddenTransition(f"An instance cannot go from {old} to {new}.")


def check_job(old: JobState, new: JobState) -> None:
    """Raise ForbiddenTransition unless a job may go from `old` to `new`."""
    if new not in JOB_TRANSITIONS[old]:
        raise ForbiddenTransition(f"A job cannot go from {old} to {new}.")


def check_commitment(old: CommitmentState, new: CommitmentState) -> None:
    """Raise ForbiddenTransition unless a storage commitment may go from `old` to `new`."""
    if new not in COMMITMENT_TRANSITIONS[old]:
        raise ForbiddenTransition(f"A storage commitment cannot go from {old} to {new}.")
