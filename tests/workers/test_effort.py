"""Less effort after failures and before a backlog, up to the object as received: never an endless loop (P9)."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.crash import join_all, start_work, work_until_killed
from support.datasets import EncodedDataSet, ct_series, mr_series, patient, uid
from support.house import House, make_due
from support.receiver import wait_until
from thinfilm_gateway.commands import status as command
from thinfilm_gateway.index import jobs
from thinfilm_gateway.policy import lossless
from thinfilm_gateway.policy.lossless import Treatment
from thinfilm_workers.effort import Effort, effort
from thinfilm_workers.jobs.sweep import sweep
from thinfilm_workers.runner import lease_duration

EMBEDDED = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
JPEGLS_ALONE = Treatment(("jpegls",))
CODECS = ("neural", "jpegls")
FITTING = "thinfilm_codecs.lossless.neural.codec:Neural.prepare before"
CORES = len(os.sched_getaffinity(0))


def series_of(number: int, size: int = 32) -> list[EncodedDataSet]:
    return ct_series(1, size=size, who=patient(f"Doe^{number}", f"P-{number}"), series=uid(f"series {number}"))


def claimed_effort(house: House) -> Effort:
    """Take the next job and return how hard it would try."""
    with house.context.database.session() as session:
        job = jobs.claim(session, "worker", lease_duration(house.context), [jobs.COMPRESS_CPU])
    assert job is not None
    return effort(house.context, job)


@pytest.mark.parametrize(
    ("due", "steps"), [(0, 0), (100, 0), (101, 1), (199, 1), (200, 2), (399, 2), (400, 3), (10_000, 7)]
)
def test_each_doubling_of_the_backlog_is_a_step(due: int, steps: int) -> None:
    assert lossless.backlog_steps(due, 100) == steps


@pytest.mark.parametrize(
    ("treatment", "expected"),
    [
        (Treatment(CODECS, "max"), [Treatment(CODECS, "max"), Treatment(CODECS), Treatment(CODECS, "fast")]),
        (Treatment(CODECS), [Treatment(CODECS), Treatment(CODECS, "fast"), JPEGLS_ALONE]),
        (Treatment(CODECS, "fast"), [Treatment(CODECS, "fast"), JPEGLS_ALONE, JPEGLS_ALONE]),
        (Treatment(("zstd", "raw")), [Treatment(("zstd", "raw"))] * 3),
    ],
)
def test_the_steps_lead_over_the_presets_to_jpeg_ls(treatment: Treatment, expected: list[Treatment]) -> None:
    assert [lossless.easier(treatment, steps) for steps in range(3)] == expected
    assert lossless.easier(Treatment(CODECS, "max", "cuda"), 3) == JPEGLS_ALONE


def test_a_backlog_costs_effort_and_full_effort_returns_when_it_is_gone(build_house: Callable[..., House]) -> None:
    house = build_house(backlog_jobs=2, lossless_codecs=CODECS)
    for number in range(7):
        house.receive(series_of(number))
    hurry = command.status(house.context.settings).to_json()["hurry"]
    assert "7 jobs are due and backlog_jobs is 2" in hurry
    efforts = [claimed_effort(house) for _ in range(7)]
    assert [each.treatment for each in efforts] == (
        [JPEGLS_ALONE] * 3 + [Treatment(CODECS, "fast")] + [Treatment(CODECS)] * 3
    )
    assert {each.threads for each in efforts} == {CORES}
    assert command.status(house.context.settings).to_json()["hurry"] is None


def test_what_a_backlog_costs_shows_in_the_containers(build_house: Callable[..., House]) -> None:
    house = build_house(backlog_jobs=1, lossless_codecs=("jpegxl",))
    every = [series_of(number) for number in range(3)]
    for series in every:
        house.receive(series)
    assert house.work() == 3
    assert [container.codecs for container in house.containers()] == ["jpegls", "jpegxl", "jpegxl"]
    for series in every:
        house.assert_archived(series)


@EMBEDDED
def test_a_job_that_kills_its_workers_is_tried_with_less_until_it_succeeds(build_house: Callable[..., House]) -> None:
    house = build_house(job_lease_seconds=0.4, lossless_codecs=CODECS)
    series = mr_series(6, size=64)
    house.receive(series)

    def is_back() -> bool:
        sweep(house.context)
        return house.jobs()[0].state == "waiting"

    for _ in range(2):  # as the system does with a process that takes too much memory
        work_until_killed(house.context.settings, FITTING)
        wait_until(is_back, "the job is free")
        make_due(house)
    join_all([start_work(house.context.settings, FITTING)])  # which never comes to fitting
    house.assert_archived(series)
    assert house.jobs()[0].attempts == 3
    assert "neural" not in house.containers()[0].codecs


STARVED = """
import resource, sys
from pathlib import Path
from thinfilm_gateway import config, logs
from thinfilm_workers import runner
from thinfilm_workers.context import Context

settings = config.load()
logs.configure("error")
context = Context.open(settings)
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + int(sys.argv[1]),) * 2)
runner.run_next(context, "starved worker", runner.QUEUES)
"""


@EMBEDDED
def test_a_series_for_which_there_is_no_memory_at_all_ends_as_received(build_house: Callable[..., House]) -> None:
    house = build_house(max_attempts=2, lossless_codecs=("jpegls",))
    series = ct_series(8, size=1024)
    house.receive(series)
    for attempt in (1, 2):
        assert [job.attempts for job in house.jobs()] == [attempt - 1]
        subprocess.run(
            [sys.executable, "-c", STARVED, str(24 << 20)],
            env={**os.environ, **house.context.settings.to_environment()},
            stderr=subprocess.DEVNULL,
            timeout=120,
            check=True,
        )
        if attempt == 1:
            make_due(house)
    (job,) = house.jobs()
    assert job.state == "failed"
    assert "llocate" in str(job.error) or "emory" in str(job.error)
    assert house.states() == ["as_received"] * 8
    assert house.work() == 0
    assert house.stray_files() == []
    house.assert_retrievable(series)


@EMBEDDED
def test_the_job_of_a_killed_process_is_free_at_once(build_house: Callable[..., House], tmp_path: Path) -> None:
    house = build_house(local_workers=1, max_attempts=1)
    series = ct_series(24, size=512)
    house.receive(series)
    command_line = [sys.executable, "-m", "thinfilm_gateway", "worker"]
    with (tmp_path / "log").open("wb") as output:
        process = subprocess.Popen(
            command_line, env={**os.environ, **house.context.settings.to_environment()}, stderr=output
        )
        try:
            wait_until(lambda: house.jobs()[0].state == "running", "the job is taken")
            (owner,) = [job.lease_owner for job in house.jobs()]
            assert owner is not None
            os.kill(int(owner.rpartition(":")[2]), signal.SIGKILL)
            wait_until(
                lambda: house.jobs()[0].state == "failed", "the job is given up, 15 minutes before its lease ends"
            )
        finally:
            process.kill()
            process.wait()
    assert house.states() == ["as_received"] * 24
    assert "perhaps for want of memory" in str(house.jobs()[0].error)
    assert "lower local_workers or add memory" in (tmp_path / "log").read_text()
    house.assert_retrievable(series)
