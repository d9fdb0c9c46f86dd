"""Survey: what a source file is, before any of it is packed: its checksums, its identity, its native pixels."""

import hashlib
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset

from thinfilm_codecs.blocks import PixelBlock
from thinfilm_codecs.jpeg_lossless import ScanCoding
from thinfilm_gateway.archive.container.format import STACK_LIMIT, DicomHeader
from thinfilm_gateway.dicom import part10, values
from thinfilm_gateway.dicom.dataset import DataSetOutline, UnreadableDataSet, outline
from thinfilm_gateway.dicom.inflating import SYSTEM_SCRATCH, Scratch
from thinfilm_gateway.dicom.pixels import Packing, native_pixels
from thinfilm_gateway.dicom.scans import scanned_pixels

_MOST_CHARACTERS = 1024
_BARE = part10.Part10(0, "", "", "", "")  # a data set without preamble and file meta information


@dataclass(frozen=True)
class FrameBytes:
    """Consecutive frames as they lie in a file: bytes `offset` to `offset + length` hold `count` of them."""

    offset: int
    length: int
    count: int
    packing: Packing | ScanCoding


@dataclass(frozen=True, eq=False)
class SourcePixels:
    """All frames of a file, and where they lie, in order. as_displayed: whether a viewer shows these samples."""

    block: PixelBlock
    parts: tuple[FrameBytes, ...]
    as_displayed: bool = True


@dataclass(frozen=True)
class Survey:
    """A source file, looked at once.

    data: the bytes of the file, a memory map.
    attributes: those of the data set, None where it cannot be parsed.
    pixels: None where the file is kept as literal bytes alone; its samples may be views of `data`.
    failure: a sentence, where the file or its pixels are kept as literal bytes because reading them failed.
    """

    data: memoryview
    sha256: str
    dicom: DicomHeader | None = None
    attributes: Dataset | None = None
    pixels: SourcePixels | None = None
    failure: str = ""


def survey(path: Path, scratch: Scratch = SYSTEM_SCRATCH) -> Survey:
    """Look at a file. One that is no DICOM file, or cannot be parsed, is literal bytes.

    scratch: where a deflated data set is inflated. Raises OSError.
    """
    data = map_file(path)
    sha256 = hashlib.sha256(data).hexdigest()
    header = part10.locate(data) or _BARE
    dataset = data[header.dataset_offset :]
    found, failure = None, ""
    try:
        found = outline(dataset, header.transfer_syntax_uid, scratch)
    except UnreadableDataSet:
        pass
    except Exception as error:  # whatever is odd about the data set, the bytes are kept
        failure = f"Its data set cannot be read: {error}"
    if header is _BARE and (found is None or not _is_object(found)):
        return Survey(data, sha256, failure=failure)
    dicom = _dicom_header(header, hashlib.sha256(dataset).hexdigest(), found)
    if found is None:
        return Survey(data, sha256, dicom, failure=failure)
    try:
        pixels = _pixels(found, dataset, header.dataset_offset)
    except Exception as error:  # whatever is odd about the pixels, the bytes are kept
        return Survey(data, sha256, dicom, found.attributes, failure=f"Its pixels cannot be read: {error}")
    if pixels is None or pixels.block.layout.with_frames(1).nbytes > STACK_LIMIT:
        return Survey(data, sha256, dicom, found.attributes)
    return Survey(data, sha256, dicom, found.attributes, pixels)


def _pixels(found: DataSetOutline, dataset: memoryview, dataset_offset: int) -> SourcePixels | None:
    """Return the frames of a data set, native or of lossless JPEG, and their places in the file."""
    if native := native_pixels(found, dataset):
        span = native.span
        part = FrameBytes(dataset_offset + span.offset, span.length, native.block.layout.frames, native.packing)
        return SourcePixels(native.block, (part,), native.as_displayed)
    if scanned := scanned_pixels(found, dataset):
        parts = (FrameBytes(dataset_offset + span.offset, span.length, 1, coding) for span, coding in scanned.scans)
        return SourcePixels(scanned.block, tuple(parts))
    return None


def _is_object(found: DataSetOutline) -> bool:
    """Tell a data set without a Part 10 header from bytes that only happen to look like elements."""
    return found.pixel_data is not None or values.text(found.attributes, "SOPClassUID") != ""


def _dicom_header(header: part10.Part10, dataset_sha256: str, found: DataSetOutline | None) -> DicomHeader:
    def text(keyword: str) -> str:
        value = values.text(found.attributes, keyword) if found else ""
        return value if len(value) <= _MOST_CHARACTERS else ""  # longer than any legal value: no information

    return DicomHeader(
        dataset_offset=header.dataset_offset,
        dataset_sha256=dataset_sha256,
        transfer_syntax_uid=header.transfer_syntax_uid,
        sop_instance_uid=text("SOPInstanceUID"),
        sop_class_uid=text("SOPClassUID"),
        series_instance_uid=text("SeriesInstanceUID"),
        study_instance_uid=text("StudyInstanceUID"),
        modality=text("Modality"),
    )


def reopen_pixels(path: Path, dicom: DicomHeader) -> SourcePixels | None:
    """Return the pixels of a file that was surveyed before. Raises OSError, UnreadableDataSet."""
    dataset = map_file(path)[dicom.dataset_offset :]
    return _pixels(outline(dataset, dicom.transfer_syntax_uid), dataset, dicom.dataset_offset)


def map_file(path: Path) -> memoryview:
    """Return the bytes of a file without reading it; the map goes when its last view goes. Raises OSError."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:  # which cannot be mapped
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
