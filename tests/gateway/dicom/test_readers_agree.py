"""The outline, the tree, pydicom and the bytes against each other: what one of them sees, the others see.

THINFILM_FUZZ is how many data sets are made of real ones by mutation.
"""

import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset

from support.datasets import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    UNDEFINED,
    EncodedDataSet,
    Syntax,
    bundled_files,
    ct_series,
    damaged_data_sets,
    element,
    encode,
    encoded_data_sets,
    fragments,
    one_of_each,
    sequence_of_depth,
    structured_report,
)
from support.mutations import mutated
from thinfilm_gateway.dicom import element_tree, part10
from thinfilm_gateway.dicom.dataset import DataSetOutline, UnreadableDataSet, outline
from thinfilm_gateway.dicom.element_tree import Bytes, Element, Elements, Fragments, parse
from thinfilm_gateway.dicom.elements import EXPLICIT_LITTLE as EXPLICIT
from thinfilm_gateway.dicom.elements import IMPLICIT_LITTLE as IMPLICIT
from thinfilm_gateway.dicom.elements import MalformedElements, declared_encoding
from thinfilm_gateway.dicom.transcode import read_elements

MUTATIONS = int(os.environ.get("THINFILM_FUZZ", "400"))
CORPUS = sorted((Path(__file__).parents[2] / "corpus" / "data_sets").iterdir())
WORDS = {**dict.fromkeys(("US", "SS", "OW", "AT"), 2), **dict.fromkeys(("UL", "SL", "FL", "OL", "OF"), 4)}
WORDS |= dict.fromkeys(("FD", "OD", "SV", "UV", "OV"), 8)

ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
LE, BE, IM = Syntax(), Syntax(big=True), Syntax(implicit=True)


def read_all(dataset: bytes, transfer_syntax_uid: str) -> tuple[DataSetOutline | None, Elements | None]:
    """Return what each reader makes of a data set; None where it refuses."""
    try:
        found = outline(dataset, transfer_syntax_uid)
    except UnreadableDataSet:
        found = None
    try:
        tree = read_elements(dataset, transfer_syntax_uid)
    except MalformedElements:
        tree = None
    return found, tree


def assert_agreed(dataset: bytes, transfer_syntax_uid: str) -> Elements | None:
    """Fail unless the readers agree on a data set; return its tree, None where it is refused."""
    found, tree = read_all(dataset, transfer_syntax_uid)
    if found is None:
        assert tree is None or not dataset
        return None
    if tree is None:
        return None
    for tag in found.attributes.keys():  # noqa: SIM118 - looking at values would decode them
        raw = found.attributes.get_item(tag)
        own = tree.get(int(tag))
        if own is None:
            assert tag.element == 0, f"{tag} is in the outline alone"
            continue
        if raw.VR is not None and not (isinstance(own.value, list) and raw.VR != "UN"):
            assert own.vr == raw.VR or (own.vr, raw.VR) == ("UN", "SQ")
        if not isinstance(own.value, list | Fragments):
            assert bytes(own.value) == in_little_endian(raw)
    assert (found.pixel_data is not None or found.encapsulated_pixel_data is not None) == (
        tree.get(0x7FE00010) is not None and transfer_syntax_uid not in (DEFLATED,)
    )
    assert_round_trips(tree)
    return tree


def in_little_endian(raw: RawDataElement) -> bytes:
    word = WORDS.get(raw.VR, 1)
    value = raw.value or b""
    if raw.is_little_endian or len(value) % word:
        return bytes(value)
    return np.frombuffer(value, f">u{word}").astype(f"<u{word}").tobytes()


def flat(elements: Elements, with_vrs: bool) -> list[Any]:
    """Return tags, VRs if asked for, and padded values; of sequences, how many elements their items have."""
    inside_unknown = {
        id(inner) for one in every_element(elements) if one.vr == "UN" and isinstance(one.value, list)
        for item in one.value for inner in every_element(item)
    }  # fmt: skip
    return [
        (
            one.tag,
            one.vr if with_vrs and id(one) not in inside_unknown else "",
            [len(item.elements) for item in one.value]
            if isinstance(one.value, list)
            else bytes(one.value) + b"\0" * (len(one.value) % 2),
        )
        for one in every_element(elements)
    ]


def has_fragments(elements: Elements) -> bool:
    return any(isinstance(one.value, Fragments) for one in every_element(elements))


def every_element(elements: Elements) -> Iterator[Element]:
    """Give the elements of all levels, however deep."""
    waiting = [elements]
    while waiting:
        for one in waiting.pop().elements:
            yield one
            waiting += one.value if isinstance(one.value, list) else []


def has_long_values(elements: Elements) -> bool:
    return any(isinstance(one.value, Bytes) and len(one.value) > 0xFFFE for one in every_element(elements))


def assert_round_trips(tree: Elements) -> None:
    """Fail unless the tree, written in each encoding, is read as itself."""
    if has_fragments(tree) or not tree.elements:
        return
    explicit = b"".join(element_tree.encode(tree, EXPLICIT))
    assert flat(parse(explicit, EXPLICIT), True) == flat(tree, True) or has_long_values(tree)
    assert flat(parse(explicit, EXPLICIT), False) == flat(tree, False)
    implicit = b"".join(element_tree.encode(tree, IMPLICIT))
    assert tags(parse(implicit, IMPLICIT)) == tags(tree)
    # What is empty, and was UN, may be an empty sequence by now.
    again = b"".join(element_tree.encode(parse(implicit, IMPLICIT), IMPLICIT))
    assert b"".join(element_tree.encode(parse(again, IMPLICIT), IMPLICIT)) == again


def tags(elements: Elements) -> list[int]:
    return [one.tag for one in elements.elements]


def by_pydicom(dataset: bytes, transfer_syntax_uid: str) -> Dataset:
    encoding = declared_encoding(transfer_syntax_uid)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_dataset(io.BytesIO(dataset), not encoding.explicit, encoding.little_endian)


def assert_same_as_pydicom(tree: Elements, read: Dataset) -> None:
    """Fail unless pydicom has the same elements with the same bytes, at all levels."""
    known = sorted({one.tag for one in tree.elements})
    assert known == sorted(int(tag) for tag in read.keys() if tag.element)  # noqa: SIM118
    for tag in known:
        own = tree.get(tag)
        assert own is not None
        if isinstance(own.value, list):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                theirs = read[tag].value
            assert len(theirs) == len(own.value)
            for item, their_item in zip(own.value, theirs, strict=True):
                assert_same_as_pydicom(item, their_item)
        elif isinstance(raw := read.get_item(tag), RawDataElement) and not isinstance(own.value, Fragments):
            if tag == 0x7FE00010 and not raw.is_little_endian:
                assert sorted(bytes(own.value)) == sorted(raw.value or b"")  # how wide its words are, pixels tell
                continue
            vr = raw.VR or (own.vr if not raw.is_little_endian else "UN")
            assert bytes(own.value) == in_little_endian(raw._replace(VR=vr))


# Real ones


@pytest.mark.parametrize("path", bundled_files(), ids=lambda path: path.name)
def test_real_files_are_read_alike_by_outline_tree_and_pydicom(path: Path) -> None:
    content = path.read_bytes()
    header = part10.locate(content)
    assert header is not None
    dataset = content[header.dataset_offset :]
    tree = assert_agreed(dataset, header.transfer_syntax_uid)
    if tree is None or header.transfer_syntax_uid in (DEFLATED, ""):
        return
    assert_same_as_pydicom(tree, by_pydicom(dataset, header.transfer_syntax_uid))


@pytest.mark.parametrize("name", one_of_each())
def test_a_data_set_of_each_kind_is_read_alike(name: str) -> None:
    encoded = one_of_each()[name]
    tree = assert_agreed(encoded.dataset, encoded.transfer_syntax_uid)
    assert tree is not None
    if encoded.transfer_syntax_uid != DEFLATED:
        assert_same_as_pydicom(tree, by_pydicom(encoded.dataset, encoded.transfer_syntax_uid))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_the_corpus_is_read_alike(path: Path) -> None:
    assert_agreed(path.read_bytes(), path.stem.rpartition("-")[2])


# Odd ones, each with what must be in its tree


def un_sequence(content: bytes, order: Syntax, syntax: Syntax) -> bytes:
    item = element(ITEM, "", content + element(ITEM_END, "", b"", order), order, UNDEFINED)
    return element(0x00291010, "UN", item + element(SEQUENCE_END, "", b"", order), syntax, UNDEFINED)


def sequence(content: bytes, syntax: Syntax, after_item: bytes = b"", after: bytes = b"") -> bytes:
    item = element(ITEM, "", content + element(ITEM_END, "", b"", syntax), syntax, UNDEFINED)
    end = element(SEQUENCE_END, "", b"", syntax)
    return element(0x00081140, "SQ", item + after_item + end, syntax, UNDEFINED) + after


ODD_VRS = [b"??", b"\0\0", b"  ", b"us", b"Us", b"1A", b"\xff?", b"ZZ", b"-\0"]
BEFORE, BEHIND = {"SOPClassUID": "1.2.3 "}, {"Rows": 7, "Columns": 9, "BitsAllocated": 16}
NESTED = {"ReferencedSOPInstanceUID": "1.2.3.4 "}


def around(middle: bytes, syntax: Syntax = LE) -> bytes:
    return encode(BEFORE, syntax) + middle + encode(BEHIND, syntax)


def odd_element(vr: bytes, value: bytes, tag: int = 0x00211001, long: bool = False) -> bytes:
    head = tag.to_bytes(4, "big")
    length = b"\0\0" + len(value).to_bytes(4, "little") if long else len(value).to_bytes(2, "little")
    return head[1::-1] + head[:1:-1] + vr + length + value


SURPLUS = {
    "item end behind a sequence": sequence(encode(NESTED, LE), LE, after=element(ITEM_END, "", b"", LE)),
    "sequence end behind a sequence": sequence(encode(NESTED, LE), LE, after=element(SEQUENCE_END, "", b"", LE)),
    "many behind a sequence": sequence(encode(NESTED, LE), LE, after=element(ITEM_END, "", b"", LE) * 3),
    "item end between items": sequence(encode(NESTED, LE), LE, after_item=element(ITEM_END, "", b"", LE)),
    "delimiters in an item of defined length": element(
        0x00081140,
        "SQ",
        element(ITEM, "", element(ITEM_END, "", b"", LE) + encode(NESTED, LE) + element(ITEM_END, "", b"", LE), LE)
        + element(SEQUENCE_END, "", b"", LE),
        LE,
    ),
}


@pytest.mark.parametrize("name", SURPLUS)
def test_surplus_delimiters_are_passed_over_and_nothing_else(name: str) -> None:
    tree = assert_agreed(around(SURPLUS[name]), EXPLICIT_LITTLE)
    assert tree is not None
    assert tags(tree) == [0x00080016, 0x00081140, 0x00280010, 0x00280011, 0x00280100]
    (item,) = tree.items(0x00081140)
    assert item.text(0x00081155) == "1.2.3.4"


@pytest.mark.parametrize("vr", ODD_VRS)
@pytest.mark.parametrize("value", [b"abcd", b"", b"a" * 0x1234, b"\0" * 8])
def test_an_element_whose_vr_is_none_is_opaque_bytes(vr: bytes, value: bytes) -> None:
    if (not value and not vr.strip(b"\0").isascii()) or vr == b"-\0":
        return  # the length of an implicit element
    for middle in (odd_element(vr, value), odd_element(vr, value) + odd_element(vr, b"12", 0x00211002)):
        tree = assert_agreed(around(middle), EXPLICIT_LITTLE)
        assert tree is not None
        assert bytes(tree.get(0x00211001).value) == value  # type: ignore[union-attr, arg-type]
        assert tags(tree)[-3:] == [0x00280010, 0x00280011, 0x00280100]
        assert tree.number(0x00280010) == 7


@pytest.mark.parametrize("vr", [b"??", b"\0\0", b"  ", b"ob", b"ZZ"])
def test_an_element_whose_vr_is_none_may_be_of_the_long_form(vr: bytes) -> None:
    tree = assert_agreed(around(odd_element(vr, b"v" * 70_000, long=True)), EXPLICIT_LITTLE)
    assert tree is not None
    assert bytes(tree.get(0x00211001).value) == b"v" * 70_000  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("vr", ODD_VRS)
def test_an_element_whose_vr_is_none_is_read_in_items_too(vr: bytes) -> None:
    content = encode(NESTED, LE) + odd_element(vr, b"abcd")
    defined = element(0x00081140, "SQ", element(ITEM, "", content, LE), LE)
    for middle in (sequence(content, LE), defined):
        tree = assert_agreed(around(middle), EXPLICIT_LITTLE)
        assert tree is not None
        assert bytes(tree.items(0x00081140)[0].get(0x00211001).value) == b"abcd"  # type: ignore[union-attr, arg-type]


def test_an_element_whose_vr_is_none_is_not_turned_into_another_order_of_bytes() -> None:
    odd = b"\x00\x21\x10\x01??\x00\x04abcd"
    found, tree = read_all(around(odd, BE), EXPLICIT_BIG)
    assert found is not None
    assert (found.attributes.Rows, found.attributes.get_item(0x00211001).value) == (7, b"abcd")
    assert tree is None


def test_an_element_whose_vr_is_none_may_be_the_last() -> None:
    for padding in (b"", bytes(30)):
        dataset = encode(BEFORE | BEHIND, LE) + odd_element(b"??", b"abcd", 0x00291001) + padding
        tree = assert_agreed(dataset, EXPLICIT_LITTLE)
        assert tree is not None
        assert bytes(tree.get(0x00291001).value) == b"abcd"  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("length", [2, 10, 300, 0x2020, 70_000, 0x00083F3E])
def test_implicit_elements_among_explicit_ones_are_read_with_invalid_vrs_beside_them(length: int) -> None:
    implicit = element(0x00211002, "LO", b"i" * length, IM) + element(0x00211003, "LO", b"j" * length, IM)
    tree = assert_agreed(around(odd_element(b"??", b"abcd") + implicit), EXPLICIT_LITTLE)
    assert tree is not None
    assert tags(tree) == [0x00080016, 0x00211001, 0x00211002, 0x00211003, 0x00280010, 0x00280011, 0x00280100]
    assert bytes(tree.get(0x00211003).value) == b"j" * length  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize(
    ("syntax", "uid", "inner", "order"),
    [
        (LE, EXPLICIT_LITTLE, IM, LE),
        (LE, EXPLICIT_LITTLE, LE, LE),
        (BE, EXPLICIT_BIG, IM, LE),
        (BE, EXPLICIT_BIG, LE, LE),
        (BE, EXPLICIT_BIG, BE, BE),
    ],
    ids=["LE implicit", "LE explicit", "BE implicit", "BE little explicit", "BE explicit"],
)
@pytest.mark.parametrize("attributes", [{"ReferencedFrameNumber": "3 ", "Rows": 3}, {}, {"Rows": 3}])
def test_a_sequence_of_unknown_vr_is_read_in_every_encoding(
    syntax: Syntax, uid: str, inner: Syntax, order: Syntax, attributes: dict[str | int, Any]
) -> None:
    creator = element(0x00290010, "LO", b"NOBODY", syntax)
    dataset = (
        encode({"SOPClassUID": "1.2.3 "}, syntax)
        + encode({"Rows": 7}, syntax)
        + creator
        + un_sequence(encode(attributes, inner), order, syntax)
        + element(0x7FE00010, "OW", b"\1\2", syntax)
    )
    tree = assert_agreed(dataset, uid)
    assert tree is not None
    assert tags(tree) == [0x00080016, 0x00280010, 0x00290010, 0x00291010, 0x7FE00010]
    (item,) = tree.items(0x00291010)
    assert item.number(0x00280010) == (3 if attributes else None)
    for written, encoding in ((EXPLICIT_LITTLE, EXPLICIT), (IMPLICIT_LITTLE, IMPLICIT)):
        read = by_pydicom(b"".join(element_tree.encode(tree, encoding)), written)
        assert read.Rows == 7
        if attributes and written == EXPLICIT_LITTLE:
            assert read[0x00291010].value[0].Rows == 3


def test_zeros_behind_the_last_element_are_no_element() -> None:
    for zeros in (1, 7, 8, 12, 100_000):
        for syntax, uid in ((LE, EXPLICIT_LITTLE), (BE, EXPLICIT_BIG), (IM, IMPLICIT_LITTLE)):
            tree = assert_agreed(encode(BEHIND, syntax) + bytes(zeros), uid)
            assert tree is not None
            assert tags(tree) == [0x00280010, 0x00280011, 0x00280100]


@pytest.mark.parametrize("depth", [1, 48, 49, 200, 256])
@pytest.mark.parametrize("syntax", [LE, BE, IM], ids=["explicit", "big endian", "implicit"])
def test_every_depth_that_is_taken_is_transcoded(depth: int, syntax: Syntax) -> None:
    uid = EXPLICIT_BIG if syntax.big else IMPLICIT_LITTLE if syntax.implicit else EXPLICIT_LITTLE
    tree = assert_agreed(sequence_of_depth(depth, syntax), uid)
    assert tree is not None
    for _ in range(depth):
        (tree,) = tree.items(0x0040A730)
    assert tree.elements == []


def test_what_is_deeper_is_refused_by_both() -> None:
    assert read_all(sequence_of_depth(257, LE), EXPLICIT_LITTLE) == (None, None)
    content = b""
    for _ in range(300):
        content = element(0x0040A730, "SQ", element(ITEM, "", content, LE), LE)
    assert read_all(content, EXPLICIT_LITTLE)[1] is None


def test_the_first_of_two_elements_of_one_tag_counts_for_all() -> None:
    found, tree = read_all(encode({"Rows": 7}, LE) + encode({"Rows": 8, "Columns": 9}, LE), EXPLICIT_LITTLE)
    assert found is not None
    assert tree is not None
    assert found.attributes.Rows == tree.number(0x00280010) == 7
    assert tags(tree) == [0x00280010, 0x00280010, 0x00280011]


def test_fragments_are_fragments_to_both() -> None:
    tree = assert_agreed(encode(BEHIND, LE) + fragments([b"abcd", b"\xfe\xff\xdd\xe0\0\0\0\0"]), EXPLICIT_LITTLE)
    assert tree is not None
    value = tree.get(0x7FE00010).value  # type: ignore[union-attr]
    assert isinstance(value, Fragments)
    assert [bytes(part) for part in value.fragments] == [b"abcd", b"\xfe\xff\xdd\xe0\0\0\0\0"]


def test_a_million_elements_in_items_are_refused_by_the_tree_and_cost_little() -> None:
    item = element(ITEM, "", element(0x00080100, "SH", b"", LE) * 1_000, LE)
    found, tree = read_all(element(0x0040A730, "SQ", item * 1_001, LE), EXPLICIT_LITTLE)
    assert found is not None
    assert tree is None


def test_a_million_fragments_are_refused_by_the_tree_and_cost_little() -> None:
    many = element(ITEM, "", b"", LE) * 1_000_001 + element(SEQUENCE_END, "", b"", LE)
    found, tree = read_all(encode(BEHIND, LE) + element(0x7FE00010, "OB", many, LE, UNDEFINED), EXPLICIT_LITTLE)
    assert found is not None
    assert tree is None


# Made up ones


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(encoded_data_sets())
def test_any_data_set_whose_structure_is_consistent_is_read_alike(encoded: EncodedDataSet) -> None:
    tree = assert_agreed(encoded.dataset, encoded.transfer_syntax_uid)
    assert tree is not None or encoded.transfer_syntax_uid == EXPLICIT_BIG  # 32-bit samples, for one, have two orders


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(damaged_data_sets())
def test_a_damaged_data_set_is_read_alike_or_refused(encoded: EncodedDataSet) -> None:
    assert_agreed(encoded.dataset, encoded.transfer_syntax_uid)


def test_real_data_sets_after_mutations_are_read_alike_or_refused() -> None:
    random = np.random.default_rng(10)
    sources = [
        (content[header.dataset_offset :], header.transfer_syntax_uid)
        for content in (path.read_bytes() for path in bundled_files())
        if len(content) < 20_000 and (header := part10.locate(content)) is not None
    ]
    sources += [(one.dataset, one.transfer_syntax_uid) for one in (structured_report(), ct_series(1, 16)[0])]
    sources += [(around(middle), EXPLICIT_LITTLE) for middle in SURPLUS.values()]
    for number in range(MUTATIONS):
        dataset, uid = sources[number % len(sources)]
        other, _ = sources[int(random.integers(len(sources)))]
        assert_agreed(mutated(dataset, other, random), uid)
