import datetime as dt
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.datasets import ct_series, mr_series
from support.house import House, make_due
from support.receiver import wait_until
from thinfilm_gateway.index import jobs
from thinfilm_workers.jobs.sweep import sweep
from thinfilm_workers.local import run_workers
from thinfilm_workers.runner import QUEUES

EMBEDDED = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@contextmanager
def _worker(house: House) -> Iterator[subprocess.Popen[bytes]]:
    """Run `thinfilm worker` on the house until the block ends."""
    command = [sys.executable, "-m", "thinfilm_gateway", "worker"]
    environment = {**os.environ, **house.context.settings.to_environment()}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _children(process: subprocess.Popen[bytes]) -> list[int]:
    """Return the worker processes; the tracker that multiprocessing itself starts is none."""
    pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def _stop(process: subprocess.Popen[bytes]) -> int:
    process.terminate()
    return process.wait(30)


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _all_archived(house: House) -> bool:
    return set(house.states()) == {"archived"}


def test_the_local_worker_archives_what_is_due_and_stops_on_sigterm(house: House) -> None:
    first, second = ct_series(4), mr_series(3)
    house.receive(first)
    with _worker(house) as process:
        wait_until(lambda: _all_archived(house), "the first series is archived")
        house.receive(second)
        wait_until(lambda: _all_archived(house), "the second series is archived")
        assert _stop(process) == 0
    house.assert_archived([*first, *second])


@EMBEDDED
def test_worker_processes_give_way_to_others_and_compute_on_one_thread_each(house: House) -> None:
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    with _worker(house) as process:
        wait_until(lambda: len(_children(process)) == 2, "two processes work")
        for pid in _children(process):
            wait_until(lambda pid=pid: os.getpriority(os.PRIO_PROCESS, pid) > ours, "the process has stepped back")
            assert b"OPENBLAS_NUM_THREADS=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


@EMBEDDED
def test_a_worker_process_that_is_killed_does_not_stop_the_others_and_is_replaced(house: House) -> None:
    with _worker(house) as process:
        wait_until(lambda: len(_children(process)) == 2, "two processes work")
        victim, survivor = _children(process)
        os.kill(victim, signal.SIGKILL)
        series = ct_series(3)
        house.receive(series)
        wait_until(lambda: _all_archived(house), "the series is archived")
        wait_until(lambda: len(_children(process)) == 2, "two processes work again")
        assert survivor in _children(process)
        assert victim not in _children(process)
        assert _stop(process) == 0


@EMBEDDED
def test_the_processes_end_when_their_parent_is_killed(house: House) -> None:
    with _worker(house) as process:
        wait_until(lambda: len(_children(process)) == 2, "two processes work")
        children = _children(process)
        process.kill()
        process.wait()
        wait_until(lambda: all(_is_gone(pid) for pid in children), "the children have ended too")


def test_a_running_job_may_end_before_the_worker_stops(build_house: Callable[..., House]) -> None:
    house = build_house(local_workers=1)
    series = ct_series(24, size=256)
    house.receive(series)
    with _worker(house) as process:
        wait_until(lambda: house.jobs()[0].state != "waiting", "the job is taken")
        assert _stop(process) == 0
    house.assert_archived(series)


def test_the_jobs_of_a_killed_embedded_gateway_are_taken_up_when_it_starts_again(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    house = House.build(tmp_path, database_url="")
    house.context.database.upgrade()
    series = ct_series(3)
    house.receive(series)
    with house.context.database.session() as session:
        assert jobs.claim(session, "killed", dt.timedelta(hours=1), QUEUES)
    with _worker(house) as process:
        wait_until(lambda: _all_archived(house), "the series is archived, long before the lease runs out")
        assert _stop(process) == 0
    (job,) = house.jobs()
    assert (job.state, job.attempts) == ("done", 1)
    house.assert_archived(series)
    house.context.database.dispose()


def test_the_jobs_of_other_workers_of_a_shared_index_are_left_to_their_lease(house: House) -> None:
    taken, free = ct_series(2), mr_series(2)
    house.receive(taken)
    with house.context.database.session() as session:
        claimed = jobs.claim(session, "another host", dt.timedelta(hours=1), QUEUES)
    assert claimed
    house.receive(free)
    with _worker(house) as process:
        wait_until(lambda: house.states() == ["received"] * 2 + ["archived"] * 2, "the other series is archived")
        assert _stop(process) == 0
    assert house.jobs()[0].lease_owner == "another host"


@EMBEDDED
def test_a_job_that_does_not_end_in_time_is_killed_and_comes_back(build_house: Callable[..., House]) -> None:
    house = build_house(local_workers=1, job_lease_seconds=1)
    series = ct_series(32, size=512)
    house.receive(series)
    process = multiprocessing.get_context("spawn").Process(target=run_workers, args=(house.context.settings, 0.0))
    process.start()
    wait_until(lambda: house.jobs()[0].state == "running", "the job is taken")
    process.terminate()
    process.join(10)
    assert process.exitcode == 0
    assert set(house.states()) == {"received"}

    def is_back() -> bool:
        sweep(house.context)
        return house.jobs()[0].state == "waiting"

    wait_until(is_back, "the job is free")
    make_due(house)
    house.work()
    house.assert_archived(series)
