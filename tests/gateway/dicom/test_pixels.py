"""Native pixels become samples and exactly the same bytes again; what cannot is left alone."""

import json
import mmap
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from support.datasets import (
    CT_IMAGE,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    SECONDARY_CAPTURE,
    Attributes,
    EncodedDataSet,
    Syntax,
    bundled_files,
    ct_series,
    element,
    encode,
    encoded_data_sets,
    finish,
    image_attributes,
    instance,
    multi_frame,
    one_of_each,
    segmentation,
    us_colour,
    with_pixels,
)
from thinfilm_codecs.blocks import FrameAxis
from thinfilm_gateway.dicom import part10
from thinfilm_gateway.dicom.dataset import UnreadableDataSet, outline
from thinfilm_gateway.dicom.pixels import NativePixels, Packing, native_pixels, pixel_bytes

EXPLICIT = Syntax()
LEFT_ALONE = {"SC_ybr_full_422_uncompressed.dcm", "meta_missing_tsyntax.dcm", "nested_priv_SQ.dcm", "priv_SQ.dcm"}


def pixels_of(data_set: EncodedDataSet) -> NativePixels | None:
    return native_pixels(outline(data_set.dataset, data_set.transfer_syntax_uid), data_set.dataset)


def assert_exact(data_set: EncodedDataSet) -> NativePixels:
    pixels = pixels_of(data_set)
    assert pixels is not None
    span = pixels.span
    encoded = data_set.dataset[span.offset : span.offset + span.length]
    packing = Packing.from_json(json.loads(json.dumps(pixels.packing.to_json())))
    assert pixel_bytes(pixels.block.samples, packing) == encoded
    assert pixels.block.samples.dtype.isnative
    return pixels


def secondary_capture(**changes: object) -> Attributes:
    samples = np.arange(12, dtype=np.uint16).reshape(3, 4) + 1000
    return with_pixels(instance(SECONDARY_CAPTURE, "OT"), samples) | dict(changes)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(encoded_data_sets())
def test_whatever_becomes_samples_gives_its_bytes_back(data_set: EncodedDataSet) -> None:
    if pixels_of(data_set) is not None:
        assert_exact(data_set)


@pytest.mark.parametrize("syntax_uid", [EXPLICIT_LITTLE, EXPLICIT_BIG])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 3, 5), (3, 5, 3), (2, 7, 5, 3)], ids=str)
@pytest.mark.parametrize("planar", [False, True])
def test_samples_are_those_that_were_written(syntax_uid: str, dtype: str, shape: tuple[int, ...], planar: bool) -> None:
    colour = shape[-1] == 3
    if planar and not colour:
        planar = False
    limits = np.iinfo(dtype)
    samples = np.random.default_rng(0).integers(limits.min, limits.max, shape, dtype, endpoint=True)
    data_set = finish(with_pixels(instance(CT_IMAGE, "CT"), samples, syntax_uid, planar=planar), syntax_uid)
    pixels = assert_exact(data_set)
    assert pixels.block.samples.dtype == dtype
    frames = samples if samples.ndim == (4 if colour else 3) else samples[None]
    assert np.array_equal(pixels.block.samples, frames)
    assert pixels.packing.planar == planar


@pytest.mark.parametrize(
    ("syntax_uid", "vr", "bits", "as_displayed"),
    [
        (EXPLICIT_BIG, "OW", 1, False),
        (EXPLICIT_BIG, "OB", 1, True),
        (EXPLICIT_BIG, "OW", 8, False),
        (EXPLICIT_BIG, "OB", 8, True),
        (EXPLICIT_BIG, "OW", 16, True),
        (EXPLICIT_BIG, "OB", 16, False),
        (EXPLICIT_BIG, "OW", 32, False),
        *((EXPLICIT_LITTLE, vr, bits, True) for vr in ("OB", "OW") for bits in (1, 8, 16, 32)),
    ],
)
def test_the_order_of_bytes_follows_vr_and_transfer_syntax(
    syntax_uid: str, vr: str, bits: int, as_displayed: bool
) -> None:
    samples = np.arange(64, dtype=f"uint{max(bits, 8)}").reshape(8, 8)
    module = {
        **image_attributes(samples),
        "BitsAllocated": bits,
        "PixelData": (vr, bytes(range(64)) * (bits // 8 or 1)),
    }
    pixels = assert_exact(finish({**instance(CT_IMAGE, "CT"), **module}, syntax_uid))
    assert pixels.as_displayed == as_displayed


def test_bits_above_bits_stored_are_kept() -> None:
    samples = np.array([[0xF00F, 0x0FFF], [0x8000, 0]], np.uint16)
    pixels = assert_exact(finish(with_pixels(instance(CT_IMAGE, "CT"), samples, bits_stored=12)))
    assert pixels.block.bits_stored == 12
    assert np.array_equal(pixels.block.samples[0], samples)


def test_single_bits_are_unpacked_across_frames() -> None:
    pixels = assert_exact(segmentation(frames=3, rows=7, columns=5))
    assert pixels.block.samples.shape == (3, 7, 5)
    assert pixels.block.samples.dtype == np.uint8
    assert int(pixels.block.samples.max()) == 1
    assert pixels.block.bits_stored == 1
    assert pixels.span.length == (3 * 7 * 5 + 7) // 8


def test_single_bits_with_rubbish_in_the_last_byte_are_left_alone() -> None:
    module = {**image_attributes(np.zeros((3, 3), np.uint8)), "BitsAllocated": 1, "PixelData": ("OB", b"\xff\xff")}
    assert pixels_of(finish({**instance(SECONDARY_CAPTURE, "OT"), **module})) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"PixelData": ("OW", b"")},
        {"PixelData": ("OW", bytes(22))},
        {"Rows": 0},
        {"Rows": b"\1"},
        {"BitsAllocated": 12},
        {"BitsAllocated": 64},
        {"SamplesPerPixel": 3},
        {"BitsAllocated": 1, "SamplesPerPixel": 3},
        {"NumberOfFrames": "-1"},
    ],
    ids=str,
)
def test_pixels_that_their_header_does_not_describe_are_left_alone(changes: dict[str, object]) -> None:
    assert pixels_of(finish(secondary_capture(**changes))) is None


def test_a_header_without_rows_columns_or_bits_leaves_the_pixels_alone() -> None:
    for keyword in ("Rows", "Columns", "BitsAllocated"):
        attributes = secondary_capture()
        del attributes[keyword]
        assert pixels_of(finish(attributes)) is None


def test_halved_chrominance_is_left_alone() -> None:
    samples = np.zeros((4, 4, 3), np.uint8)
    attributes = with_pixels(instance(SECONDARY_CAPTURE, "OT"), samples) | {"PhotometricInterpretation": "YBR_FULL_422"}
    assert pixels_of(finish(attributes)) is None


def test_float_encapsulated_and_deflated_pixels_are_left_alone() -> None:
    for name in ("Map, float", "Map, double", "SC, encapsulated", "CT, deflated", "SR"):
        assert pixels_of(one_of_each()[name]) is None


def test_padding_and_surplus_lie_outside_the_span() -> None:
    odd = assert_exact(multi_frame(frames=1, rows=3, columns=5))
    assert odd.span.length == 15
    surplus = assert_exact(finish(secondary_capture(PixelData=("OW", bytes(24) + b"more"))))
    assert surplus.span.length == 24


def test_frames_that_are_declared_but_missing_are_left_out() -> None:
    pixels = assert_exact(finish(secondary_capture(PixelData=("OW", bytes(24 * 2 + 5)), NumberOfFrames="9")))
    assert pixels.block.layout.frames == 2


def test_an_absurd_number_of_frames_costs_nothing() -> None:
    pixels = assert_exact(finish(secondary_capture(NumberOfFrames="2147483647", Rows=1, Columns=1)))
    assert pixels.block.layout.frames == 12


@pytest.mark.parametrize("name", [name for name in one_of_each() if name.split(",")[0] in ("CT", "MR", "US", "XA")])
def test_images_of_each_kind_are_exact(name: str) -> None:
    if "deflated" not in name:
        assert_exact(one_of_each()[name])


@pytest.mark.parametrize("path", bundled_files(), ids=lambda path: path.name)
def test_real_pixels_are_exact(path: Path) -> None:
    data = path.read_bytes()
    header = part10.locate(data)
    assert header is not None
    dataset = data[header.dataset_offset :]
    try:
        found = outline(dataset, header.transfer_syntax_uid)
    except UnreadableDataSet:
        assert "truncated" in path.name
        return
    pixels = native_pixels(found, dataset)
    if pixels is None:
        assert found.pixel_data is None or path.name in LEFT_ALONE
    else:
        encoded = dataset[pixels.span.offset : pixels.span.offset + pixels.span.length]
        assert pixel_bytes(pixels.block.samples, pixels.packing) == encoded


def test_the_frame_axis_and_the_spacing_are_told() -> None:
    assert assert_exact(multi_frame()).block.frame_axis is FrameAxis.TIME
    assert assert_exact(us_colour()).block.frame_axis is FrameAxis.NONE
    assert assert_exact(one_of_each()["RT dose, 32 bits"]).block.frame_axis is FrameAxis.SPACE
    assert assert_exact(ct_series(1, 8)[0]).block.spacing == (2.5, 0.78125, 0.78125)


def test_samples_are_a_view_of_a_mapped_file(tmp_path: Path) -> None:
    path = tmp_path / "large"
    frames = 128
    module: Attributes = {**instance(CT_IMAGE, "CT"), **image_attributes(np.zeros((frames, 1024, 1024), np.uint16))}
    size = frames * 1024 * 1024 * 2
    head = encode(module, EXPLICIT) + element(0x7FE00010, "OW", b"", EXPLICIT, size)
    with path.open("w+b") as file:
        file.write(head)
        file.truncate(len(head) + size)
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    tracemalloc.start()
    try:
        pixels = native_pixels(outline(mapped, EXPLICIT_LITTLE), mapped)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert pixels is not None
    assert pixels.block.samples.shape == (frames, 1024, 1024)
    assert not pixels.block.samples.flags.owndata


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"bits_allocated": 16, "big_endian": False},
        {"bits_allocated": 12, "big_endian": False, "planar": False},
        {"bits_allocated": True, "big_endian": False, "planar": False},
        {"bits_allocated": 16, "big_endian": 0, "planar": False},
        {"bits_allocated": 16, "big_endian": False, "planar": False, "more": 1},
    ],
    ids=str,
)
def test_json_that_is_no_packing_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"packing|Bits"):
        Packing.from_json(value)
