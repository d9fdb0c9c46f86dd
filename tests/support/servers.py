"""Private PostgreSQL and Redis servers for a test run: started on free ports in a folder of their own, and stopped."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 60.0


def free_port() -> int:
    """Return a TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class PostgresServer:
    """A running PostgreSQL server; `url(database)` is what SQLAlchemy takes."""

    port: int

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://thinfilm@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Create a database and return its URL."""
        import psycopg
        from psycopg import sql

        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="thinfilm", dbname="postgres", autocommit=True
        ) as c:
            c.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)


@dataclass
class StoppableServer:
    """A server that a test stops and starts again."""

    _run: Callable[[], contextlib.AbstractContextManager[None]]
    _running: contextlib.AbstractContextManager[None] | None = None

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        self._running = self._run()
        self._running.__enter__()

    def stop(self) -> None:
        """Stop the server, if it runs."""
        if self._running is not None:
            self._running.__exit__(None, None, None)
            self._running = None


@contextlib.contextmanager
def postgres() -> Iterator[PostgresServer]:
    """Run a PostgreSQL server of our own."""
    with stoppable_postgres() as (server, _):
        yield server


@contextlib.contextmanager
def stoppable_postgres(**options: str) -> Iterator[tuple[PostgresServer, StoppableServer]]:
    """Run a PostgreSQL server that can be stopped; it refuses root, so root starts it as the user `postgres`.

    options: settings of the server, beside its defaults.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="thinfilm-postgres-") as folder:
        command = _postgres_command(Path(folder), port, options)
        run = StoppableServer(lambda: _running(command, Path(folder), signal.SIGINT, lambda: _postgres_answers(port)))
        run.start()
        try:
            yield PostgresServer(port), run
        finally:
            run.stop()


def _postgres_command(folder: Path, port: int, options: Mapping[str, str]) -> list[str]:
    """Make an empty database cluster, and return the command that serves it."""
    data = folder / "data"
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    initdb = [_postgres_program("initdb"), "--pgdata", str(data), "--username=thinfilm", "--auth=trust"]
    subprocess.run(
        [*_unprivileged(), *initdb, "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"],
        check=True,
        capture_output=True,
        cwd=folder,
    )
    values = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": folder,
        "autovacuum": "off",  # what it counts, and when, would decide on plans that tests look at
        "max_connections": 200,
        **options,
    }
    arguments = [part for name, value in values.items() for part in ("-c", f"{name}={value}")]
    return [*_unprivileged(), _postgres_program("postgres"), "-D", str(data), *arguments]


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Run a Redis server of our own and yield its URL."""
    with stoppable_redis() as (url, _):
        yield url


@contextlib.contextmanager
def stoppable_redis() -> Iterator[tuple[str, StoppableServer]]:
    """Run a Redis server that can be stopped; started again, it is empty."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="thinfilm-redis-") as folder:
        command = [_program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        command += ["--save", "", "--appendonly", "no"]
        run = StoppableServer(lambda: _running(command, Path(folder), signal.SIGTERM, lambda: _redis_answers(port)))
        run.start()
        try:
            yield f"redis://127.0.0.1:{port}/0", run
        finally:
            run.stop()


@contextlib.contextmanager
def _running(command: list[str], folder: Path, stop: signal.Signals, answers: Callable[[], bool]) -> Iterator[None]:
    """Run a server in `folder` until the block ends; enter the block when it answers."""
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=folder)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start:\n{log.read_text(errors='replace')}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        yield
    finally:
        process.send_signal(stop)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _postgres_answers(port: int) -> bool:
    import psycopg

    try:
        psycopg.connect(host="127.0.0.1", port=port, user="thinfilm", dbname="postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _redis_answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _unprivileged() -> list[str]:
    if os.geteuid() != 0:
        return []
    return [_program("setpriv"), "--reuid=postgres", "--regid=postgres", "--clear-groups"]


def _postgres_program(name: str) -> str:
    """Find a server program, which Debian keeps out of the PATH; the newest version wins."""
    candidates = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return str(candidates[-1]) if candidates else _program(name)


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise RuntimeError(f"The tests need {name}; install it (README.md lists the system packages).")
    return path
