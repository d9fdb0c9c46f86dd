"""Train a model of the binary_autoencoder codec.

python -m thinfilm_codecs.training.binary_autoencoder DATA... --models FOLDER --checkpoint FILE. Seeded, resumable: a
run that is stopped goes on from its checkpoint. Needs torch and pydicom. Source: Gong, Lin, Pauly: Efficient MR Image
Compression using Deep Learning Models for Multi-contrast MRI, ISMRM 2019.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from thinfilm_codecs.lossy.autoencoders.layers import Shape
from thinfilm_codecs.lossy.binary_autoencoder.codec import BinaryAutoencoder
from thinfilm_codecs.lossy.binary_autoencoder.network import DECODER, ENCODER, PLANES, from_arrays
from thinfilm_codecs.training import autoencoders

_FIRST_GAIN = 20.0
_NOISE = 6.0


class TrainedNetwork(nn.Module):
    """The network of docs/formats/autoencoders.md in floats; noise before the sigmoid drives codes to yes and no."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = autoencoders.layers_of(ENCODER + DECODER)
        with torch.no_grad():
            self.layers[ENCODER[-1].name].weight.mul_(_FIRST_GAIN)  # so that the noise leaves something to learn from
            for shape in ENCODER + DECODER:
                if shape.name.endswith("residual"):
                    self.layers[shape.name].weight.mul_(0.3)

    def forward(self, crops: Tensor, kept: int) -> tuple[Tensor, Tensor]:
        """Return the codes (batch, kept, rows, columns), 0 to 1, and the images that are left with so many planes."""
        sums = self._run(ENCODER, crops)
        codes = torch.sigmoid(sums + _NOISE * torch.randn_like(sums))
        signs = (2 * codes - 1) * (torch.arange(PLANES, device=crops.device) < kept)[:, None, None]
        return codes[:, :kept], self._run(DECODER, signs)

    def _run(self, shapes: tuple[Shape, ...], x: Tensor) -> Tensor:
        for shape, residual in zip(shapes[:-1:2], shapes[1::2], strict=True):
            x = functional.elu(self.layers[shape.name](x))
            x = functional.elu(x + self.layers[residual.name](x))
        found: Tensor = self.layers[shapes[-1].name](x)
        return found


class Adversary(nn.Module):
    """Tells images from what is left of them; the trained network is paid for deceiving it."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.judge = nn.Sequential(
            nn.Conv2d(1, 32, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(32, 64, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(64, 1, 3, 1, 1),
        )  # fmt: skip
        self._optimiser = torch.optim.Adam(self.judge.parameters(), rate)

    def deceit(self, crops: Tensor, found: Tensor) -> Tensor:
        """Learn to tell `found` from `crops`, then return how surely it is still told."""
        true, false = self.judge(crops), self.judge(found.detach())
        told = functional.softplus(-true).mean() + functional.softplus(false).mean()
        self._optimiser.zero_grad()
        told.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        return functional.softplus(-self.judge(found)).mean()


def main() -> None:
    """Read the data, train, write the model."""
    parser = autoencoders.parser(__doc__)
    parser.add_argument("--sparsity", type=float, default=0.01, help="weight of the mean code; 0.1 in the paper")
    parser.add_argument(
        "--adversarial",
        type=float,
        default=0.0,
        help="weight of an adversary's loss; 0.1 in the paper. It invents texture",
    )
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    network = TrainedNetwork().to(given.device)
    adversary = Adversary(given.rate).to(given.device) if given.adversarial else None

    def loss(crops: Tensor, random: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        kept = int(random.choice(BinaryAutoencoder.ladder))
        codes, found = network(crops, kept)
        error, ones = (found - crops).abs().mean(), codes.mean()
        falling = error + given.sparsity * ones
        if adversary:
            falling = falling + given.adversarial * adversary.deceit(crops, found)
        return falling, {"error": error.item(), "ones": ones.item()}

    autoencoders.make_model(network, network.layers, ENCODER + DECODER, loss, from_arrays, given)


if __name__ == "__main__":
    main()
