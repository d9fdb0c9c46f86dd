"""Single series, stored and awaited, for the scenarios that need no load."""

import time
from collections.abc import Sequence
from pathlib import Path

from thinfilm_gateway.bench.chaos.proof import LOOK_EVERY_SECONDS, get_all
from thinfilm_gateway.client.files import DicomFile, read
from thinfilm_gateway.client.network import Node, PeerRefused, store
from thinfilm_gateway.client.phantom import write_ct
from thinfilm_gateway.dimse import status

THINNED = 8  # of 512 x 512: images of 64 x 64, 8 KiB
RETURN_SECONDS = 240.0


def write_series(folder: Path, slices: int, thinned: int = THINNED) -> list[DicomFile]:
    """Write a series of its own study into a new folder."""
    folder.mkdir()
    return [read(path) for path in write_ct(folder, slices, slices, thinned)]


def store_all(node: Node, files: Sequence[DicomFile]) -> None:
    """Store files. Raises PeerRefused unless each is acknowledged."""
    for answer in store(node, files):
        if answer.status != status.SUCCESS:
            raise PeerRefused(f"A C-STORE was answered with status {answer.status}: {answer.comment}.")


def await_returned(node: Node, files: Sequence[DicomFile]) -> list[str]:
    """Wait until all files come back by C-GET; return a sentence for each that does not, or comes back changed."""
    deadline = time.monotonic() + RETURN_SECONDS
    while True:
        retrieved = get_all(node, files)
        if retrieved.changed or not retrieved.missing or time.monotonic() > deadline:
            return retrieved.sentences()
        time.sleep(LOOK_EVERY_SECONDS)
