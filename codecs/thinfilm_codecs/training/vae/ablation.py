"""Compare trained variants, and JPEG 2000, by their curves of rate and distortion.

python -m thinfilm_codecs.training.vae.ablation DATA... --checkpoints ours=FILE balle2018=FILE ... --codecs vae. A
variant's rate is the ideal code length of its rounded latents; that of a codec and of JPEG 2000 is of its streams. PSNR
is over the range of the series, as the mean over its frames.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import torch

from thinfilm_codecs import registry
from thinfilm_codecs.blocks import PixelBlock, SampleArray
from thinfilm_codecs.lossy.codec import LossyCodec
from thinfilm_codecs.lossy.vae.model import HYPER_BLOCK
from thinfilm_codecs.lossy.vae.scaling import Scaling
from thinfilm_codecs.training.stacks import NoTrainingData, Series, read_all
from thinfilm_codecs.training.vae.network import LEVELS, VARIANTS, Autoencoder

JPEG_2000 = "jpeg2000"
LOWEST_RATE, HIGHEST_RATE = 0.2, 1.0

_RATES = (0.15, 0.25, 0.45, 0.75, 1.2)
_BISECTIONS = 9
_SETTINGS = 11


@dataclass(frozen=True)
class Point:
    """One codec at one rate on one series."""

    series: str
    modality: str
    codec: str
    bits_per_pixel: float
    psnr: float


def measure(network: Autoencoder, name: str, series: Series, frames: int) -> list[Point]:
    """Return the points of a variant at all its levels."""
    scaling, found = Scaling.of(series.samples), []
    span = float(scaling.maximum - scaling.minimum)
    for level in range(LEVELS):
        bits, errors = [], []
        for frame in _spread(series.samples, frames):
            missing = [(0, -size % HYPER_BLOCK) for size in frame.shape]
            values = torch.from_numpy(np.pad(scaling.values(frame), missing, mode="symmetric"))[None, None]
            with torch.no_grad():
                decoded, spent = network(values, torch.tensor([float(level)]), noisy=False)
            outputs = np.rint(decoded[0, 0].double().numpy() * 1024)[: frame.shape[0], : frame.shape[1]]
            bits.append(spent.item() / frame.size)
            errors.append(_squared_error(frame, scaling.samples(outputs, frame.dtype.name)))
        psnr = float(np.mean(10 * np.log10(span**2 / np.maximum(errors, 1e-9))))
        found.append(Point(series.name, series.modality, name, float(np.mean(bits)), psnr))
    return found


def measure_jpeg_2000(series: Series, frames: int) -> list[Point]:
    """Return the points of JPEG 2000 (OpenJPEG, wavelet 9/7) at fixed rates."""
    low, high = int(series.samples.min()), int(series.samples.max())
    found = []
    for rate in _RATES:
        bits, errors = [], []
        for frame in _spread(series.samples, frames):
            image = (frame.astype(np.int64) - low).astype(np.uint16)
            stream = _within(image, rate)
            bits.append(8 * len(stream) / image.size)
            errors.append(_squared_error(image, imagecodecs.jpeg2k_decode(stream)))
        psnr = float(np.mean(10 * np.log10((high - low) ** 2 / np.maximum(errors, 1e-9))))
        found.append(Point(series.name, series.modality, JPEG_2000, float(np.mean(bits)), psnr))
    return found


def measure_codec(codec: LossyCodec, series: Series, frames: int) -> list[Point]:
    """Return the points of a codec of the archive at settings spread over its ladder, each frame a group of its own."""
    parameters = codec.prepare(PixelBlock(series.samples, 16))
    span = int(series.samples.max()) - int(series.samples.min())
    found = []
    for setting in codec.ladder[:: -(-len(codec.ladder) // _SETTINGS)]:
        coder, bits, errors = codec.at(setting), [], []
        for frame in _spread(series.samples, frames):
            block = PixelBlock(frame[None], 16)
            stream = coder.encode(block, parameters)
            bits.append(8 * len(stream) / frame.size)
            errors.append(_squared_error(frame, coder.decode(stream, block.layout, parameters)[0]))
        psnr = float(np.mean(10 * np.log10(span**2 / np.maximum(errors, 1e-9))))
        found.append(Point(series.name, series.modality, codec.codec_id, float(np.mean(bits)), psnr))
    return found


def _spread(samples: SampleArray, frames: int) -> SampleArray:
    step = -(-len(samples) // frames)
    return samples[step // 2 :: step]


def _squared_error(a: SampleArray, b: SampleArray) -> float:
    return float(np.square(a.astype(np.float64) - b).mean())


def _within(image: npt.NDArray[np.uint16], rate: float) -> bytes:
    """Return the stream of the highest PSNR, by bisection, that takes no more bits a pixel."""
    low, high, best = 0.0, 130.0, b""
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        level: Any = middle  # imagecodecs' stub says int, OpenJPEG takes fractions
        stream = bytes(imagecodecs.jpeg2k_encode(image, level=level, codecformat="J2K", reversible=False))
        if 8 * len(stream) > rate * image.size:
            high = middle
        else:
            low, best = middle, stream
    return best or stream


def rate_difference(points: Sequence[Point], reference: Sequence[Point]) -> float | None:
    """Return the mean relative difference of rate at equal PSNR: below 0 where `points` need less; None where none is.

    Between the PSNR that the reference has at LOWEST_RATE and HIGHEST_RATE, as far as both curves reach; logarithms of
    rates are interpolated linearly. Source: Bjøntegaard: Calculation of average PSNR differences between RD-curves,
    VCEG-M33, 2001, which fits cubics.
    """
    ours, theirs = _curve(points), _curve(reference)
    bounds = np.interp(np.log([LOWEST_RATE, HIGHEST_RATE]), theirs[0], theirs[1])
    low, high = max(bounds[0], ours[1][0]), min(bounds[1], ours[1][-1])
    if low >= high:
        return None
    psnr = np.linspace(low, high, 101)
    apart = np.interp(psnr, ours[1], ours[0]) - np.interp(psnr, theirs[1], theirs[0])
    return float(np.exp(apart.mean()) - 1)


def _curve(points: Sequence[Point]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the logarithms of the rates and the PSNRs, both rising."""
    ordered = sorted(points, key=lambda point: point.bits_per_pixel)
    rates = np.log([point.bits_per_pixel for point in ordered])
    return rates, np.maximum.accumulate(np.array([point.psnr for point in ordered]))


def summary(points: Sequence[Point]) -> list[dict[str, object]]:
    """Return for each modality and pair of codecs the mean rate difference over the series that have one."""
    of: dict[tuple[str, str, str], list[Point]] = {}
    for point in points:
        of.setdefault((point.modality, point.codec, point.series), []).append(point)
    codecs = sorted({point.codec for point in points})
    found: list[dict[str, object]] = []
    for modality in sorted({point.modality for point in points}):
        names = sorted({point.series for point in points if point.modality == modality})
        for codec in codecs:
            for reference in codecs:
                if codec == reference:
                    continue
                each = [rate_difference(of[modality, codec, name], of[modality, reference, name]) for name in names]
                known = [one for one in each if one is not None]
                if known:
                    mean = float(np.mean(known))
                    row = {"modality": modality, "codec": codec, "reference": reference, "series": len(known)}
                    found.append({**row, "rate_difference": round(mean, 4)})
    return found


def load(checkpoints: Mapping[str, Path]) -> dict[str, Autoencoder]:
    """Return the networks of checkpoints, by variant."""
    found = {}
    for variant, path in checkpoints.items():
        network = Autoencoder(VARIANTS[variant])
        network.load_state_dict(torch.load(path, map_location="cpu")["network"])
        found[variant] = network.eval()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare what command-line arguments name; return 0, or 1 where there is nothing to measure on."""
    parser = argparse.ArgumentParser(description="Compare variants of the vae codec and JPEG 2000.")
    parser.add_argument("data", nargs="+", type=Path, help="folders of DICOM series")
    parser.add_argument("--checkpoints", nargs="*", default=[], metavar="VARIANT=FILE")
    parser.add_argument("--codecs", nargs="*", default=[], choices=registry.lossy_names(), help="by their streams")
    parser.add_argument("--frames", type=int, default=2, help="frames of a series, spread over it")
    parser.add_argument("--json", type=Path, help="write the points and the summary here")
    given = parser.parse_args(arguments)
    checkpoints = dict(one.split("=", 1) for one in given.checkpoints)
    unknown = sorted(set(checkpoints) - set(VARIANTS))
    if unknown:
        parser.error(f"No variant is called {unknown[0]!r}; known are {', '.join(sorted(VARIANTS))}.")
    networks = load({variant: Path(path) for variant, path in checkpoints.items()})
    try:
        series = read_all(given.data, [])
    except NoTrainingData as error:
        sys.stderr.write(f"{error}\n")
        return 1
    points = []
    for each in series:
        points += measure_jpeg_2000(each, given.frames)
        for variant, network in networks.items():
            points += measure(network, variant, each, given.frames)
        for codec_id in given.codecs:
            points += measure_codec(registry.lossy(codec_id), each, given.frames)
    rows = summary(points)
    for row in rows:
        sys.stdout.write(json.dumps(row) + "\n")
    if given.json:
        given.json.write_text(json.dumps({"points": [asdict(point) for point in points], "summary": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
