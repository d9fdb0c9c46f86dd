"""Containers in which, by the index, no instance lies: what is nowhere else is found in them again, the rest may go.

The index may be older than the archive, as after a restore of last night's backup, so that it knows nothing of the only
copies. A container therefore goes only if every object in it was read and proven in another one, and no sooner than
UNUSED_FOR after that was seen and told; or if a lossy rule let all of them go.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from thinfilm_gateway.archive.container.format import DamagedContainer, DerivationNote, DicomHeader
from thinfilm_gateway.archive.container.reader import Container, open_container
from thinfilm_gateway.archive.container.report import frame_codecs, stored_shares
from thinfilm_gateway.index import archiving, cache, derivations, holdings
from thinfilm_gateway.index.archiving import Placement
from thinfilm_gateway.index.holdings import HeldInstance
from thinfilm_gateway.index.ingest import Received, policy_for_kept, register
from thinfilm_gateway.index.states import InstanceState
from thinfilm_workers.context import Context
from thinfilm_workers.proof import is_proven_in_container, spool_damage
from thinfilm_workers.receipt import NotReceived, read_file, without_private

log = structlog.get_logger()

UNUSED_FOR = dt.timedelta(days=7)


@dataclass(frozen=True, eq=False)
class _Found:
    """An object that was read from the container, as it was received. held: its row in the index, if it has one."""

    received: Received
    entry: int
    stored_bytes: int
    derived: DerivationNote | None
    held: HeldInstance | None


@dataclass(frozen=True)
class _Unreadable:
    """An entry that is damaged or no received object; the manifest says what it was, None if not that."""

    sentence: str
    dicom: DicomHeader | None


@dataclass(frozen=True, eq=False)
class _Survey:
    """What lies in a container."""

    size_bytes: int
    codecs: tuple[str, ...]
    stored_at: dt.datetime
    found: tuple[_Found, ...]
    unreadable: tuple[_Unreadable, ...]
    is_damaged: bool

    @property
    def holds_derived(self) -> bool:
        """Whether objects lie in it that a lossy rule made of others."""
        return any(found.derived for found in self.found)


def settle(context: Context, key: str, since: dt.datetime | None, *, derived_too: bool) -> bool:
    """Attach the container to what is nowhere else; else list it, or remove it if it has been listed long enough.

    since: when it was listed. derived_too: also where lossily derived objects lie in it, whose originals may be found
    in another container yet; if not, they are left alone, and False is returned.
    Raises DamagedContainer if it cannot be read at all, StorageAway, OSError, and whatever the database raises.
    """
    if since is not None and dt.datetime.now(dt.UTC) - since < UNUSED_FOR:
        return True
    survey = _read(context, key)
    if survey.holds_derived and not derived_too:
        return False
    retired = [_was_retired(context, key, found) for found in survey.found]
    homeless = [
        found
        for found, is_retired in zip(survey.found, retired, strict=True)
        if not is_retired and not _is_kept_elsewhere(context, key, found)
    ]
    waiting = [found for found in homeless if survey.is_damaged and _is_safe_in_spool(context, found)]
    if waiting:  # to be compressed anew, which is better than to lie in what is damaged
        homeless = [found for found in homeless if found not in waiting]
    if homeless:
        _attach(context, key, survey, homeless)
    elif waiting:
        log.info("container_damaged", key=key, waiting=len(waiting))
    elif lost := [one.sentence for one in survey.unreadable if not _is_damaged_copy(context, key, one.dicom)]:
        log.warning("container_unknown", key=key, reason=" ".join(lost[:3]))
    else:
        was_retired = bool(retired) and all(retired) and not survey.unreadable
        _let_go(context, key, survey, at_once=since is not None or was_retired)
    return True


def _let_go(context: Context, key: str, survey: _Survey, *, at_once: bool) -> None:
    """List a container that nothing needs, or remove it."""
    now = dt.datetime.now(dt.UTC)
    with context.database.session() as session:
        holdings.list_unused(session, key, survey.size_bytes, ",".join(survey.codecs), now)
        removed = at_once and holdings.drop_container(session, key, lambda: context.store.delete(key))
    if removed:
        log.info("container_removed", key=key)
    else:
        log.info("container_unused", key=key, goes_after=(now + UNUSED_FOR).isoformat(timespec="seconds"))


def _read(context: Context, key: str) -> _Survey:
    """Read and prove every entry."""
    found: list[_Found] = []
    unreadable: list[_Unreadable] = []
    scratch = context.work_dir / f"{key.rpartition('/')[2]}.entry"
    try:
        with context.store.open(key) as reader:
            container = open_container(reader, key)
            stored_at = context.store.stored_at(key)
            shares = stored_shares(container.manifest, container.size)
            for entry in container.reading_order():
                try:
                    received = _received(container, entry, scratch, stored_at)
                except (DamagedContainer, NotReceived) as error:
                    unreadable.append(_Unreadable(f"Entry {entry}: {error}", container.entries[entry].dicom))
                    continue
                with context.database.reading() as session:
                    held = holdings.find(session, received)
                derived = container.manifest.entries[entry].derived
                found.append(_Found(received, entry, shares[entry], derived, held))
            codecs = frame_codecs(container.manifest.stacks)
            is_damaged = bool(unreadable) or any(container.structural_damages())
            return _Survey(container.size, codecs, stored_at, tuple(found), tuple(unreadable), is_damaged)
    finally:
        scratch.unlink(missing_ok=True)


def _received(container: Container, entry: int, scratch: Path, stored_at: dt.datetime) -> Received:
    """Restore a file, which proves its SHA-256, and read it. Raises DamagedContainer, NotReceived."""
    with scratch.open("wb") as file:
        file.writelines(container.stream(entry))
    return without_private(read_file(scratch, None, stored_at))


def _is_kept_elsewhere(context: Context, key: str, found: _Found) -> bool:
    """Tell whether the object was proven in another container; one that was derived, its original."""
    if found.held is not None:
        return is_proven_in_container(context, found.held, key)
    if found.derived is None:
        return False
    return _is_proven(context, key, found.derived.original_sop_instance_uid, found.derived.original_sha256)


def _is_safe_in_spool(context: Context, found: _Found) -> bool:
    """Tell whether the object waits in the spool, by its bytes."""
    held = found.held
    if held is None or held.spool_name is None or held.state is not InstanceState.RECEIVED:
        return False
    return spool_damage(context.spool, held.spool_name, held.dataset_offset, held.sha256) is None


def _is_damaged_copy(context: Context, key: str, dicom: DicomHeader | None) -> bool:
    """Tell whether an entry that is damaged here is right in another container, by what the manifest says of it."""
    return dicom is not None and _is_proven(context, key, dicom.sop_instance_uid, dicom.dataset_sha256)


def _was_retired(context: Context, key: str, found: _Found) -> bool:
    """Tell whether a lossy rule let the object go, and what is served in its place was proven."""
    if found.held is not None:
        return False
    with context.database.reading() as session:
        successor = derivations.retired_for(session, found.received.sop_instance_uid, found.received.sha256)
    return successor is not None and _is_proven(context, key, *successor)


def _is_proven(context: Context, key: str, sop_instance_uid: str, sha256: str) -> bool:
    """Tell whether the index has an object of this UID and content, and it was read in another container."""
    with context.database.reading() as session:
        held = holdings.with_content(session, sop_instance_uid, sha256)
    return held is not None and is_proven_in_container(context, held, key)


def _attach(context: Context, key: str, survey: _Survey, homeless: Sequence[_Found]) -> None:
    """Let the index point at the container for all that has no other home; what it does not know is entered."""
    quiet = dt.timedelta(seconds=context.settings.series_quiet_seconds)
    duplicates = policy_for_kept(context.settings.duplicates)
    with context.database.session() as session:
        placements: list[Placement] = []
        gone: list[int] = []
        for found in homeless:
            if found.held is None:
                register(session, found.received, quiet, duplicates=duplicates)
            elif not holdings.lock_unchanged(session, found.held):
                continue  # somebody is at it; the next look will tell
            pk = holdings.instance_pk(session, found.received)
            assert pk is not None, "It is registered."
            placements.append(Placement(pk, found.entry, found.stored_bytes))
            spool_name = found.held and found.held.spool_name
            if spool_name and context.spool.size(spool_name) is None:
                gone.append(pk)
        archiving.attach(session, key, survey.size_bytes, survey.codecs, placements, survey.stored_at)
        for pk in gone:
            cache.forget(session, pk)
        for found in homeless:
            if found.derived is not None:
                lossy = context.settings.lossy
                derivations.rebuild(session, found.received, found.derived, lossy, duplicates == "version")
        context.store.stored_at(key)  # nobody has removed it meanwhile
    log.warning("container_attached", key=key, instances=len(placements), reason="The index did not know it.")
