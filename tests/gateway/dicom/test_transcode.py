"""Stored objects as native little endian: the same pixels and the same attributes as other decoders see."""

import io
import struct
import subprocess
import warnings
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import jpeg_ls
import numpy as np
import pytest
from hypothesis import assume, given, settings
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.pixels import pixel_array

from support.datasets import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    SEGMENTATION,
    SYNTAX_OF,
    US_IMAGE,
    Attributes,
    EncodedDataSet,
    Syntax,
    bundled_files,
    ct_series,
    encode,
    encoded_data_sets,
    finish,
    fragments,
    image_attributes,
    instance,
    one_of_each,
)
from thinfilm_gateway.dicom import part10
from thinfilm_gateway.dicom.element_tree import Elements, parse
from thinfilm_gateway.dicom.elements import EXPLICIT_LITTLE as EXPLICIT
from thinfilm_gateway.dicom.elements import IMPLICIT_LITTLE as IMPLICIT
from thinfilm_gateway.dicom.transcode import CannotTranscode, check_native, to_native, write_native

TARGETS = [EXPLICIT_LITTLE, IMPLICIT_LITTLE]
JPEG_BASELINE, JPEG_EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS, JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"
JPEG_LS, JPEG_LS_NEAR = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS, JPEG_2000 = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
JPEG_XL_LOSSLESS, JPEG_XL = "1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.112"
RLE = "1.2.840.10008.1.2.5"
DEFLATED_FRAME = "1.2.840.10008.1.2.8.1"
ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
MPEG_2 = "1.2.840.10008.1.2.4.100"

# Undecodable, or no data set at all, on purpose.
BROKEN = {
    "meta_missing_tsyntax.dcm",
    "MR_truncated.dcm",
    "rtplan_truncated.dcm",
    "JPEG2000-embedded-sequence-delimiter.dcm",
}
FILES = [path for path in bundled_files() if path.name not in BROKEN]


def load(path: Path) -> EncodedDataSet:
    raw = path.read_bytes()
    header = part10.locate(raw)
    assert header is not None
    return EncodedDataSet(
        raw[header.dataset_offset :], header.transfer_syntax_uid, header.sop_class_uid, header.sop_instance_uid
    )


def read(dataset: bytes, transfer_syntax_uid: str) -> Dataset:
    """Read by pydicom."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = read_dataset(io.BytesIO(dataset), transfer_syntax_uid == IMPLICIT_LITTLE, True)
        read.file_meta = FileMetaDataset()
        read.file_meta.TransferSyntaxUID = transfer_syntax_uid
    return read


def has_two_orders(original: Dataset) -> bool:
    """Whether it has samples that DCMTK and pydicom write in other orders."""
    return original.file_meta.TransferSyntaxUID == EXPLICIT_BIG and original.get("BitsAllocated") == 32


def native(encoded: EncodedDataSet, target: str = EXPLICIT_LITTLE) -> Dataset:
    return read(to_native(encoded.dataset, encoded.transfer_syntax_uid, target), target)


def encapsulate(samples: Any, frames: list[bytes], transfer_syntax_uid: str, **changes: Any) -> EncodedDataSet:
    """An object of these samples whose frames were coded elsewhere."""
    attributes: Attributes = {**instance(US_IMAGE, "US"), **image_attributes(samples), **changes}
    if len(frames) > 1:
        attributes["NumberOfFrames"] = str(len(frames))
    kept = {key: value for key, value in attributes.items() if value is not None}
    return finish(kept, tail=fragments(frames))._replace(transfer_syntax_uid=transfer_syntax_uid)


def grey(bits: int, *, signed: bool = False, rows: int = 23, columns: int = 31) -> Any:
    generator = np.random.default_rng(bits)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    dtype = np.dtype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")
    return np.sort(generator.integers(low, high, (rows, columns)), axis=1).astype(dtype)


def colour(rows: int = 24, columns: int = 32) -> Any:
    return np.random.default_rng(3).integers(0, 256, (rows, columns, 3)).astype(np.uint8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_pydicom_sees_the_same_pixels_and_attributes_before_and_after(path: Path, target: str):
    original = dcmread(path)
    encoded = load(path)
    if has_two_orders(original):
        with pytest.raises(CannotTranscode, match="32-bit"):
            native(encoded, target)
        return
    transcoded = native(encoded, target)

    changed = {"PixelData", "PhotometricInterpretation", "PlanarConfiguration"}
    for element in original:
        if (
            element.tag.is_private
            or element.keyword in changed
            or element.tag.element == 0
            or element.is_undefined_length
        ):
            continue
        try:
            value = element.value
        except Exception:
            continue  # a value that pydicom refuses is compared by the other reader, below
        assert transcoded[element.tag].value == value, element.keyword
    try:
        expected = pixel_array(original, raw=False)
    except Exception:
        return  # no pixels, or no decoder in pydicom: see the tests by DCMTK
    got = pixel_array(transcoded, raw=False)
    assert got.shape == expected.shape
    assert np.array_equal(got, expected)


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("SC_rgb_jpeg_gdcm.dcm", "dcmdjpeg"),
        ("JPEG-lossy.dcm", "dcmdjpeg"),
        ("JPGExtended.dcm", "dcmdjpeg"),
        ("SC_rgb_dcmtk_+eb+cr.dcm", "dcmdjpeg"),
        ("SC_rgb_jpeg_dcmtk.dcm", "dcmdjpeg"),
        ("MR_small_jpeg_ls_lossless.dcm", "dcmdjpls"),
        ("JPEGLSNearLossless_16.dcm", "dcmdjpls"),
        ("MR_small_RLE.dcm", "dcmdrle"),
        ("image_dfl.dcm", "dcmconv"),
        ("MR_small_expb.dcm", "dcmconv"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_dcmtk_decodes_to_the_same_pixels(tmp_path: Path, name: str, program: str):
    path = next(path for path in bundled_files() if path.name == name)
    decoded = tmp_path / "decoded.dcm"
    subprocess.run([program, *(["+te"] if program == "dcmconv" else []), path, decoded], check=True)
    expected = dcmread(decoded)
    transcoded = native(load(path))
    assert transcoded.PhotometricInterpretation == expected.PhotometricInterpretation
    difference = np.abs(transcoded.pixel_array.astype(int) - expected.pixel_array.astype(int))
    lossy = load(path).transfer_syntax_uid in (JPEG_BASELINE, JPEG_EXTENDED)
    assert difference.max() <= (2 if lossy else 0)  # inverse cosine transforms round differently


LOSSLESS = [
    ("JPEG lossless, 12 bits", JPEG_LOSSLESS_SV1, grey(12), lambda a: imagecodecs.ljpeg_encode(a, bitspersample=12)),
    ("JPEG lossless, 16 bits", JPEG_LOSSLESS, grey(16), lambda a: imagecodecs.ljpeg_encode(a, bitspersample=16)),
    ("JPEG-LS", JPEG_LS, grey(12), imagecodecs.jpegls_encode),
    ("JPEG-LS, colour", JPEG_LS, colour(), imagecodecs.jpegls_encode),
    ("JPEG 2000", JPEG_2000_LOSSLESS, grey(16), lambda a: imagecodecs.jpeg2k_encode(a, level=0, reversible=True)),
    (
        "JPEG 2000, signed",
        JPEG_2000_LOSSLESS,
        grey(16, signed=True),
        lambda a: imagecodecs.jpeg2k_encode(a, level=0, reversible=True, codecformat="j2k"),
    ),
    ("HTJ2K", HTJ2K_LOSSLESS, grey(16), imagecodecs.htj2k_encode),
    ("HTJ2K, colour", HTJ2K_LOSSLESS, colour(), imagecodecs.htj2k_encode),
    ("JPEG XL", JPEG_XL_LOSSLESS, grey(16), lambda a: imagecodecs.jpegxl_encode(a, lossless=True)),
    ("JPEG XL, colour", JPEG_XL_LOSSLESS, colour(), lambda a: imagecodecs.jpegxl_encode(a, lossless=True)),
    ("deflated frame", DEFLATED_FRAME, grey(16), lambda a: zlib.compress(a.tobytes(), wbits=-15)),
    ("uncompressed", ENCAPSULATED_UNCOMPRESSED, grey(16), lambda a: a.tobytes()),
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("transfer_syntax_uid", "samples", "coder"), [row[1:] for row in LOSSLESS], ids=[r[0] for r in LOSSLESS]
)
def test_a_lossless_frame_comes_out_as_the_samples_that_went_in(transfer_syntax_uid, samples, coder, target):
    encoded = encapsulate(samples, [bytes(coder(samples))], transfer_syntax_uid)
    assert np.array_equal(native(encoded, target).pixel_array, samples)


def test_planes_of_a_jpeg_ls_stream_become_colour_by_pixel():
    samples = colour()
    stream = bytes(jpeg_ls.encode_array(np.ascontiguousarray(samples.transpose(2, 0, 1)), interleave_mode=0))
    decoded = native(encapsulate(samples, [stream], JPEG_LS, PlanarConfiguration=1))
    assert np.array_equal(decoded.pixel_array, samples)
    assert decoded.PlanarConfiguration == 0


@pytest.mark.parametrize("photometric", ["YBR_RCT", "YBR_ICT"])
def test_the_colour_transforms_of_jpeg_2000_become_rgb(photometric: str):
    samples = colour()
    stream = imagecodecs.jpeg2k_encode(samples, level=0, reversible=True, mct=True, codecformat="j2k")
    decoded = native(encapsulate(samples, [stream], JPEG_2000_LOSSLESS, PhotometricInterpretation=photometric))
    assert decoded.PhotometricInterpretation == "RGB"
    assert np.array_equal(decoded.pixel_array, samples)


def test_reversible_ybr_full_stays_ybr_full():
    samples = colour()
    encoded = encapsulate(samples, [imagecodecs.jpegls_encode(samples)], JPEG_LS, PhotometricInterpretation="YBR_FULL")
    decoded = native(encoded)
    assert decoded.PhotometricInterpretation == "YBR_FULL"
    assert decoded.PixelData == samples.tobytes()


def test_lossy_jpeg_xl_becomes_rgb_and_stays_marked_as_lossy():
    samples = np.full((16, 16, 3), (200, 30, 90), np.uint8)
    stream = imagecodecs.jpegxl_encode(samples, distance=1.0)
    decoded = native(
        encapsulate(samples, [stream], JPEG_XL, PhotometricInterpretation="XYB", LossyImageCompression="01")
    )
    assert decoded.PhotometricInterpretation == "RGB"
    assert decoded.LossyImageCompression == "01"
    assert np.abs(decoded.pixel_array.astype(int) - samples).max() < 10


def test_twelve_bit_two_s_complement_samples_are_sign_extended():
    samples = grey(12, signed=True)
    stream = imagecodecs.jpegls_encode((samples & 0x0FFF).astype(np.uint16))
    decoded = native(encapsulate(samples, [stream], JPEG_LS, BitsStored=12, HighBit=11))
    assert np.array_equal(decoded.pixel_array, samples)


def test_one_bit_frames_that_do_not_end_at_a_byte_are_joined_bit_by_bit():
    samples = np.random.default_rng(1).integers(0, 2, (3, 5, 7)).astype(np.uint8)
    frames = [zlib.compress(np.packbits(frame, bitorder="little").tobytes(), wbits=-15) for frame in samples]
    encoded = encapsulate(samples[0], frames, DEFLATED_FRAME, BitsAllocated=1, BitsStored=1, HighBit=0)
    decoded = native(encoded)
    expected = np.packbits(samples.ravel(), bitorder="little").tobytes()
    assert decoded.PixelData == expected + b"\0" * (len(expected) % 2)


def test_an_odd_number_of_bytes_is_padded():
    samples = grey(8, rows=3, columns=3)
    decoded = native(encapsulate(samples, [imagecodecs.jpegls_encode(samples)], JPEG_LS))
    assert decoded.PixelData == samples.tobytes() + b"\0"


@pytest.mark.parametrize("table", [False, True])
def test_frames_in_several_fragments_are_put_together(table: bool):
    samples = np.stack([grey(8), grey(8)[::-1]])
    streams = [imagecodecs.jpeg2k_encode(frame, level=0, reversible=True, codecformat="j2k") for frame in samples]
    streams = [stream + b"\0" * (len(stream) % 2) for stream in streams]
    parts = [part for stream in streams for part in (stream[:40], stream[40:])]
    encoded = encapsulate(samples[0], parts, JPEG_2000_LOSSLESS, NumberOfFrames="2")
    dataset = encoded.dataset.replace(b"IS\x02\x004 ", b"IS\x02\x002 ")
    if table:
        offsets = struct.pack("<LL", 0, len(streams[0]) + 16)
        empty = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
        at = dataset.index(empty)
        dataset = dataset[:at] + struct.pack("<HHL", 0xFFFE, 0xE000, 8) + offsets + dataset[at + 8 :]
    assert np.array_equal(native(encoded._replace(dataset=dataset)).pixel_array, samples)


def test_offset_tables_and_group_lengths_go_and_everything_else_stays():
    samples = grey(8)
    encoded = encapsulate(
        samples,
        [imagecodecs.jpegls_encode(samples)],
        JPEG_LS,
        **{"PatientComments": "stays", "ExtendedOffsetTable": b"\0" * 8, "ExtendedOffsetTableLengths": b"\1" * 8},
    )
    group_length = struct.pack("<HH2sHL", 0x0008, 0x0000, b"UL", 4, 1234)
    decoded = native(encoded._replace(dataset=group_length + encoded.dataset))
    assert (0x0008, 0x0000) not in decoded
    assert "ExtendedOffsetTable" not in decoded
    assert "ExtendedOffsetTableLengths" not in decoded
    assert decoded.PatientComments == "stays"
    assert decoded.SOPInstanceUID == encoded.sop_instance_uid


@pytest.mark.filterwarnings("ignore")
def test_an_encapsulated_icon_is_decoded_too():
    icon, samples = grey(8, rows=4, columns=4), grey(8)
    item: Attributes = {**image_attributes(icon)}
    encoded_item = encode(item, Syntax()) + fragments([imagecodecs.jpegls_encode(icon)])
    sequence = struct.pack("<HH2sHL", 0x0088, 0x0200, b"SQ", 0, len(encoded_item) + 8)
    sequence += struct.pack("<HHL", 0xFFFE, 0xE000, len(encoded_item)) + encoded_item
    encoded = encapsulate(samples, [imagecodecs.jpegls_encode(samples)], JPEG_LS)
    at = encoded.dataset.index(struct.pack("<HH", 0x7FE0, 0x0010))
    decoded = native(encoded._replace(dataset=encoded.dataset[:at] + sequence + encoded.dataset[at:]))
    assert decoded.IconImageSequence[0].PixelData == icon.tobytes()
    assert np.array_equal(decoded.pixel_array, samples)


@settings(max_examples=60, deadline=None)
@given(encoded_data_sets())
def test_any_native_data_set_keeps_its_values_through_both_encodings(encoded: EncodedDataSet):
    assume(encoded.transfer_syntax_uid in (*TARGETS, DEFLATED, EXPLICIT_BIG))
    try:
        explicit = to_native(encoded.dataset, encoded.transfer_syntax_uid, EXPLICIT_LITTLE)
    except CannotTranscode as error:
        assume("32-bit samples" not in str(error))
        raise
    implicit = to_native(explicit, EXPLICIT_LITTLE, IMPLICIT_LITTLE)
    assert flat(parse(explicit, EXPLICIT)) == flat(parse(implicit, IMPLICIT))
    assert to_native(implicit, IMPLICIT_LITTLE, IMPLICIT_LITTLE) == implicit


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", [name for name in one_of_each() if name != "SC, encapsulated"])
@pytest.mark.filterwarnings("ignore")
def test_a_data_set_of_each_kind_reads_the_same_by_pydicom(name: str, target: str):
    encoded = one_of_each()[name]
    big = encoded.transfer_syntax_uid == EXPLICIT_BIG
    dataset = zlib.decompress(encoded.dataset, -15) if encoded.transfer_syntax_uid == DEFLATED else encoded.dataset
    original = read_dataset(io.BytesIO(dataset), encoded.transfer_syntax_uid == IMPLICIT_LITTLE, not big)
    transcoded = native(encoded, target)
    for element in original:
        if element.tag.element and not element.tag.is_private and not (big and element.keyword == "PixelData"):
            assert transcoded[element.tag].value == element.value


def test_what_is_no_longer_the_same_object_is_not_given_out():
    first, second = ct_series(2, 16)
    native = to_native(first.dataset, EXPLICIT_LITTLE, IMPLICIT_LITTLE)
    check_native(first.dataset, EXPLICIT_LITTLE, native, IMPLICIT_LITTLE)
    pixels = native.index(struct.pack("<HH", 0x7FE0, 0x0010))
    rows = native.index(struct.pack("<HHL", 0x0028, 0x0010, 2)) + 8
    for wrong in (
        to_native(second.dataset, EXPLICIT_LITTLE, IMPLICIT_LITTLE),
        native[:pixels],
        native[:rows] + b"\xff" + native[rows + 1 :],
        native[: len(native) // 2],
        b"",
    ):
        with pytest.raises(CannotTranscode, match="What was made of the object"):
            check_native(first.dataset, EXPLICIT_LITTLE, wrong, IMPLICIT_LITTLE)


@pytest.mark.parametrize("transfer_syntax_uid", [MPEG_2, "1.2.840.10008.1.2.4.94", "1.3.6.1.4.1.9590.100.1.99"])
def test_video_references_and_private_syntaxes_cannot_be_transcoded(transfer_syntax_uid: str):
    encoded = encapsulate(grey(8), [b"\0\0\1\xb3"], transfer_syntax_uid)
    with pytest.raises(CannotTranscode, match=transfer_syntax_uid):
        native(encoded)


def test_only_native_little_endian_is_a_target():
    encoded = ct_series(1, 16)[0]
    with pytest.raises(CannotTranscode, match="Little Endian"):
        to_native(encoded.dataset, encoded.transfer_syntax_uid, RLE)


@pytest.mark.parametrize(
    ("changes", "stream"),
    [
        ({}, b"\xff\xd8 no JPEG"),
        ({}, b""),
        ({"Rows": 24}, None),
        ({"Rows": 0}, None),
        ({"BitsAllocated": None}, None),
        ({"BitsAllocated": 12}, None),
        ({"Rows": 65535, "Columns": 65535, "NumberOfFrames": "2"}, None),
    ],
)
def test_what_does_not_fit_its_description_is_refused_in_a_sentence(changes: dict[str, Any], stream: bytes | None):
    samples = grey(8)
    encoded = encapsulate(
        samples, [imagecodecs.jpegls_encode(samples) if stream is None else stream], JPEG_LS, **changes
    )
    with pytest.raises(CannotTranscode, match=r"^[A-Z(].*\.$"):
        native(encoded)


@pytest.mark.parametrize("ends_at", range(1, 400, 7))
def test_a_truncated_data_set_is_refused_or_ends_between_elements(ends_at: int):
    encoded = ct_series(1, 16, IMPLICIT_LITTLE)[0]
    try:
        cut = to_native(encoded.dataset[:ends_at], IMPLICIT_LITTLE, IMPLICIT_LITTLE)
    except CannotTranscode:
        return
    assert encoded.dataset.startswith(cut)


def test_frames_are_written_one_by_one_to_a_file(tmp_path: Path):
    samples = np.stack([grey(8)] * 5)
    frames = [imagecodecs.jpegls_encode(frame) for frame in samples]
    encoded = encapsulate(samples[0], frames, JPEG_LS)
    with (tmp_path / "native").open("w+b") as file:
        write_native(encoded.dataset, JPEG_LS, EXPLICIT_LITTLE, file)
        file.seek(0)
        assert np.array_equal(read(file.read(), EXPLICIT_LITTLE).pixel_array, samples)


def test_a_segmentation_of_one_bit_stays_packed():
    encoded = one_of_each()["SEG, 1 bit"]
    assert encoded.sop_class_uid == SEGMENTATION
    assert native(encoded).PixelData == read(encoded.dataset, EXPLICIT_LITTLE).PixelData


def flat(elements: Elements) -> list[Any]:
    """Tags and values, sequences as lists."""
    return [
        (
            element.tag,
            [flat(item) for item in element.value] if isinstance(element.value, list) else bytes(element.value),
        )
        for element in elements.elements
    ]


@pytest.mark.parametrize("vr", ["OW", "UN"])
def test_samples_in_big_endian_of_which_the_order_is_not_sure_are_not_given_out(vr: str):
    """DCMTK writes 32-bit samples as 16-bit words, pydicom does not; and UN says nothing of words."""
    bits = 32 if vr == "OW" else 16
    attributes: Attributes = {**instance(US_IMAGE, "US"), "SamplesPerPixel": 1, "Rows": 4, "Columns": 4}
    attributes |= {"BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": 0}
    value = bytes(range(16)) * (bits // 8)
    big = SYNTAX_OF[EXPLICIT_BIG]
    encoded = encode(attributes, big) + struct.pack(">HH2sHL", 0x7FE0, 0x0010, vr.encode(), 0, len(value)) + value
    for target in TARGETS:
        with pytest.raises(CannotTranscode, match="order"):
            to_native(encoded, EXPLICIT_BIG, target)
