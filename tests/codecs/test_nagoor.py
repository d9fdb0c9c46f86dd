"""The nagoor codec: exact on every library and batch, causal along its wavefront, and never fooled by damaged bytes."""

import hashlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from support import codec_goldens
from support.containers import open_bytes, pack_files
from support.mutations import single_mutations
from thinfilm_codecs import registry
from thinfilm_codecs.blocks import BlockLayout, PixelBlock
from thinfilm_codecs.errors import CorruptStream, UnsupportedPixels
from thinfilm_codecs.lossless.nagoor import Nagoor, residuals, wavefront
from thinfilm_codecs.lossless.nagoor.model import CURRENT, HIDDEN, Model, Network, from_arrays, named
from thinfilm_codecs.lossless.nagoor.network import running
from thinfilm_codecs.lossless.nagoor.sampling import Planes, sample
from thinfilm_codecs.lossless.sealed import seal, unseal
from thinfilm_codecs.training import nagoor as training

CODEC = Nagoor()
GOLDEN = Path(__file__).parent / "golden" / "nagoor"


def drawn_model(predictor: str, seed: int = 0) -> Model:
    """A model of drawn weights: what is exact with it is exact with any."""
    random, hood = np.random.default_rng(seed), training.PREDICTORS[predictor]
    widths = (hood.inputs, *HIDDEN, 1)
    weights = [random.integers(-9, 10, (b, a)).astype(np.int8) for a, b in itertools.pairwise(widths)]
    biases = [random.integers(-4000, 4000, b).astype(np.int32) for b in widths[1:]]
    network = Network(tuple(weights), tuple(biases), (8, 9, 8, 8))
    return from_arrays(training.model_arrays(network, hood))


MODELS = {predictor: drawn_model(predictor) for predictor in training.PREDICTORS}


def volume(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """A smooth volume with noise and a background of one value."""
    random = np.random.default_rng(seed)
    z, y, x = np.indices(shape)
    samples = 300 + 80 * np.sin(x / 7) + 60 * np.cos(y / 9 + z / 5) + random.normal(0, 3, shape)
    samples[x > shape[2] * 0.8] = 0
    found: np.ndarray = samples.clip(0, 4095).astype(np.uint16)
    return found


@st.composite
def groups(draw: st.DrawFn) -> np.ndarray:
    shape = tuple(draw(st.integers(1, top)) for top in (4, 9, 9))
    top = draw(st.sampled_from((0, 1, 255, 65535)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = random.integers(0, top, shape, endpoint=True)
    if draw(st.booleans()):
        values = np.sort(values, axis=draw(st.integers(0, 2)))
    if draw(st.booleans()):
        values[:, :, : shape[2] // 2] = top // 2
    return values.astype(np.uint16)


@settings(max_examples=25, deadline=None)
@given(values=groups(), predictor=st.sampled_from(sorted(MODELS)))
def test_groups_of_any_size_and_range_come_back(values: np.ndarray, predictor: str) -> None:
    model, maximum = MODELS[predictor], int(values.max())
    run = running(model, "cpu")
    stream, _ = wavefront.encode(values, maximum, model, run)
    assert np.array_equal(wavefront.decode(stream, values.shape, maximum, model, run), values)


@pytest.mark.parametrize("predictor", sorted(MODELS))
def test_a_step_of_the_wavefront_needs_only_steps_before_it(predictor: str) -> None:
    hood, shape = training.PREDICTORS[predictor], (8, 20, 24)
    steps = np.full(shape, -1)
    for step, pixels in enumerate(wavefront.order(shape, hood)):
        steps[tuple(pixels.T)] = step
    assert steps.min() == 0
    every = np.argwhere(steps >= 0)
    for back, offsets in enumerate(hood.offsets):
        for row, column in offsets:
            there = every - (back, -row, -column)
            inside = ((there >= 0) & (there < shape)).all(1)
            assert (steps[tuple(there[inside].T)] < steps[tuple(every[inside].T)]).all()


def test_the_neighbourhoods_are_those_of_the_paper() -> None:
    assert training.PREDICTORS["cube"].inputs == (11**3 - 1) // 2
    assert training.PREDICTORS["pyramid"].inputs == (13**2 - 1) // 2 + 9**2 + 5**2 + 1


@pytest.mark.parametrize("predictor", sorted(MODELS))
def test_the_network_computes_what_whole_numbers_say_on_numpy_and_on_torch(predictor: str) -> None:
    hood = training.PREDICTORS[predictor]
    random = np.random.default_rng(3)
    extreme = [np.full((b, a), 120, np.int8) for a, b in zip((hood.inputs, *HIDDEN), (*HIDDEN, 1), strict=True)]
    biases = [np.full(len(weights), 99, np.int32) for weights in extreme]
    model = from_arrays(training.model_arrays(Network(tuple(extreme), tuple(biases), (8, 9, 8, 8)), hood))
    inputs = random.choice([-127, 127, 127, 5], (7, hood.inputs))
    for network in (MODELS[predictor], model):
        x = inputs.astype(np.int64)
        layers = zip(network.network.weights, network.network.biases, (*network.network.shifts, 0), strict=True)
        for layer, (weights, bias, shift) in enumerate(layers):
            sums = x @ weights.T.astype(np.int64) + bias
            quarters = np.maximum(4 * sums, sums)
            x = np.clip((quarters + (2 << shift)) >> (shift + 2), -127, 127) if layer < len(HIDDEN) else sums
        for device in ("cpu", "torch-cpu"):
            run = running(network, device)
            assert np.array_equal(run(inputs.astype(np.float32)), x[:, 0])


def test_a_network_whose_sums_float32_cannot_hold_is_refused() -> None:
    hood = training.PREDICTORS["pyramid"]
    network = MODELS["pyramid"].network
    biases = (np.full(HIDDEN[0], 2**24, np.int32), *network.biases[1:])
    with pytest.raises(ValueError, match="2\\^24"):
        training.model_arrays(Network(network.weights, biases, network.shifts), hood)


def test_streams_do_not_depend_on_the_batch_or_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    values, model = volume((2, 9, 14)), named(bytes.fromhex(CURRENT))
    expected, _ = wavefront.encode(values, 4095, model, running(model, "cpu"))
    assert wavefront.encode(values, 4095, model, running(model, "torch-cpu"))[0] == expected
    monkeypatch.setattr(wavefront, "BATCH", 2)
    assert wavefront.encode(values, 4095, model, running(model, "cpu"))[0] == expected


_DIGEST = """
import hashlib, numpy as np
from thinfilm_codecs.blocks import PixelBlock
from thinfilm_codecs.lossless.nagoor import Nagoor
index = np.arange(2 * 16 * 30).reshape(2, 16, 30)
block = PixelBlock((index * index // 7 % 1009).astype(np.uint16), 10)
print(hashlib.sha256(Nagoor().encode(block, Nagoor().prepare(block))).hexdigest())
"""


def test_streams_do_not_depend_on_the_number_of_threads() -> None:
    digests = set()
    for threads in ("1", "2"):
        environment = os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        found = subprocess.run([sys.executable, "-c", _DIGEST], env=environment, capture_output=True, check=True)
        digests.add(found.stdout)
    assert len(digests) == 1


@settings(max_examples=200, deadline=None)
@given(
    expected=st.integers(0, 16 * 65535 + 2 * 65535),
    residual=st.one_of(st.integers(-65535, 65535), st.integers(-300, 300)),
)
def test_a_residual_is_its_bin_and_its_low_bits(expected: int, residual: int) -> None:
    contexts, shifts = residuals.contexts_of(np.array([expected]))
    assert 0 <= contexts[0] < residuals.CONTEXTS
    bins, low, bits = residuals.bins_of(np.array([residual]), shifts)
    assert 0 <= bins[0] < residuals.BINS
    assert 0 <= low[0] < 1 << bits[0]
    assert residuals.residuals_of(bins, low, shifts)[0] == residual


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_samples_of_every_type_come_back(dtype: str) -> None:
    limits = np.iinfo(dtype)
    extremes = np.random.default_rng(1).choice([limits.min, limits.max], (2, 9, 11)).astype(dtype)
    smooth = (volume((2, 20, 21)).astype(np.int64) // 8 + max(limits.min, -50)).clip(limits.min, limits.max)
    for samples in (extremes, smooth.astype(dtype), np.full((1, 1, 1), limits.max, dtype)):
        block = PixelBlock(samples, 16)
        parameters = CODEC.prepare(block)
        decoded = CODEC.decode(CODEC.encode(block, parameters), block.layout, parameters)
        assert decoded.dtype == samples.dtype
        assert np.array_equal(decoded, samples)


def test_the_shipped_network_beats_jpeg_ls_on_a_ct() -> None:
    samples = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False)).pixel_array
    block = PixelBlock(samples[None], 16)
    ours = len(CODEC.encode(block, CODEC.prepare(block)))
    jpegls = registry.get("jpegls")
    assert ours < len(jpegls.encode(block, jpegls.prepare(block)))


def test_a_file_in_a_container_comes_back_and_the_container_names_the_model(tmp_path: Path) -> None:
    path = Path(str(get_testdata_file("MR_small.dcm", download=False)))
    pack_files([path], tmp_path / "x.tfa", ["nagoor"])
    container = open_bytes((tmp_path / "x.tfa").read_bytes())
    assert b"".join(container.stream(0)) == path.read_bytes()
    assert container.model_hashes() == (CURRENT,)


def test_flat_places_cost_next_to_nothing() -> None:
    block = PixelBlock(np.full((3, 64, 64), 700, np.int16), 12)
    assert len(CODEC.encode(block, CODEC.prepare(block))) < 120


def test_a_missing_neighbour_counts_as_the_reference() -> None:
    hood = training.PREDICTORS["pyramid"]
    planes = Planes.of(np.full((1, 3, 3), 50, np.uint16), hood.margin)
    found = sample(planes.gather(np.array([[0, 0, 0], [0, 1, 1]]), hood), hood)
    assert found.references.tolist() == [0, 50]
    assert not found.inputs.any()


@pytest.mark.parametrize(
    "layout",
    [BlockLayout(1, 20, 20, 3, "uint8"), BlockLayout(1, 20, 20, 1, "int32"), BlockLayout(1, 1, 4000, 1, "uint8")],
)
def test_colour_wide_samples_and_thin_strips_are_declined(layout: BlockLayout) -> None:
    assert not CODEC.supports(layout)
    with pytest.raises(CorruptStream):
        CODEC.decode(seal(b""), layout, CODEC.prepare(PixelBlock(volume((1, 4, 4)), 12)))


def test_a_group_of_another_stack_is_refused() -> None:
    parameters = CODEC.prepare(PixelBlock(volume((1, 8, 8)), 12))
    with pytest.raises(UnsupportedPixels):
        CODEC.encode(PixelBlock(np.full((1, 8, 8), 60000, np.uint16), 16), parameters)


def test_parameters_name_the_model_by_its_content() -> None:
    parameters = CODEC.prepare(PixelBlock(volume((1, 8, 8)), 12))
    assert CODEC.model_hashes(parameters) == (CURRENT,)
    assert named(bytes.fromhex(CURRENT)).identity.hex() == CURRENT


def test_damaged_streams_are_refused_even_behind_a_right_checksum() -> None:
    block = PixelBlock(volume((2, 14, 16)), 12)
    parameters = CODEC.prepare(block)
    stream = CODEC.encode(block, parameters)
    random = np.random.default_rng(7)
    for damaged in single_mutations(stream, random, 300):
        with pytest.raises(CorruptStream):
            CODEC.decode(damaged, block.layout, parameters)
    refused, payloads = 0, single_mutations(unseal(stream), random, 80)
    for payload in payloads:
        try:
            decoded = CODEC.decode(seal(payload), block.layout, parameters)
        except CorruptStream:
            refused += 1
        else:
            assert decoded.shape == block.samples.shape
    assert refused > 0.9 * len(payloads)


def test_damaged_parameters_are_refused_or_decode_to_samples() -> None:
    block = PixelBlock(volume((1, 6, 7)), 12)
    parameters = CODEC.prepare(block)
    stream = CODEC.encode(block, parameters)
    for damaged in single_mutations(parameters, np.random.default_rng(8), 100):
        try:
            assert CODEC.decode(stream, block.layout, damaged).shape == block.samples.shape
        except CorruptStream:
            continue


@pytest.mark.parametrize("name", sorted(codec_goldens.blocks()))
def test_golden_streams_decode_for_ever(name: str) -> None:
    block = codec_goldens.blocks()[name]
    target = GOLDEN / f"{name}.bin"
    assert target.exists() == CODEC.supports(block.layout)
    if target.exists():
        parameters = (GOLDEN / f"{name}.parameters").read_bytes()
        assert np.array_equal(CODEC.decode(target.read_bytes(), block.layout, parameters), block.samples)


def _digest(network: training.TrainedNetwork) -> str:
    digest = hashlib.sha256()
    for weights in network.export().weights:
        digest.update(weights.tobytes())
    return digest.hexdigest()


def test_training_that_was_stopped_ends_where_it_would_have_without(tmp_path: Path) -> None:
    hood = training.PREDICTORS["pyramid"]
    draw = training.Draw([volume((5, 40, 44)), volume((1, 50, 30), seed=1)], hood, 0, 32)

    def run(checkpoint: str, seconds: float) -> str:
        torch.manual_seed(0)
        return _digest(training.train(draw, hood.inputs, tmp_path / checkpoint, 3, seconds, 1e-3, 0.1, "cpu"))

    digests = [run("parts", 0) for _ in range(3)]
    assert len(set(digests)) == 3
    assert run("whole", 1e9) == digests[-1]
