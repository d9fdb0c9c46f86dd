"""Proof that stored bytes are those that were received: their SHA-256 against the one noted at receipt."""

import hashlib
from collections.abc import Collection, Iterable, Sequence

from thinfilm_gateway.archive.container.format import DamagedContainer
from thinfilm_gateway.archive.container.reader import Container, open_container
from thinfilm_gateway.archive.spool import Spool
from thinfilm_gateway.index import holdings
from thinfilm_gateway.index.holdings import HeldInstance
from thinfilm_gateway.index.states import InstanceState
from thinfilm_workers.context import Context
from thinfilm_workers.lease import Lease

_MOST_SENTENCES = 10  # of one error


class NotProven(Exception):
    """What was read back from storage is not what was put there.

    entries: those that are not; empty where the container itself is at fault.
    """

    def __init__(self, sentence: str, entries: Collection[int] = ()) -> None:
        super().__init__(sentence)
        self.entries = frozenset(entries)


def prove(context: Context, key: str, sha256s: Sequence[str], lease: Lease) -> None:
    """Decode every entry of a container from what the store gives back and compare its data set's SHA-256.

    sha256s: one an entry. Raises NotProven, and LeaseLost.
    """
    damages: dict[int, str] = {}
    try:
        with context.store.open(key) as reader:
            container = open_container(reader, key)
            if len(container.entries) != len(sha256s):
                raise NotProven("The container does not have an entry for each instance.")
            for entry in container.each(container.reading_order()):
                lease.check()
                if damage := container_damage(container, entry, sha256s[entry]):
                    damages[entry] = f"{container.entries[entry].name} did not read back: {damage}"
    except (DamagedContainer, OSError) as error:
        raise NotProven(f"The container cannot be read back: {error}") from error
    if damages:
        raise NotProven(" ".join(list(damages.values())[:_MOST_SENTENCES]), damages)


def entry_sha256(container: Container, entry: int | None) -> str | None:
    """Return the SHA-256 of a data set by the container's own manifest; None if there is no such entry."""
    if entry is None or not 0 <= entry < len(container.entries):
        return None
    dicom = container.entries[entry].dicom
    return dicom.dataset_sha256 if dicom else None


def container_damage(container: Container, entry: int | None, sha256: str) -> str | None:
    """Decode an entry's data set from the container alone; return a sentence if it is not the one with this SHA-256."""
    if entry is None or entry_sha256(container, entry) != sha256:
        return "The container's entry is another object than the one that was received."
    try:
        found = _sha256(container.stream_dataset(entry))
    except DamagedContainer as error:
        return str(error)
    return None if found == sha256 else "The data set in the container is not the one that was received."


def is_proven_in_container(context: Context, held: HeldInstance, other_than: str) -> bool:
    """Read an instance from the container that the index names, unless that is `other_than`; tell whether it is right.

    Raises StorageAway where the archive, not the container, is missing, and OSError.
    """
    if held.state is not InstanceState.ARCHIVED:
        return False
    with context.database.reading() as session:
        home = holdings.homes(session, [held.instance_pk]).get(held.instance_pk)
    if home is None or home.key == other_than:
        return False
    try:
        with context.store.open(home.key) as reader:
            return container_damage(open_container(reader, home.key), held.container_entry, held.sha256) is None
    except FileNotFoundError:
        context.store.check_mounted()
        return False
    except DamagedContainer:
        return False


def spool_damage(spool: Spool, name: str, dataset_offset: int, sha256: str) -> str | None:
    """Read a spool file; return a sentence if it is missing or its data set is not the one with this SHA-256.

    Raises StorageAway, or OSError, where the disk, not the file, is at fault.
    """
    try:
        with spool.path(name).open("rb", buffering=0) as file:
            file.seek(dataset_offset)
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        spool.check_mounted()
        return "The spool file is missing."
    return None if found == sha256 else "The spool file no longer has the bytes that were received."


def _sha256(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
