"""The siren codec: networks in whole numbers that say the same everywhere, and damaged streams that are refused."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import codec_goldens
from support.mutations import single_mutations
from thinfilm_codecs.blocks import BlockLayout, FrameAxis, PixelBlock
from thinfilm_codecs.errors import CorruptStream, UnsupportedPixels
from thinfilm_codecs.lossless.sealed import seal, unseal
from thinfilm_codecs.lossy import siren
from thinfilm_codecs.lossy.arrangement import ALONE, Arrangement, arrangement_of
from thinfilm_codecs.lossy.siren import Siren, network
from thinfilm_codecs.lossy.siren.fitting import Slices, fit, fit_floats
from thinfilm_codecs.lossy.siren.network import Layer, coordinates, evaluate
from thinfilm_codecs.lossy.siren.plans import Effort, Plan, Variant
from thinfilm_codecs.lossy.siren.stream import Group, Shape, pack, unpack

SHORT = Siren(3.0, Effort(epochs=60))
GOLDEN = Path(__file__).parent / "golden" / "siren" / "volumes"


def volumes(places: int = 3, count: int = 5, rows: int = 24, columns: int = 30) -> np.ndarray:
    """Return (count x places, rows, columns): volumes of one anatomy that decay, one after another, with some noise."""
    y, x = np.mgrid[:rows, :columns]
    anatomy = [400 + 100 * np.sin(x / 4 + 0.7 * place) + 80 * np.cos(y / 5 - 0.3 * place) for place in range(places)]
    decayed = [slice_ * (0.4 + 0.6 * np.exp(-volume / 3)) for volume in range(count) for slice_ in anatomy]
    noisy = np.array(decayed) + np.random.default_rng(1).normal(0, 4, (count * places, rows, columns))
    found: np.ndarray = noisy.astype(np.uint16)
    return found


def drawn(shape: Shape, networks: int, seed: int, largest: int = 40) -> list[list[Layer]]:
    """Return networks of drawn whole numbers: what is exact with them is exact with any."""
    random = np.random.default_rng(seed)
    return [
        [
            Layer(
                random.integers(-largest, largest + 1, size).astype(np.int16),
                random.integers(-5000, 5000, size[0]).astype(np.int32)
                if place == shape.hidden
                else random.integers(0, 256, size[0]).astype(np.int32),
                int(random.integers(128, 256)),
                int(random.integers(12, 22)),
            )
            for place, size in enumerate(shape.layers)
        ]
        for _ in range(networks)
    ]


def said(layers: list[Layer], inputs: np.ndarray) -> np.ndarray:
    """Return what a network says, by Python's whole numbers alone: docs/formats/siren.md to the letter."""
    table = network.sine_table().astype(int).tolist()
    rows = []
    for x in inputs.astype(int).tolist():
        for layer in layers[:-1]:
            sums = [sum(w * a for w, a in zip(row, x, strict=True)) * layer.mantissa for row in layer.weights.tolist()]
            halves = 1 << (layer.shift - 1)
            phases = [
                ((s + halves) >> layer.shift) + (b << 6) for s, b in zip(sums, layer.biases.tolist(), strict=True)
            ]
            x = [table[phase & 16383] for phase in phases]
        last = layers[-1]
        sums = [sum(w * a for w, a in zip(row, x, strict=True)) * last.mantissa for row in last.weights.tolist()]
        rows.append(
            [(s + ((b + 8) << last.shift)) >> (last.shift + 4) for s, b in zip(sums, last.biases.tolist(), strict=True)]
        )
    return np.array(rows)


def test_a_sine_is_that_of_the_table_far_from_any_tie() -> None:
    turn = 1 << network.ONE_BITS
    exact = turn * np.sin(2 * np.pi * np.arange(turn) / turn)
    table = network.sine_table()
    assert np.array_equal(table, np.rint(exact))
    ties = np.abs(np.abs(exact - np.floor(exact)) - 0.5)
    assert ties.min() > 1e-4


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 999), width=st.integers(1, 9), hidden=st.integers(1, 4), largest=st.sampled_from((3, 40, 32767))
)
def test_a_network_says_what_whole_numbers_say(seed: int, width: int, hidden: int, largest: int) -> None:
    layers = drawn(Shape(2, hidden, width, 3), 1, seed, largest)[0]
    found = np.concatenate([values for _, values in evaluate(layers, (4, 5), 0, 20)])
    assert np.array_equal(found, said(layers, coordinates((4, 5))))


def test_the_largest_sums_are_exact() -> None:
    width = network.WIDEST
    layers = [
        Layer(np.full((width, 2), 32767, np.int16), np.full(width, 64, np.int32), 255, 40),
        Layer(np.full((2, width), 32767, np.int16), np.full(2, network.LARGEST_BIAS, np.int32), 255, 1),
    ]
    found = np.concatenate([values for _, values in evaluate(layers, (2, 2), 0, 4)])
    assert np.array_equal(found, said(layers, coordinates((2, 2))))
    assert np.abs(found).max() > 2**40


def test_places_are_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = drawn(Shape(3, 3, 8, 2), 1, 5)[0]
    whole = np.concatenate([values for _, values in evaluate(layers, (3, 7, 9), 0, 189)])
    monkeypatch.setattr(network, "_CHUNK", 40)
    parts = list(evaluate(layers, (3, 7, 9), 63, 63))
    assert len(parts) > 1
    assert np.array_equal(np.concatenate([values for _, values in parts]), whole[63:126])
    assert coordinates((5,)).ravel().tolist() == [-16384, -8192, 0, 8192, 16384]
    assert coordinates((1, 1)).tolist() == [[0, 0]]


@st.composite
def kept_groups(draw: st.DrawFn) -> tuple[Group, BlockLayout]:
    frames, rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    places = draw(st.integers(1, frames))
    run = draw(st.integers(1, max(1, (frames - 1) // max(1, places - 1))))
    arrangement = Arrangement(places, run)
    if (places - 1) * run >= frames:
        arrangement = ALONE
    inputs, width, hidden = draw(st.sampled_from((2, 3))), draw(st.integers(1, 8)), draw(st.integers(1, 3))
    shape = Shape(inputs, hidden, width, arrangement.volumes(frames))
    largest = draw(st.sampled_from((0, 30, 127, 128, 32767)))
    networks = drawn(shape, shape.networks(arrangement), draw(st.integers(0, 99)), largest)
    dtype = draw(st.sampled_from(("uint8", "int8", "uint16", "int16")))
    limits = np.iinfo(dtype)
    minimum = draw(st.integers(limits.min, limits.max))
    span = draw(st.integers(0, limits.max - minimum))
    return Group(arrangement, shape, minimum, span, networks), BlockLayout(frames, rows, columns, 1, dtype)


@settings(max_examples=80, deadline=None)
@given(kept=kept_groups())
def test_what_a_stream_says_comes_back_and_decodes_within_its_range(kept: tuple[Group, BlockLayout]) -> None:
    group, layout = kept
    stream = pack(group)
    found = unpack(stream, layout)
    assert (found.arrangement, found.minimum, found.span) == (group.arrangement, group.minimum, group.span)
    for mine, its in zip(group.networks, found.networks, strict=True):
        for layer, other in zip(mine, its, strict=True):
            assert (layer.mantissa, layer.shift) == (other.mantissa, other.shift)
            assert np.array_equal(layer.weights, other.weights)
            assert np.array_equal(layer.biases, other.biases)
    samples = Siren().decode(stream, layout, b"")
    assert samples.shape == layout.shape
    assert samples.dtype.name == layout.dtype
    assert group.minimum <= samples.min()
    assert samples.max() <= group.minimum + group.span


def test_volumes_are_found_among_frames_in_both_orders() -> None:
    by_volume = volumes(places=6, count=5)
    by_place = by_volume.reshape(5, 6, 24, 30).swapaxes(0, 1).reshape(30, 24, 30)
    assert arrangement_of(PixelBlock(by_volume, 12)) == Arrangement(6, 1)
    assert arrangement_of(PixelBlock(by_place, 12, FrameAxis.TIME)) == Arrangement(6, 5)
    assert arrangement_of(PixelBlock(by_volume[:6], 12, FrameAxis.SPACE)) == ALONE
    assert [frames.tolist() for frames in Arrangement(2, 2).frames_of(7)] == [[0, 1, 4, 5], [2, 3, 6]]


@pytest.mark.parametrize(
    ("dtype", "volumetric"), [("uint16", False), ("int16", True), ("uint8", True), ("int8", False)]
)
def test_a_fitted_group_is_near_what_was_fitted(dtype: str, volumetric: bool) -> None:
    limits = np.iinfo(dtype)
    samples = volumes(places=2, count=4).astype(np.int64)
    scaled = (samples - samples.min()) * min(limits.max - limits.min, 2000) // (samples.max() - samples.min())
    block = PixelBlock((scaled + limits.min).astype(dtype), 8 * limits.bits)
    codec = Siren(3.0, Effort(epochs=150), volumetric=volumetric)
    stream = codec.encode(block, b"")
    decoded = codec.decode(stream, block.layout, b"")
    errors = decoded.astype(float) - block.samples
    assert np.sqrt((errors**2).mean()) < 0.25 * block.samples.std()
    assert abs(8 * len(stream) / block.samples.size - 3.0) < 0.3


def test_the_error_that_a_fit_reports_is_the_error_that_is_kept() -> None:
    told: list[tuple[float, float]] = []
    block = PixelBlock(volumes(places=1), 12)
    codec = Siren(3.0, Effort(epochs=100, progress=lambda share, error: told.append((share, error))))
    decoded = codec.decode(codec.encode(block, b""), block.layout, b"")
    kept = float(np.sqrt(((decoded.astype(float) - block.samples) ** 2).mean()))
    assert told[-1][0] == 1.0
    assert told[-1][1] == pytest.approx(kept, rel=0.05)


def test_a_fit_ends_when_its_target_is_met_or_its_time_is_over() -> None:
    block = PixelBlock(volumes(places=1), 12)
    shares: list[float] = []
    effort = Effort(epochs=2000, target_rmse=60.0, progress=lambda share, _: shares.append(share))
    Siren(3.0, effort).encode(block, b"")
    assert len(shares) < 2000 // 25
    shares.clear()
    Siren(3.0, replace(effort, target_rmse=0.0)).aiming_at(300).encode(block, b"")
    assert 0 < len(shares) < 2000 // 25
    Siren(3.0, Effort(epochs=10**9, seconds=0.3)).encode(block, b"")


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 40), (3, 37, 1), (2, 5, 6)])
def test_any_size_comes_back_in_its_shape(shape: tuple[int, int, int]) -> None:
    block = PixelBlock(np.random.default_rng(2).integers(-900, 900, shape).astype(np.int16), 12)
    decoded = SHORT.decode(SHORT.encode(block, b""), block.layout, b"")
    assert decoded.shape == shape


def test_a_constant_group_comes_back() -> None:
    block = PixelBlock(np.full((3, 9, 9), 777, np.uint16), 12)
    assert np.array_equal(SHORT.decode(SHORT.encode(block, b""), block.layout, b""), block.samples)


@pytest.mark.parametrize("variant", Variant)
def test_every_variant_is_fitted_in_floats_and_only_sines_in_whole_numbers(variant: Variant) -> None:
    samples = volumes(places=1, count=2).reshape(1, 2, -1).transpose(0, 2, 1).astype(np.float32)
    slices = Slices(coordinates((24, 30)), samples - samples.min())
    effort = Effort(epochs=80)
    _, found = fit_floats(slices, Plan(24, variant=variant, bits=None), effort, "cpu")
    assert np.sqrt(((found - slices.samples) ** 2).mean()) < samples.std()
    if variant is Variant.SIREN_RELU:
        assert found.min() >= -1e-3
    if variant in (Variant.SIREN, Variant.SIREN_RELU):
        assert len(fit(slices, Plan(24, variant=variant), effort, "cpu")) == 1
    else:
        with pytest.raises(ValueError, match="integers"):
            fit(slices, Plan(24, variant=variant), effort, "cpu")


def test_the_gentlest_setting_keeps_to_a_ceiling_of_5() -> None:
    block = PixelBlock(volumes(), 12)
    stream = Siren(effort=Effort(epochs=5)).encode(block, b"")
    assert block.samples.itemsize == 2
    assert 2.5 < block.samples.nbytes / len(stream) < 4


def test_settings_are_those_of_the_ladder_and_without_torch_nothing_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SHORT.at(0.5).setting == 0.5
    assert SHORT.promised_error is None
    with pytest.raises(ValueError, match="bits a sample"):
        SHORT.at(0.6)
    monkeypatch.delitem(sys.modules, "thinfilm_codecs.lossy.siren.fitting")
    monkeypatch.delattr(siren, "fitting")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UnsupportedPixels, match=r"thinfilm\[gpu\]"):
        Siren().encode(PixelBlock(volumes(), 12), b"")
    colour = PixelBlock(np.zeros((1, 8, 8, 3), np.uint8), 8)
    assert not Siren().supports(colour.layout)
    with pytest.raises(UnsupportedPixels):
        Siren().encode(colour, b"")


def small_group() -> tuple[bytes, BlockLayout]:
    arrangement = Arrangement(2, 1)
    shape = Shape(2, 2, 5, 3)
    layout = BlockLayout(6, 12, 13, 1, "uint16")
    return pack(Group(arrangement, shape, 10, 4000, drawn(shape, 2, 3))), layout


def test_damaged_streams_are_refused_even_behind_a_right_checksum() -> None:
    stream, layout = small_group()
    random = np.random.default_rng(4)
    for damaged in single_mutations(stream, random, 200):
        with pytest.raises(CorruptStream):
            Siren().decode(damaged, layout, b"")
    for payload in single_mutations(unseal(stream), random, 400):
        try:
            assert Siren().decode(seal(payload), layout, b"").shape == layout.shape
        except CorruptStream:
            continue


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, b"\x02"),  # version
        (1, b"\x04"),  # inputs
        (2, b"\x00"),  # hidden
        (2, b"\x09"),
        (3, b"\x00\x00"),  # width
        (3, b"\xff\xff"),
        (5, b"\x00\x00\x00\x00"),  # places
        (5, b"\x07\x00\x00\x00"),
        (9, b"\x00\x00\x00\x00"),  # run
        (9, b"\xff\xff\xff\xff"),
        (13, b"\xff\xff\xff\xff"),  # minimum
        (17, b"\xff\xff"),  # span
        (19, b"\x7f"),  # mantissa
        (20, b"\x00"),  # shift
        (20, b"\x29"),
    ],
)
def test_a_header_that_no_encoder_writes_is_refused(at: int, value: bytes) -> None:
    stream, layout = small_group()
    payload = bytearray(unseal(stream))
    payload[at : at + len(value)] = value
    with pytest.raises(CorruptStream):
        Siren().decode(seal(bytes(payload)), layout, b"")


def test_bytes_behind_the_networks_are_refused() -> None:
    stream, layout = small_group()
    for more in (b"\x00", b"more"):
        with pytest.raises(CorruptStream):
            Siren().decode(seal(unseal(stream) + more), layout, b"")
    for cut in (3, 18, 25, len(unseal(stream)) - 1):
        with pytest.raises(CorruptStream):
            Siren().decode(seal(unseal(stream)[:cut]), layout, b"")


def test_golden_volumes_decode_for_ever_in_a_process_without_torch() -> None:
    """Write them with `python tests/codecs/test_siren.py`."""
    names = sorted(path.stem for path in GOLDEN.glob("*.bin"))
    assert names == sorted(golden_blocks())
    script = f"""
import sys
from dataclasses import replace
sys.modules["torch"] = None
from pathlib import Path
import numpy as np
from thinfilm_codecs import registry
from thinfilm_codecs.blocks import BlockLayout
for line in Path({str(GOLDEN / "expected.txt")!r}).read_text().splitlines():
    name, frames, rows, columns, dtype, digest = line.split()
    layout = BlockLayout(int(frames), int(rows), int(columns), 1, dtype)
    stream = (Path({str(GOLDEN)!r}) / (name + ".bin")).read_bytes()
    samples = registry.decoder("siren").decode(stream, layout, b"")
    import hashlib
    found = hashlib.sha256(samples.astype(samples.dtype.newbyteorder("<")).tobytes()).hexdigest()
    assert found == digest, name
    print(name)
"""
    for threads in ("1", "2"):
        environment = os.environ | {"OPENBLAS_NUM_THREADS": threads}
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True)
        assert done.stdout.decode().split() == names


@pytest.mark.parametrize("name", sorted(codec_goldens.blocks()))
def test_golden_streams_decode_for_ever(name: str) -> None:
    block = codec_goldens.blocks()[name]
    assert codec_goldens.lossy_path("siren", name, 3).exists() == Siren().supports(block.layout)
    if Siren().supports(block.layout):
        codec_goldens.decoded_as_kept("siren", name, 3)


def golden_blocks() -> dict[str, tuple[PixelBlock, Siren]]:
    """Return what is kept besides the goldens of all codecs: many places, both kinds of networks."""
    four = PixelBlock(volumes(places=6, count=4), 12)
    return {
        "volumes": (four, SHORT),
        "volumetric": (four, Siren(1.0, Effort(epochs=60), volumetric=True)),
        "pixel": (PixelBlock(np.full((1, 1, 1), -7, np.int8), 8), SHORT),
    }


def write_goldens() -> None:
    """Write the golden streams that are not there yet; never touch one that is."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, (block, codec) in sorted(golden_blocks().items()):
        target = GOLDEN / f"{name}.bin"
        if not target.exists():
            target.write_bytes(codec.encode(block, b""))
        samples = codec.decode(target.read_bytes(), block.layout, b"")
        digest = hashlib.sha256(samples.astype(samples.dtype.newbyteorder("<")).tobytes()).hexdigest()
        lines.append(f"{name} {' '.join(map(str, block.samples.shape))} {block.samples.dtype.name} {digest}")
    (GOLDEN / "expected.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write_goldens()
