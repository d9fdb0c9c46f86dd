"""The plot of `thinfilm bench lossy`: quality over rate for each modality, and generational loss."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thinfilm_gateway.bench.lossless.plot import FORMATS, CannotPlot
from thinfilm_gateway.bench.lossy.bjontegaard import quality_at
from thinfilm_gateway.bench.lossy.figures import Figures
from thinfilm_gateway.bench.lossy.loss import Generations
from thinfilm_gateway.bench.lossy.rows import Row
from thinfilm_gateway.bench.lossy.summary import curve

_GRID = np.geomspace(0.125, 6, 60)


def check(path: Path) -> None:
    """Raise CannotPlot, before anything is measured, if `plot` could not draw into this file."""
    if importlib.util.find_spec("matplotlib") is None:
        raise CannotPlot("matplotlib is not installed: pip install 'thinfilm[bench]'.")
    if path.suffix.lower() not in FORMATS:
        raise CannotPlot(f"{path} does not end with {' or '.join(FORMATS)}.")


def plot(figures: Figures, path: Path) -> None:
    """Draw a panel a group of series, and one of generational loss where it was measured. Raises OSError."""
    from matplotlib.figure import Figure

    rows = figures.rows
    groups = sorted({row.subject.group for row in rows})
    colours = {codec: f"C{number}" for number, codec in enumerate(dict.fromkeys(row.codec for row in rows))}
    panels = len(groups) + bool(figures.generations)
    columns = min(3, panels)
    figure = Figure(figsize=(5.5 * columns, 4.2 * -(-panels // columns)), layout="constrained")
    axes = np.atleast_1d(figure.subplots(-(-panels // columns), columns)).reshape(-1)
    for group, panel in zip(groups, axes, strict=False):
        _rate_and_quality(panel, group, [row for row in rows if row.subject.group == group], colours)
    if figures.generations:
        _generational_loss(axes[len(groups)], figures.generations, colours)
    for unused in axes[panels:]:
        unused.set_visible(False)
    figure.savefig(path, dpi=120)


def _rate_and_quality(panel: Any, group: str, rows: Sequence[Row], colours: dict[str, str]) -> None:
    """Draw the points of all series faintly, and the mean curve over the series that reach a rate."""
    names = list(dict.fromkeys(row.subject.series.name for row in rows))
    for codec, colour in colours.items():
        of_codec = [row for row in rows if row.codec == codec]
        if not of_codec:
            continue
        curves = [curve(row for row in of_codec if row.subject.series.name == name) for name in names]
        means = [_mean_quality(curves, float(rate)) for rate in _GRID]
        panel.scatter(
            [row.bits_per_pixel for row in of_codec], [row.point.psnr_stored for row in of_codec], 6, colour, alpha=0.3
        )
        panel.plot(_GRID, means, color=colour, label=codec)
    rates = {row.subject.rate for row in rows} - {None}
    for rate in rates:
        panel.axvline(rate, color="black", linestyle=":", linewidth=1)
    panel.set(title=f"{group}, {len(names)} series", xlabel="bits a sample", ylabel="PSNR, dB (stored range)")
    panel.set_xscale("log")
    panel.grid(True, which="both", alpha=0.25)
    panel.legend(fontsize=7)


def _mean_quality(curves: Sequence[Any], rate: float) -> float:
    """Return the mean over the curves, where all that exist reach the rate; else not a number."""
    found = [quality_at(each, rate) for each in curves if len(each) > 1]
    known = [quality for quality in found if quality is not None]
    return float(np.mean(known)) if known and len(known) == len(found) else float("nan")


def _generational_loss(panel: Any, found: Sequence[Generations], colours: dict[str, str]) -> None:
    for each in (each for each in found if each.rmse):
        passes = range(1, len(each.rmse) + 1)
        label = f"{each.codec} at {each.setting:g}"
        panel.plot(passes, each.rmse, color=colours.get(each.codec, "black"), label=label)
    panel.set(title=f"Generational loss, {found[0].series}", xlabel="pass", ylabel="RMSE to the original")
    panel.set_ylim(bottom=0)
    panel.grid(True, alpha=0.25)
    panel.legend(fontsize=7)
