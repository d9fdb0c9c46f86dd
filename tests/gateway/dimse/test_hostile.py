"""Fifty associations at a time, five of them hostile: the others are served, and nothing is left of the five."""

import threading
from pathlib import Path

from support.certificates import Certificates
from support.datasets import ct_series
from support.objects import write_files
from support.receiver import receiver_process
from support.servers import free_port
from thinfilm_gateway.client.hostile import hostile_peers
from thinfilm_gateway.client.network import Node, store_parallel

SENDERS = 45


def test_45_senders_are_served_beside_5_hostile_peers(tmp_path: Path, certificates: Certificates) -> None:
    files = write_files(tmp_path / "files", ct_series(2 * SENDERS, 32))
    settings = {**certificates.settings, "dicom_tls_port": free_port(), "maximum_associations_per_host": 64}
    with receiver_process(tmp_path, **settings, network_timeout_seconds=30) as receiver:
        node = Node("127.0.0.1", receiver.port, receiver.settings.ae_title)
        with hostile_peers(node, receiver.settings.dicom_tls_port or 0):
            sent = store_parallel(node, files, SENDERS)
        assert [answer.status for answer in sent] == [0x0000] * len(files)
        kept = {row.sop_instance_uid: row.sha256 for row in receiver.instances()}
        assert len(kept) == len(files)
    assert not [thread for thread in threading.enumerate() if thread.name == "hostile"]
