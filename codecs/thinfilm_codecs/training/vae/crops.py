"""Crops of series, as the network sees them: drawn the same at every step of a run, however often it was stopped."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from thinfilm_codecs.lossy.vae.scaling import Scaling
from thinfilm_codecs.training.stacks import Series

SIZE = 96
_OTHER_MODALITIES = 0.3
_FLAT = 0.25
_TRIES = 4


class Crops:
    """Draws crops from series, from each in proportion to the root of its size, mostly CT and MR.

    A crop is turned, and scaled by up to 2 either way, since the unit that a scaling finds is an estimate.
    """

    def __init__(self, series: Sequence[Series], seed: int, batch: int) -> None:
        self._seed, self.batch = seed, batch
        self._stacks = [(each.samples, Scaling.of(each.samples)) for each in series]
        weights = [
            each.samples.size**0.5 * (1 if each.modality in ("CT", "MR") else _OTHER_MODALITIES) for each in series
        ]
        self._shares = np.array(weights) / sum(weights)

    def __call__(self, step: int) -> Tensor:
        """Return the crops (batch, 1, SIZE, SIZE) of a step, in units of each one's scaling."""
        random = np.random.default_rng((self._seed, step))
        return torch.from_numpy(np.stack([self._crop(random) for _ in range(self.batch)])[:, None])

    def _crop(self, random: np.random.Generator) -> npt.NDArray[np.float32]:
        samples, scaling = self._stacks[random.choice(len(self._stacks), p=self._shares)]
        for _ in range(_TRIES):
            frame = samples[random.integers(len(samples))]
            row, column = (random.integers(max(1, size - SIZE + 1)) for size in frame.shape)
            cut = frame[row : row + SIZE, column : column + SIZE]
            if np.count_nonzero(cut[:, 1:] != cut[:, :-1]) > _FLAT * cut.size:
                break
        missing = [(0, SIZE - size) for size in cut.shape]
        values = scaling.values(np.pad(cut, missing, mode="symmetric")) * np.float32(2 ** random.uniform(-1, 1))
        turned = np.rot90(values, int(random.integers(4)))
        return np.ascontiguousarray(turned.T if random.integers(2) else turned)
