"""Rebuild the index from spool and containers alone (promise P6), into an empty database.

First everything is read, proven and noted in a temporary file; then what was noted is entered in the order in which it
had been received, in one transaction.
"""

import datetime as dt
import pickle
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import structlog
from sqlalchemy.orm import Session

from thinfilm_gateway.archive.container.format import DamagedContainer, DerivationNote, MissingDecoder
from thinfilm_gateway.archive.container.reader import Container, open_container
from thinfilm_gateway.archive.container.report import frame_codecs, stored_shares
from thinfilm_gateway.index import archiving, commitments, derivations, holdings
from thinfilm_gateway.index.archiving import Placement
from thinfilm_gateway.index.ingest import Received, policy_for_kept, register
from thinfilm_workers.context import Context
from thinfilm_workers.receipt import DAMAGED, NotReceived, read_file, read_spooled, without_private

log = structlog.get_logger()


class IndexNotEmpty(Exception):
    """The database holds an index already; the message is one sentence that names the mend."""


@dataclass(frozen=True)
class ReindexReport:
    """What was found and entered.

    damages: a sentence for each file that could not be, or only in part. missing: one for each container that was left
    out, since what decodes it is not installed; the sweep attaches it once it is.
    """

    containers: int
    instances: int
    spool_copies: int
    damages: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class _ContainerFacts:
    """What the index keeps of a container."""

    size_bytes: int
    codecs: tuple[str, ...]
    created_at: dt.datetime


@dataclass(frozen=True)
class _Copy:
    """A copy of an object, in the spool or in a container.

    is_damaged: a spool file that is not what was received. derived: None unless it was derived here.
    """

    received: Received
    is_damaged: bool = False
    container_key: str | None = None
    entry: int = 0
    stored_bytes: int = 0
    derived: DerivationNote | None = None


def reindex(context: Context, progress: Callable[[], None] = lambda: None) -> ReindexReport:
    """Fill the empty index; `progress` is called after each object that was read.

    Raises IndexNotEmpty; then, as after any other error, the database is as it was.
    """
    with context.database.reading() as session:
        _refuse_unless_empty(session)
    with tempfile.TemporaryDirectory(prefix="reindex-", dir=context.settings.data_dir) as folder:
        survey = _Survey(context, Path(folder), progress)
        with closing(_Notes(Path(folder) / "notes.sqlite")) as notes:
            survey.containers(notes)
            survey.spool(notes)
            with context.database.session() as session:
                _refuse_unless_empty(session)
                return _enter(session, context, notes, survey)


def _refuse_unless_empty(session: Session) -> None:
    if not holdings.is_empty(session):
        raise IndexNotEmpty(
            "The index is not empty and is left as it is; to rebuild it, stop the gateway and move index.sqlite* "
            "aside, or let database_url name an empty database."
        )


class _Notes:
    """Copies noted on disk, given back by time of receipt: a whole archive does not fit into memory."""

    def __init__(self, path: Path) -> None:
        self._notes = sqlite3.connect(path)
        self._notes.execute("CREATE TABLE notes (received_at TEXT, sop_instance_uid TEXT, sha256 TEXT, copy BLOB)")

    def add(self, copy: _Copy) -> None:
        received = copy.received
        key = (received.received_at.astimezone(dt.UTC).isoformat(), received.sop_instance_uid, received.sha256)
        self._notes.execute("INSERT INTO notes VALUES (?, ?, ?, ?)", (*key, pickle.dumps(copy)))

    def __iter__(self) -> Iterator[_Copy]:
        for (copy,) in self._notes.execute("SELECT copy FROM notes ORDER BY received_at, sop_instance_uid, sha256"):
            yield pickle.loads(copy)  # noqa: S301 - written by this very process

    def close(self) -> None:
        self._notes.close()


class _Survey:
    """Reads and proves all that is kept."""

    def __init__(self, context: Context, folder: Path, progress: Callable[[], None]) -> None:
        self.facts: dict[str, _ContainerFacts] = {}
        self.damages: list[str] = []
        self.missing: list[str] = []
        self._context = context
        self._file = folder / "entry.dcm"
        self._progress = progress

    def containers(self, notes: _Notes) -> None:
        """Note every entry of every container that gives back the bytes that its manifest promises."""
        store = self._context.store
        for key in store.keys():  # noqa: SIM118 - no dictionary
            try:
                with store.open(key) as reader:
                    container = open_container(reader, key)
                    created_at = store.stored_at(key)
                    found: list[_Copy] = []
                    shares = stored_shares(container.manifest, container.size)
                    for entry in container.reading_order():
                        if received := self._read_entry(container, key, entry, created_at):
                            derived = container.manifest.entries[entry].derived
                            found.append(_Copy(without_private(received), False, key, entry, shares[entry], derived))
                        self._progress()
                    self.facts[key] = _facts(container, created_at)
                    for copy in found:
                        notes.add(copy)
            except MissingDecoder as error:
                self.missing.append(f"Container {key}: {error}")
            except DamagedContainer as error:
                self.damages.append(f"Container {key}: {error}")

    def spool(self, notes: _Notes) -> None:
        """Note every object in the spool."""
        for name in self._context.spool.names():
            try:
                spooled = read_spooled(self._context.spool, name)
            except (NotReceived, FileNotFoundError) as error:
                self.damages.append(f"Spool file {name}: {error}")
            else:
                if spooled.is_damaged:
                    self.damages.append(f"Spool file {name}: {DAMAGED}")
                notes.add(_Copy(without_private(spooled.received), spooled.is_damaged))
            self._progress()

    def merged(self, copies: Iterable[_Copy]) -> _Copy:
        """Make one of the copies of one object: in its newest container, with its spool file if that is good."""
        spooled: _Copy | None = None
        home: _Copy | None = None
        for copy in copies:
            if copy.container_key is None:
                if spooled is None or spooled.is_damaged:
                    spooled = copy
            elif home is None or self._stored_at(copy) > self._stored_at(home):
                home = copy
        if home is None:
            assert spooled is not None, "There is a copy at least."
            return spooled
        spool_name = spooled.received.spool_name if spooled and not spooled.is_damaged else None
        return replace(home, received=replace(home.received, spool_name=spool_name))

    def _stored_at(self, copy: _Copy) -> dt.datetime:
        return self.facts[str(copy.container_key)].created_at

    def _read_entry(self, container: Container, key: str, entry: int, created_at: dt.datetime) -> Received | None:
        """Restore a file, which proves its SHA-256, and read it."""
        try:
            with self._file.open("wb") as file:
                file.writelines(container.stream(entry))
            return read_file(self._file, None, created_at)
        except (DamagedContainer, NotReceived) as error:
            self.damages.append(f"Container {key}, entry {entry}: {error}")
            return None


def _facts(container: Container, created_at: dt.datetime) -> _ContainerFacts:
    return _ContainerFacts(container.size, frame_codecs(container.manifest.stacks), created_at)


def _identity(copy: _Copy) -> tuple[dt.datetime, str, str]:
    """Return what the copies of one object share."""
    return copy.received.received_at, copy.received.sop_instance_uid, copy.received.sha256


def _enter(session: Session, context: Context, notes: Iterable[_Copy], survey: _Survey) -> ReindexReport:
    """Enter what was noted."""
    quiet = dt.timedelta(seconds=context.settings.series_quiet_seconds)
    duplicates = policy_for_kept(context.settings.duplicates)
    homes: dict[str, list[Placement]] = defaultdict(list)
    housed: set[int] = set()
    damaged: set[int] = set()
    derived: list[tuple[Received, DerivationNote]] = []
    for _, copies in groupby(notes, key=_identity):
        copy = survey.merged(copies)
        received = copy.received
        pk = holdings.instance_pk(session, received)
        if pk is None or (pk in damaged and not copy.is_damaged):
            register(session, received, quiet, duplicates=duplicates)
            pk = holdings.instance_pk(session, received)
            assert pk is not None, "It was registered just now."
            damaged.discard(pk)
            if copy.is_damaged:
                archiving.quarantine(session, pk, DAMAGED)
                damaged.add(pk)
        if copy.container_key and pk not in housed:
            homes[copy.container_key].append(Placement(pk, copy.entry, copy.stored_bytes))
            housed.add(pk)
        if copy.derived is not None:
            derived.append((received, copy.derived))
    for key, placements in homes.items():
        facts = survey.facts[key]
        archiving.record_container(session, key, facts.size_bytes, facts.codecs, placements, facts.created_at)
    for received, note in derived:
        derivations.rebuild(session, received, note, context.settings.lossy, duplicates == "version")
    holdings.drop_needless_jobs(session)
    commitments.presume_all(session)
    instances, spool_copies = holdings.count_instances(session)
    return ReindexReport(len(homes), instances, spool_copies, tuple(survey.damages), tuple(survey.missing))
