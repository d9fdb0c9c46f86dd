"""How many frames make one group: enough for a codec to work well, few enough to read one frame cheaply."""

import numpy as np

from thinfilm_codecs.blocks import BlockLayout

GROUP_BYTES = 256 * 1024
"""Small frames are gathered to about this many bytes of raw samples."""


def frames_in(layout: BlockLayout, max_frames: int | None = None) -> int:
    """Return the frames of one group: at least 1, at most those of the stack and `max_frames`."""
    frame_bytes = layout.rows * layout.columns * layout.components * np.dtype(layout.dtype).itemsize
    frames = min(GROUP_BYTES // frame_bytes, layout.frames)
    if max_frames is not None:
        frames = min(frames, max_frames)
    return max(frames, 1)
