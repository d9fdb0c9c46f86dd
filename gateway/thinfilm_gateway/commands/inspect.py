"""`thinfilm inspect`: what is in a container."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from thinfilm_gateway.archive.container.format import VERSION, DamagedContainer
from thinfilm_gateway.archive.container.reader import open_container
from thinfilm_gateway.archive.container.report import LITERAL_CODEC, entry_codecs, stored_shares
from thinfilm_gateway.archive.store import FileReader
from thinfilm_gateway.commands.errors import CommandError, plainly


@dataclass(frozen=True)
class InspectedEntry:
    """One file of a container; texts are empty where the file is not DICOM or lacks them."""

    name: str
    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    modality: str
    transfer_syntax_uid: str
    codec: str
    file_bytes: int
    stored_bytes: int
    sha256: str
    dataset_sha256: str


@dataclass(frozen=True)
class Inspection:
    """What is in a container."""

    version: int
    archive_bytes: int
    model_hashes: tuple[str, ...]
    entries: tuple[InspectedEntry, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document that `--json` prints."""
        return asdict(self)


def inspect(archive: Path) -> Inspection:
    """Read what a container says of itself; nothing is decoded. Raises CommandError."""
    with plainly(), FileReader(archive) as reader:
        try:
            container = open_container(reader)
        except DamagedContainer as error:
            raise CommandError(f"{archive}: {error}") from None
        model_hashes = container.model_hashes()
    manifest = container.manifest
    entries = []
    for entry, share in zip(manifest.entries, stored_shares(manifest, container.size), strict=True):
        dicom = entry.dicom
        entries.append(
            InspectedEntry(
                name=entry.name,
                sop_instance_uid=dicom.sop_instance_uid if dicom else "",
                sop_class_uid=dicom.sop_class_uid if dicom else "",
                series_instance_uid=dicom.series_instance_uid if dicom else "",
                study_instance_uid=dicom.study_instance_uid if dicom else "",
                modality=dicom.modality if dicom else "",
                transfer_syntax_uid=dicom.transfer_syntax_uid if dicom else "",
                codec=",".join(entry_codecs(manifest, entry)) or LITERAL_CODEC,
                file_bytes=entry.file_bytes,
                stored_bytes=share,
                sha256=entry.sha256,
                dataset_sha256=dicom.dataset_sha256 if dicom else "",
            )
        )
    return Inspection(VERSION, container.size, model_hashes, tuple(entries))


def render(inspection: Inspection) -> RenderableType:
    """Return the same for a terminal."""
    table = Table(box=None, pad_edge=False)
    for column in ("file", "modality", "codec"):
        table.add_column(column, overflow="fold")
    for column in ("bytes", "stored", "ratio"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("SHA-256", overflow="fold")
    for entry in inspection.entries:
        table.add_row(
            Text(entry.name),
            Text(entry.modality),
            entry.codec,
            f"{entry.file_bytes:,}",
            f"{entry.stored_bytes:,}",
            _ratio(entry.file_bytes, entry.stored_bytes),
            entry.sha256,
        )
    total = sum(entry.file_bytes for entry in inspection.entries)
    summary = (
        f"format version {inspection.version}, {len(inspection.entries)} files, {total:,} bytes"
        f" in {inspection.archive_bytes:,} ({_ratio(total, inspection.archive_bytes)})"
    )
    models = ", ".join(inspection.model_hashes) or "none"
    return Group(table, Text(f"\n{summary}\nmodel hashes: {models}"))


def _ratio(original: int, stored: int) -> str:
    return f"{original / stored:.2f}" if stored else "-"
