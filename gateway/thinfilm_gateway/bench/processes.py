"""Processes for measuring: on chosen CPUs, and with one thread in the libraries that would take more."""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, Self, TypeVar

_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class ProcessEnded(Exception):
    """What was measured took its process down; the message is a clause that begins with it."""


class OneCore:
    """A process that has one core to measure in; a new one, where the last was lost."""

    def __enter__(self) -> Self:
        self._process = self._start()
        return self

    def __exit__(self, *error: object) -> None:
        self._process.shutdown(cancel_futures=True)

    def call(
        self, function: Callable[_Arguments, _Result], *given: _Arguments.args, **named: _Arguments.kwargs
    ) -> _Result:
        """Return the result of a function that is called in the process. Raises ProcessEnded, or what it raises."""
        try:
            return self._process.submit(function, *given, **named).result()
        except BrokenProcessPool:
            self._process = self._start()
            raise ProcessEnded("it ended the process that measured it") from None

    def _start(self) -> ProcessPoolExecutor:
        return process_on(usable_cpus()[-1:])


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
