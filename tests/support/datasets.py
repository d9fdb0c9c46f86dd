"""Builders of encoded data sets: real in kind, small, deterministic, with any oddity the wire may bring.

They are written element by element here, not by pydicom, so that what pydicom would mend stays odd.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom.data
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, tag_for_keyword

from thinfilm_gateway.dicom import part10

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
PRIVATE_SYNTAX = "1.3.6.1.4.1.9590.100.1.99"

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
US_IMAGE = "1.2.840.10008.5.1.4.1.1.6.1"
US_MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.3.1"
XA_IMAGE = "1.2.840.10008.5.1.4.1.1.12.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
RT_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
PRIVATE_CLASS = "1.3.6.1.4.1.9590.100.1.1"

UNDEFINED = 0xFFFFFFFF
_LONG_FORM = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
_NUMBER_FORMATS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "AT": "L"}
_PIXEL_DATA = 0x7FE00010


class EncodedDataSet(NamedTuple):
    """A data set as it travels, with what the association says of it."""

    dataset: bytes
    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str

    def part10(self) -> bytes:
        """Return the file: header and data set."""
        return part10.build(self.sop_class_uid, self.sop_instance_uid, self.transfer_syntax_uid, "TEST") + self.dataset

    def write(self, path: Path) -> Path:
        """Write the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.part10())
        return path


@dataclass(frozen=True)
class Syntax:
    """How to write elements; `undefined`: sequences of undefined length."""

    implicit: bool = False
    big: bool = False
    undefined: bool = False

    @property
    def order(self) -> str:
        return ">" if self.big else "<"


SYNTAX_OF = {IMPLICIT_LITTLE: Syntax(implicit=True), EXPLICIT_BIG: Syntax(big=True)}

Value = Any
"""str, int, float or a list of them; bytes as they are; or a list of Attributes: the items of a sequence."""

Attributes = dict[str | int, Value]
"""Keyword or tag -> value; (vr, value) for a tag of no keyword."""


def uid(*parts: object) -> str:
    """Return a UID that is the same for the same parts."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:15], 'big')}"


def element(tag: int, vr: str, value: bytes, syntax: Syntax, length: int | None = None) -> bytes:
    """Write one element; `length`: the length to declare, if not that of the value."""
    length = len(value) if length is None else length
    head = struct.pack(f"{syntax.order}HH", tag >> 16, tag & 0xFFFF)
    if syntax.implicit or tag >> 16 == 0xFFFE:
        return head + struct.pack(f"{syntax.order}L", length) + value
    if vr in _LONG_FORM:
        return head + vr.encode() + b"\0\0" + struct.pack(f"{syntax.order}L", length) + value
    return head + vr.encode() + struct.pack(f"{syntax.order}H", length) + value


def encode(attributes: Attributes, syntax: Syntax, in_order: bool = True) -> bytes:
    """Write the elements, ascending by tag unless told otherwise."""
    tagged = [(_tag(key), value) for key, value in attributes.items()]
    if in_order:
        tagged.sort(key=lambda pair: pair[0])
    return b"".join(_encode_one(tag, value, syntax) for tag, value in tagged)


def _tag(key: str | int) -> int:
    if isinstance(key, int):
        return key
    tag = tag_for_keyword(key)
    assert tag is not None, key
    return tag


def _encode_one(tag: int, value: Value, syntax: Syntax) -> bytes:
    if isinstance(value, tuple):
        vr, value = value
    else:
        vr = dictionary_VR(tag).split(" or ")[0]
    if vr == "SQ" and not isinstance(value, bytes):
        return _sequence(tag, value, syntax)
    return element(tag, vr, _value_bytes(vr, value, syntax), syntax)


def _sequence(tag: int, items: Iterable[Attributes], syntax: Syntax) -> bytes:
    encoded = [encode(item, syntax) for item in items]
    if not syntax.undefined:
        return element(tag, "SQ", b"".join(element(0xFFFEE000, "", item, syntax) for item in encoded), syntax)
    item_end = element(0xFFFEE00D, "", b"", syntax)
    body = b"".join(element(0xFFFEE000, "", item + item_end, syntax, UNDEFINED) for item in encoded)
    return element(tag, "SQ", body + element(0xFFFEE0DD, "", b"", syntax), syntax, UNDEFINED)


def _value_bytes(vr: str, value: Value, syntax: Syntax) -> bytes:
    if isinstance(value, bytes):
        return value
    values = value if isinstance(value, list) else [value]
    if vr in _NUMBER_FORMATS:
        return struct.pack(f"{syntax.order}{len(values)}{_NUMBER_FORMATS[vr]}", *values)
    text = "\\".join(map(str, values)).encode("latin-1")
    return text + (b"\0" if vr == "UI" else b" ") * (len(text) % 2)


def sequence_of_depth(depth: int, syntax: Syntax) -> bytes:
    """Return a Content Sequence nested to this depth, of undefined lengths all the way."""
    opened = element(0x0040A730, "SQ", b"", syntax, UNDEFINED) + element(0xFFFEE000, "", b"", syntax, UNDEFINED)
    closed = element(0xFFFEE00D, "", b"", syntax) + element(0xFFFEE0DD, "", b"", syntax)
    return opened * depth + closed * depth


def fragments(parts: Sequence[bytes], syntax: Syntax = Syntax()) -> bytes:
    """Return encapsulated Pixel Data: an empty offset table, then the parts (PS3.5 A.4)."""
    items = b"".join(element(0xFFFEE000, "", part, syntax) for part in (b"", *parts))
    return element(_PIXEL_DATA, "OB", items + element(0xFFFEE0DD, "", b"", syntax), syntax, UNDEFINED)


def patient(name: str = "Doe^Jane", patient_id: str = "T-001", study: object = "study") -> Attributes:
    """Return the attributes of a patient and a study; the same `study` gives the same UID."""
    return {
        "SpecificCharacterSet": "ISO_IR 100",
        "StudyDate": "20240229",
        "StudyTime": "101530.25",
        "AccessionNumber": "A1",
        "ReferringPhysicianName": "Who^Doctor",
        "PatientName": name,
        "PatientID": patient_id,
        "PatientBirthDate": "19700101",
        "PatientSex": "O",
        "StudyInstanceUID": uid("study", patient_id, study),
        "StudyID": "S1",
    }


def instance(
    sop_class_uid: str, modality: str, series: object = "series", number: int = 1, who: Attributes | None = None
) -> Attributes:
    """Return the attributes of one instance without pixels."""
    who = who or patient()
    series_uid = uid("series", who["StudyInstanceUID"], modality, series)
    return {
        **who,
        "SOPClassUID": sop_class_uid,
        "SOPInstanceUID": uid("instance", series_uid, sop_class_uid, number),
        "Modality": modality,
        "SeriesDescription": f"{modality} {series}",
        "SeriesInstanceUID": series_uid,
        "SeriesNumber": "1",
        "InstanceNumber": str(number),
        "Manufacturer": "Thinfilm tests",
    }


def finish(attributes: Attributes, transfer_syntax_uid: str = EXPLICIT_LITTLE, tail: bytes = b"") -> EncodedDataSet:
    """Encode the attributes; `tail`: encoded elements to follow them."""
    syntax = SYNTAX_OF.get(transfer_syntax_uid, Syntax())
    encoded = encode(attributes, syntax) + tail
    if transfer_syntax_uid == DEFLATED:
        encoded = deflate(encoded)
    return EncodedDataSet(
        encoded, transfer_syntax_uid, str(attributes["SOPClassUID"]), str(attributes["SOPInstanceUID"])
    )


def deflate(encoded: bytes) -> bytes:
    """Deflate as transfer syntax 1.2.840.10008.1.2.1.99 has it."""
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflater.compress(encoded) + deflater.flush()
    return deflated + b"\0" * (len(deflated) % 2)


def image_attributes(samples: np.ndarray, bits_stored: int | None = None, planar: bool = False) -> Attributes:
    """Return the Image Pixel module of samples of shape (rows, columns), (frames, rows, columns) or with 3 components.

    Pixel Data is left to `pixel_value`, because it depends on the transfer syntax.
    """
    colour = samples.shape[-1] == 3 and samples.ndim >= 3
    rows, columns = samples.shape[-3:-1] if colour else samples.shape[-2:]
    frames = samples.shape[0] if samples.ndim == (4 if colour else 3) else None
    bits = 8 * samples.dtype.itemsize
    stored = bits_stored or bits
    attributes: Attributes = {
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "Rows": rows,
        "Columns": columns,
        "BitsAllocated": bits,
        "BitsStored": stored,
        "HighBit": stored - 1,
        "PixelRepresentation": int(samples.dtype.kind == "i"),
    }
    if colour:
        attributes["PlanarConfiguration"] = int(planar)
    if frames is not None:
        attributes["NumberOfFrames"] = str(frames)
    return attributes


def pixel_value(samples: np.ndarray, transfer_syntax_uid: str = EXPLICIT_LITTLE, planar: bool = False) -> bytes:
    """Return the value of native Pixel Data, padded to even length."""
    if planar:
        samples = np.moveaxis(samples, -1, -3)
    order = ">" if transfer_syntax_uid == EXPLICIT_BIG else "<"
    value = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    return value + b"\0" * (len(value) % 2)


def with_pixels(
    attributes: Attributes,
    samples: np.ndarray,
    transfer_syntax_uid: str = EXPLICIT_LITTLE,
    bits_stored: int | None = None,
    planar: bool = False,
) -> Attributes:
    """Return the attributes with an Image Pixel module and native Pixel Data."""
    value = pixel_value(samples, transfer_syntax_uid, planar)
    return {
        **attributes,
        **image_attributes(samples, bits_stored, planar),
        "PixelData": ("OW" if samples.dtype.itemsize > 1 or transfer_syntax_uid == IMPLICIT_LITTLE else "OB", value),
    }


def phantom(rows: int, columns: int, position: float = 0.5, seed: int = 0, noise: float = 12.0) -> np.ndarray:
    """Return a body-like image as float64 in Hounsfield-like units: smooth organs in noise, air around."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    body = (x / 0.85) ** 2 + (y / (0.6 + 0.1 * position)) ** 2 < 1
    organs = 60 * np.sin(5 * x + 3 * position) * np.cos(4 * y) + 40
    lung = ((abs(x) - 0.4) / 0.25) ** 2 + (y / 0.4) ** 2 < 1
    tissue = np.where(lung, -820 + 30 * position, organs)
    return np.where(body, tissue, -1000.0) + rng.normal(0, noise, (rows, columns))


def ct_series(
    slices: int = 8,
    size: int = 64,
    transfer_syntax_uid: str = EXPLICIT_LITTLE,
    who: Attributes | None = None,
    series: object = "series",
    first_seed: int = 0,
) -> list[EncodedDataSet]:
    """Return an axial CT: 12 bits in signed 16, -2000 outside the round field of view."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    outside = x**2 + y**2 > 1
    data_sets = []
    for index in range(slices):
        image = np.clip(phantom(size, size, index / slices, first_seed + index), -1024, 3071).round().astype(np.int16)
        image[outside] = -2000
        attributes: Attributes = {
            **instance(CT_IMAGE, "CT", series, index + 1, who),
            "ImageType": "ORIGINAL\\PRIMARY\\AXIAL",
            "SliceThickness": "2.5",
            "ImagePositionPatient": f"-200\\-200\\{-100 + 2.5 * index}",
            "ImageOrientationPatient": "1\\0\\0\\0\\1\\0",
            "FrameOfReferenceUID": uid("frame of reference", series),
            "PixelSpacing": "0.78125\\0.78125",
            "RescaleIntercept": "0",
            "RescaleSlope": "1",
            "PixelPaddingValue": ("SS", -2000),
        }
        data_sets.append(
            finish(with_pixels(attributes, image, transfer_syntax_uid, bits_stored=12), transfer_syntax_uid)
        )
    return data_sets


def mr_series(
    slices: int = 4, size: int = 48, transfer_syntax_uid: str = EXPLICIT_LITTLE, who: Attributes | None = None
) -> list[EncodedDataSet]:
    """Return an MR: 12 bits in unsigned 16, a private block as vendors write it."""
    data_sets = []
    for index in range(slices):
        image = np.clip(phantom(size, size, index / slices, 100 + index) + 1000, 0, 4095).round().astype(np.uint16)
        attributes: Attributes = {
            **instance(MR_IMAGE, "MR", "series", index + 1, who),
            "ImagePositionPatient": f"0\\0\\{3 * index}",
            "ImageOrientationPatient": "1\\0\\0\\0\\1\\0",
            "SpacingBetweenSlices": "3",
            "PixelSpacing": "1\\1",
            "EchoTime": "90",
            **private_block(),
        }
        data_sets.append(
            finish(with_pixels(attributes, image, transfer_syntax_uid, bits_stored=12), transfer_syntax_uid)
        )
    return data_sets


def private_block(group: int = 0x0029, size: int = 600) -> Attributes:
    """Return private elements: a creator, opaque bytes, a text."""
    creator = group << 16 | 0x0010
    return {
        creator: ("LO", "THINFILM TEST HEADER"),
        creator | 0x1008: ("CS", "IMAGE NUM 4"),
        group << 16 | 0x1010: ("OB", bytes(range(256)) * (size // 256) + bytes(size % 256)),
    }


def us_colour(
    frames: int | None = None,
    rows: int = 60,
    columns: int = 81,
    planar: bool = False,
    transfer_syntax_uid: str = EXPLICIT_LITTLE,
) -> EncodedDataSet:
    """Return an ultrasound image or loop: grey speckle as RGB, a coloured box, black around; odd sizes."""
    rng = np.random.default_rng(7)
    count = frames or 1
    grey = rng.gamma(2, 30, (count, rows, columns)).clip(0, 255).astype(np.uint8)
    grey[:, : rows // 8] = 0
    samples = np.repeat(grey[..., None], 3, axis=-1)
    samples[:, rows // 3 : rows // 2, columns // 3 : columns // 2, 0] = 230
    sop_class = US_MULTI_FRAME if frames else US_IMAGE
    attributes = instance(sop_class, "US", f"colour {frames} {planar}")
    if frames:
        attributes["FrameTime"] = "33.3"
    pixels = samples if frames else samples[0]
    return finish(with_pixels(attributes, pixels, transfer_syntax_uid, planar=planar), transfer_syntax_uid)


def multi_frame(
    frames: int = 10, rows: int = 33, columns: int = 47, transfer_syntax_uid: str = EXPLICIT_LITTLE
) -> EncodedDataSet:
    """Return an 8-bit cine run."""
    samples = np.stack([phantom(rows, columns, f / frames, f) / 8 + 128 for f in range(frames)])
    attributes = {**instance(XA_IMAGE, "XA"), "FrameTime": "66", "FrameIncrementPointer": ("AT", b"\x18\x00\x63\x10")}
    samples = samples.clip(0, 255).astype(np.uint8)
    return finish(with_pixels(attributes, samples, transfer_syntax_uid), transfer_syntax_uid)


def structured_report(
    transfer_syntax_uid: str = EXPLICIT_LITTLE, depth: int = 4, series: object = "series"
) -> EncodedDataSet:
    """Return a report: nested content sequences, no pixels."""
    content: Attributes = {"RelationshipType": "CONTAINS", "ValueType": "TEXT", "TextValue": "No finding. " * 20}
    for _ in range(depth):
        content = {"RelationshipType": "CONTAINS", "ValueType": "CONTAINER", "ContentSequence": [content, content]}
    attributes = {
        **instance(COMPREHENSIVE_SR, "SR", series),
        "ContentDate": "20240229",
        "ValueType": "CONTAINER",
        "ContentSequence": [content],
    }
    return finish(attributes, transfer_syntax_uid)


def segmentation(
    frames: int = 3, rows: int = 21, columns: int = 13, transfer_syntax_uid: str = EXPLICIT_LITTLE
) -> EncodedDataSet:
    """Return a 1-bit segmentation, whose frames begin within bytes."""
    masks = np.stack([phantom(rows, columns, f / frames, f) > 0 for f in range(frames)]).astype(np.uint8)
    packed = np.packbits(masks.reshape(-1), bitorder="little").tobytes()
    attributes: Attributes = {
        **instance(SEGMENTATION, "SEG"),
        **image_attributes(masks),
        "BitsAllocated": 1,
        "BitsStored": 1,
        "HighBit": 0,
        "SegmentationType": "BINARY",
        "PixelData": ("OB", packed + b"\0" * (len(packed) % 2)),
    }
    return finish(attributes, transfer_syntax_uid)


def dose_32_bit(transfer_syntax_uid: str = EXPLICIT_LITTLE) -> EncodedDataSet:
    """Return an RT dose of 32 bits allocated, over the whole range."""
    rng = np.random.default_rng(3)
    samples = (np.outer(np.arange(17), np.arange(23)) * 7_654_321 + rng.integers(0, 999, (4, 17, 23))).astype(np.uint32)
    attributes = {**instance(RT_DOSE, "RTDOSE"), "GridFrameOffsetVector": "0\\3\\6\\9"}
    return finish(with_pixels(attributes, samples, transfer_syntax_uid), transfer_syntax_uid)


def parametric_map(double: bool = False) -> EncodedDataSet:
    """Return an image of Float Pixel Data or Double Float Pixel Data."""
    values = phantom(16, 18)
    module = image_attributes(values.astype(np.uint32))
    for absent in ("BitsStored", "HighBit", "PixelRepresentation"):
        del module[absent]
    attributes: Attributes = {**instance(PARAMETRIC_MAP, "MR", f"map {double}"), **module}
    attributes["BitsAllocated"] = 64 if double else 32
    key = "DoubleFloatPixelData" if double else "FloatPixelData"
    attributes[key] = values.astype("<f8" if double else "<f4").tobytes()
    return finish(attributes)


def encapsulated(parts: Sequence[bytes] = (b"\xff\xd8\xff\xe0 not really a JPEG \xff\xd9 ",)) -> EncodedDataSet:
    """Return an image in JPEG Baseline whose stream is nobody's business here."""
    samples = np.zeros((8, 8, 3), np.uint8)
    attributes = {**instance(SECONDARY_CAPTURE, "OT", "encapsulated"), **image_attributes(samples)}
    attributes["PhotometricInterpretation"] = "YBR_FULL_422"
    return finish(attributes, JPEG_BASELINE, tail=fragments(parts))


def with_group_lengths(attributes: Attributes, syntax: Syntax) -> bytes:
    """Encode with the retired (gggg,0000) before each group."""
    groups: dict[int, Attributes] = {}
    for key, value in attributes.items():
        groups.setdefault(_tag(key) >> 16, {})[key] = value
    encoded = []
    for group, members in sorted(groups.items()):
        body = encode(members, syntax)
        encoded.append(element(group << 16, "UL", struct.pack(f"{syntax.order}L", len(body)), syntax) + body)
    return b"".join(encoded)


def trailing_padding(syntax: Syntax, size: int = 126) -> bytes:
    """Return Data Set Trailing Padding (FFFC,FFFC)."""
    return element(0xFFFCFFFC, "OB", bytes(size), syntax)


def one_of_each() -> dict[str, EncodedDataSet]:
    """Return a data set of each kind, by a name for messages."""
    ct = with_pixels(instance(CT_IMAGE, "CT", "group lengths"), phantom(20, 20).astype(np.int16))
    dump = finish(ct)
    return {
        "CT, signed": ct_series(1, 32)[0],
        "CT, implicit": ct_series(1, 32, IMPLICIT_LITTLE, series="implicit")[0],
        "CT, big endian": ct_series(1, 32, EXPLICIT_BIG, series="big endian")[0],
        "CT, deflated": ct_series(1, 32, DEFLATED, series="deflated")[0],
        "CT, group lengths": dump._replace(dataset=with_group_lengths(ct, Syntax())),
        "CT, trailing padding": finish(
            {**ct, "SOPInstanceUID": uid("trailing padding")}, tail=trailing_padding(Syntax())
        ),
        "MR, private": mr_series(1, 32)[0],
        "US, colour": us_colour(),
        "US, colour by plane": us_colour(planar=True),
        "US, colour loop": us_colour(frames=3),
        "XA, multi-frame": multi_frame(3),
        "SR": structured_report(),
        "SR, implicit": structured_report(IMPLICIT_LITTLE, series="implicit"),
        "SEG, 1 bit": segmentation(),
        "RT dose, 32 bits": dose_32_bit(),
        "Map, float": parametric_map(),
        "Map, double": parametric_map(double=True),
        "SC, encapsulated": encapsulated(),
    }


def bundled_files() -> list[Path]:
    """Return the DICOM files that lie in the pydicom package itself; none is fetched."""
    root = Path(pydicom.data.__file__).parent / "test_files"
    return sorted(path for path in root.rglob("*.dcm") if path.read_bytes()[128:132] == b"DICM")


# Strategies

_SAMPLE_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32")
_SYNTAXES = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED, PRIVATE_SYNTAX)


@st.composite
def _pixel_modules(draw: st.DrawFn, transfer_syntax_uid: str) -> Attributes:
    """Draw an Image Pixel module: consistent, or with its value too short, too long, empty or missing."""
    dtype = np.dtype(draw(st.sampled_from(_SAMPLE_TYPES)))
    rows, columns = draw(st.integers(1, 17)), draw(st.integers(1, 17))
    frames = draw(st.sampled_from((None, 1, 2, 5)))
    colour = draw(st.booleans())
    shape = (*((frames,) if frames else ()), rows, columns, *((3,) if colour else ()))
    if shape[-1] == 3 and not colour:
        shape = (*shape[:-1], 4)
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    top = draw(st.sampled_from((limits.max, min(limits.max, limits.min + 9), min(limits.max, limits.min + 300))))
    samples = rng.integers(limits.min, top, shape, dtype=dtype, endpoint=True)
    planar = colour and draw(st.booleans())
    stored = draw(st.integers(1, 8 * dtype.itemsize))
    module = with_pixels({}, samples, transfer_syntax_uid, stored, planar)
    if draw(st.booleans()) and dtype == np.uint8 and not colour:
        bits = np.packbits((samples & 1).reshape(-1), bitorder="little").tobytes()
        module |= {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "PixelData": ("OB", bits)}
    vr, value = module["PixelData"]
    fault = draw(st.sampled_from(("none", "none", "none", "short", "long", "empty", "missing", "no rows", "float")))
    if fault == "short":
        module["PixelData"] = (vr, value[: len(value) // 2])
    elif fault == "long":
        module["PixelData"] = (vr, value + bytes(draw(st.integers(1, 40))))
    elif fault == "empty":
        module["PixelData"] = (vr, b"")
    elif fault == "missing":
        del module["PixelData"]
    elif fault == "no rows":
        del module["Rows"]
    elif fault == "float":
        module["FloatPixelData"] = module.pop("PixelData")[1]
    return module


@st.composite
def _attribute_sets(draw: st.DrawFn) -> Attributes:
    """Draw attributes: right, wrong for their VR, private, of undefined kind, long, nested."""
    number = draw(st.integers(0, 2**64))
    sop_class = draw(st.sampled_from((CT_IMAGE, SECONDARY_CAPTURE, SEGMENTATION, PRIVATE_CLASS)))
    attributes = instance(sop_class, draw(st.sampled_from(("CT", "OT"))), draw(st.integers(0, 3)), number)
    attributes["PatientName"] = draw(st.binary(max_size=20))
    attributes["InstanceNumber"] = draw(st.sampled_from(("1", "", "1.5", "x", "99999999999999", "-3\\4")))
    attributes["PixelSpacing"] = draw(st.sampled_from(("1\\1", "0.5", "nan\\inf", "a\\b", "")))
    attributes["SpecificCharacterSet"] = draw(
        st.sampled_from(("ISO_IR 100", "ISO_IR 192", "\\ISO 2022 IR 87", "GB18030", "nonsense", ""))
    )
    if draw(st.booleans()):
        attributes |= private_block(draw(st.sampled_from((0x0009, 0x0029, 0x7FE1))), draw(st.integers(0, 70_000)))
    if draw(st.booleans()):
        attributes["ReferencedImageSequence"] = [
            {
                "ReferencedSOPInstanceUID": uid(1),
                "IconImageSequence": [{"Rows": 2, "Columns": 2, "PixelData": ("OB", b"icon")}],
            }
        ] * draw(st.integers(0, 3))
    if draw(st.booleans()):
        attributes[0x00291040] = ("UN", draw(st.binary(max_size=33)))
    return attributes


@st.composite
def encoded_data_sets(draw: st.DrawFn) -> EncodedDataSet:
    """Draw a data set whose structure is consistent, with all that is odd, retired or plainly wrong within it."""
    transfer_syntax_uid = draw(st.sampled_from(_SYNTAXES))
    attributes = draw(_attribute_sets())
    if draw(st.booleans()):
        attributes |= draw(_pixel_modules(transfer_syntax_uid))
    syntax = SYNTAX_OF.get(transfer_syntax_uid, Syntax())
    syntax = replace(syntax, undefined=draw(st.booleans()))
    if draw(st.booleans()):
        encoded = with_group_lengths(attributes, syntax)
    else:
        encoded = encode(attributes, syntax, in_order=draw(st.booleans()))
    nested = sequence_of_depth(draw(st.integers(1, 40)), syntax)
    encoded += draw(st.sampled_from((b"", nested, trailing_padding(syntax), trailing_padding(syntax, 0), bytes(13))))
    if transfer_syntax_uid == DEFLATED:
        encoded = deflate(encoded)
    return EncodedDataSet(
        encoded, transfer_syntax_uid, str(attributes["SOPClassUID"]), str(attributes["SOPInstanceUID"])
    )


@st.composite
def damaged_data_sets(draw: st.DrawFn) -> EncodedDataSet:
    """Draw a data set that was cut off, overwritten in places, or never was one; some may still be consistent."""
    data_set = draw(encoded_data_sets())
    damaged = bytearray(data_set.dataset)
    kind = draw(st.sampled_from(("cut", "overwritten", "noise", "empty")))
    if kind == "cut":
        del damaged[draw(st.integers(0, len(damaged) - 1)) :]
    elif kind == "overwritten":
        for _ in range(draw(st.integers(1, 8))):
            damaged[draw(st.integers(0, len(damaged) - 1))] = draw(st.integers(0, 255))
    elif kind == "noise":
        damaged = bytearray(draw(st.binary(max_size=300)))
    else:
        damaged.clear()
    return data_set._replace(dataset=bytes(damaged))
