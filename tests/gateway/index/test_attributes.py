import warnings
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.charset import python_encoding
from pydicom.data import get_charset_files

from support.received import attributes, raw_attributes
from thinfilm_gateway.index.attributes import decode, integer_string, specific_character_set, text, unsigned_short


@pytest.mark.parametrize("path", get_charset_files("*.dcm"), ids=lambda path: Path(path).stem)
def test_names_of_all_character_sets_are_read_before_pydicom_has_touched_them(path: str) -> None:
    read_first = text(pydicom.dcmread(path), "PatientName").rstrip("=")  # pydicom drops empty groups at the end
    assert read_first == str(pydicom.dcmread(path).get("PatientName", "")).strip()


def test_values_that_pydicom_has_converted_are_read_too() -> None:
    dataset = attributes(
        PatientName="Doe^Jane", ImageType=["ORIGINAL", "PRIMARY"], SpecificCharacterSet=["", "ISO 2022 IR 87"]
    )
    assert text(dataset, "PatientName") == "Doe^Jane"
    assert text(dataset, "ImageType") == "ORIGINAL\\PRIMARY"
    assert specific_character_set(dataset) == ("", "ISO 2022 IR 87")
    assert (integer_string(dataset, "SeriesNumber"), unsigned_short(dataset, "Rows")) == (1, 512)


def test_what_is_missing_or_empty_is_empty() -> None:
    dataset = raw_attributes(PatientName=b"", SeriesNumber=b"", Rows=b"", SpecificCharacterSet=b"")
    assert text(dataset, "PatientName") == text(dataset, "StudyDescription") == text(Dataset(), "PatientID") == ""
    assert integer_string(dataset, "SeriesNumber") is unsigned_short(dataset, "Rows") is None
    assert specific_character_set(dataset) == specific_character_set(Dataset()) == ()


def test_padding_is_not_part_of_a_value() -> None:
    dataset = raw_attributes(PatientID=b" P1 \0", StudyInstanceUID=b"1.2.3\0")
    assert (text(dataset, "PatientID"), text(dataset, "StudyInstanceUID")) == ("P1", "1.2.3")


@pytest.mark.parametrize(
    ("digits", "number"),
    [
        ("7", 7),
        ("+007 ", 7),
        (" -3", -3),
        ("1.0", 1),
        ("1.5", None),
        ("1_0", None),
        ("٣", None),
        ("1\\2", None),
        ("1e3", None),
    ],
)
def test_numbers_are_read_as_senders_write_them(digits: str, number: int | None) -> None:
    dataset = raw_attributes(SeriesNumber=digits.encode(), SpecificCharacterSet=b"ISO_IR 192")
    assert integer_string(dataset, "SeriesNumber") == number


def test_a_misspelled_character_set_is_understood() -> None:
    for term in ("ISO-IR 144", "ISO_IR_144", "iso ir 144"):
        assert decode("Люкс".encode("iso8859_5"), [term]) == "Люкс"


def test_code_extensions_end_at_delimiters() -> None:
    assert decode(b"Buc\x1b-D\xe0^J\xe9r", ["ISO_IR 100"]) == "Buc" + b"\xe0".decode("iso8859_4") + "^Jér"


@given(st.binary(max_size=60), st.lists(st.sampled_from([*python_encoding, "KLINGON"]), max_size=3))
def test_no_bytes_are_too_odd_to_be_decoded(value: bytes, character_sets: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(decode(value, character_sets), str)
