from dataclasses import replace

import numpy as np
import pytest

from support.lossy_codec import Quantised
from thinfilm_codecs import registry
from thinfilm_codecs.blocks import PixelBlock
from thinfilm_gateway.policy import choice
from thinfilm_gateway.policy.ceilings import Ceiling, LosslessOnly, profile
from thinfilm_gateway.policy.choice import Accepted, choose
from thinfilm_gateway.policy.limits import SampleLimits
from thinfilm_gateway.policy.lossless import UnknownTreatment
from thinfilm_gateway.policy.lossy import LossyTreatment, lossy_treatment

LIMITS = SampleLimits(-2048, 2047)
TREATMENT = LossyTreatment("near_lossless")


@pytest.fixture(autouse=True)
def quantised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._LOSSY, "near_lossless", Quantised())


@pytest.fixture(scope="module")
def stack() -> PixelBlock:
    """Noise on a slope, as 12 bits in 16: JPEG-LS needs more than half of them."""
    noise = np.random.default_rng(7).normal(0, 25, (5, 48, 40))
    samples = np.rint(np.arange(40) * 8 + noise).astype(np.int16)
    return PixelBlock(samples, bits_stored=12)


def ceiling(ratio: float) -> Ceiling:
    found = profile("esr-strict").ceiling("CT", "")
    assert isinstance(found, Ceiling)
    return replace(found, ratio=ratio)


def accepted(stack: PixelBlock, ratio: float, treatment: LossyTreatment = TREATMENT) -> Accepted:
    chosen = choose(stack, treatment, ceiling(ratio), LIMITS)
    assert isinstance(chosen, Accepted), chosen
    return chosen


def refused(stack: PixelBlock, ratio: float, treatment: LossyTreatment = TREATMENT) -> str:
    chosen = choose(stack, treatment, ceiling(ratio), LIMITS)
    assert isinstance(chosen, LosslessOnly)
    return chosen.reason


def ratios(stack: PixelBlock) -> dict[float, float]:
    """Return the ratio of every setting."""
    codec = Quantised()
    native = stack.samples.nbytes
    return {
        step: native / sum(len(codec.at(step).encode(stack.frames(first, 3), b"")) for first in (0, 3))
        for step in codec.ladder
    }


def test_the_coarsest_setting_is_taken_of_which_neither_ratio_is_above_the_ceiling(stack: PixelBlock) -> None:
    outcome = accepted(stack, 5.0).outcome
    below = [step for step, ratio in ratios(stack).items() if ratio <= 5.0]
    assert outcome.setting == f"step {below[-1]:g}"
    assert outcome.ratio_allocated == pytest.approx(ratios(stack)[below[-1]])
    assert outcome.ratio_stored == pytest.approx(outcome.ratio_allocated * 12 / 16)
    assert outcome.ratio_stored < outcome.ratio_allocated <= 5.0


def test_the_errors_told_are_those_of_all_samples(stack: PixelBlock) -> None:
    chosen = accepted(stack, 5.0)
    errors = chosen.coded.samples.astype(float) - stack.samples
    assert chosen.outcome.max_error == abs(errors).max()
    assert chosen.outcome.rmse == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert chosen.outcome.verdict.kept
    assert chosen.outcome.verdict.ours.rmse <= chosen.outcome.verdict.reference.rmse


def test_of_the_settings_that_reach_a_ratio_the_gentlest_is_taken(stack: PixelBlock) -> None:
    found = ratios(stack)
    wanted = found[16]
    assert accepted(stack, 5.0, replace(TREATMENT, ratio=wanted)).outcome.setting == "step 16"
    assert accepted(stack, 5.0, replace(TREATMENT, ratio=wanted - 0.01)).outcome.setting == "step 16"
    assert accepted(stack, 5.0, replace(TREATMENT, ratio=wanted + 0.01)).outcome.setting == "step 24"


def test_a_ratio_that_only_settings_above_the_ceiling_reach_gives_the_next_gentler(stack: PixelBlock) -> None:
    found = ratios(stack)
    between = (found[32] + found[48]) / 2
    outcome = accepted(stack, between, replace(TREATMENT, ratio=between - 0.01)).outcome
    assert outcome.setting == "step 32"
    assert outcome.shortfall == (
        f"The ratio of {between - 0.01:g} that was asked for is not reached."
        f" The ratio would be {found[48]:.2f}, above the ceiling of {between:g}."
    )
    assert accepted(stack, between, replace(TREATMENT, ratio=found[16])).outcome.shortfall == ""


def test_a_bound_on_the_error_is_kept(stack: PixelBlock) -> None:
    chosen = accepted(stack, 5.0, replace(TREATMENT, max_error=9))
    assert chosen.outcome.setting == "step 16"
    assert chosen.outcome.max_error == 8


def test_a_ratio_that_no_setting_reaches_gives_the_coarsest_and_says_so(stack: PixelBlock) -> None:
    outcome = accepted(stack, 5.0, replace(TREATMENT, ratio=50.0)).outcome
    assert outcome.shortfall.endswith("is not reached. No setting is so coarse.")


def test_where_no_setting_may_be_the_complaint_is_about_the_gentlest(
    stack: PixelBlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "_SAMPLE_BUDGET", 2 * 48 * 40)
    for treatment in (replace(TREATMENT, max_error=1), replace(TREATMENT, max_error=1, ratio=4.9)):
        assert "above the ceiling" not in refused(stack, 5.0, treatment)


def test_a_codec_whose_error_is_above_that_of_jpeg_gives_way_to_lossless(
    stack: PixelBlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._LOSSY, "near_lossless", Quantised(blur=900))
    reason = refused(stack, 5.0)
    assert reason.startswith("No setting of near_lossless may be taken. Its ")
    assert "is above JPEG's" in reason


def test_frames_that_exceed_the_ceiling_at_every_setting_stay_lossless(stack: PixelBlock) -> None:
    assert "above the ceiling of 1.5" in refused(stack, 1.5)


def test_frames_that_lossless_coding_keeps_as_small_stay_lossless() -> None:
    noise = np.random.default_rng(7).normal(0, 3, (2, 64, 64))  # on a slope, of which zlib makes nothing
    slope = PixelBlock(np.rint(np.arange(64) * 20 + noise).astype(np.int16), 12)
    assert refused(slope, 12.0) == "Kept lossless, these frames take no more."


def test_a_sample_beyond_bits_stored_and_a_change_of_padding_are_refused(stack: PixelBlock) -> None:
    narrow = SampleLimits(int(stack.samples.min()), int(stack.samples.max()) - 1)
    chosen = choose(stack, TREATMENT, ceiling(5.0), narrow)
    assert isinstance(chosen, LosslessOnly)
    assert chosen.reason.endswith("A sample would exceed its Bits Stored.")
    padded = replace(LIMITS, padding=(100, 100))
    chosen = choose(stack, TREATMENT, ceiling(5.0), padded)
    assert isinstance(chosen, LosslessOnly)
    assert chosen.reason.endswith("A pixel of the image would become padding, or the other way round.")


def test_padding_that_is_kept_does_no_harm(stack: PixelBlock) -> None:
    samples = stack.samples.copy()
    samples[:, :6] = -2000  # the grid begins there
    chosen = choose(replace(stack, samples=samples), TREATMENT, ceiling(5.0), replace(LIMITS, padding=(-2000, -2000)))
    assert isinstance(chosen, Accepted)
    assert (chosen.coded.samples[:, :6] == -2000).all()
    assert (chosen.coded.samples[:, 6:] != -2000).all()


def test_frames_that_the_codec_does_not_code_stay_lossless() -> None:
    colour = PixelBlock(np.zeros((1, 8, 8, 3), np.uint8), 8)
    assert refused(colour, 10.0) == "The codec near_lossless does not code frames of this kind."


@pytest.mark.parametrize(
    ("codec", "options", "sentence"),
    [
        ("jpegls", {}, "No lossy codec is called 'jpegls'"),
        ("near_lossless", {"profile": "mild"}, "No profile is called 'mild'"),
        ("near_lossless", {"max_error": 0}, "at least 1"),
        ("near_lossless", {"ratio": 1.0}, "above 1"),
        ("near_lossless", {"ratio": float("nan")}, "above 1"),
        ("near_lossless", {"ratio": float("inf")}, "A ratio of inf is above 10, the highest ceiling of esr-strict"),
        ("near_lossless", {"ratio": 30.1, "profile": "car-2008"}, "A ratio of 30.1 is above 30"),
    ],
)
def test_a_treatment_that_cannot_be_is_refused(codec: str, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(UnknownTreatment, match=sentence):
        lossy_treatment(codec, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("ratio", [None, 3.0])
def test_where_a_sample_tells_near_which_setting_to_look_the_same_one_is_found(
    stack: PixelBlock, monkeypatch: pytest.MonkeyPatch, ratio: float | None
) -> None:
    treatment = replace(TREATMENT, ratio=ratio)
    expected = accepted(stack, 5.0, treatment).outcome
    monkeypatch.setattr(choice, "_SAMPLE_BUDGET", 2 * 48 * 40)
    assert accepted(stack, 5.0, treatment).outcome == expected


def test_a_codec_is_told_the_bound_that_it_may_stop_at(monkeypatch: pytest.MonkeyPatch) -> None:
    class Aiming(Quantised):
        def aiming_at(self, max_error: int) -> "Aiming":
            return Aiming(2 * max_error)

    monkeypatch.setitem(registry._LOSSY, "near_lossless", Aiming())
    assert LossyTreatment("near_lossless", max_error=6).codec().setting == 12
    assert LossyTreatment("near_lossless").codec().setting == 4
