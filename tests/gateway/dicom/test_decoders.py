"""Encapsulated frames of other software: what is odd about them does not keep their pixels from being right."""

import io
import itertools
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.filereader import read_dataset

from support.datasets import (
    EXPLICIT_LITTLE,
    SEGMENTATION,
    US_IMAGE,
    Attributes,
    EncodedDataSet,
    Syntax,
    encode,
    finish,
    image_attributes,
    instance,
)
from thinfilm_gateway.dicom.transcode import CannotTranscode, to_native

BASELINE, EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
SPECTRAL, PROGRESSIVE = "1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55"
LOSSLESS_JPEG = "1.2.840.10008.1.2.4.70"
JPEG_LS, NEAR_LOSSLESS = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS, JPEG_2000 = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"
JPEG_XL_LOSSLESS, JPEG_XL = "1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.112"
RLE, RAW, DEFLATED_FRAME = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.98", "1.2.840.10008.1.2.8.1"


def item(content: bytes) -> bytes:
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content


def encapsulate(
    samples: Any, parts: list[bytes], transfer_syntax_uid: str, table: bytes = b"", before: bytes = b"", **changes: Any
) -> EncodedDataSet:
    """An object of one frame's samples and these fragments. changes: of attributes; None leaves one out."""
    attributes: Attributes = {**instance(US_IMAGE, "US"), **image_attributes(samples), **changes}
    kept = {key: value for key, value in attributes.items() if value is not None}
    tail = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + item(table)
    tail += b"".join(item(part) for part in parts) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    return finish(kept, tail=before + tail)._replace(transfer_syntax_uid=transfer_syntax_uid)


def native(encoded: EncodedDataSet) -> Dataset:
    dataset = to_native(encoded.dataset, encoded.transfer_syntax_uid, EXPLICIT_LITTLE)
    read = read_dataset(io.BytesIO(dataset), is_implicit_VR=False, is_little_endian=True)
    read.file_meta = Dataset()
    read.file_meta.TransferSyntaxUID = EXPLICIT_LITTLE
    return read


def grey(bits: int = 12, rows: int = 23, columns: int = 30, seed: int = 1) -> Any:
    samples = np.sort(np.random.default_rng(seed).integers(0, 1 << bits, (rows, columns)), axis=1)
    return samples.astype(np.uint8 if bits <= 8 else np.uint16)


def even(stream: Any) -> bytes:
    return bytes(stream) + b"\0" * (len(stream) % 2)


def smooth_colour() -> Any:
    """Colours that differ enough between RGB and YCbCr, and survive lossy coding."""
    y, x = np.mgrid[0:64, 0:64]
    return np.stack([40 + 3 * x, 220 - 2 * y, np.full_like(x, 60)], axis=-1).astype(np.uint8)


# Colour


def coded_as(space: str) -> bytes:
    """A JPEG of smooth_colour() in this colour space, without any marker that tells it."""
    stream = bytes(imagecodecs.jpeg8_encode(smooth_colour(), level=98, colorspace="RGB", outcolorspace=space))
    assert stream[2:4] in (b"\xff\xe0", b"\xff\xee")
    return stream[:2] + stream[4 + int.from_bytes(stream[4:6]) :]


def marked(stream: bytes, *segments: bytes) -> bytes:
    return even(stream[:2] + b"".join(segments) + stream[2:])


def with_ids(stream: bytes, ids: bytes) -> bytes:
    changed = bytearray(stream)
    frame, scan = stream.index(b"\xff\xc0"), stream.index(b"\xff\xda")
    for number, name in enumerate(ids):
        changed[frame + 10 + 3 * number] = changed[scan + 5 + 2 * number] = name
    return bytes(changed)


JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
EXIF = b"\xff\xe1\0\x08Exif\0\0"


def adobe(transform: int) -> bytes:
    return b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform])


@pytest.mark.parametrize(
    ("space", "segments", "ids", "said"),
    [
        ("YCBCR", [JFIF], b"", "RGB"),
        ("YCBCR", [JFIF], b"", "YBR_FULL_422"),
        ("YCBCR", [EXIF, JFIF], b"", "RGB"),
        ("YCBCR", [JFIF, adobe(1)], b"", "RGB"),
        ("YCBCR", [adobe(1)], b"", "RGB"),
        ("YCBCR", [EXIF, adobe(2)], b"", "RGB"),
        ("RGB", [adobe(0)], b"", "YBR_FULL_422"),
        ("RGB", [EXIF, adobe(0)], b"", "YBR_FULL"),
        ("RGB", [], b"RGB", "YBR_FULL_422"),
        ("RGB", [], b"", "RGB"),
        ("YCBCR", [], b"", "YBR_FULL_422"),
        ("YCBCR", [JFIF[:-4] + b"\0\0\0\0"], b"", "RGB"),
    ],
)
def test_the_colours_of_a_jpeg_are_what_its_markers_say_then_its_components_then_the_data_set(
    space: str, segments: list[bytes], ids: bytes, said: str
) -> None:
    stream = with_ids(coded_as(space), ids)
    decoded = native(
        encapsulate(smooth_colour(), [marked(stream, *segments)], BASELINE, PhotometricInterpretation=said)
    )
    assert decoded.PhotometricInterpretation == "RGB"
    assert np.abs(decoded.pixel_array.astype(int) - smooth_colour()).max() < 8


def test_an_adobe_marker_behind_the_frame_header_counts_too() -> None:
    stream = coded_as("RGB")
    scan = stream.index(b"\xff\xda")
    stream = even(stream[:scan] + adobe(0) + stream[scan:])
    decoded = native(encapsulate(smooth_colour(), [stream], BASELINE, PhotometricInterpretation="YBR_FULL_422"))
    assert np.abs(decoded.pixel_array.astype(int) - smooth_colour()).max() < 8


@pytest.mark.parametrize("segment", [JFIF, adobe(1)], ids=["JFIF", "Adobe"])
def test_no_marker_makes_a_lossless_jpeg_transform_its_colours(segment: bytes) -> None:
    samples = smooth_colour()
    stream = bytes(imagecodecs.jpeg_encode(samples, lossless=True, predictor=1, colorspace="RGB", outcolorspace="RGB"))
    stream = stream[:2] + stream[4 + int.from_bytes(stream[4:6]) :] if stream[3] >= 0xE0 else stream
    decoded = native(encapsulate(samples, [marked(stream, segment)], LOSSLESS_JPEG))
    assert np.array_equal(decoded.pixel_array, samples)
    assert decoded.PhotometricInterpretation == "RGB"


def test_four_components_come_out_as_they_are_described() -> None:
    samples = np.concatenate([smooth_colour(), smooth_colour()[..., :1]], axis=-1)
    file = io.BytesIO()
    Image.fromarray(255 - samples, "CMYK").save(file, "JPEG", quality=98)  # which inverts, as Adobe does
    decoded = native(
        encapsulate(
            samples,
            [even(file.getvalue())],
            BASELINE,
            PhotometricInterpretation="CMYK",
            SamplesPerPixel=4,
            Rows=64,
            Columns=64,
        )
    )
    assert decoded.PhotometricInterpretation == "CMYK"
    pixels = np.frombuffer(decoded.PixelData, np.uint8).reshape(samples.shape)
    assert np.abs(pixels.astype(int) - samples).max() < 12


def test_the_boxes_around_a_jpeg_2000_stream_do_not_change_its_colours() -> None:
    samples = smooth_colour()
    stream = imagecodecs.jpeg2k_encode(
        samples, level=0, reversible=True, mct=False, codecformat="jp2", colorspace="SYCC"
    )
    decoded = native(encapsulate(samples, [even(stream)], JPEG_2000_LOSSLESS, PhotometricInterpretation="YBR_FULL"))
    assert decoded.PhotometricInterpretation == "YBR_FULL"
    assert decoded.PixelData == samples.tobytes()


def progressive(samples: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(samples).save(file, "JPEG", quality=98, progressive=True, subsampling=0)
    return even(file.getvalue())


@pytest.mark.parametrize("transfer_syntax_uid", [SPECTRAL, PROGRESSIVE])
@pytest.mark.parametrize("samples", [grey(8, 64, 64), smooth_colour()], ids=["grey", "colour"])
def test_a_progressive_jpeg_is_decoded_as_dcmtk_decodes_it(
    tmp_path: Path, samples: Any, transfer_syntax_uid: str
) -> None:
    described = {"PhotometricInterpretation": "YBR_FULL"} if samples.ndim == 3 else {}
    encoded = encapsulate(samples, [progressive(samples)], transfer_syntax_uid, **described)
    subprocess.run(
        ["dcmdjpeg", encoded.write(tmp_path / "coded.dcm"), tmp_path / "decoded.dcm"], check=True, capture_output=True
    )
    expected = dcmread(tmp_path / "decoded.dcm")
    decoded = native(encoded)
    assert decoded.PhotometricInterpretation == expected.PhotometricInterpretation
    assert np.abs(decoded.pixel_array.astype(int) - expected.pixel_array).max() <= 2


# RLE


def rle(samples: Any, tail: bytes = b"", between: bytes = b"") -> bytes:
    """An RLE frame; `between`: behind each segment but the last, `tail`: behind that one."""
    planes = samples.astype(samples.dtype.newbyteorder(">")).reshape(-1, 1).view(np.uint8)
    size = samples.dtype.itemsize
    segments = [bytes(imagecodecs.packbits_encode(planes.reshape(-1, size)[:, i].tobytes())) for i in range(size)]
    padded = [segment + between for segment in segments[:-1]] + [segments[-1] + tail]
    offsets = np.cumsum([64, *[len(segment) for segment in padded[:-1]]]).tolist()
    return struct.pack("<16L", size, *offsets, *[0] * (15 - size)) + b"".join(padded)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    "surplus", [b"", b"\0", b"\0\0", bytes(3), bytes(64), b"\x80" * 3, b"\x81\x07", b"\xff" * 9, b"\x05\1\2", b"\x7f"]
)
def test_what_lies_behind_a_segment_of_rle_is_padding(bits: int, surplus: bytes) -> None:
    samples = grey(bits)
    assert np.array_equal(native(encapsulate(samples, [rle(samples, surplus)], RLE)).pixel_array, samples)
    assert np.array_equal(native(encapsulate(samples, [rle(samples, b"", surplus)], RLE)).pixel_array, samples)


@pytest.mark.parametrize("last", [b"\x82\x07", b"\x0f" + bytes([7] * 16), b"\xff\x07"], ids=["run", "literal", "pair"])
def test_a_run_of_rle_that_goes_beyond_the_last_sample_ends_with_it(last: bytes) -> None:
    samples = np.array([[1, 2, 3], [5, 6, 7]], np.uint8)
    stream = struct.pack("<16L", 1, 64, *[0] * 14) + b"\x04\1\2\3\5\6" + last
    assert np.array_equal(native(encapsulate(samples, [even(stream)], RLE)).pixel_array, samples)


def test_a_segment_of_rle_that_is_too_short_is_refused() -> None:
    samples = grey(16)
    with pytest.raises(CannotTranscode, match=r"^[A-Z].*\.$"):
        native(encapsulate(samples, [rle(samples)[:-40]], RLE))
    with pytest.raises(CannotTranscode, match=r"^[A-Z].*\.$"):
        native(encapsulate(samples, [b"\2\0\0\0"], RLE))


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "a byte a sample"])
@pytest.mark.parametrize("padding", [b"", b"\0\0", bytes(20)])
def test_one_bit_frames_of_rle_are_decoded(packed: bool, padding: bytes) -> None:
    frames = np.random.default_rng(5).integers(0, 2, (2, 21, 13)).astype(np.uint8)
    coded = [
        even(rle(np.packbits(frame.reshape(-1), bitorder="little") if packed else frame, padding)) for frame in frames
    ]
    one_bit = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "SOPClassUID": SEGMENTATION}
    decoded = native(encapsulate(frames[0], coded, RLE, NumberOfFrames="2", **one_bit))
    expected = np.packbits(frames.reshape(-1), bitorder="little").tobytes()
    assert decoded.PixelData == expected + b"\0" * (len(expected) % 2)


# Frames and fragments

CODERS = {
    LOSSLESS_JPEG: lambda a: even(imagecodecs.jpeg_encode(a, lossless=True, predictor=1, bitspersample=12)),
    JPEG_LS: lambda a: even(imagecodecs.jpegls_encode(a)),
    JPEG_2000_LOSSLESS: lambda a: even(imagecodecs.jpeg2k_encode(a, level=0, reversible=True, codecformat="j2k")),
    JPEG_XL_LOSSLESS: lambda a: even(imagecodecs.jpegxl_encode(a, lossless=True)),
    RLE: lambda a: even(rle(a)),
}


def in_pieces(stream: bytes, count: int) -> list[bytes]:
    cuts = [len(stream) * number // count // 2 * 2 for number in range(count)]
    return [stream[start:end] for start, end in itertools.pairwise([*cuts, len(stream)])]


CINE = np.stack([grey(seed=seed) for seed in range(3)])


@pytest.mark.parametrize("transfer_syntax_uid", CODERS)
@pytest.mark.parametrize("table", ["none", "right", "one zero", "wrong", "zeros"])
@pytest.mark.parametrize("declared", [None, "0", "1", "2", "3", "4", "2000000000", "many"])
@pytest.mark.parametrize("pieces", [1, 3])
def test_the_frames_that_are_there_are_delivered_and_counted(
    transfer_syntax_uid: str, table: str, declared: str | None, pieces: int
) -> None:
    if pieces > 1 and transfer_syntax_uid == RLE:
        pieces = 1  # a frame of RLE is one fragment (A.4.2)
    streams = [CODERS[transfer_syntax_uid](frame) for frame in CINE]
    split = [in_pieces(stream, pieces) for stream in streams]
    starts = np.cumsum([0, *[sum(8 + len(part) for part in parts) for parts in split[:-1]]]).tolist()
    tables = {
        "none": b"",
        "right": struct.pack("<3L", *starts),
        "one zero": bytes(4),
        "wrong": struct.pack("<3L", 0, 9, 11),
        "zeros": bytes(12),
    }
    parts = [part for parts in split for part in parts]
    decoded = native(encapsulate(CINE[0], parts, transfer_syntax_uid, tables[table], NumberOfFrames=declared))
    assert decoded.NumberOfFrames == 3
    assert np.array_equal(decoded.pixel_array, CINE)


@pytest.mark.parametrize("transfer_syntax_uid", CODERS)
def test_empty_fragments_and_fragments_of_odd_length_do_no_harm(transfer_syntax_uid: str) -> None:
    odd = [CODERS[transfer_syntax_uid](frame) + b"\0" for frame in CINE]
    parts = [b"", odd[0], b"", b"", odd[1], odd[2], b""]
    decoded = native(encapsulate(CINE[0], parts, transfer_syntax_uid, NumberOfFrames="3"))
    assert np.array_equal(decoded.pixel_array, CINE)


@pytest.mark.parametrize("transfer_syntax_uid", [LOSSLESS_JPEG, JPEG_LS, JPEG_2000_LOSSLESS])
@pytest.mark.parametrize("declared", ["3", "4"])
def test_frames_that_lie_in_one_fragment_are_told_apart(transfer_syntax_uid: str, declared: str) -> None:
    joined = b"".join(CODERS[transfer_syntax_uid](frame) for frame in CINE)
    decoded = native(encapsulate(CINE[0], [joined], transfer_syntax_uid, NumberOfFrames=declared))
    assert decoded.NumberOfFrames == 3
    assert np.array_equal(decoded.pixel_array, CINE)


@pytest.mark.parametrize("transfer_syntax_uid", [RAW, DEFLATED_FRAME])
@pytest.mark.parametrize("declared", ["2", "3", "5"])
def test_frames_whose_beginning_cannot_be_seen_are_one_fragment_each(transfer_syntax_uid: str, declared: str) -> None:
    parts = [frame.tobytes() for frame in CINE]
    if transfer_syntax_uid == DEFLATED_FRAME:
        parts = [even(zlib.compress(part, wbits=-15)) for part in parts]
    decoded = native(encapsulate(CINE[0], parts, transfer_syntax_uid, bytes(4), NumberOfFrames=declared))
    assert decoded.NumberOfFrames == 3
    assert np.array_equal(decoded.pixel_array, CINE)


def test_a_single_image_in_many_fragments_has_no_number_of_frames_afterwards() -> None:
    stream = CODERS[JPEG_LS](CINE[0])
    decoded = native(encapsulate(CINE[0], [stream[:40], stream[40:80], stream[80:]], JPEG_LS, NumberOfFrames=None))
    assert "NumberOfFrames" not in decoded
    assert np.array_equal(decoded.pixel_array, CINE[0])


@pytest.mark.parametrize("transfer_syntax_uid", CODERS)
def test_a_frame_of_another_size_is_named_and_nothing_else_is_sent_for_it(transfer_syntax_uid: str) -> None:
    parts = [CODERS[transfer_syntax_uid](frame) for frame in (CINE[0], grey(rows=15, columns=20), CINE[2])]
    with pytest.raises(CannotTranscode, match=r"^Of 3 frames, number 2 fails: .*\.$"):
        native(encapsulate(CINE[0], parts, transfer_syntax_uid, NumberOfFrames="3"))


@pytest.mark.parametrize("parts", [[], [b""], [b"", b""]], ids=["none", "an empty one", "empty ones"])
def test_pixel_data_without_a_frame_is_refused(parts: list[bytes]) -> None:
    with pytest.raises(CannotTranscode, match="no frames"):
        native(encapsulate(CINE[0], parts, JPEG_LS, NumberOfFrames="3"))


def test_dcmtk_delivers_as_many_frames_where_fewer_are_there_than_declared(tmp_path: Path) -> None:
    encoded = encapsulate(CINE[0], [CODERS[LOSSLESS_JPEG](frame) for frame in CINE], LOSSLESS_JPEG, NumberOfFrames="4")
    subprocess.run(
        ["dcmdjpeg", encoded.write(tmp_path / "coded.dcm"), tmp_path / "decoded.dcm"], check=True, capture_output=True
    )
    expected = dcmread(tmp_path / "decoded.dcm")
    decoded = native(encoded)
    assert decoded.NumberOfFrames == expected.NumberOfFrames == 3
    assert decoded.PixelData == expected.PixelData


# Icons


def sequence(tag: int, content: bytes) -> bytes:
    return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, b"SQ", 0, len(content) + 8) + item(content)


def icon(parts: list[bytes], samples: Any) -> bytes:
    tail = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + item(b"")
    tail += b"".join(item(part) for part in parts) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    return encode({**image_attributes(samples)}, Syntax()) + tail


@pytest.mark.parametrize(
    "parts",
    [[b"no JPEG "], [], [CODERS[LOSSLESS_JPEG](grey(rows=9, columns=9))], [CODERS[LOSSLESS_JPEG](grey())[:60]]],
    ids=["garbage", "empty", "another size", "cut off"],
)
def test_an_icon_that_does_not_decode_is_left_out_and_the_image_delivered(parts: list[bytes]) -> None:
    samples = grey()
    bad = sequence(0x00880200, icon(parts, grey(8, 16, 16)))
    decoded = native(encapsulate(samples, [CODERS[LOSSLESS_JPEG](samples)], LOSSLESS_JPEG, before=bad))
    assert np.array_equal(decoded.pixel_array, samples)
    assert "IconImageSequence" not in decoded


def test_a_public_image_within_that_does_not_decode_is_not_left_out_silently() -> None:
    samples = grey()
    bad = sequence(0x00409096, icon([b"no JPEG "], grey(8, 16, 16)))
    with pytest.raises(CannotTranscode, match=r"^[A-Z].*\.$"):
        native(encapsulate(samples, [CODERS[LOSSLESS_JPEG](samples)], LOSSLESS_JPEG, before=bad))


def test_floating_point_samples_are_refused_and_not_cut_to_integers() -> None:
    samples = np.random.default_rng(1).random((24, 32)).astype(np.float32)
    stream = even(imagecodecs.jpegxl_encode(samples, lossless=True))
    with pytest.raises(CannotTranscode, match=r"floating-point samples.*\.$"):
        native(encapsulate(samples.astype(np.uint32), [stream], JPEG_XL_LOSSLESS))


# Values beyond Bits Stored


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("codecformat", ["j2k", "jp2"])
def test_what_lossy_jpeg_2000_puts_beyond_bits_stored_is_clamped(signed: bool, codecformat: str) -> None:
    low, high = (-2048, 2047) if signed else (0, 4095)
    samples = np.where(np.indices((64, 80)).sum(axis=0) % 7 < 3, low, high).astype(np.int16 if signed else np.uint16)
    stream = imagecodecs.jpeg2k_encode(samples, level=60, reversible=False, codecformat=codecformat)
    beyond = imagecodecs.jpeg2k_decode(stream)
    assert beyond.min() < low or beyond.max() > high
    decoded = native(encapsulate(samples, [even(stream)], JPEG_2000, BitsStored=12, HighBit=11)).pixel_array
    assert np.array_equal(decoded, np.clip(beyond, low, high))


def test_what_near_lossless_jpeg_ls_puts_beyond_bits_stored_is_clamped() -> None:
    samples = np.where(np.indices((64, 80)).sum(axis=0) % 7 < 3, 0, 4095).astype(np.uint16)
    stream = imagecodecs.jpegls_encode(samples | np.uint16(0), level=9)
    beyond = imagecodecs.jpegls_decode(stream)
    decoded = native(encapsulate(samples, [even(stream)], NEAR_LOSSLESS, BitsStored=12, HighBit=11)).pixel_array
    assert np.array_equal(decoded, np.clip(beyond, 0, 4095))


def test_what_lossy_jpeg_xl_puts_beyond_bits_stored_is_clamped() -> None:
    samples = np.where(np.indices((64, 80)).sum(axis=0) % 7 < 3, 0, 4095).astype(np.uint16)
    stream = imagecodecs.jpegxl_encode(samples, distance=15.0)
    beyond = imagecodecs.jpegxl_decode(stream).reshape(samples.shape)
    decoded = native(encapsulate(samples, [even(stream)], JPEG_XL, BitsStored=12, HighBit=11)).pixel_array
    assert np.array_equal(decoded, np.clip(beyond, 0, 4095))


@pytest.mark.parametrize("transfer_syntax_uid", [JPEG_2000_LOSSLESS, JPEG_2000], ids=["lossless", "either"])
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_what_a_reversible_stream_has_above_bits_stored_is_kept(signed: bool, transfer_syntax_uid: str) -> None:
    samples = (grey(12) | (grey(12, seed=9) & 3) << 12).astype(np.int16 if signed else np.uint16)
    assert int(samples.max()) > 4095
    stream = imagecodecs.jpeg2k_encode(samples.view(np.uint16), level=0, reversible=True, codecformat="j2k")
    encoded = encapsulate(samples, [even(stream)], transfer_syntax_uid, BitsStored=12, HighBit=11)
    assert native(encoded).PixelData == samples.tobytes()
