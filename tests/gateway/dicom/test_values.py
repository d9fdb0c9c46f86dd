"""Values are read as far as they can be; none raises, none warns."""

from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.data import get_charset_files

from support.datasets import EXPLICIT_LITTLE, IMPLICIT_LITTLE, Attributes, Syntax, encode
from thinfilm_gateway.dicom.dataset import outline
from thinfilm_gateway.dicom.values import character_set, integer, numbers, text


def attributes_of(implicit: bool = False, **values: object) -> Dataset:
    attributes: Attributes = dict(values)
    syntax_uid = IMPLICIT_LITTLE if implicit else EXPLICIT_LITTLE
    return outline(encode(attributes, Syntax(implicit=implicit)), syntax_uid).attributes


@pytest.mark.parametrize(
    ("term", "encoded", "expected"),
    [
        (b"ISO_IR 100", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
        (b"ISO_IR 144", "Жюль".encode("iso8859_5"), "Жюль"),
        (b"ISO_IR 192", "Wang^XiaoDong=王^小東".encode(), "Wang^XiaoDong=王^小東"),
        (b"GB18030", "Wang^XiaoDong=王^小东".encode("gb18030"), "Wang^XiaoDong=王^小东"),
        (
            b"\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ),
        (
            b"ISO 2022 IR 13\\ISO 2022 IR 87",
            b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
            "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
        ),
        (
            b"\\ISO 2022 IR 149",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
            "Hong^Gildong=洪^吉洞=홍^길동",
        ),
        (b"\\ISO 2022 IR 58", b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab", "Zhang^XiaoDong=张^小东"),
        (b"iso-ir 192 ", "é".encode(), "é"),
        (b"no such set", b"J\xe9", "Jé"),
        (b"", b"J\xe9", "Jé"),
        (b"", "é".encode(), "é"),
        (b"ISO_IR 192", b"broken \xff\xfe", "broken ÿþ"),
        (b"ISO_IR 100", b"\x1b", "\x1b"),
    ],
)
def test_names_are_decoded_in_their_character_set(term: bytes, encoded: bytes, expected: str) -> None:
    assert text(attributes_of(SpecificCharacterSet=term, PatientName=encoded), "PatientName") == expected


@pytest.mark.parametrize("path", get_charset_files("*.dcm"), ids=lambda path: Path(path).stem)
def test_names_of_all_character_sets_are_read_before_pydicom_has_touched_them(path: str) -> None:
    read_first = text(pydicom.dcmread(path), "PatientName").rstrip("=")  # pydicom drops empty groups at the end
    assert read_first == str(pydicom.dcmread(path).get("PatientName", "")).strip()


def test_a_character_set_reaches_only_the_values_it_governs() -> None:
    attributes = attributes_of(SpecificCharacterSet="ISO_IR 192", Modality=b"\xc3\xa9", StudyDescription="é".encode())
    assert text(attributes, "StudyDescription") == "é"
    assert text(attributes, "Modality") == "Ã©"


def test_the_character_set_is_read_as_it_was_sent() -> None:
    assert character_set(attributes_of(SpecificCharacterSet="\\ISO 2022 IR 87 ")).values == ("", "ISO 2022 IR 87")
    assert character_set(attributes_of(SpecificCharacterSet=("LO", b"ISO_IR 192"))).values == ("ISO_IR 192",)
    assert character_set(attributes_of(SpecificCharacterSet="")).values == character_set(Dataset()).values == ()


def test_padding_is_not_part_of_a_value() -> None:
    attributes = attributes_of(
        PatientID=b" P1 \0", StudyInstanceUID=b"1.2.3\0", StudyDescription=b"Head\r\n", StudyID="  \0"
    )
    assert (text(attributes, "PatientID"), text(attributes, "StudyInstanceUID")) == ("P1", "1.2.3")
    assert (text(attributes, "StudyDescription"), text(attributes, "StudyID")) == ("Head", "")


@pytest.mark.parametrize("vr", ["UN", "OB", "OW", "SQ"])
def test_a_value_sent_with_a_vr_it_cannot_have_is_read_as_the_dictionary_says(vr: str) -> None:
    attributes = attributes_of(
        StudyInstanceUID=(vr, b"1.2.3\0"), Rows=(vr, b"\0\2"), SpecificCharacterSet=(vr, b"GBK ")
    )
    assert (text(attributes, "StudyInstanceUID"), integer(attributes, "Rows")) == ("1.2.3", 512)
    assert character_set(attributes).values == ("GBK",)


@pytest.mark.parametrize("implicit", [False, True])
def test_numbers_are_read_from_text_and_from_binary_values(implicit: bool) -> None:
    attributes = attributes_of(
        implicit,
        Rows=512,
        InstanceNumber=" 7 ",
        PixelSpacing="0.5\\1e-1 ",
        RealWorldValueSlope=0.25,
        SmallestImagePixelValue=("US", [7]),
        NumberOfFrames="12.0",
    )
    assert text(attributes, "Rows") == "512"
    assert integer(attributes, "Rows") == 512
    assert integer(attributes, "InstanceNumber") == 7
    assert integer(attributes, "NumberOfFrames") == 12
    assert integer(attributes, "SmallestImagePixelValue") == 7
    assert numbers(attributes, "PixelSpacing") == (0.5, 0.1)
    assert numbers(attributes, "RealWorldValueSlope") == (0.25,)


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
        ("9" * 18, int("9" * 18)),
        ("9" * 19, None),
    ],
)
def test_whole_numbers_are_read_as_senders_write_them(digits: str, number: int | None) -> None:
    attributes = attributes_of(SeriesNumber=digits.encode(), SpecificCharacterSet=b"ISO_IR 192")
    assert integer(attributes, "SeriesNumber") == number


def test_what_is_absent_empty_or_no_number_is_none() -> None:
    attributes = attributes_of(InstanceNumber="one", Rows=b"\1", Columns=b"", PixelSpacing="1\\x", SliceThickness="nan")
    assert integer(attributes, "InstanceNumber") is None
    assert integer(attributes, "Rows") is None
    assert integer(attributes, "Columns") is None
    assert integer(attributes, "BitsAllocated") is None
    assert numbers(attributes, "PixelSpacing") == ()
    assert numbers(attributes, "SliceThickness") == ()
    assert text(attributes, "PatientID") == text(Dataset(), "PatientID") == ""
    assert text(attributes, "NoSuchKeyword") == ""


def test_zero_is_a_value() -> None:
    attributes = attributes_of(PixelRepresentation=0, InstanceNumber="0")
    assert integer(attributes, "PixelRepresentation") == 0
    assert integer(attributes, "InstanceNumber") == 0


def test_values_that_pydicom_has_decoded_or_made_are_read_too() -> None:
    attributes = Dataset()
    attributes.PatientName = "Doe^Jane"
    attributes.PixelSpacing = [0.5, 0.25]
    attributes.Rows = 0
    attributes.ImageType = ["ORIGINAL", "PRIMARY"]
    attributes.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    assert character_set(attributes).values == ("", "ISO 2022 IR 87")
    assert text(attributes, "PatientName") == "Doe^Jane"
    assert text(attributes, "ImageType") == "ORIGINAL\\PRIMARY"
    assert numbers(attributes, "PixelSpacing") == (0.5, 0.25)
    assert integer(attributes, "Rows") == 0


@given(
    st.binary(max_size=40),
    st.binary(max_size=40),
    st.sampled_from(("LO", "PN", "CS", "US", "FD", "SQ", "UN", "AT", "OB")),
)
def test_no_value_of_any_vr_raises(term: bytes, value: bytes, vr: str) -> None:
    attributes = attributes_of(
        SpecificCharacterSet=(vr, term), PatientName=value, PatientID=("LO", value), Rows=(vr, value)
    )
    for keyword in ("SpecificCharacterSet", "PatientName", "PatientID", "Rows"):
        for read in (text, integer, numbers):
            read(attributes, keyword)
