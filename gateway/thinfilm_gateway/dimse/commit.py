"""The group commit: makes received objects durable, in the spool and in the index, before they are acknowledged.

Every association syncs its own object, so that syncs of several run at the same time and the file system merges their
journal commits. One thread a process takes whatever is synced, names it in one go and registers it in one transaction.
It never waits for more: groups come about by themselves while the group before them is being committed.
"""

import contextlib
import dataclasses
import datetime as dt
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from thinfilm_gateway.archive.presence import Presence
from thinfilm_gateway.archive.spool import Spool, SpoolWriter
from thinfilm_gateway.archive.store import ObjectStore
from thinfilm_gateway.config import Duplicates
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.ingest import Outcome, Received, UnindexableDataSet, register_all

log = structlog.get_logger()

LARGEST_GROUP = 256  # objects in one transaction
PROBE_SECONDS = 1.0  # between two looks whether the index is back

_SPOOL_REFUSED = "The spool cannot be written."
_INDEX_IS_AWAY = (OperationalError, InterfaceError, NoConnectionFree)


class CannotCommit(Exception):
    """Disk or index do not take the object now; the message is one short sentence.

    Whether the index has it is not certain, so its file may stay: the sweep enters it if no row names it.
    """


@dataclass(frozen=True)
class _Waiting:
    writer: SpoolWriter
    received: Received
    outcome: "Future[Outcome]"


class Committer:
    """Commits objects for all associations of a process, in a thread of its own."""

    def __init__(
        self,
        spool: Spool,
        store: ObjectStore,
        database: Database,
        quiet: dt.timedelta,
        duplicates: Duplicates = "keep-first",
        maximum_revisions: int | None = None,
    ) -> None:
        """store: where archived objects lie; quiet: how long a series must be silent before it is compressed."""
        self.available = True  # whether the index took the last group, or answered since
        self._spool = spool
        self._presence = Presence(spool, store)
        self._database = database
        self._quiet = quiet
        self._duplicates = duplicates
        self._maximum_revisions = maximum_revisions
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="commit", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Commit what was handed in, then end the thread."""
        self._queue.put(None)
        self._thread.join()

    def commit(self, writer: SpoolWriter, received: Received) -> Outcome:
        """Commit one object and wait until it is done; its `spool_name` is filled in here.

        Raises CannotCommit, or what the index raised over this very object. The writer is used up in any case: nothing
        more is to be done about its file.
        """
        try:
            writer.sync()
        except OSError as error:
            writer.discard()
            log.error("spool_refused", objects=1, error=str(error))
            raise CannotCommit(_SPOOL_REFUSED) from error
        return self.hand_in(writer, received).result()

    def hand_in(self, writer: SpoolWriter, received: Received) -> "Future[Outcome]":
        """Commit one object without waiting; the result is as `commit` returns or raises it."""
        outcome: Future[Outcome] = Future()
        self._queue.put(_Waiting(writer, received, outcome))
        return outcome

    def _run(self) -> None:
        while (group := self._next_group()) is not None:
            try:
                if group:
                    self._commit_group(group)
                if not self.available:
                    self.available = self._database.is_reachable()
            except Exception as error:  # whatever it is: nobody may wait for ever, and the thread goes on
                _fail(group, CannotCommit("The gateway failed; see its log."))
                with contextlib.suppress(Exception):
                    log.exception("commit_failed", objects=len(group), error=type(error).__name__)

    def _next_group(self) -> list[_Waiting] | None:
        """Wait for an object and take all that are there; empty when it is time to probe, None at the end."""
        try:
            first = self._queue.get(timeout=None if self.available else PROBE_SECONDS)
        except queue.Empty:
            return []
        if first is None:
            return None
        group = [first]
        while len(group) < LARGEST_GROUP:
            try:
                waiting = self._queue.get_nowait()
            except queue.Empty:
                break
            if waiting is None:
                self._queue.put(None)
                break
            group.append(waiting)
        return group

    def _commit_group(self, group: list[_Waiting]) -> None:
        try:
            self._spool.commit([waiting.writer for waiting in group])
        except Exception as error:
            for waiting in group:
                waiting.writer.discard()
            _fail(group, CannotCommit(_SPOOL_REFUSED))
            log.error("spool_refused", objects=len(group), error=str(error))
        else:
            self._register(group)

    def _register(self, group: list[_Waiting]) -> None:
        try:
            outcomes = register_all(
                self._database,
                [_named(waiting) for waiting in group],
                self._quiet,
                presence=self._presence,
                duplicates=self._duplicates,
                maximum_revisions=self._maximum_revisions,
            )
        except _INDEX_IS_AWAY as error:
            self.available = False
            _fail(group, CannotCommit("The index is not available."))
            log.error("index_refused", objects=len(group), error=type(error).__name__)
        except Exception as error:
            if len(group) > 1:  # one of them is not as the index wants it: let it fail alone
                for waiting in group:
                    self._register([waiting])
            else:
                self._refuse(group[0], error)
        else:
            for waiting, outcome in zip(group, outcomes, strict=True):
                if outcome is Outcome.IDENTICAL:
                    self._let_go(self._spool.set_aside, waiting)
                elif outcome in (Outcome.REJECTED, Outcome.SURPLUS):
                    self._let_go(self._spool.remove, waiting)
                waiting.outcome.set_result(outcome)

    def _refuse(self, waiting: _Waiting, error: Exception) -> None:
        """Fail one object. Its file goes only where the index was not even asked, and so cannot have a row for it."""
        if isinstance(error, UnindexableDataSet):
            waiting.writer.discard()
        _fail([waiting], error)
        log.error("object_refused", sop_instance_uid=waiting.received.sop_instance_uid, error=type(error).__name__)

    def _let_go(self, way: Callable[[str], None], waiting: _Waiting) -> None:
        name = str(waiting.writer.name)
        try:
            way(name)
        except OSError as error:
            log.error("spool_file_left", name=name, error=str(error))  # the sweep finds it


def _fail(group: Sequence[_Waiting], error: Exception) -> None:
    """Give the error to those of the group that have no outcome yet."""
    for waiting in group:
        if not waiting.outcome.done():
            waiting.outcome.set_exception(error)


def _named(waiting: _Waiting) -> Received:
    return dataclasses.replace(waiting.received, spool_name=str(waiting.writer.name))
