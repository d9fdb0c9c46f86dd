"""Values are read as far as they can be; none raises, none warns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from support.datasets import EXPLICIT_LITTLE, IMPLICIT_LITTLE, Attributes, Syntax, encode
from thinfilm_gateway.archive.dataset import outline
from thinfilm_gateway.archive.values import integer, numbers, text


def attributes_of(implicit: bool = False, **values: object) -> Dataset:
    attributes: Attributes = dict(values)
    syntax_uid = IMPLICIT_LITTLE if implicit else EXPLICIT_LITTLE
    return outline(encode(attributes, Syntax(implicit=implicit)), syntax_uid).attributes


@pytest.mark.parametrize(
    ("character_set", "encoded", "expected"),
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
        (b"ISO_IR 192", b"broken \xff\xfe", "broken \ufffd\ufffd"),
        (b"ISO_IR 100", b"\x1b", "\x1b"),
        (b"ISO_IR 100", b"a\x1b$", "a\x1b$"),
        (b"ISO_IR 100", b"\x1b%Gx", "\x1b%Gx"),
    ],
)
def test_names_are_decoded_in_their_character_set(character_set: bytes, encoded: bytes, expected: str) -> None:
    assert text(attributes_of(SpecificCharacterSet=character_set, PatientName=encoded), "PatientName") == expected


def test_a_character_set_reaches_only_the_values_it_governs() -> None:
    attributes = attributes_of(SpecificCharacterSet="ISO_IR 192", Modality=b"\xc3\xa9", StudyDescription="é".encode())
    assert text(attributes, "StudyDescription") == "é"
    assert text(attributes, "Modality") == "Ã©"


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


def test_what_is_absent_empty_or_no_number_is_none() -> None:
    attributes = attributes_of(
        InstanceNumber="one", Rows=b"\1", Columns=b"", PixelSpacing="1\\x", SliceThickness="nan", PatientID="  \0"
    )
    assert integer(attributes, "InstanceNumber") is None
    assert integer(attributes, "Rows") is None
    assert integer(attributes, "Columns") is None
    assert integer(attributes, "BitsAllocated") is None
    assert numbers(attributes, "PixelSpacing") == ()
    assert numbers(attributes, "SliceThickness") == ()
    assert text(attributes, "PatientID") == ""
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
    assert text(attributes, "PatientName") == "Doe^Jane"
    assert text(attributes, "ImageType") == "ORIGINAL\\PRIMARY"
    assert numbers(attributes, "PixelSpacing") == (0.5, 0.25)
    assert integer(attributes, "Rows") == 0


@given(st.binary(max_size=40), st.binary(max_size=40), st.sampled_from(("LO", "US", "FD", "SQ", "UN", "AT", "OB")))
def test_no_value_of_any_vr_raises(character_set: bytes, value: bytes, vr: str) -> None:
    attributes = attributes_of(
        SpecificCharacterSet=character_set, PatientName=value, PatientID=("LO", value), Rows=(vr, value)
    )
    for keyword in ("SpecificCharacterSet", "PatientName", "PatientID", "Rows"):
        for read in (text, integer, numbers):
            read(attributes, keyword)
