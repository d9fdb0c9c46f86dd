"""`thinfilm bench large`: how much more memory a gateway takes while one large object goes in and comes out."""

import contextlib
import hashlib
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.uid import MultiFrameGrayscaleWordSecondaryCaptureImageStorage, generate_uid
from rich.console import Console
from rich.table import Table

from thinfilm_gateway.client.archived import await_archived
from thinfilm_gateway.client.files import DicomFile, read
from thinfilm_gateway.client.gateway import RunningGateway, running_gateway
from thinfilm_gateway.client.network import Node, PeerRefused, get, store
from thinfilm_gateway.client.phantom import write_ct
from thinfilm_gateway.progress import step

FRAMES = 2048
DISTINCT_SLICES = 8

_LOOK_EVERY_SECONDS = 0.02
_CALM_SECONDS, _CALM_BYTES = 1.0, 1 << 20  # how long memory must stay as it is before a step is measured, within what


class MovedBytes(Exception):
    """The object came back otherwise than it was sent; the message is one sentence."""


@dataclass(frozen=True)
class Row:
    """A step, its seconds, and by how much the memory of the process that grew most grew, in bytes.

    Memory is what a process holds for itself (RssAnon of proc(5)): pages of mapped files can be let go at any time.
    """

    case: str
    seconds: float
    growth_bytes: int


@dataclass(frozen=True)
class Figures:
    """What one run measured."""

    object_bytes: int
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document that `--json` writes."""
        return {"object_bytes": self.object_bytes, "rows": [asdict(row) for row in self.rows]}

    def table(self) -> Table:
        """Return the same for people."""
        title = f"An object of {self.object_bytes >> 20:,} MiB; growth is of the process that grows most"
        table = Table(title=title, box=None, pad_edge=False, title_justify="left")
        table.add_column("case")
        for column in ("seconds", "growth MiB"):
            table.add_column(column, justify="right")
        for row in self.rows:
            table.add_row(row.case, f"{row.seconds:.1f}", f"{row.growth_bytes / (1 << 20):.1f}")
        return table


def run(console: Console) -> Figures:
    """Send a multi-frame object to a gateway of one's own and get it back, out of the spool and out of a container.

    Raises PeerRefused, DidNotRun, NotArchived, MovedBytes.
    """
    with tempfile.TemporaryDirectory(prefix="thinfilm-bench-") as name:
        folder = Path(name)
        with step(console, "write the object"):
            large = _write_large(folder)
        rows: list[Row] = []
        quick = {"decoded_cache_bytes": 0, "lossless_codecs": ("jpegls",), "receivers": 1}
        for case, settings in (
            ("the spool", {"series_quiet_seconds": 3600}),
            ("a container", {"series_quiet_seconds": 1, "cache_bytes": 0}),
        ):
            own = folder / case.replace(" ", "-")
            own.mkdir()
            with running_gateway(own, **(quick | settings)) as gateway:
                rows += _through(console, gateway, folder, large, case)
    return Figures(large.dataset_bytes, tuple(rows))


def _through(console: Console, gateway: RunningGateway, folder: Path, large: DicomFile, case: str) -> Iterator[Row]:
    """Warm a gateway up with a small object, then send the large one and get it back from where it lies."""
    small = [read(path) for path in write_ct(folder, 1)]
    _send(gateway.node, small[0])
    _get_back(gateway.node, small[0])
    _await_calm(gateway.process.pid)
    with step(console, "send it"):
        yield _measured(gateway, "C-STORE", lambda: _send(gateway.node, large))
    if case == "a container":
        with step(console, "compress, prove, forget the spool copy", 1) as advance:
            yield _measured(gateway, "compress by jpegls", lambda: await_archived(gateway.settings, lambda: None))
            advance()
    with step(console, f"get it out of {case}"):
        yield _measured(gateway, f"C-GET out of {case}", lambda: _get_back(gateway.node, large))


def _write_large(folder: Path) -> DicomFile:
    """Write one object of FRAMES slices of the synthetic CT, 1 GiB."""
    slices = write_ct(folder, DISTINCT_SLICES)
    image = pydicom.dcmread(slices[0])
    frames = [pydicom.dcmread(path).pixel_array for path in slices]
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.SeriesInstanceUID = generate_uid()
    image.Modality, image.NumberOfFrames = "OT", FRAMES
    image.PixelData = np.stack(frames * (FRAMES // len(frames))).astype("<u2").tobytes()
    path = folder / "large.dcm"
    image.save_as(path, enforce_file_format=True)
    return read(path)


def _send(node: Node, file: DicomFile) -> None:
    (answer,) = store(node, [file])
    if answer.status != 0x0000:
        raise PeerRefused(f"{node.ae_title} answered a C-STORE with status {answer.status}: {answer.comment}.")


def _get_back(node: Node, file: DicomFile) -> None:
    found: list[str] = []
    get(node, [file], lambda uid, syntax, dataset: found.append(hashlib.sha256(dataset).hexdigest()))
    if found != [file.sha256]:
        raise MovedBytes(f"{file.path.name} did not come back as it was sent.")


def _measured(gateway: RunningGateway, case: str, work: Callable[[], object]) -> Row:
    begin = time.perf_counter()
    with _watched(gateway.process.pid) as growth:
        work()
    return Row(case, round(time.perf_counter() - begin, 2), max(growth.values(), default=0))


@contextlib.contextmanager
def _watched(parent: int) -> Iterator[dict[int, int]]:
    """Give by how much each process of a gateway has grown at the most since the block began, by process id."""
    before = _memories(parent)
    growth: dict[int, int] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK_EVERY_SECONDS):
            for process, memory in _memories(parent).items():
                growth[process] = max(growth.get(process, 0), memory - before.setdefault(process, memory))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield growth
    finally:
        done.set()
        watcher.join()


def _await_calm(parent: int) -> None:
    """Wait until no process of a gateway begins, ends or grows any more: until all of them have started."""
    before: dict[int, int] = {}
    now = _memories(parent)
    while before.keys() != now.keys() or any(abs(now[process] - before[process]) > _CALM_BYTES for process in now):
        time.sleep(_CALM_SECONDS)
        before, now = now, _memories(parent)


def _memories(parent: int) -> dict[int, int]:
    """Return the bytes that a process and all below it hold for themselves, by process id."""
    found = {}
    for process in _family(parent):
        with contextlib.suppress(OSError):  # it has just ended
            status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
            if anonymous := re.search(r"RssAnon:\s+(\d+) kB", status):
                found[process] = int(anonymous[1]) << 10
    return found


def _family(parent: int) -> Iterator[int]:
    """Yield a process and all below it."""
    yield parent
    with contextlib.suppress(OSError):  # it has just ended
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            for child in children.read_text(encoding="ascii").split():
                yield from _family(int(child))
