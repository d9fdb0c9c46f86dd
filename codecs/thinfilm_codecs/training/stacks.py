"""Series of images from folders of DICOM: what training reads."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import structlog
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.uid import JPEGLossless, JPEGLosslessSV1

from thinfilm_codecs.blocks import SampleArray

_log = structlog.get_logger()

_WIDEST = 65_535


class NoTrainingData(Exception):
    """The folders given hold nothing to train on; the message says which, and what they should hold."""


@dataclass(frozen=True, eq=False)
class Series:
    """The monochrome images of one folder.

    samples: (frames, rows, columns), spanning at most 16 bits. manufacturer and modality: as the first image has them.
    """

    name: str
    samples: SampleArray
    manufacturer: str
    modality: str

    @property
    def words(self) -> frozenset[str]:
        """The words of manufacturer and name, in capitals: what a source is known by, de-identified or not."""
        return frozenset(re.findall("[A-Z0-9]+", f"{self.manufacturer} {self.name}".upper()))


def read_all(roots: Sequence[Path], leave_out: Sequence[str]) -> list[Series]:
    """Return the series of all folders below the roots, but of those whose path contains a word left out.

    Raises NoTrainingData if a root is no folder, or no series is found.
    """
    found = []
    for folder in _folders(roots, leave_out):
        series = read_series(folder)
        if series:
            found.append(series)
    if not found:
        names = ", ".join(str(root) for root in roots)
        raise NoTrainingData(f"No monochrome DICOM images were found below {names}; name folders with a series each.")
    return found


def _folders(roots: Sequence[Path], leave_out: Sequence[str]) -> Iterator[Path]:
    """Yield every folder below the roots that holds files, in order; not those whose path contains a word left out."""
    for root in roots:
        if not root.is_dir():
            raise NoTrainingData(f"{root} is no folder; name a folder of DICOM series.")
        for folder in sorted({file.parent for file in root.rglob("*") if file.is_file()}):
            if not any(word in str(folder) for word in leave_out):
                yield folder


def read_series(folder: Path) -> Series | None:
    """Return the images of a folder by Instance Number, of the size that most have; None if it has none of use."""
    images, refusals = [], []
    for file in sorted(folder.iterdir()):
        try:
            data_set = pydicom.dcmread(file, force=True)
            frames = _frames(data_set)
        except (InvalidDicomError, AttributeError, ValueError, NotImplementedError, RuntimeError, OSError) as error:
            refusals.append(f"{file.name}: {error}")
            continue
        if data_set.get("SamplesPerPixel", 1) == 1:
            frames = frames.reshape(-1, *frames.shape[-2:])
            images.append((int(data_set.get("InstanceNumber") or 0), frames, data_set))
    if refusals:
        _log.warning("left out of training", folder=str(folder), files=len(refusals), first=refusals[0])
    if not images:
        return None
    shape, _ = Counter(frames.shape[1:] for _, frames, _ in images).most_common(1)[0]
    images.sort(key=lambda image: image[0])
    samples = np.concatenate([frames for _, frames, _ in images if frames.shape[1:] == shape])
    if int(samples.max()) - int(samples.min()) > _WIDEST:
        _log.warning("left out of training", folder=str(folder), first="its samples span more than 16 bits")
        return None
    first = images[0][2]
    return Series(folder.name, samples, str(first.get("Manufacturer") or ""), str(first.get("Modality") or "OT"))


def _frames(data_set: pydicom.Dataset) -> SampleArray:
    """Return the samples of an image. Raises what pydicom raises if it has none that can be read."""
    if data_set.file_meta.get("TransferSyntaxUID") not in (JPEGLossless, JPEGLosslessSV1):
        return data_set.pixel_array
    encoded = generate_frames(data_set.PixelData, number_of_frames=int(data_set.get("NumberOfFrames") or 1))
    frames = np.stack([imagecodecs.ljpeg_decode(frame) for frame in encoded])
    if not data_set.PixelRepresentation:
        return frames
    unused = 8 * frames.itemsize - data_set.BitsStored
    return (frames << unused).view(f"int{8 * frames.itemsize}") >> unused
