"""The order in which planes of numbers are coded: diagonals, so that a step's numbers know what lies above and left.

Format: docs/formats/kwavelet.md, "Order".
"""

from collections.abc import Iterator, Sequence

import numpy as np

from thinfilm_codecs.lossy.adaptive import Int64

MARGIN = 2
"""Zeros around each plane, so that every number has neighbours."""

_ROW_LAG = 2


def diagonals(sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[Int64, Int64, Int64]]:
    """Yield plane, row and column, the latter two behind the margin, of the numbers (n,) of each step.

    sizes: rows and columns of each plane. The steps have those numbers of all planes with equal column + 2 row.
    """
    planes = np.repeat(np.arange(len(sizes)), [rows for rows, _ in sizes])
    rows = np.concatenate([np.arange(rows) for rows, _ in sizes])
    widths = np.array([columns for _, columns in sizes])[planes]
    for step in range(int(np.max(_ROW_LAG * rows + widths, initial=0))):
        columns = step - _ROW_LAG * rows
        lines = np.flatnonzero((columns >= 0) & (columns < widths))
        if len(lines):
            yield planes[lines], rows[lines] + MARGIN, columns[lines] + MARGIN
