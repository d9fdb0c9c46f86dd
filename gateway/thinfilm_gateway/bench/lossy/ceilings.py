"""The ceilings at which codecs are compared: those of the profile esr-strict, on the basis of Bits Allocated."""

CEILINGS = {"CT": 5, "MR": 5, "CR": 10, "DX": 10, "RF": 6, "XA": 6, "US": 10}
"""Modality to the largest ratio that is permitted; what is not named is never kept lossy."""


def permitted_rate(modality: str, bits_allocated: int) -> float | None:
    """Return the bits a sample that the ceiling leaves; None for a modality that has none."""
    return bits_allocated / CEILINGS[modality] if modality in CEILINGS else None
