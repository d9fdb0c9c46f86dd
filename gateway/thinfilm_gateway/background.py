"""How a process that compresses uses the machine: a thread a core in all, and only what those who serve leave over."""

import os

_NICENESS = 10


def keep_linear_algebra_on_one_thread() -> None:
    """Let numpy compute on the thread that calls it, in this process (if numpy is not loaded yet) and its children.

    Groups and stacks are what runs in parallel; besides, sums in one order fit the same parameters every time.
    """
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def usable_cores() -> int:
    """Return how many cores this process may use: so many groups or stacks are worked on at a time."""
    return len(os.sched_getaffinity(0))


def step_back() -> None:
    """Give way to all processes of ordinary priority (P9: compression never holds up ingest)."""
    os.nice(_NICENESS)
