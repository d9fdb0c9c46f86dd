"""Whose a study is: as its objects say, in both roots, on both databases."""

import uuid
from typing import Any

import pytest
from sqlalchemy import select, text

from support.received import QUIET, new_uid, received, uids
from support.servers import PostgresServer
from thinfilm_gateway.index.database import MIGRATIONS, Database
from thinfilm_gateway.index.find import Query, Root, find
from thinfilm_gateway.index.ingest import Received, register_all
from thinfilm_gateway.index.levels import Level
from thinfilm_gateway.index.locate import locate
from thinfilm_gateway.index.models import AuditEvent
from thinfilm_gateway.index.status import problems

ANNA = {"PatientName": "Miller^Anna", "PatientBirthDate": "19700101", "PatientSex": "F"}
BEN = {"PatientName": "Baker^Ben", "PatientBirthDate": "19550505", "PatientSex": "M"}


def ask(database: Database, level: Level, root: Root = Root.STUDY, **keys: Any) -> list[dict[str, Any]]:
    with database.reading() as session:
        return [dict(match.values) for match in find(session, Query(level, root, keys))]


def store(database: Database, *objects: Received, **options: Any) -> None:
    register_all(database, list(objects), QUIET, **options)


def located(database: Database, level: Level, **keys: Any) -> set[str]:
    with database.reading() as session:
        return {one.sop_instance_uid for one in locate(session, level, keys)}


def noted(database: Database) -> list[str]:
    with database.reading() as session:
        return list(session.scalars(select(AuditEvent.detail).where(AuditEvent.kind == "patient_mismatch")))


def reported(database: Database) -> list[tuple[str, str]]:
    with database.reading() as session:
        return [(one.uid, one.reason) for one in problems(session) if one.kind == "patient_mismatch"]


@pytest.mark.parametrize("level", [Level.STUDY, Level.SERIES, Level.IMAGE])
def test_each_study_of_a_patient_id_is_found_by_the_patient_that_it_shows(database: Database, level: Level) -> None:
    first, second = received(**ANNA), received(**BEN)
    store(database, first)
    store(database, second)
    for one, shown, other in ((first, ANNA, BEN), (second, BEN, ANNA)):
        study = str(one.attributes.StudyInstanceUID)
        (match,) = ask(database, level, StudyInstanceUID=study, **dict.fromkeys(ANNA, ""))
        assert {keyword: match[keyword] for keyword in ANNA} == shown
        for keyword, value in shown.items():
            (match,) = ask(database, level, PatientID="P1", **{keyword: value})
            assert match["StudyInstanceUID"] == study
            assert ask(database, level, StudyInstanceUID=study, **{keyword: other[keyword]}) == []


def test_the_patient_root_answers_from_the_patient(database: Database) -> None:
    store(database, received(**ANNA))
    store(database, received(**BEN))
    (patient,) = ask(database, Level.PATIENT, Root.PATIENT, PatientName="", NumberOfPatientRelatedStudies="")
    assert patient == {"PatientID": "P1", "PatientName": "Miller^Anna", "NumberOfPatientRelatedStudies": 2}
    studies = ask(database, Level.STUDY, Root.PATIENT, PatientID="P1", PatientName="")
    assert {study["PatientName"] for study in studies} == {"Miller^Anna"}
    assert len(studies) == 2


def test_what_differs_is_noted_and_reported_without_patient_data(database: Database) -> None:
    store(database, received(**ANNA))
    assert noted(database) == reported(database) == []
    other = received(**BEN)
    store(database, other, received(PatientName="MILLER^ANNA", PatientBirthDate="19700101", PatientSex=""))
    study = str(other.attributes.StudyInstanceUID)
    sentence = f"Study {study} has another name, birth date and sex than first came under its Patient ID."
    assert noted(database) == [sentence]
    assert reported(database) == [(study, sentence)]


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("in_one_series", [True, False])
def test_a_study_with_two_patient_ids_is_found_retrieved_and_reported_by_each(
    database: Database, at_once: bool, in_one_series: bool
) -> None:
    shared = {"StudyInstanceUID": new_uid()} | ({"SeriesInstanceUID": new_uid()} if in_one_series else {})
    both = [received(PatientID="P1", **shared, **ANNA), received(PatientID="P2", **shared, **BEN)]
    for batch in [both] if at_once else [both[:1], both[1:]]:
        store(database, *batch)
    for patient_id, name in (("P1", "Miller^Anna"), ("P2", "Baker^Ben")):
        (study,) = ask(database, Level.STUDY, PatientID=patient_id, PatientName="")
        assert (study["PatientID"], study["PatientName"]) == (patient_id, name)
        (study,) = ask(database, Level.STUDY, Root.PATIENT, PatientID=patient_id, NumberOfStudyRelatedInstances="")
        assert study["NumberOfStudyRelatedInstances"] == 2
        (patient,) = ask(database, Level.PATIENT, Root.PATIENT, PatientID=patient_id, PatientName="",
                         NumberOfPatientRelatedInstances="")  # fmt: skip
        assert (patient["PatientName"], patient["NumberOfPatientRelatedInstances"]) == (name, 2)
        assert len(ask(database, Level.IMAGE, Root.PATIENT, PatientID=patient_id)) == 2
        assert located(database, Level.PATIENT, PatientID=patient_id) == set(uids(both))
        assert located(database, Level.STUDY, PatientID=patient_id, **{"StudyInstanceUID": shared["StudyInstanceUID"]})
    (study,) = ask(database, Level.STUDY, PatientID="")
    assert study["PatientID"] == "P1"
    images = ask(database, Level.IMAGE, PatientID="")
    assert {image["SOPInstanceUID"]: image["PatientID"] for image in images} == {
        both[0].sop_instance_uid: "P1",
        both[1].sop_instance_uid: "P2",
    }
    assert any("objects of several Patient IDs" in sentence for sentence in noted(database))
    assert [uid for uid, _ in reported(database)] == [shared["StudyInstanceUID"]]


def test_the_issuer_tells_patients_of_one_id_apart(database: Database) -> None:
    here, there = received(IssuerOfPatientID="HERE", **ANNA), received(IssuerOfPatientID="THERE", **BEN)
    store(database, here, there)
    for issuer, one in (("HERE", here), ("THERE", there)):
        (patient,) = ask(database, Level.PATIENT, Root.PATIENT, IssuerOfPatientID=issuer, PatientName="")
        assert (patient["PatientName"], patient["IssuerOfPatientID"]) == (str(one.attributes.PatientName), issuer)
        (study,) = ask(database, Level.STUDY, PatientID="P1", IssuerOfPatientID=issuer)
        assert study["StudyInstanceUID"] == one.attributes.StudyInstanceUID
        found = located(database, Level.PATIENT, PatientID="P1", IssuerOfPatientID=issuer)
        assert found == {one.sop_instance_uid}
    assert reported(database) == []


def test_studies_without_a_patient_id_are_each_their_own_patient(database: Database) -> None:
    store(database, received(PatientID="", **ANNA), received(PatientID="", **BEN))
    names = {one["PatientName"] for one in ask(database, Level.PATIENT, Root.PATIENT, PatientName="")}
    assert names == {"Miller^Anna", "Baker^Ben"}
    assert reported(database) == []


@pytest.mark.parametrize("root", [Root.PATIENT, Root.STUDY])
def test_what_is_found_of_a_version_is_what_is_served(database: Database, root: Root) -> None:
    old = {"PatientID": "P1", "StudyDescription": "wrong", "SeriesDescription": "wrong", "Modality": "OT", **ANNA}
    new = {"PatientID": "P2", "StudyDescription": "right", "SeriesDescription": "right", "Modality": "CT", **BEN}
    shared = {"StudyInstanceUID": new_uid(), "SeriesInstanceUID": new_uid(), "SOPInstanceUID": new_uid()}
    store(database, received(b"old", **(shared | old)), duplicates="version")
    store(database, received(b"new", **(shared | new)), duplicates="version")
    (series,) = ask(database, Level.SERIES, root, **dict.fromkeys(new, ""))
    assert {keyword: series[keyword] for keyword in new} == new
    assert ask(database, Level.SERIES, root, PatientID="P1") == []
    assert ask(database, Level.STUDY, root, PatientName="Miller*") == []
    assert located(database, Level.PATIENT, PatientID="P1") == set()
    assert located(database, Level.PATIENT, PatientID="P2") == {shared["SOPInstanceUID"]}
    if root is Root.PATIENT:
        assert [one["PatientID"] for one in ask(database, Level.PATIENT, root)] == ["P2"]


def test_a_version_corrects_the_name_of_its_patient_in_both_roots(database: Database) -> None:
    first = received(b"old", PatientName="Milller^Anna")
    store(database, first, duplicates="version")
    first.attributes.PatientName = "Miller^Anna"
    store(database, received(b"new", first.attributes), duplicates="version")
    for root in Root:
        (study,) = ask(database, Level.STUDY, root, PatientName="")
        assert study["PatientName"] == "Miller^Anna"
    assert reported(database) == []


def test_a_further_revision_that_is_not_served_changes_nothing_that_is_found(database: Database) -> None:
    first = received(b"first", **ANNA)
    store(database, first)
    uid = first.attributes.StudyInstanceUID
    second = received(
        b"second", SOPInstanceUID=first.sop_instance_uid, StudyInstanceUID=uid, PatientID="P2", StudyID="X", **BEN
    )
    store(database, second)
    (study,) = ask(database, Level.STUDY, PatientID="", PatientName="", StudyID="")
    assert (study["PatientID"], study["PatientName"], study["StudyID"]) == ("P1", "Miller^Anna", "S1")
    assert ask(database, Level.PATIENT, Root.PATIENT, PatientID="P2") == []


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_index_from_before_shows_its_patients_as_it_did(kind: str, request: Any, tmp_path: Any) -> None:
    from alembic import command
    from alembic.config import Config

    url = f"sqlite:///{tmp_path / 'old.sqlite'}"
    if kind == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.create_database(f"old_{uuid.uuid4().hex}")
    database = Database(url)
    database.upgrade()
    store(database, received(**ANNA), received(PatientID="P2", **BEN))
    keys = {"PatientName": "", "PatientID": "", "PatientBirthDate": ""}
    before = ask(database, Level.IMAGE, **keys)
    configuration = Config()
    configuration.set_main_option("script_location", str(MIGRATIONS))
    with database.migrating() as connection:
        configuration.attributes["connection"] = connection
        command.downgrade(configuration, "0008")
    database.upgrade()
    assert sorted(ask(database, Level.IMAGE, **keys), key=repr) == sorted(before, key=repr)
    with database.reading() as session:
        assert session.scalar(text("SELECT count(*) FROM instances WHERE study_patient_pk IS NULL")) == 0
        if kind == "sqlite":
            assert session.execute(text("PRAGMA foreign_key_check")).all() == []
    store(database, received(**ANNA))
    database.dispose()
