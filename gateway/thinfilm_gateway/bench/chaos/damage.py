"""The scenario of the damage: a flipped byte in each part of a container, without other copies and then with them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sqlalchemy import select

from thinfilm_gateway.archive.container.format import FOOTER_BYTES, FRAMES, LITERALS, MANIFEST, PARAMETERS
from thinfilm_gateway.archive.container.reader import sections
from thinfilm_gateway.archive.store import FileReader
from thinfilm_gateway.bench.chaos.load import store_all, write_series
from thinfilm_gateway.bench.chaos.outcome import Outcome
from thinfilm_gateway.bench.chaos.proof import get_all, prove, thinfilm
from thinfilm_gateway.client.archived import await_archived
from thinfilm_gateway.client.files import DicomFile
from thinfilm_gateway.client.gateway import running_gateway
from thinfilm_gateway.config import Settings
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.models import Container, Instance, Series

SLICES = 6
THINNED = 2  # 256 x 256: large enough for the parameters of the neural codec to pay

MAGIC, FOOTER = "magic", "footer"
_KINDS = {"literals": LITERALS, "parameters": PARAMETERS, "frames": FRAMES, "manifest": MANIFEST}
_HARMLESS = frozenset({"manifest", MAGIC, FOOTER})  # docs/container-format.md, "When bytes are damaged"
PLACES = (*_KINDS, MAGIC, FOOTER)

SETTINGS = {
    "series_quiet_seconds": 0.5,
    "lossless_codecs": ("neural",),
    "lossless_preset": "fast",
    "local_workers": 1,
}


def flip_bytes(folder: Path) -> Outcome:
    """Flip a byte in a container of its own in each place, look at what is returned, and let the scrub heal it.

    Raises DidNotRun, PeerRefused or NotArchived.
    """
    series = _archived_series(folder)
    files = [file for one in series.values() for file in one]
    settings = Settings.model_validate(SETTINGS | {"data_dir": folder / "data"})
    for place, one in series.items():
        flip(container_of(settings, one[0]), place)
    wrong = _judge_without_copies(folder, series)
    thinfilm(settings, "scrub")  # what it says of the damage is in its exit status; prove asks it again
    proof = prove(folder, files, **SETTINGS)
    faults = dict.fromkeys((f"in {place}" for place in PLACES), 1)
    return Outcome("a flipped byte", faults, len(files), proof.returned, proof.brought_back, (*wrong, *proof.wrong))


def _archived_series(folder: Path) -> dict[str, list[DicomFile]]:
    """Store a series for each place, and wait until they lie in containers and, beside them, in the spool."""
    series: dict[str, list[DicomFile]] = {}
    with running_gateway(folder, **SETTINGS) as gateway:
        for place in PLACES:
            series[place] = write_series(folder / place, SLICES, THINNED)
            store_all(gateway.node, series[place])
        await_archived(gateway.settings, lambda: None, kept_copies=True)
    return series


def _judge_without_copies(folder: Path, series: Mapping[str, Sequence[DicomFile]]) -> list[str]:
    """C-GET everything while the spool is away; return a sentence for each wrong byte and each needless loss."""
    spool, aside = folder / "data" / "spool", folder / "spool-aside"
    spool.rename(aside)
    with running_gateway(folder, **(SETTINGS | {"local_workers": 0})) as gateway:
        results = {place: get_all(gateway.node, one) for place, one in series.items()}
    aside.rename(spool)  # a gateway makes no new spool in the place of one that is away
    wrong = []
    for place, retrieved in results.items():
        wrong += [f"{uid} {what}" for uid, what in retrieved.changed.items()]
        if place in _HARMLESS and retrieved.missing:
            wrong.append(f"A flipped byte in the {place} of a container cost {len(retrieved.missing)} instances.")
        if place not in _HARMLESS and not retrieved.missing:
            wrong.append(f"A flipped byte in the {place} of a container was not noticed.")
    return wrong


def container_of(settings: Settings, file: DicomFile) -> Path:
    """Return the container of an archived instance."""
    database = Database(settings.index_url)
    try:
        with database.reading() as session:
            statement = select(Container.key).join(Instance, Instance.container_pk == Container.id).join(Series)
            key = session.scalar(statement.where(Series.series_instance_uid == file.series_instance_uid).limit(1))
    finally:
        database.dispose()
    assert key is not None, "Its series was archived."
    return settings.archive_dir / key


def flip(container: Path, place: str) -> None:
    """Flip a bit in the middle of a place of a container."""
    if place == MAGIC:
        offset = 0
    elif place == FOOTER:
        offset = container.stat().st_size - FOOTER_BYTES // 2
    else:
        with FileReader(container) as reader:
            section = next(section for kind, section in sections(reader) if kind == _KINDS[place])
        offset = section.offset + 16 + section.length // 2
    with container.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 0x40]))
