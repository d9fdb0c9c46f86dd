"""Processes for measuring: on chosen CPUs, and with one thread in the libraries that would take more."""

import contextlib
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def usable_cpus() -> list[int]:
    """Return the numbers of the CPUs that this process may use; a system that does not tell counts as having one."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


def process_on(cpus: Sequence[int]) -> ProcessPoolExecutor:
    """Return a pool of one process that will stay on these CPUs."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _pin, (cpus,))


@contextlib.contextmanager
def single_threaded_libraries() -> Iterator[None]:
    """Let the libraries of processes that start within the block take one thread each."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _pin(cpus: Sequence[int]) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
