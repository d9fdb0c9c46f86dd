"""The indexes that the scenarios of restores back up and put back: an SQLite file, or a PostgreSQL of one's own."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from thinfilm_gateway.bench.chaos.programs import free_port, running
from thinfilm_gateway.bench.chaos.proof import thinfilm
from thinfilm_gateway.config import Settings

USER = "thinfilm"
DATABASE = "index"


class NotInstalled(Exception):
    """This machine has no such database; the message says which."""


class Index(Protocol):
    """An index of one's own, of a gateway that is stopped."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What a gateway needs to be told to use it."""

    def back_up(self, target: Path) -> None:
        """Write a backup, as docs/operations.md tells."""

    def restore(self, backup: Path) -> None:
        """Put a backup in the place of what is there."""


@dataclass(frozen=True)
class Sqlite:
    """The embedded index of a data folder."""

    data: Path

    @property
    def settings(self) -> Mapping[str, Any]:
        """See Index."""
        return {}

    def back_up(self, target: Path) -> None:
        """See Index."""
        with (
            contextlib.closing(sqlite3.connect(self._file)) as source,
            contextlib.closing(sqlite3.connect(target)) as to,
        ):
            source.backup(to)

    def restore(self, backup: Path) -> None:
        """See Index."""
        for file in self.data.glob(f"{self._file.name}*"):
            file.unlink()
        shutil.copyfile(backup, self._file)

    @property
    def _file(self) -> Path:
        return self.data / "index.sqlite"


@dataclass(frozen=True)
class Postgres:
    """A database of a PostgreSQL server that only listens on the loopback interface."""

    port: int

    @property
    def settings(self) -> Mapping[str, Any]:
        """See Index."""
        return {"database_url": f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{DATABASE}"}

    def back_up(self, target: Path) -> None:
        """See Index."""
        self._run("pg_dump", "--file", str(target), DATABASE)

    def restore(self, backup: Path) -> None:
        """See Index."""
        self._run("dropdb", DATABASE)
        self.create()
        self._run("psql", "--quiet", "--set=ON_ERROR_STOP=1", "--file", str(backup), DATABASE)

    def create(self) -> None:
        """Make the database, empty."""
        self._run("createdb", DATABASE)

    def _run(self, name: str, *arguments: str) -> None:
        where = ["--host=127.0.0.1", f"--port={self.port}", f"--username={USER}"]
        subprocess.run([_program(name), *where, *arguments], check=True, capture_output=True)  # noqa: S603


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL of one's own with an empty database. Raises NotInstalled, DidNotRun.

    It refuses root, so root starts it as the user `postgres`.
    """
    initdb, server = _program("initdb"), _program("postgres")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="thinfilm-bench-postgres-") as name:
        folder = Path(name)
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        cluster = ["--pgdata", str(folder / "data"), f"--username={USER}", "--auth=trust", "--encoding=UTF8"]
        as_whom = _unprivileged()
        subprocess.run([*as_whom, initdb, *cluster], check=True, capture_output=True, cwd=folder)  # noqa: S603
        place = ["-c", f"port={port}", "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
        command = [*as_whom, server, "-D", str(folder / "data"), *place]
        index = Postgres(port)
        with running(command, folder / "server.log", lambda: _answers(index), stop=signal.SIGINT):
            index.create()
            yield index


def upgrade(settings: Settings) -> None:
    """Bring a new PostgreSQL database to the schema, which `serve` does not do there."""
    thinfilm(settings, "db", "upgrade").check_returncode()


def _answers(index: Postgres) -> bool:
    ready = [_program("pg_isready"), "--host=127.0.0.1", f"--port={index.port}", "--quiet"]
    return subprocess.run(ready, check=False).returncode == 0  # noqa: S603


def _unprivileged() -> Sequence[str]:
    if os.geteuid() != 0:
        return ()
    return (_program("setpriv"), "--reuid=postgres", "--regid=postgres", "--clear-groups")


def _program(name: str) -> str:
    """Find a program; Debian keeps those of the server out of the PATH. Raises NotInstalled."""
    candidates = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    program = str(candidates[-1]) if candidates else shutil.which(name)
    if program is None:
        raise NotInstalled(f"{name} is not installed")
    return program
