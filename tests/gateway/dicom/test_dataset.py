"""An outline reads the structure of any data set, refuses what has none, and decodes nothing."""

import mmap
import time
import tracemalloc
import warnings
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from pydicom.datadict import keyword_for_tag

from support.datasets import (
    COMPREHENSIVE_SR,
    CT_IMAGE,
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    PRIVATE_SYNTAX,
    SECONDARY_CAPTURE,
    UNDEFINED,
    Attributes,
    EncodedDataSet,
    Syntax,
    bundled_files,
    ct_series,
    damaged_data_sets,
    deflate,
    element,
    encapsulated,
    encode,
    encoded_data_sets,
    finish,
    fragments,
    instance,
    one_of_each,
    sequence_of_depth,
    trailing_padding,
    uid,
)
from thinfilm_gateway.dicom import part10
from thinfilm_gateway.dicom.dataset import DataSetOutline, Span, UnreadableDataSet, outline
from thinfilm_gateway.dicom.pixels import native_pixels, pixel_bytes
from thinfilm_gateway.dicom.values import integer, numbers, text

EXPLICIT = Syntax()
IMPLICIT = Syntax(implicit=True)
CORPUS = sorted((Path(__file__).parents[2] / "corpus" / "data_sets").iterdir())
TRUNCATED_FILES = ("rtplan_truncated.dcm", "MR_truncated.dcm")

sets_of_each_kind = pytest.mark.parametrize("name", one_of_each())


def outlined(data_set: EncodedDataSet) -> DataSetOutline:
    return outline(data_set.dataset, data_set.transfer_syntax_uid)


def read_everything(data_set: EncodedDataSet) -> DataSetOutline:
    """Read all that may be read, as an indexer would; nothing may raise or warn but UnreadableDataSet."""
    found = outlined(data_set)
    for tag in list(found.attributes.keys()):
        for read in (text, integer, numbers):
            read(found.attributes, keyword_for_tag(tag))
    pixels = native_pixels(found, data_set.dataset)
    if pixels is not None:
        span = pixels.span
        expected = data_set.dataset[span.offset : span.offset + span.length]
        assert pixel_bytes(pixels.block.samples, pixels.packing) == expected
    return found


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(encoded_data_sets())
def test_a_consistent_data_set_is_outlined_however_odd_its_values(data_set: EncodedDataSet) -> None:
    found = read_everything(data_set)
    assert text(found.attributes, "SOPInstanceUID") == data_set.sop_instance_uid
    assert text(found.attributes, "SOPClassUID") == data_set.sop_class_uid


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(damaged_data_sets())
def test_a_damaged_data_set_is_outlined_or_refused_with_a_sentence(data_set: EncodedDataSet) -> None:
    try:
        read_everything(data_set)
    except UnreadableDataSet as error:
        assert str(error).endswith(".")  # noqa: PT017


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_a_data_set_that_once_was_damaged_is_outlined_or_refused_with_a_sentence(path: Path) -> None:
    transfer_syntax_uid = path.stem.rpartition("-")[2]
    try:
        read_everything(EncodedDataSet(path.read_bytes(), transfer_syntax_uid, CT_IMAGE, "1.2.3"))
    except UnreadableDataSet as error:
        assert str(error).endswith(".")  # noqa: PT017


@sets_of_each_kind
def test_every_kind_of_data_set_is_outlined(name: str) -> None:
    data_set = one_of_each()[name]
    found = read_everything(data_set)
    assert text(found.attributes, "SOPInstanceUID") == data_set.sop_instance_uid
    assert text(found.attributes, "PatientName") == "Doe^Jane"
    has_native = name.split(",")[0] in ("CT", "MR", "US", "XA", "SEG", "RT dose") and "deflated" not in name
    assert (found.pixel_data is not None) == has_native


@sets_of_each_kind
def test_a_data_set_cut_off_anywhere_is_refused_unless_an_element_ends_there(name: str) -> None:
    data_set = one_of_each()[name]
    whole = set(outlined(data_set).attributes.keys())
    step = max(1, len(data_set.dataset) // 40)
    for cut in range(1, len(data_set.dataset), step):
        try:
            found = outlined(data_set._replace(dataset=data_set.dataset[:cut]))
        except UnreadableDataSet:
            continue
        assert set(found.attributes.keys()) <= whole
        assert data_set.transfer_syntax_uid != DEFLATED or cut > len(data_set.dataset) - 2


@pytest.mark.parametrize("path", bundled_files(), ids=lambda path: path.name)
def test_real_files_are_outlined_and_the_truncated_ones_refused(path: Path) -> None:
    data = path.read_bytes()
    header = part10.locate(data)
    assert header is not None
    data_set = EncodedDataSet(
        data[header.dataset_offset :], header.transfer_syntax_uid, header.sop_class_uid, header.sop_instance_uid
    )
    if path.name in TRUNCATED_FILES:
        with pytest.raises(UnreadableDataSet, match="beyond the data set"):
            read_everything(data_set)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = pydicom.dcmread(path)
        expected_uid = str(expected.get("SOPInstanceUID", ""))
    found = read_everything(data_set)
    assert text(found.attributes, "SOPInstanceUID") == expected_uid
    bulk = {0x7FE00000, 0x7FE00008, 0x7FE00009, 0x7FE00010, 0x54000100, 0x00282000}
    assert set(expected.keys()) - bulk <= set(found.attributes.keys())


# What is found where


def test_the_value_of_pixel_data_is_spanned_exactly() -> None:
    for syntax_uid in (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG):
        syntax = Syntax(syntax_uid == IMPLICIT_LITTLE, syntax_uid == EXPLICIT_BIG)
        before = encode({"Modality": "CT"}, syntax)
        pixels = element(0x7FE00010, "OW", b"pixels", syntax)
        found = outline(before + pixels + trailing_padding(syntax), syntax_uid)
        assert found.pixel_data == Span(len(before) + len(pixels) - 6, 6)


def test_pixel_data_that_is_encapsulated_or_absent_or_nested_has_no_span() -> None:
    assert outlined(encapsulated()).pixel_data is None
    icon: Attributes = {"PixelData": ("OB", b"icon")}
    nested = {**instance(SECONDARY_CAPTURE, "OT"), "IconImageSequence": [icon]}
    for undefined in (False, True):
        assert outline(encode(nested, Syntax(undefined=undefined)), EXPLICIT_LITTLE).pixel_data is None


def test_an_encapsulated_icon_within_a_sequence_is_passed_over() -> None:
    item_end, sequence_end = element(0xFFFEE00D, "", b"", EXPLICIT), element(0xFFFEE0DD, "", b"", EXPLICIT)
    item = element(0xFFFEE000, "", fragments([b"\xfe\xff\xdd\xe0\0\0\0\0"]) + item_end, EXPLICIT, UNDEFINED)
    icon = element(0x00880200, "SQ", item + sequence_end, EXPLICIT, UNDEFINED)
    found = outline(icon + element(0x7FE00010, "OW", b"\1\2", EXPLICIT), EXPLICIT_LITTLE)
    assert found.pixel_data == Span(len(icon) + 12, 2)


def test_a_delimiter_within_a_fragment_does_not_end_the_fragments() -> None:
    data_set = encapsulated([b"\xfe\xff\xdd\xe0\0\0\0\0" * 3])
    assert text(outlined(data_set).attributes, "Modality") == "OT"


def test_a_sequence_that_is_closed_twice_is_read() -> None:
    data_set = encapsulated()
    found = outline(data_set.dataset + element(0xFFFEE0DD, "", b"", EXPLICIT), data_set.transfer_syntax_uid)
    assert found.pixel_data is None


def test_elements_out_of_order_and_behind_pixel_data_are_attributes_too() -> None:
    encoded = encode({"PatientID": "P", "PixelData": ("OW", b"\1\2"), "Modality": "CT"}, EXPLICIT, in_order=False)
    found = outline(encoded, EXPLICIT_LITTLE)
    assert (text(found.attributes, "PatientID"), text(found.attributes, "Modality")) == ("P", "CT")


def test_values_above_64_kib_are_not_attributes_and_smaller_ones_are() -> None:
    encoded = encode({0x00291010: ("OB", bytes(65536)), 0x00291011: ("OB", bytes(65538))}, EXPLICIT)
    assert list(outline(encoded, EXPLICIT_LITTLE).attributes.keys()) == [0x00291010]


def test_the_attributes_of_a_sequence_can_be_read_in_every_encoding() -> None:
    report: Attributes = {
        **instance(COMPREHENSIVE_SR, "SR"),
        "ContentSequence": [{"ValueType": "TEXT", "ContentSequence": [{"ValueType": "NUM"}]}, {"ValueType": "CODE"}],
    }
    for undefined in (False, True):
        for syntax_uid in (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG):
            syntax = Syntax(syntax_uid == IMPLICIT_LITTLE, syntax_uid == EXPLICIT_BIG, undefined)
            attributes = outline(encode(report, syntax), syntax_uid).attributes
            assert [item.ValueType for item in attributes.ContentSequence] == ["TEXT", "CODE"]
            assert attributes.ContentSequence[0].ContentSequence[0].ValueType == "NUM"


@pytest.mark.parametrize("inner", [IMPLICIT, EXPLICIT], ids=["implicit", "explicit"])
def test_a_sequence_of_unknown_vr_may_hold_implicit_or_explicit_elements(inner: Syntax) -> None:
    item_end, sequence_end = element(0xFFFEE00D, "", b"", EXPLICIT), element(0xFFFEE0DD, "", b"", EXPLICIT)
    items = element(0xFFFEE000, "", encode({"Modality": "CT"}, inner) + item_end, EXPLICIT, UNDEFINED) + sequence_end
    unknown = element(0x00091010, "UN", items, EXPLICIT, UNDEFINED)
    found = outline(
        encode({"PatientID": "P"}, EXPLICIT) + unknown + encode({"StudyID": "S"}, EXPLICIT), EXPLICIT_LITTLE
    )
    assert text(found.attributes, "StudyID") == "S"


def test_a_vr_that_is_not_known_yet_is_read_in_the_long_form() -> None:
    future = b"\x09\x00\x10\x10ZZ\0\0\x04\0\0\0abcd"
    found = outline(future + encode({"PatientID": "P"}, EXPLICIT), EXPLICIT_LITTLE)
    assert text(found.attributes, "PatientID") == "P"


# Senders that declare wrongly


@pytest.mark.parametrize("declared", [IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, PRIVATE_SYNTAX])
@pytest.mark.parametrize("written", [IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG])
def test_a_data_set_is_read_as_it_is_written_not_as_it_is_declared(declared: str, written: str) -> None:
    data_set = ct_series(1, 16, written)[0]
    found = outline(data_set.dataset, declared)
    assert text(found.attributes, "SOPInstanceUID") == data_set.sop_instance_uid
    assert found.transfer_syntax_uid == declared
    assert (found.implicit_vr, found.little_endian) == (written == IMPLICIT_LITTLE, written != EXPLICIT_BIG)
    assert native_pixels(found, data_set.dataset) is not None


def test_an_implicit_element_among_explicit_ones_is_read() -> None:
    encoded = encode({"PatientID": "P"}, EXPLICIT) + encode({"StudyID": "S"}, IMPLICIT) + encode({"Rows": 7}, EXPLICIT)
    found = outline(encoded, EXPLICIT_LITTLE)
    assert text(found.attributes, "StudyID") == "S"
    assert integer(found.attributes, "Rows") == 7


# What is refused


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "empty"),
        (b"\x08\x00\x16", "within the element at byte 0"),
        (bytes(64), r"\(0000,0000\) at byte 0"),
        (b"this is a text file, not a data set, and long enough", "not a DICOM data set"),
        (encode({"PatientID": "P"}, EXPLICIT) + b"\x10\x00\x30", "within the element at byte 10"),
        (encode({"PatientID": "P"}, EXPLICIT)[:-1], r"\(0010,0020\) ends 1 bytes beyond"),
        (element(0x7FE00010, "OW", b"\0\0", EXPLICIT, 0x10000000), r"\(7FE0,0010\) ends \d+ bytes beyond"),
        (fragments([b"abcd"])[:-8], "ends within"),
        (fragments([b"abcd"])[:-10], r"beyond the data set|\(7FE0,0010\)"),
        (element(0xFFFEE000, "", b"ab", EXPLICIT), r"\(FFFE,E000\)"),
        (element(0x0040A730, "SQ", encode({"PatientID": "P"}, EXPLICIT), EXPLICIT, UNDEFINED), r"\(0010,0020\)"),
        (sequence_of_depth(257, EXPLICIT), "256 deep"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bytes_that_are_no_data_set_are_refused_with_the_reason(encoded: bytes, reason: str) -> None:
    with pytest.raises(UnreadableDataSet, match=reason):
        outline(encoded, EXPLICIT_LITTLE)


def test_deflated_data_sets_that_are_damaged_cut_off_or_none_are_refused() -> None:
    good = deflate(encode(instance(CT_IMAGE, "CT"), EXPLICIT))
    for bad in (good[:-20], b"\xff" + good, b"", deflate(b""), deflate(b"noise, not elements")):
        with pytest.raises(UnreadableDataSet):
            outline(bad, DEFLATED)


# What is large


def test_depth_that_is_legal_is_walked_and_only_kept_where_it_can_be_read() -> None:
    shallow, deep = sequence_of_depth(20, EXPLICIT), sequence_of_depth(256, EXPLICIT)
    assert 0x0040A730 in outline(shallow, EXPLICIT_LITTLE).attributes
    assert 0x0040A730 not in outline(deep, EXPLICIT_LITTLE).attributes


def test_a_hundred_thousand_elements_are_outlined_in_seconds() -> None:
    many = b"".join(element(0x00110000 + number % 65536, "LO", b"ab", EXPLICIT) for number in range(100_000))
    many += encode({"StudyInstanceUID": "1.2.3"}, EXPLICIT)
    started = time.monotonic()
    found = outline(many, EXPLICIT_LITTLE)
    assert time.monotonic() - started < 10
    assert text(found.attributes, "StudyInstanceUID") == "1.2.3"


def test_more_than_a_million_elements_are_refused() -> None:
    with pytest.raises(UnreadableDataSet, match="more than 1000000 elements"):
        outline(element(0x00111010, "", b"", IMPLICIT) * 1_000_001, IMPLICIT_LITTLE)


def test_zeros_behind_the_last_element_are_padding_however_many() -> None:
    found = outline(encode({"PatientID": "P"}, EXPLICIT) + bytes(50_000_001), EXPLICIT_LITTLE)
    assert text(found.attributes, "PatientID") == "P"


def test_attributes_stay_within_their_budget_whatever_the_data_set() -> None:
    many = b"".join(element(0x00110000 + number, "OB", bytes(60_000), EXPLICIT) for number in range(600))
    many += encode({"PatientID": "P"}, EXPLICIT)
    many += b"".join(element(0x40000000 + number, "OB", bytes(60_000), EXPLICIT) for number in range(600))
    tracemalloc.start()
    try:
        found = outline(many, EXPLICIT_LITTLE)
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()
    assert len(found.attributes) < 450
    assert text(found.attributes, "PatientID") == "P"


def test_a_mapped_data_set_is_not_copied_and_its_map_can_be_closed(tmp_path: Path) -> None:
    path = tmp_path / "large"
    size = 1 << 30
    head = encode(instance(CT_IMAGE, "CT"), EXPLICIT) + element(0x7FE00010, "OW", b"", EXPLICIT, size)
    with path.open("w+b") as file:
        file.write(head)
        file.truncate(len(head) + size)
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    tracemalloc.start()
    try:
        found = outline(mapped, EXPLICIT_LITTLE)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert found.pixel_data == Span(len(head), size)
    mapped.close()


def test_a_map_can_be_closed_after_its_bytes_were_refused(tmp_path: Path) -> None:
    path = tmp_path / "noise"
    path.write_bytes(b"noise" * 100)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with pytest.raises(UnreadableDataSet):
        outline(mapped, EXPLICIT_LITTLE)
    mapped.close()


def test_a_deflated_data_set_that_grows_a_thousandfold_does_not_grow_in_memory() -> None:
    encoded = encode(instance(CT_IMAGE, "CT"), EXPLICIT) + element(0x00091010, "OB", bytes(80_000_000), EXPLICIT)
    deflated = deflate(encoded)
    del encoded
    tracemalloc.start()
    try:
        found = outline(deflated, DEFLATED)
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()
    assert text(found.attributes, "Modality") == "CT"


def test_builders_give_each_data_set_its_own_uid() -> None:
    uids = [data_set.sop_instance_uid for data_set in one_of_each().values()]
    assert len(uids) == len(set(uids))
    assert uid(1) == uid(1) != uid(2)
    assert finish(instance(CT_IMAGE, "CT")).sop_class_uid == CT_IMAGE
