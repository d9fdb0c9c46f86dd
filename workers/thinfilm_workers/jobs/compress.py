"""Compress a series: pack, store, read back, prove, and only then let the index point at the container."""

import errno
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from thinfilm_gateway import data_folder
from thinfilm_gateway.archive.container.pack import CannotPack, Source, pack
from thinfilm_gateway.archive.container.report import PackReport
from thinfilm_gateway.archive.store import StorageAway, new_key
from thinfilm_gateway.config import GIB
from thinfilm_gateway.index import archiving, audit, holdings, volumes
from thinfilm_gateway.index.archiving import PendingInstance, Placement
from thinfilm_gateway.index.jobs import ClaimedJob
from thinfilm_workers.context import Context
from thinfilm_workers.effort import effort
from thinfilm_workers.lease import Lease, LeaseLost
from thinfilm_workers.proof import NotProven, prove, spool_damage

log = structlog.get_logger()

PORTION_BYTES = 2 * GIB  # raw bytes of one container, unless a single object has more
PORTION_INSTANCES = 4096

_UID = re.compile(r"[0-9][0-9.]{0,63}")


def compress_series(context: Context, job: ClaimedJob, lease: Lease) -> None:
    """Bring all instances of the job's series that wait for it into containers.

    Damaged spool files are quarantined and left out, and what cannot be packed is left as received: no instance keeps
    the others from being archived. Instances that arrive meanwhile are left to the series' next job.
    Raises NotProven if a container did not read back and what files raise, for a part of the series perhaps when all
    others are done; LeaseLost if another worker has the job by now; and whatever the database raises. What was
    committed before stays; a further run does what is left.
    """
    run = _Run(context, job, lease)
    for portion in portions(_pending(context, job)):
        check_archive(context)
        run.archive(run.readable(portion))
    if run.troubles:
        raise run.troubles[0]


class Sized(Protocol):
    """An instance whose data set has so many bytes."""

    @property
    def dataset_bytes(self) -> int:
        """Length of the encoded data set."""


_Instance = TypeVar("_Instance", bound=Sized)


def portions(instances: Iterable[_Instance]) -> Iterator[list[_Instance]]:
    """Part instances, in their order, into those that share one container."""
    portion: list[_Instance] = []
    raw_bytes = 0
    for instance in instances:
        if portion and (raw_bytes + instance.dataset_bytes > PORTION_BYTES or len(portion) == PORTION_INSTANCES):
            yield portion
            portion, raw_bytes = [], 0
        portion.append(instance)
        raw_bytes += instance.dataset_bytes
    if portion:
        yield portion


def _pending(context: Context, job: ClaimedJob) -> list[PendingInstance]:
    assert job.series_pk is not None
    with context.database.reading() as session:
        return archiving.pending(session, job.series_pk)


def check_archive(context: Context) -> None:
    """See that the archive is there and not full, before anything is done for it. Raises StorageAway, OSError."""
    context.store.check()
    with context.database.reading() as session:
        container_bytes = volumes.container_bytes(session)
    if full := data_folder.archive_is_full(context.settings, context.settings.archive_dir, container_bytes):
        raise OSError(errno.ENOSPC, f"The archive is full: {full}")


class _Run:
    """One attempt. troubles: what was raised for instances that were left out, which a further attempt may archive."""

    def __init__(self, context: Context, job: ClaimedJob, lease: Lease) -> None:
        self.troubles: list[Exception] = []
        self._context = context
        self._job = job
        self._lease = lease

    def readable(self, portion: Sequence[PendingInstance]) -> list[PendingInstance]:
        """Quarantine the instances whose spool file is damaged; return those whose file is as it was received."""
        sound = []
        for instance in portion:
            self._lease.check()
            try:
                damage = spool_damage(
                    self._context.spool, instance.spool_name, instance.dataset_offset, instance.sha256
                )
            except OSError as error:
                log.warning("spool_file_not_read", sop_instance_uid=instance.sop_instance_uid, error=str(error))
                self.troubles.append(error)
                continue
            if damage is None:
                sound.append(instance)
                continue
            log.error("spool_file_damaged", sop_instance_uid=instance.sop_instance_uid, reason=damage)
            with self._context.database.session() as session:
                archiving.quarantine(session, instance.instance_pk, damage)
        return sound

    def archive(self, instances: Sequence[PendingInstance]) -> None:
        """Bring instances into one container, without those that keep the others out of it."""
        if not instances:
            return
        try:
            self._archive(instances)
        except CannotPack as error:
            if error.source is not None:
                self._leave_as_received(instances[error.source], str(error))
                self.archive(_without(instances, {error.source}))
            else:
                self._archive_apart(instances, error)
        except NotProven as error:
            others = _without(instances, error.entries)
            if not error.entries or not others:
                raise
            self.troubles.append(error)
            self._archive(others)
        except (OSError, LeaseLost, SQLAlchemyError, StorageAway):
            raise
        except Exception as error:
            if self._job.attempts < self._context.settings.max_attempts:
                raise  # the next attempt asks for less
            self._archive_apart(instances, error)

    def _archive_apart(self, instances: Sequence[PendingInstance], error: Exception) -> None:
        """Find out by halves which of the instances it is that cannot be packed."""
        if len(instances) == 1:
            self._leave_as_received(instances[0], str(error) or type(error).__name__)
            return
        middle = len(instances) // 2
        self.archive(instances[:middle])
        self.archive(instances[middle:])

    def _leave_as_received(self, instance: PendingInstance, reason: str) -> None:
        log.error("instance_left_as_received", sop_instance_uid=instance.sop_instance_uid, reason=reason)
        with self._context.database.session() as session:
            self._lease.confirm(session)
            archiving.leave_as_received(session, [instance], reason)

    def _archive(self, instances: Sequence[PendingInstance]) -> None:
        """Bring instances into one new container, unless another run was faster with all of them."""
        context, lease = self._context, self._lease
        key = new_key()
        packed = context.work_dir / key.rpartition("/")[2]
        sources = [
            Source(context.spool.path(instance.spool_name), name)
            for instance, name in zip(instances, _names(instances), strict=True)
        ]
        tried = effort(context, self._job)
        try:
            report = pack(sources, packed, tried.treatment, lambda count: lease.check(), tried.threads)
            lease.check()
            context.store.put(key, packed)
        finally:
            packed.unlink(missing_ok=True)
        try:
            prove(context, key, [instance.sha256 for instance in instances], lease)
            with context.database.session() as session:
                lease.confirm(session)
                taken = _record(session, key, instances, report)
        except (NotProven, LeaseLost) as error:
            # Nothing needs it. After any other error the commit may have gone through unseen: the sweep finds out.
            discard(context, key)
            if isinstance(error, NotProven):
                _note(context, "not_proven", str(error))
            raise
        if not taken:
            discard(context, key)
        log.info("container_archived", key=key, instances=len(taken), bytes=report.archive_bytes)


def discard(context: Context, key: str) -> None:
    """Remove a container that this run made and nothing needs, unless the index has come to name it."""
    with context.database.session() as session:
        holdings.drop_unnamed(session, key, lambda: context.store.delete(key))


def _without(instances: Sequence[PendingInstance], numbers: Collection[int]) -> list[PendingInstance]:
    return [instance for number, instance in enumerate(instances) if number not in numbers]


def _names(instances: Sequence[PendingInstance]) -> Iterator[str]:
    """Name the entries: the SOP Instance UID, or the position where that is no UID or another revision has it."""
    seen: set[str] = set()
    for position, instance in enumerate(instances):
        uid = instance.sop_instance_uid
        yield uid if _UID.fullmatch(uid) and uid not in seen else f"entry-{position}"
        seen.add(uid)


def _note(context: Context, kind: str, sentence: str) -> None:
    with context.database.session() as session:
        audit.record(session, kind, detail=sentence)


def _record(session: Session, key: str, instances: Sequence[PendingInstance], report: PackReport) -> list[int]:
    """Let the index point at the proven container and note which codecs failed; return the instances that it took."""
    placements = [
        Placement(instance.instance_pk, entry, report.entries[entry].stored_bytes)
        for entry, instance in enumerate(instances)
    ]
    for sentence in report.codec_failures:
        audit.record(session, "codec_fallback", detail=sentence)
    return archiving.record_container(session, key, report.archive_bytes, report.codecs, placements)
