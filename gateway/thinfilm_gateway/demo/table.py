"""The demo's table: what each series weighed, what it weighs now, and whether it came back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from thinfilm_gateway.client.files import DicomFile
from thinfilm_gateway.demo.proof import Proof
from thinfilm_gateway.demo.samples import Samples
from thinfilm_gateway.index.kept import KeptSeries

SHOWN_FAULTS = 20
NO_PIXELS_CODED = "zstd"  # what is not native pixel data is kept bit for bit under zstd

SeriesKey = tuple[str, str]


@dataclass(frozen=True)
class Ratios:
    """How many times smaller the pixels of a series are in the archive, and by JPEG-LS; None where there are none."""

    ours: float | None
    jpegls: float | None


def show(
    console: Console,
    proof: Proof,
    kept: Mapping[SeriesKey, KeptSeries],
    compared: Mapping[SeriesKey, Ratios],
    samples: Samples,
) -> None:
    """Print the table, what was refused, and what is wrong."""
    table = Table(box=None, pad_edge=False)
    for column in ("series", "modality", "codec"):
        table.add_column(column, no_wrap=True)
    for column in ("files", "bytes in", "bytes kept", "ratio", "pixels", "by JPEG-LS"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    total_in = total_kept = 0
    for files in proof.series():
        key = files[0].study_instance_uid, files[0].series_instance_uid
        row, ratios = kept[key], compared[key]
        bytes_in = sum(file.dataset_bytes for file in files)
        total_in += bytes_in
        total_kept += row.stored_bytes
        table.add_row(
            Text(_shortened(files[0].series_instance_uid)),
            Text(files[0].modality),
            ", ".join(row.codecs) or NO_PIXELS_CODED,
            *_figures(len(files), bytes_in, row.stored_bytes),
            _shown(ratios.ours),
            _shown(ratios.jpegls),
            _verdict(proof, files),
        )
    everything = list(proof.stored.values())
    table.add_section()
    table.add_row("all", "", "", *_figures(len(everything), total_in, total_kept), "", "", _verdict(proof, everything))
    console.print(table)
    _list(console, "left out", samples.left_out)
    _list(
        console,
        "refused",
        [f"{sent.file.sop_instance_uid}: {sent.status:04X} {sent.comment}" for sent in proof.refused],
    )
    _list(console, "WRONG", proof.faults)


def _figures(count: int, bytes_in: int, bytes_kept: int) -> tuple[str, str, str, str]:
    return str(count), f"{bytes_in:,}", f"{bytes_kept:,}", _shown(bytes_in / bytes_kept if bytes_kept else None)


def _shown(ratio: float | None) -> str:
    return f"{ratio:.2f}" if ratio else ""


def _verdict(proof: Proof, files: Sequence[DicomFile]) -> str:
    exact = sum(proof.is_exact(file) for file in files)
    return "exact" if exact == len(files) else f"{len(files) - exact} of {len(files)} NOT exact"


def _list(console: Console, what: str, sentences: Sequence[str]) -> None:
    """Print sentences, and say how many more there are where they are many."""
    if not sentences:
        return
    console.print(Text(f"\n{what}: {len(sentences)}"))
    for sentence in sentences[:SHOWN_FAULTS]:
        console.print(Text(f"  {sentence}"))
    if len(sentences) > SHOWN_FAULTS:
        console.print(Text(f"  and {len(sentences) - SHOWN_FAULTS} more"))


def _shortened(uid: str) -> str:
    return uid if len(uid) <= 28 else f"...{uid[-25:]}"
