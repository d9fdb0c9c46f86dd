"""What every back end of the neural codec must code to the same bytes: all that a block can be, and real images.

`python tests/support/neural_goldens.py` writes those that are not there yet. The synthetic samples come from
whole-number arithmetic, so that they are the same everywhere and for ever; the real ones come with pydicom.
"""

import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_file

from thinfilm_codecs.blocks import PixelBlock
from thinfilm_codecs.lossless.neural import Neural, fitting, kernels, reference, shape
from thinfilm_codecs.lossless.neural.model import Network, shipped
from thinfilm_codecs.lossless.neural.parameters import Parameters, pack, quantised_linear
from thinfilm_codecs.lossless.neural.planes import Geometry
from thinfilm_codecs.lossless.neural.values import maps_for
from thinfilm_codecs.lossless.sealed import unseal

FOLDER = Path(__file__).parent.parent / "codecs" / "golden" / "neural" / "conformance"
HASHES = FOLDER / "hashes.json"


@dataclass(frozen=True, eq=False)
class Golden:
    """A block, and how the parameters that it is coded with are made."""

    block: PixelBlock
    parameters: Callable[[PixelBlock], bytes]


def hashed(data: bytes) -> str:
    """Return the SHA-256 as it stands among the conformance hashes."""
    return hashlib.sha256(data).hexdigest()


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return numbers of 16 bits without a pattern."""
    x = (np.arange(np.prod(shape), dtype=np.uint64) + np.uint64(1 + 7919 * seed)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return ((x ^ (x >> np.uint64(27))) >> np.uint64(48)).astype(np.int64).reshape(shape)


def tissue(shape: tuple[int, int, int], strength: int, seed: int = 0) -> np.ndarray:
    """Return a smooth thing that changes slowly from frame to frame, with noise, on a background of 0."""
    z, y, x = np.indices(shape)
    smooth = 400 + (x - 8) ** 2 // 3 + (y + 2 * z) * 7 + (x * y) // 5
    found = smooth + noise(shape, seed) * strength // 65536 + noise(shape, seed + 1) * strength // 65536
    outside = (2 * x - shape[2]) ** 2 * shape[1] ** 2 + (2 * y - shape[1]) ** 2 * shape[2] ** 2
    found[outside > (shape[1] * shape[2]) ** 2] = 0
    return found


def shipped_with(lag_a: int, lag_b: int, *, packed: bool = False) -> Callable[[PixelBlock], bytes]:
    """Return what makes parameters of the shipped model with these references, and levels if `packed`."""

    def made(block: PixelBlock) -> bytes:
        model, values = shipped(), maps_for(block.samples)[-1 if packed else 0]
        assert packed == (values.levels is not None)
        return pack(Parameters(model, values, lag_a, lag_b, model.linear, model.network))

    return made


def fitted(block: PixelBlock) -> bytes:
    """Fit the model to a block: other numbers on other machines, which is why parameters are kept."""
    model, values = shipped(), maps_for(block.samples)[0]
    groups = fitting.grouped([values.values(block.samples)], 0, 0, values.maximum)
    sampler = fitting.Sampler(groups, np.random.default_rng(0))
    linear = quantised_linear(fitting.fit_linear(sampler, model.linear), model, 8)
    fitting.predict(groups, linear)
    network = fitting.tune(sampler, linear, model, 200_000, 2.5e-3, 2.0)
    return pack(Parameters(model, values, 0, 0, linear, network, 8))


def _golden(samples: np.ndarray, dtype: str, bits: int, parameters: Callable[[PixelBlock], bytes]) -> Golden:
    return Golden(PixelBlock(samples.astype(dtype), bits), parameters)


def _synthetic() -> dict[str, Golden]:
    alone, volume, packed = shipped_with(0, 0), shipped_with(1, 2), shipped_with(1, 2, packed=True)
    beat = np.concatenate([tissue((3, 14, 15), 9, seed) + 40 for seed in (1, 5, 9)])
    spike = np.full((2, 16, 20), 77)
    spike[1, 9, 11] = 4000
    colours = np.stack([tissue((2, 12, 13), 30, seed) // 4 % 256 for seed in (0, 2, 4)], 3)
    return {
        "1-bit": _golden(tissue((2, 20, 21), 300) > 560, "uint8", 1, volume),
        "8-bit": _golden(tissue((3, 18, 17), 40) // 4 % 256, "uint8", 8, volume),
        "8-bit-signed": _golden((tissue((2, 15, 16), 60) // 8 - 100).clip(-128, 127), "int8", 8, volume),
        "10-bit": _golden(tissue((2, 19, 22), 80).clip(0, 1023), "uint16", 10, volume),
        "12-bit-volume": _golden(tissue((5, 20, 18), 25), "uint16", 12, volume),
        "12-bit-single": _golden(tissue((1, 33, 30), 60), "uint16", 12, alone),
        "16-bit": _golden(tissue((2, 18, 19), 900) * 37 % 65536, "uint16", 16, volume),
        "signed-ct": _golden(tissue((3, 20, 20), 120) - 1024, "int16", 16, volume),
        "32-bit": _golden(tissue((2, 14, 15), 50) + 2_000_000_000, "uint32", 32, volume),
        "32-bit-signed": _golden(tissue((2, 13, 15), 50) - 2_000_000_000, "int32", 32, volume),
        "sparse": _golden(tissue((2, 18, 20), 30) // 9 * 16, "uint16", 16, packed),
        "constant": _golden(np.full((3, 12, 13), -7), "int16", 16, volume),
        "spike": _golden(spike, "uint16", 12, volume),
        "noise-8": _golden(noise((2, 15, 16)) % 256, "uint8", 8, alone),
        "noise-16": _golden(noise((1, 20, 24)), "uint16", 16, alone),
        "extremes": _golden((noise((2, 14, 15)) & 1) * 65535, "uint16", 16, volume),
        "ramp": _golden(np.arange(600).reshape(1, 20, 30) * 109, "uint16", 16, alone),
        "rgb": _golden(colours, "uint8", 8, shipped_with(1, 3)),
        "two-components": _golden(tissue((4, 11, 9), 30).reshape(2, 11, 9, 2), "int16", 16, shipped_with(2, 1)),
        "row": _golden(noise((3, 1, 150)) % 50 + np.arange(150) * 3, "uint16", 12, volume),
        "column": _golden(noise((2, 90, 1)) % 50 + np.arange(90)[:, None] * 4, "uint16", 12, volume),
        "pixel": _golden(np.array([[[1234]]]), "uint16", 12, alone),
        "four-dimensional": _golden(beat, "uint16", 12, shipped_with(3, 1)),
        "lag-beyond-the-group": _golden(tissue((3, 10, 11), 20), "uint16", 12, shipped_with(9, 2)),
        # Those above were coded with the first model that was shipped, these with the second.
        "second-model-volume": _golden(tissue((5, 20, 18), 25), "uint16", 12, volume),
        "second-model-single": _golden(tissue((1, 33, 30), 60), "uint16", 12, alone),
        "second-model-fitted": _golden(tissue((4, 24, 25), 40), "int16", 16, fitted),
    }


def _real(name: str, rows: slice, columns: slice, parameters: Callable[[PixelBlock], bytes]) -> Golden:
    data_set = pydicom.dcmread(get_testdata_file(name, download=False))
    samples = data_set.pixel_array[rows, columns]
    return Golden(PixelBlock(np.ascontiguousarray(samples[None]), data_set.BitsStored), parameters)


def goldens() -> dict[str, Golden]:
    """Return all that is kept, by name."""
    return _synthetic() | {
        "real-ct": _real("CT_small.dcm", slice(30, 78), slice(40, 88), fitted),
        "real-mr": _real("MR_small.dcm", slice(10, 50), slice(12, 54), fitted),
        "real-colour": _real("SC_ybr_full_422_uncompressed.dcm", slice(20, 44), slice(0, 30), shipped_with(1, 2)),
        "real-segmentation": _real("liver_1frame.dcm", slice(160, 196), slice(150, 184), shipped_with(0, 0)),
    }


def parameters_and_stream(name: str) -> tuple[bytes, bytes]:
    """Return what is kept of a golden."""
    return (FOLDER / f"{name}.parameters").read_bytes(), (FOLDER / f"{name}.bin").read_bytes()


def write_missing() -> None:
    """Write what is not there yet; never touch what is."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    hashes = json.loads(HASHES.read_text()) if HASHES.exists() else {}
    codec = Neural()
    for name, golden in goldens().items():
        if name in hashes:
            continue
        parameters = golden.parameters(golden.block)
        stream = codec.encode(golden.block, parameters)
        (FOLDER / f"{name}.parameters").write_bytes(parameters)
        (FOLDER / f"{name}.bin").write_bytes(stream)
        hashes[name] = {"samples": hashed(golden.block.samples.tobytes()), "stream": hashed(stream)}
    HASHES.write_text(json.dumps(hashes, indent=1, sort_keys=True) + "\n")


def wild_network(width: int, seed: int) -> Network:
    """Return a network whose sums reach far, so that every activation saturates somewhere."""
    sizes = (shape.INPUTS, width, shape.HIDDEN_2, shape.OUTPUTS)
    weights = [
        (noise((outs, ins), seed + layer) % 61 - 30).astype(np.int8)
        for layer, (ins, outs) in enumerate(itertools.pairwise(sizes))
    ]
    biases = [(noise((outs,), seed + 7 + layer) % 1001 - 500).astype(np.int32) for layer, outs in enumerate(sizes[1:])]
    return Network((weights[0], weights[1], weights[2]), (biases[0], biases[1], biases[2]))


def known_answers() -> dict[str, np.ndarray]:
    """Return what the package ships as known answers: all goldens, and wild networks coded by the specification."""
    found = {}
    for name, golden in goldens().items():
        parameters, stream = parameters_and_stream(name)
        found[f"{name}/samples"] = golden.block.samples
        found[f"{name}/parameters"] = np.frombuffer(parameters, np.uint8)
        found[f"{name}/stream"] = np.frombuffer(unseal(stream), np.uint8)
    model = shipped()
    for width in shape.WIDTHS:
        for seed, samples in enumerate((tissue((2, 21, 23), 900) * 31 % 65536, noise((2, 17, 19)))):
            network, values = wild_network(width, 50 * seed), samples.astype(np.uint16)
            geometry = Geometry(*values.shape, 1, 2, 65535)
            name = f"wild-{width}-{seed}"
            found[f"{name}/samples"] = values
            found[f"{name}/stream"] = np.frombuffer(
                reference.encode(values, geometry, model.linear, network, model), np.uint8
            )
            for layer in range(3):
                found[f"{name}/weights_{layer + 1}"] = network.weights[layer]
                found[f"{name}/biases_{layer + 1}"] = network.biases[layer]
    return found


def write_known_answers() -> None:
    """Write the known answers anew; they must be given for ever, so only new ones may be added."""
    with resources.files("thinfilm_codecs.lossless.neural").joinpath(kernels.ANSWERS).open("wb") as file:
        np.savez_compressed(file, **known_answers())


if __name__ == "__main__":
    write_missing()
    write_known_answers()
