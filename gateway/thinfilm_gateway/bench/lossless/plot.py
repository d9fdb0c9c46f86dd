"""The plot of `thinfilm bench lossless`: size against decode speed."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from thinfilm_gateway.bench.lossless.entrants import JPEGLS
from thinfilm_gateway.bench.lossless.summary import ALL, Summary

FORMATS = (".png", ".svg")


class CannotPlot(Exception):
    """There can be no such plot; the message is one sentence."""


def check(path: Path, names: Sequence[str]) -> None:
    """Raise CannotPlot, before anything is measured, if `plot` could not draw these codecs into this file."""
    if importlib.util.find_spec("matplotlib") is None:
        raise CannotPlot("matplotlib is not installed: pip install 'thinfilm[bench]'.")
    if path.suffix.lower() not in FORMATS:
        raise CannotPlot(f"{path} does not end with {' or '.join(FORMATS)}.")
    if JPEGLS not in names:
        raise CannotPlot(f"The plot shows sizes beside that of JPEG-LS; add {JPEGLS} to --codecs.")


def plot(summaries: Sequence[Summary], path: Path) -> None:
    """Draw size (geometric mean to JPEG-LS over all series, with its interval) over decode speed. Raises OSError."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for summary in summaries:
        ratio = next((ratio for ratio in summary.ratios if ratio.reference == JPEGLS), None)
        if summary.group != ALL or ratio is None:
            continue
        reach = [[ratio.mean - ratio.low], [ratio.high - ratio.mean]]
        axes.errorbar([summary.decode_mpixel_s], [ratio.mean], yerr=reach, fmt="o", capsize=3)
        axes.annotate(
            summary.name, (summary.decode_mpixel_s, ratio.mean), textcoords="offset points", xytext=(7, 5), fontsize=9
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(ScalarFormatter())
    axes.margins(x=0.15)
    axes.set_xlabel("decode, Mpixel/s on one core")
    axes.set_ylabel("size, of JPEG-LS")
    axes.grid(True, which="both", alpha=0.25)
    figure.savefig(path, dpi=150)
