"""C-FIND: what matches, at every level, in the character set that the peer can read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.charset import convert_encodings
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import PersonName

from support import dcmtk
from support.datasets import CT_IMAGE, Attributes, EncodedDataSet, ct_series, finish, instance, mr_series, patient
from support.query_retrieve import Operation, cancel_at, find, gateway_with, identifier, multiply_rows
from support.receiver import Running
from thinfilm_gateway.dicom import part10
from thinfilm_gateway.dimse import status

CORPUS = Path(__file__).parents[2] / "corpus" / "objects"

DOE = patient()
ROE = {**patient("Roe^Richard", "T-002", "other"), "StudyDate": "20230105", "AccessionNumber": "B2"}
CT = ct_series(6, 16, who=DOE)
MR = mr_series(2, 16, who=DOE)
ROE_CT = ct_series(3, 16, who=ROE)

# Specific Character Set of the sender, and a name in it.
NAMES = {
    "ISO_IR 100": "Buc^Jérôme",
    "ISO_IR 144": "Люксембург",
    "ISO_IR 126": "Διονυσιος",
    "\\ISO 2022 IR 87": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "ISO 2022 IR 13\\ISO 2022 IR 87": "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^花子",
    "\\ISO 2022 IR 149": "Hong^Gildong=洪^吉洞=홍^길동",
    "ISO_IR 192": "Wang^XiaoDong=王^小東",
    "GB18030": "Zhang^Wei=张^伟",
    "GBK": "Li^Na=李^娜",
}


def named(character_set: str, name: str, number: int) -> EncodedDataSet:
    """An object of a patient of this name, encoded by pydicom."""
    raw = PersonName(name).encode(convert_encodings(character_set.split("\\")))
    who: Attributes = {
        **patient(study=f"named {number}"),
        "PatientID": f"N-{number}",
        "SpecificCharacterSet": character_set,
        "PatientName": bytes(raw),
    }
    return finish(instance(CT_IMAGE, "CT", number, who=who))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    objects = [*CT, *MR, *ROE_CT, *(named(*item, number) for number, item in enumerate(NAMES.items()))]
    with gateway_with(tmp_path_factory.mktemp("gateway"), objects) as running:
        yield running


def values(operation: Operation, keyword: str) -> list[Any]:
    return sorted(match.get(keyword) for match in operation.matches)


def test_dcmtk_finds_studies_with_the_keys_it_asked_for(gateway: Running):
    keys = [
        "QueryRetrieveLevel=STUDY",
        "PatientName=doe*",
        "PatientID",
        "StudyDate",
        "ModalitiesInStudy",
        "NumberOfStudyRelatedInstances",
    ]
    found = dcmtk.findscu(gateway.port, keys, "-S", "-v").check().output
    assert found.count("Pending") == 1
    for line in ("[Doe^Jane]", "[T-001 ]", "[20240229]", "[CT\\MR ]", "[8 ]", "[ONLINE]", "[THINFILM]"):
        assert line in found


@pytest.mark.parametrize("options", [["-xe"], ["-xi"], ["-xb"]])
def test_dcmtk_finds_in_every_transfer_syntax(gateway: Running, options: list[str]):
    keys = ["QueryRetrieveLevel=IMAGE", f"StudyInstanceUID={ROE['StudyInstanceUID']}", "Rows", "InstanceNumber"]
    found = dcmtk.findscu(gateway.port, keys, "-S", "-v", *options).check().output
    assert found.count("Pending") == 3
    assert found.count("US 16 ") == 3


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_pynetdicom_finds_in_every_transfer_syntax(gateway: Running, syntax: str):
    keys = identifier(
        "SERIES", StudyInstanceUID=DOE["StudyInstanceUID"], Modality="", NumberOfSeriesRelatedInstances=""
    )
    found = find(gateway.port, keys, syntaxes=[syntax])
    assert found.status == status.SUCCESS
    assert values(found, "Modality") == ["CT", "MR"]
    assert values(found, "NumberOfSeriesRelatedInstances") == [2, 6]


@pytest.mark.parametrize(
    ("root", "keys", "keyword", "expected"),
    [
        ("PATIENT", identifier("PATIENT", PatientID="T-*"), "PatientID", ["T-001", "T-002"]),
        ("PATIENT", identifier("PATIENT", PatientName="Roe^*", PatientID=""), "PatientID", ["T-002"]),
        ("PATIENT", identifier("STUDY", PatientID="T-002", StudyDate=""), "StudyDate", ["20230105"]),
        ("STUDY", identifier("STUDY", StudyDate="20230101-20231231"), "StudyInstanceUID", [ROE["StudyInstanceUID"]]),
        ("STUDY", identifier("STUDY", AccessionNumber="B2", PatientName=""), "PatientName", ["Roe^Richard"]),
        ("STUDY", identifier("STUDY", ModalitiesInStudy="MR"), "StudyInstanceUID", [DOE["StudyInstanceUID"]]),
        ("STUDY", identifier("SERIES", StudyInstanceUID=ROE["StudyInstanceUID"], Modality=""), "Modality", ["CT"]),
        ("STUDY", identifier("SERIES", Modality="MR"), "Modality", ["MR"]),
        (
            "STUDY",
            identifier("IMAGE", SOPInstanceUID=CT[2].sop_instance_uid),
            "SOPInstanceUID",
            [CT[2].sop_instance_uid],
        ),
        (
            "STUDY",
            identifier("IMAGE", SOPInstanceUID=[CT[0].sop_instance_uid, MR[0].sop_instance_uid]),
            "SOPInstanceUID",
            sorted([CT[0].sop_instance_uid, MR[0].sop_instance_uid]),
        ),
        ("STUDY", identifier("STUDY", PatientName="Nobody"), "PatientName", []),
    ],
)
def test_each_level_answers_what_matches(gateway: Running, root: str, keys: Dataset, keyword: str, expected: list[str]):
    found = find(gateway.port, keys, root)
    assert found.status == status.SUCCESS
    assert values(found, keyword) == expected


def test_an_answer_has_the_keys_asked_for_the_unique_keys_and_what_each_answer_must_have(gateway: Running):
    keys = identifier("SERIES", StudyInstanceUID=DOE["StudyInstanceUID"], SeriesDescription="CT*", PatientName="")
    (match,) = find(gateway.port, keys, "PATIENT").matches
    assert {element.keyword for element in match} - {"SpecificCharacterSet"} == {
        "QueryRetrieveLevel",
        "RetrieveAETitle",
        "InstanceAvailability",
        "PatientID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SeriesDescription",
        "PatientName",
    }
    assert match.QueryRetrieveLevel == "SERIES"
    assert match.RetrieveAETitle == "THINFILM"
    assert match.InstanceAvailability == "ONLINE"
    assert match.PatientID == "T-001"


def test_keys_that_are_not_supported_come_back_empty_with_a_warning_status(gateway: Running):
    keys = identifier(
        "STUDY", StudyInstanceUID=DOE["StudyInstanceUID"], StudyComments="?", RequestAttributesSequence=[]
    )
    keys.add_new(0x00091001, "LO", "private")
    found = find(gateway.port, keys)
    assert found.responses[0][0].Status == status.PENDING_OPTIONAL_KEYS_NOT_SUPPORTED
    (match,) = found.matches
    assert match.StudyComments == ""
    assert len(match.RequestAttributesSequence) == 0
    assert not match[0x00091001].value


@pytest.mark.parametrize("keyword", ["NumberOfStudyRelatedInstances", "InstanceAvailability"])
def test_a_key_whose_value_restricts_nothing_is_answered_with_a_warning_status(gateway: Running, keyword: str):
    value = {"NumberOfStudyRelatedInstances": 77}.get(keyword, "OFFLINE")
    found = find(gateway.port, identifier("STUDY", StudyInstanceUID=DOE["StudyInstanceUID"], **{keyword: value}))
    assert found.responses[0][0].Status == status.PENDING_OPTIONAL_KEYS_NOT_SUPPORTED
    assert found.matches[0][keyword].value in (8, "ONLINE")


def test_supported_keys_are_answered_without_a_warning(gateway: Running):
    found = find(gateway.port, identifier("STUDY", StudyInstanceUID="", StudyTime="", PatientSex=""))
    assert {response.Status for response, _ in found.responses[:-1]} == {status.PENDING}


@pytest.mark.parametrize("requested", [None, "ISO_IR 192", "GB18030"])
@pytest.mark.parametrize(("stored", "name"), NAMES.items(), ids=NAMES)
def test_a_name_is_found_and_told_in_its_own_characters(
    gateway: Running, stored: str, name: str, requested: str | None
):
    keys = Dataset()
    keys.QueryRetrieveLevel = "STUDY"
    keys.StudyInstanceUID = ""
    if requested:
        keys.SpecificCharacterSet = requested
        keys.PatientName = name
    else:
        keys.PatientName = ""
        keys.PatientID = f"N-{list(NAMES).index(stored)}"
    (match,) = find(gateway.port, keys).matches
    match.decode()
    assert str(match.PatientName) == name
    character_set = match.SpecificCharacterSet
    told = character_set if isinstance(character_set, str) else "\\".join(character_set)
    assert told == (requested or stored)


@pytest.mark.parametrize(
    ("character_set", "name"),
    [(key, name) for key, name in NAMES.items() if key not in ("ISO_IR 192", "GB18030", "GBK")],
)
def test_the_request_may_be_in_any_character_set(gateway: Running, character_set: str, name: str):
    keys = Dataset()
    keys.SpecificCharacterSet = character_set.split("\\")
    keys.QueryRetrieveLevel = "STUDY"
    keys.PatientName = name.split("=")[0] + "*"
    (match,) = find(gateway.port, keys).matches
    match.decode()
    assert str(match.PatientName) == name


def test_an_answer_that_the_requests_set_cannot_hold_comes_in_the_stored_one(gateway: Running):
    keys = Dataset()
    keys.SpecificCharacterSet = "ISO_IR 100"
    keys.QueryRetrieveLevel = "STUDY"
    keys.PatientName = ""
    found = {str(match.SpecificCharacterSet): match for match in find(gateway.port, keys).matches}
    assert "ISO_IR 144" in found
    assert str(found["ISO_IR 144"].PatientName) == NAMES["ISO_IR 144"]


def test_a_query_in_utf_8_that_does_not_say_so_is_understood(gateway: Running):
    found = dcmtk.findscu(gateway.port, ["QueryRetrieveLevel=STUDY", "PatientName=Люксембург"], "-S", "-v").check()
    assert found.output.count("Pending") == 1


@pytest.mark.parametrize(
    ("root", "keys", "expected", "comment"),
    [
        (
            "STUDY",
            identifier("PATIENT", PatientID=""),
            status.IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS,
            "STUDY, SERIES, IMAGE",
        ),
        ("STUDY", identifier(None, PatientID=""), status.IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS, "(0008,0052) is missing"),
        ("PATIENT", identifier("FRAME"), status.IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS, "PATIENT, STUDY, SERIES, IMAGE"),
        ("STUDY", identifier("STUDY", StudyDate="soon"), status.UNABLE_TO_PROCESS, "StudyDate"),
    ],
)
def test_a_query_that_cannot_be_answered_is_refused_with_a_comment(
    gateway: Running, root: str, keys: Dataset, expected: int, comment: str
):
    found = find(gateway.port, keys, root)
    assert found.status == expected
    assert comment in found.final.ErrorComment


def test_a_cancelled_query_ends_with_fe00(tmp_path: Any):
    with gateway_with(tmp_path, CT[:1]) as running:
        multiply_rows(running, 3000)
        found = find(running.port, identifier("IMAGE", SOPInstanceUID=""), on_response=cancel_at(2))
    assert found.status == status.CANCEL
    assert 2 <= len(found.matches) < 3000


def test_a_requestor_that_goes_away_in_the_middle_leaves_the_gateway_well(gateway: Running):
    def leave(association: Any, _: int) -> None:
        association.abort()

    find(gateway.port, identifier("IMAGE", SOPInstanceUID=""), on_response=leave)
    assert find(gateway.port, identifier("IMAGE", SOPInstanceUID="")).status == status.SUCCESS


def test_without_the_index_a_query_is_out_of_resources(tmp_path: Any):
    with gateway_with(tmp_path, CT[:1]) as running:
        with running.database.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE studies RENAME TO elsewhere")
        found = find(running.port, identifier("STUDY", StudyInstanceUID=""))
    assert found.status == status.OUT_OF_RESOURCES
    assert found.final.ErrorComment == "The index is not available."


def from_file(name: str) -> tuple[EncodedDataSet, Dataset]:
    """An object of the corpus: as it travels, and as pydicom reads it."""
    raw = (CORPUS / name).read_bytes()
    header = part10.locate(raw)
    assert header is not None
    uids = header.transfer_syntax_uid, header.sop_class_uid, header.sop_instance_uid
    return EncodedDataSet(raw[header.dataset_offset :], *uids), dcmread(CORPUS / name)


def test_dcmtk_finds_each_study_of_a_patient_id_by_its_own_name(tmp_path: Path):
    files = [from_file(f"same_patient_id_{which}.dcm") for which in ("first", "other_name")]
    assert files[0][1].PatientID == files[1][1].PatientID
    assert files[0][1].PatientName != files[1][1].PatientName
    with gateway_with(tmp_path, [encoded for encoded, _ in files]) as running:
        for _, dataset in files:
            keys = ["QueryRetrieveLevel=STUDY", f"PatientName={str(dataset.PatientName).lower()}", "StudyInstanceUID"]
            found = dcmtk.findscu(running.port, keys, "-S", "-v").check().output
            assert found.count("Pending") == 1
            assert f"[{dataset.PatientName}" in found
            assert str(dataset.StudyInstanceUID) in found


def test_dcmtk_finds_what_viewers_ask_for_at_each_level(tmp_path: Path):
    who = {**patient(), "SpecificCharacterSet": "ISO_IR 192", "PatientAge": "042Y"}
    of_series = {
        "InstitutionName": "Klinik Süd".encode(),
        "ProtocolName": b"MR Knie ",
        "SeriesDate": "20260102",
        "OperatorsName": "Müller^Ann".encode(),
    }
    of_image = {"ImageType": ["DERIVED", "SECONDARY"], "SliceThickness": "1.50", "BitsAllocated": 16}
    image = finish(instance(CT_IMAGE, "CT", 1, who={**who, **of_series, **of_image}))
    with gateway_with(tmp_path, [image, *ROE_CT]) as running:
        for level, keys, told in (
            ("STUDY", ["PatientAge=042Y", "InstitutionName=*klinik*", "ProtocolName=*knie*"], ["[042Y]"]),
            ("STUDY", ["PatientAge=042Y", "InstitutionName"], ["[Klinik S"]),
            (
                "SERIES",
                ["ProtocolName=*knie*", "SeriesDate=20260101-", "OperatorsName=muller*"],
                ["[MR Knie ]", "[20260102]"],
            ),
            (
                "IMAGE",
                ["ImageType=SECONDARY", "SliceThickness=1.5", "BitsAllocated"],
                ["DERIVED\\SECONDARY", "[1.50]", "US 16"],
            ),
        ):
            found = dcmtk.findscu(running.port, [f"QueryRetrieveLevel={level}", *keys], "-S", "-v").check().output
            assert found.count("Pending") == 1
            assert [one for one in told if one not in found] == []
