"""Odd and broken input through a whole gateway: back byte for byte, or refused and nothing left behind."""

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from support.datasets import EncodedDataSet, damaged_data_sets, encoded_data_sets
from support.objects import write_files
from support.sites import OUR_STORE, Site
from thinfilm_gateway.client import network
from thinfilm_gateway.client.files import DicomFile
from thinfilm_gateway.client.network import Sent
from thinfilm_gateway.demo.proof import Proof
from thinfilm_gateway.demo.samples import collect

REFUSALS = {0xA900, 0xC000}


class Batch(tuple[EncodedDataSet, ...]):
    """Data sets to send together, too long to be printed."""

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(f"{len(self)} data sets")


BATCHES = st.lists(st.one_of(encoded_data_sets(), damaged_data_sets()), min_size=25, max_size=25).map(Batch)
SETTINGS = settings(
    max_examples=3,  # of 25 data sets each, since a batch waits for the archive
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def stored_before() -> dict[str, DicomFile]:
    """What the batches so far have stored: they share series, and what is in a series comes back with it."""
    return {}


@given(batch=BATCHES)
@SETTINGS
def test_whatever_is_accepted_comes_back_byte_for_byte_and_the_rest_leaves_nothing(
    embedded: Site, stored_before: dict[str, DicomFile], batch: Batch
):
    with tempfile.TemporaryDirectory() as folder:
        proof = Proof(stored_before)
        take_down(proof, network.store(embedded.gateway.node, first_of_each(write_files(Path(folder), batch))))
        embedded.await_archived()
        retrieve(embedded, proof)
    assert proof.faults == []
    assert all(proof.is_exact(file) for file in proof.stored.values())


@pytest.mark.timeout(3600)
def test_the_files_of_ones_own_folder_come_back_byte_for_byte_or_are_refused(embedded: Site, tmp_path: Path):
    folder = os.environ.get("THINFILM_DATA")
    samples = collect(tmp_path, Path(folder) if folder else None, lambda: None)
    proof = Proof()
    take_down(proof, network.store_parallel(embedded.gateway.node, samples.files, 4))
    take_down(proof, network.store(embedded.gateway.node, samples.further))
    embedded.await_archived()
    retrieve(embedded, proof)
    assert proof.faults == []
    assert all(proof.is_exact(file) for file in proof.stored.values())


def first_of_each(files: list[DicomFile]) -> list[DicomFile]:
    """Return one file for each SOP Instance UID."""
    return list({file.sop_instance_uid: file for file in reversed(files)}.values())


def take_down(proof: Proof, sent: list[Sent]) -> None:
    """Note the answers; all refusals are those of the conformance statement."""
    proof.note_sent(sent)
    assert {answer.status for answer in proof.refused} <= REFUSALS
    assert all(answer.comment for answer in proof.refused)


def retrieve(site: Site, proof: Proof) -> None:
    """Get and move every series of what was stored."""
    with network.destination(
        OUR_STORE, lambda *taken: proof.note_received("C-MOVE", *taken), site.destinations[OUR_STORE]
    ):
        for files in proof.series():
            network.get(site.gateway.node, files, lambda *taken: proof.note_received("C-GET", *taken))
            network.move(site.gateway.node, files, OUR_STORE)
