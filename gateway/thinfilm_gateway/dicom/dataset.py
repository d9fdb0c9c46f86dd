"""Outline an encoded data set: its top-level attributes, and where its native pixel data lies (PS3.5).

The bytes are the record; the outline only reads them. A value that is wrong does not make a data set unreadable, a
structure that is wrong does.
"""

from dataclasses import dataclass, replace

from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from thinfilm_gateway.dicom.elements import (
    UNDEFINED_LENGTH,
    UNKNOWN_VR,
    ElementPlace,
    Encoding,
    MalformedElements,
    Octets,
    Walker,
    declared_encoding,
    readings,
)
from thinfilm_gateway.dicom.inflating import DEFLATED, SYSTEM_SCRATCH, DamagedDeflation, Scratch, inflated
from thinfilm_gateway.dicom.tags import PIXEL_DATA

MAX_ATTRIBUTE_BYTES = 64 * 1024
"""Longer values are bulk data and are not among the attributes."""

# What is held of a data set, whatever it has: bytes of values, and what a Python object costs besides.
_STANDARD_BUDGET = 16 * 1024 * 1024
_PRIVATE_BUDGET = 8 * 1024 * 1024
_ELEMENT_COST = 512
_MAX_ELEMENTS = 1_000_000

_ATTRIBUTES_DEPTH = 32  # pydicom reads sequences of undefined length recursively

_PIXEL_GROUP = 0x7FE0


class UnreadableDataSet(Exception):
    """The bytes are not a data set; the message is one sentence that says where they go wrong."""


@dataclass(frozen=True)
class Span:
    """`length` bytes from `offset` on, within the encoded data set."""

    offset: int
    length: int


@dataclass(frozen=True)
class DataSetOutline:
    """What the gateway needs to know of an encoded data set.

    transfer_syntax_uid: as declared; implicit_vr and little_endian: as found, since some senders declare wrongly.
    attributes: top-level elements up to MAX_ATTRIBUTE_BYTES each, without the pixel data group, not yet decoded: read
        them with dicom.values, which never raises.
    pixel_data: the value of a native (7FE0,0010); None if it is absent, encapsulated, or in a deflated data set.
    pixel_data_vr: the VR of (7FE0,0010) as written; None where none is.
    encapsulated_pixel_data: the items of an encapsulated one, without the delimiter behind them; None likewise.
    """

    transfer_syntax_uid: str
    implicit_vr: bool
    little_endian: bool
    attributes: Dataset
    pixel_data: Span | None
    encapsulated_pixel_data: Span | None
    pixel_data_vr: str | None


def outline(dataset: Octets, transfer_syntax_uid: str, scratch: Scratch = SYSTEM_SCRATCH) -> DataSetOutline:
    """Outline a data set that came with this transfer syntax.

    An unknown transfer syntax is read as Explicit VR Little Endian, and a data set that is not as declared is tried in
    the other encodings. scratch: where a deflated data set is inflated, up to 2 GiB.
    Raises UnreadableDataSet, CannotInflate.
    """
    if transfer_syntax_uid not in DEFLATED:
        return _outline(dataset, transfer_syntax_uid)
    try:
        found = _outline(inflated(dataset, scratch), transfer_syntax_uid)
    except DamagedDeflation as error:
        raise UnreadableDataSet(str(error)) from error
    return replace(found, pixel_data=None, encapsulated_pixel_data=None)


def _outline(dataset: Octets, transfer_syntax_uid: str) -> DataSetOutline:
    reason = ""
    with memoryview(dataset) as view, view.cast("B") as octets:
        if not octets:
            raise UnreadableDataSet("The data set is empty.")
        for encoding in readings(declared_encoding(transfer_syntax_uid)):
            try:
                attributes, pixels = _survey(octets, encoding)
            except MalformedElements as error:
                reason = reason or str(error)
                continue
            span = Span(pixels.value_offset, pixels.value_end - pixels.value_offset) if pixels else None
            native, encapsulated = (None, span) if pixels and pixels.undefined_length else (span, None)
            how = transfer_syntax_uid, not encoding.explicit, encoding.little_endian
            vr = pixels.vr if pixels else None
            return DataSetOutline(*how, attributes, native, encapsulated, vr)
    raise UnreadableDataSet(f"The bytes are not a DICOM data set. {reason}")


def _survey(view: memoryview, encoding: Encoding) -> tuple[Dataset, ElementPlace | None]:
    """Walk the whole data set; return its attributes, the first of those with one tag, and its first pixel data."""
    raw: dict[int, RawDataElement] = {}
    budgets = {"standard": _STANDARD_BUDGET, "private": _PRIVATE_BUDGET}
    pixels: ElementPlace | None = None
    for number, element in enumerate(Walker(view).data_set(encoding)):
        if number == _MAX_ELEMENTS:
            raise MalformedElements(f"It has more than {_MAX_ELEMENTS} elements.")
        group = element.tag >> 16
        if element.tag == PIXEL_DATA:
            pixels = pixels or element
        length = element.value_end - element.value_offset
        kind = "private" if group % 2 else "standard"
        cost = length + _ELEMENT_COST
        if group == _PIXEL_GROUP or element.depth > _ATTRIBUTES_DEPTH or length > MAX_ATTRIBUTE_BYTES:
            continue
        if cost <= budgets[kind] and element.tag not in raw:
            budgets[kind] -= cost
            tag = BaseTag(element.tag)
            raw[tag] = _raw(tag, view, element)
    attributes = Dataset(raw)
    attributes.set_original_encoding(not encoding.explicit, encoding.little_endian)
    return attributes, pixels


def _raw(tag: BaseTag, view: memoryview, element: ElementPlace) -> RawDataElement:
    value = bytes(view[element.value_offset : element.value_end])
    return RawDataElement(
        tag,
        "UN" if element.vr == UNKNOWN_VR else element.vr,
        UNDEFINED_LENGTH if element.undefined_length else len(value),
        value,
        element.value_offset,
        element.vr is None,
        element.encoding.little_endian,
    )
