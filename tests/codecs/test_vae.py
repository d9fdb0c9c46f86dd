"""The vae codec: exact whatever the tiles and the process, of any image size, and never fooled by damaged bytes."""

import hashlib
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

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
from thinfilm_codecs.errors import CorruptStream, UnsupportedPixels
from thinfilm_codecs.lossless import model_files
from thinfilm_codecs.lossless.neural.rans import Decoder, Encoder
from thinfilm_codecs.lossless.sealed import seal, unseal
from thinfilm_codecs.lossy.vae import Vae, symbols, transforms
from thinfilm_codecs.lossy.vae import model as vae_model
from thinfilm_codecs.lossy.vae.model import CURRENT, HYPER_BINS, LARGEST_SYMBOL, QUALITIES, Model, named
from thinfilm_codecs.lossy.vae.scaling import Scaling

CODEC = Vae().at(30)


@pytest.fixture(scope="module")
def model() -> Model:
    """The shipped model with a drawn last layer: what is exact with it is exact with any."""
    arrays = model_files.read("thinfilm_codecs.lossy.vae", bytes.fromhex(CURRENT))
    drawn = np.random.default_rng(9).integers(-900, 901, arrays["up_3_weights"].shape)
    return vae_model.from_arrays(arrays | {"up_3_weights": drawn})


def ct() -> PixelBlock:
    return PixelBlock(pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False)).pixel_array[None], 16)


def latents_of(model: Model, rows: int, columns: int, largest: int = 30) -> np.ndarray:
    found: np.ndarray = np.random.default_rng(2).integers(-largest, largest + 1, (model.latents, rows, columns))
    return found


def test_tiles_give_what_the_whole_image_gives(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    latents = latents_of(model, 12, 17)
    whole = transforms.synthesise(model, latents, 20)
    for tile in (5, 8):
        monkeypatch.setattr(transforms, "TILE", tile)
        assert np.array_equal(transforms.synthesise(model, latents, 20), whole)
    monkeypatch.setattr(transforms, "MARGIN", 1)
    assert not np.array_equal(transforms.synthesise(model, latents, 20), whole)


def test_the_synthesis_is_what_training_trained(model: Model) -> None:
    """The integers stand for a network of floats; here in torch, of the same weights."""
    bits = vae_model.WEIGHT_BITS

    def up(name: str, x: torch.Tensor, stride: int, weight_bits: int = bits, one_bits: int = 10) -> torch.Tensor:
        layer = model.layers[name]
        weights, biases = torch.from_numpy(layer.weights), torch.from_numpy(layer.biases)
        padding = (weights.shape[-1] - stride) // 2
        scaled = biases / 2.0 ** (weight_bits + one_bits)
        return torch.nn.functional.conv_transpose2d(x, weights / 2.0**weight_bits, scaled, stride, padding)

    def residual(stage: int, x: torch.Tensor) -> torch.Tensor:
        inner = x
        for name in (f"first_{stage}", f"second_{stage}"):
            layer = model.layers[name]
            weights, biases = torch.from_numpy(layer.weights) / 2.0**bits, torch.from_numpy(layer.biases)
            inner = torch.nn.functional.conv2d(inner, weights, biases / 2.0 ** (bits + 10), padding=1)
            inner = torch.nn.functional.leaky_relu(inner, 1 / 8) if name.startswith("first") else inner
        return x + inner

    def norms(stage: int, x: torch.Tensor) -> torch.Tensor:
        terms = model.norms[f"norms_{stage}"]
        gamma, beta = torch.from_numpy(terms.gamma) / 2.0**14, torch.from_numpy(terms.beta) / 2.0**34
        return x * torch.nn.functional.conv2d(x.square(), gamma[:, :, None, None], beta).sqrt()

    latents = latents_of(model, 4, 3, largest=1)
    y = torch.from_numpy(transforms.dequantise(model, latents, 20))[None] / 2.0**vae_model.LATENT_BITS
    x = norms(1, residual(1, up("up_1", y, 2, vae_model.FIRST_WEIGHT_BITS, 8)))
    x = norms(2, residual(2, up("up_2", x, 2)))
    expected = up("up_3", x, 4) + up("linear", y, 16, vae_model.LINEAR_WEIGHT_BITS, 8)
    found = transforms.synthesise(model, latents, 20) / 1024
    assert np.abs(found - expected[0, 0].numpy()).max() < 0.1


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 33, 64), (1, 70, 5), (1, 1, 200)])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_images_of_every_size_and_type_decode_within_their_range(shape: tuple[int, int, int], dtype: str) -> None:
    limits = np.iinfo(dtype)
    extremes = np.random.default_rng(1).choice([limits.min, limits.max], shape).astype(dtype)
    smooth = (np.add.outer(np.arange(shape[1]), np.arange(shape[2])) % 100 + np.zeros(shape)).astype(dtype)
    for samples in (extremes, smooth, np.full(shape, limits.max, dtype)):
        block = PixelBlock(samples, 16)
        parameters = CODEC.prepare(block)
        decoded = CODEC.decode(CODEC.encode(block, parameters), block.layout, parameters)
        assert decoded.dtype == samples.dtype
        assert decoded.shape == samples.shape
        assert samples.min() <= decoded.min() <= decoded.max() <= samples.max()


def test_gentler_settings_take_more_bits_and_err_less() -> None:
    block = ct()
    lengths, errors = [], []
    for setting in Vae.ladder[::15]:
        codec = Vae().at(setting)
        assert codec.setting == setting
        parameters = codec.prepare(block)
        stream = codec.encode(block, parameters)
        decoded = CODEC.decode(stream, block.layout, parameters)
        lengths.append(len(stream))
        errors.append(float(np.square(decoded.astype(float) - block.samples).mean()))
    assert lengths == sorted(lengths, reverse=True)
    assert errors == sorted(errors)
    assert lengths[0] > 3 * lengths[-1]


def test_settings_off_the_ladder_are_refused() -> None:
    for setting in (-1.0, 0.5, float(QUALITIES)):
        with pytest.raises(ValueError, match="qualities"):
            Vae().at(setting)
    assert Vae().setting == Vae.ladder[0]
    assert Vae().promised_error is None


_DECODE = """
import hashlib, sys
from pathlib import Path
from thinfilm_codecs import registry
from thinfilm_codecs.blocks import BlockLayout
stream, parameters = (Path(name).read_bytes() for name in sys.argv[1:])
samples = registry.decoder("vae").decode(stream, BlockLayout(1, 128, 128, 1, "int16"), parameters)
print(hashlib.sha256(samples.tobytes()).hexdigest())
"""


def test_another_process_with_other_threads_decodes_the_same_from_bytes_alone(tmp_path: Path) -> None:
    block = ct()
    parameters = CODEC.prepare(block)
    stream = CODEC.encode(block, parameters)
    (tmp_path / "stream").write_bytes(stream)
    (tmp_path / "parameters").write_bytes(parameters)
    expected = hashlib.sha256(CODEC.decode(stream, block.layout, parameters).tobytes()).hexdigest()
    for threads in ("1", "2"):
        environment = os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        command = [sys.executable, "-c", _DECODE, str(tmp_path / "stream"), str(tmp_path / "parameters")]
        found = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
        assert found.stdout.strip() == expected


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_values_come_back_by_the_tables(data: st.DataObject) -> None:
    tables = named(bytes.fromhex(CURRENT)).tables
    pairs = data.draw(
        st.lists(st.tuples(st.integers(0, 63), st.integers(-LARGEST_SYMBOL, LARGEST_SYMBOL)), max_size=40)
    )
    small = data.draw(st.lists(st.tuples(st.integers(0, 63), st.integers(-3, 3)), max_size=40))
    indices, values = np.array([*pairs, *small], np.int64).reshape(-1, 2).T
    encoder = Encoder()
    symbols.put(encoder, tables, indices, values)
    decoder = Decoder.of(encoder.stream())
    assert np.array_equal(symbols.take(decoder, tables, indices), values)
    assert decoder.finished()


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**31))
def test_differences_are_undone(rows: int, columns: int, seed: int) -> None:
    first = np.random.default_rng(seed).integers(-50, 50, (rows, columns))
    assert np.array_equal(symbols.undo_differences(symbols.differences(first)), first)


def test_a_scaling_is_in_units_of_small_differences() -> None:
    noise = np.random.default_rng(0).normal(1000, 20, (4, 64, 64)).astype(np.uint16)
    scaling = Scaling.of(noise)
    assert 15 < scaling.unit < 25
    values = scaling.values(noise)
    back = scaling.samples(np.round(values.astype(np.float64) * 1024), "uint16")
    assert np.abs(back.astype(int) - noise).max() <= 1


def test_a_model_that_could_be_inexact_is_refused() -> None:
    arrays = model_files.read("thinfilm_codecs.lossy.vae", bytes.fromhex(CURRENT))
    large = np.full_like(arrays["first_1_weights"], 2**15 - 1).astype(np.int64) << 20
    with pytest.raises(ValueError, match="first_1"):
        vae_model.from_arrays(arrays | {"first_1_weights": large})
    with pytest.raises(ValueError, match="not of integers"):
        vae_model.from_arrays(arrays | {"linear_weights": arrays["linear_weights"].astype(np.float32)})
    with pytest.raises(ValueError, match="table"):
        vae_model.from_arrays(arrays | {"frequencies": arrays["frequencies"] // 2})
    assert arrays["hyper_frequencies"].shape[1] == 2 * HYPER_BINS + 2


def test_colour_and_wide_samples_are_declined() -> None:
    for layout in (BlockLayout(1, 20, 20, 3, "uint8"), BlockLayout(1, 20, 20, 1, "int32")):
        assert not CODEC.supports(layout)
        with pytest.raises(CorruptStream):
            CODEC.decode(seal(b""), layout, CODEC.prepare(ct()))
        with pytest.raises(UnsupportedPixels):
            CODEC.encode(PixelBlock(np.zeros(layout.shape, layout.dtype), 8), CODEC.prepare(ct()))


def test_damaged_streams_are_refused_even_behind_a_right_checksum() -> None:
    block = PixelBlock(ct().samples[:, :64, :48], 16)
    parameters = CODEC.prepare(block)
    stream = CODEC.encode(block, parameters)
    random = np.random.default_rng(7)
    for damaged in single_mutations(stream, random, 200):
        with pytest.raises(CorruptStream):
            CODEC.decode(damaged, block.layout, parameters)
    refused, payloads = 0, single_mutations(unseal(stream), random, 60)
    for payload in payloads:
        try:
            assert CODEC.decode(seal(payload), block.layout, parameters).shape == block.samples.shape
        except CorruptStream:
            refused += 1
    assert refused > 0.8 * len(payloads)


def test_damaged_parameters_are_refused_or_decode_to_samples() -> None:
    block = PixelBlock(ct().samples[:, :32, :32], 16)
    parameters = CODEC.prepare(block)
    stream = CODEC.encode(block, parameters)
    for damaged in single_mutations(parameters, np.random.default_rng(8), 100):
        try:
            assert CODEC.decode(stream, block.layout, damaged).shape == block.samples.shape
        except CorruptStream:
            continue
    for damaged in (parameters[:-1], b"\x02" + parameters[1:], parameters[:-1] + b"\x30"):
        with pytest.raises(CorruptStream):
            CODEC.decode(stream, block.layout, damaged)


def test_memory_does_not_follow_the_size_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms, "TILE", 4)
    peaks = []
    for rows in (256, 512):
        block = PixelBlock(np.add.outer(np.arange(rows), np.arange(128)).astype(np.uint16)[None] % 700, 12)
        parameters = CODEC.prepare(block)
        stream = CODEC.encode(block, parameters)
        tracemalloc.start()
        CODEC.decode(stream, block.layout, parameters)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 64 * 256 * 128


@pytest.mark.parametrize("setting", codec_goldens.LOSSY_SETTINGS["vae"])
@pytest.mark.parametrize("name", sorted(codec_goldens.blocks()))
def test_golden_streams_decode_to_the_same_samples_for_ever(name: str, setting: int) -> None:
    block = codec_goldens.blocks()[name]
    assert codec_goldens.lossy_path("vae", name, setting).exists() == CODEC.supports(block.layout)
    if CODEC.supports(block.layout):
        codec_goldens.decoded_as_kept("vae", name, setting)


def test_the_registry_knows_the_codec() -> None:
    assert registry.lossy("vae").setting_name == "quality"
    assert CODEC.model_hashes(CODEC.prepare(ct())) == (CURRENT,)
