from dataclasses import replace

import pytest

from support.received import QUIET, new_uid, received, series_of, uids
from thinfilm_gateway.archive.objects import ObjectLocation
from thinfilm_gateway.index import archiving, cache
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.ingest import register_all
from thinfilm_gateway.index.levels import InvalidIdentifier, Level
from thinfilm_gateway.index.locate import InstanceLocation, locate, locate_instance
from thinfilm_gateway.index.states import InstanceState


def located(database: Database, level: Level, **keys: str | list[str]) -> list[InstanceLocation]:
    with database.reading() as session:
        return locate(session, level, keys)


def test_instances_are_found_by_the_unique_key_of_each_level(database: Database) -> None:
    batch = series_of(3)
    register_all(database, [*batch, received(PatientID="P2")], QUIET)
    one = batch[0]
    study, series = str(one.attributes.StudyInstanceUID), str(one.attributes.SeriesInstanceUID)
    for level, keys in (
        (Level.PATIENT, {"PatientID": "P1"}),
        (Level.STUDY, {"StudyInstanceUID": study}),
        (Level.STUDY, {"StudyInstanceUID": study, "PatientID": "P1"}),
        (Level.SERIES, {"SeriesInstanceUID": [series, new_uid()], "StudyInstanceUID": study}),
        (Level.IMAGE, {"SOPInstanceUID": "\\".join(uids(batch))}),
    ):
        assert [found.sop_instance_uid for found in located(database, level, **keys)] == uids(batch)


def test_a_key_of_an_upper_level_restricts(database: Database) -> None:
    one = received()
    register_all(database, [one], QUIET)
    assert located(database, Level.IMAGE, SOPInstanceUID=one.sop_instance_uid, PatientID="P2") == []
    assert located(database, Level.IMAGE, SOPInstanceUID=one.sop_instance_uid, StudyInstanceUID=[new_uid()]) == []


def test_the_key_of_the_level_must_be_there_and_a_patient_id_alone(database: Database) -> None:
    with pytest.raises(InvalidIdentifier, match="level SERIES needs SeriesInstanceUID"):
        located(database, Level.SERIES, StudyInstanceUID="1.2.3")
    with pytest.raises(InvalidIdentifier, match="single PatientID"):
        located(database, Level.PATIENT, PatientID=["P1", "P2"])


def test_wild_cards_are_no_wild_cards_here(database: Database) -> None:
    register_all(database, [received()], QUIET)
    assert located(database, Level.PATIENT, PatientID="*") == []
    assert located(database, Level.STUDY, StudyInstanceUID="2.25.*") == []


def test_a_location_tells_all_that_reading_needs(database: Database) -> None:
    batch = series_of(2)
    register_all(database, batch, QUIET)
    spooled = located(database, Level.IMAGE, SOPInstanceUID=batch[0].sop_instance_uid)[0]
    assert spooled.state is InstanceState.RECEIVED
    assert spooled.location == ObjectLocation(
        batch[0].spool_name, None, None, 300, batch[0].dataset_bytes, batch[0].sha256
    )
    with database.session() as session:
        placement = archiving.Placement(spooled.instance_pk, 4, 10)
        archiving.record_container(session, "shard/key", 10, ["zstd"], [placement])
        cache.forget(session, spooled.instance_pk)
    with database.reading() as session:
        archived = locate_instance(session, spooled.instance_pk)
        assert locate_instance(session, spooled.instance_pk + 10) is None
    assert archived is not None
    assert archived.location == replace(spooled.location, spool_name=None, container_key="shard/key", container_entry=4)


def test_instances_come_by_series_and_number_and_those_without_a_number_last(database: Database) -> None:
    shared = {"StudyInstanceUID": new_uid()}
    first, second = new_uid(), new_uid()
    numbers = [(first, 10), (second, 1), (first, 9), (first, None), (first, 2)]
    batch = [received(SeriesInstanceUID=series, InstanceNumber=number, **shared) for series, number in numbers]
    register_all(database, batch, QUIET)
    found = located(database, Level.STUDY, StudyInstanceUID=shared["StudyInstanceUID"])
    order = [uids(batch).index(one.sop_instance_uid) for one in found]
    assert order in ([4, 2, 0, 3, 1], [1, 4, 2, 0, 3])


def test_no_more_than_the_limit_are_located_the_first_ones(database: Database) -> None:
    batch = series_of(3)
    register_all(database, batch, QUIET)
    with database.reading() as session:
        found = locate(session, Level.PATIENT, {"PatientID": "P1"}, limit=2)
    assert [one.sop_instance_uid for one in found] == uids(batch)[:2]


def test_only_the_revision_that_is_served_is_located_and_the_quarantined_ones_as_such(database: Database) -> None:
    first = received(b"first")
    register_all(database, [first, received(b"second", first.attributes)], QUIET)
    (found,) = located(database, Level.PATIENT, PatientID="P1")
    assert found.location.sha256 == first.sha256
    with database.session() as session:
        archiving.quarantine(session, found.instance_pk, "It is damaged.")
    (found,) = located(database, Level.PATIENT, PatientID="P1")
    assert found.state is InstanceState.QUARANTINED


def test_a_list_of_more_uids_than_a_statement_has_parameters_is_answered(database: Database) -> None:
    one = received()
    register_all(database, [one], QUIET)
    many = [f"2.25.{number}" for number in range(70_000)]
    assert len(located(database, Level.IMAGE, SOPInstanceUID=[*many, one.sop_instance_uid])) == 1
