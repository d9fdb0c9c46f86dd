"""Which objects may be kept with other samples at all: those of which all that such a change touches is known."""

import re

from pydicom import Dataset

from thinfilm_codecs.blocks import PixelBlock
from thinfilm_gateway.archive.container.survey import Survey
from thinfilm_gateway.archive.radiograph import names_another_body_part, shows_a_breast
from thinfilm_gateway.dicom.ambiguity import why_ambiguous
from thinfilm_gateway.dicom.element_tree import Elements
from thinfilm_gateway.dicom.elements import MalformedElements
from thinfilm_gateway.dicom.inflating import Scratch
from thinfilm_gateway.dicom.tags import (
    CODE_VALUE,
    DERIVATION_CODE_SEQUENCE,
    DERIVATION_DESCRIPTION,
    FILE_META_GROUP,
    LOSSY_IMAGE_COMPRESSION,
    LOSSY_IMAGE_COMPRESSION_METHOD,
    LOSSY_IMAGE_COMPRESSION_RATIO,
    MODALITY_LUT_SEQUENCE,
    PIXEL_DATA,
)
from thinfilm_gateway.dicom.transcode import read_elements
from thinfilm_gateway.dicom.values import integer, text
from thinfilm_gateway.policy.ceilings import RADIOGRAPHY, lossless_only
from thinfilm_gateway.policy.limits import SampleLimits

_MODALITIES = {
    "1.2.840.10008.5.1.4.1.1.1": ("CR",),
    "1.2.840.10008.5.1.4.1.1.1.1": ("DX",),
    "1.2.840.10008.5.1.4.1.1.1.1.1": ("DX",),
    "1.2.840.10008.5.1.4.1.1.2": ("CT",),
    "1.2.840.10008.5.1.4.1.1.2.1": ("CT",),
    "1.2.840.10008.5.1.4.1.1.2.2": ("CT",),
    "1.2.840.10008.5.1.4.1.1.4": ("MR",),
    "1.2.840.10008.5.1.4.1.1.4.1": ("MR",),
    "1.2.840.10008.5.1.4.1.1.4.4": ("MR",),
    "1.2.840.10008.5.1.4.1.1.3.1": ("US",),
    "1.2.840.10008.5.1.4.1.1.6.1": ("US",),
    "1.2.840.10008.5.1.4.1.1.12.1": ("XA",),
    "1.2.840.10008.5.1.4.1.1.12.1.1": ("XA",),
    "1.2.840.10008.5.1.4.1.1.12.2": ("RF",),
    "1.2.840.10008.5.1.4.1.1.12.2.1": ("RF",),
}
"""The SOP classes of images that are read as pictures, each with the modality it must have."""

_LOSSY_TRANSFER_SYNTAXES = frozenset(  # also those that need not be lossy
    f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 81, 91, 93, *range(100, 109), 112, 203)
)
_OF_LOSS = (LOSSY_IMAGE_COMPRESSION_RATIO, LOSSY_IMAGE_COMPRESSION_METHOD)
_LOSSY_COMPRESSION = "113040"  # of DCM, in Derivation Code Sequence
_LOSSY_WORDS = re.compile(r"lossy|irreversibl", re.IGNORECASE)
_PHOTOMETRIC_INTERPRETATIONS = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL")


def why_lossless(found: Survey, scratch: Scratch) -> str:
    """Return a sentence if an object must be kept as it is, whatever the ceilings say; empty if it need not."""
    if found.dicom is None or found.attributes is None:
        return "It is no DICOM object that can be read."
    attributes = found.attributes
    if reason := lossless_only(found.dicom.modality, body_part(attributes)):
        return reason
    elements = _elements(found, scratch)
    if elements is None:
        return "It is no DICOM object that can be read."
    if reason := why_ambiguous(elements):
        return f"It can be understood in two ways: {reason}"
    if any(element.tag >> 16 == FILE_META_GROUP for element in elements.elements):
        return "It has elements of a file header in its data set, which would no longer be true."
    if found.dicom.modality in RADIOGRAPHY:
        if shows_a_breast(elements):
            return lossless_only("MG", "")
        if not names_another_body_part(elements):
            return "It does not say in a term of DICOM of which body part it is, so it may be a mammogram."
    if found.dicom.transfer_syntax_uid in _LOSSY_TRANSFER_SYNTAXES or _tells_of_loss(elements):
        return "It was compressed lossily before."
    if any(True for _ in elements.having(MODALITY_LUT_SEQUENCE)):
        return "A Modality LUT gives its samples their meaning, so no bound on their errors bounds anything."
    if found.dicom.modality not in _MODALITIES.get(found.dicom.sop_class_uid, ()):
        return "Its SOP class and modality are not known as those of images that may be lossy."
    if found.pixels is None:
        return "Its pixels are not native, nor of lossless JPEG."
    block = found.pixels.block
    if not found.pixels.as_displayed:
        return "Its samples lie in another order of bytes than that of its transfer syntax and their size."
    if (integer(attributes, "NumberOfFrames") or 1) != block.layout.frames:
        return "It has not the frames that it declares."
    if integer(attributes, "BitsAllocated") != 8 * block.samples.itemsize or block.samples.itemsize > 2:
        return "Its samples have neither 8 nor 16 bits."
    if text(attributes, "PhotometricInterpretation") not in _PHOTOMETRIC_INTERPRETATIONS:
        return "Its Photometric Interpretation is not one of those that may be lossy."
    if reason := _undescribed(attributes, elements, block):
        return reason
    if not sample_limits(attributes, block).holds(block.samples):
        return "The bits above Bits Stored are in use."
    return ""


def _undescribed(attributes: Dataset, elements: Elements, block: PixelBlock) -> str:
    """Return a sentence if the attributes leave open what the samples are (PS3.3 C.7.6.3.1); empty if they do not."""
    bits_allocated = 8 * block.samples.itemsize
    bits_stored = integer(attributes, "BitsStored")
    if bits_stored is None or not 1 <= bits_stored <= bits_allocated:
        return "Its Bits Stored is missing, or not between 1 and Bits Allocated."
    if integer(attributes, "HighBit") != bits_stored - 1:
        return "Its High Bit is not Bits Stored less one."
    if integer(attributes, "PixelRepresentation") not in (0, 1):
        return "Its Pixel Representation does not say whether its samples have a sign."
    components = 1 if text(attributes, "PhotometricInterpretation").startswith("MONOCHROME") else 3
    if block.layout.components != components or (integer(attributes, "SamplesPerPixel") or 1) != components:
        return "Its Photometric Interpretation has another number of samples than its pixels."
    pixel_data = elements.get(PIXEL_DATA)
    native = pixel_data.value if pixel_data else b""
    if isinstance(native, bytes | memoryview) and len(native) != block.samples.nbytes + block.samples.nbytes % 2:
        return "Its Pixel Data has another length than its rows and columns ask for."
    return ""


def _elements(found: Survey, scratch: Scratch) -> Elements | None:
    """Return all elements with their sequences, of which `attributes` has no values; None where they are malformed."""
    assert found.dicom is not None
    try:
        return read_elements(found.data[found.dicom.dataset_offset :], found.dicom.transfer_syntax_uid, scratch)
    except MalformedElements:
        return None


def _tells_of_loss(elements: Elements) -> bool:
    """Tell whether a data set says anywhere that its samples, or those of a frame, were compressed lossily."""
    return (
        any(inner.text(LOSSY_IMAGE_COMPRESSION) not in ("", "00") for inner in elements.having(LOSSY_IMAGE_COMPRESSION))
        or any(inner.text(tag) for tag in _OF_LOSS for inner in elements.having(tag))
        or any(
            code.text(CODE_VALUE) == _LOSSY_COMPRESSION
            for inner in elements.having(DERIVATION_CODE_SEQUENCE)
            for code in inner.items(DERIVATION_CODE_SEQUENCE)
        )
        or any(
            _LOSSY_WORDS.search(inner.text(DERIVATION_DESCRIPTION)) for inner in elements.having(DERIVATION_DESCRIPTION)
        )
    )


def body_part(attributes: Dataset) -> str:
    """Return Body Part Examined (0018,0015) as the ceilings have it."""
    return text(attributes, "BodyPartExamined").upper()


def sample_limits(attributes: Dataset, block: PixelBlock) -> SampleLimits:
    """Return what the samples of an object must keep."""
    signed = block.samples.dtype.kind == "i"
    least = -(1 << block.bits_stored - 1) if signed else 0
    most = (1 << block.bits_stored - signed) - 1
    first = integer(attributes, "PixelPaddingValue")
    if first is None:
        return SampleLimits(least, most)
    last = integer(attributes, "PixelPaddingRangeLimit")
    values = [_as_sample(value, block) for value in (first, first if last is None else last)]
    return SampleLimits(least, most, (min(values), max(values)))


def _as_sample(value: int, block: PixelBlock) -> int:
    """Return the sample of this bit pattern: the VR of the value may not have the sign that the samples have."""
    bits = 8 * block.samples.itemsize
    pattern = value % (1 << bits)
    is_negative = block.samples.dtype.kind == "i" and pattern >> bits - 1
    return pattern - (1 << bits) if is_negative else pattern
