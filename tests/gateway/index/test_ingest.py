import datetime as dt
from collections import Counter
from dataclasses import replace
from typing import Any

import pydicom
import pytest
from pydicom.data import get_charset_files, get_testdata_file
from sqlalchemy import func, select, update

from support.received import EARLY, QUIET, new_uid, raw_attributes, received, series_of
from thinfilm_gateway.dicom.values import text
from thinfilm_gateway.index import archiving
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.ingest import Outcome, Received, UnindexableDataSet, register, register_all, required_uids
from thinfilm_gateway.index.models import AuditEvent, Instance, Job, Patient, Series, Study
from thinfilm_gateway.index.states import InstanceState, JobState


def rows_of(database: Database, *columns: Any) -> list[Any]:
    with database.reading() as session:
        return [tuple(row) for row in session.execute(select(*columns).order_by(*columns))]


def counts(database: Database) -> tuple[int, ...]:
    with database.reading() as session:
        models = (Patient, Study, Series, Instance, Job)
        return tuple(session.scalar(select(func.count()).select_from(model)) for model in models)


def events(database: Database) -> Counter[str]:
    return Counter(kind for (kind,) in rows_of(database, AuditEvent.kind))


def the_instance(database: Database, sop_instance_uid: str, revision: int = 1) -> Any:
    with database.reading() as session:
        statement = select(Instance).where(Instance.sop_instance_uid == sop_instance_uid, Instance.revision == revision)
        return session.scalars(statement).one()


def test_a_series_becomes_one_patient_one_study_one_series_and_one_job(database: Database) -> None:
    assert register_all(database, series_of(7), QUIET, EARLY) == [Outcome.STORED] * 7
    assert counts(database) == (1, 1, 1, 7, 1)
    assert rows_of(database, Job.kind, Job.state, Job.queue, Job.not_before, Job.attempts) == [
        ("compress", JobState.WAITING, "compress.cpu", EARLY + QUIET, 0)
    ]
    assert {state for (state,) in rows_of(database, Instance.state)} == {InstanceState.RECEIVED}


def test_each_arrival_puts_the_job_of_its_series_off(database: Database) -> None:
    shared = {"StudyInstanceUID": new_uid(), "SeriesInstanceUID": new_uid()}
    for seconds in (0, 10):
        register_all(database, [received(**shared)], QUIET, EARLY + dt.timedelta(seconds=seconds))
    assert rows_of(database, Job.not_before) == [(EARLY + dt.timedelta(seconds=10) + QUIET,)]


def test_the_index_keeps_what_queries_need(database: Database) -> None:
    dataset = raw_attributes(
        SpecificCharacterSet=b"ISO_IR 192",
        PatientName="Müller^Jürgen=山田^太郎=やまだ^たろう".encode(),
        IssuerOfPatientID=b"HOSPITAL",
        PatientBirthDate=b"1960.02.29",
        ReferringPhysicianName="Ørsted^Ælfred".encode(),
        StudyTime=b"0915",
        StudyDescription="Körper  CT ".encode(),
        PerformedProcedureStepStartTime=b"091501.5",
        NumberOfFrames=b"3 ",
        ContentDate=b"no date ",
    )
    one = received(dataset=dataset)
    register_all(database, [one], QUIET)
    with database.reading() as session:
        patient, study, series = (session.scalars(select(model)).one() for model in (Patient, Study, Series))
        instance = session.scalars(select(Instance)).one()
    assert patient.patient_name == "Müller^Jürgen=山田^太郎=やまだ^たろう"
    assert patient.patient_name_alphabetic_folded == "muller^jurgen"
    assert patient.patient_name_ideographic_folded == "山田^太郎"
    assert patient.patient_name_phonetic_folded == "やまだ^たろう"
    assert patient.specific_character_set == "ISO_IR 192"
    assert (patient.patient_birth_date, patient.patient_birth_date_folded) == ("1960.02.29", "19600229")
    assert study.referring_physician_name_alphabetic_folded == "orsted^aelfred"
    assert (study.study_time, study.study_time_folded) == ("0915", "091500000000")
    assert study.study_description == "Körper  CT"
    assert series.performed_procedure_step_start_time_folded == "091501500000"
    assert (instance.number_of_frames, instance.rows, instance.content_date) == (3, 512, "no date")
    assert instance.content_date_folded == ""
    assert instance.sha256 == one.sha256
    assert (instance.received_at, instance.sender_ae_title) == (EARLY, "SCANNER")


def test_the_same_bytes_again_are_stored_once(database: Database) -> None:
    batch = series_of(3)
    register_all(database, batch, QUIET)
    again = [replace(one, spool_name=f"again{number}") for number, one in enumerate(batch)]
    assert register_all(database, again, QUIET) == [Outcome.IDENTICAL] * 3
    assert counts(database) == (1, 1, 1, 3, 1)
    assert events(database) == {}


def test_the_same_bytes_twice_in_one_batch_are_stored_once(database: Database) -> None:
    one = received()
    outcomes = register_all(database, [one, replace(one, spool_name="other")], QUIET)
    assert outcomes == [Outcome.STORED, Outcome.IDENTICAL]
    assert rows_of(database, Instance.spool_name) == [(one.spool_name,)]


def test_other_content_under_a_known_uid_is_kept_beside_what_is_served(database: Database) -> None:
    first = received(b"first")
    second = received(b"second", first.attributes)
    assert register_all(database, [first], QUIET) == [Outcome.STORED]
    assert register_all(database, [second], QUIET) == [Outcome.CONFLICT]
    assert rows_of(database, Instance.revision, Instance.current, Instance.sha256, Instance.state) == [
        (1, True, first.sha256, InstanceState.RECEIVED),
        (2, False, second.sha256, InstanceState.RECEIVED),
    ]
    assert events(database) == {"content_conflict": 1}
    for known in (first, second):
        assert register_all(database, [replace(known, spool_name="new")], QUIET) == [Outcome.IDENTICAL]


def test_two_contents_of_one_uid_in_one_batch_are_both_kept(database: Database) -> None:
    first = received(b"first")
    outcomes = register_all(database, [first, received(b"second", first.attributes)], QUIET)
    assert outcomes == [Outcome.STORED, Outcome.CONFLICT]
    assert rows_of(database, Instance.revision) == [(1,), (2,)]


def test_the_same_bytes_in_another_transfer_syntax_are_other_content(database: Database) -> None:
    one = received(b"same")
    other = replace(one, transfer_syntax_uid="1.2.840.10008.1.2", spool_name="other")
    assert register_all(database, [one, other], QUIET) == [Outcome.STORED, Outcome.CONFLICT]


def test_a_known_uid_in_another_study_is_kept_there_as_a_mismatch(database: Database) -> None:
    first = received(b"first")
    moved = received(b"moved", SOPInstanceUID=first.sop_instance_uid, PatientID="P2")
    assert register_all(database, [first, moved], QUIET) == [Outcome.STORED, Outcome.CONFLICT]
    assert events(database) == {"relational_mismatch": 1}
    assert counts(database) == (2, 2, 2, 2, 2)  # it is compressed there too


def test_an_identical_copy_heals_a_quarantined_instance(database: Database) -> None:
    one = received()
    register_all(database, [one], QUIET)
    with database.session() as session:
        pk = the_instance(database, one.sop_instance_uid).id
        archiving.record_container(session, "key", 10, ["zstd"], [archiving.Placement(pk, 0, 10)])
        archiving.quarantine(session, pk, "It is damaged.")
    fresh = replace(one, spool_name="fresh", dataset_offset=400)
    assert register_all(database, [fresh, replace(one, spool_name="next")], QUIET) == [
        Outcome.STORED,
        Outcome.IDENTICAL,
    ]
    healed = the_instance(database, one.sop_instance_uid)
    assert (healed.state, healed.spool_name, healed.dataset_offset) == (InstanceState.RECEIVED, "fresh", 400)
    assert (healed.container_pk, healed.container_entry, healed.stored_bytes) == (None, None, None)
    assert events(database) == {"quarantined": 1, "healed": 1}


def test_an_identical_copy_heals_an_instance_whose_bytes_are_lost(database: Database) -> None:
    one = replace(received(), spool_name=None)
    register_all(database, [one], QUIET)
    assert register_all(database, [replace(one, spool_name="found")], QUIET) == [Outcome.STORED]
    assert the_instance(database, one.sop_instance_uid).spool_name == "found"


def test_a_copy_that_heals_renews_what_was_read_out_of_damaged_bytes(database: Database) -> None:
    true = received(b"true", InstanceNumber=7)
    misread = raw_attributes(
        SOPInstanceUID=true.sop_instance_uid.encode(), InstanceNumber=b"9", StudyInstanceUID=new_uid().encode()
    )
    register_all(database, [replace(true, attributes=misread, dataset_bytes=1)], QUIET)
    with database.session() as session:
        archiving.quarantine(session, the_instance(database, true.sop_instance_uid).id, "It is damaged.")
    assert register_all(database, [replace(true, spool_name="fresh")], QUIET) == [Outcome.STORED]
    healed = the_instance(database, true.sop_instance_uid)
    assert (healed.instance_number, healed.dataset_bytes) == (7, 4)
    assert (text(true.attributes, "StudyInstanceUID"),) in rows_of(database, Study.study_instance_uid)
    with database.reading() as session:
        assert session.get_one(Series, healed.series_pk).series_instance_uid == text(
            true.attributes, "SeriesInstanceUID"
        )


def test_an_object_entered_by_an_attempt_that_was_not_confirmed_is_stored_not_identical(database: Database) -> None:
    one = received()
    assert [register_all(database, [one], QUIET) for _ in range(2)] == [[Outcome.STORED]] * 2
    assert rows_of(database, Instance.spool_name) == [(one.spool_name,)]


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_a_data_set_without_a_uid_is_refused_and_its_batch_with_it(database: Database, keyword: str) -> None:
    lacking = received(**{keyword: None})
    with pytest.raises(UnindexableDataSet, match="has no"):
        register_all(database, [received(), lacking], QUIET)
    assert counts(database) == (0, 0, 0, 0, 0)


def test_a_uid_that_no_index_can_hold_is_refused() -> None:
    with pytest.raises(UnindexableDataSet, match=r"Study Instance UID .* is not a UID"):
        required_uids(raw_attributes(StudyInstanceUID=b"1." * 500))


def test_the_uids_are_read_without_padding() -> None:
    uids = required_uids(raw_attributes(StudyInstanceUID=b"1.2.3\0", SOPClassUID=b""))
    assert (uids.study_instance_uid, uids.sop_class_uid) == ("1.2.3", "")


def test_a_series_uid_may_occur_in_two_studies(database: Database) -> None:
    shared = new_uid()
    register_all(database, [received(SeriesInstanceUID=shared), received(SeriesInstanceUID=shared)], QUIET)
    assert counts(database)[1:3] == (2, 2)


def test_one_patient_has_many_studies_but_only_within_its_issuer(database: Database) -> None:
    batch = [received(), received(), received(IssuerOfPatientID="OTHER")]
    register_all(database, batch, QUIET)
    register_all(database, [received()], QUIET)
    assert counts(database)[:2] == (2, 4)


def test_without_a_patient_id_each_study_has_a_patient_of_its_own(database: Database) -> None:
    study = new_uid()
    unknown = [received(PatientID="", StudyInstanceUID=study), received(PatientID=None, StudyInstanceUID=study)]
    register_all(database, [*unknown, received(PatientID="")], QUIET)
    assert counts(database)[:2] == (2, 2)


def test_a_study_with_two_patient_ids_is_of_both_and_the_first_describes_it(database: Database) -> None:
    study = new_uid()
    register_all(database, [received(StudyInstanceUID=study, StudyDescription="first")], QUIET)
    register_all(database, [received(StudyInstanceUID=study, PatientID="P2", StudyDescription="second")], QUIET)
    assert sorted(rows_of(database, Patient.patient_id)) == [("P1",), ("P2",)]
    assert rows_of(database, Study.study_description) == [("first",)]


BAD_VALUES = {
    "PatientName": [b"\0\0Doe^J\0ne", b"\xff\xfe\x80" * 50, b"x" * 100_000, b"\x1b$B\x1b", b"a=b=c=d=e"],
    "PatientID": [b"P\0" + b"\xf0\x9f" * 5000, b"one\\two"],
    "PatientBirthDate": [b"yesterday", b"20260231", b"2" * 5000],
    "StudyDate": [b"20260101-20260102", b"\0" * 8],
    "StudyTime": [b"25", b"10:15:60.1234567", b"-1"],
    "AccessionNumber": [b"A" * 9000, "Ä".encode() * 3000],
    "SeriesNumber": [b"99999999999999999999", b"1.0", b"one", b"9223372036854775808", b""],
    "InstanceNumber": [b"1\\2", b"\xb2"],
    "Rows": [b"\x01", b"\x01\x02\x03\x04", b""],
    "SpecificCharacterSet": [b"KLINGON", b"\\\\", b"ISO_IR 192\\ISO 2022 IR 87", b"\xff"],
    "Modality": [b"C" * 3000],
}


@pytest.mark.parametrize("keyword", BAD_VALUES)
def test_a_bad_value_never_fails_ingest(database: Database, keyword: str) -> None:
    batch = [received(dataset=raw_attributes(**{keyword: value})) for value in BAD_VALUES[keyword]]
    assert register_all(database, batch, QUIET) == [Outcome.STORED] * len(batch)


def test_text_that_no_database_holds_is_replaced_and_the_rest_kept(database: Database) -> None:
    register_all(database, [received(dataset=raw_attributes(StudyDescription=b"left\0right"))], QUIET)
    register_all(database, [received(StudyDescription="lone \udc80 surrogate")], QUIET)
    assert rows_of(database, Study.study_description) == [("left right",), ("lone ? surrogate",)]


def test_values_longer_than_the_standard_allows_are_kept_whole(database: Database) -> None:
    register_all(database, [received(dataset=raw_attributes(StudyDescription=b"d" * 70_000))], QUIET)
    assert rows_of(database, func.length(Study.study_description)) == [(70_000,)]


def test_real_objects_are_registered(database: Database) -> None:
    names = ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "test-SR.dcm")
    paths = [get_testdata_file(name, download=False) for name in names] + get_charset_files("*.dcm")
    batch = [_from_file(str(path)) for path in paths]
    assert register_all(database, batch, QUIET) == [Outcome.STORED] * len(batch)
    found = {name for (name,) in rows_of(database, Patient.patient_name)}
    assert {"CompressedSamples^CT1", "Yamada^Tarou=山田^太郎=やまだ^たろう", "Hong^Gildong=洪^吉洞=홍^길동"} <= found


def _from_file(path: str) -> Received:
    dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    own = {
        "SOPInstanceUID": new_uid(),
        "StudyInstanceUID": new_uid(),
        "SeriesInstanceUID": new_uid(),
        "PatientID": new_uid(),
    }
    for keyword, value in own.items():
        setattr(dataset, keyword, value)
    return received(path.encode(), dataset)


def test_one_object_can_be_entered_in_a_transaction_of_the_caller(database: Database) -> None:
    one = received()
    with database.session() as session:
        assert register(session, one, QUIET) is Outcome.STORED
        session.rollback()
    assert counts(database) == (0, 0, 0, 0, 0)
    with database.session() as session:
        assert register(session, one, QUIET) is Outcome.STORED
        assert register(session, replace(one, spool_name="again"), QUIET) is Outcome.IDENTICAL
    assert counts(database) == (1, 1, 1, 1, 1)


def test_an_empty_batch_is_nothing_to_do(database: Database) -> None:
    assert register_all(database, [], QUIET) == []


def test_a_late_arrival_makes_a_further_job_while_the_first_runs(database: Database) -> None:
    shared = {"StudyInstanceUID": new_uid(), "SeriesInstanceUID": new_uid()}
    register_all(database, [received(**shared)], QUIET)
    with database.session() as session:
        session.execute(update(Job).values(state=JobState.RUNNING))
    register_all(database, [received(**shared)], QUIET)
    register_all(database, [received(**shared)], QUIET)
    assert rows_of(database, Job.state) == [(JobState.RUNNING,), (JobState.WAITING,)]
