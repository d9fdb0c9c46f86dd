"""Stacks of frames from folders of DICOM: what training reads."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import structlog
from pydicom.errors import InvalidDicomError

from thinfilm_codecs.blocks import SampleArray

_log = structlog.get_logger()


def series_folders(roots: list[Path], leave_out: list[str]) -> Iterator[Path]:
    """Yield every folder below the roots that holds files, in order; not those whose path contains a word left out."""
    for root in roots:
        for folder in sorted({file.parent for file in root.rglob("*") if file.is_file()}):
            if not any(word in str(folder) for word in leave_out):
                yield folder


def read_stack(folder: Path) -> SampleArray | None:
    """Return (frames, rows, columns) of the monochrome images of a folder by Instance Number; None if it has none."""
    images = []
    for file in sorted(folder.iterdir()):
        try:
            data_set = pydicom.dcmread(file, force=True)
            frames = data_set.pixel_array
        except (InvalidDicomError, AttributeError, ValueError, NotImplementedError, RuntimeError) as error:
            _log.debug("left out of training", file=str(file), reason=str(error))
            continue
        if data_set.get("SamplesPerPixel", 1) == 1:
            images.append((int(data_set.get("InstanceNumber") or 0), frames.reshape(-1, *frames.shape[-2:])))
    if not images:
        return None
    shape, _ = Counter(frames.shape[1:] for _, frames in images).most_common(1)[0]
    images.sort(key=lambda image: image[0])
    return np.concatenate([frames for _, frames in images if frames.shape[1:] == shape])
