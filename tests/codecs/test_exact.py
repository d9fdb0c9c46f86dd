"""The layers in exact arithmetic: what whole numbers say, whatever the tiles, the threads and the sizes."""

import hashlib
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from thinfilm_codecs.lossy import exact

KERNELS = ((3, 1), (1, 1), (4, 2), (8, 4), (2, 2), (5, 1))


def drawn(seed: int, *shape: int, largest: int = 1000) -> np.ndarray:
    return np.random.default_rng(seed).integers(-largest, largest, shape, endpoint=True).astype(np.float64)


def _convolved(x: np.ndarray, weights: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    """The convolution by its definition, in Python's whole numbers."""
    kernel = weights.shape[2]
    padding = (kernel - stride) // 2
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding))).astype(int).astype(object)
    rows, columns = x.shape[1] // stride, x.shape[2] // stride
    found = np.empty((len(weights), rows, columns), object)
    for o, r, c in np.ndindex(*found.shape):
        window = padded[:, r * stride : r * stride + kernel, c * stride : c * stride + kernel]
        found[o, r, c] = int((window * weights[o].astype(int).astype(object)).sum()) + int(bias[o])
    return found


@settings(max_examples=30, deadline=None)
@given(
    kernel=st.sampled_from(KERNELS),
    rows=st.integers(1, 3),
    columns=st.integers(1, 4),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from(("float32", "float64")),
)
def test_convolution_is_that_of_whole_numbers(
    kernel: tuple[int, int], rows: int, columns: int, seed: int, dtype: str
) -> None:
    size, stride = kernel
    largest = 60 if dtype == "float32" else 2**20
    x = drawn(seed, 2, rows * stride, columns * stride, largest=largest)
    weights, bias = drawn(seed + 1, 3, 2, size, size, largest=largest), drawn(seed + 2, 3)
    exact.prove("the layer", exact.largest_sum(weights, bias, largest), dtype)
    found = exact.convolve(x.astype(dtype), weights.astype(dtype), bias.astype(dtype), stride)
    assert found.dtype == dtype
    assert (found.astype(int) == _convolved(x, weights, bias, stride)).all()


@pytest.mark.parametrize(("size", "stride"), KERNELS)
def test_transposed_convolution_is_the_transpose(size: int, stride: int) -> None:
    x, weights = drawn(1, 3, 5, 4), drawn(2, 3, 2, size, size)
    found = exact.convolve_transposed(x, weights, np.zeros(2), stride)
    y = drawn(3, *found.shape)
    assert (found * y).sum() == (x * exact.convolve(y, weights, np.zeros(3), stride)).sum()
    by_torch = functional.conv_transpose2d(
        torch.from_numpy(x)[None], torch.from_numpy(weights), stride=stride, padding=(size - stride) // 2
    )
    assert np.array_equal(found, by_torch[0].numpy())


def test_tiles_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, bias = drawn(1, 4, 12, 8), drawn(3, 4)
    weights = drawn(2, 4, 4, 4, 4)
    whole = exact.convolve(x, weights, bias, 2), exact.convolve_transposed(x, weights, bias, 2)
    for values in (1, 1100, 3000):
        monkeypatch.setattr(exact, "_TILE_VALUES", values)
        assert np.array_equal(exact.convolve(x, weights, bias, 2), whole[0])
        assert np.array_equal(exact.convolve_transposed(x, weights, bias, 2), whole[1])


_DIGEST = """
import hashlib, numpy as np
from thinfilm_codecs.lossy import exact
random = np.random.default_rng(5)
x = random.integers(-2**20, 2**20, (32, 64, 64)).astype(np.float64)
weights = random.integers(-2**18, 2**18, (32, 32, 4, 4)).astype(np.float64)
digest = hashlib.sha256(exact.convolve(x, weights, x[:, 0, 0], 2).tobytes())
digest.update(exact.convolve_transposed(x, weights, x[:, 0, 0], 2).tobytes())
digest.update(exact.multiply_by_norms(x, np.abs(weights[:, :, 0, 0]) // 2**14, np.abs(x[:, 0, 0]), 8, 10).tobytes())
print(digest.hexdigest())
"""


def test_threads_of_the_library_give_the_same() -> None:
    digests = set()
    for threads in ("1", "2"):
        environment = os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        found = subprocess.run([sys.executable, "-c", _DIGEST], env=environment, capture_output=True, check=True)
        digests.add(found.stdout)
    assert len(digests) == 1


@given(x=st.integers(-(2**50), 2**50), shift=st.integers(0, 40))
def test_rescaling_rounds_halves_up(x: int, shift: int) -> None:
    expected = (x + (1 << shift >> 1)) >> shift
    assert exact.rescale(np.array([float(x)]), shift)[0] == expected
    assert exact.rescale(np.array([float(x)]), shift, 100)[0] == min(max(expected, -100), 100)


@given(x=st.integers(-(2**40), 2**40), bits=st.integers(0, 8))
def test_rectifiers(x: int, bits: int) -> None:
    array = np.array([float(x)])
    assert exact.rectify(array)[0] == max(x, 0)
    assert exact.rectify_leakily(array, bits)[0] == (x if x > 0 else x >> bits)


@settings(max_examples=200, deadline=None)
@given(
    x=st.lists(st.integers(-(2**17), 2**17), min_size=2, max_size=2),
    gamma=st.lists(st.integers(0, 2**10), min_size=4, max_size=4),
    beta=st.integers(0, 2**40),
)
def test_norms_are_those_of_whole_numbers(x: list[int], gamma: list[int], beta: int) -> None:
    values, matrix = np.array(x, np.float64)[:, None, None], np.array(gamma, np.float64).reshape(2, 2)
    betas = np.array([beta, 0.0])
    exact.prove_norms("the norms", matrix, betas, 2**17)
    multiplied = exact.multiply_by_norms(values, matrix, betas, 8, 10)[:, 0, 0]
    divided = exact.divide_by_norms(values, matrix, betas, 8, 10)[:, 0, 0]
    for i in range(2):
        root = math.isqrt(gamma[2 * i] * x[0] ** 2 + gamma[2 * i + 1] * x[1] ** 2 + (beta if i == 0 else 0))
        assert multiplied[i] == (x[i] * root + (1 << 13)) >> 14
        root = max(root, 1)
        assert divided[i] == ((x[i] << 15) + root) // (2 * root)


@pytest.mark.parametrize("one_bits", [4, 10])
def test_curves_are_within_half_a_step(one_bits: int) -> None:
    one = 2**one_bits
    x = np.arange(-20 * one, 20 * one, 1 if one_bits == 4 else 7).astype(np.float64)
    elu = np.where(x > 0, x, one * np.expm1(np.minimum(x, 0) / one))
    assert np.abs(exact.exponential_linear(x, one_bits) - elu).max() < 0.5 + 1e-6
    assert np.abs(exact.sigmoid(x, one_bits, 12) - 4096 / (1 + np.exp(-x / one))).max() < 0.5 + 1e-6


def test_the_curves_tables_are_pinned() -> None:
    x = np.arange(-12000.0, 12000.0)
    digest = hashlib.sha256(exact.exponential_linear(x, 10).tobytes() + exact.sigmoid(x, 10, 12).tobytes())
    assert digest.hexdigest() == "b6ca65578019971a0e77e16cfe42794898625f24acaa8bafbec24e82e565fd67"


def test_layers_that_could_be_inexact_are_refused() -> None:
    weights, bias = np.full((2, 3, 3, 3), 2**20), np.array([0, -5])
    assert exact.largest_sum(weights, bias, 2**20) == 27 * 2**40 + 5
    exact.prove("a layer", exact.largest_sum(weights, bias, 2**20))
    with pytest.raises(ValueError, match="float64"):
        exact.prove("a layer", exact.largest_sum(weights, bias, 2**28))
    with pytest.raises(ValueError, match="float32"):
        exact.prove("a layer", exact.largest_sum(weights, bias, 1), "float32")
    with pytest.raises(ValueError, match="negative"):
        exact.prove_norms("a norm", np.array([[-1]]), np.array([1]), 2**10)
    with pytest.raises(ValueError, match="float64"):
        exact.prove_norms("a norm", np.array([[2**10]]), np.array([1]), 2**30)
    with pytest.raises(ValueError, match="evenly"):
        exact.convolve(np.zeros((1, 4, 4)), np.zeros((1, 1, 3, 3)), np.zeros(1), 2)
