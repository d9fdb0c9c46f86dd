"""`thinfilm bench retrieve`: how fast series come back by C-GET and C-MOVE, and how soon the first slice."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from thinfilm_gateway.bench.clients import parse_node, run_at_once
from thinfilm_gateway.bench.figures import Figures, Row, row
from thinfilm_gateway.client.archived import await_archived
from thinfilm_gateway.client.files import DicomFile, read
from thinfilm_gateway.client.gateway import running_gateway
from thinfilm_gateway.client.network import AE_TITLE, Node, PeerRefused, Sink, destination, get, get_one, move, store
from thinfilm_gateway.client.phantom import write_ct
from thinfilm_gateway.config import Peer
from thinfilm_gateway.progress import step

ASSOCIATIONS = (1, 4, 8)
SERIES = 16
SLICES = 16
LONG_SLICES = 140
REQUESTS = 3
CODECS = ("neural", "jpegls")

AS_RECEIVED = "as received"
DESTINATION, DESTINATION_PORT = "THINFILM_BENCH", 11119
"""The C-MOVE destination, on the loopback interface, that a node of `--against` must know."""


class _Arrivals:
    """A sink that remembers when each object came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, *_: object) -> None:
        self.times.append(time.monotonic())


def run(console: Console, against: Sequence[str]) -> Figures:
    """Measure a gateway of one's own, and the nodes of `against` beside it.

    Short series over several associations come from the spool cache, as they were received. A long series comes from a
    container: cold, with nothing decoded before, and hot, with all of it. Nodes keep it as they like.
    Raises UnknownAddress, PeerRefused, DidNotRun or NotArchived.
    """
    nodes = [parse_node(text) for text in against]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="thinfilm-bench-") as name:
        folder = Path(name)
        with step(console, "write the files"):
            series = [_write_series(folder, SLICES) for _ in range(SERIES)]
            long = _write_series(folder, LONG_SLICES)
        for node in nodes:
            with _destination(DESTINATION_PORT) as moved:
                _store_all(console, node, [*series, long])
                rows += _measure_associations(console, node, series)
                rows += _measure_long(console, node, AS_RECEIVED, long, moved)
        own = folder / "as-received"
        own.mkdir()
        with running_gateway(own, series_quiet_seconds=3600) as gateway:
            _store_all(console, gateway.node, series)
            rows += _measure_associations(console, gateway.node, series)
        for codec in CODECS:
            rows += _measure_archived(console, folder / codec, codec, long)
    return Figures("Retrieval of CT images of 512 KiB", "from the request to the first object", tuple(rows))


def _measure_associations(console: Console, node: Node, series: Sequence[list[DicomFile]]) -> list[Row]:
    """Get series over several associations at a time."""
    sizes = [file.dataset_bytes for files in series for file in files]
    rows = []
    for associations in ASSOCIATIONS:
        with step(console, f"get {len(series)} series over {associations} associations from {node.ae_title}"):
            shares = [(node, list(series[first::associations])) for first in range(associations)]
            seconds, waits = run_at_once(_get, shares)
        every = [wait for share in waits for wait in share]
        rows.append(row(node.ae_title, f"C-GET, {AS_RECEIVED}", associations, sizes, seconds, every))
    return rows


def _get(share: tuple[Node, list[list[DicomFile]]]) -> list[float]:
    """Get series one after another; return how long each waited for its first object."""
    node, series = share
    return [_first_of_get(node, files) for files in series]


def _first_of_get(node: Node, files: list[DicomFile]) -> float:
    """Get a series, or the one slice that is asked for; return how long its first object took."""
    ask = get if len(files) > 1 else _get_only
    return _first(lambda arrivals: ask(node, files, arrivals), _Arrivals())


def _get_only(node: Node, files: Sequence[DicomFile], sink: Sink) -> None:
    get_one(node, files[0], sink)


def _first(ask: Callable[[_Arrivals], None], arrivals: _Arrivals) -> float:
    """Return how long the first object took from the request."""
    before, started = len(arrivals.times), time.monotonic()
    ask(arrivals)
    return arrivals.times[before] - started


def _measure_archived(console: Console, folder: Path, codec: str, long: list[DicomFile]) -> list[Row]:
    """Measure a series of a gateway that keeps it by a codec alone, first with no cache, then with all of it in one."""
    folder.mkdir()
    # One receiver, since each has a cache of its own, and which one answers is the system's choice.
    kept: dict[str, Any] = {"lossless_codecs": (codec,), "lossless_preset": "fast", "cache_bytes": 0, "receivers": 1}
    with _destination() as moved:
        kept["peers"] = (Peer.model_validate({"ae_title": DESTINATION, "host": "127.0.0.1", "port": moved.port}),)
        with running_gateway(folder, series_quiet_seconds=1, decoded_cache_bytes=0, **kept) as gateway:
            _store_all(console, gateway.node, [long])
            with step(console, f"{codec}: compress, prove, forget the spool copies", 1) as advance:
                await_archived(gateway.settings, advance)
            rows = _measure_long(console, gateway.node, f"{codec}, cold", long, moved)
        with running_gateway(folder, **kept) as gateway:
            get(gateway.node, long, _Arrivals())
            return rows + _measure_long(console, gateway.node, f"{codec}, hot", long, moved)


class _Moved:
    """A C-MOVE destination that runs, and what came to it."""

    def __init__(self) -> None:
        self.arrivals = _Arrivals()
        self.port = 0

    def first(self, node: Node, files: list[DicomFile]) -> float:
        """Have a series sent here; return how long its first object took. Raises PeerRefused."""
        try:
            return _first(lambda _: move(node, files, DESTINATION), self.arrivals)
        except PeerRefused as error:
            known = f"{DESTINATION} at 127.0.0.1:{self.port}"
            raise PeerRefused(f"{error} Does it know {known}, and let {AE_TITLE} ask for a C-MOVE?") from error


@contextlib.contextmanager
def _destination(port: int = 0) -> Iterator[_Moved]:
    moved = _Moved()
    with destination(DESTINATION, moved.arrivals, port) as moved.port:
        yield moved


def _measure_long(console: Console, node: Node, case: str, long: list[DicomFile], moved: _Moved) -> list[Row]:
    """Measure a few slices of a series one by one, and the whole series, a few times."""
    slices = [[file] for file in long[:: max(1, len(long) // REQUESTS)]][:REQUESTS]
    with step(console, f"{node.ae_title}, {case}: get and move {REQUESTS} times"):
        return [
            _measured(node, f"C-GET of a slice, {case}", slices, _first_of_get),
            _measured(node, f"C-GET of {len(long)}, {case}", [long] * REQUESTS, _first_of_get),
            _measured(node, f"C-MOVE of {len(long)}, {case}", [long] * REQUESTS, moved.first),
        ]


def _measured(
    node: Node, case: str, requests: Sequence[list[DicomFile]], ask: Callable[[Node, list[DicomFile]], float]
) -> Row:
    """Send requests one after another over an association each."""
    started = time.monotonic()
    waits = [ask(node, files) for files in requests]
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
