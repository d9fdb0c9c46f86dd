from typing import Any

import pytest

from support.received import QUIET, new_uid, raw_attributes, received, series_of, uids
from thinfilm_gateway.index import archiving
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.derived import DERIVED_ATTRIBUTES
from thinfilm_gateway.index.find import Query, Root, find
from thinfilm_gateway.index.ingest import register_all
from thinfilm_gateway.index.keys import KEY_ATTRIBUTES
from thinfilm_gateway.index.levels import InvalidIdentifier, Level
from thinfilm_gateway.index.locate import locate


def ask(database: Database, level: Level, root: Root = Root.PATIENT, **keys: Any) -> list[dict[str, Any]]:
    with database.reading() as session:
        return [dict(match.values) for match in find(session, Query(level, root, keys, "THINFILM"))]


def store(database: Database, *objects: Any) -> None:
    register_all(database, list(objects), QUIET)


def found(database: Database, keyword: str, value: Any, level: Level = Level.STUDY) -> set[str]:
    """The Study IDs of what matches."""
    return {match["StudyID"] for match in ask(database, level, StudyID="", **{keyword: value})}


def test_every_level_answers_with_its_keys_and_those_above(database: Database) -> None:
    batch = series_of(3, PatientSex="F", StudyDescription="Knee", SeriesNumber=4)
    store(database, *batch)
    study, series = str(batch[0].attributes.StudyInstanceUID), str(batch[0].attributes.SeriesInstanceUID)
    assert ask(database, Level.PATIENT, PatientName="", PatientSex="") == [
        {"PatientID": "P1", "PatientName": "Doe^Jane", "PatientSex": "F"}
    ]
    assert ask(database, Level.STUDY, Root.STUDY, StudyDescription="", PatientName="") == [
        {"StudyInstanceUID": study, "StudyDescription": "Knee", "PatientName": "Doe^Jane"}
    ]
    assert ask(database, Level.SERIES, Modality="", SeriesNumber="", StudyInstanceUID=study) == [
        {"PatientID": "P1", "StudyInstanceUID": study, "SeriesInstanceUID": series, "Modality": "CT", "SeriesNumber": 4}
    ]
    images = ask(database, Level.IMAGE, Rows="", NumberOfFrames="", SOPClassUID="")
    assert {image["SOPInstanceUID"] for image in images} == set(uids(batch))
    assert {(image["Rows"], image["NumberOfFrames"]) for image in images} == {(512, "")}


def test_an_empty_index_answers_every_key_with_nothing(database: Database) -> None:
    for level in Level:
        assert ask(database, level, **dict.fromkeys([*KEY_ATTRIBUTES, *DERIVED_ATTRIBUTES, "Bogus"], "")) == []


def test_counts_and_lists_are_of_what_lies_below(database: Database) -> None:
    study = new_uid()
    for modality, count in (("CT", 3), ("SR", 1), ("", 1)):
        store(database, *series_of(count, StudyInstanceUID=study, Modality=modality))
    store(database, received(SOPClassUID="1.2.3"))
    counted = dict.fromkeys(DERIVED_ATTRIBUTES, "")
    (patient,) = ask(database, Level.PATIENT, **counted)
    assert [patient[f"NumberOfPatientRelated{what}"] for what in ("Studies", "Series", "Instances")] == [2, 4, 6]
    (one,) = ask(database, Level.STUDY, **(counted | {"StudyInstanceUID": study}))
    assert (one["NumberOfStudyRelatedSeries"], one["NumberOfStudyRelatedInstances"]) == (3, 5)
    assert one["ModalitiesInStudy"] == ["CT", "SR"]
    assert one["SOPClassesInStudy"] == ["1.2.840.10008.5.1.4.1.1.2"]
    assert one["NumberOfPatientRelatedInstances"] == 6
    series = ask(database, Level.SERIES, **(counted | {"StudyInstanceUID": study}))
    assert sorted(one["NumberOfSeriesRelatedInstances"] for one in series) == [1, 1, 3]
    assert {one["NumberOfStudyRelatedSeries"] for one in series} == {3}


def test_a_study_matches_by_any_of_its_modalities_and_classes(database: Database) -> None:
    for study_id, modalities in (("S1", ("CT", "SR")), ("S2", ("MR",)), ("S3", ("PT", "CT"))):
        study = new_uid()
        store(database, *[received(StudyID=study_id, StudyInstanceUID=study, Modality=one) for one in modalities])
    store(database, received(StudyID="S4", Modality="XA", SOPClassUID="1.2.3"))
    assert found(database, "ModalitiesInStudy", "CT") == {"S1", "S3"}
    assert found(database, "ModalitiesInStudy", "MR\\SR") == {"S1", "S2"}
    assert found(database, "ModalitiesInStudy", "?T") == {"S1", "S3"}
    assert found(database, "SOPClassesInStudy", ["1.2.3", "1.2.4"]) == {"S4"}
    assert found(database, "ModalitiesInStudy", "CT", Level.SERIES) == {"S1", "S3"}


NAMES = {
    "S1": "Müller^Jürgen^^Dr.",
    "S2": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "S3": "DOE^JANE^^^",
    "S4": "Doe^Janet",
    "S5": "O'Neil [x]%_*^?",
    "S6": "",
}


@pytest.mark.parametrize(
    ("key", "matches"),
    [
        ("muller^jurgen^^dr.", {"S1"}),
        ("MÜLLER*", {"S1"}),
        ("*jürgen*", {"S1"}),
        ("doe^jane", {"S3"}),
        ("Doe^Jane^", {"S3"}),
        ("doe^jane*", {"S3", "S4"}),
        ("doe^jane^*", {"S3"}),
        ("doe^jane?", {"S4"}),
        ("doe", set()),
        ("doe^*", {"S3", "S4"}),
        ("yamada^tarou", {"S2"}),
        ("山田^*", {"S2"}),
        ("やまだ*", {"S2"}),
        ("yamada*=山田*", {"S2"}),
        ("=山田*", {"S2"}),
        ("yamada*=doe*", set()),
        ("*=*", set(NAMES)),
        ("*", set(NAMES)),
        ("*^*", set(NAMES)),
        ("", set(NAMES)),
        ("?*", set(NAMES) - {"S6"}),
        ("o'neil [x]%_*", {"S5"}),
        ("o'neil [xy]*", set()),
        ("o'neil*%*", {"S5"}),
        ("doe^jane\\doe^janet", {"S3", "S4"}),
        ("nobody\\*", set(NAMES)),
    ],
)
def test_names_match_without_case_and_accents_by_component_group(
    database: Database, key: str, matches: set[str]
) -> None:
    for study_id, name in NAMES.items():
        raw = raw_attributes(SpecificCharacterSet=b"ISO_IR 192", PatientName=name.encode(), StudyID=study_id.encode())
        raw.PatientID = study_id
        store(database, received(dataset=raw))
    assert found(database, "PatientName", key) == matches


@pytest.mark.parametrize(
    ("key", "matches"),
    [
        ("Knee left", {"S1"}),
        ("knee left", {"S1"}),
        ("KNÉE LEFT", {"S1"}),
        ("Knee*", {"S1", "S2", "S3"}),
        ("*LEFT", {"S1"}),
        ("K?ee*", {"S1", "S2", "S3"}),
        ("*%*", {"S4"}),
        ("*[[]*", set()),
        ("*[a-z]*", {"S4"}),
        ("100% [a-z]_x", {"S4"}),
        ("100__[a-z]_x", set()),
        ("?", set()),
        ("   ", {"S1", "S2", "S3", "S4", "S5"}),
    ],
)
def test_descriptions_match_without_case_and_accents(database: Database, key: str, matches: set[str]) -> None:
    texts = ("Knee left", "Knee right", "knee both", "100% [a-z]_x", "")
    for number, description in enumerate(texts, 1):
        described = {"StudyDescription": description, "SeriesDescription": description, "ProtocolName": description}
        store(database, received(StudyID=f"S{number}", **described))
    assert found(database, "StudyDescription", key) == matches
    assert found(database, "SeriesDescription", key) == matches
    assert found(database, "ProtocolName", key) == matches


def test_identifiers_and_codes_match_with_case(database: Database) -> None:
    values = dict.fromkeys(("PatientID", "AccessionNumber", "StudyID", "BodyPartExamined"), b"Ab1")
    store(database, received(dataset=raw_attributes(**values)))
    for keyword in values:
        assert [one[keyword] for one in ask(database, Level.SERIES, **{keyword: "Ab*"})] == ["Ab1"]
        assert ask(database, Level.SERIES, **{keyword: "ab*"}) == []


FURTHER: dict[str, tuple[Level, str, list[str], list[str]]] = {
    # keyword: level, value, keys that match, keys that do not
    "PatientComments": (Level.PATIENT, "Läuft \\ wieder", ["*lauft*", "LÄUFT ? WIEDER"], ["wieder"]),
    "PatientBirthTime": (Level.PATIENT, "0315", ["03", "-04"], ["04"]),
    "OtherPatientNames": (Level.PATIENT, "Smith^Ann\\Müller^Ann", ["muller*", "SMITH^ANN"], ["ann*"]),
    "PatientAge": (Level.STUDY, "042Y", ["042Y", "04?Y"], ["042M"]),
    "PatientWeight": (Level.STUDY, "70.50", ["70.5", "7.05e1"], ["70"]),
    "NameOfPhysiciansReadingStudy": (Level.STUDY, "Doe^John=山田", ["doe*", "=山田"], ["roe*"]),
    "AdmittingDiagnosesDescription": (Level.STUDY, "MR Knie", ["*knie*", "mr kn?e"], ["knie"]),
    "SeriesDate": (Level.SERIES, "20260102", ["20260101-20260103", "2026.01.02"], ["20260103-"]),
    "SeriesTime": (Level.SERIES, "101500", ["10", "1000-1030"], ["11"]),
    "OperatorsName": (Level.SERIES, "Ørsted^Åse", ["orsted*", "ØRSTED^ÅSE"], ["ase*"]),
    "InstitutionName": (Level.SERIES, "Klinik Süd", ["klinik sud", "*süd"], ["klinik"]),
    "SequenceVariant": (Level.SERIES, "SK\\SP", ["SK", "S?", "XX\\SP"], ["SK*X", "sk"]),
    "FrameOfReferenceUID": (Level.SERIES, "2.25.9", ["2.25.9", "2.25.8\\2.25.9"], ["2.25.8"]),
    "ImageType": (Level.IMAGE, "DERIVED\\SECONDARY\\MPR", ["MPR", "DER*"], ["ORIGINAL"]),
    "AcquisitionNumber": (Level.IMAGE, "3", ["3", "03"], ["4"]),
    "AcquisitionDate": (Level.IMAGE, "20260102", ["20260102", "-20260103"], ["-20260101"]),
    "AcquisitionDateTime": (
        Level.IMAGE,
        "20260102101500.25+0100",
        ["20260102", "20260102101500.25+0100", "20260101-2026010211", "2026-"],
        ["2025", "-20260102101500.1", "2027-"],
    ),
    "SliceThickness": (Level.IMAGE, "1.250", ["1.25"], ["1.2", "1"]),
    "PixelSpacing": (Level.IMAGE, "0.5\\0.25", [".25", "5e-1"], ["1"]),
    "BitsAllocated": (Level.IMAGE, "16", ["16"], ["8"]),
    "ImageComments": (Level.IMAGE, "'\"{}[]%_", ['*"{*', '?"{}[]%_'], ["{"]),
}


def test_what_viewers_ask_for_is_told_as_it_came_and_matched_as_its_kind_is(database: Database) -> None:
    raw = {name: value.encode() if name != "BitsAllocated" else b"\x10\0" for name, (_, value, *_) in FURTHER.items()}
    store(
        database, received(dataset=raw_attributes(SpecificCharacterSet=b"ISO_IR 192", **raw)), received(PatientID="P2")
    )
    for keyword, (level, value, matching, others) in FURTHER.items():
        assert {one[keyword] for one in ask(database, level, **{keyword: ""})} == {value, ""}
        for key in matching:
            assert [one[keyword] for one in ask(database, Level.IMAGE, **{keyword: key})] == [value], (keyword, key)
            assert len(ask(database, Level.STUDY, Root.STUDY, **{keyword: key})) == 1, (keyword, key)
        for key in others:
            assert ask(database, Level.IMAGE, **{keyword: key}) == [], (keyword, key)
            assert ask(database, Level.STUDY, Root.STUDY, **{keyword: key}) == [], (keyword, key)


def test_a_study_tells_the_institution_and_the_device_of_its_first_series_that_has_them(database: Database) -> None:
    study = new_uid()
    store(database, received(StudyInstanceUID=study), received(StudyInstanceUID=study, InstitutionName="North"))
    store(database, received(StudyInstanceUID=study, InstitutionName="South", Manufacturer="Maker"))
    query = Query(Level.STUDY, Root.STUDY, {"InstitutionName": "", "Manufacturer": ""})
    assert query.unsupported == ()
    with database.reading() as session:
        (match,) = find(session, query)
    assert (match.values["InstitutionName"], match.values["Manufacturer"]) == ("North", "Maker")
    assert len(ask(database, Level.STUDY, InstitutionName="south")) == 1
    assert ask(database, Level.STUDY, InstitutionName="west") == []


def test_values_that_are_none_of_their_kind_are_told_and_match_nothing(database: Database) -> None:
    wrong = {
        "SliceThickness": b"thin\0\x01",
        "AcquisitionDate": b"soon",
        "WindowCenter": b"1e999\\.",
        "PatientSize": b"-",
    }
    store(database, received(dataset=raw_attributes(**wrong)))
    (match,) = ask(database, Level.IMAGE, **dict.fromkeys(wrong, ""))
    assert match["SliceThickness"] == "thin \x01"
    assert (match["AcquisitionDate"], match["WindowCenter"], match["PatientSize"]) == ("soon", "1e999\\.", "-")
    for keyword, key in {"SliceThickness": "0", "AcquisitionDate": "19000101-", "WindowCenter": "0"}.items():
        assert ask(database, Level.IMAGE, **{keyword: key}) == [], keyword


@pytest.mark.parametrize(
    ("key", "matches"),
    [
        ("20260504", {"S2", "S3"}),
        ("2026.05.04", {"S2", "S3"}),
        ("20260503-20260504", {"S1", "S2", "S3"}),
        ("-20260503", {"S1"}),
        ("20260504-", {"S2", "S3", "S4"}),
        ("20260505 - 20260601", {"S4"}),
        ("20260601-20260505", set()),
        ("19000101-", {"S1", "S2", "S3", "S4"}),
        ("-29991231", {"S1", "S2", "S3", "S4"}),
        ("", {"S1", "S2", "S3", "S4", "S5", "S6"}),
        ("*", {"S1", "S2", "S3", "S4", "S5", "S6"}),
    ],
)
def test_dates_match_by_value_and_range(database: Database, key: str, matches: set[str]) -> None:
    dates = (b"20260503", b"20260504", b"2026.05.04", b"20260505", b"", b"last week")
    for number, date in enumerate(dates, 1):
        dataset = raw_attributes(StudyDate=date, StudyID=b"S%d" % number)
        store(database, received(dataset=dataset))
    assert found(database, "StudyDate", key) == matches


@pytest.mark.parametrize(
    ("key", "matches"),
    [
        ("10", {"S1", "S2", "S3", "S4", "S5"}),
        ("1030", {"S3", "S4", "S5"}),
        ("103015", {"S4", "S5"}),
        ("103015.5", {"S5"}),
        ("103015.50", {"S5"}),
        ("103015.51", set()),
        ("-1029", {"S1", "S2"}),
        ("1030-", {"S3", "S4", "S5", "S6"}),
        ("1000-1030", {"S1", "S2", "S3", "S4", "S5"}),
        ("10:30:15.4-10:30:15.6", {"S5"}),
        ("235959-", {"S6"}),
        ("2359-240000", {"S6"}),
        ("1030-24:00:00", {"S3", "S4", "S5", "S6"}),
        ("235960-2400", set()),
        ("", {"S1", "S2", "S3", "S4", "S5", "S6", "S7"}),
    ],
)
def test_times_match_whatever_their_precision(database: Database, key: str, matches: set[str]) -> None:
    times = (b"10", b"1015", b"1030", b"103015", b"10:30:15.500", b"235959.999999", b"soon")
    for number, time in enumerate(times, 1):
        store(database, received(dataset=raw_attributes(StudyTime=time, StudyID=b"S%d" % number)))
    assert found(database, "StudyTime", key) == matches


def test_numbers_match_as_numbers(database: Database) -> None:
    for study_id, number in (("S1", b"007"), ("S2", b"7 "), ("S3", b"70"), ("S4", b"")):
        store(database, received(dataset=raw_attributes(SeriesNumber=number, StudyID=study_id.encode())))
    assert found(database, "SeriesNumber", "7", Level.SERIES) == {"S1", "S2"}
    assert found(database, "SeriesNumber", "07\\70", Level.SERIES) == {"S1", "S2", "S3"}
    assert found(database, "SeriesNumber", "99999999999999999", Level.SERIES) == set()
    assert found(database, "Rows", "512", Level.IMAGE) == {"S1", "S2", "S3", "S4"}


@pytest.mark.parametrize(
    ("keyword", "value", "sentence"),
    [
        ("StudyDate", "2026*", "StudyDate '2026\\*' is no date"),
        ("StudyDate", "20260504-20260505-20260506", "is no date"),
        ("StudyTime", "noon-", "StudyTime 'noon-' is no time"),
        ("SeriesNumber", "1*", "SeriesNumber '1\\*' is no whole number"),
        ("SliceThickness", "1*", "SliceThickness '1\\*' is no decimal number"),
        ("AcquisitionDateTime", "20260102-soon", "AcquisitionDateTime '20260102-soon' is no date time"),
        ("Modality", ["CT"] * 2000, "Modality has 2000 values; send at most 100"),
        ("PatientName", ["Doe*"] * 1000, "PatientName has 1000 values; send at most 100"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_before_the_first_match(
    database: Database, keyword: str, value: str, sentence: str
) -> None:
    with database.reading() as session, pytest.raises(InvalidIdentifier, match=sentence):
        find(session, Query(Level.IMAGE, Root.STUDY, {keyword: value}))


def test_uids_match_as_they_are_and_in_lists_of_any_length(database: Database) -> None:
    batch = [received() for _ in range(3)]
    store(database, *batch)
    studies = [str(one.attributes.StudyInstanceUID) for one in batch]
    assert len(ask(database, Level.STUDY, StudyInstanceUID=studies[0])) == 1
    assert len(ask(database, Level.STUDY, StudyInstanceUID="\\".join(studies[:2]))) == 2
    assert ask(database, Level.STUDY, StudyInstanceUID="2.25.*") == []
    many = [f"2.25.{number}" for number in range(70_000)]
    assert len(ask(database, Level.STUDY, StudyInstanceUID=[*many, studies[2]])) == 1


def test_a_key_of_an_upper_level_restricts_without_the_keys_between(database: Database) -> None:
    store(database, *series_of(2), *series_of(3, PatientID="P2", PatientName="Roe^Richard"))
    assert len(ask(database, Level.IMAGE, PatientName="roe*")) == 3
    assert len(ask(database, Level.SERIES, PatientID="P1")) == 1


def test_a_key_of_a_lower_level_restricts_and_is_not_answered(database: Database) -> None:
    store(database, *series_of(2, StudyID="S1"), *series_of(2, StudyID="S2", Modality="MR", PatientID="P2"))
    query = Query(Level.STUDY, Root.STUDY, {"Modality": "MR", "Rows": "512", "StudyID": ""})
    assert query.unsupported == ("Modality", "Rows")
    with database.reading() as session:
        (match,) = find(session, query)
    assert set(match.values) == {"StudyInstanceUID", "StudyID"}
    assert match.values["StudyID"] == "S2"
    assert ask(database, Level.PATIENT, Modality="MR", Rows="256") == []
    assert [one["PatientID"] for one in ask(database, Level.PATIENT, Modality="MR")] == ["P2"]


def test_lower_keys_must_match_on_the_same_series(database: Database) -> None:
    study = new_uid()
    store(database, received(StudyInstanceUID=study, Modality="CT", SeriesNumber=1))
    store(database, received(StudyInstanceUID=study, Modality="MR", SeriesNumber=2))
    assert len(ask(database, Level.STUDY, Modality="CT", SeriesNumber="1")) == 1
    assert ask(database, Level.STUDY, Modality="CT", SeriesNumber="2") == []


def test_keys_that_the_index_lacks_are_named_and_ignored(database: Database) -> None:
    store(database, received())
    keys = {
        "QueryRetrieveLevel": "STUDY",
        "SpecificCharacterSet": "ISO_IR 100",
        "RequestAttributesSequence": "",
        "Bogus": "x",
    }
    assert Query(Level.STUDY, Root.STUDY, keys).unsupported == ("RequestAttributesSequence", "Bogus")
    assert len(ask(database, Level.STUDY, **keys)) == 1


def test_the_study_root_has_no_patient_level() -> None:
    with pytest.raises(InvalidIdentifier, match="no level PATIENT"):
        Query(Level.PATIENT, Root.STUDY, {})


def test_the_retrieve_ae_title_is_what_the_caller_says(database: Database) -> None:
    store(database, received())
    for level in Level:
        (match,) = ask(database, level, RetrieveAETitle="")
        assert match["RetrieveAETitle"] == "THINFILM"


def test_what_cannot_be_retrieved_is_unavailable(database: Database) -> None:
    batch = series_of(2)
    store(database, *batch)
    for quarantined, expected in ((0, "ONLINE"), (1, "UNAVAILABLE")):
        with database.session() as session:
            (located,) = locate(session, Level.IMAGE, {"SOPInstanceUID": batch[quarantined].sop_instance_uid})
            archiving.quarantine(session, located.instance_pk, "It is damaged.")
        for level in (Level.PATIENT, Level.STUDY, Level.SERIES):
            assert ask(database, level, InstanceAvailability="")[0]["InstanceAvailability"] == expected
    images = ask(database, Level.IMAGE, InstanceAvailability="")
    assert [image["InstanceAvailability"] for image in images] == ["UNAVAILABLE"] * 2


def test_further_revisions_are_not_found_nor_what_has_nothing_else(database: Database) -> None:
    first = received(b"first", StudyID="S1")
    elsewhere = received(b"moved", SOPInstanceUID=first.sop_instance_uid, PatientID="P2", StudyID="S2")
    store(database, first, elsewhere)
    for level in Level:
        assert found(database, "PatientName", "Doe*", level) <= {"S1"} if level is not Level.PATIENT else True
        assert len(ask(database, level)) == 1
    assert ask(database, Level.STUDY, NumberOfStudyRelatedInstances="")[0]["NumberOfStudyRelatedInstances"] == 1
    store(
        database,
        received(b"more", elsewhere.attributes),
        received(StudyInstanceUID=elsewhere.attributes.StudyInstanceUID),
    )
    assert len(ask(database, Level.STUDY)) == 2


def test_the_character_set_is_that_of_the_object_that_describes_the_entity(database: Database) -> None:
    raw = raw_attributes(SpecificCharacterSet=b"ISO 2022 IR 6\\ISO 2022 IR 87", PatientName=b"\x1b$B;3ED\x1b(B^Taro")
    store(database, received(dataset=raw))
    for level in Level:
        with database.reading() as session:
            (match,) = find(session, Query(level, Root.PATIENT, {"PatientName": "山田*"}))
        assert match.specific_character_set == "ISO 2022 IR 6\\ISO 2022 IR 87"
        assert match.values["PatientName"] == "山田^Taro"


def test_matches_are_streamed_and_can_be_left_early(database: Database) -> None:
    store(database, *series_of(500))
    with database.reading() as session:
        matches = find(session, Query(Level.IMAGE, Root.STUDY, {}))
        first = next(matches)
        matches.close()  # type: ignore[attr-defined]
        assert len(list(find(session, Query(Level.IMAGE, Root.STUDY, first.values)))) == 1  # type: ignore[arg-type]


def test_text_that_no_database_holds_matches_nothing(database: Database) -> None:
    store(database, received())
    assert ask(database, Level.STUDY, PatientID="P\0" + "1", AccessionNumber="\udc80") == []
    assert ask(database, Level.STUDY, PatientName="x" * 100_000 + "*") == []


@pytest.mark.parametrize("keyword", ["PatientName", "StudyDescription", "StudyDate", "StudyTime", "SeriesNumber"])
def test_as_many_values_as_are_allowed_are_matched(database: Database, keyword: str) -> None:
    store(database, received(StudyDescription="Knee", SeriesNumber=7))
    value = {"PatientName": "d?e^j*", "StudyDescription": "K?e*", "StudyDate": "20260101-", "StudyTime": "10-11"}
    assert len(ask(database, Level.SERIES, **{keyword: [value.get(keyword, "7")] * 100})) == 1


def test_the_first_object_of_a_batch_describes_the_study_that_it_shares_with_others(database: Database) -> None:
    study = new_uid()
    store(database, *[received(StudyInstanceUID=study, StudyDescription=one) for one in ("first", "second", "third")])
    assert [match["StudyDescription"] for match in ask(database, Level.STUDY, StudyDescription="")] == ["first"]
