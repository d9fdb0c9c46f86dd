"""Keep the spool's cache within `cache_bytes`, and space free for what is still to be received.

Copies of what is archived go, the least recently read ones first.
"""

from collections.abc import Mapping

import structlog

from thinfilm_gateway.archive.container.format import DamagedContainer
from thinfilm_gateway.archive.container.reader import open_container
from thinfilm_gateway.archive.space import LEAST_FREE_FILES
from thinfilm_gateway.index import cache, holdings
from thinfilm_gateway.index.cache import CachedCopy
from thinfilm_gateway.index.holdings import HeldContainer
from thinfilm_workers.context import Context
from thinfilm_workers.proof import entry_sha256

log = structlog.get_logger()


def evict(context: Context) -> int:
    """Remove spool copies until the rest fits and the disk has space; return how many went.

    Only copies whose container was proven and lies in the store go. The index forgets a copy before its file is
    removed, so that it never points at nothing; what a crash leaves in between, the sweep removes.
    """
    with context.database.reading() as session:
        excess = max(cache.cached_bytes(session) - context.settings.cache_bytes, _missing_space(context))
    evicted = 0
    while excess > 0 or _lacks_files(context):
        with context.database.reading() as session:
            copies = cache.least_recently_read(session)
            homes = holdings.homes(session, [copy.instance_pk for copy in copies])
        can_go = _with_home(context, copies, homes)
        going = _enough(can_go, excess) or can_go[:LEAST_FREE_FILES]
        if not going:
            break
        with context.database.session() as session:
            gone = [copy for copy in going if cache.forget(session, copy.instance_pk)]
        for copy in gone:
            context.spool.remove(copy.spool_name)
        excess -= sum(copy.file_bytes for copy in going)
        evicted += len(gone)
    if evicted:
        log.info("spool_copies_evicted", copies=evicted)
    return evicted


def _missing_space(context: Context) -> int:
    """Return how many bytes must be freed for the receivers to go on until the next run.

    That is a quarter more than the limit below which they refuse objects, and an eighth of the spool's quota.
    """
    minimum = context.settings.minimum_free_bytes
    missing = minimum + minimum // 4 - context.spool.space().free_bytes
    quota = context.settings.spool_quota_bytes
    return missing if quota is None else max(missing, context.spool.used_bytes() - (quota - quota // 8))


def _lacks_files(context: Context) -> bool:
    """Tell whether files must go for the receivers to be able to make some, however short they are."""
    free_files = context.spool.space().free_files
    return free_files is not None and free_files < 2 * LEAST_FREE_FILES


def _enough(copies: list[CachedCopy], excess: int) -> list[CachedCopy]:
    """Return the leading copies that together free `excess` bytes, or all of them."""
    going = []
    for copy in copies:
        if excess <= 0:
            break
        going.append(copy)
        excess -= copy.file_bytes
    return going


def _with_home(context: Context, copies: list[CachedCopy], homes: Mapping[int, HeldContainer]) -> list[CachedCopy]:
    """Return the copies whose container was read and is as it was when it was proven; reads each container once."""
    whole = {home.key: _is_whole(context, home) for home in set(homes.values())}
    return [copy for copy in copies if copy.instance_pk in homes and whole[homes[copy.instance_pk].key]]


def _is_whole(context: Context, home: HeldContainer) -> bool:
    """Tell whether a container holds what the index says of it, and its bytes are those that were proven."""
    with context.database.reading() as session:
        instances = holdings.in_container(session, home.container_pk)
    try:
        with context.store.open(home.key) as reader:
            container = open_container(reader, home.key)
            container.check_stored_bytes()
            if all(entry_sha256(container, held.container_entry) == held.sha256 for held in instances):
                return True
            reason = "It holds other objects than the index says."
    except (OSError, DamagedContainer) as error:
        reason = str(error)
    log.error("container_not_whole", key=home.key, reason=reason, mend="Run `thinfilm scrub`.")
    return False
