"""Train a model of the neural codec from nothing but folders of DICOM.

python -m thinfilm_codecs.training.neural DATA... --models FOLDER: reads the series, fits the linear stage's prior,
draws pixels, trains the network as integers will hold it, and writes the model by its identity. The same data, options
and machine give the same model, also where a run was stopped and goes on from its checkpoint. Needs torch.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog

from thinfilm_codecs.lossless.neural import compiled, shape
from thinfilm_codecs.lossless.neural.model import from_arrays
from thinfilm_codecs.training.gathering import gather, joined
from thinfilm_codecs.training.prior import pooled
from thinfilm_codecs.training.resuming import OtherRun
from thinfilm_codecs.training.runs import Plan, train
from thinfilm_codecs.training.stacks import NoTrainingData, Series, read_all

_log = structlog.get_logger()

MOST_PIXELS = 500_000


Arrays = dict[str, npt.NDArray[Any]]


def model_of(
    series: Sequence[Series], plan: Plan, most: int = MOST_PIXELS, device: str = "cpu", checkpoint: Path | None = None
) -> Arrays:
    """Return the arrays of a model trained by plan on these series, on about `most` pixels of each at most.

    Raises OtherRun if the checkpoint is of another run.
    """
    random = np.random.default_rng(plan.seed)
    linear = pooled(series, random)
    data = joined(gather(series, linear, random, most))
    _log.info("gathered all", series=len(series), pixels=len(data.means))
    return train(data, plan, device, checkpoint).export(linear)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the data, train, write the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path, help="folders of DICOM, a folder a series below them")
    parser.add_argument("--models", type=Path, required=True, help="the folder to write the model to")
    parser.add_argument("--checkpoint", type=Path, help="the file to keep the run's state in, and to go on from")
    parser.add_argument("--width", type=int, choices=shape.WIDTHS, default=shape.WIDTHS[0])
    parser.add_argument("--leave-out", nargs="*", default=[], help="words; folders with one in their path are left out")
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--batch", type=int, default=8192, help="pixels of a step")
    parser.add_argument("--most", type=int, default=MOST_PIXELS, help="pixels of a series, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="what torch trains on: cpu, or cuda")
    given = parser.parse_args(arguments)
    if not compiled.instruction_sets():
        sys.exit("Training needs the neural codec's compiled kernel, which was not built here.")
    plan = Plan(given.width, given.steps, given.rate, given.batch, given.seed)
    try:
        series = read_all(given.data, given.leave_out)
        arrays = model_of(series, plan, given.most, given.device, given.checkpoint)
    except (NoTrainingData, OtherRun) as error:
        sys.exit(str(error))
    given.models.mkdir(parents=True, exist_ok=True)
    target = given.models / f"{from_arrays(arrays).identity.hex()}.npz"
    np.savez_compressed(target, **arrays)  # type: ignore[arg-type]
    _log.info("written", model=str(target))


if __name__ == "__main__":
    main()
