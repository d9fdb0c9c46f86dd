"""Runs due work in processes of their own, some of which die at a chosen point as if the power had gone."""

import importlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from typing import Any

from thinfilm_gateway.config import Settings
from thinfilm_gateway.heart import process_name
from thinfilm_workers import runner
from thinfilm_workers.context import Context

JOIN_SECONDS = 60.0


def start_work(settings: Settings, die_at: str | None = None) -> ForkServerProcess:
    """Start a process that does one due job.

    die_at: "package.module:name" or "package.module:Class.name", then " before" or " after": where it gets SIGKILL.
    """
    context = multiprocessing.get_context("forkserver")  # imports once; what it forks has no connections yet
    context.set_forkserver_preload(["thinfilm_workers.runner"])
    process = context.Process(target=_work, args=(settings, die_at))
    process.start()
    return process


def work_until_killed(settings: Settings, die_at: str) -> None:
    """Do one due job in a process that dies at the chosen point; fail if it never gets there."""
    process = start_work(settings, die_at)
    process.join(JOIN_SECONDS)
    assert process.exitcode == -signal.SIGKILL, f"It ended with {process.exitcode}, before {die_at}."


def join_all(processes: Sequence[ForkServerProcess]) -> None:
    """Wait until processes have ended well."""
    for process in processes:
        process.join(JOIN_SECONDS)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def _work(settings: Settings, die_at: str | None) -> None:
    if die_at:
        place, moment = die_at.rsplit(" ", 1)
        _set_trap(place, moment)
    runner.run_next(Context.open(settings), process_name(), runner.QUEUES)


def _set_trap(place: str, moment: str) -> None:
    module, _, name = place.partition(":")
    holder: Any = importlib.import_module(module)
    *path, name = name.split(".")
    for part in path:
        holder = getattr(holder, part)
    setattr(holder, name, _trap(getattr(holder, name), moment))


def _trap(function: Callable[..., Any], moment: str) -> Callable[..., Any]:
    def trapped(*arguments: Any, **named: Any) -> Any:
        if moment == "after":
            function(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    return trapped
