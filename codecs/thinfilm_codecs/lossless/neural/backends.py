"""Where the decoder's arithmetic runs: one definition, several back ends, the same bytes from all."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.errors import MissingDevice
from thinfilm_codecs.lossless.devices import check_device
from thinfilm_codecs.lossless.neural import compiled, kernels, reference
from thinfilm_codecs.lossless.neural.model import Linear, Model, Network
from thinfilm_codecs.lossless.neural.planes import Geometry, padded

UInt16 = npt.NDArray[np.uint16]
Planes = npt.NDArray[np.int16]


class BackEnd(Protocol):
    """Codes groups. What one back end wrote every other one reads."""

    def encode(self, values: UInt16, g: Geometry, linear: Linear, network: Network, model: Model) -> bytes:
        """Return the entropy-coded values (frames, rows, columns) of a group."""
        ...

    def decode(self, stream: bytes, g: Geometry, linear: Linear, network: Network, model: Model) -> Planes | None:
        """Return the padded samples of a group, or None if the stream is not one of such a group."""
        ...


@dataclass(frozen=True)
class Kernel:
    """The compiled kernel; the fastest of its instruction sets that computes rightly unless one is named.

    Where none does, the specification, unless one is named.
    """

    instruction_set: str | None = None

    def encode(self, values: UInt16, g: Geometry, linear: Linear, network: Network, model: Model) -> bytes:
        """Return the entropy-coded values (frames, rows, columns) of a group."""
        if self.instruction_set is None and not kernels.usable():
            return reference.encode(values, g, linear, network, model)
        planes = compiled.Group(g, padded(values, g), g.empty(0))
        return compiled.encode(planes, linear, network, model, self.instruction_set)

    def decode(self, stream: bytes, g: Geometry, linear: Linear, network: Network, model: Model) -> Planes | None:
        """Return the padded samples of a group, or None if the stream is not one of such a group."""
        if self.instruction_set is None and not kernels.usable():
            return reference.decode(stream, g, linear, network, model)
        return compiled.decode(stream, g, linear, network, model, self.instruction_set)


def back_end(device: str) -> BackEnd:
    """Return the back end for a device.

    "cpu" is the compiled kernel, or the specification where none was built; "cuda" and "torch-cpu" are torch.
    Raises MissingDevice where the machine has no such device, or no torch.
    """
    check_device(device, "neural")
    if device == "cpu":
        return Kernel() if compiled.instruction_sets() else reference
    if not compiled.instruction_sets():
        raise MissingDevice(f"The device {device!r} needs the compiled kernel for entropy coding, which was not built.")
    from thinfilm_codecs.lossless.neural.torch_backend import TorchBackEnd

    return TorchBackEnd("cpu" if device == "torch-cpu" else device)
