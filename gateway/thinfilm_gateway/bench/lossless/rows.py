"""One row: one codec on one series."""

from dataclasses import dataclass
from typing import Any

from thinfilm_gateway.bench.lossless import entrants
from thinfilm_gateway.bench.lossless.measure import Measurement, Verdict
from thinfilm_gateway.bench.series import Series


@dataclass(frozen=True)
class Row:
    """A measurement, and what it was made of.

    name: the codec's, as in `--codecs`. noise_entropy: estimated bits of noise a sample of the series.
    """

    series: Series
    name: str
    noise_entropy: float
    measured: Measurement

    @property
    def exact(self) -> bool:
        """Whether there are figures."""
        return self.measured.verdict is Verdict.EXACT

    @property
    def codec(self) -> str:
        """The codec's id."""
        return entrants.identity(self.name).codec

    @property
    def preset(self) -> str:
        """How hard it tried; empty where it has no choice."""
        return entrants.identity(self.name).preset

    @property
    def bits_per_pixel(self) -> float:
        """Coded bits a sample, all parameters counted."""
        return 8 * self.measured.coded_bytes / self.series.pixels

    def to_json(self) -> dict[str, Any]:
        """Return the row of the JSON contract; without figures where the measurement is not exact."""
        series, measured = self.series, self.measured
        named = {
            "series": series.name,
            "series_instance_uid": series.uid,
            "modality": series.modality,
            "repeats_places": series.repeats_places,
            "pixels": series.pixels,
            "native_pixel_bytes": series.native_bytes,
            "noise_entropy": round(self.noise_entropy, 4),
            "name": self.name,
            "codec": self.codec,
            "preset": self.preset,
            "verdict": measured.verdict.value,
            "reason": measured.reason,
        }
        if not self.exact:
            return named | dict.fromkeys(_FIGURES)
        coding_seconds = measured.encode_seconds - measured.fitting_seconds
        figures = (
            measured.coded_bytes,
            round(self.bits_per_pixel, 5),
            round(series.native_bytes / measured.coded_bytes, 4),
            round(self.bits_per_pixel - self.noise_entropy, 4),
            round(speed(series.pixels, measured.encode_seconds), 4),
            round(speed(series.pixels, coding_seconds), 4),
            round(speed(series.pixels, measured.decode_seconds), 4),
        )
        return named | dict(zip(_FIGURES, figures, strict=True))


_FIGURES = (
    "coded_pixel_bytes",
    "bits_per_pixel",
    "ratio",
    "excess_over_noise",
    "encode_mpixel_s",
    "coding_mpixel_s",
    "decode_mpixel_s",
)


def speed(pixels: int, seconds: float) -> float:
    """Return millions of samples a second."""
    return pixels / max(seconds, 1e-9) / 1e6
