"""Who may read what lies on the disk: the user that Thinfilm runs as, and nobody else."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from thinfilm_gateway.config import Settings

log = structlog.get_logger()

_UMASK = 0o077
_OTHER_USERS = 0o077  # what group and others may
_ANYBODY = 0o004


class NotPrivate(Exception):
    """Other users can read what holds patient data, and that cannot be mended here; the message is one sentence."""


def keep_new_files_private() -> None:
    """Let whatever this process and its children make be for its user alone."""
    os.umask(_UMASK)


def make_private(settings: Settings) -> None:
    """Close spool, archive and index, as an earlier version or a copy may have left them, to other users.

    The data folder itself stays as it is: it may hold more than ours. Raises NotPrivate.
    """
    if not settings.data_dir.is_dir():
        return
    encloses = not settings.data_dir.stat().st_mode & _OTHER_USERS
    for path in _pieces(settings):
        mode = path.stat().st_mode
        if not mode & _OTHER_USERS:
            continue
        complaint = _close(path, mode)
        if complaint is None:
            log.warning("made_private", path=str(path), mode_before=f"{mode & 0o7777:04o}")
        elif not encloses or path.is_symlink() or path.parent != settings.data_dir:
            raise NotPrivate(complaint)


def readable_secrets(settings: Settings, file: Path | None) -> list[Path]:
    """Return the files with passwords or keys that every user of this host can read. file: that of the settings."""
    has_password = any(urlsplit(url).password for url in (settings.database_url, settings.broker_url))
    secrets = [file if has_password else None, settings.tls_key]
    return [path for path in secrets if path is not None and path.exists() and path.stat().st_mode & _ANYBODY]


def _pieces(settings: Settings) -> Iterator[Path]:
    """Give what is there of ours: a closed folder closes what lies in it."""
    names = [settings.spool_dir, settings.archive_dir]
    driver, _, index = settings.index_url.partition(":///")
    if driver.startswith("sqlite") and index:
        file = Path(index.partition("?")[0])
        names += file.parent.glob(f"{file.name}*")  # with its log, and what was set aside
    return (path for path in names if path.exists())


def _close(path: Path, mode: int) -> str | None:
    """Take from other users what they may; return the sentence that says why it cannot be done."""
    try:
        path.chmod(mode & 0o7777 & ~_OTHER_USERS)
    except OSError as error:
        return (
            f"Other users can open {path}, and this one cannot close it to them ({error.strerror}); let its owner run "
            f"`chmod go= {path}`, or run as its owner."
        )
    if path.stat().st_mode & _OTHER_USERS:
        return (
            f"Other users can open {path}, and its file system does not let that be changed; mount it with "
            "umask=077, or give a folder elsewhere."
        )
    return None
