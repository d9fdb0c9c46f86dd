"""The ceilings at which codecs are compared: those of the default profile, on the basis of Bits Allocated."""

from thinfilm_gateway.policy.ceilings import DEFAULT_PROFILE, Ceiling, profile


def permitted_rate(modality: str, bits_allocated: int) -> float | None:
    """Return the bits a sample that the ceiling leaves; None for a modality that is kept lossless."""
    ceiling = profile(DEFAULT_PROFILE).ceiling(modality, "")
    return bits_allocated / ceiling.ratio if isinstance(ceiling, Ceiling) else None
