"""The codecs of autoencoders: exact on every machine, without seams, of any size, never fooled by damaged bytes."""

import argparse
import hashlib
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from support import codec_goldens
from support.mutations import single_mutations
from thinfilm_codecs import registry
from thinfilm_codecs.blocks import BlockLayout, PixelBlock
from thinfilm_codecs.errors import CorruptStream, MissingModel, UnsupportedPixels
from thinfilm_codecs.lossless.sealed import seal, unseal
from thinfilm_codecs.lossy.autoencoders.codec import AutoencoderCodec, Range
from thinfilm_codecs.lossy.autoencoders.layers import HALO, ONE_BITS, TILE, Shape, layers_of, synthesised_in_tiles
from thinfilm_codecs.lossy.binary_autoencoder import BinaryAutoencoder
from thinfilm_codecs.lossy.binary_autoencoder import network as binary_network
from thinfilm_codecs.lossy.sparse_autoencoder import SparseAutoencoder
from thinfilm_codecs.lossy.sparse_autoencoder import network as sparse_network
from thinfilm_codecs.training import autoencoders
from thinfilm_codecs.training import binary_autoencoder as binary_training
from thinfilm_codecs.training import sparse_autoencoder as sparse_training
from thinfilm_codecs.training.resuming import OtherRun
from thinfilm_codecs.training.stacks import NoTrainingData, Series

CODECS = (SparseAutoencoder, BinaryAutoencoder)
NETWORKS = (sparse_network, binary_network)
TRAININGS = (sparse_training, binary_training)

each_codec = pytest.mark.parametrize("kind", CODECS, ids=[kind.codec_id for kind in CODECS])
each_network = pytest.mark.parametrize("module", NETWORKS, ids=[kind.codec_id for kind in CODECS])


def drawn_arrays(module: Any, seed: int = 0) -> dict[str, np.ndarray]:
    """A model of drawn weights: what is exact with it is exact with any."""
    random, arrays = np.random.default_rng(seed), {}
    for shape in module.ENCODER + module.DECODER:
        spread = 2**12 / np.sqrt(shape.inputs * shape.side**2 / shape.stride**2)
        arrays[f"{shape.name}_weights"] = random.normal(0, spread, shape.weights).astype(np.int16)
        arrays[f"{shape.name}_biases"] = random.integers(-(2**19), 2**19, shape.outputs).astype(np.int32)
    return arrays


def mr() -> np.ndarray:
    found: np.ndarray = pydicom.dcmread(get_testdata_file("MR_small.dcm", download=False)).pixel_array
    return found


def round_trip(codec: AutoencoderCodec, samples: np.ndarray) -> np.ndarray:
    block = PixelBlock(samples, 16)
    parameters = codec.prepare(block)
    found: np.ndarray = codec.decode(codec.encode(block, parameters), block.layout, parameters)
    assert found.shape == samples.shape
    assert found.dtype == samples.dtype
    return found


@each_network
def test_a_network_gives_whole_numbers_and_the_same_with_other_sums(module: Any) -> None:
    network = module.from_arrays(drawn_arrays(module))
    code = np.random.default_rng(1).integers(-3, 4, (network.decoder[0].weights.shape[1], 5, 6)) * 2.0**ONE_BITS
    found = network.synthesise(code)
    assert np.array_equal(found, np.rint(found))
    mirrored = module.from_arrays(
        {name: np.ascontiguousarray(array[..., ::-1]) if array.ndim == 4 else array
         for name, array in drawn_arrays(module).items()}
    )  # fmt: skip
    assert np.array_equal(mirrored.synthesise(code[:, :, ::-1])[:, :, ::-1], found)


@each_network
def test_tiles_leave_no_seams(module: Any) -> None:
    network = module.from_arrays(drawn_arrays(module))
    code = np.random.default_rng(2).integers(-3, 4, (network.decoder[0].weights.shape[1], 9, TILE + HALO + 2))
    activations = code * 2.0**ONE_BITS
    assert np.array_equal(synthesised_in_tiles(activations, network.synthesise), network.synthesise(activations)[0])


@pytest.mark.parametrize(("module", "training"), list(zip(NETWORKS, TRAININGS, strict=True)))
def test_the_integers_of_a_model_compute_what_the_trained_floats_say(module: Any, training: Any) -> None:
    torch.manual_seed(3)
    trained = training.TrainedNetwork()
    network = module.from_arrays(autoencoders.exported(module.ENCODER + module.DECODER, trained.layers))
    image = np.random.default_rng(4).random((1, 48, 40))
    with torch.no_grad():
        code = trained._run(module.ENCODER, torch.from_numpy(image[None]).float())
        said = trained._run(module.DECODER, code)[0].numpy()
    codes = network.analyse(np.floor(image * 2**ONE_BITS))
    found = network.synthesise(np.rint(code[0].numpy().astype(np.float64) * 2**ONE_BITS))
    assert np.abs(codes / 2**ONE_BITS - code[0].numpy()).max() < 0.01 * np.abs(code.numpy()).max() + 0.01
    assert np.abs(found / 2**ONE_BITS - said).max() < 0.02


@each_network
def test_a_model_whose_sums_could_be_inexact_or_that_lacks_layers_is_refused(module: Any) -> None:
    arrays = drawn_arrays(module)
    del arrays["decoder_1_weights"]
    with pytest.raises(ValueError, match="decoder_1"):
        module.from_arrays(arrays)
    wide = Shape("wide", 1 << 17, 1, 1)
    weights = {"wide_weights": np.full(wide.weights, 32767, np.int16), "wide_biases": np.zeros(1, np.int32)}
    with pytest.raises(ValueError, match="wide"):
        layers_of((wide,), weights)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)),
    spread=st.sampled_from((0, 2, 1023)),
    seed=st.integers(0, 2**32 - 1),
)
def test_codes_come_back_from_their_streams(shape: tuple[int, int, int, int], spread: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    latents = random.integers(-spread, spread + 1, shape).astype(np.int32)
    sparse = SparseAutoencoder()
    assert np.array_equal(sparse._take(sparse._put(latents), shape), latents)
    bits = (random.random(shape) < random.random()).astype(np.int32)
    binary = BinaryAutoencoder()
    assert np.array_equal(binary._take(binary._put(bits), shape), bits)


def test_bits_that_follow_their_neighbours_take_less_than_they_are() -> None:
    rows, columns = np.indices((32, 32))
    bits = np.stack([(rows + columns) // 9 % 2, rows // 7 % 2]).astype(np.int32)[None]
    assert len(BinaryAutoencoder()._put(bits)) < bits.size / 8 / 2


@settings(max_examples=60, deadline=None)
@given(
    minimum=st.integers(-32768, 0),
    maximum=st.integers(0, 32767),
    scale=st.integers(1, 65535),
    numbers=st.lists(st.integers(-(2**21), 2**21), min_size=1, max_size=20),
)
def test_samples_stay_within_the_range_of_the_stack(minimum: int, maximum: int, scale: int, numbers: list[int]) -> None:
    given = Range(bytes(16), minimum, maximum, scale)
    assert Range.of(given.packed()) == given
    found = given.samples(np.array(numbers, np.float64), "int16")
    assert found.min() >= minimum
    assert found.max() <= minimum + maximum


@each_codec
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 1, 1), "uint8"),
        ((2, 9, 17), "int16"),
        ((3, 8, 8), "int8"),
        ((1, 13, 11, 3), "uint8"),
        ((1, 40, 1), "uint16"),
    ],
)
def test_images_of_any_size_and_type_come_back(
    kind: type[AutoencoderCodec], shape: tuple[int, ...], dtype: str
) -> None:
    limits = np.iinfo(dtype)
    samples = np.linspace(limits.min, limits.max, np.prod(shape)).astype(dtype).reshape(shape)
    round_trip(kind(), samples)
    constant = np.full(shape, limits.max, dtype)
    assert np.array_equal(round_trip(kind(), constant), constant)


@each_codec
def test_an_image_can_be_told_from_a_tenth_of_its_bytes(kind: type[AutoencoderCodec]) -> None:
    samples = mr()[None]
    block = PixelBlock(samples, 16)
    parameters = kind().prepare(block)
    stream = kind().encode(block, parameters)
    assert len(stream) * 10 < block.layout.nbytes
    found = kind().decode(stream, block.layout, parameters)
    assert np.corrcoef(found.ravel(), samples.ravel())[0, 1] > 0.7


@each_codec
def test_harder_settings_take_fewer_bytes(kind: type[AutoencoderCodec]) -> None:
    block = PixelBlock(mr()[None], 16)
    sizes = [len(kind().at(setting).encode(block, kind().prepare(block))) for setting in kind.ladder]
    assert sizes == sorted(sizes, reverse=True)
    with pytest.raises(ValueError, match="planes"):
        kind().at(99)


@each_codec
def test_parameters_name_the_model_and_another_is_refused(kind: type[AutoencoderCodec]) -> None:
    block = PixelBlock(mr()[None], 16)
    parameters = kind().prepare(block)
    assert kind().model_hashes(parameters) == (kind.current,)
    stream = kind().encode(block, parameters)
    with pytest.raises(MissingModel, match=r"needs its model 0{32}, which is not installed; install"):
        kind().decode(stream, block.layout, parameters[:1] + bytes(16) + parameters[17:])


@each_codec
def test_thin_strips_wide_samples_and_other_stacks_are_declined(kind: type[AutoencoderCodec]) -> None:
    assert not kind().supports(BlockLayout(1, 8, 8, 1, "int32"))
    assert not kind().supports(BlockLayout(1, 1, 5000, 1, "uint8"))
    with pytest.raises(UnsupportedPixels):
        kind().prepare(PixelBlock(np.zeros((1, 8, 8), np.int32), 32))
    parameters = kind().prepare(PixelBlock(np.zeros((1, 8, 8), np.int16), 16))
    with pytest.raises(UnsupportedPixels):
        kind().encode(PixelBlock(np.ones((1, 8, 8), np.int16), 16), parameters)
    with pytest.raises(CorruptStream):
        kind().decode(seal(b""), BlockLayout(1, 8, 8, 1, "int32"), parameters)


_FRESH = """
import hashlib, sys
from thinfilm_codecs import registry
from thinfilm_codecs.blocks import BlockLayout
parameters, stream = (bytes.fromhex(line) for line in sys.stdin.read().split())
samples = registry.decoder(sys.argv[1]).decode(stream, BlockLayout(1, 64, 64, 1, "int16"), parameters)
print(hashlib.sha256(samples.tobytes()).hexdigest())
"""


@each_codec
@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_stream_decodes_to_the_same_samples_in_a_fresh_process(kind: type[AutoencoderCodec], threads: str) -> None:
    block = PixelBlock(mr()[None].astype(np.int16), 16)
    parameters = kind().prepare(block)
    stream = kind().encode(block, parameters)
    expected = hashlib.sha256(kind().decode(stream, block.layout, parameters).tobytes()).hexdigest()
    found = subprocess.run(
        [sys.executable, "-c", _FRESH, kind.codec_id],
        input=f"{parameters.hex()} {stream.hex()}",
        env={"OPENBLAS_NUM_THREADS": threads},
        text=True,
        capture_output=True,
        check=True,
    )
    assert found.stdout.strip() == expected


@each_codec
def test_damaged_bytes_are_refused_or_some_samples_within_bounds_of_memory(kind: type[AutoencoderCodec]) -> None:
    block = PixelBlock(mr()[None, :24, :20], 16)
    parameters = kind().prepare(block)
    stream = kind().encode(block, parameters)
    random, refused = np.random.default_rng(5), 0
    for damaged in single_mutations(stream, random, 60):
        with pytest.raises(CorruptStream):
            kind().decode(damaged, block.layout, parameters)
    attempts = [(seal(payload), parameters) for payload in single_mutations(unseal(stream), random, 40)]
    attempts += [(stream, damaged) for damaged in single_mutations(parameters, random, 20)]
    tracemalloc.start()
    try:
        for damaged, around in attempts:
            try:
                assert kind().decode(damaged, block.layout, around).shape == block.samples.shape
            except CorruptStream:
                refused += 1
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert refused > 40


@pytest.mark.parametrize(
    ("codec_id", "name"), [(kind.codec_id, name) for kind in CODECS for name in codec_goldens.supported(kind.codec_id)]
)
def test_golden_streams_decode_for_ever(codec_id: str, name: str) -> None:
    (setting,) = codec_goldens.LOSSY_SETTINGS[codec_id]
    codec_goldens.decoded_as_kept(codec_id, name, setting)


def test_the_codecs_are_registered_as_lossy() -> None:
    for kind in CODECS:
        assert isinstance(registry.lossy(kind.codec_id), kind)
        assert kind.codec_id not in registry.names()


@pytest.mark.parametrize("training", TRAININGS, ids=[kind.codec_id for kind in CODECS])
def test_training_that_was_stopped_ends_where_it_would_have_without(
    training: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = [Series("some", np.tile(mr()[None], (2, 1, 1)), "", "MR")]
    monkeypatch.setattr(autoencoders, "read_series", lambda given: series)

    def run(name: str, seconds: float) -> list[Path]:
        arguments = f"_ --models {tmp_path / name} --checkpoint {tmp_path / name}.ckpt --steps 2 --batch 1 --side 16"
        monkeypatch.setattr(sys, "argv", ["train", *arguments.split(), "--seconds", str(seconds)])
        training.main()
        return sorted((tmp_path / name).iterdir())

    first = run("parts", 0)
    parts = run("parts", 0)
    assert len(first) == 1
    assert len(parts) == 2
    assert run("whole", 1e9)[0].name in {path.name for path in parts} - {first[0].name}


def test_an_adversary_can_be_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoders, "read_series", lambda given: [Series("some", mr()[None], "", "MR")])
    arguments = f"_ --models {tmp_path} --checkpoint {tmp_path / 'c'} --steps 2 --batch 1 --side 16 --adversarial 0.1"
    monkeypatch.setattr(sys, "argv", ["train", *arguments.split()])
    binary_training.main()
    assert len(list(tmp_path.glob("*.npz"))) == 1


def test_a_checkpoint_of_other_arguments_and_images_that_are_too_small_are_refused(tmp_path: Path) -> None:
    given = argparse.Namespace(
        checkpoint=tmp_path / "c", steps=1, seconds=1e9, rate=1e-3, seed=0, device="cpu", models=tmp_path, data=[]
    )
    draw = autoencoders.Crops([Series("some", mr()[None], "", "MR")], 0, 1, 16)
    network = torch.nn.Conv2d(1, 1, 1)

    def loss(crops: torch.Tensor, random: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        del random
        return network(crops).square().mean(), {}

    autoencoders.train(network, loss, draw, given)
    given.rate = 2e-3
    with pytest.raises(OtherRun, match="other arguments"):
        autoencoders.train(network, loss, draw, given)
    with pytest.raises(NoTrainingData, match="200 x 200"):
        autoencoders.Crops([Series("some", mr()[None], "", "MR")], 0, 1, 200)
