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
    Element,
    Encoding,
    InconsistentStructureError,
    Octets,
    walk,
)
from thinfilm_gateway.dicom.inflating import DEFLATED, SYSTEM_SCRATCH, DamagedDeflation, Scratch, inflated

MAX_ATTRIBUTE_BYTES = 64 * 1024
"""Longer values are bulk data and are not among the attributes."""

# What is held of a data set, whatever it has: bytes of values, and what a Python object costs besides.
_STANDARD_BUDGET = 16 * 1024 * 1024
_PRIVATE_BUDGET = 8 * 1024 * 1024
_ELEMENT_COST = 512
_MAX_ELEMENTS = 1_000_000

_ATTRIBUTES_DEPTH = 32  # pydicom reads sequences of undefined length recursively

_PIXEL_DATA = 0x7FE00010
_PIXEL_GROUP = 0x7FE0

_IMPLICIT_LITTLE = Encoding(implicit_vr=True, little_endian=True)
_EXPLICIT_LITTLE = Encoding(implicit_vr=False, little_endian=True)
_EXPLICIT_BIG = Encoding(implicit_vr=False, little_endian=False)
_ENCODING_OF = {"1.2.840.10008.1.2": _IMPLICIT_LITTLE, "1.2.840.10008.1.2.2": _EXPLICIT_BIG}


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
    encapsulated_pixel_data: the items of an encapsulated one, without the delimiter behind them; None likewise.
    """

    transfer_syntax_uid: str
    implicit_vr: bool
    little_endian: bool
    attributes: Dataset
    pixel_data: Span | None
    encapsulated_pixel_data: Span | None


def outline(dataset: Octets, transfer_syntax_uid: str, scratch: Scratch = SYSTEM_SCRATCH) -> DataSetOutline:
    """Outline a data set that came with this transfer syntax.

    An unknown transfer syntax is read as Explicit VR Little Endian, and a data set that is not as declared is tried in
    the other encodings. scratch: where a deflated data set is inflated, up to 2 GiB.
    Raises UnreadableDataSet, CannotInflate.
    """
    if transfer_syntax_uid not in DEFLATED:
        return _outline(dataset, transfer_syntax_uid, _ENCODING_OF.get(transfer_syntax_uid, _EXPLICIT_LITTLE))
    try:
        found = _outline(inflated(dataset, scratch), transfer_syntax_uid, _EXPLICIT_LITTLE)
    except DamagedDeflation as error:
        raise UnreadableDataSet(str(error)) from error
    return replace(found, pixel_data=None, encapsulated_pixel_data=None)


def _outline(dataset: Octets, transfer_syntax_uid: str, declared: Encoding) -> DataSetOutline:
    mixed = Encoding(implicit_vr=False, little_endian=declared.little_endian, mixed=True)
    reason = ""
    with memoryview(dataset) as view, view.cast("B") as octets:
        if not octets:
            raise UnreadableDataSet("The data set is empty.")
        for encoding in dict.fromkeys((declared, _EXPLICIT_LITTLE, _IMPLICIT_LITTLE, _EXPLICIT_BIG, mixed)):
            try:
                attributes, pixels = _survey(octets, encoding)
            except InconsistentStructureError as error:
                reason = reason or str(error)
                continue
            span = Span(pixels.value_offset, pixels.value_end - pixels.value_offset) if pixels else None
            native, encapsulated = (None, span) if pixels and pixels.undefined_length else (span, None)
            return DataSetOutline(
                transfer_syntax_uid, encoding.implicit_vr, encoding.little_endian, attributes, native, encapsulated
            )
    raise UnreadableDataSet(f"The bytes are not a DICOM data set. {reason}")


def _survey(view: memoryview, encoding: Encoding) -> tuple[Dataset, Element | None]:
    """Walk the whole data set; return its attributes and its first pixel data."""
    raw: dict[int, RawDataElement] = {}
    budgets = {"standard": _STANDARD_BUDGET, "private": _PRIVATE_BUDGET}
    pixels: Element | None = None
    for number, element in enumerate(walk(view, encoding)):
        if number == _MAX_ELEMENTS:
            raise InconsistentStructureError(f"It has more than {_MAX_ELEMENTS} elements.")
        group = element.tag >> 16
        if element.tag == _PIXEL_DATA:
            pixels = pixels or element
        length = element.value_end - element.value_offset
        kind = "private" if group % 2 else "standard"
        cost = length + _ELEMENT_COST
        if group == _PIXEL_GROUP or element.depth > _ATTRIBUTES_DEPTH or length > MAX_ATTRIBUTE_BYTES:
            continue
        if cost <= budgets[kind]:
            budgets[kind] -= cost
            tag = BaseTag(element.tag)
            raw[tag] = _raw(tag, view, element, encoding)
    attributes = Dataset(raw)
    attributes.set_original_encoding(encoding.implicit_vr, encoding.little_endian)
    return attributes, pixels


def _raw(tag: BaseTag, view: memoryview, element: Element, encoding: Encoding) -> RawDataElement:
    value = bytes(view[element.value_offset : element.value_end])
    return RawDataElement(
        tag,
        element.vr,
        UNDEFINED_LENGTH if element.undefined_length else len(value),
        value,
        element.value_offset,
        element.vr is None,
        encoding.little_endian,
    )
