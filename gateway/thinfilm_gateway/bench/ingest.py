"""`thinfilm bench ingest`: how fast objects are taken in, over 1, 4 and 8 associations."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from thinfilm_gateway.bench.clients import parse_node, run_at_once
from thinfilm_gateway.bench.figures import Figures, Row, row
from thinfilm_gateway.client.files import DicomFile, read
from thinfilm_gateway.client.gateway import running_gateway
from thinfilm_gateway.client.network import Node, PeerRefused, store
from thinfilm_gateway.client.phantom import write_ct
from thinfilm_gateway.progress import step

ASSOCIATIONS = (1, 4, 8)
OBJECTS = 200
DISTINCT_SLICES = 16


def run(console: Console, against: Sequence[str]) -> Figures:
    """Measure a gateway of one's own, and the nodes of `against` before it.

    Raises UnknownAddress, PeerRefused or DidNotRun.
    """
    nodes = [parse_node(text) for text in against]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="thinfilm-bench-") as name:
        folder = Path(name)
        for node in nodes:
            rows += _measure_all(console, node, folder)
        # Ingest alone is measured: nothing is compressed meanwhile.
        with running_gateway(folder, series_quiet_seconds=3600) as gateway:
            rows += _measure_all(console, gateway.node, folder)
    return Figures("C-STORE of 512 KiB CT images", "from C-STORE request to status", tuple(rows))


def _measure_all(console: Console, node: Node, folder: Path) -> Iterator[Row]:
    for associations in ASSOCIATIONS:
        with step(console, f"send {OBJECTS} objects over {associations} associations to {node.ae_title}"):
            yield _measure(node, associations, folder)


def _measure(node: Node, associations: int, folder: Path) -> Row:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        files = [read(path) for path in write_ct(Path(name), OBJECTS, distinct=DISTINCT_SLICES)]
        shares = [(node, files[first::associations]) for first in range(associations)]
        seconds, waits = run_at_once(_send, shares)
    all_waits = [wait for share in waits for wait in share]
    return row(node.ae_title, "C-STORE", associations, [file.dataset_bytes for file in files], seconds, all_waits)


def _send(share: tuple[Node, list[DicomFile]]) -> list[float]:
    """Send files; return how long each waited for its status. Raises PeerRefused if one is not stored."""
    node, files = share
    sent = store(node, files)
    for answer in sent:
        if answer.status != 0x0000:
            raise PeerRefused(f"{node.ae_title} answered a C-STORE with status {answer.status}: {answer.comment}.")
    return [answer.seconds for answer in sent]
