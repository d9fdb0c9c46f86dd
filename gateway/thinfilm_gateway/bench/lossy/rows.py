"""One row: one codec on one series at one setting."""

import math
from dataclasses import dataclass
from typing import Any

from thinfilm_codecs import registry
from thinfilm_gateway.bench.lossless.rows import speed
from thinfilm_gateway.bench.lossy.measure import Measurement, Point
from thinfilm_gateway.bench.series import Series

STANDARD_SETTINGS = {
    "jpeg": "quality",
    "jpeg12": "quality",
    "jpeg2000": "psnr",
    "jpegls-near": "max_error",
    "jpegxl": "distance",
}


@dataclass(frozen=True)
class Subject:
    """What is measured.

    series: where it is cut, a stack of its middle frames, for codecs too slow for all. rate: bits a sample that the
    ceiling of its modality leaves, None where it has none.
    """

    series: Series
    is_cut: bool
    rate: float | None

    @property
    def group(self) -> str:
        """Its modality; that of a cut series is apart, since it has fewer frames."""
        return f"{self.series.modality} cut" if self.is_cut else self.series.modality


@dataclass(frozen=True)
class Result:
    """All that one codec came to on one subject."""

    subject: Subject
    codec: str
    measured: Measurement


@dataclass(frozen=True)
class Row:
    """One point of a result."""

    subject: Subject
    codec: str
    point: Point

    @property
    def bits_per_pixel(self) -> float:
        """Coded bits a sample, all parameters counted."""
        return 8 * self.point.coded_bytes / self.subject.series.pixels

    @property
    def encode_mpixel_s(self) -> float:
        """Millions of samples a second."""
        return speed(self.subject.series.pixels, self.point.encode_seconds)

    @property
    def decode_mpixel_s(self) -> float:
        """Millions of samples a second."""
        return speed(self.subject.series.pixels, self.point.decode_seconds)

    def to_json(self) -> dict[str, Any]:
        """Return the row of the JSON contract; infinite decibels are null."""
        series, point = self.subject.series, self.point
        return {
            "series": series.name,
            "modality": series.modality,
            "group": self.subject.group,
            "pixels": series.pixels,
            "codec": self.codec,
            "setting": point.setting,
            "setting_name": setting_name(self.codec),
            "target_bits_per_pixel": list(point.targets),
            "bits_per_pixel": round(self.bits_per_pixel, 5),
            "ratio_allocated": round(series.native_bytes / point.coded_bytes, 4),
            "rmse": round(point.rmse, 4),
            "psnr_stored": finite(point.psnr_stored),
            "psnr_volume": finite(point.psnr_volume),
            "ssim": round(point.ssim, 6),
            "ms_ssim": round(point.ms_ssim, 6),
            "max_error": point.max_error,
            "p999_error": point.p999_error,
            "noise_texture": None if point.noise_texture is None else round(point.noise_texture, 4),
            "encode_mpixel_s": round(self.encode_mpixel_s, 4),
            "decode_mpixel_s": round(self.decode_mpixel_s, 4),
        }


def rows_of(results: list[Result]) -> tuple[Row, ...]:
    """Return a row a point."""
    return tuple(Row(result.subject, result.codec, point) for result in results for point in result.measured.points)


def setting_name(codec: str) -> str:
    """Return what the setting of a codec is."""
    return STANDARD_SETTINGS.get(codec) or registry.lossy(codec).setting_name


def finite(decibels: float) -> float | None:
    """Return decibels for JSON, which knows no infinity."""
    return round(decibels, 4) if math.isfinite(decibels) else None
