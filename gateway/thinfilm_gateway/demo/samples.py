"""What the demo sends: real files that come with pydicom, a synthetic CT, and a folder of one's own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom

from thinfilm_gateway.client.files import DicomFile, NotSendable, read
from thinfilm_gateway.client.phantom import write_ct

PHANTOM_SLICES = 64

BUNDLED = (
    "CT_small.dcm",
    "dicomdirtests/98892001/CT5N/*",  # CT, five slices
    "examples_overlay.dcm",  # MR
    "dicomdirtests/98892003/MR700/*",  # MR, seven slices
    "MR_small_RLE.dcm",
    "examples_rgb_color.dcm",  # ultrasound, RGB
    "examples_palette.dcm",  # ultrasound, palette colour
    "examples_ybr_color.dcm",  # ultrasound, 30 frames, JPEG
    "examples_jpeg2k.dcm",  # ultrasound, JPEG 2000
    "ExplVR_BigEnd.dcm",  # ultrasound, big endian
    "JPEG2000.dcm",
    "JPEG-lossy.dcm",
    "SC_rgb_rle.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_small_odd.dcm",
    "image_dfl.dcm",  # deflated
    "rtdose.dcm",  # 15 frames of 32 bits
    "liver_1frame.dcm",  # segmentation, 1 bit
    "rtplan.dcm",
    "test-SR.dcm",
    "reportsi.dcm",  # structured report
    "waveform_ecg.dcm",
)
"""Files of pydicom's distribution, in its folder of test files."""


@dataclass(frozen=True)
class Samples:
    """What there is to send.

    files: the first file of each SOP Instance UID.
    further: files with other content under a UID that `files` has; sent after all of those, they must change nothing.
    left_out: sentences about files that C-STORE cannot carry.
    """

    files: tuple[DicomFile, ...]
    further: tuple[DicomFile, ...]
    left_out: tuple[str, ...]


def collect(scratch: Path, own_folder: Path | None, on_read: Callable[[], None]) -> Samples:
    """Gather the samples; the synthetic CT is written into `scratch`.

    Raises NotADirectoryError if `own_folder` is not a folder.
    """
    if own_folder and not own_folder.is_dir():
        raise NotADirectoryError(20, "It is not a folder", str(own_folder))
    files: dict[str, DicomFile] = {}
    further: list[DicomFile] = []
    left_out: list[str] = []
    for path in _paths(scratch, own_folder):
        on_read()
        try:
            file = read(path)
        except NotSendable as error:
            left_out.append(str(error))
            continue
        first = files.setdefault(file.sop_instance_uid, file)
        if first is not file:
            further.append(file)
    in_series = sorted(files.values(), key=lambda file: (file.study_instance_uid, file.series_instance_uid))
    return Samples(tuple(in_series), tuple(further), tuple(left_out))


def _paths(scratch: Path, own_folder: Path | None) -> Iterator[Path]:
    bundled = Path(pydicom.__file__).parent / "data" / "test_files"
    for pattern in BUNDLED:
        yield from sorted(bundled.glob(pattern))
    yield from write_ct(scratch, PHANTOM_SLICES)
    if own_folder:
        yield from sorted(path for path in own_folder.rglob("*") if path.is_file())
