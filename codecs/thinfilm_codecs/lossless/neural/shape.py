"""The fixed numbers of the format: sizes of the network, of the linear stage and of the distribution.

Format: docs/formats/neural.md. The kernel's header states the same numbers for C.
"""

BLOCK = 8
TAPS = 7 * BLOCK
INPUTS = 18 * BLOCK
WIDTHS = (96, 192)  # of the first hidden layer
HIDDEN_2 = 32
OUTPUTS = 16
COMPONENTS = 8
BINS = 128
CURVE = 4096
ACTIVITY_CLASSES = 8
CONSISTENCY_CLASSES = 4
CLASSES = ACTIVITY_CLASSES * (CONSISTENCY_CLASSES + 1)
ROW_LAG = 4
FRAME_LAG = 12
BATCH = 32
STATES = 4
FLAG_CONTEXTS = 3

COEFFICIENT_ONE = 4096
"""A coefficient of the linear stage that stands for 1."""

WEIGHT_ONE = 64
"""A weight of the network that stands for 1."""

BIAS_ONE = (1024, 2048, 2048)
"""A bias of each layer that stands for 1."""

BIAS_STEPS = (16, 32, 32)
"""Biases move in such steps; like a step of a weight, one is worth 1 / 64."""
