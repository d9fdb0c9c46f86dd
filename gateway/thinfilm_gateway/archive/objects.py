"""Read objects as they were received, out of the spool or a container, and never other bytes than those."""

import hashlib
import mmap
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from thinfilm_gateway.archive.container.cache import Decoded, FrameCache
from thinfilm_gateway.archive.container.format import DamagedContainer
from thinfilm_gateway.archive.container.reader import Container, open_container
from thinfilm_gateway.archive.spool import Spool
from thinfilm_gateway.archive.store import ObjectStore, RangeReader, StorageAway
from thinfilm_gateway.dicom.mapped import pieces

_LARGE_OBJECT_BYTES = 64 * 1024**2
_OPEN_CONTAINERS = 16


class IntegrityError(Exception):
    """No copy of the object is left whose bytes are those received; the message is one sentence."""


@dataclass(frozen=True)
class ObjectLocation:
    """Where an object lies, and how to know it again.

    spool_name: None once the cache let it go; container_key, container_entry: None until it is archived.
    dataset_offset: where the data set begins in the spool's file; dataset_bytes, sha256: of the data set.
    """

    spool_name: str | None
    container_key: str | None
    container_entry: int | None
    dataset_offset: int
    dataset_bytes: int
    sha256: str


class Fetched:
    """The bytes of a data set, proven; close it when they are no longer needed.

    damages: sentences about copies that were found wrong before another one gave the bytes.
    """

    def __init__(self, dataset: memoryview, damages: tuple[str, ...]) -> None:
        self.dataset = dataset
        self.damages = damages

    def close(self) -> None:
        """Let the bytes go. What they are mapped from goes with the last view of them."""
        self.dataset.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ObjectReader:
    """Reads objects; many threads use one.

    Up to decoded_cache_bytes of decoded frames are kept for the neighbours of what was read. An object above
    large_object_bytes is mapped from the spool, or restored into a temporary file and mapped from there.
    """

    def __init__(
        self,
        spool: Spool,
        store: ObjectStore,
        decoded_cache_bytes: int,
        large_object_bytes: int = _LARGE_OBJECT_BYTES,
        temporary_dir: Path | None = None,
    ) -> None:
        self._spool = spool
        self._large = large_object_bytes
        self._temporary_dir = temporary_dir
        self._containers = _OpenContainers(store, FrameCache(decoded_cache_bytes))

    def fetch(self, location: ObjectLocation) -> Fetched:
        """Return the data set, its SHA-256 checked.

        The spool is read first; if its copy is gone or damaged, the container. Raises IntegrityError if neither has
        the bytes, StorageAway or OSError if they cannot be had now.
        """
        damages: list[str] = []
        away: StorageAway | None = None
        for read in (self._read_spool, self._read_container):
            try:
                return Fetched(read(location), tuple(damages))
            except _NoCopy:
                continue
            except (_Damaged, DamagedContainer) as error:
                damages.append(str(error))
            except StorageAway as error:
                away = error
        if away is not None:  # the copy there may be good, whatever became of the other one
            raise away
        raise IntegrityError(" ".join(damages) or "The object has no copy.")

    def start(self, location: ObjectLocation) -> list[Decoded]:
        """Begin to decode an object that lies in a container; whoever holds the result has it ready for `fetch`.

        Nothing is raised: `fetch` tells what is wrong.
        """
        if location.container_key is None or location.container_entry is None or location.spool_name is not None:
            return []
        try:
            return self._containers.start(location.container_key, location.container_entry)
        except (_Damaged, DamagedContainer, StorageAway, OSError, IndexError):
            return []

    def close(self) -> None:
        """Close the containers."""
        self._containers.close()

    def _read_spool(self, location: ObjectLocation) -> memoryview:
        if location.spool_name is None:
            raise _NoCopy
        try:
            with self._spool.path(location.spool_name).open("rb") as file:
                if location.dataset_bytes > self._large:
                    dataset = map_file(file.fileno())[location.dataset_offset :]
                else:
                    file.seek(location.dataset_offset)
                    dataset = memoryview(file.read(location.dataset_bytes + 1))
        except FileNotFoundError:
            self._spool.check_mounted()
            raise _Damaged("The spool copy is missing.") from None
        if len(dataset) != location.dataset_bytes or _sha256(dataset) != location.sha256:
            raise _Damaged("The spool copy does not have the SHA-256 of what was received.")
        return dataset

    def _read_container(self, location: ObjectLocation) -> memoryview:
        if location.container_key is None or location.container_entry is None:
            raise _NoCopy
        with self._containers.lease(location.container_key) as container:
            if location.container_entry >= len(container.entries):
                raise _Damaged("The container has fewer entries than the index says.")
            dicom = container.entries[location.container_entry].dicom
            if dicom is None or dicom.dataset_sha256 != location.sha256:
                raise _Damaged("The container's entry is another object than the index says.")
            # Reading proves the SHA-256: the data set comes out as it was, or the container says that it is damaged.
            if location.dataset_bytes <= self._large:
                return memoryview(container.read_dataset(location.container_entry))
            with tempfile.TemporaryFile(dir=self._temporary_dir) as file:
                for part in container.stream_dataset(location.container_entry):
                    file.write(part)
                file.flush()
                return map_file(file.fileno())


def _sha256(dataset: memoryview) -> str:
    digest = hashlib.sha256()
    for piece in pieces(dataset):
        digest.update(piece)
    return digest.hexdigest()


class _NoCopy(Exception):
    """The index knows of no copy there."""


class _Damaged(Exception):
    """A copy is not what was received; the message is one sentence."""


class _OpenContainers:
    """Keeps the containers that were read last open, since the objects of a series are read one after the other."""

    def __init__(self, store: ObjectStore, cache: FrameCache) -> None:
        self._store = store
        self._cache = cache
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _OpenContainer] = OrderedDict()

    @contextmanager
    def lease(self, key: str) -> Iterator[Container]:
        """Give the container of this key, open at least as long as the block runs.

        Raises DamagedContainer, StorageAway, OSError.
        """
        with self._lock:
            found = self._open.get(key)
            if found is None:
                found = self._open[key] = _OpenContainer()
            self._open.move_to_end(key)
            found.users += 1
        try:
            with found.lock:
                if found.container is None:
                    found.reader, found.container = self._open_now(key)
            yield found.container
        finally:
            self._release(key, found)

    def start(self, key: str, entry: int) -> list[Decoded]:
        """Begin to decode an entry; the container stays open at least until that is done.

        Raises what `lease` raises, and IndexError.
        """
        with self.lease(key) as container:
            begun = container.start(entry)
            with self._lock:
                found = self._open[key]
                found.users += len(begun)
        for decoded in begun:
            decoded.add_done_callback(lambda _: self._release(key, found))
        return begun

    def _release(self, key: str, found: "_OpenContainer") -> None:
        with self._lock:
            found.users -= 1
            if found.container is None:
                self._open.pop(key, None)
            self._close_surplus(_OPEN_CONTAINERS)

    def close(self) -> None:
        """Close all that nobody reads."""
        with self._lock:
            self._close_surplus(0)

    def _open_now(self, key: str) -> tuple[RangeReader, Container]:
        try:
            reader = self._store.open(key)
        except FileNotFoundError:
            self._store.check_mounted()
            raise _Damaged("The container is missing.") from None
        try:
            return reader, open_container(reader, key, self._cache)
        except BaseException:
            reader.close()
            raise

    def _close_surplus(self, keep: int) -> None:
        for key in [key for key, held in self._open.items() if not held.users]:
            if len(self._open) <= keep:
                return
            held = self._open.pop(key)
            if held.reader is not None:
                held.reader.close()


class _OpenContainer:
    """A container that is open, or about to be."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.reader: RangeReader | None = None
        self.container: Container | None = None


def map_file(descriptor: int) -> memoryview:
    """Return the bytes of a file, mapped."""
    return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
