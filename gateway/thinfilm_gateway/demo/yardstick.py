"""What JPEG-LS makes of the same series: the ratio that the demo shows beside the gateway's own."""

from collections.abc import Sequence
from pathlib import Path

from thinfilm_gateway.archive.container.pack import Source, pack
from thinfilm_gateway.client.files import DicomFile
from thinfilm_gateway.policy import lossless

YARDSTICK = "jpegls"


def yardstick_bytes(files: Sequence[DicomFile], scratch: Path) -> int | None:
    """Return the bytes of a container of the files with JPEG-LS; None if it coded no frame of them."""
    container = scratch / "yardstick.tfa"
    sources = [Source(file.path, file.sop_instance_uid) for file in files]
    try:
        report = pack(sources, container, lossless.treatment([YARDSTICK]))
    finally:
        container.unlink(missing_ok=True)
    return report.archive_bytes if YARDSTICK in report.codecs else None
