"""What training counts as distortion: for each image a number in the units of a squared error."""

import torch
from torch import Tensor
from torch.nn import functional

_WINDOW, _SIGMA = 11, 1.5
_WEIGHTS = (0.0448, 0.2856, 0.3001)
_STABILISERS = (0.01, 0.03)
_ERROR_OF_ALL = 4.0


def squared_error(decoded: Tensor, values: Tensor) -> Tensor:
    """Return the mean squared errors (n,) of images (n, 1, rows, columns)."""
    return (decoded - values).square().mean((1, 2, 3))


def structural_dissimilarity(decoded: Tensor, values: Tensor) -> Tensor:
    """Return 1 - MS-SSIM (n,) over three scales, weighted so that it falls with the rate about as a squared error does.

    The range of an image is that of its values, at least 16 units. Source: Wang, Simoncelli, Bovik: Multiscale
    structural similarity for image quality assessment, 2003; the first three of its five weights, for small crops.
    """
    spans = (values.amax((1, 2, 3), True) - values.amin((1, 2, 3), True)).clamp(min=16.0)
    steps = torch.arange(_WINDOW, device=values.device) - _WINDOW // 2
    line = torch.exp(-(steps**2) / (2 * _SIGMA**2))
    window = (line[:, None] * line / line.sum() ** 2)[None, None]
    total = torch.ones(len(values), device=values.device)
    x, y = decoded, values
    for scale, weight in enumerate(_WEIGHTS):
        means_x, means_y = functional.conv2d(x, window), functional.conv2d(y, window)
        variance_x = functional.conv2d(x * x, window) - means_x**2
        variance_y = functional.conv2d(y * y, window) - means_y**2
        covariance = functional.conv2d(x * y, window) - means_x * means_y
        first, second = ((share * spans) ** 2 for share in _STABILISERS)
        similar = (2 * covariance + second) / (variance_x + variance_y + second)
        if scale == len(_WEIGHTS) - 1:
            similar = similar * (2 * means_x * means_y + first) / (means_x**2 + means_y**2 + first)
        total = total * similar.mean((1, 2, 3)).clamp(min=1e-3) ** (weight / sum(_WEIGHTS))
        x, y = functional.avg_pool2d(x, 2), functional.avg_pool2d(y, 2)
    return (1 - total) * _ERROR_OF_ALL * spans[:, 0, 0, 0]
