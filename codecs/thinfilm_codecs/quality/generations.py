"""Generational loss: what becomes of samples that are coded again and again, each time from the last decode."""

from collections.abc import Callable

from thinfilm_codecs.blocks import PixelBlock, SampleArray
from thinfilm_codecs.quality.metrics import rmse


def generations(original: PixelBlock, coded: Callable[[PixelBlock], SampleArray], passes: int) -> list[float]:
    """Return the root mean square error to the original after each pass.

    coded: what a stack decodes to once it was coded, with the same settings at each pass. As soon as a pass gives back
    what it was given, so do all others, and none is run again.
    """
    errors: list[float] = []
    block = original
    while len(errors) < passes:
        samples = coded(block)
        errors.append(rmse(original.samples, samples))
        if (samples == block.samples).all():
            return errors + errors[-1:] * (passes - len(errors))
        block = PixelBlock(samples, block.bits_stored, block.frame_axis, block.spacing)
    return errors
