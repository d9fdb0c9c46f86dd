"""Re-read all that is kept and compare it with what was received; heal what has another copy, quarantine the rest."""

import datetime as dt
import enum
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session

from thinfilm_gateway.archive.container.format import DamagedContainer, MissingDecoder
from thinfilm_gateway.archive.container.reader import Container, open_container
from thinfilm_gateway.index import archiving, cache, holdings, scrub_passes
from thinfilm_gateway.index.holdings import HeldContainer, HeldInstance
from thinfilm_gateway.index.states import InstanceState
from thinfilm_workers.context import Context
from thinfilm_workers.proof import container_damage, entry_sha256, spool_damage

log = structlog.get_logger()


class Finding(enum.Enum):
    """What a scrub does about an instance."""

    SOUND = "sound"
    RECOMPRESS = "recompress"  # only the spool copy is good: it becomes the object of record again
    DROP_SPOOL_COPY = "drop_spool_copy"  # only the container is good
    RELEASE = "release"  # it was quarantined, and its container is good
    QUARANTINE = "quarantine"  # no copy is good


@dataclass(frozen=True)
class ScrubReport:
    """What was read and what was wrong with it.

    damages: a sentence for each. missing: one for each container of which what decodes it is not installed; nothing is
    said of what lies in it. recompressed, dropped, released, quarantined: instances, by what was done about them.
    """

    containers: int
    instances: int
    damages: tuple[str, ...]
    missing: tuple[str, ...]
    recompressed: int
    dropped: int
    released: int
    quarantined: int


def decide(state: InstanceState, spool: bool | None, container: bool | None) -> Finding:
    """Decide what to do about an instance; a copy is good (True), damaged (False), or not expected at all (None)."""
    if container:
        if state is InstanceState.QUARANTINED:
            return Finding.RELEASE
        return Finding.DROP_SPOOL_COPY if spool is False else Finding.SOUND
    if not spool:
        return Finding.QUARANTINE
    if container is False or state is InstanceState.QUARANTINED:
        return Finding.RECOMPRESS
    return Finding.SOUND


def scrub(context: Context, progress: Callable[[], None] = lambda: None) -> ScrubReport:
    """Read all containers and spool copies; `progress` is called after each instance.

    Raises StorageAway if spool or archive hold nothing of what they should, since nothing then is known to be lost.
    """
    began_at = dt.datetime.now(dt.UTC)
    scrubbing = Scrubbing(context, progress)
    for container in holdings.containers(context.database):
        scrubbing.container(container)
    scrubbing.spool_only(holdings.without_container(context.database))
    report = scrubbing.report()
    with context.database.session() as session:
        scrub_passes.record_whole(session, began_at, len(report.damages), dt.datetime.now(dt.UTC))
    return report


class Scrubbing:
    """A reading of all that is kept, or of a part of it."""

    def __init__(self, context: Context, progress: Callable[[], None]) -> None:
        self._context = context
        self._progress = progress
        self._containers = 0
        self._instances = 0
        self._damages: list[str] = []
        self._missing: list[str] = []
        self._done: Counter[Finding] = Counter()

    def report(self) -> ScrubReport:
        """Tell what was found so far."""
        return ScrubReport(
            containers=self._containers,
            instances=self._instances,
            damages=tuple(self._damages),
            missing=tuple(self._missing),
            recompressed=self._done[Finding.RECOMPRESS],
            dropped=self._done[Finding.DROP_SPOOL_COPY],
            released=self._done[Finding.RELEASE],
            quarantined=self._done[Finding.QUARANTINE],
        )

    def container(self, container: HeldContainer) -> None:
        """Read a container and the spool copies of what lies in it; one in which nothing lies is the sweep's."""
        with self._context.database.reading() as session:
            instances = holdings.in_container(session, container.container_pk)
        if not instances:
            return
        self._containers += 1
        try:
            damages, lost = self._examine(container, instances)
        except MissingDecoder as error:
            self._missing.append(f"Container {container.key}: {error}")
            log.error("decoder_missing", container=container.key, reason=str(error))
            return
        self._damages += [f"Container {container.key}: {damage}" for damage in damages]
        if not damages:
            with self._context.database.session() as session:
                holdings.mark_verified(session, container.container_pk, dt.datetime.now(dt.UTC))
        for held in instances:
            spool = self._spool_is_good(held)
            # A container with any damage is given up for each instance that has another good copy.
            self._act(held, spool, container=held not in lost and not (damages and spool))

    def spool_only(self, instances: Iterable[HeldInstance]) -> None:
        """Read the spool copies of what lies in no container."""
        for held in instances:
            self._act(held, self._spool_is_good(held), container=None)

    def _examine(
        self, container: HeldContainer, instances: Sequence[HeldInstance]
    ) -> tuple[list[str], Collection[HeldInstance]]:
        """Return a sentence for each damage of a container, and the instances that cannot be read from it."""
        try:
            with self._context.store.open(container.key) as reader:
                opened = open_container(reader, container.key)
                damages = opened.verify()
                lost = {held for held in instances if _is_lost(opened, held, bool(damages))}
        except FileNotFoundError:
            self._context.store.check_mounted()
            return ["It is missing."], instances
        except DamagedContainer as error:
            return [str(error)], instances
        return damages or (["It holds other objects than the index says."] if lost else []), lost

    def _spool_is_good(self, held: HeldInstance) -> bool | None:
        if held.spool_name is None:
            return None
        damage = spool_damage(self._context.spool, held.spool_name, held.dataset_offset, held.sha256)
        if damage:
            self._damages.append(f"Spool copy of {held.sop_instance_uid}: {damage}")
        return damage is None

    def _act(self, held: HeldInstance, spool: bool | None, container: bool | None) -> None:
        """Do what is to be done, unless the instance was changed since its copies were looked up."""
        self._instances += 1
        finding = decide(held.state, spool, container)
        if finding is not Finding.SOUND:
            with self._context.database.session() as session:
                done = holdings.lock_unchanged(session, held) and _apply(session, held, finding)
            if done:
                log.warning("scrub_finding", sop_instance_uid=held.sop_instance_uid, finding=finding.value)
                self._done[finding] += 1
                if finding is Finding.DROP_SPOOL_COPY and held.spool_name:
                    self._context.spool.remove(held.spool_name)
        self._progress()


def _is_lost(container: Container, held: HeldInstance, damaged: bool) -> bool:
    """Tell whether an instance cannot be read from a container of which every entry is known, or not, to be sound."""
    if damaged:
        return container_damage(container, held.container_entry, held.sha256) is not None
    return entry_sha256(container, held.container_entry) != held.sha256


def _apply(session: Session, held: HeldInstance, finding: Finding) -> bool:
    """Do it; tell whether there was anything to do."""
    now = dt.datetime.now(dt.UTC)
    match finding:
        case Finding.RECOMPRESS:
            holdings.return_to_spool(session, held, "The spool copy is good and is compressed anew.", now)
            return True
        case Finding.RELEASE:
            holdings.release_from_quarantine(session, held, "The container gives the bytes that were received.", now)
            return True
        case Finding.DROP_SPOOL_COPY:
            return cache.forget(session, held.instance_pk)
        case _:
            return archiving.quarantine(session, held.instance_pk, "No copy has the bytes that were received.")
