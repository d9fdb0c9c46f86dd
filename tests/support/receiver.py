"""Runs the receiver: in this process, to look into it, or in one of its own, to measure or to kill it."""

import contextlib
import hashlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from pathlib import Path

from sqlalchemy import select

from support.servers import free_port
from thinfilm_gateway.archive.spool import Spool
from thinfilm_gateway.config import Settings
from thinfilm_gateway.dicom import part10
from thinfilm_gateway.dimse.server import Receiver, serve_receiver
from thinfilm_gateway.dimse.sharing import Shared
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.models import Instance

WAIT_SECONDS = 90.0


@dataclass(frozen=True)
class Running:
    """A receiver that answers on `port`, with the spool and the index that it fills."""

    port: int
    settings: Settings
    spool: Spool
    database: Database
    receiver: Receiver | None = None
    tls_port: int = 0
    process: SpawnProcess | None = None

    def instances(self) -> list[Instance]:
        """Return the rows of the index, in the order of their arrival."""
        with self.database.reading() as session:
            return list(session.scalars(select(Instance).order_by(Instance.id)))

    def dataset(self, instance: Instance) -> bytes:
        """Return the data set that the spool keeps for a row, after a look at its header."""
        assert instance.spool_name is not None
        file = self.spool.path(instance.spool_name).read_bytes()
        header = part10.locate(file)
        assert header is not None
        assert header.dataset_offset == instance.dataset_offset
        assert header.sop_instance_uid == instance.sop_instance_uid
        assert header.sop_class_uid == instance.sop_class_uid
        assert header.transfer_syntax_uid == instance.transfer_syntax_uid
        dataset = file[header.dataset_offset :]
        assert hashlib.sha256(dataset).hexdigest() == instance.sha256
        assert len(dataset) == instance.dataset_bytes
        return dataset

    def files(self) -> list[Path]:
        """Return every file under the spool, half ones too, but not what came again and was set aside."""
        paths = self.settings.spool_dir.rglob("*")
        return [path for path in paths if path.is_file() and path.parent.name != "resent"]

    def assert_nothing_kept(self) -> None:
        """Fail unless spool and index are empty, or become so at once."""
        wait_until(lambda: not self.files(), "the spool is empty")
        assert self.instances() == []


@contextlib.contextmanager
def running_receiver(folder: Path, shared: Shared | None = None, **overrides: object) -> Iterator[Running]:
    """Run a receiver in this process, on a free port, or a shared one, and an index of its own under `folder`."""
    settings = _settings(folder, **{"dicom_port": 0, **overrides})
    database = Database(settings.index_url)
    database.upgrade()
    receiver = Receiver(settings, shared)
    receiver.start()
    try:
        spool = Spool(settings.spool_dir)
        yield Running(receiver.port, settings, spool, database, receiver, receiver.tls_port or 0)
    finally:
        receiver.stop(seconds=5)
        database.dispose()


@contextlib.contextmanager
def receiver_process(folder: Path, **overrides: object) -> Iterator[Running]:
    """Run a receiver as `thinfilm serve` does: in a process of its own."""
    settings = _settings(folder, **{"dicom_port": free_port(), **overrides})
    database = Database(settings.index_url)
    database.upgrade()
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=serve_receiver, args=(settings, ready.set))
    process.start()
    try:
        assert ready.wait(WAIT_SECONDS), "The receiver did not start."
        yield Running(settings.dicom_port, settings, Spool(settings.spool_dir), database, process=process)
    finally:
        process.terminate()
        process.join(WAIT_SECONDS)
        process.kill()
        process.join()
        database.dispose()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition. Fails after WAIT_SECONDS."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"In {WAIT_SECONDS} seconds it did not come about that {what}."
        time.sleep(0.01)


def _settings(folder: Path, **overrides: object) -> Settings:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    defaults = {
        "data_dir": folder / "data",
        "dicom_host": "127.0.0.1",
        "minimum_free_bytes": 0,
        "warning_free_bytes": 0,
        "network_timeout_seconds": 30,
        "check_called_ae_title": False,
    }
    return Settings.model_validate({**defaults, **overrides})
