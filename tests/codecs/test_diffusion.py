import builtins

import numpy as np
import pytest

from thinfilm_codecs.quality.diffusion import MissingDipy, diffusion_errors

B_VALUES = np.array([0.0] + [1000.0] * 12)


def gradients():
    """One vector of no length, and twelve spread over the sphere: the corners of an icosahedron."""
    golden = (1 + 5**0.5) / 2
    corners = [np.roll((0, one, golden * other), turn) for turn in range(3) for one in (1, -1) for other in (1, -1)]
    return np.vstack([np.zeros(3), np.array(corners) / np.hypot(1, golden)])


def volumes(tensor, shape=(4, 5)):
    """Noise-free signals of a tensor, in mm^2/s, by Stejskal and Tanner."""
    signal = 20_000 * np.exp(-B_VALUES * np.einsum("vi,ij,vj->v", gradients(), tensor, gradients()))
    return np.rint(np.broadcast_to(signal[:, None, None], (len(signal), *shape))).astype(np.uint16)


def test_measures_of_the_same_volumes_do_not_differ_and_those_of_other_tensors_differ_as_they_should():
    pytest.importorskip("dipy")
    prolate = np.diag([1.7e-3, 0.3e-3, 0.3e-3])
    faster = 1.2 * prolate
    mask = np.ones((4, 5), bool)

    same = diffusion_errors(volumes(prolate), volumes(prolate), B_VALUES, gradients(), mask)
    changed = diffusion_errors(volumes(prolate), volumes(faster), B_VALUES, gradients(), mask)

    assert (same.fa, same.md) == (0.0, 0.0)
    assert changed.md == pytest.approx(0.2, abs=2e-3)
    assert changed.fa == pytest.approx(0.0, abs=2e-3)


def test_only_the_mask_counts():
    pytest.importorskip("dipy")
    original = volumes(np.diag([1e-3, 0.5e-3, 0.5e-3]))
    decoded = original.copy()
    decoded[:, 0, 0] //= 2
    decoded[1:, 3, 3] //= 2
    mask = np.ones((4, 5), bool)
    mask[3, 3] = False

    assert diffusion_errors(original, decoded, B_VALUES, gradients(), mask).md < 1e-3
    mask[3, 3] = True
    assert diffusion_errors(original, decoded, B_VALUES, gradients(), mask).md > 1e-2
    with pytest.raises(ValueError, match="mask"):
        diffusion_errors(original, decoded, B_VALUES, gradients(), np.zeros((4, 5), bool))


def test_without_dipy_a_sentence_says_how_to_get_it(monkeypatch):
    real_import = builtins.__import__

    def without_dipy(name, *rest):
        if name.startswith("dipy"):
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_dipy)
    samples = volumes(np.diag([1e-3, 1e-3, 1e-3]))

    with pytest.raises(MissingDipy, match=r"thinfilm\[dmri\]"):
        diffusion_errors(samples, samples, B_VALUES, gradients(), np.ones((4, 5), bool))
