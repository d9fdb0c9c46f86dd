"""The header that the spool and the container keep, and the headers that others write."""

import datetime as dt
import io

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.datasets import CT_IMAGE, DEFLATED, EXPLICIT_LITTLE, Syntax, bundled_files, ct_series, encode
from thinfilm_gateway.dicom import part10

EXPLICIT = Syntax()
UIDS = st.from_regex(r"[0-9.]{0,64}", fullmatch=True)


@given(UIDS, UIDS, UIDS, st.from_regex(r"([!-~]([ -~]{0,14}[!-~])?)?", fullmatch=True), st.binary(max_size=9))
def test_what_is_built_is_located(sop_class: str, instance: str, syntax: str, title: str, behind: bytes) -> None:
    header = part10.build(sop_class, instance, syntax, title)
    assert part10.locate(header + behind) == part10.Part10(len(header), syntax, sop_class, instance, title)


@given(st.sampled_from([EXPLICIT, Syntax(implicit=True), Syntax(big=True)]), st.binary(max_size=9))
def test_a_data_set_that_has_file_meta_elements_begins_where_we_began_it(syntax: Syntax, behind: bytes) -> None:
    header = part10.build(CT_IMAGE, "1.2.3", EXPLICIT_LITTLE, "SENDER")
    inside = encode({0x00020000: ("UL", 28), 0x00020010: ("UI", "1.2"), 0x00020012: ("UI", "1.3")}, syntax)
    located = part10.locate(header + inside + behind)
    assert located == part10.Part10(len(header), EXPLICIT_LITTLE, CT_IMAGE, "1.2.3", "SENDER")


def test_the_group_length_of_others_is_not_believed_even_where_an_element_ends() -> None:
    header = part10.build(CT_IMAGE, "1.2.3", EXPLICIT_LITTLE)
    own = part10.IMPLEMENTATION_CLASS_UID.encode("ascii")
    assert own in header
    foreign = header.replace(own, own[:-1] + b"9")
    appended = foreign + encode({0x00020016: ("AE", "LATER ")}, EXPLICIT)
    located = part10.locate(appended + b"\x08\x00")
    assert located is not None
    assert (located.dataset_offset, located.source_ae_title) == (len(appended), "LATER")


def test_when_and_whence_an_object_came_is_kept() -> None:
    received_at = dt.datetime(2026, 2, 3, 4, 5, 6, 789, dt.timezone(dt.timedelta(hours=2)))
    header = part10.build(CT_IMAGE, "1.2.3", EXPLICIT_LITTLE, "SENDER", "10.0.0.7", received_at)
    located = part10.locate(header)
    assert located is not None
    assert (located.source_ae_title, located.source_address) == ("SENDER", "10.0.0.7")
    assert located.received_at == received_at


def test_pydicom_reads_what_is_built() -> None:
    data_set = ct_series(1, 16)[0]
    read = pydicom.dcmread(io.BytesIO(data_set.part10()))
    assert read.file_meta.MediaStorageSOPInstanceUID == read.SOPInstanceUID == data_set.sop_instance_uid
    assert read.file_meta.TransferSyntaxUID == EXPLICIT_LITTLE
    assert read.file_meta.SourceApplicationEntityTitle == "TEST"
    assert (
        read.file_meta.FileMetaInformationGroupLength
        == len(part10.build("", "", ""))
        - 144
        + sum(len(text) + len(text) % 2 for text in (CT_IMAGE, data_set.sop_instance_uid, EXPLICIT_LITTLE))
        + 8
        + 4
    )


@pytest.mark.parametrize("path", bundled_files(), ids=lambda path: path.name)
def test_the_headers_of_real_files_are_located_where_pydicom_finds_them(path) -> None:
    located = part10.locate(path.read_bytes())
    assert located is not None
    with path.open("rb") as file:
        meta = pydicom.filereader.read_partial(file, stop_when=lambda tag, vr, length: True, force=True).file_meta
        if located.transfer_syntax_uid != DEFLATED:  # pydicom has inflated that to its end
            assert located.dataset_offset == file.tell()
    assert located.transfer_syntax_uid == meta.get("TransferSyntaxUID", "")
    assert located.sop_instance_uid == meta.get("MediaStorageSOPInstanceUID", "")


def test_a_wrong_group_length_is_not_believed() -> None:
    header = bytearray(part10.build(CT_IMAGE, "1.2.3", EXPLICIT_LITTLE))
    header[140:144] = b"\xff\xff\xff\x7f"
    located = part10.locate(bytes(header) + b"\x08\x00")
    assert located is not None
    assert located.dataset_offset == len(header)


@pytest.mark.parametrize("cut", [0, 127, 131, 133, 140, 143, 150, -1])
def test_there_is_no_header_where_it_is_cut_off(cut: int) -> None:
    assert part10.locate(part10.build(CT_IMAGE, "1.2.3", EXPLICIT_LITTLE)[:cut]) is None


@given(st.binary(max_size=400))
def test_bytes_behind_the_prefix_never_raise(behind: bytes) -> None:
    part10.locate(bytes(128) + b"DICM" + b"\x02\x00" + behind)
    assert part10.locate(behind[:131]) is None
