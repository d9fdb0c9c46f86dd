from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from support.datasets import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    US_IMAGE,
    EncodedDataSet,
    ct_series,
    finish,
    instance,
    us_colour,
    with_pixels,
)
from support.objects import write_files
from thinfilm_gateway.archive.viewer import CannotCompare, Difference, difference


def written(folder: Path, data_set: EncodedDataSet) -> Path:
    write_files(folder, [data_set])
    return folder / "0000.dcm"


def changed(path: Path, **attributes: object) -> Path:
    """Save a copy after a change."""
    data_set = pydicom.dcmread(path)
    for keyword, value in attributes.items():
        setattr(data_set, keyword, value)
    copy = path.with_name("changed.dcm")
    data_set.save_as(copy)
    return copy


def little(was: Dataset, samples: np.ndarray, path: Path) -> Path:
    """Save an image with other samples, in Explicit VR Little Endian."""
    was.PixelData = samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    was["PixelData"].VR = "OW" if samples.dtype.itemsize > 1 else "OB"
    was.file_meta.TransferSyntaxUID = EXPLICIT_LITTLE
    pydicom.dcmwrite(path, was, little_endian=True, implicit_vr=False)
    return path


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG])
def test_errors_are_those_between_the_samples_that_a_viewer_shows(tmp_path: Path, syntax: str) -> None:
    path = written(tmp_path, ct_series(1, size=8, transfer_syntax_uid=syntax)[0])
    samples = pydicom.dcmread(path).pixel_array.copy()
    samples[3, 4] += 3
    samples[5, 5] -= 1
    derived = little(pydicom.dcmread(path), samples, tmp_path / "derived.dcm")
    assert difference(path, derived) == Difference(3, 10, 64)


def test_frames_and_colours_are_compared_one_by_one(tmp_path: Path) -> None:
    path = written(tmp_path, us_colour(frames=3, rows=6, columns=8))
    samples = pydicom.dcmread(path).pixel_array.copy()
    samples[2, 5, 7, 1] ^= 4
    derived = little(pydicom.dcmread(path), samples, tmp_path / "derived.dcm")
    assert difference(path, derived) == Difference(4, 16, samples.size)


def test_samples_that_changed_places_are_seen(tmp_path: Path) -> None:
    samples = np.arange(64, dtype=np.uint8).reshape(8, 8)
    swapped = samples.reshape(-1, 2)[:, ::-1].reshape(8, 8)
    attributes = with_pixels(instance(US_IMAGE, "US"), samples)
    path = written(tmp_path, finish(attributes))
    derived = little(pydicom.dcmread(path), swapped, tmp_path / "derived.dcm")
    assert difference(path, derived).max_error == 1
    assert difference(path, path) == Difference(0, 0, 64)


@pytest.mark.parametrize(
    "attributes",
    [
        {"Rows": 4, "Columns": 16},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PixelRepresentation": 0},
        {"BitsStored": 16, "HighBit": 15},
        {"RescaleSlope": "2"},
        {"PatientID": "another"},
        {"NumberOfFrames": 2, "Rows": 4},
    ],
)
def test_another_kind_of_image_is_refused(tmp_path: Path, attributes: dict[str, object]) -> None:
    path = written(tmp_path, ct_series(1, size=8)[0])
    with pytest.raises(CannotCompare):
        difference(path, changed(path, **attributes))


def test_what_a_viewer_cannot_read_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = written(tmp_path, ct_series(1, size=8)[0])
    whole = path.read_bytes()
    (tmp_path / "half.dcm").write_bytes(whole[:-50])
    with pytest.raises(CannotCompare, match="could not be read once more, as a viewer does: "):
        difference(path, tmp_path / "half.dcm")
