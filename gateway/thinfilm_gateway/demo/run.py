"""`thinfilm demo`: real DICOM goes into a gateway in a temporary folder, into its archive, and back, byte for byte."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from thinfilm_gateway.archive.store import FolderStore
from thinfilm_gateway.client import network
from thinfilm_gateway.client.archived import await_archived
from thinfilm_gateway.client.gateway import RunningGateway, running_gateway
from thinfilm_gateway.demo import table
from thinfilm_gateway.demo.pixels import CodedPixels, in_archive, with_jpegls
from thinfilm_gateway.demo.proof import Proof
from thinfilm_gateway.demo.samples import Samples, collect
from thinfilm_gateway.progress import step

DESTINATION = "DEMO-STORE"
SERIES_QUIET_SECONDS = 1.0
SENDING_ASSOCIATIONS = 4


def run(console: Console, own_folder: Path | None) -> bool:
    """Run the demo and print its table; return whether every object came back exactly.

    own_folder: further DICOM files to send. Raises NotADirectoryError, DidNotRun, PeerRefused or NotArchived.
    """
    proof = Proof()
    with tempfile.TemporaryDirectory(prefix="thinfilm-demo-") as name:
        folder = Path(name)
        (folder / "files").mkdir()
        with step(console, "read the files") as advance:
            samples = collect(folder / "files", own_folder, advance)
        returned: list[Callable[[], None]] = []  # advances the bar of the step that runs

        def take_moved(*received: Any) -> None:
            proof.note_received("C-MOVE", *received)
            returned[-1]()

        with network.destination(DESTINATION, take_moved) as port:
            peers = [{"ae_title": DESTINATION, "host": "127.0.0.1", "port": port}]
            with running_gateway(
                folder, series_quiet_seconds=SERIES_QUIET_SECONDS, cache_bytes=0, peers=peers
            ) as gateway:
                _send(console, gateway, samples, proof)
                with step(console, "compress, prove, forget the spool copies", len(proof.series())) as advance:
                    rows = await_archived(gateway.settings, advance)
                coded = in_archive(FolderStore(gateway.settings.archive_dir))
                with step(console, "return by C-GET", len(proof.stored)) as advance:
                    _get(gateway, proof, advance)
                with step(console, "return by C-MOVE", len(proof.stored)) as advance:
                    returned.append(advance)
                    for files in proof.series():
                        network.move(gateway.node, files, DESTINATION)
        with step(console, "code the same by JPEG-LS, to compare", len(proof.series())) as advance:
            compared = _compare(proof, coded, folder, advance)
        kept = {(row.study_instance_uid, row.series_instance_uid): row for row in rows}
        table.show(console, proof, kept, compared, samples)
    return not proof.faults and all(proof.is_exact(file) for file in proof.stored.values())


def _send(console: Console, gateway: RunningGateway, samples: Samples, proof: Proof) -> None:
    with step(console, "send by C-STORE", len(samples.files) + len(samples.further)) as advance:
        proof.note_sent(
            network.store_parallel(gateway.node, samples.files, SENDING_ASSOCIATIONS, lambda sent: advance())
        )
        proof.note_sent(network.store(gateway.node, samples.further, lambda sent: advance()))


def _compare(
    proof: Proof, coded: Mapping[str, CodedPixels], folder: Path, advance: Callable[[], None]
) -> dict[table.SeriesKey, table.Ratios]:
    compared = {}
    for files in proof.series():
        ours = coded[files[0].series_instance_uid].ratio
        key = files[0].study_instance_uid, files[0].series_instance_uid
        compared[key] = table.Ratios(ours, with_jpegls(files, folder).ratio)
        advance()
    return compared


def _get(gateway: RunningGateway, proof: Proof, advance: Callable[[], None]) -> None:
    def take(*received: Any) -> None:
        proof.note_received("C-GET", *received)
        advance()

    for files in proof.series():
        network.get(gateway.node, files, take)
