"""Waiting until a gateway of one's own has brought everything into its archive."""

import time
from collections.abc import Callable

from thinfilm_gateway.archive import mark
from thinfilm_gateway.config import Settings
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.kept import KeptSeries, kept_series

LOOK_EVERY_SECONDS = 0.25


class NotArchived(Exception):
    """Not everything reached the archive in time; the message is one sentence."""


def await_archived(
    settings: Settings, advance: Callable[[], None], seconds: float = 3600.0, *, kept_copies: bool = False
) -> list[KeptSeries]:
    """Wait until every instance lies in a container and the spool holds no file but its mark; return what is kept.

    Takes a gateway with cache_bytes=0. What it returns from then on was decoded, and what it refused has left nothing
    behind. kept_copies: do not wait for the spool. `advance` is called once for each series that is done. Raises
    NotArchived.
    """
    database = Database(settings.index_url)
    deadline = time.monotonic() + seconds
    shown = 0
    try:
        while True:
            with database.reading() as session:
                rows = kept_series(session)
            for _ in range(sum(row.archived == row.instances for row in rows) - shown):
                shown += 1
                advance()
            left = 0 if kept_copies else len(mark.files_beside(settings.spool_dir))
            if not left and all(row.archived == row.instances for row in rows):
                return rows
            if time.monotonic() > deadline:
                waiting = sum(row.instances - row.archived for row in rows)
                raise NotArchived(
                    f"After {seconds:g} s, {waiting} instances are not archived and the spool holds {left} files."
                )
            time.sleep(LOOK_EVERY_SECONDS)
    finally:
        database.dispose()
