"""`thinfilm bench retrieve`: how fast series come back by C-GET, and how soon the first slice of a cold one."""

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
from thinfilm_gateway.client.network import Node, Sink, get, get_one, store
from thinfilm_gateway.client.phantom import write_ct
from thinfilm_gateway.progress import step

ASSOCIATIONS = (1, 4, 8)
SERIES = 16
SLICES = 16

CACHED = "from the spool cache"
ARCHIVED = "decoded from containers"
AS_IT_IS = "C-GET"

COLD_SLICES = 140
COLD_REQUESTS = 5
ONE_OF_A_COLD_SERIES = "one slice of a cold series"
A_COLD_SERIES = "a whole cold series"


def run(console: Console, against: Sequence[str]) -> Figures:
    """Measure the nodes of `against`, or a gateway of one's own where there are none.

    A gateway of one's own is measured with all objects in the spool cache, and with none; then for how long a viewer
    waits for the first slice of a long series that the neural codec keeps, of which nothing is in any cache.
    Raises UnknownAddress, PeerRefused, DidNotRun or NotArchived.
    """
    nodes = [parse_node(text) for text in against]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="thinfilm-bench-") as name:
        folder = Path(name)
        (folder / "files").mkdir()
        with step(console, "write the files"):
            series = [_write_series(folder / "files", SLICES) for _ in range(SERIES)]
        for node in nodes:
            _store_all(console, node, series)
            rows += _measure_all(console, node, AS_IT_IS, series)
        if not nodes:
            for case, settings in ((CACHED, {"series_quiet_seconds": 3600}), (ARCHIVED, {"cache_bytes": 0})):
                rows += _measure_own(console, folder / case.replace(" ", "-"), case, settings, series)
            rows += _measure_cold(console, folder)
    return Figures("C-GET of CT images of 512 KiB", "from C-GET request to first object", tuple(rows))


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


def _measure_cold(console: Console, folder: Path) -> list[Row]:
    """Measure slices of one series, and the series, of a gateway that forgets at once what it has decoded."""
    own = folder / "cold"
    own.mkdir()
    with step(console, f"write {COLD_SLICES} images"):
        series = _write_series(folder / "files", COLD_SLICES)
    forgetful = {"series_quiet_seconds": 1, "cache_bytes": 0, "decoded_cache_bytes": 0}
    with running_gateway(own, lossless_codecs=("neural",), lossless_preset="fast", **forgetful) as gateway:
        _store_all(console, gateway.node, [series])
        with step(console, "compress, prove, forget the spool copies", 1) as advance:
            await_archived(gateway.settings, advance)
        with step(console, f"get {COLD_REQUESTS} slices and {COLD_REQUESTS} times the series"):
            spread = series[:: max(1, len(series) // COLD_REQUESTS)][:COLD_REQUESTS]
            one = _cold_row(gateway.node, ONE_OF_A_COLD_SERIES, [[file] for file in spread])
            return [one, _cold_row(gateway.node, A_COLD_SERIES, [series] * COLD_REQUESTS)]


def _cold_row(node: Node, case: str, requests: list[list[DicomFile]]) -> Row:
    """Get one slice, or the series, a request, one after the other."""
    started = time.monotonic()
    waits = _get((node, requests))
    sizes = [file.dataset_bytes for files in requests for file in files]
    return row(node.ae_title, case, 1, sizes, time.monotonic() - started, waits)


def _write_series(folder: Path, slices: int) -> list[DicomFile]:
    own = Path(tempfile.mkdtemp(dir=folder))
    return [read(path) for path in write_ct(own, slices)]


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
    """Get series one after another, a single object by itself; return how long each waited for its first object."""
    node, series = share
    waits = []
    for files in series:
        arrivals: list[float] = []
        started = time.monotonic()
        ask = get if len(files) > 1 else _get_only
        ask(node, files, lambda *received, arrivals=arrivals: arrivals.append(time.monotonic()))
        waits.append(arrivals[0] - started)
    return waits


def _get_only(node: Node, files: list[DicomFile], sink: Sink) -> None:
    get_one(node, files[0], sink)
