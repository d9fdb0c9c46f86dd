import datetime as dt
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.datasets import Syntax, ct_series, encode, mr_series, one_of_each, patient, structured_report
from support.house import House, flip_byte
from thinfilm_gateway.archive.objects import IntegrityError
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.find import Query, Root, find
from thinfilm_gateway.index.ingest import Outcome
from thinfilm_gateway.index.levels import Level
from thinfilm_gateway.index.locate import locate
from thinfilm_gateway.index.models import Base, Container, Instance, Patient, Series, Study, StudyPatient
from thinfilm_workers.jobs.evict import evict
from thinfilm_workers.jobs.reindex import IndexNotEmpty, reindex

# What cannot be told from files: when something was last read or proven, or committed, and the numbers of the rows.
NUMBERS = {"id", "patient_pk", "study_pk", "series_pk", "container_pk"}
NOT_KEPT = NUMBERS | {"last_read_at", "created_at", "verified_at", "committed_at"}


def _table(house: House, model: type[Base], **foreign: dict[int, Any]) -> list[dict[str, Any]]:
    """Return the rows of a table, with keys of other rows replaced by what these are known by."""
    rows = []
    for row in house.rows(model):
        values = {column.name: getattr(row, column.name) for column in model.__table__.columns}
        kept = {name: value for name, value in values.items() if name not in NOT_KEPT}
        rows.append(kept | {name: names.get(values[name]) for name, names in foreign.items()})
    return sorted(rows, key=repr)


def _index(house: House) -> dict[str, list[dict[str, Any]]]:
    """Return all that matters in the index."""
    patients = {row.id: row.identity for row in house.rows(Patient)}
    studies = {row.id: row.study_instance_uid for row in house.rows(Study)}
    series = {row.id: row.series_instance_uid for row in house.rows(Series)}
    containers = {row.id: row.key for row in house.rows(Container)}
    return {
        "patients": _table(house, Patient),
        "studies": _table(house, Study),
        "study_patients": _table(house, StudyPatient, study_pk=studies, patient_pk=patients),
        "series": _table(house, Series, study_pk=studies),
        "instances": _table(house, Instance, series_pk=series, container_pk=containers),
        "containers": _table(house, Container),
    }


@pytest.fixture
def rebuild(build_house: Callable[..., House], tmp_path: Path) -> Callable[..., House]:
    """Give the same data folder with an empty index."""

    def empty(**overrides: Any) -> House:
        url = f"sqlite:///{tmp_path / 'rebuilt.sqlite'}"
        database = Database(url)
        database.upgrade()
        database.dispose()
        return build_house(database_url=url, series_quiet_seconds=0, **overrides)

    return empty


def test_spool_and_containers_alone_give_an_equal_index(
    build_house: Callable[..., House], rebuild: Callable[[], House]
) -> None:
    house = build_house(cache_bytes=30_000)
    kinds, series = list(one_of_each().values()), ct_series(5)
    conflicting = ct_series(2, first_seed=9)
    house.receive(kinds, sender="SCANNER")
    house.receive(series[:3])
    house.work()
    evict(house.context)
    house.receive(series[3:], sender="LATE")
    house.receive(conflicting, sender="OTHER")
    house.work()
    waiting = mr_series(3, who=patient("Roe^Rick", "T-9"))
    house.receive(waiting, quiet=dt.timedelta(hours=1))
    before = _index(house)
    states = {row["state"] for row in before["instances"]}
    assert states == {"archived", "received"}
    assert any(row["revision"] == 2 and not row["current"] for row in before["instances"])
    assert any(row["spool_name"] is None for row in before["instances"])

    rebuilt = rebuild()
    report = reindex(rebuilt.context)

    assert report.damages == ()
    assert _index(rebuilt) == before
    assert all(instance.committed_at for instance in rebuilt.instances()), "for all it knows, each was promised"
    assert (report.instances, report.containers) == (len(before["instances"]), len(before["containers"]))
    rebuilt.assert_retrievable([*kinds, *series, *conflicting, *waiting])
    assert [job.state for job in rebuilt.jobs()] == ["waiting"]
    rebuilt.work()
    rebuilt.assert_archived([*kinds, *series, *conflicting, *waiting])


def test_data_sets_that_begin_with_file_meta_elements_are_entered_as_they_were(
    house: House, rebuild: Callable[[], House]
) -> None:
    meta = encode({0x00020000: ("UL", 28), 0x00020010: ("UI", "1.2.840.10008.1.2.1\0")}, Syntax())
    objects = [*ct_series(2), *mr_series(2)]
    objects = [one._replace(dataset=meta + one.dataset) for one in objects]
    house.receive(objects[:2])
    house.work()
    house.receive(objects[2:])
    before = _index(house)
    assert {row["state"] for row in before["instances"]} == {"archived", "received"}

    rebuilt = rebuild()

    assert reindex(rebuilt.context).damages == ()
    assert _index(rebuilt) == before
    rebuilt.work()
    rebuilt.assert_archived(objects)


def test_after_a_reindex_what_is_found_is_the_version_that_is_returned(
    build_house: Callable[..., House], rebuild: Callable[..., House]
) -> None:
    build = {"duplicates": "version"}
    house = build_house(**build)
    first = ct_series(2, who=patient("Doe^Jane", "T-1"))
    corrected = ct_series(2, first_seed=9, who=patient("Roe^Rita", "T-1"))
    assert {one.sop_instance_uid for one in first} == {one.sop_instance_uid for one in corrected}
    house.receive(first)
    house.work()
    house.receive(corrected)
    before = _index(house)

    rebuilt = rebuild(**build)

    assert reindex(rebuilt.context).damages == ()
    assert _index(rebuilt) == before
    with rebuilt.context.database.reading() as session:
        keys = {"PatientName": "roe*", "StudyInstanceUID": "", "SOPInstanceUID": "", "ImageType": ""}
        matches = list(find(session, Query(Level.IMAGE, Root.STUDY, keys)))
        assert {str(one.values["SOPInstanceUID"]) for one in matches} == {one.sop_instance_uid for one in corrected}
        assert not list(find(session, Query(Level.IMAGE, Root.STUDY, {"PatientName": "doe*"})))
        for match in matches:
            uid = str(match.values["SOPInstanceUID"])
            (located,) = locate(session, Level.IMAGE, {"SOPInstanceUID": uid})
            (sent,) = [one for one in corrected if one.sop_instance_uid == uid]
            assert located.location.sha256 == hashlib.sha256(sent.dataset).hexdigest()


def test_an_index_that_is_not_empty_is_left_as_it_is(house: House) -> None:
    house.receive(ct_series(2))
    before = _index(house)
    with pytest.raises(IndexNotEmpty, match="not empty"):
        reindex(house.context)
    assert _index(house) == before


def test_damaged_files_are_told_and_the_rest_is_entered(house: House, rebuild: Callable[[], House]) -> None:
    archived, report_object = ct_series(3, size=512), structured_report()
    house.receive(archived)
    house.work()
    house.receive([report_object])
    flip_byte(house.spool_path(house.instances()[0]), -3)
    flip_byte(house.spool_path(house.instances()[3]), 400)
    house.context.spool.remove(str(house.instances()[1].spool_name))
    house.spool_path(house.instances()[3]).write_bytes(b"no longer DICOM")

    rebuilt = rebuild()
    report = reindex(rebuilt.context)

    assert len(report.damages) == 2
    assert rebuilt.states() == ["archived"] * 3
    assert [instance.spool_name is None for instance in rebuilt.instances()] == [True, True, False]
    rebuilt.assert_retrievable(archived)


def test_a_damaged_spool_file_is_entered_as_what_it_was_and_quarantined(
    house: House, rebuild: Callable[[], House]
) -> None:
    series = ct_series(3)
    house.receive(series)
    before = _index(house)
    damaged = house.instances()[1]
    flip_byte(house.spool_path(damaged), -100)

    rebuilt = rebuild()
    report = reindex(rebuilt.context)

    assert report.damages == (
        f"Spool file {damaged.spool_name}: The spool file no longer has the bytes that were received.",
    )
    assert rebuilt.states() == ["received", "quarantined", "received"]
    assert rebuilt.instances()[1].sha256 == damaged.sha256
    assert [event.sop_instance_uid for event in rebuilt.audits("quarantined")] == [damaged.sop_instance_uid]
    after = _index(rebuilt)
    after["instances"] = [row | {"state": "received"} for row in after["instances"]]
    assert after == before
    rebuilt.assert_retrievable([series[0], series[2]])
    with pytest.raises(IntegrityError):
        rebuilt.assert_retrievable([series[1]])
    rebuilt.work()
    assert rebuilt.states() == ["archived", "quarantined", "archived"]
    assert rebuilt.receive([series[1]]) == [Outcome.STORED]
    rebuilt.work()
    rebuilt.assert_archived(series)


def test_a_good_copy_of_a_damaged_spool_file_counts_whenever_it_came(
    house: House, rebuild: Callable[[], House]
) -> None:
    first, second = ct_series(2)
    for damaged_copy, good_copy in ((0, 1), (1, 0)):
        encoded = (first, second)[damaged_copy]
        copies = [house.spool(encoded), house.spool(encoded)]
        flip_byte(house.context.spool.path(str(copies[damaged_copy].spool_name)), -100)
        assert copies[good_copy].sha256 == copies[damaged_copy].sha256
    rebuilt = rebuild()
    assert len(reindex(rebuilt.context).damages) == 2
    assert rebuilt.states() == ["received"] * 2
    rebuilt.assert_retrievable([first, second])


def test_a_series_that_lies_in_two_containers_is_found_in_the_newer_one(
    house: House, rebuild: Callable[[], House]
) -> None:
    series = ct_series(2)
    house.receive(series)
    house.work()
    (container,) = house.containers()
    copy = house.context.work_dir / "copy"
    copy.write_bytes(house.container_path(container.key).read_bytes())
    key = "00/" + "0" * 32 + ".tfa"
    house.context.store.put(key, copy)
    rebuilt = rebuild()
    reindex(rebuilt.context)
    assert [row.key for row in rebuilt.containers()] == [key]
    rebuilt.assert_archived(series)


def test_an_empty_house_gives_an_empty_index(rebuild: Callable[[], House]) -> None:
    rebuilt = rebuild()
    assert reindex(rebuilt.context).instances == 0
