"""What is fitted to a group, and for how long."""

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass


class Variant(enum.Enum):
    """The networks of the paper. Streams keep those of sines alone."""

    SIREN = "siren"
    SIREN_RELU = "siren-relu"  # a rectifier behind the last layer: no output below the minimum
    MLP_RELU = "mlp-relu"
    MLP_TANH = "mlp-tanh"
    MLP_SIREN = "mlp-siren"  # sines in the first layer, rectifiers in the others


@dataclass(frozen=True)
class Plan:
    """What is fitted. bits: what a weight shall take once it is coded; None for floats, as in the paper."""

    width: int
    hidden: int = 3
    variant: Variant = Variant.SIREN
    bits: float | None = 6.0


@dataclass(frozen=True)
class Effort:
    """How long a fit goes on: an epoch sees every point, or `points` of them drawn anew.

    seconds: of the whole group, at most. target_rmse: in units of a sample; a network that is so near gets rounded
    and is done. progress: is told the share that is done and the error of the networks at hand.
    """

    epochs: int = 2000
    seconds: float = math.inf
    target_rmse: float = 0.0
    rate: float = 3e-3
    points: int = 1 << 14
    progress: Callable[[float, float], None] | None = None


EFFORTS = {"fast": Effort(300, 20.0), "default": Effort(1000, 120.0), "max": Effort(4000, 1800.0)}
"""By the presets of the registry."""
