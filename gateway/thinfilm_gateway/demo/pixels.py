"""How small the gateway made the pixels of each series, and how small JPEG-LS makes the same frames."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from thinfilm_gateway.archive.container.pack import Source, pack
from thinfilm_gateway.archive.container.reader import open_container
from thinfilm_gateway.archive.container.report import PackedSeries, series_rows
from thinfilm_gateway.archive.store import ObjectStore
from thinfilm_gateway.client.files import DicomFile
from thinfilm_gateway.policy import lossless

_JPEG_LS = "jpegls"


@dataclass
class CodedPixels:
    """Bytes of the pixels of a series, as they were and as they are coded."""

    native_bytes: int = 0
    coded_bytes: int = 0

    def add(self, row: PackedSeries) -> None:
        """Count what one container holds of the series."""
        self.native_bytes += row.native_pixel_bytes
        self.coded_bytes += row.coded_pixel_bytes

    @property
    def ratio(self) -> float | None:
        """How many times smaller they are; None if there are none."""
        return self.native_bytes / self.coded_bytes if self.coded_bytes else None


def in_archive(store: ObjectStore) -> Mapping[str, CodedPixels]:
    """Return what the archive says of each series, by Series Instance UID."""
    found: dict[str, CodedPixels] = {}
    keys = store.keys()
    for key in keys:
        with store.open(key) as reader:
            manifest = open_container(reader, key).manifest
        for row in series_rows(manifest, [0.0] * len(manifest.stacks), ""):
            found.setdefault(row.series_instance_uid, CodedPixels()).add(row)
    return found


def with_jpegls(files: Sequence[DicomFile], scratch: Path) -> CodedPixels:
    """Return what JPEG-LS makes of the pixels of a series; nothing where it can code none of them."""
    container = scratch / "jpegls.tfa"
    try:
        sources = [Source(file.path, file.sop_instance_uid) for file in files]
        report = pack(sources, container, lossless.treatment([_JPEG_LS]))
    finally:
        container.unlink(missing_ok=True)
    return _sum(report.series) if _JPEG_LS in report.codecs else CodedPixels()


def _sum(rows: Iterable[PackedSeries]) -> CodedPixels:
    total = CodedPixels()
    for row in rows:
        total.add(row)
    return total
