import math

import numpy as np
import pytest
from skimage.metrics import structural_similarity as skimage_similarity

from thinfilm_codecs.quality import metrics
from thinfilm_codecs.quality.similarity import multiscale_similarity, similarity_decibels, structural_similarity


def noisy(shape, deviation, dtype="int16", seed=0):
    """A smooth image, and the same with noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape[-2:])
    smooth = np.broadcast_to(1000 + 300 * np.sin(rows / 9) + 200 * np.cos(columns / 13), shape)
    return tuple(np.rint(smooth + rng.normal(0, d, shape)).astype(dtype) for d in (0.1, deviation))


def test_errors_do_not_wrap_where_unsigned_samples_would():
    low, high = np.zeros((1, 2), np.uint16), np.full((1, 2), 65535, np.uint16)

    assert metrics.maximum_error(low, high) == 65535
    assert metrics.rmse(low, high) == 65535.0
    assert metrics.psnr(low, high, 65535) == 0.0
    lowest, highest = np.array([[-(2**31)]], np.int32), np.array([[2**31 - 1]], np.int32)
    assert metrics.maximum_error(lowest, highest) == 2**32 - 1


def test_psnr_depends_on_the_range_that_is_given():
    original = np.arange(64, dtype=np.int16).reshape(8, 8)
    decoded = original + np.int16(2)

    assert metrics.psnr(original, decoded, metrics.stored_range(12)) == pytest.approx(20 * math.log10(4095 / 2))
    assert metrics.psnr(original, decoded, metrics.volume_range(original)) == pytest.approx(20 * math.log10(63 / 2))
    assert metrics.volume_range(np.array([[-2000, 5, 9]]), padding=-2000) == 4
    assert metrics.psnr(original, original, 63) == math.inf
    with pytest.raises(ValueError, match="above 0"):
        metrics.psnr(original, decoded, 0)


def test_a_window_hides_what_lies_beyond_it():
    original = np.array([[100, 1060]], np.int16)
    shown = metrics.window_psnr(original, original + np.int16(10), metrics.BRAIN_WINDOW, 1.0, -1024.0)

    # -924 and -914 HU are both black; of 36 and 46 HU the difference is seen.
    assert shown == pytest.approx(20 * math.log10(80 / math.sqrt(100 / 2)))


def test_the_percentile_is_an_error_that_occurs():
    errors = np.zeros(2000, np.int64)
    errors[:3] = [7, 40, 90]

    assert metrics.percentile_999(errors) == 7
    assert metrics.percentile_999(np.array([5])) == 5


def test_hounsfield_errors_leave_the_air_out():
    original = np.array([[0, 0, 1000, 1000]], np.int16)  # air at -1024 HU, tissue at 976
    decoded = np.array([[90, 90, 1001, 997]], np.int16)

    found = metrics.hounsfield_errors(original, decoded, slope=2.0, intercept=-1024.0)

    assert found == metrics.HounsfieldErrors(
        rmse=pytest.approx(math.sqrt((4 + 36) / 2)), mean_absolute=4.0, maximum=6.0
    )
    assert metrics.hounsfield_errors(original[:, :2], decoded[:, :2], 1.0, -1024.0) is None


def test_smoothing_lowers_the_noise_texture_ratio():
    original = np.random.default_rng(0).normal(1000, 20, (2, 64, 64)).astype(np.int16)
    smoothed = ((original[..., :-1].astype(int) + original[..., 1:]) // 2).astype(np.int16)

    assert metrics.noise_texture_ratio(original, original) == 1.0
    assert metrics.noise_texture_ratio(original[..., :-1], smoothed) < 0.7
    assert metrics.noise_texture_ratio(np.zeros((16, 16), np.int16), np.ones((16, 16), np.int16)) is None
    assert metrics.noise_texture_ratio(original[:, :7, :7], original[:, :7, :7]) is None


@pytest.mark.parametrize("shape", [(64, 48), (11, 11), (37, 90)])
@pytest.mark.parametrize("deviation", [2, 40])
def test_similarity_is_that_of_scikit_image(shape, deviation):
    original, decoded = noisy(shape, deviation)
    expected = skimage_similarity(
        original.astype(float),
        decoded.astype(float),
        data_range=900,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )

    assert structural_similarity(original, decoded, 900) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("measure", [structural_similarity, multiscale_similarity])
def test_similarity_of_a_stack_is_the_mean_of_its_frames(measure):
    original, decoded = noisy((3, 40, 40), 30)
    frames = [measure(*pair, 900) for pair in zip(original, decoded, strict=True)]

    assert measure(original, decoded, 900) == pytest.approx(np.mean(frames))
    assert measure(original, original, 900) == 1.0
    assert measure(original, noisy((3, 40, 40), 60)[1], 900) < measure(original, decoded, 900) < 1.0


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (9, 1), (10, 30)])
def test_images_below_the_window_have_a_similarity(shape):
    original = np.arange(math.prod(shape), dtype=np.uint16).reshape(shape)

    for measure in (structural_similarity, multiscale_similarity):
        assert measure(original, original, 100) == 1.0
        assert measure(original, original + np.uint16(50), 100) < 1.0


def test_blurring_hurts_more_on_the_fine_scales():
    """MS-SSIM weights coarse scales, on which noise of single samples is averaged away."""
    original, decoded = noisy((256, 256), 40)

    assert multiscale_similarity(original, decoded, 900) > structural_similarity(original, decoded, 900)
    assert similarity_decibels(0.999) == pytest.approx(30.0)
    assert similarity_decibels(1.0) == math.inf
