"""What may be lossy is what can be understood in one way alone: no structure hides that an object was lossy before."""

from pathlib import Path

import pytest

from support.datasets import UNDEFINED, EncodedDataSet, Syntax, ct_series, element, encode
from thinfilm_gateway.archive.container.survey import survey
from thinfilm_gateway.archive.permission import why_lossless
from thinfilm_gateway.dicom.inflating import SYSTEM_SCRATCH

ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
LE, IM = Syntax(), Syntax(implicit=True)
CODE = {"CodeValue": "113040", "CodingSchemeDesignator": "DCM "}
TOLD = {"LossyImageCompression": "01"}
LOSSY_BEFORE = "It was compressed lossily before."
SURPLUS = element(ITEM_END, "", b"", LE)


def verdict(folder: Path, data_set: EncodedDataSet) -> str:
    return why_lossless(survey(data_set.write(folder / "image.dcm")), SYSTEM_SCRATCH)


def with_elements(*, before: bytes = b"", behind_patient: bytes = b"", behind: bytes = b"") -> EncodedDataSet:
    """Return a CT with encoded elements before all, before group 0028, and behind all."""
    (image,) = ct_series(1, 16)
    at = image.dataset.index(b"\x28\x00\x02\x00US")
    return image._replace(dataset=before + image.dataset[:at] + behind_patient + image.dataset[at:] + behind)


def sequence(vr: str, items: bytes, length: int | None = None) -> bytes:
    return element(0x00089215, vr, items, LE, length)


def opened(content: bytes, syntax: Syntax = LE) -> bytes:
    item = element(ITEM, "", content + element(ITEM_END, "", b"", syntax), syntax, UNDEFINED)
    return item + element(SEQUENCE_END, "", b"", syntax)


def test_a_plain_image_may_be_lossy(tmp_path: Path) -> None:
    assert verdict(tmp_path, with_elements()) == ""


def test_surplus_delimiters_hide_nothing(tmp_path: Path) -> None:
    told = encode(TOLD, LE)
    assert verdict(tmp_path, with_elements(behind_patient=SURPLUS)) == ""
    assert verdict(tmp_path, with_elements(behind_patient=SURPLUS, behind=told)) == LOSSY_BEFORE
    assert verdict(tmp_path, with_elements(behind=SURPLUS * 3 + told)) == LOSSY_BEFORE
    inside = element(ITEM, "", SURPLUS + encode(CODE, LE), LE)
    assert verdict(tmp_path, with_elements(behind=sequence("SQ", inside))) == LOSSY_BEFORE


@pytest.mark.parametrize(
    "derivation",
    [
        sequence("SQ", opened(encode(CODE, LE)), UNDEFINED),
        sequence("SQ", element(ITEM, "", encode(CODE, LE), LE)),
        sequence("UN", opened(encode(CODE, IM)), UNDEFINED),
        sequence("UN", opened(encode(CODE, LE)), UNDEFINED),
    ],
    ids=["undefined", "defined", "UN, implicit", "UN, explicit"],
)
def test_a_derivation_code_is_found_in_a_sequence_of_any_form(tmp_path: Path, derivation: bytes) -> None:
    assert verdict(tmp_path, with_elements(behind=derivation)) == LOSSY_BEFORE
    frame = element(0x52009230, "SQ", element(ITEM, "", derivation, LE), LE)
    assert verdict(tmp_path, with_elements(behind=frame)) == LOSSY_BEFORE


@pytest.mark.parametrize("vr", ["UN", "OB", "LT", "??"])
def test_a_sequence_that_is_sent_as_bytes_keeps_an_image_lossless(tmp_path: Path, vr: str) -> None:
    hidden = sequence(vr, element(ITEM, "", encode(CODE, IM), LE))
    assert "(0008,9215) is no sequence" in verdict(tmp_path, with_elements(behind=hidden))


def test_an_attribute_that_is_there_twice_keeps_an_image_lossless(tmp_path: Path) -> None:
    for behind in (encode({"LossyImageCompression": "00"}, LE) + encode(TOLD, LE), encode({"Modality": "MG"}, LE)):
        assert "is there twice" in verdict(tmp_path, with_elements(behind=behind))


def test_an_attribute_that_is_sent_as_a_sequence_keeps_an_image_lossless(tmp_path: Path) -> None:
    hidden = element(0x00282110, "SQ", element(ITEM, "", encode(CODE, LE), LE), LE)
    assert "(0028,2110) is a sequence" in verdict(tmp_path, with_elements(behind=hidden))


def test_a_file_header_in_the_data_set_keeps_an_image_lossless(tmp_path: Path) -> None:
    meta = encode({0x00020010: ("UI", "1.2.840.10008.1.2.1\0")}, LE)
    assert "file header" in verdict(tmp_path, with_elements(before=meta))


@pytest.mark.parametrize("depth", [60, 200])
def test_loss_is_told_at_any_depth(tmp_path: Path, depth: int) -> None:
    content = encode(TOLD, LE)
    for _ in range(depth):
        content = element(0x0040A730, "SQ", opened(content), LE, UNDEFINED)
    assert verdict(tmp_path, with_elements(behind=content)) == LOSSY_BEFORE
