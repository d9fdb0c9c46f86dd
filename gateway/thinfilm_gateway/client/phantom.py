"""A synthetic CT of a thorax: what demo and bench send when no patient's images are at hand."""

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

ROWS = COLUMNS = 512
SPACING_MM = 0.75
SLICE_MM = 2.0
RESCALE_INTERCEPT = -1024
NOISE_HU = 14.0

Hounsfield = npt.NDArray[np.float32]


def write_ct(folder: Path, slices: int, distinct: int | None = None, thinned: int = 1) -> list[Path]:
    """Write a CT series of 512 x 512 images, 12 bits stored in 16, about 512 KiB each; return its files in order.

    distinct: the pixels repeat after so many slices, which saves the time to make them. thinned: only every so many-th
    row and column, for small objects. The pixels are the same each time, the UIDs are new.
    """
    distinct = distinct or slices
    study, series, frame_of_reference = generate_uid(), generate_uid(), generate_uid()
    paths = []
    for number in range(slices):
        image = _attributes(number, study, series, frame_of_reference)
        pixels = _stored_pixels(number % distinct, distinct)[::thinned, ::thinned]
        image.Rows, image.Columns = pixels.shape
        image.PixelSpacing = [SPACING_MM * thinned, SPACING_MM * thinned]
        image.PixelData = pixels.tobytes()
        path = folder / f"ct-{number + 1:04d}.dcm"
        image.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


@functools.lru_cache(maxsize=32)
def _stored_pixels(number: int, slices: int) -> npt.NDArray[np.uint16]:
    """Return the pixels of one slice out of `slices`, as they are stored."""
    hounsfield = _anatomy(number / max(1, slices - 1)) + _noise(np.random.default_rng(number))
    stored = np.clip(np.rint(hounsfield - RESCALE_INTERCEPT), 0, 4095)
    pixels: npt.NDArray[np.uint16] = stored.astype("<u2")
    return pixels


def _anatomy(position: float) -> Hounsfield:
    """Return one slice in Hounsfield units; position 0 is the diaphragm, 1 the apex of the lungs."""
    image = np.full((ROWS, COLUMNS), -1000, np.float32)
    lung = 0.55 + 0.45 * np.sin(np.pi * (0.15 + 0.8 * position))
    _ellipse(image, (256, 256), (150 - 12 * position, 215 - 30 * position), -95)  # subcutaneous fat
    _ellipse(image, (256, 256), (136 - 12 * position, 198 - 30 * position), 48)  # muscle
    for side in (-1, 1):
        _ellipse(image, (248, 256 + side * 92), (100 * lung, 72 * lung), -860)
        for vessel in range(6):
            angle = vessel * 1.05 + 2 * position
            centre = (248 + 52 * lung * np.sin(angle), 256 + side * (88 + 38 * lung * np.cos(angle)))
            _ellipse(image, centre, (4 + vessel % 3, 3 + vessel % 2), 35)
        for rib in range(5):
            angle = 0.5 * rib + 4 * position
            centre = (256 + 128 * np.sin(angle), 256 + side * (60 + 118 * abs(np.cos(angle))))
            _ellipse(image, centre, (7, 9), 420)
    _ellipse(image, (238, 262), (62 * (1.1 - position), 54 * (1.1 - position)), 62)  # heart
    _ellipse(image, (288, 286), (17, 17), 150)  # aorta, contrast
    _ellipse(image, (344, 256), (28, 34), 250)  # vertebral body
    _ellipse(image, (376, 256), (11, 12), 20)  # spinal canal
    image[452:458, 90:422] = -320  # table
    return image


def _ellipse(image: Hounsfield, centre: tuple[float, float], radii: tuple[float, float], value: float) -> None:
    """Draw an ellipse whose edge is as soft as a scanner's point spread."""
    inside = tuple(slice(max(0, int(c - r) - 2), max(0, int(c + r) + 3)) for c, r in zip(centre, radii, strict=True))
    rows, columns = np.ogrid[inside]
    part = image[inside]
    distance = np.hypot((rows - centre[0]) / radii[0], (columns - centre[1]) / radii[1])[
        : part.shape[0], : part.shape[1]
    ]
    cover = np.clip((1 - distance) * min(radii) / 1.5 + 0.5, 0, 1).astype(np.float32)
    part += cover * (value - part)


def _noise(random: np.random.Generator) -> Hounsfield:
    """Return noise as a soft-tissue kernel leaves it: correlated between neighbours."""
    white = random.standard_normal((ROWS, COLUMNS), np.float32)
    smooth = white + 0.5 * (np.roll(white, 1, 0) + np.roll(white, 1, 1)) + 0.25 * np.roll(white, (1, 1), (0, 1))
    scaled: Hounsfield = smooth * np.float32(NOISE_HU / 1.25)
    return scaled


def _attributes(number: int, study: str, series: str, frame_of_reference: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset(None, Dataset(), file_meta=meta, preamble=bytes(128))
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.SOPClassUID = CTImageStorage
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.StudyDate = image.SeriesDate = image.ContentDate = "20260101"
    image.StudyTime = image.SeriesTime = image.ContentTime = "120000"
    image.AccessionNumber = "PHANTOM"
    image.Modality = "CT"
    image.Manufacturer = "Thinfilm"
    image.StudyDescription = "Synthetic thorax"
    image.SeriesDescription = "Axial 2 mm"
    image.PatientName = "Phantom^Thorax"
    image.PatientID = "PHANTOM"
    image.PatientBirthDate = ""
    image.PatientSex = "O"
    image.BodyPartExamined = "CHEST"
    image.SliceThickness = SLICE_MM
    image.KVP = 120
    image.StudyInstanceUID, image.SeriesInstanceUID = study, series
    image.FrameOfReferenceUID = frame_of_reference
    image.StudyID = "1"
    image.SeriesNumber, image.InstanceNumber = 1, number + 1
    image.ImagePositionPatient = [-192, -192, number * SLICE_MM]
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelRepresentation = 0
    image.WindowCenter, image.WindowWidth = 40, 400
    image.RescaleIntercept, image.RescaleSlope = RESCALE_INTERCEPT, 1
    return image
