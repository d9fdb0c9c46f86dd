"""Diffusion series of MR from folders of DICOM: volumes of slices, their b-values and gradients, FA and MD.

FA and MD need dipy (the extra thinfilm[dmri]).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.errors import InvalidDicomError

from thinfilm_codecs.blocks import SampleArray

Float64 = npt.NDArray[np.float64]

_B_VALUES = ((0x0018, 0x9087), (0x0065, 0x1009), (0x0019, 0x100C), (0x2001, 0x1003))
"""Diffusion b-value: of the standard, of United Imaging, Siemens, Philips."""

_GRADIENTS = ((0x0018, 0x9089), (0x0065, 0x1037), (0x0019, 0x100E))
"""Diffusion Gradient Orientation: of the standard, of United Imaging, Siemens."""

_PHILIPS_GRADIENT = ((0x2005, 0x10B0), (0x2005, 0x10B1), (0x2005, 0x10B2))
_UIH_TILES = (0x0065, 0x1050)
_UNWEIGHTED = 50.0


class NoDiffusionSeries(Exception):
    """The folder holds no diffusion series that can be read; the message says why."""


@dataclass(frozen=True, eq=False)
class Acquisition:
    """A diffusion series.

    samples: (volumes, places, rows, columns). b_values: (volumes,) in s/mm2, None where the images tell none.
    gradients: (volumes, 3) of length 1, or 0 where a volume has no direction.
    """

    name: str
    samples: SampleArray
    bits_stored: int
    b_values: Float64 | None
    gradients: Float64

    def some(self, places: int) -> "Acquisition":
        """Return the acquisition of so many places in the middle."""
        first = max(0, (self.samples.shape[1] - places) // 2)
        return Acquisition(
            self.name, self.samples[:, first : first + places], self.bits_stored, self.b_values, self.gradients
        )


@dataclass(frozen=True, eq=False)
class _Frame:
    place: float
    number: tuple[int, int]
    samples: SampleArray
    b_value: float | None
    gradient: tuple[float, ...]


def read(folder: Path) -> Acquisition:
    """Return the diffusion series of a folder. Raises NoDiffusionSeries if it is none."""
    frames, bits_stored = [], 0
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        try:
            data_set = pydicom.dcmread(file)
        except InvalidDicomError:
            continue
        frames += list(_frames(data_set))
        bits_stored = int(data_set.BitsStored)
    places: dict[float, list[_Frame]] = {}
    for frame in sorted(frames, key=lambda frame: (frame.place, frame.number)):
        places.setdefault(frame.place, []).append(frame)
    volumes = {len(found) for found in places.values()}
    if len(volumes) != 1 or min(volumes) < 2:
        counts = ", ".join(map(str, sorted(volumes))) or "no"
        raise NoDiffusionSeries(f"{folder} has {counts} images at a place; name a folder with all volumes of a series.")
    samples = np.stack([np.stack([frame.samples for frame in found]) for found in places.values()], 1)
    first = next(iter(places.values()))
    known = [frame.b_value for frame in first if frame.b_value is not None]
    b_values = np.array(known) if len(known) == len(first) else None
    return Acquisition(folder.name, samples, bits_stored, b_values, np.array([frame.gradient for frame in first]))


def _frames(data_set: pydicom.Dataset) -> Iterator[_Frame]:
    """Yield the frames of an image: of an enhanced one, of a mosaic of United Imaging, or the one that it is."""
    number, samples = int(data_set.get("InstanceNumber") or 0), data_set.pixel_array
    groups = data_set.get("PerFrameFunctionalGroupsSequence")
    if groups:
        for place, (group, frame) in enumerate(zip(groups, samples, strict=True)):
            diffusion = group.MRDiffusionSequence[0] if "MRDiffusionSequence" in group else pydicom.Dataset()
            directions = diffusion.get("DiffusionGradientDirectionSequence")
            position = group.PlanePositionSequence[0].ImagePositionPatient
            orientation = group.PlaneOrientationSequence[0].ImageOrientationPatient
            gradient = _gradient(directions[0] if directions else pydicom.Dataset())
            yield _Frame(_depth(position, orientation), (number, place), frame, _b_value(diffusion), gradient)
        return
    b_value, gradient = _b_value(data_set), _gradient(data_set)
    if _UIH_TILES in data_set:
        count = int(data_set[_UIH_TILES].value)
        across = math.ceil(math.sqrt(count))
        rows, columns = samples.shape[0] // math.ceil(count / across), samples.shape[1] // across
        for place in range(count):
            top, left = place // across * rows, place % across * columns
            tile = samples[top : top + rows, left : left + columns]
            yield _Frame(place, (number, place), tile, b_value, gradient)
        return
    position, orientation = data_set.get("ImagePositionPatient"), data_set.get("ImageOrientationPatient")
    depth = _depth(position, orientation) if position and orientation else 0.0
    yield _Frame(depth, (number, 0), samples, b_value, gradient)


def _depth(position: Any, orientation: Any) -> float:
    """Return the position along the normal of the slice in mm, rounded against noise."""
    across, down = np.array(orientation[:3], float), np.array(orientation[3:], float)
    return round(float(np.dot(np.cross(across, down), np.array(position, float))), 1) + 0.0


def _b_value(data_set: pydicom.Dataset) -> float | None:
    return next((float(data_set[tag].value) for tag in _B_VALUES if tag in data_set), None)


def _gradient(data_set: pydicom.Dataset) -> tuple[float, ...]:
    """Return the direction of the gradient, of length 1; of length 0 where none is told."""
    found = next((np.array(data_set[tag].value, float) for tag in _GRADIENTS if tag in data_set), np.zeros(3))
    if all(tag in data_set for tag in _PHILIPS_GRADIENT):
        found = np.array([float(data_set[tag].value) for tag in _PHILIPS_GRADIENT])
    length = float(np.linalg.norm(found))
    return tuple((found / length).tolist()) if length > 0 else (0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Maps:
    """fractional_anisotropy, mean_diffusivity (mm2/s): of the voxels of a mask."""

    fractional_anisotropy: Float64
    mean_diffusivity: Float64

    def relative_errors(self, decoded: "Maps") -> tuple[float, float]:
        """Return the medians over the voxels of |decoded - original| / original: of FA, and of MD."""
        pairs = (
            (self.fractional_anisotropy, decoded.fractional_anisotropy),
            (self.mean_diffusivity, decoded.mean_diffusivity),
        )
        first, second = (float(np.median(np.abs(found - own) / np.maximum(own, 1e-12))) for own, found in pairs)
        return first, second


class Tensor:
    """The diffusion tensor of an acquisition (Basser et al. 1994), by weighted least squares in a mask of the brain.

    Raises NoDiffusionSeries where dipy is not installed, or b-values or gradients are not told: then there is no FA
    and no MD.
    """

    def __init__(self, acquisition: Acquisition) -> None:
        try:
            from dipy.core.gradients import gradient_table
            from dipy.reconst.dti import TensorModel
            from dipy.segment.mask import median_otsu
        except ImportError as error:
            raise NoDiffusionSeries("FA and MD need dipy; the extra thinfilm[dmri] brings it.") from error
        b_values, directed = acquisition.b_values, np.linalg.norm(acquisition.gradients, axis=1) > 0
        if b_values is None or np.count_nonzero(directed & (b_values > _UNWEIGHTED)) < 6:
            raise NoDiffusionSeries("The images tell no b-values, or fewer than six gradients: no FA and no MD.")
        plain = b_values <= _UNWEIGHTED
        if not plain.any():
            raise NoDiffusionSeries("The series has no volume without diffusion weighting: no FA and no MD.")
        self._used = plain | directed
        vectors = np.where(plain[:, None], 0.0, acquisition.gradients)[self._used]
        table = gradient_table(np.where(plain, 0.0, b_values)[self._used], bvecs=vectors)
        self._model = TensorModel(table, fit_method="WLS")
        mean = np.moveaxis(acquisition.samples[plain].astype(np.float64).mean(0), 0, 2)
        self._mask = median_otsu(mean, median_radius=2, numpass=1)[1]

    def maps(self, samples: npt.NDArray[Any]) -> Maps:
        """Return FA and MD in the mask for samples (volumes, places, rows, columns)."""
        voxels = np.moveaxis(samples[self._used], (0, 1), (3, 2))[self._mask].astype(np.float64)
        fitted = self._model.fit(voxels)
        return Maps(np.asarray(fitted.fa), np.asarray(fitted.md))


def denoised(samples: SampleArray) -> Float64:
    """Return the samples (volumes, places, rows, columns) after MP-PCA (Veraart et al. 2016)."""
    from dipy.denoise.localpca import mppca

    reach = [2, 2, min(2, (samples.shape[1] - 1) // 2)]
    cleaned = mppca(np.moveaxis(samples.astype(np.float64), (0, 1), (3, 2)), patch_radius=np.array(reach))
    return np.moveaxis(cleaned, (3, 2), (0, 1))
