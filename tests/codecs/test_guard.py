import numpy as np
import pytest

from thinfilm_codecs.blocks import PixelBlock
from thinfilm_codecs.quality.anchors import Jpeg, Jpeg2000
from thinfilm_codecs.quality.guard import FrameErrors, frame_errors, judge, reference_errors

RATE = 3.2


def slices(frames=3, low=-1024, dtype="int16", amplitude=900, size=64):
    rng = np.random.default_rng(5)
    rows, columns = np.indices((size, size))
    disc = (rows - size / 2) ** 2 + (columns - size / 2) ** 2 < (0.4 * size) ** 2
    values = low + amplitude * disc + rng.normal(0, amplitude / 45, (frames, size, size))
    return np.maximum(np.rint(values), low).astype(dtype)


def off_by(samples, error):
    """Samples that err by `error` at most, in no pattern."""
    noise = np.random.default_rng(6).integers(-error, error + 1, samples.shape)
    return (samples + noise).astype(samples.dtype)


def test_small_errors_are_kept():
    block = PixelBlock(slices(), 16)

    verdict = judge(block, off_by(block.samples, 2), RATE, max_error=2)

    assert verdict.kept
    assert verdict.ours.maximum == 2
    assert verdict.ours.rmse < verdict.reference.rmse
    assert f"{verdict.ours.rmse:g}" in verdict.reason
    assert "3.2 bits" in verdict.reason


def test_errors_above_jpeg_are_refused_with_both_values():
    block = PixelBlock(slices(), 16)

    verdict = judge(block, off_by(block.samples, 60), RATE, max_error=None)

    assert not verdict.kept
    assert verdict.ours.rmse > verdict.reference.rmse
    assert verdict.reason.startswith("Its root mean square error of")
    assert f"{verdict.ours.rmse:g} is above JPEG's {verdict.reference.rmse:g}" in verdict.reason


def test_a_single_sample_that_is_far_off_is_refused():
    block = PixelBlock(slices(), 16)
    decoded = block.samples.copy()
    decoded[1, 30, 30] += 500

    verdict = judge(block, decoded, RATE, max_error=None)

    assert not verdict.kept
    assert "maximum error of 500 is above" in verdict.reason


def test_a_single_bad_frame_of_many_is_found():
    block = PixelBlock(slices(frames=40), 16)
    decoded = block.samples.copy()
    decoded[23] = off_by(decoded[23], 60)

    assert not judge(block, decoded, RATE, max_error=None).kept


def test_the_policys_bound_holds_besides():
    block = PixelBlock(slices(), 16)

    verdict = judge(block, off_by(block.samples, 2), RATE, max_error=1)

    assert not verdict.kept
    assert "maximum error of 2 is above the policy's 1" in verdict.reason


def test_blurring_is_refused_by_its_dissimilarity():
    """The mean of neighbours has an error like noise's, which hides in the mean square beside a coarse JPEG."""
    block = PixelBlock(slices(frames=1, amplitude=300), 16)
    samples = block.samples.astype(int)
    blurred = ((samples + np.roll(samples, 1, 2) + np.roll(samples, 1, 1)) // 3).astype(np.int16)

    assert not judge(block, blurred, 2.0, max_error=None).kept


@pytest.mark.parametrize("bits", [4, 12, 13, 16])
def test_the_reference_keeps_to_the_rate_and_nears_the_original_with_it(bits):
    frame = slices(1, 0, "uint16", amplitude=(1 << bits) * 3 // 4)[0]

    at_2, at_6 = (reference_errors(frame, bits, rate) for rate in (2.0, 6.0))

    assert 0 <= at_6.rmse < at_2.rmse
    assert at_6.dissimilarity < at_2.dissimilarity
    assert at_2.rmse < frame.std()


def test_signed_samples_have_the_reference_of_the_same_samples_unsigned():
    signed = slices(1, -1024)[0]
    unsigned = (signed.astype(int) + 1024).astype(np.uint16)

    found, expected = reference_errors(signed, 16, RATE), reference_errors(unsigned, 16, RATE)

    assert (found.rmse, found.p999, found.maximum) == (expected.rmse, expected.p999, expected.maximum)


def test_eight_bits_are_compared_with_8_bit_jpeg():
    frame = slices(1, 0, "uint8", amplitude=180)[0]
    jpeg = Jpeg(8)
    stream = jpeg.within(frame, RATE)

    assert 8 * len(stream) <= RATE * frame.size
    assert reference_errors(frame, 8, RATE) == frame_errors(frame, jpeg.decode(stream), int(np.ptp(frame)))


def test_the_best_quality_within_the_rate_is_found():
    frame = slices(1, 0, "uint16", amplitude=2000, size=32)[0]
    for anchor in (Jpeg(12), Jpeg2000(12)):
        streams = [anchor.encode(frame, setting) for setting in anchor.ladder]
        within = [stream for stream in streams if 8 * len(stream) <= 7.0 * frame.size]
        assert anchor.within(frame, 7.0) == within[0]


def test_below_the_coarsest_jpeg_the_coarsest_is_the_reference():
    frame = slices(1, 0, "uint16", amplitude=2000, size=16)[0]
    coarsest = Jpeg(12).encode(frame, 1)

    expected = frame_errors(frame, Jpeg(12).decode(coarsest), int(np.ptp(frame)))
    assert reference_errors(frame, 12, 0.01) == expected


def test_beyond_all_standards_only_the_original_is_kept():
    frame = np.array([[0, 1 << 20], [5, 6]], np.uint32)
    block = PixelBlock(frame[None], 32)

    assert reference_errors(frame, 32, RATE) == FrameErrors(0.0, 0, 0, 0.0)
    assert judge(block, block.samples, RATE, max_error=None).kept
    assert not judge(block, block.samples + np.uint32(1), RATE, max_error=None).kept


def test_each_component_of_colour_is_judged_by_itself():
    colour = np.stack([slices(1, 0, "uint8", amplitude=180)[0]] * 3, axis=-1)[None]
    decoded = colour.copy()
    decoded[..., 2] = np.roll(colour[..., 2], 2, axis=1)

    assert judge(PixelBlock(colour, 8), colour, RATE, max_error=None).kept
    assert not judge(PixelBlock(colour, 8), decoded, RATE, max_error=None).kept


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (2, 30, 1)])
def test_the_smallest_images_are_judged(shape):
    samples = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)

    assert judge(PixelBlock(samples, 16), samples, RATE, max_error=0).kept


def test_frames_that_are_not_there_are_refused():
    block = PixelBlock(slices(), 16)

    with pytest.raises(ValueError, match="shape"):
        judge(block, block.samples[:, :8], RATE, max_error=None)
