"""Lossless JPEG frames of encapsulated pixel data as sample arrays, and exactly back (PS3.5 A.4 and 8.2.1).

Of each frame, the entropy-coded segment is replaced by its samples; the headers around it stay as they are.
"""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import numpy as np

from thinfilm_codecs.blocks import PixelBlock, SampleArray
from thinfilm_codecs.jpeg_lossless import Scan, ScanCoding, open_scan
from thinfilm_gateway.dicom.budget import decode_budget
from thinfilm_gateway.dicom.dataset import DataSetOutline, Span
from thinfilm_gateway.dicom.elements import MalformedElements, Octets, Walker
from thinfilm_gateway.dicom.pixels import frame_axis, spacing
from thinfilm_gateway.dicom.values import integer

_LOSSLESS_JPEG = frozenset(("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"))
_MAX_DECODED_BYTES = 256 * 1024 * 1024
_MOST_FRAMES = 65_536
_DECODING_FACTOR = 2  # what opening a scan takes, in the bytes of its samples: these, and the stream made of them


@dataclass(frozen=True, eq=False)
class ScannedPixels:
    """The frames of one data set, and for each the span of its bytes that it stands for, with what makes them."""

    block: PixelBlock
    scans: tuple[tuple[Span, ScanCoding], ...]


def scanned_pixels(outline: DataSetOutline, dataset: Octets) -> ScannedPixels | None:
    """Return the samples of lossless JPEG frames; None if there are none, or their bytes are better kept as they are.

    scan_bytes was proved to give the bytes of each span. Every fragment must be one frame, all of the shape that the
    data set says.
    """
    if outline.encapsulated_pixel_data is None or outline.transfer_syntax_uid not in _LOSSLESS_JPEG:
        return None
    attributes = outline.attributes
    shape = (
        integer(attributes, "Rows") or 0,
        integer(attributes, "Columns") or 0,
        integer(attributes, "SamplesPerPixel") or 1,
    )
    frame_bytes = 2 * math.prod(shape)
    found: list[tuple[int, Scan]] = []
    decoded = 0
    for fragment in _fragments(outline.encapsulated_pixel_data, dataset):
        with memoryview(dataset) as view:
            stream = bytes(view[fragment.offset : fragment.offset + fragment.length])
        with decode_budget().taken(_DECODING_FACTOR * frame_bytes):
            scan = open_scan(stream, shape)
        if scan is None or (found and not _alike(scan, found[0][1])):
            return None
        found.append((fragment.offset, scan))
        decoded += scan.samples.nbytes
        if decoded > _MAX_DECODED_BYTES or len(found) > _MOST_FRAMES:
            return None
    if not found:
        return None
    precision = found[0][1].coding.precision
    samples = np.stack([scan.samples for _, scan in found])
    if integer(outline.attributes, "PixelRepresentation") == 1:
        samples = _signed(samples, precision)
    most = 8 * samples.itemsize
    bits_stored = min(max(integer(outline.attributes, "BitsStored") or most, 1), most)
    block = PixelBlock(samples, bits_stored, frame_axis(outline, len(found)), spacing(outline))
    scans = ((Span(offset + scan.start, scan.end - scan.start), scan.coding) for offset, scan in found)
    return ScannedPixels(block, tuple(scans))


def _fragments(items: Span, dataset: Octets) -> Iterator[Span]:
    """Give the fragments, the basic offset table left out, as far as the items are whole."""
    with memoryview(dataset) as view, suppress(MalformedElements):
        for begin, end in islice(Walker(view).fragments(items.offset, items.offset + items.length), 1, None):
            yield Span(begin, end - begin)


def _alike(scan: Scan, first: Scan) -> bool:
    """Tell whether two frames can be in one block."""
    return (scan.samples.shape, scan.samples.dtype, scan.coding.precision) == (
        first.samples.shape,
        first.samples.dtype,
        first.coding.precision,
    )


def _signed(samples: SampleArray, precision: int) -> SampleArray:
    """Return two's complement numbers of `precision` bits as what they are, so that -1 lies beside 0."""
    bits = 8 * samples.itemsize
    signed = np.dtype(f"int{bits}")
    return (samples << (bits - precision)).view(signed) >> (bits - precision)
