"""Spool and archive as volumes that may be away: marked at the first start, opened with a look at the mark."""

from pathlib import Path

import structlog
from sqlalchemy.exc import SQLAlchemyError

from thinfilm_gateway.archive import mark
from thinfilm_gateway.archive.mark import MarkCheck
from thinfilm_gateway.archive.spool import Spool
from thinfilm_gateway.archive.store import FolderStore, StorageAway, make_folder
from thinfilm_gateway.config import Settings
from thinfilm_gateway.index import volumes
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.volumes import ARCHIVE, SPOOL

log = structlog.get_logger()


def settle(settings: Settings, database: Database) -> None:
    """Mark spool and archive where they were never marked, and let the index remember it.

    A mark that lies there already, as after a rebuild of the index, is taken over. A folder that is empty although the
    index names files in it is left alone: `mark.complaint` and the checks at reading tell of it.
    """
    for name, folder in _folders(settings).items():
        with database.session() as session:
            if volumes.mark_of(session, name) is not None:
                continue
            found = mark.read(folder)
            if found is None and volumes.is_in_use(session, name) and not _holds_files(folder):
                log.error("volume_empty", folder=str(folder), mend="Mount its volume, then start again.")
                continue
            make_folder(folder)
            volumes.record_mark(session, name, found or mark.write(folder))


def open_spool(settings: Settings, database: Database) -> Spool:
    """Open the spool; nothing is written into a folder that has not its mark."""
    return Spool(settings.spool_dir, _check(settings.spool_dir, database, SPOOL), settings.minimum_free_bytes)


def open_store(settings: Settings, database: Database) -> FolderStore:
    """Open the archive; nothing is written into a folder that has not its mark."""
    return FolderStore(settings.archive_dir, _check(settings.archive_dir, database, ARCHIVE))


def _check(folder: Path, database: Database, name: str) -> MarkCheck:
    def expected() -> str | None:
        try:
            with database.reading() as session:
                return volumes.mark_of(session, name)
        except SQLAlchemyError as error:
            raise StorageAway(f"The index, which knows the mark of {folder}, does not answer.") from error

    return MarkCheck(folder, expected)


def _folders(settings: Settings) -> dict[str, Path]:
    return {SPOOL: settings.spool_dir, ARCHIVE: settings.archive_dir}


def _holds_files(folder: Path) -> bool:
    return any(path.is_file() for path in folder.glob("??/*"))
