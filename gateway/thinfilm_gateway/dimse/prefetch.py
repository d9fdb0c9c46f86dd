"""Make objects ready while the ones before them are being sent: fetch, prove, decode, transcode where it must be."""

import tempfile
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import structlog

from thinfilm_gateway.archive.container.cache import Decoded
from thinfilm_gateway.archive.container.decoding import ahead_bytes
from thinfilm_gateway.archive.objects import Fetched, IntegrityError, ObjectReader, map_file
from thinfilm_gateway.archive.store import StorageAway
from thinfilm_gateway.dicom.inflating import Scratch
from thinfilm_gateway.dicom.transcode import CannotTranscode, check_native, write_native
from thinfilm_gateway.dimse.suboperations import NoContext, StoreContext, choose_context
from thinfilm_gateway.index import archiving, audit
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.locate import InstanceLocation, locate_instance
from thinfilm_gateway.index.states import InstanceState

log = structlog.get_logger()

_AHEAD_OBJECTS = 16
_AHEAD_BYTES = 128 * 1024**2
_TRANSCODED_BYTES = 16 * 1024**2  # of one object that may lie in memory


@dataclass(frozen=True)
class Ready:
    """An object as it can be sent: its data set, encoded in the transfer syntax of an accepted context."""

    instance: InstanceLocation
    context_id: int
    dataset: memoryview

    def close(self) -> None:
        """Let the bytes go."""
        self.dataset.release()


@dataclass(frozen=True)
class Unsendable:
    """An object that cannot be sent; reason is one sentence."""

    instance: InstanceLocation
    reason: str

    def close(self) -> None:
        """Have nothing to let go."""


Prepared = Ready | Unsendable


class Preparer:
    """Turns locations into objects ready to be sent; many threads use one."""

    def __init__(self, database: Database, objects: ObjectReader, scratch: Scratch) -> None:
        self._database = database
        self._objects = objects
        self._scratch = scratch

    def start(self, instance: InstanceLocation) -> list[Decoded]:
        """Begin to decode what `prepare` will need, for as long as the result is held; never raises."""
        try:
            return self._objects.start(instance.location)
        except Exception:  # prepare comes upon it again
            log.exception("object_not_decoded_ahead", sop_instance_uid=instance.sop_instance_uid)
            return []

    def prepare(self, instance: InstanceLocation, contexts: Collection[StoreContext]) -> Prepared:
        """Return the object in the best of the contexts, or why it cannot be sent; never raises."""
        if instance.state is InstanceState.QUARANTINED:
            return Unsendable(instance, "The object is in quarantine: its bytes are no longer those received.")
        if instance.is_gone:
            return Unsendable(instance, "The original is gone, and its rule says that nothing is sent in its place.")
        try:
            context = choose_context(instance.sop_class_uid, instance.transfer_syntax_uid, contexts)
            fetched = self.fetch(instance)
            if context.transfer_syntax_uid == instance.transfer_syntax_uid:
                return Ready(instance, context.context_id, fetched.dataset)
            with fetched:
                native = self._transcode(fetched.dataset, instance.transfer_syntax_uid, context.transfer_syntax_uid)
            return Ready(instance, context.context_id, native)
        except (NoContext, CannotTranscode, IntegrityError, StorageAway, OSError) as error:
            return Unsendable(instance, str(error))
        except Exception:  # of one object: the others still go
            log.exception("object_not_prepared", sop_instance_uid=instance.sop_instance_uid)
            return Unsendable(instance, "The object could not be prepared.")

    def fetch(self, instance: InstanceLocation) -> Fetched:
        """Fetch an object.

        Raises IntegrityError, with the instance quarantined, if no good copy is left; StorageAway, OSError.
        """
        try:
            fetched = self._objects.fetch(instance.location)
        except (IntegrityError, StorageAway) as error:
            # It may have moved since it was located: from the spool to a container, or to a healed copy.
            with self._database.reading() as session:
                moved = locate_instance(session, instance.instance_pk)
            if moved is None or moved.location == instance.location:
                if isinstance(error, IntegrityError):
                    self._quarantine(instance, str(error))
                raise
            fetched = self._objects.fetch(moved.location)
        for damage in fetched.damages:
            log.warning("copy_damaged", sop_instance_uid=instance.sop_instance_uid, damage=damage)
        if fetched.damages:
            with self._database.session() as session:
                audit.record(session, "copy_damaged", instance.sop_instance_uid, detail=" ".join(fetched.damages))
        return fetched

    def _quarantine(self, instance: InstanceLocation, reason: str) -> None:
        log.error("object_quarantined", sop_instance_uid=instance.sop_instance_uid, reason=reason)
        with self._database.session() as session:
            archiving.quarantine(session, instance.instance_pk, reason)

    def _transcode(self, dataset: memoryview, transfer_syntax_uid: str, target_uid: str) -> memoryview:
        """Transcode an object; what becomes large lies in a file, so that memory stays small."""
        with tempfile.SpooledTemporaryFile(_TRANSCODED_BYTES, dir=str(self._scratch.folder)) as file:
            write_native(dataset, transfer_syntax_uid, target_uid, file, self._scratch)
            if file.tell() > _TRANSCODED_BYTES:
                file.flush()
                native = map_file(file.fileno())
            else:
                file.seek(0)
                native = memoryview(file.read())
        check_native(dataset, transfer_syntax_uid, native, target_uid, self._scratch)
        return native


@dataclass(frozen=True)
class _Ahead:
    """An object that is being prepared; `decoding` holds what it is decoded from until it has been taken."""

    instance: InstanceLocation
    decoding: Future[list[Decoded]]
    prepared: Future[Prepared]


class ReadAhead:
    """Prepares objects in a pool, a bounded number ahead of those who take them, and hands them out in order.

    Several threads may take. At most _AHEAD_OBJECTS objects, of _AHEAD_BYTES together, are ahead, but always one.
    Farther ahead, objects are being decoded, on all cores: neighbours often lie in one group of frames, so that the
    objects that are prepared at a time may all wait for the same one.
    """

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        instances: Sequence[InstanceLocation],
        start: Callable[[InstanceLocation], list[Decoded]],
        prepare: Callable[[InstanceLocation], Prepared],
    ) -> None:
        self._pool = pool
        self._start = start
        self._prepare = prepare
        self._waiting = deque(instances)
        self._decoding: deque[tuple[InstanceLocation, Future[list[Decoded]]]] = deque()
        self._decoding_bytes = 0
        self._ahead: deque[_Ahead] = deque()
        self._ahead_bytes = 0
        self._lock = threading.Lock()

    def take(self) -> Prepared | None:
        """Return the next object, or None behind the last."""
        with self._lock:
            self._fill()
            if not self._ahead:
                return None
            taken = self._ahead.popleft()
            self._ahead_bytes -= taken.instance.dataset_bytes
            self._fill()
        return taken.prepared.result()

    @property
    def is_empty(self) -> bool:
        """Whether everything has been taken."""
        return not self._waiting and not self._decoding and not self._ahead

    def left(self) -> list[InstanceLocation]:
        """Stop, and return the objects that nobody took."""
        with self._lock:
            waiting = [instance for instance, _ in self._decoding] + list(self._waiting)
            self._decoding.clear()
            self._waiting.clear()
            futures = [ahead.prepared for ahead in self._ahead]
            self._ahead.clear()
        taken = [future.result() for future in futures]
        for prepared in taken:
            prepared.close()
        return [prepared.instance for prepared in taken] + waiting

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.left()

    def _fill(self) -> None:
        while self._waiting and (not self._decoding or self._decoding_bytes < ahead_bytes()):
            instance = self._waiting.popleft()
            self._decoding.append((instance, self._pool.submit(self._start, instance)))
            self._decoding_bytes += instance.dataset_bytes
        while self._decoding and len(self._ahead) < _AHEAD_OBJECTS:
            instance, decoding = self._decoding[0]
            if self._ahead and self._ahead_bytes + instance.dataset_bytes > _AHEAD_BYTES:
                return
            self._decoding.popleft()
            self._decoding_bytes -= instance.dataset_bytes
            self._ahead.append(_Ahead(instance, decoding, self._pool.submit(self._prepare, instance)))
            self._ahead_bytes += instance.dataset_bytes
