"""Derived objects: what an image becomes when it is kept with other samples than it came with (PS3.3 C.7.6.1.1.5).

The object is native, in Explicit VR Little Endian, and holds exactly the samples that its stream decodes to.
"""

import hashlib
import uuid
from dataclasses import dataclass

import numpy as np

from thinfilm_codecs.blocks import SampleArray
from thinfilm_gateway.dicom.dataset import UnreadableDataSet, outline
from thinfilm_gateway.dicom.element_tree import Bytes, Element, Elements, encode
from thinfilm_gateway.dicom.elements import EXPLICIT_LITTLE, MalformedElements
from thinfilm_gateway.dicom.identity import why_another
from thinfilm_gateway.dicom.pixels import Packing, pixel_bytes
from thinfilm_gateway.dicom.tags import (
    CODE_MEANING,
    CODE_VALUE,
    CODING_SCHEME_DESIGNATOR,
    DERIVATION_CODE_SEQUENCE,
    DERIVATION_DESCRIPTION,
    DERIVATION_IMAGE_SEQUENCE,
    FRAME_TYPE,
    ICON_IMAGE_SEQUENCE,
    IMAGE_TYPE,
    LARGEST_IMAGE_PIXEL_VALUE,
    LOSSY_IMAGE_COMPRESSION,
    LOSSY_IMAGE_COMPRESSION_METHOD,
    LOSSY_IMAGE_COMPRESSION_RATIO,
    OF_ENCAPSULATION,
    PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE,
    PIXEL_DATA,
    PIXEL_REPRESENTATION,
    PLANAR_CONFIGURATION,
    PURPOSE_OF_REFERENCE_CODE_SEQUENCE,
    REFERENCED_SOP_CLASS_UID,
    REFERENCED_SOP_INSTANCE_UID,
    SAMPLES_PER_PIXEL,
    SHARED_FUNCTIONAL_GROUPS_SEQUENCE,
    SMALLEST_IMAGE_PIXEL_VALUE,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    SOURCE_IMAGE_SEQUENCE,
)
from thinfilm_gateway.dicom.transcode import EXPLICIT_VR_LITTLE_ENDIAN, read_elements

METHODS = {
    "near_lossless": "THINFILM_NEAR",
    "vae": "THINFILM_VAE",
    "siren": "THINFILM_SIREN",
    "pca": "THINFILM_PCA",
    "kwavelet": "THINFILM_KWAVE",
    "sparse_autoencoder": "THINFILM_SPARSE",
    "binary_autoencoder": "THINFILM_BINARY",
}
"""Our terms of Lossy Image Compression Method (0028,2114), by codec: at most 16 characters, for ever."""

TRANSFER_SYNTAX_UID = EXPLICIT_VR_LITTLE_ENDIAN

_LONGEST_DESCRIPTION = 1024  # characters of ST

_LOSSY_COMPRESSION = ("113040", "Lossy Compression")
_UNCOMPRESSED_PREDECESSOR = ("121320", "Uncompressed predecessor")

_NO_LONGER_TRUE = (
    0x00080012,  # Instance Creation Date, Time and Creator UID: of the original
    0x00080013,
    0x00080014,
    0x00280108,  # Smallest and Largest Pixel Value in Series: of the samples of all its images
    0x00280109,
    ICON_IMAGE_SEQUENCE,  # made of the samples as they were
    0x4FFE0001,  # MAC Parameters and Digital Signatures Sequence: over values that change
    0xFFFAFFFA,
    *OF_ENCAPSULATION,
)


class CannotDerive(Exception):
    """No derived object can be made of the data set; the message is one sentence."""


@dataclass(frozen=True)
class LossyStep:
    """What was done to the samples.

    setting: name and value, as "coefficients 3000". ratio: native bits, as allocated, to coded bits.
    """

    codec_id: str
    setting: str
    ratio: float

    @property
    def method(self) -> str:
        """The term for Lossy Image Compression Method (0028,2114)."""
        return METHODS[self.codec_id]

    @property
    def description(self) -> str:
        """The sentence for Derivation Description (0008,2111)."""
        return f"Lossy compression by {self.codec_id}, {self.setting}, ratio {self.ratio:.4g}:1, all frames."


@dataclass(frozen=True, eq=False)
class DerivedObject:
    """An encoded data set in TRANSFER_SYNTAX_UID."""

    sop_class_uid: str
    sop_instance_uid: str
    dataset: bytes


def derive(dataset: Bytes, transfer_syntax_uid: str, samples: SampleArray, step: LossyStep) -> DerivedObject:
    """Return the object derived from `dataset` by giving all its frames the `samples`.

    samples: (frames, rows, columns[, components]), of the dtype and shape of the original's samples.
    The same original, samples and step give the same object. Raises CannotDerive.
    """
    try:
        elements = read_elements(dataset, transfer_syntax_uid)
    except MalformedElements as error:
        raise CannotDerive(str(error)) from error
    original = _Reference(elements.text(SOP_CLASS_UID), elements.text(SOP_INSTANCE_UID))
    pixels = pixel_bytes(samples, Packing(8 * samples.itemsize, big_endian=False, planar=False))
    uid = _derived_uid(original.sop_instance_uid, dataset, pixels, step)
    for tag in _NO_LONGER_TRUE:
        elements.drop(tag)
    elements.put(SOP_INSTANCE_UID, "UI", _padded(uid, b"\0"))
    _mark_derived(elements, IMAGE_TYPE)
    _note_derivation(elements, original, step)
    _note_compression(elements, step)
    _describe_frames(elements, original, step)
    _describe_samples(elements, samples)
    elements.put(PIXEL_DATA, "OB" if samples.itemsize == 1 else "OW", pixels)
    made = b"".join(encode(elements, EXPLICIT_LITTLE))
    _check(dataset, transfer_syntax_uid, made)
    return DerivedObject(original.sop_class_uid, uid, made)


def _check(dataset: Bytes, transfer_syntax_uid: str, made: bytes) -> None:
    """Read what was derived, as a viewer will; raise CannotDerive unless it is the same object by another UID."""
    try:
        original, derived = outline(dataset, transfer_syntax_uid), outline(made, TRANSFER_SYNTAX_UID)
    except UnreadableDataSet as error:
        raise CannotDerive(f"What was derived cannot be read: {error}") from error
    if difference := why_another(original, derived, changed=("SOPInstanceUID",)):
        raise CannotDerive(difference)


@dataclass(frozen=True)
class _Reference:
    sop_class_uid: str
    sop_instance_uid: str


def _derived_uid(original_uid: str, dataset: Bytes, pixels: bytes, step: LossyStep) -> str:
    """Return a UID that is another one for another original, way or result, as a UUID of version 8 (PS3.5 B.2)."""
    digests = (hashlib.sha256(octets).hexdigest() for octets in (dataset, pixels))
    seed = "\0".join((original_uid, step.method, step.setting, *digests))
    octets = bytearray(hashlib.sha256(seed.encode("utf-8")).digest()[:16])
    octets[6] = octets[6] & 0x0F | 0x80
    octets[8] = octets[8] & 0x3F | 0x80
    return f"2.25.{uuid.UUID(bytes=bytes(octets)).int}"


def _mark_derived(elements: Elements, tag: int) -> None:
    """Set value 1 of Image Type or Frame Type."""
    _, *others = elements.text(tag).split("\\")
    elements.put(tag, "CS", _padded("\\".join(("DERIVED", *(others or ["PRIMARY"])))))


def _note_derivation(elements: Elements, original: _Reference, step: LossyStep) -> None:
    """Add what was done, and of what, to what the elements say of earlier derivations."""
    earlier = elements.text(DERIVATION_DESCRIPTION)
    description = f"{earlier} {step.description}" if earlier else step.description
    if len(description) > _LONGEST_DESCRIPTION:
        description = step.description
    elements.put(DERIVATION_DESCRIPTION, "ST", _padded(description))
    _append_item(elements, DERIVATION_CODE_SEQUENCE, _code(*_LOSSY_COMPRESSION))
    source = Elements()
    source.put(REFERENCED_SOP_CLASS_UID, "UI", _padded(original.sop_class_uid, b"\0"))
    source.put(REFERENCED_SOP_INSTANCE_UID, "UI", _padded(original.sop_instance_uid, b"\0"))
    source.put(PURPOSE_OF_REFERENCE_CODE_SEQUENCE, "SQ", [_code(*_UNCOMPRESSED_PREDECESSOR)])
    _append_item(elements, SOURCE_IMAGE_SEQUENCE, source)


def _note_compression(elements: Elements, step: LossyStep) -> None:
    elements.put(LOSSY_IMAGE_COMPRESSION, "CS", b"01")
    for tag, vr, value in (
        (LOSSY_IMAGE_COMPRESSION_RATIO, "DS", f"{step.ratio:.4g}"),
        (LOSSY_IMAGE_COMPRESSION_METHOD, "CS", step.method),
    ):
        earlier = elements.text(tag)
        elements.put(tag, vr, _padded(f"{earlier}\\{value}" if earlier else value))


def _describe_frames(elements: Elements, original: _Reference, step: LossyStep) -> None:
    """Do the same in the functional groups of an enhanced object (PS3.3 C.7.6.16.2.6, C.8.13.5.1)."""
    shared = elements.items(SHARED_FUNCTIONAL_GROUPS_SEQUENCE)
    per_frame = elements.items(PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)
    for frame_type in (found for groups in (*shared, *per_frame) for found in groups.having(FRAME_TYPE)):
        _mark_derived(frame_type, FRAME_TYPE)
    told_per_frame = any(groups.get(DERIVATION_IMAGE_SEQUENCE) for groups in per_frame)
    for groups in per_frame if told_per_frame else shared:
        derivation = Elements()
        _note_derivation(derivation, original, step)
        _append_item(groups, DERIVATION_IMAGE_SEQUENCE, derivation)


def _describe_samples(elements: Elements, samples: SampleArray) -> None:
    if (elements.number(SAMPLES_PER_PIXEL) or 1) > 1:
        elements.put(PLANAR_CONFIGURATION, "US", b"\0\0")
    vr = "SS" if elements.number(PIXEL_REPRESENTATION) == 1 else "US"
    for tag, value in ((SMALLEST_IMAGE_PIXEL_VALUE, samples.min()), (LARGEST_IMAGE_PIXEL_VALUE, samples.max())):
        if elements.get(tag) is not None:
            elements.put(tag, vr, np.array(value, "<i8").tobytes()[:2])


def _append_item(elements: Elements, tag: int, item: Elements) -> None:
    elements.put(tag, "SQ", [*elements.items(tag), item])


def _code(value: str, meaning: str) -> Elements:
    return Elements(
        [
            Element(CODE_VALUE, "SH", _padded(value)),
            Element(CODING_SCHEME_DESIGNATOR, "SH", _padded("DCM")),
            Element(CODE_MEANING, "LO", _padded(meaning)),
        ]
    )


def _padded(text: str, padding: bytes = b" ") -> bytes:
    octets = text.encode("latin_1")
    return octets + padding * (len(octets) % 2)
