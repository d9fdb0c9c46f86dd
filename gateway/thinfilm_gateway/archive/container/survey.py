"""Survey: what a source file is, before any of it is packed: its checksums, its identity, its native pixels."""

import hashlib
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset

from thinfilm_gateway.archive import part10, values
from thinfilm_gateway.archive.container.format import STACK_LIMIT, DicomHeader
from thinfilm_gateway.archive.dataset import UnreadableDataSet, outline
from thinfilm_gateway.archive.pixels import NativePixels, native_pixels

_MOST_CHARACTERS = 1024


@dataclass(frozen=True)
class Survey:
    """A source file, looked at once.

    data: the bytes of the file, a memory map.
    attributes: those of the data set, None where it cannot be parsed.
    pixels: None where the file is kept as literal bytes alone; its samples may be views of `data`.
    pixel_offset: where the span of `pixels` begins in `data`.
    failure: a sentence, where native pixels are kept as literal bytes because reading them failed.
    """

    data: memoryview
    sha256: str
    dicom: DicomHeader | None = None
    attributes: Dataset | None = None
    pixels: NativePixels | None = None
    pixel_offset: int = 0
    failure: str = ""


def survey(path: Path) -> Survey:
    """Look at a file. One that is not DICOM, or cannot be parsed, is literal bytes. Raises OSError."""
    data = map_file(path)
    sha256 = hashlib.sha256(data).hexdigest()
    header = part10.locate(data)
    if header is None:
        return Survey(data, sha256)
    offset = header.dataset_offset
    dataset = data[offset:]
    dataset_sha256 = hashlib.sha256(dataset).hexdigest()
    try:
        found = outline(dataset, header.transfer_syntax_uid)
    except UnreadableDataSet:
        return Survey(data, sha256, DicomHeader(offset, dataset_sha256, header.transfer_syntax_uid))
    dicom = DicomHeader(
        dataset_offset=offset,
        dataset_sha256=dataset_sha256,
        transfer_syntax_uid=header.transfer_syntax_uid,
        sop_instance_uid=_short(values.text(found.attributes, "SOPInstanceUID")),
        sop_class_uid=_short(values.text(found.attributes, "SOPClassUID")),
        series_instance_uid=_short(values.text(found.attributes, "SeriesInstanceUID")),
        study_instance_uid=_short(values.text(found.attributes, "StudyInstanceUID")),
        modality=_short(values.text(found.attributes, "Modality")),
    )
    try:
        pixels = native_pixels(found, dataset)
    except Exception as error:  # whatever is odd about the pixels, the bytes are kept
        return Survey(data, sha256, dicom, found.attributes, failure=f"Its pixels cannot be read: {error}")
    if pixels is None or pixels.block.layout.with_frames(1).nbytes > STACK_LIMIT:
        return Survey(data, sha256, dicom, found.attributes)
    return Survey(data, sha256, dicom, found.attributes, pixels, offset + pixels.span.offset)


def reopen_pixels(path: Path, dicom: DicomHeader) -> NativePixels | None:
    """Return the native pixels of a file that was surveyed before. Raises OSError, UnreadableDataSet."""
    dataset = map_file(path)[dicom.dataset_offset :]
    return native_pixels(outline(dataset, dicom.transfer_syntax_uid), dataset)


def map_file(path: Path) -> memoryview:
    """Return the bytes of a file without reading it; the map goes when its last view goes. Raises OSError."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:  # which cannot be mapped
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _short(value: str) -> str:
    """Return a value for the manifest; one that is longer than any legal one is no information."""
    return value if len(value) <= _MOST_CHARACTERS else ""
