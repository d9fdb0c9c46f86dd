import json
from collections.abc import Iterator
from typing import Any

import google_crc32c
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from thinfilm_codecs.blocks import BlockLayout
from thinfilm_codecs.jpeg_lossless import HuffmanTable, ScanCoding
from thinfilm_gateway.archive.container import format as tfa
from thinfilm_gateway.archive.container.format import (
    DamagedContainer,
    DerivationNote,
    DicomHeader,
    Entry,
    Footer,
    FrameGroup,
    LiteralGroup,
    LiteralRun,
    Manifest,
    Section,
    Stack,
    StackCodec,
    frame_run,
    scan_run,
)
from thinfilm_gateway.archive.container.manifest import manifest_bytes, read_manifest
from thinfilm_gateway.dicom.pixels import Packing

SIZE = 100_000
LAYOUT = BlockLayout(3, 4, 5, 1, "int16")
PACKING = Packing(16, big_endian=False, planar=False)
SCAN = ScanCoding(16, 1, 1, (HuffmanTable(bytes([0, 2, *[0] * 14]), b"\x00\x05"),))
DICOM = DicomHeader(150, 64 * "a", "1.2.840.10008.1.2.1", "1.2", "1.3", "1.4", "1.5", "CT")
NOTE = DerivationNote("1.2", 64 * "c", "vae", "quality 3", 4.5, "esr-strict", 5.0, "somebody 5:1", None)
DICOM_OF_SCAN = DicomHeader(0, 64 * "b", "1.2.840.10008.1.2.4.70", "1.2", "1.3", "1.4", "1.5", "CT")
MANIFEST = Manifest(
    literals=(LiteralGroup(Section(8, 100), 300),),
    stacks=(
        Stack(
            LAYOUT,
            (StackCodec("jpegls", None), StackCodec("neural", Section(124, 10))),
            (FrameGroup(Section(150, 50), 0, 2), FrameGroup(Section(216, 50), 1, 1)),
        ),
    ),
    entries=(
        Entry(
            "CT/1.dcm",
            200 + 80 + 50,
            64 * "0",
            DICOM,
            (LiteralRun(0, 0, 200), frame_run(0, LAYOUT, 0, 2, PACKING), LiteralRun(0, 200, 50)),
        ),
        Entry("notes.txt", 50, 64 * "1", None, (LiteralRun(0, 250, 50),)),
        Entry("empty", 0, 64 * "2", None, ()),
        Entry("CT/2.dcm", 90, 64 * "3", DICOM_OF_SCAN, (LiteralRun(0, 0, 60), scan_run(0, LAYOUT, 2, SCAN, 30)), NOTE),
    ),
)


def document() -> dict[str, Any]:
    value = json.loads(zstandard.decompress(manifest_bytes(MANIFEST)))
    assert isinstance(value, dict)
    return value


def read_document(value: object) -> Manifest:
    return read_manifest(zstandard.compress(json.dumps(value).encode()), SIZE)


def test_a_manifest_reads_back_as_it_was_written() -> None:
    assert read_manifest(manifest_bytes(MANIFEST), SIZE) == MANIFEST


def test_members_that_a_later_writer_adds_are_passed_over() -> None:
    value = document()
    value["remark"] = "new"
    value["entries"][0]["remark"] = {"new": [1]}
    value["stacks"][0]["remark"] = None
    assert read_document(value) == MANIFEST


def test_a_container_of_a_newer_version_is_refused_by_its_number() -> None:
    with pytest.raises(DamagedContainer, match="format version 2"):
        read_document(document() | {"version": 2})


def spoilt() -> Iterator[tuple[str, Any]]:
    """All documents that a reader must reject, by the rule that they break (docs/container-format.md)."""

    def change(*path: Any, to: Any) -> dict[str, Any]:
        value = document()
        target = value
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = to
        return value

    yield "a manifest that is no object", []
    yield "a list that is none", change("entries", to={})
    for name in ("original_sop_instance_uid", "original_sha256", "codec_id", "setting", "profile", "citation"):
        yield f"a derived object whose {name} is no text", change("entries", 3, "derived", name, to=1)
    for ratio in (None, "5", True, 0, -1, float("inf"), float("nan"), 2.0**49):
        yield f"a derived object of ratio {ratio}", change("entries", 3, "derived", "ratio", to=ratio)
        yield f"a derived object below a ceiling of {ratio}", change("entries", 3, "derived", "ceiling", to=ratio)
    yield "a bound on errors that is none", change("entries", 3, "derived", "error_bound", to=0)
    yield "a section before the magic ends", change("literals", 0, 0, to=7)
    yield "a section that reaches into the footer", change("literals", 0, 1, to=SIZE - 8 - 16 - tfa.FOOTER_BYTES + 1)
    yield "an empty section", change("literals", 0, 1, to=0)
    yield "a negative number", change("literals", 0, 0, to=-8)
    yield "a number that is true", change("literals", 0, 0, to=True)
    yield "a number with a fraction", change("literals", 0, 0, to=8.0)
    yield "a literal group above 16 MiB", change("literals", 0, 2, to=tfa.LITERAL_LIMIT + 1)
    yield "an empty literal group", change("literals", 0, 2, to=0)
    yield "a stack without rows", change("stacks", 0, "layout", 1, to=0)
    yield "a stack of another type", change("stacks", 0, "layout", 4, to="float32")
    yield "a stack above 256 MiB", change("stacks", 0, "layout", 2, to=2**27)
    yield "a stack of a packing's other size", change("stacks", 0, "layout", 4, to="int8")
    yield "groups that do not add up", change("stacks", 0, "groups", 0, 3, to=1)
    yield "a group of no frames", change("stacks", 0, "groups", 0, 3, to=0)
    yield "a group of no codec", change("stacks", 0, "groups", 0, 2, to=2)
    yield "a codec without a name", change("stacks", 0, "codecs", 0, 0, to="")
    yield "an entry of another size", change("entries", 0, "bytes", to=331)
    yield "a run beyond its literal group", change("entries", 0, "pieces", 2, 3, to=101)
    yield "an empty run", change("entries", 0, "pieces", 2, 3, to=0)
    yield "a run of no literal group", change("entries", 0, "pieces", 0, 1, to=1)
    yield "a run of no stack", change("entries", 0, "pieces", 1, 1, to=1)
    yield "a run beyond its stack", change("entries", 0, "pieces", 1, 3, to=4)
    yield "a run of no frames", change("entries", 0, "pieces", 1, 3, to=0)
    yield "a piece of another kind", change("entries", 0, "pieces", 0, 0, to="pixels")
    yield "a packing of 12 bits", change("entries", 0, "pieces", 1, 4, "bits_allocated", to=12)
    yield "planes of one component", change("entries", 0, "pieces", 1, 4, "planar", to=True)
    scan = ("entries", 3, "pieces", 1)
    yield "a scan of no stack", change(*scan, 1, to=1)
    yield "a scan of no frame", change(*scan, 2, to=3)
    yield "an empty scan", change(*scan, 3, to=0)
    yield "a scan that is too long for its samples", change(*scan, 3, to=8 * 20 + 1)
    yield "a scan without a coding", change(*scan, 4, to=None)
    yield "a scan of more bits than its samples have", change(*scan, 4, "precision", to=17)
    yield "a scan of no predictor", change(*scan, 4, "predictor", to=8)
    yield "a scan with more tables than components", change(*scan, 4, "tables", to=2 * [["00" * 16, ""]])
    yield "a scan with a table that is none", change(*scan, 4, "tables", 0, 1, to="0011")
    yield "a data set behind the file", change("entries", 0, "dicom", "dataset_offset", to=331)
    yield "a SHA-256 of capital letters", change("entries", 0, "sha256", to=64 * "A")
    yield "a SHA-256 that is short", change("entries", 0, "dicom", "dataset_sha256", to=63 * "a")
    yield "a text that is a number", change("entries", 0, "dicom", "modality", to=1)
    yield "a text that is too long", change("entries", 0, "dicom", "modality", to="C" * 4097)
    for name in ("", "/etc/passwd", "..", "../x", "a/../x", "a//x", "a/", "./a", "a\0b", "notes.txt", "CT/1.dcm/x"):
        yield f"the name {name!r}", change("entries", 2, "name", to=name)


@pytest.mark.parametrize("value", [pytest.param(value, id=rule) for rule, value in spoilt()])
def test_a_reader_rejects(value: object) -> None:
    with pytest.raises(DamagedContainer):
        read_document(value)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 100_000, b'{"version":' + b"9" * 10_000 + b"}"])
def test_a_manifest_that_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(DamagedContainer):
        read_manifest(zstandard.compress(raw), SIZE)


def test_a_manifest_that_declares_more_than_the_limit_is_refused_before_it_is_inflated() -> None:
    bomb = zstandard.compress(bytes(tfa.MANIFEST_LIMIT + 1))
    with pytest.raises(DamagedContainer, match="declares"):
        read_manifest(bomb, SIZE)


def test_a_manifest_without_a_declared_size_is_refused() -> None:
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(b"{}")
    with pytest.raises(DamagedContainer, match="declares no size"):
        read_manifest(unsized, SIZE)


def test_a_footer_reads_back_as_it_was_written() -> None:
    footer = Footer(Section(1000, 200), Section(1216, 200))
    assert tfa.read_footer(tfa.footer_bytes(footer), SIZE) == footer


@given(position=st.integers(0, tfa.FOOTER_BYTES - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_footer_is_found(position: int, bit: int) -> None:
    data = bytearray(tfa.footer_bytes(Footer(Section(1000, 200), Section(1216, 200))))
    data[position] ^= 1 << bit
    with pytest.raises(DamagedContainer):
        tfa.read_footer(bytes(data), SIZE)


def test_a_footer_that_points_outside_the_file_is_refused() -> None:
    with pytest.raises(DamagedContainer, match="outside"):
        tfa.read_footer(tfa.footer_bytes(Footer(Section(SIZE, 200), Section(8, 200))), SIZE)


def test_a_section_above_the_limit_is_refused_however_large_the_container_is() -> None:
    tfa.check_section(Section(8, tfa.SECTION_LIMIT), 2**40)
    with pytest.raises(DamagedContainer, match="too large"):
        tfa.check_section(Section(8, tfa.SECTION_LIMIT + 1), 2**40)


def test_a_section_header_is_kind_checksum_and_length_in_little_endian() -> None:
    header = tfa.section_header(tfa.FRAMES, b"123456789")
    assert header == b"FRMS" + (0xE3069283).to_bytes(4, "little") + (9).to_bytes(8, "little")
    assert google_crc32c.value(b"123456789") == 0xE3069283


@pytest.mark.parametrize("names", [["a", "a"], ["a", "a/b"], ["a/b", "a"], ["a/b/c", "a/b"], ["\\..", ".."]])
def test_names_that_collide_or_escape_are_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match="name"):
        tfa.check_names(names)


def test_plain_names_of_any_script_are_accepted() -> None:
    tfa.check_names(["a/b", "a/c", "ab", "1.2.840.113619.2.1", "Ünïcode/影像", "raw-\udcff-byte", "..dots..", "a b"])
