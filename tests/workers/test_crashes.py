import datetime as dt
from collections.abc import Callable

import pytest

from support.crash import join_all, start_work, work_until_killed
from support.datasets import ct_series
from support.house import House, make_due
from support.receiver import wait_until
from thinfilm_workers.jobs import compress
from thinfilm_workers.jobs.sweep import sweep, tidy

SERIES = ct_series(5, size=96)
AT_ONCE = dt.timedelta(seconds=-60)


def _recover(house: House) -> None:
    """Do what time and the worker's maintenance do by themselves."""

    def all_is_done() -> bool:  # on a busy machine, the short lease of these tests may also be lost by who lives
        sweep(house.context)
        make_due(house)
        house.work()
        return all(job.state == "done" for job in house.jobs())

    wait_until(all_is_done, "the job of the dead worker is done")
    tidy(house.context, grace=AT_ONCE)


@pytest.mark.parametrize(
    "moment",
    [
        "thinfilm_gateway.index.jobs:claim after",
        "thinfilm_workers.runner:_run before",
        "thinfilm_workers.jobs.compress:spool_damage after",
        "thinfilm_gateway.archive.container.pack:write_stack before",
        "thinfilm_gateway.archive.container.writer:ContainerWriter.finish after",
        "thinfilm_workers.jobs.compress:pack after",
        "thinfilm_gateway.archive.store:sync before",
        "thinfilm_gateway.archive.store:_drop_cached_pages before",
        "thinfilm_gateway.archive.store:FolderStore.put after",
        "thinfilm_workers.proof:container_damage after",
        "thinfilm_workers.lease:Lease.confirm after",
        "thinfilm_workers.jobs.compress:_record before",
        "thinfilm_workers.jobs.compress:_record after",
        "thinfilm_gateway.index.jobs:finish before",
        "thinfilm_gateway.index.jobs:finish after",
    ],
)
def test_a_worker_that_is_killed_at_any_step_loses_nothing(build_house: Callable[..., House], moment: str) -> None:
    house = build_house(job_lease_seconds=0.4)
    house.receive(SERIES)

    work_until_killed(house.context.settings, moment)

    house.assert_retrievable(SERIES)
    _recover(house)
    house.assert_archived(SERIES)
    assert house.stray_files() == []
    assert len([container for container in house.containers() if container.unused_since is None]) == 1
    assert {job.state for job in house.jobs()} == {"done"}


def test_workers_that_race_for_one_job_make_one_container(house: House) -> None:
    house.receive(SERIES)
    join_all([start_work(house.context.settings) for _ in range(3)])
    house.assert_archived(SERIES)
    assert len([container for container in house.containers() if container.unused_since is None]) == 1
    assert house.stray_files() == []
    assert [job.attempts for job in house.jobs()] == [1]


def test_a_worker_that_lost_its_lease_leaves_the_work_of_the_next_one_alone(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.receive(SERIES)
    prove = compress.prove

    def prove_slowly(*arguments: object) -> None:
        monkeypatch.setattr(compress, "prove", prove)
        prove(*arguments)  # type: ignore[arg-type]
        with house.context.database.session() as session:
            session.merge(house.jobs()[0]).lease_until = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
        sweep(house.context)
        make_due(house)
        house.work()

    monkeypatch.setattr(compress, "prove", prove_slowly)
    house.work()

    house.assert_archived(SERIES)
    assert len([container for container in house.containers() if container.unused_since is None]) == 1
    assert house.stray_files() == []
    (job,) = house.jobs()
    assert (job.state, job.attempts) == ("done", 2)


def test_a_lease_is_renewed_as_long_as_the_work_goes_on(
    build_house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    house = build_house(job_lease_seconds=0.4)
    house.receive(SERIES)
    prove = compress.prove
    renewals: list[dt.datetime] = []

    def prove_slowly(*arguments: object) -> None:
        begin = house.jobs()[0].lease_until

        def renewed_past_its_first_end() -> bool:
            sweep(house.context)
            lease_until = house.jobs()[0].lease_until
            renewals.append(lease_until)
            return bool(lease_until and begin and lease_until > begin + dt.timedelta(seconds=0.8))

        wait_until(renewed_past_its_first_end, "the lease is renewed")
        prove(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(compress, "prove", prove_slowly)
    house.work()
    assert len(set(renewals)) > 2
    assert [job.attempts for job in house.jobs()] == [1]
    house.assert_archived(SERIES)
