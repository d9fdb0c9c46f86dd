"""Several revisions of one SOP Instance UID through everything that happens to them after they came."""

from collections.abc import Callable
from pathlib import Path

import pytest

from support.datasets import CT_IMAGE, ct_series, finish, instance, patient
from support.house import House, flip_byte
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.ingest import Outcome
from thinfilm_workers.jobs.evict import evict
from thinfilm_workers.jobs.reindex import reindex
from thinfilm_workers.jobs.scrub import scrub

FIRST = ct_series(3)
SECOND = ct_series(3, first_seed=20)
THIRD = ct_series(3, first_seed=40)
ELSEWHERE = finish(
    {**instance(CT_IMAGE, "CT", who=patient(study="other")), "SOPInstanceUID": FIRST[0].sop_instance_uid}
)
EVERYTHING = [*FIRST, *SECOND, *THIRD, ELSEWHERE]


def served(house: House) -> set[str]:
    return {row.sha256 for row in house.instances() if row.current}


def revisions(house: House) -> set[tuple[str, int, bool]]:
    return {(row.sha256, row.revision, row.current) for row in house.instances()}


@pytest.mark.parametrize("policy", ["keep-first", "version"])
def test_revisions_are_compressed_evicted_scrubbed_and_rebuilt_each_as_it_came(
    build_house: Callable[..., House], tmp_path: Path, policy: str
) -> None:
    house = build_house(duplicates=policy, cache_bytes=0)
    house.receive([*FIRST, *SECOND])  # in one container
    house.work()
    house.receive([*THIRD, ELSEWHERE])  # later, in others
    house.work()
    house.assert_archived(EVERYTHING)
    assert len(served(house)) == 3

    assert evict(house.context) == len(EVERYTHING)
    house.assert_retrievable(EVERYTHING)
    assert house.stray_files() == []

    report = scrub(house.context)
    assert (report.damages, report.instances) == ((), len(EVERYTHING))

    before = revisions(house)
    url = f"sqlite:///{tmp_path / 'rebuilt.sqlite'}"
    database = Database(url)
    database.upgrade()
    database.dispose()
    rebuilt = build_house(database_url=url, duplicates=policy)
    assert reindex(rebuilt.context).damages == ()
    assert revisions(rebuilt) == before
    rebuilt.assert_archived(EVERYTHING)


def test_a_rebuild_keeps_what_would_be_rejected_by_now(build_house: Callable[..., House], tmp_path: Path) -> None:
    house = build_house()
    house.receive([FIRST[0], SECOND[0]])
    before = revisions(house)
    url = f"sqlite:///{tmp_path / 'rebuilt.sqlite'}"
    database = Database(url)
    database.upgrade()
    database.dispose()
    rebuilt = build_house(database_url=url, duplicates="reject")
    assert reindex(rebuilt.context).damages == ()
    assert revisions(rebuilt) == before


def test_damage_to_one_revision_is_its_own_and_a_copy_of_it_heals_it(build_house: Callable[..., House]) -> None:
    house = build_house(duplicates="version")
    house.receive([FIRST[0], SECOND[0]])
    flip_byte(house.spool_path(house.instances()[0]), -100)
    assert scrub(house.context).quarantined == 1
    house.work()
    assert house.states() == ["quarantined", "archived"]
    assert house.receive([FIRST[0]]) == [Outcome.STORED]
    house.work()
    house.assert_archived([FIRST[0], SECOND[0]])
    assert [row.current for row in house.instances()] == [False, True]


def test_what_is_rejected_leaves_nothing_and_costs_nothing_that_is_kept(build_house: Callable[..., House]) -> None:
    house = build_house(duplicates="reject")
    assert house.receive([*FIRST, *SECOND]) == [Outcome.STORED] * 3 + [Outcome.REJECTED] * 3
    house.work()
    house.assert_archived(FIRST)
    assert house.stray_files() == []
    assert len(house.audits("content_conflict")) == 3
