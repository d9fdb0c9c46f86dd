"""Train a model of the vae codec, or an ablation of it.

python -m thinfilm_codecs.training.vae DATA... --checkpoint FILE --models FOLDER. Seeded and resumable: a run that is
stopped goes on from its checkpoint. Needs torch and pydicom.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import structlog

from thinfilm_codecs.lossless import model_files
from thinfilm_codecs.training.resuming import OtherRun
from thinfilm_codecs.training.stacks import NoTrainingData, read_all
from thinfilm_codecs.training.vae.crops import Crops
from thinfilm_codecs.training.vae.export import model_arrays
from thinfilm_codecs.training.vae.network import VARIANTS
from thinfilm_codecs.training.vae.run import LOSSES, Plan, train

_log = structlog.get_logger()

_COUNTED = range(10**9, 10**9 + 200)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the training named by command-line arguments; return 0, or 1 where it cannot be."""
    parser = argparse.ArgumentParser(description="Train a model of the vae codec, or an ablation of it.")
    parser.add_argument("data", nargs="+", type=Path, help="folders of DICOM series")
    parser.add_argument("--leave-out", nargs="*", default=[], help="words: leave out folders whose path has one")
    parser.add_argument("--checkpoint", required=True, type=Path, help="the run's state: kept here, gone on from here")
    parser.add_argument("--models", type=Path, help="folder for the model file; of the variant ours only")
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="ours")
    parser.add_argument("--loss", choices=sorted(LOSSES), default="mse")
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    given = parser.parse_args(arguments)
    if given.models and given.variant != "ours":
        parser.error("Only the variant ours makes model files; leave --models away for an ablation.")
    try:
        series = read_all(given.data, given.leave_out)
        plan = Plan(given.variant, given.steps, seed=given.seed, loss=given.loss)
        crops = Crops(series, plan.seed, plan.batch)
        network = train(crops, plan, given.device, given.checkpoint)
    except (NoTrainingData, OtherRun) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if given.models:
        arrays = model_arrays(network, crops, _COUNTED)
        identity = model_files.identity_of(arrays).hex()
        given.models.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(given.models / f"{identity}.npz", **arrays)  # type: ignore[arg-type]
        _log.info("exported", model=identity, folder=str(given.models))
    return 0


if __name__ == "__main__":
    sys.exit(main())
