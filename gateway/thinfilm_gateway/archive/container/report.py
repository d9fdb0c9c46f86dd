"""What packing came to: the share of each entry in the container, and one row a series."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from thinfilm_gateway.archive.container.format import Entry, FrameRun, LiteralRun, Manifest, ScanRun, Stack

LITERAL_CODEC = "zstd"


@dataclass(frozen=True)
class PackedEntry:
    """An entry, and the bytes of the container that it accounts for."""

    name: str
    stored_bytes: int


@dataclass(frozen=True)
class PackedSeries:
    """What became of a series. Files that belong to none are together, under an empty Series Instance UID.

    codec: the codecs that coded its frames, joined by commas, the one with most samples first; zstd without frames.
    preset: how hard those tried that have presets.
    pixels: number of samples. native_pixel_bytes: what they take uncompressed. coded_pixel_bytes: bytes of their
    streams and of the parameters that these share. bits_per_pixel: coded bits a sample, None without frames.
    encode_seconds: time spent choosing, coding and proving.
    """

    series_instance_uid: str
    modality: str
    instances: int
    codec: str
    preset: str
    pixels: int
    native_pixel_bytes: int
    coded_pixel_bytes: int
    bits_per_pixel: float | None
    encode_seconds: float


@dataclass(frozen=True)
class PackReport:
    """What was packed.

    codecs: ids of all codecs that coded frames, in alphabetical order.
    codec_failures: a sentence for each codec that failed or did not verify, and for each file whose pixels could not
    be read; all was kept by other means.
    """

    entries: tuple[PackedEntry, ...]
    series: tuple[PackedSeries, ...]
    codecs: tuple[str, ...]
    codec_failures: tuple[str, ...]
    archive_bytes: int


def stored_shares(manifest: Manifest, archive_bytes: int) -> list[int]:
    """Return the bytes of the container that each entry accounts for.

    Streams and literal groups are shared by raw bytes; what is left (manifest, headers) by equal parts.
    """
    literal_rates = [group.section.length / group.raw_bytes for group in manifest.literals]
    frame_rates = [stack_bytes(stack) / stack.layout.frames for stack in manifest.stacks]
    shares = [
        sum(
            literal_rates[piece.group] * piece.length
            if isinstance(piece, LiteralRun)
            else frame_rates[piece.stack] * piece.count
            for piece in entry.pieces
        )
        for entry in manifest.entries
    ]
    rest = max(archive_bytes - sum(shares), 0) / max(len(shares), 1)
    return [round(share + rest) for share in shares]


def stack_bytes(stack: Stack) -> int:
    """Bytes of all streams and parameters of a stack."""
    parameters = sum(codec.parameters.length for codec in stack.codecs if codec.parameters)
    return parameters + sum(group.section.length for group in stack.groups)


def series_rows(manifest: Manifest, stack_seconds: Sequence[float], preset: str) -> tuple[PackedSeries, ...]:
    """Return one row a series, in the order of its first entry. stack_seconds: encode time of each stack."""
    series: dict[str, list[Entry]] = defaultdict(list)
    for entry in manifest.entries:
        series[entry.dicom.series_instance_uid if entry.dicom else ""].append(entry)
    return tuple(_row(uid, entries, manifest, stack_seconds, preset) for uid, entries in series.items())


def _row(
    uid: str, entries: list[Entry], manifest: Manifest, stack_seconds: Sequence[float], preset: str
) -> PackedSeries:
    runs = [run for entry in entries for run in entry.frame_runs]
    numbers = sorted({run.stack for run in runs})
    stacks = [manifest.stacks[number] for number in numbers]
    pixels = sum(stack.layout.samples for stack in stacks)
    coded = sum(stack_bytes(stack) for stack in stacks)
    return PackedSeries(
        series_instance_uid=uid,
        modality=next((entry.dicom.modality for entry in entries if entry.dicom), ""),
        instances=len(entries),
        codec=",".join(_codecs(stacks)) or LITERAL_CODEC,
        preset=preset,
        pixels=pixels,
        native_pixel_bytes=sum(_native_bytes(run, manifest.stacks[run.stack]) for run in runs),
        coded_pixel_bytes=coded,
        bits_per_pixel=8 * coded / pixels if pixels else None,
        encode_seconds=sum((stack_seconds[number] for number in numbers), 0.0),
    )


def _native_bytes(run: FrameRun | ScanRun, stack: Stack) -> int:
    """Return what the samples of a run take without any compression."""
    return run.length if isinstance(run, FrameRun) else stack.layout.with_frames(run.count).nbytes


def frame_codecs(stacks: Iterable[Stack]) -> tuple[str, ...]:
    """Return the ids of all codecs that coded frames of the stacks, in alphabetical order."""
    return tuple(sorted(_codecs(stacks)))


def entry_codecs(manifest: Manifest, entry: Entry) -> list[str]:
    """Return the codecs of the stacks in which an entry has frames."""
    return _codecs(manifest.stacks[number] for number in sorted({run.stack for run in entry.frame_runs}))


def _codecs(stacks: Iterable[Stack]) -> list[str]:
    """Return the codecs of the stacks, the one that coded most samples first."""
    samples: Counter[str] = Counter()
    for stack in stacks:
        frame_samples = stack.layout.with_frames(1).samples
        for group in stack.groups:
            samples[stack.codecs[group.codec].codec_id] += group.frames * frame_samples
    return sorted(samples, key=lambda codec: (-samples[codec], codec))
