"""`thinfilm bench hostile`: how long senders wait while other peers stall, drip, break off and flood."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from thinfilm_gateway.bench.clients import run_at_once
from thinfilm_gateway.bench.figures import Figures, Row, row
from thinfilm_gateway.bench.made_index import fill
from thinfilm_gateway.client.files import DicomFile, read
from thinfilm_gateway.client.gateway import running_gateway
from thinfilm_gateway.client.hostile import hostile_peers
from thinfilm_gateway.client.network import Node, PeerRefused, store_parallel
from thinfilm_gateway.client.phantom import write_ct
from thinfilm_gateway.config import Settings
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.progress import step

SENDERS = 45  # with the five hostile peers, fifty associations
MADE_STUDIES = 20_000  # in the index, of a million objects: the more there are, the more a flood of C-FIND costs
SENDING_PROCESSES = 3
OBJECTS_PER_SENDER = 10
DISTINCT_SLICES = 16

MOST_SLOWDOWN = 2.0
"""How many times as long the senders may take beside hostile peers."""


def run(console: Console) -> Figures:
    """Measure a gateway of one's own, with the senders alone and beside hostile peers.

    Needs the program openssl, for a certificate. Raises PeerRefused or DidNotRun.
    """
    with tempfile.TemporaryDirectory(prefix="thinfilm-bench-") as name:
        folder = Path(name)
        settings = {**_tls(folder), "series_quiet_seconds": 3600, "local_workers": 0}  # nothing is compressed meanwhile
        with running_gateway(folder, **settings) as gateway:
            _fill_index(console, gateway.settings)
            _measure(gateway.node, "C-STORE to warm up", folder)
            with step(console, f"send over {SENDERS} associations"):
                alone = _measure(gateway.node, "C-STORE alone", folder)
            with (
                step(console, f"send over {SENDERS} associations beside hostile peers"),
                hostile_peers(gateway.node, gateway.settings.dicom_tls_port or 0) as number,
            ):
                beside = _measure(gateway.node, f"C-STORE beside {number} hostile peers", folder)
    rows = (alone, beside)
    title = f"C-STORE of 512 KiB CT images; beside hostile peers it takes {slowdown(rows):.2f} x as long"
    return Figures(title, "from C-STORE request to status", rows)


def _fill_index(console: Console, settings: Settings) -> None:
    database = Database(settings.index_url)
    try:
        with step(console, f"make the rows of {MADE_STUDIES:,} studies", MADE_STUDIES) as advance:
            fill(database, range(MADE_STUDIES), advance)
    finally:
        database.dispose()


def slowdown(rows: Sequence[Row]) -> float:
    """Return how many times as long the senders took beside hostile peers; rows: alone, then beside them."""
    alone, beside = rows
    return beside.seconds / alone.seconds


def _measure(node: Node, case: str, folder: Path) -> Row:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        files = [read(path) for path in write_ct(Path(name), SENDERS * OBJECTS_PER_SENDER, distinct=DISTINCT_SLICES)]
        shares = [(node, files[first::SENDING_PROCESSES]) for first in range(SENDING_PROCESSES)]
        seconds, waits = run_at_once(_send, shares)
    all_waits = [wait for share in waits for wait in share]
    return row(node.ae_title, case, SENDERS, [file.dataset_bytes for file in files], seconds, all_waits)


def _send(share: tuple[Node, list[DicomFile]]) -> list[float]:
    """Send files over this process's part of the associations; return how long each waited for its status."""
    node, files = share
    sent = store_parallel(node, files, SENDERS // SENDING_PROCESSES)
    for answer in sent:
        if answer.status != 0x0000:
            raise PeerRefused(f"{node.ae_title} answered a C-STORE with status {answer.status}: {answer.comment}.")
    return [answer.seconds for answer in sent]


def _tls(folder: Path) -> dict[str, Any]:
    """Return the settings for TLS with a certificate made for the occasion."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    made = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost"]
    command = ["openssl", "req", *made, "-days", "1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    return {
        "dicom_tls_port": 0,
        "tls_certificate": certificate,
        "tls_key": key,
        "tls_client_certificate": "none",
    }
