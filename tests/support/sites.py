"""A whole site for an end-to-end test: embedded, or with PostgreSQL, Redis and Celery workers."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from support.gateway import running_gateway
from support.servers import free_port, postgres, redis
from thinfilm_gateway.client.archived import await_archived
from thinfilm_gateway.client.gateway import RunningGateway
from thinfilm_gateway.config import ENVIRONMENT_PREFIX, Peer, Settings
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.kept import KeptSeries

STORESCP = "STORESCP"
ORTHANC = "ORTHANC"
OUR_STORE = "OUR-STORE"

ARCHIVE_SECONDS = 150.0


@dataclass(frozen=True)
class Site:
    """A gateway, and the ports of its C-MOVE destinations, on which a test may put a server."""

    gateway: RunningGateway
    destinations: Mapping[str, int]

    @property
    def port(self) -> int:
        """The port of the gateway's DICOM services."""
        return self.gateway.node.port

    def await_archived(self) -> list[KeptSeries]:
        """Wait until everything lies in containers and the spool is empty: what comes back then was decoded."""
        return await_archived(self.gateway.settings, lambda: None, ARCHIVE_SECONDS)


@contextlib.contextmanager
def embedded_site() -> Iterator[Site]:
    """SQLite and the local worker."""
    destinations = {name: free_port() for name in (STORESCP, ORTHANC, OUR_STORE)}
    with (
        tempfile.TemporaryDirectory(prefix="thinfilm-site-") as folder,
        running_gateway(Path(folder), **_settings(destinations)) as gateway,
    ):
        yield Site(gateway, destinations)


@contextlib.contextmanager
def full_site() -> Iterator[Site]:
    """PostgreSQL, Redis, Celery workers and Celery beat, each a process of its own."""
    destinations = {name: free_port() for name in (STORESCP, ORTHANC, OUR_STORE)}
    with tempfile.TemporaryDirectory(prefix="thinfilm-site-") as name, postgres() as server, redis() as broker_url:
        folder = Path(name)
        places = {"database_url": server.url(), "broker_url": broker_url, "data_dir": folder / "data"}
        settings = Settings(**(_settings(destinations) | places))
        database = Database(settings.index_url)
        database.upgrade()
        database.dispose()
        with (
            running_gateway(folder, **(_settings(destinations) | places)) as gateway,
            _celery(settings, folder, "worker", "--concurrency=2"),
            _celery(settings, folder, "beat"),
        ):
            yield Site(gateway, destinations)


def _settings(destinations: Mapping[str, int]) -> dict[str, object]:
    peers = tuple(Peer(ae_title=name, host="127.0.0.1", port=port) for name, port in destinations.items())
    return {
        "series_quiet_seconds": 0.5,
        "cache_bytes": 0,
        "decoded_cache_bytes": 0,
        "lossless_codecs": Settings().lossless_codecs,
        "peers": peers,
    }


@contextlib.contextmanager
def _celery(settings: Settings, folder: Path, *arguments: str) -> Iterator[None]:
    """Run a Celery program until the block ends."""
    others = {key: value for key, value in os.environ.items() if not key.startswith(ENVIRONMENT_PREFIX)}
    with (folder / f"celery-{arguments[0]}.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "thinfilm_gateway", "celery", *arguments],
            env=others | settings.to_environment(),
            cwd=folder,
            stdout=output,
            stderr=output,
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
