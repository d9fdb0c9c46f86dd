"""Objects that came again: each stays until the copy that was kept is read, and heals it where that is not right.

A peer that sends an object again was told that it is safe. Whether it is, only the bytes of the kept copy can tell.
"""

import datetime as dt
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import groupby, islice

import structlog

from thinfilm_gateway.archive.container.format import DamagedContainer
from thinfilm_gateway.archive.container.reader import open_container
from thinfilm_gateway.index import archiving, holdings
from thinfilm_gateway.index.holdings import HeldInstance
from thinfilm_gateway.index.ingest import Received, policy_for_kept, register_all
from thinfilm_gateway.index.states import InstanceState
from thinfilm_workers.context import Context
from thinfilm_workers.proof import container_damage, spool_damage
from thinfilm_workers.receipt import NotReceived, read_resent, without_private

log = structlog.get_logger()

BATCH = 256
SECONDS = 20.0  # of one run


@dataclass(frozen=True, eq=False)
class _Resent:
    """An object that came again. held: the copy that was kept; container_key: where that lies, "" for the spool."""

    received: Received
    is_damaged: bool
    held: HeldInstance | None
    container_key: str

    @property
    def name(self) -> str:
        """Of its file."""
        return str(self.received.spool_name)


def check_resent(context: Context, seconds: float = SECONDS) -> None:
    """Read the kept copies of what came again, and keep one of the two; begin no further batch after so many seconds.

    Raises StorageAway where spool or archive are away, OSError, and whatever the database raises.
    """
    ends = time.monotonic() + seconds
    names = iter(sorted(context.spool.resent()))
    while time.monotonic() < ends and (batch := list(islice(names, BATCH))):
        found = sorted(_resent(context, batch), key=lambda one: (one.container_key, _entry(one)))
        for key, ones in groupby(found, key=lambda one: one.container_key):
            for one, damage in _damages(context, key, list(ones)):
                _keep_one(context, one, damage)


def _resent(context: Context, names: Iterable[str]) -> Iterator[_Resent]:
    """Look up what was kept of each."""
    for name in names:
        try:
            spooled = read_resent(context.spool, name)
        except FileNotFoundError:  # another worker was faster
            continue
        except NotReceived as error:
            log.error("resent_file_unknown", name=name, reason=str(error))
            continue
        with context.database.reading() as session:
            held = holdings.find(session, spooled.received)
            home = holdings.homes(session, [held.instance_pk]).get(held.instance_pk) if held else None
        key = home.key if home and held and held.state is InstanceState.ARCHIVED else ""
        yield _Resent(without_private(spooled.received), spooled.is_damaged, held, key)


def _entry(one: _Resent) -> int:
    return (one.held and one.held.container_entry) or 0


def _damages(context: Context, key: str, ones: list[_Resent]) -> Iterator[tuple[_Resent, str | None]]:
    """Give each with a sentence about its kept copy, None where that is right."""
    if not key:
        for one in ones:
            yield one, _spool_damage(context, one.held)
        return
    with ExitStack() as stack:
        try:
            reader = stack.enter_context(context.store.open(key))
            container = open_container(reader, key)
        except (FileNotFoundError, DamagedContainer) as error:
            context.store.check_mounted()
            yield from ((one, f"The container cannot be read: {error}") for one in ones)
            return
        for one in ones:
            assert one.held is not None, "It lies in a container."
            yield one, container_damage(container, one.held.container_entry, one.held.sha256)


def _spool_damage(context: Context, held: HeldInstance | None) -> str | None:
    if held is None:
        return "The index does not know it any more."
    if held.state is InstanceState.QUARANTINED or held.spool_name is None:
        return "Its stored bytes are damaged."
    return spool_damage(context.spool, held.spool_name, held.dataset_offset, held.sha256)


def _keep_one(context: Context, one: _Resent, damage: str | None) -> None:
    """Let the object go where the kept copy is right; else let it take that one's place."""
    if damage is None:
        context.spool.remove_resent(one.name)
        return
    uid = one.received.sop_instance_uid
    if one.is_damaged:
        log.error("resent_file_damaged", name=one.name, sop_instance_uid=uid)
        return
    with suppress(FileNotFoundError):  # another worker was faster
        context.spool.take_back(one.name)
        if one.held is not None:
            with context.database.session() as session:
                if holdings.lock_unchanged(session, one.held):
                    archiving.quarantine(session, one.held.instance_pk, damage)
        quiet = dt.timedelta(seconds=context.settings.series_quiet_seconds)
        register_all(context.database, [one.received], quiet, duplicates=policy_for_kept(context.settings.duplicates))
        log.warning("healed_by_resent", sop_instance_uid=uid, reason=damage)
