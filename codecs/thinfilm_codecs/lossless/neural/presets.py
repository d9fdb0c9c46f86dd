"""How long an encoder fits the model to a stack; every decoder reads all."""

import enum


class Preset(enum.Enum):
    """How long the encoder fits the model to a stack."""

    FAST = "fast"  # the shipped network, a fitted linear stage
    DEFAULT = "default"  # the network fitted too, for about as long as 0.3 Mpixel/s allow
    MAX = "max"  # the same, for ten times as long
