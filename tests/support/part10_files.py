"""Small Part 10 files of known content, for tests that pack and unpack files."""

from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

SERIES_UID = "2.25.1001"


def write_image(path: Path, samples: np.ndarray, *, series_uid: str = SERIES_UID, **attributes: Any) -> Path:
    """Write samples ([frames,] rows, columns) or (frames, rows, columns, 3), in Explicit VR Little Endian."""
    colour = samples.ndim == 4
    frames, rows, columns = samples.reshape(-1, *samples.shape[-3:-1] if colour else samples.shape[-2:]).shape[:3]
    bits = 8 * samples.dtype.itemsize
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = f"{series_uid}.{attributes.get('InstanceNumber', 1)}"
    dataset.StudyInstanceUID = "2.25.1000"
    dataset.SeriesInstanceUID = series_uid
    dataset.Modality = "CT"
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = int(samples.dtype.kind == "i")
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    if dataset.BitsAllocated == 1:
        pixel_data = np.packbits(samples.reshape(-1), bitorder="little").tobytes()
    else:
        pixel_data = samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    dataset.PixelData = pixel_data + b"\0" * (len(pixel_data) % 2)
    dataset["PixelData"].VR = "OB" if dataset.BitsAllocated == 8 else "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    return path


def slice_samples(number: int, rows: int = 24, columns: int = 20) -> np.ndarray:
    """Return a smooth int16 slice with a little noise, the same for the same number."""
    y, x = np.mgrid[:rows, :columns]
    noise = np.random.default_rng(number).integers(-4, 5, (rows, columns))
    return (1000 * np.sin((x + number) / 9) * np.cos(y / 7) + noise).astype(np.int16)


def write_series(folder: Path, count: int, rows: int = 24, columns: int = 20) -> list[Path]:
    """Write axial slices whose file names run against their place in the patient."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        write_image(
            folder / f"{count - number:03}.dcm",
            slice_samples(number, rows, columns),
            InstanceNumber=number + 1,
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            ImagePositionPatient=[-120.0, -120.0, 2.5 * number],
            PixelSpacing=[0.5, 0.5],
        )
        for number in range(count)
    ]


def smooth_slices(frames: int, size: int, seed: int = 0) -> np.ndarray:
    """Return slices (frames, size, size) with noise, that the neural codec keeps smaller than any other."""
    y, x = np.mgrid[:size, :size]
    rng = np.random.default_rng(seed)
    body = 400 * np.exp(-((x - size / 2) ** 2 + (y - size / 2) ** 2) / (size * 6))
    slices = [body * (1 + 0.02 * frame) + rng.normal(0, 6, (size, size)) for frame in range(frames)]
    return np.rint(np.stack(slices)).astype(np.int16)
