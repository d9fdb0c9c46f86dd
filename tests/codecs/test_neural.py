"""The neural codec: exact on every kernel, equal to its specification, and never fooled by damaged bytes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import codec_goldens
from support.mutations import single_mutations
from thinfilm_codecs.blocks import BlockLayout, PixelBlock
from thinfilm_codecs.errors import CorruptStream, UnsupportedPixels
from thinfilm_codecs.lossless.neural import Neural, Preset, compiled, fitting, parameters, reference, shape
from thinfilm_codecs.lossless.neural.model import Linear, Model, Network, shipped
from thinfilm_codecs.lossless.neural.parameters import Parameters, pack, unpack
from thinfilm_codecs.lossless.neural.planes import Geometry, padded, unpadded
from thinfilm_codecs.lossless.neural.values import ValueMap
from thinfilm_codecs.lossless.sealed import seal, unseal

FAST = Neural(Preset.FAST)
GOLDEN = Path(__file__).parent / "golden" / "neural"


def volume(size: tuple[int, int, int], noise: float = 3.0, seed: int = 0) -> np.ndarray:
    """A smooth volume with noise, a background of one value and an edge."""
    random = np.random.default_rng(seed)
    z, y, x = np.indices(size)
    samples = 300 + 80 * np.sin(x / 7) + 60 * np.cos(y / 9 + z / 5) + random.normal(0, noise, size)
    samples[(x - size[2] / 2) ** 2 + (y - size[1] / 2) ** 2 > (size[2] / 2.2) ** 2] = 0
    return samples.clip(0, 4095).astype(np.uint16)


@st.composite
def groups(draw: st.DrawFn) -> tuple[np.ndarray, Geometry]:
    frames, rows, columns = (draw(st.integers(1, top)) for top in (4, 14, 14))
    lags = draw(st.sampled_from(((0, 0), (1, 2), (2, 1), (3, 0), (1, 0), (0, 2))))
    top = draw(st.sampled_from((0, 1, 7, 255, 4095, 65535)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = random.integers(0, top, (frames, rows, columns), endpoint=True)
    if draw(st.booleans()):
        values = np.sort(values, axis=draw(st.integers(0, 2)))
    if draw(st.booleans()):
        values[:, :, : columns // 2] = top // 2
    return values.astype(np.uint16), Geometry(frames, rows, columns, *lags, top)


def test_this_machine_has_a_compiled_kernel() -> None:
    assert "portable" in compiled.instruction_sets()


def random_network(width: int) -> Network:
    """A network of no sense, whose sums stay in bounds."""
    random = np.random.default_rng(width)
    shapes = ((width, shape.INPUTS), (shape.HIDDEN_2, width), (shape.OUTPUTS, shape.HIDDEN_2))
    first, second, third = (random.integers(-30, 31, each).astype(np.int8) for each in shapes)
    one, two, three = (random.integers(-500, 501, each[0]).astype(np.int32) for each in shapes)
    return Network((first, second, third), (one, two, three))


@settings(max_examples=60, deadline=None)
@given(group=groups(), network=st.sampled_from([shipped().network, *map(random_network, shape.WIDTHS)]))
def test_every_kernel_codes_exactly_as_the_specification_does(
    group: tuple[np.ndarray, Geometry], network: Network
) -> None:
    values, geometry = group
    model = shipped()
    stream = reference.encode(values, geometry, model.linear, network, model)
    decoded = reference.decode(stream, geometry, model.linear, network, model)
    assert decoded is not None
    assert np.array_equal(unpadded(decoded, geometry), values)
    for kernel in compiled.instruction_sets():
        planes = compiled.Group(geometry, padded(values, geometry), geometry.empty(0))
        assert compiled.encode(planes, model.linear, network, model, kernel) == stream
        found = compiled.decode(stream, geometry, model.linear, network, model, kernel)
        assert found is not None
        assert np.array_equal(found, decoded)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32"])
@pytest.mark.parametrize("kind", ["constant", "ramp", "noise", "sparse", "extremes", "volume"])
def test_samples_of_every_type_come_back(dtype: str, kind: str) -> None:
    limits, size = np.iinfo(dtype), (3, 33, 40)
    low, high = max(limits.min, -1000), min(limits.max, 3000)
    random = np.random.default_rng(1)
    samples = {
        "constant": np.full(size, low),
        "ramp": np.arange(np.prod(size)).reshape(size) % (high - low) + low,
        "noise": random.integers(low, high, size),
        "sparse": random.integers(0, 12, size) * 9 + low // 2,
        "extremes": random.choice([low, high], size),
        "volume": volume(size).astype(np.int64) // 8,
    }[kind]
    block = PixelBlock(samples.clip(limits.min, limits.max).astype(dtype), 16)
    fitted = FAST.prepare(block)
    decoded = FAST.decode(FAST.encode(block, fitted), block.layout, fitted)
    assert decoded.dtype == block.samples.dtype
    assert np.array_equal(decoded, block.samples)


LAYOUTS = {
    "a single pixel": (1, 1, 1),
    "a row": (1, 1, 300),
    "a column": (1, 200, 1),
    "a long row": (1, 1, 9000),
    "a long column": (2, 9000, 1),
    "narrow frames": (40, 3, 200),
    "many small frames": (600, 5, 6),
    "one large frame": (1, 420, 400),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("bits", [1, 8, 12, 16])
def test_every_layout_is_kept_exactly_or_declined(name: str, bits: int) -> None:
    random = np.random.default_rng(bits)
    size = LAYOUTS[name]
    ramp = np.linspace(0, 2**bits - 1, int(np.prod(size))).reshape(size)
    samples = (ramp + random.normal(0, 2**bits / 50, size)).clip(0, 2**bits - 1).astype(np.uint16)
    samples |= np.uint16(1 << 15) * (random.random(size) < 0.001).astype(np.uint16)  # bits above the stored ones
    block = PixelBlock(samples, bits)
    if not FAST.supports(block.layout):
        assert name in ("a long row", "a long column")
        with pytest.raises(CorruptStream):
            FAST.decode(seal(bytes(32)), block.layout, b"")
        return
    fitted, step = FAST.prepare(block), FAST.frames_per_group(block.layout)
    for first in range(0, size[0], step):
        group = block.frames(first, step)
        assert np.array_equal(FAST.decode(FAST.encode(group, fitted), group.layout, fitted), group.samples)


def test_a_constant_stack_is_fitted_by_every_preset() -> None:
    block = PixelBlock(np.full((3, 20, 30), 17, np.int16), 16)
    for preset in Preset:
        codec = Neural(preset)
        fitted = codec.prepare(block)
        stream = codec.encode(block, fitted)
        assert len(fitted) + len(stream) < 200
        assert np.array_equal(codec.decode(stream, block.layout, fitted), block.samples)


@pytest.mark.parametrize(
    "size", [(140, 512, 512), (60, 1024, 1024), (1, 5000, 5000), (20_000, 64, 64), (9, 3000, 2500)]
)
def test_a_group_is_read_quickly_and_a_frame_with_its_references(size: tuple[int, int, int]) -> None:
    layout = BlockLayout(*size, 1, "uint16")
    step = FAST.frames_per_group(layout)
    pixels = step * size[1] * size[2]
    assert step == 1 or pixels <= 1 << 23
    assert step >= min(size[0], 4) or 5 * size[1] * size[2] > 1 << 23
    assert size[1] > 512 or pixels <= 5 << 19


def test_colour_comes_back() -> None:
    samples = np.stack([volume((2, 30, 31)) // 2, volume((2, 30, 31), seed=1) // 3, volume((2, 30, 31))], 3)
    block = PixelBlock(samples.astype(np.uint16), 16)
    fitted = FAST.prepare(block)
    assert np.array_equal(FAST.decode(FAST.encode(block, fitted), block.layout, fitted), samples)


def test_a_stack_in_groups_comes_back_and_each_group_alone() -> None:
    block = PixelBlock(volume((45, 64, 60)), 12)
    codec = Neural()
    fitted = codec.prepare(block)
    for first in (0, 20, 40):
        group = block.frames(first, 20)
        stream = codec.encode(group, fitted)
        assert np.array_equal(codec.decode(stream, group.layout, fitted), group.samples)


def test_fitting_makes_a_noisy_volume_smaller_than_the_shipped_model_alone() -> None:
    block = PixelBlock(volume((20, 128, 120), noise=12), 12)
    sizes = []
    for preset in (Preset.FAST, Preset.DEFAULT):
        codec = Neural(preset)
        fitted = codec.prepare(block)
        sizes.append(len(fitted) + len(codec.encode(block, fitted)))
    assert sizes[1] <= sizes[0] * 1.002


@pytest.fixture(scope="module")
def pixels() -> tuple[compiled.Group, compiled.Inputs]:
    """A group whose errors are predicted, and what the network sees of all its pixels."""
    values = volume((3, 80, 88), noise=8)[:, 20:60, 22:66]
    geometry = Geometry(3, 40, 44, 1, 2, int(values.max()))
    group = compiled.Group(geometry, padded(values, geometry), geometry.empty(0))
    compiled.predict(group, shipped().linear)
    batch = compiled.inputs(group, shipped().linear, np.arange(values.size))
    asked = batch.flats != 2
    fields = ("inputs", "means", "scales", "flats", "targets")
    return group, compiled.Inputs(*(getattr(batch, name)[asked] for name in fields))


@pytest.mark.parametrize("kernel", compiled.instruction_sets())
def test_the_objective_of_fitting_is_what_the_stream_costs(
    pixels: tuple[compiled.Group, compiled.Inputs], kernel: str
) -> None:
    (group, batch), model = pixels, shipped()
    spent, slopes = compiled.objective(model.network, model, batch, gradient=False, kernel=kernel)
    stream = compiled.encode(group, model.linear, model.network, model, kernel)
    assert len(slopes) == 0
    assert spent.sum() == pytest.approx(8 * (len(stream) - 16), rel=0.02)


@pytest.mark.parametrize("kernel", compiled.instruction_sets())
@pytest.mark.parametrize("width", shape.WIDTHS)
def test_the_gradient_of_fitting_says_how_the_bits_change(
    pixels: tuple[compiled.Group, compiled.Inputs], kernel: str, width: int
) -> None:
    (_, batch), model = pixels, shipped()
    network = model.network if width == model.network.width else random_network(width)
    _, slopes = compiled.objective(network, model, batch, gradient=True, kernel=kernel)
    last = len(slopes) - shape.OUTPUTS
    for output in (0, 3, 5, 7, 9):
        sides = []
        for way in (4, -4):
            biases = network.biases[2].copy()
            biases[output] += way
            moved = Network(network.weights, (network.biases[0], network.biases[1], biases))
            spent, _ = compiled.objective(moved, model, batch, gradient=False, kernel=kernel)
            sides.append(spent.astype(np.float64).sum())
        assert slopes[last + output] == pytest.approx((sides[0] - sides[1]) / 8, rel=0.02, abs=0.01)


def test_every_kernel_finds_the_same_gradient(pixels: tuple[compiled.Group, compiled.Inputs]) -> None:
    (_, batch), model = pixels, shipped()
    found = [compiled.objective(model.network, model, batch, True, kernel)[1] for kernel in compiled.instruction_sets()]
    for other in found[1:]:
        assert np.allclose(other, found[0], rtol=1e-3, atol=1e-3)


def test_thrift_leaves_a_network_where_it_was_shipped_if_nothing_is_gained() -> None:
    values, model = volume((2, 40, 44)), shipped()
    groups = fitting.grouped([values], 1, 2, int(values.max()))
    fitting.predict(groups, model.linear)
    sampler = fitting.Sampler(groups, np.random.default_rng(0))
    tuned = fitting.tune(sampler, model.linear, model, 20_000, 2.5e-3, 1e6)
    assert all(map(np.array_equal, tuned.weights, model.network.weights))


def wide_model() -> Model:
    """A model like the shipped one, but for the width of its network."""
    model, network = shipped(), random_network(192)
    return replace(model, identity=bytes(16), network=network)


def test_parameters_carry_the_differences_of_a_wide_network(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = wide_model()
    monkeypatch.setattr(parameters, "named", lambda identity: wide)
    weights, biases = wide.network.weights, wide.network.biases
    moved = Network((weights[0] + np.int8(1), weights[1] - np.int8(1), weights[2]), (biases[0] + 16, *biases[1:]))
    data = pack(Parameters(wide, ValueMap(0, 4095), 1, 2, wide.linear, moved))
    found = unpack(data).network
    assert all(map(np.array_equal, (*found.weights, *found.biases), (*moved.weights, *moved.biases)))


def test_parameters_name_their_model() -> None:
    fitted = FAST.prepare(PixelBlock(volume((2, 40, 40)), 12))
    assert FAST.model_hashes(fitted) == (shipped().identity.hex(),)


def test_a_network_of_an_unknown_width_is_refused() -> None:
    with pytest.raises(ValueError, match="97 wide"):
        random_network(97)


def test_a_range_beyond_16_bits_is_refused() -> None:
    block = PixelBlock(np.array([[[0, 70000]] * 40] * 2, np.int32).repeat(20, 2), 32)
    with pytest.raises(UnsupportedPixels, match="16 bits"):
        FAST.prepare(block)


def test_a_group_of_another_stack_is_refused() -> None:
    fitted = FAST.prepare(PixelBlock(volume((2, 40, 40)), 12))
    with pytest.raises(UnsupportedPixels):
        FAST.encode(PixelBlock(np.full((2, 40, 40), 60000, np.uint16), 16), fitted)


def test_damaged_streams_are_refused_even_behind_a_right_checksum() -> None:
    block = PixelBlock(volume((2, 40, 44)), 12)
    fitted = FAST.prepare(block)
    stream = FAST.encode(block, fitted)
    random = np.random.default_rng(7)
    for damaged in single_mutations(stream, random, 500):
        with pytest.raises(CorruptStream):
            FAST.decode(damaged, block.layout, fitted)
    outcomes = 0
    for payload in single_mutations(unseal(stream), random, 1500):
        try:
            decoded = FAST.decode(seal(payload), block.layout, fitted)
        except CorruptStream:
            outcomes += 1
        else:
            assert decoded.shape == block.samples.shape
    assert outcomes > 1400


def test_damaged_parameters_never_crash_the_decoder() -> None:
    block = PixelBlock(volume((2, 40, 44), noise=20) // 3 * 7, 12)
    codec = Neural()
    fitted = codec.prepare(block)
    stream = codec.encode(block, fitted)
    for damaged in single_mutations(fitted, np.random.default_rng(8), 150):
        try:
            codec.decode(stream, block.layout, damaged)
        except CorruptStream:
            continue


@pytest.mark.parametrize("name", sorted(codec_goldens.blocks()))
def test_golden_streams_decode_for_ever(name: str) -> None:
    block = codec_goldens.blocks()[name]
    target = GOLDEN / f"{name}.bin"
    if not FAST.supports(block.layout) or block.samples.dtype.itemsize == 4:
        assert not target.exists()
        return
    fitted = (GOLDEN / f"{name}.parameters").read_bytes()
    stream = target.read_bytes()
    assert np.array_equal(FAST.decode(stream, block.layout, fitted), block.samples)


def moved_parameters() -> bytes:
    """Parameters with another linear stage, network and levels, by whole-number arithmetic."""
    model = shipped()
    coefficients = model.linear.coefficients.astype(np.int64)
    coefficients += (np.arange(coefficients.size).reshape(coefficients.shape) % 5 - 2) * 8
    linear = Linear(
        model.linear.activity_thresholds + np.uint8(2),
        model.linear.consistency_thresholds,
        coefficients.astype(np.int16),
    )
    weights = [
        np.clip(w.astype(np.int64) + np.arange(w.size).reshape(w.shape) % 7 // 3 - 1, -127, 127).astype(np.int8)
        for w in model.network.weights
    ]
    biases = [
        (b + step * (np.arange(b.size) % 3 - 1)).astype(np.int32)
        for b, step in zip(model.network.biases, shape.BIAS_STEPS, strict=True)
    ]
    network = Network((weights[0], weights[1], weights[2]), (biases[0], biases[1], biases[2]))
    levels = np.unique(codec_goldens.blocks()["ct"].samples.astype(np.int64))
    values = ValueMap(int(levels[0]), len(levels) - 1, (levels - levels[0]).astype(np.uint16))
    return pack(Parameters(model, values, 1, 2, linear, network, 8))


def test_a_golden_stream_of_a_fitted_model_decodes_for_ever() -> None:
    block = codec_goldens.blocks()["ct"]
    fitted = (GOLDEN / "moved.parameters").read_bytes()
    assert np.array_equal(FAST.decode((GOLDEN / "moved.bin").read_bytes(), block.layout, fitted), block.samples)


def test_parameters_say_what_was_packed() -> None:
    data = moved_parameters()
    assert pack(unpack(data)) == data
    for length in range(0, len(data), 97):
        with pytest.raises(CorruptStream):
            unpack(data[:length])
