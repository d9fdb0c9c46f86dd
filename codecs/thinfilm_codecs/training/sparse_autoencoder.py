"""Train a model of the sparse_autoencoder codec.

python -m thinfilm_codecs.training.sparse_autoencoder DATA... --models FOLDER --checkpoint FILE. Seeded, resumable: a
run that is stopped goes on from its checkpoint. Needs torch and pydicom.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from thinfilm_codecs.lossy.autoencoders.layers import Shape
from thinfilm_codecs.lossy.sparse_autoencoder.codec import SparseAutoencoder
from thinfilm_codecs.lossy.sparse_autoencoder.network import DECODER, ENCODER, FILTERS, from_arrays
from thinfilm_codecs.training import autoencoders

_FIRST_GAIN = 20.0


class TrainedNetwork(nn.Module):
    """The network of docs/formats/autoencoders.md in floats; latents count as rounded by noise of their width."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = autoencoders.layers_of(ENCODER + DECODER)
        with torch.no_grad():
            self.layers[ENCODER[-1].name].weight.mul_(_FIRST_GAIN)  # so that latents are not all rounded to 0 at first

    def forward(self, crops: Tensor, kept: int) -> tuple[Tensor, Tensor]:
        """Return the latents (batch, kept, rows, columns), and what is left of crops with so many filters."""
        latents = self._run(ENCODER, crops)
        noisy = latents + torch.rand_like(latents) - 0.5
        noisy = noisy * (torch.arange(FILTERS, device=crops.device) < kept)[:, None, None]
        return latents[:, :kept], self._run(DECODER, noisy)

    def _run(self, shapes: tuple[Shape, ...], x: Tensor) -> Tensor:
        for shape in shapes[:-1]:
            x = functional.relu(self.layers[shape.name](x))
        found: Tensor = self.layers[shapes[-1].name](x)
        return found


def main() -> None:
    """Read the data, train, write the model."""
    parser = autoencoders.parser(__doc__)
    parser.add_argument("--bits", type=float, default=1e-3, help="weight of the bits a sample beside the squared error")
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    network = TrainedNetwork().to(given.device)

    def loss(crops: Tensor, random: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        kept = int(random.choice(SparseAutoencoder.ladder))
        latents, found = network(crops, kept)
        error = (found - crops).square().mean()
        bits = torch.log2(1 + latents.abs()).sum() / crops.numel()
        return error + given.bits * bits, {"error": error.item(), "bits": bits.item()}

    autoencoders.make_model(network, network.layers, ENCODER + DECODER, loss, from_arrays, given)


if __name__ == "__main__":
    main()
