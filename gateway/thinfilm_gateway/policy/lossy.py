"""What lossy compression is asked for: a codec, under the ceilings of a profile, within bounds."""

from dataclasses import dataclass

from thinfilm_codecs import registry
from thinfilm_codecs.lossy.codec import LossyCodec
from thinfilm_gateway.policy import ceilings
from thinfilm_gateway.policy.lossless import DEVICES, UnknownTreatment


@dataclass(frozen=True)
class LossyTreatment:
    """How images are to be compressed lossily.

    max_error: the largest absolute error that a sample may have. ratio: what is to be reached, native to coded bytes,
    by the gentlest setting that does; without one, the coarsest setting is taken that stays below the ceiling.
    preset, device: how hard the codec tries, and where it computes, if it knows either.
    """

    codec_id: str
    profile: str = ceilings.DEFAULT_PROFILE
    max_error: int | None = None
    ratio: float | None = None
    preset: str = registry.DEFAULT_PRESET
    device: str = DEVICES[0]

    def codec(self) -> LossyCodec:
        """Return the codec, at its gentlest setting."""
        return self._aimed(_tuned(self.codec_id, self.preset, self.device))

    def fastest(self) -> LossyCodec:
        """Return the codec as it tries least, whose streams tell nearly what the others will be."""
        return self._aimed(_tuned(self.codec_id, registry.PRESETS[0], DEVICES[0]))

    def _aimed(self, codec: LossyCodec) -> LossyCodec:
        return codec if self.max_error is None else codec.aiming_at(self.max_error)


def _tuned(codec_id: str, preset: str, device: str) -> LossyCodec:
    tuned = registry.lossy(codec_id).tuned(preset, device)
    assert isinstance(tuned, LossyCodec), "Every tuning of a lossy codec is one."
    return tuned


def lossy_treatment(
    codec_id: str,
    profile: str | None = None,
    max_error: int | None = None,
    ratio: float | None = None,
    preset: str = registry.DEFAULT_PRESET,
    device: str = DEVICES[0],
) -> LossyTreatment:
    """Return the treatment of these names and numbers; preset and device are those of a Treatment.

    Raises UnknownTreatment.
    """
    if codec_id not in registry.lossy_names():
        raise UnknownTreatment(
            f"No lossy codec is called {codec_id!r}; choose among {', '.join(registry.lossy_names())}."
        )
    profile = profile or ceilings.DEFAULT_PROFILE
    try:
        highest = max(ceiling.ratio for ceiling in ceilings.profile(profile).ceilings)
    except ceilings.UnknownProfile as error:
        raise UnknownTreatment(str(error)) from None
    if max_error is not None and max_error < 1:
        raise UnknownTreatment("The largest error that is allowed is at least 1; for none, name a lossless codec.")
    if ratio is not None and not ratio > 1:
        raise UnknownTreatment("The ratio that is asked for is above 1.")
    if ratio is not None and ratio > highest:
        raise UnknownTreatment(f"A ratio of {ratio:g} is above {highest:g}, the highest ceiling of {profile}.")
    return LossyTreatment(codec_id, profile, max_error, ratio, preset, device)
