"""Text in every character set that DICOM knows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.charset import python_encoding

from thinfilm_gateway.dicom.character_sets import UTF_8, CharacterSet, common_character_set

# Specific Character Set, bytes, text: PS3.5 Annexes H (Japanese), I (Korean), J and K (Chinese), and single-byte sets.
EXAMPLES = [
    ("", b"CITIZEN^JOE", "CITIZEN^JOE"),
    ("ISO_IR 100", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
    ("ISO_IR 101", b"W\xb3a\xb6ciwy", "Właściwy"),
    ("ISO_IR 126", b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2", "Διονυσιος"),
    ("ISO_IR 127", b"\xe2\xc8\xc7\xe6\xea^\xe4\xe6\xd2\xc7\xd1", "قباني^لنزار"),
    ("ISO_IR 138", b"\xf9\xf8\xe5\xef^\xe3\xe1\xe5\xf8\xe4", "שרון^דבורה"),
    ("ISO_IR 144", b"\xbb\xee\xda\xe1\xd5\xdc\xd1\xe3\xe0\xd3", "Люксембург"),
    ("ISO_IR 166", b"\xca\xc1\xaa\xd2\xc2", "สมชาย"),
    ("ISO_IR 13", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
    (
        "\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
    ),
    (
        "\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        "Hong^Gildong=洪^吉洞=홍^길동",
    ),
    ("\\ISO 2022 IR 58", b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=", "Zhang^XiaoDong=张^小东="),
    ("ISO_IR 192", "Wang^XiaoDong=王^小東=".encode(), "Wang^XiaoDong=王^小東="),
    ("GB18030", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab=", "Wang^XiaoDong=王^小东="),
    ("GBK", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab=", "Wang^XiaoDong=王^小东="),
    ("ISO 2022 IR 100\\ISO 2022 IR 144", b"Dani\xe8le=\x1b-L\xbb\xee\xda", "Danièle=Люк"),
]


@pytest.mark.parametrize(("values", "raw", "text"), EXAMPLES, ids=[example[0] or "default" for example in EXAMPLES])
def test_the_standards_examples_are_read_and_written_byte_for_byte(values, raw, text):
    assert CharacterSet.of(values).decode(raw, person_name=True) == text
    assert CharacterSet.of(values).encode(text, person_name=True) == raw


def test_japanese_with_katakana_in_the_initial_set_is_read_with_its_roman_escape_sequences():
    raw = b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J"
    character_set = CharacterSet.of("ISO 2022 IR 13\\ISO 2022 IR 87")
    text = "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"
    assert character_set.decode(raw, person_name=True) == text
    assert character_set.decode(character_set.encode(text, person_name=True), person_name=True) == text


def test_a_second_byte_that_looks_like_a_backslash_does_not_cut_a_chinese_name():
    text = "王\\誠"
    raw = CharacterSet.of("GB18030").encode("誠")
    assert b"\\" in raw
    assert CharacterSet.of("GB18030").decode(b"\xcd\xf5\\" + raw) == text


@pytest.mark.parametrize(
    ("values", "raw", "text"),
    [
        *(
            (term, b"\xbb\xee\xda", "Люк")
            for term in ("ISO-IR 144", "ISO_IR_144", "iso ir 144", "ISO_IR  144 ", "ISOIR144")
        ),
        *((term, b"\xbb\xee\xda", "Люк") for term in ("ISO 2022 IR 144", "ISO-2022-IR-144", "iso_2022_ir_144")),
        *((term, b"\xcd\xf5", "王") for term in ("gbk", "gb18030 ", "ISO_2022 gbk", "ISO 2022 58")),
        *((term, b"J\xe9r\xf4me", "Jérôme") for term in ("ISO 8859-1", "ISO-8859-1", "iso8859_1", "LATIN1", "latin-1")),
        *((term, b"\xbb\xee\xda", "Люк") for term in ("ISO 8859-5", "iso8859-5")),
        *((term, b"5 \x80", "5 €") for term in ("cp1252", "Windows-1252")),
        *((term, b"\xcd\xf5", "王") for term in ("GB2312", "EUC-CN")),
        *((term, "山田".encode("shift_jis"), "山田") for term in ("Shift_JIS", "SJIS")),
        *((term, "山田".encode("euc_jp"), "山田") for term in ("EUC-JP",)),
        *((term, "홍".encode("euc_kr"), "홍") for term in ("EUC-KR", "KS_C_5601")),
        ("ISO 2022 IR 87", b"\x1b$B;3ED\x1b(B", "山田"),
        *((term, "王".encode(), "王") for term in ("ISO IR_192", "iso-ir 192 ", "ISO 2022 IR 192")),
    ],
)
def test_misspelt_values_are_understood(values, raw, text):
    assert CharacterSet.of(values).decode(raw) == text
    assert CharacterSet.of(values).encode(text) == raw


def test_code_extensions_end_at_delimiters():
    character_set = CharacterSet.of("ISO_IR 100")
    expected = "Buc" + b"\xe0".decode("iso8859_4")
    assert character_set.decode(b"Buc\x1b-D\xe0^J\xe9r", person_name=True) == f"{expected}^Jér"
    assert character_set.decode(b"Buc\x1b-D\xe0\r\nJ\xe9r") == f"{expected}\r\nJér"


@pytest.mark.parametrize("raw", [b"\x1b", b"a\x1b$", b"\x1b%Gx"])
def test_an_escape_sequence_that_nobody_knows_stays(raw):
    assert CharacterSet.of("ISO_IR 100").decode(raw) == raw.decode("ascii")


@pytest.mark.parametrize("values", ["", "ISO_IR 6", "ISO_IR 4711", "nonsense", "ISO_IR 192"])
def test_bytes_outside_the_set_are_tried_as_utf_8_and_then_as_latin_1(values):
    assert CharacterSet.of(values).decode("Ĵérôme".encode()) == "Ĵérôme"
    assert CharacterSet.of(values).decode(b"J\xe9r\xf4me") == "Jérôme"


def test_a_text_that_the_set_lacks_is_not_covered_and_cannot_be_written():
    assert not CharacterSet.of("ISO_IR 100").covers(["Jérôme", "山田"])
    assert not CharacterSet.of("").covers(["Jérôme"])
    assert not CharacterSet.of("ISO_IR 13").covers(["山田"])
    assert not CharacterSet.of("\\ISO 2022 IR 87").covers(["홍"])
    with pytest.raises(UnicodeEncodeError):
        CharacterSet.of("ISO_IR 144").encode("Jérôme")


def test_the_value_of_the_attribute_is_kept_as_it_came():
    assert str(CharacterSet.of("\\ISO 2022 IR 87")) == "\\ISO 2022 IR 87"
    assert str(CharacterSet.of("")) == ""
    assert CharacterSet.of("ISO_IR 192") == UTF_8


@given(
    st.binary(max_size=60),
    st.lists(st.sampled_from([*python_encoding, "KLINGON"]), max_size=3).map("\\".join) | st.text(max_size=20),
    st.booleans(),
)
def test_no_bytes_and_no_set_make_decoding_fail(raw, values, person_name):
    assert isinstance(CharacterSet.of(values).decode(raw, person_name=person_name), str)


@given(
    st.text("abcé^=\\ 山田홍길Люкｶﾅ\t", max_size=24),
    st.sampled_from([*(example[0] for example in EXAMPLES), "ISO_IR 100\\ISO 2022 IR 87\\ISO 2022 IR 149"]),
    st.booleans(),
)
def test_what_can_be_written_is_read_back(text, values, person_name):
    character_set = CharacterSet.of(values)
    try:
        raw = character_set.encode(text, person_name=person_name)
    except UnicodeEncodeError:
        return
    assert character_set.decode(raw, person_name=person_name) == text


@pytest.mark.parametrize(
    ("term", "meant"),
    [
        ("ISO_IR_192", "ISO_IR 192"),
        ("iso-ir 192", "ISO_IR 192"),
        ("UTF-8", "ISO_IR 192"),
        ("\\ISO_IR 192", "ISO_IR 192"),
        ("ISO-IR 100", "ISO_IR 100"),
        ("ISO_IR_100", "ISO_IR 100"),
        ("iso_ir 144", "ISO_IR 144"),
        ("\\ISO_2022_IR_87", "\\ISO 2022 IR 87"),
        ("ISO 2022 IR 13\\iso-2022-ir-87", "ISO 2022 IR 13\\ISO 2022 IR 87"),
        ("ISO_IR 192\\ISO 2022 IR 87", "ISO_IR 192"),
        ("gb18030", "GB18030"),
        ("GB2312", "GBK"),
        ("latin-1", "ISO_IR 100"),
        ("ISO 8859-9", "ISO_IR 148"),
        ("ISO 2022 IR 87", "\\ISO 2022 IR 87"),
        ("ISO 2022 IR 149", "\\ISO 2022 IR 149"),
        ("", ""),
    ],
)
def test_a_term_that_is_undefined_is_told_as_the_one_that_is_meant(term: str, meant: str):
    assert str(CharacterSet.of(term).defined) == meant
    if "87" in meant:
        assert CharacterSet.of(meant).decode(CharacterSet.of(meant).encode("山田")) == "山田"
    if "192" in meant:
        assert CharacterSet.of(term).decode(CharacterSet.of(term).encode("山田^Jérôme")) == "山田^Jérôme"


@pytest.mark.parametrize("term", ["cp1252", "Shift_JIS", "EUC-KR", "Big5"])
def test_what_came_in_a_set_that_dicom_lacks_is_told_in_utf_8(term: str):
    assert common_character_set([CharacterSet.of(term)], ["山田"]) == UTF_8
