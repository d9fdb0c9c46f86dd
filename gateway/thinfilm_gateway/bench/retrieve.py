"""`thinfilm bench retrieve`: how fast series come back by C-GET, over 1, 4 and 8 associations."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from thinfilm_gateway.bench.clients import parse_node, run_at_once
from thinfilm_gateway.bench.figures import Figures, Row, row
from thinfilm_gateway.client.archived import await_archived
from thinfilm_gateway.client.files import DicomFile, read
from thinfilm_gateway.client.gateway import running_gateway
from thinfilm_gateway.client.network import Node, get, store
from thinfilm_gateway.client.phantom import write_ct
from thinfilm_gateway.progress import step

ASSOCIATIONS = (1, 4, 8)
SERIES = 16
SLICES = 16

CACHED = "from the spool cache"
ARCHIVED = "decoded from containers"
AS_IT_IS = "C-GET"


def run(console: Console, against: Sequence[str]) -> Figures:
    """Measure the nodes of `against`, or a gateway of one's own where there are none.

    A gateway of one's own is measured twice: with all objects in the spool cache, and with none.
    Raises UnknownAddress, PeerRefused, DidNotRun or NotArchived.
    """
    nodes = [parse_node(text) for text in against]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="thinfilm-bench-") as name:
        folder = Path(name)
        (folder / "files").mkdir()
        with step(console, "write the files"):
            series = [_write_series(folder / "files") for _ in range(SERIES)]
        for node in nodes:
            _store_all(console, node, series)
            rows += _measure_all(console, node, AS_IT_IS, series)
        if not nodes:
            for case, settings in ((CACHED, {"series_quiet_seconds": 3600}), (ARCHIVED, {"cache_bytes": 0})):
                rows += _measure_own(console, folder / case.replace(" ", "-"), case, settings, series)
    return Figures("C-GET of series of 16 CT images of 512 KiB", "from C-GET request to first object", tuple(rows))


def _measure_own(
    console: Console, folder: Path, case: str, settings: dict[str, Any], series: Sequence[list[DicomFile]]
) -> list[Row]:
    folder.mkdir()
    quick = {"series_quiet_seconds": 1, "decoded_cache_bytes": 0}
    with running_gateway(folder, **(quick | settings)) as gateway:
        _store_all(console, gateway.node, series)
        if case == ARCHIVED:
            with step(console, "compress, prove, forget the spool copies", len(series)) as advance:
                await_archived(gateway.settings, advance)
        return _measure_all(console, gateway.node, case, series)


def _write_series(folder: Path) -> list[DicomFile]:
    own = Path(tempfile.mkdtemp(dir=folder))
    return [read(path) for path in write_ct(own, SLICES)]


def _store_all(console: Console, node: Node, series: Sequence[list[DicomFile]]) -> None:
    with step(console, f"send {len(series)} series to {node.ae_title}", len(series)) as advance:
        for files in series:
            store(node, files)
            advance()


def _measure_all(console: Console, node: Node, case: str, series: Sequence[list[DicomFile]]) -> list[Row]:
    sizes = [file.dataset_bytes for files in series for file in files]
    rows = []
    for associations in ASSOCIATIONS:
        with step(console, f"{case}: get {len(series)} series over {associations} associations"):
            shares = [(node, list(series[first::associations])) for first in range(associations)]
            seconds, waits = run_at_once(_get, shares)
        rows.append(row(node.ae_title, case, associations, sizes, seconds, [wait for share in waits for wait in share]))
    return rows


def _get(share: tuple[Node, list[list[DicomFile]]]) -> list[float]:
    """Get series one after another; return how long each waited for its first object."""
    node, series = share
    waits = []
    for files in series:
        arrivals: list[float] = []
        started = time.monotonic()
        get(node, files, lambda *received, arrivals=arrivals: arrivals.append(time.monotonic()))
        waits.append(arrivals[0] - started)
    return waits
