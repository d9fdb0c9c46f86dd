"""What compression does to the measures that diffusion MR is made for: fractional anisotropy and mean diffusivity."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.blocks import SampleArray


class MissingDipy(Exception):
    """dipy is not installed; the message is one sentence."""


@dataclass(frozen=True)
class DiffusionErrors:
    """Relative errors over a mask: the sum of the magnitudes of the errors to the sum of the original's values.

    fa: of fractional anisotropy. md: of mean diffusivity.
    """

    fa: float
    md: float


def diffusion_errors(
    original: SampleArray,
    decoded: SampleArray,
    b_values: npt.ArrayLike,
    b_vectors: npt.ArrayLike,
    mask: npt.NDArray[np.bool_],
) -> DiffusionErrors:
    """Fit the diffusion tensor to both (weighted least squares, dipy) and return how far its measures differ.

    original, decoded: (volumes, slices, rows, columns) or (volumes, rows, columns). b_values: (volumes), in s/mm^2.
    b_vectors: (volumes, 3), of length 1 where the b-value is not 0. mask: the shape of a volume; what counts, the brain
    say. Raises MissingDipy, and ValueError for an empty mask or shapes that do not fit.
    """
    try:
        from dipy.core.gradients import gradient_table
        from dipy.reconst.dti import TensorModel
    except ImportError:
        raise MissingDipy("dipy is not installed: pip install 'thinfilm[dmri]'.") from None
    if original.shape != decoded.shape or original.shape[1:] != mask.shape or not mask.any():
        raise ValueError(
            f"Volumes of {original.shape[1:]} need a mask of that shape that is not empty; got {mask.shape}, and "
            f"{decoded.shape} for {original.shape}."
        )
    model = TensorModel(gradient_table(np.asarray(b_values, float), bvecs=np.asarray(b_vectors, float)))
    fits = [model.fit(np.moveaxis(samples[:, mask], 0, -1).astype(np.float64)) for samples in (original, decoded)]
    return DiffusionErrors(
        fa=_relative(np.nan_to_num(fits[0].fa), np.nan_to_num(fits[1].fa)),
        md=_relative(np.nan_to_num(fits[0].md), np.nan_to_num(fits[1].md)),
    )


def _relative(original: npt.NDArray[np.float64], decoded: npt.NDArray[np.float64]) -> float:
    return float(np.abs(decoded - original).sum() / np.abs(original).sum())
