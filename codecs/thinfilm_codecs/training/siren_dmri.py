"""Set sine networks beside other codecs on diffusion series: rate, errors, and what becomes of FA and MD.

python -m thinfilm_codecs.training.siren_dmri FOLDER... --places 2 --json FILE. Prints a table a folder. Needs torch and
pydicom; FA, MD and MP-PCA need dipy.
"""

import argparse
import json
import lzma
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import structlog

from thinfilm_codecs.blocks import PixelBlock, SampleArray
from thinfilm_codecs.lossless.neural import Neural
from thinfilm_codecs.lossless.neural.presets import Preset
from thinfilm_codecs.lossy.near_lossless import NearLossless
from thinfilm_codecs.lossy.pca import PrincipalComponents
from thinfilm_codecs.lossy.siren import Siren
from thinfilm_codecs.lossy.siren.fitting import Floats, Slices, fit_floats
from thinfilm_codecs.lossy.siren.network import coordinates
from thinfilm_codecs.lossy.siren.plans import Effort, Plan, Variant
from thinfilm_codecs.lossy.stack import CodedStack, code, gentlest
from thinfilm_codecs.quality.anchors import Jpeg2000
from thinfilm_codecs.quality.metrics import maximum_error, psnr, rmse, volume_range
from thinfilm_codecs.quality.similarity import structural_similarity
from thinfilm_codecs.training.diffusion import Acquisition, Maps, NoDiffusionSeries, Tensor, denoised, read

_log = structlog.get_logger()

PARTS = ("jpeg2000", "near_lossless", "pca", "siren", "variants", "paper", "denoising")
RATIOS = (3.0, 5.0, 10.0, 20.0)
PAPER_WIDTH, PAPER_HIDDEN = 256, 3


@dataclass(frozen=True)
class Row:
    """How one codec did at one rate.

    ratio: bytes of samples of 16 bits to the bytes kept. psnr: by the range of the samples that occur. fa_error,
    md_error: medians of relative errors in the mask; None where there is no tensor. seconds: to encode and decode.
    """

    series: str
    codec: str
    setting: str
    ratio: float
    bits_per_sample: float
    psnr: float
    ssim: float
    rmse: float
    max_error: int
    fa_error: float | None
    md_error: float | None
    seconds: float


@dataclass(frozen=True, eq=False)
class _Decoded:
    codec: str
    setting: str
    nbytes: float
    samples: SampleArray


class Bench:
    """The codecs on an acquisition. fit: how long networks are fitted, a group or all networks of the seed's form."""

    def __init__(self, acquisition: Acquisition, effort: Effort) -> None:
        self._acquisition, self._effort = acquisition, effort
        volumes, places, rows, columns = acquisition.samples.shape
        self._block = PixelBlock(acquisition.samples.reshape(volumes * places, rows, columns), acquisition.bits_stored)
        self._range = volume_range(acquisition.samples)
        self._tensor: Tensor | None = None
        self._maps: Maps | None = None
        try:
            self._tensor = Tensor(acquisition)
            self._maps = self._tensor.maps(acquisition.samples)
        except NoDiffusionSeries as error:
            _log.warning("no tensor", series=acquisition.name, reason=str(error))

    def rows(self, parts: Sequence[str], ratios: Sequence[float], paper_ratio: float) -> Iterator[Row]:
        """Yield what each codec of the parts does, at each ratio where it has a setting for it."""
        entrants: dict[str, list[Callable[[], _Decoded | None]]] = {
            "jpeg2000": [partial(self._jpeg2000, ratio) for ratio in ratios],
            "near_lossless": [partial(self._near_lossless, ratio) for ratio in ratios],
            "pca": [partial(self._pca, ratio) for ratio in ratios],
            "siren": [partial(self._siren, ratio) for ratio in ratios],
            "variants": [
                *(partial(self._as_in_the_paper, variant, paper_ratio) for variant in Variant),
                partial(self._as_in_the_paper, Variant.SIREN, paper_ratio, volumetric=True),
            ],
            "paper": [partial(self._as_in_the_paper, Variant.SIREN, None)],
            "denoising": [self._denoised] if self._tensor is not None else [],
        }
        for entrant in (each for part in parts for each in entrants[part]):
            begun = time.monotonic()
            found = entrant()
            if found is not None:
                yield self._row(found, time.monotonic() - begun)

    def _row(self, found: _Decoded, seconds: float) -> Row:
        original, decoded = self._acquisition.samples, found.samples.reshape(self._acquisition.samples.shape)
        fa_error, md_error = None, None
        if self._tensor is not None and self._maps is not None:
            fa_error, md_error = self._maps.relative_errors(self._tensor.maps(decoded))
        row = Row(
            self._acquisition.name,
            found.codec,
            found.setting,
            2 * original.size / found.nbytes,
            8 * found.nbytes / original.size,
            psnr(original, decoded, self._range),
            structural_similarity(original, decoded, self._range),
            rmse(original, decoded),
            maximum_error(original, decoded),
            fa_error,
            md_error,
            seconds,
        )
        _log.info("measured", **asdict(row))
        return row

    def _jpeg2000(self, ratio: float) -> _Decoded:
        """Code each frame alone, as DICOM has it."""
        anchor = Jpeg2000(self._acquisition.bits_stored)
        streams = [anchor.within(frame, 16 / ratio) for frame in self._block.samples]
        samples = np.stack([anchor.decode(stream) for stream in streams])
        return _Decoded("JPEG 2000", f"ratio {ratio:g}", sum(map(len, streams)), samples)

    def _near_lossless(self, ratio: float) -> _Decoded | None:
        codec = NearLossless(engine=Neural(Preset.FAST))
        return self._coded(gentlest(self._block, codec, lambda coded: self._reaches(coded, ratio)))

    def _pca(self, ratio: float) -> _Decoded | None:
        codec = PrincipalComponents(engine=Neural(Preset.FAST))
        return self._coded(gentlest(self._block, codec, lambda coded: self._reaches(coded, ratio)))

    def _siren(self, ratio: float) -> _Decoded | None:
        """Code at the gentlest setting of at least this ratio, if that is not the setting of a smaller one too."""
        settings = [setting for setting in Siren.ladder if setting <= 16 / ratio]
        if settings[0] == Siren.ladder[0] and 16 / ratio > 1.25 * settings[0]:
            return None
        return self._coded(code(self._block, Siren(settings[0], self._effort)))

    def _reaches(self, coded: CodedStack, ratio: float) -> bool:
        return 2 * coded.samples.size >= ratio * coded.nbytes

    def _coded(self, coded: CodedStack | None) -> _Decoded | None:
        if coded is None:
            return None
        setting = f"{coded.codec.setting_name} {coded.codec.setting:g}"
        return _Decoded(coded.codec.codec_id, setting, coded.nbytes, coded.samples)

    def _denoised(self) -> _Decoded:
        """Take MP-PCA's word for the samples: no codec, but a yardstick of what is thought harmless."""
        limits = np.iinfo(self._acquisition.samples.dtype)
        cleaned = np.rint(denoised(self._acquisition.samples)).clip(limits.min, limits.max)
        samples = cleaned.astype(self._acquisition.samples.dtype)
        return _Decoded("MP-PCA denoising", "", 2 * samples.size, samples)

    def _as_in_the_paper(self, variant: Variant, ratio: float | None, *, volumetric: bool = False) -> _Decoded:
        """Fit networks of three layers and keep their float32 by LZMA; as wide as the ratio allows, or 256."""
        samples = self._acquisition.samples
        volumes, places, rows, columns = samples.shape
        wanted = samples.transpose(1, 2, 3, 0).reshape(places, rows * columns, volumes).astype(np.float32)
        inputs = coordinates((rows, columns))
        if volumetric:
            wanted, inputs = wanted.reshape(1, -1, volumes), coordinates((places, rows, columns))
        width = PAPER_WIDTH
        if ratio is not None:
            budget = samples.size * 16 / ratio / 32 / len(wanted)
            linear = inputs.shape[1] + PAPER_HIDDEN + volumes
            width = int((math.sqrt(linear**2 + 8 * (budget - volumes)) - linear) / 4)
        plan = Plan(width, PAPER_HIDDEN, variant, bits=None)
        networks, said = fit_floats(Slices(inputs, wanted), plan, self._effort, "cpu")
        decoded = np.rint(said).clip(samples.min(), samples.max()).astype(samples.dtype)
        frames = decoded.reshape(places, rows, columns, volumes).transpose(3, 0, 1, 2)
        name = "siren-3d" if volumetric else variant.value
        return _Decoded(f"{name}, float32 + LZMA", f"3 x {width}", _float_bytes(networks), frames)


def _float_bytes(networks: list[Floats]) -> int:
    """Return the bytes of networks whose float32 are kept by LZMA, as 7-Zip does it."""
    kept = [tensor.cpu().numpy().astype("<f4").tobytes() for part in networks for tensor in part.weights + part.biases]
    return len(lzma.compress(b"".join(kept), preset=9))


def table(rows: list[Row]) -> str:
    """Return the rows in markdown."""
    lines = [
        "| codec | setting | ratio | bits a sample | PSNR dB | SSIM | RMSE | max error | FA error | MD error | s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        errors = " | ".join("-" if each is None else f"{100 * each:.2f} %" for each in (row.fa_error, row.md_error))
        lines.append(
            f"| {row.codec} | {row.setting} | {row.ratio:.2f} | {row.bits_per_sample:.3f} | {row.psnr:.2f} | "
            f"{row.ssim:.4f} | {row.rmse:.2f} | {row.max_error} | {errors} | {row.seconds:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print a table a folder, and keep all rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders with a diffusion series each")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is measured; all by default")
    parser.add_argument("--places", type=int, default=2, help="slices, of the middle")
    parser.add_argument("--ratios", type=float, nargs="+", default=list(RATIOS))
    parser.add_argument("--paper-ratio", type=float, default=10.0, help="of the variants in the form of the paper")
    parser.add_argument("--epochs", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=math.inf, help="of each fit, at the most")
    parser.add_argument("--rate", type=float, default=Effort().rate)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    effort = Effort(given.epochs, given.seconds, rate=given.rate)
    found: list[Row] = []
    for folder in given.folders:
        try:
            acquisition = read(folder)
        except NoDiffusionSeries as error:
            sys.exit(str(error))
        rows = list(Bench(acquisition.some(given.places), effort).rows(given.parts, given.ratios, given.paper_ratio))
        sys.stdout.write(f"\n{acquisition.name}, {acquisition.samples.shape[0]} volumes\n\n{table(rows)}\n")
        found += rows
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
