"""A receiver that runs out of file descriptors: it says so, does not spin, keeps no halves, and recovers."""

import contextlib
import multiprocessing
import os
import resource
import socket
import sys
import time
from multiprocessing.synchronize import Event
from pathlib import Path

from support.datasets import ct_series
from support.receiver import WAIT_SECONDS, Running, wait_until
from support.scu import Answer, storage_user, store_all
from support.servers import free_port
from thinfilm_gateway import logs
from thinfilm_gateway.archive.spool import Spool
from thinfilm_gateway.config import Settings
from thinfilm_gateway.dimse import status
from thinfilm_gateway.dimse.server import serve_receiver
from thinfilm_gateway.index.database import Database

DESCRIPTORS = 97  # so many that in the end none at all is left; of two left, an object could still be stored
OBJECTS = ct_series(3)
STORED = Answer(status.SUCCESS, "")
LOOK_SECONDS = 2.0


def serve_with_few_descriptors(settings: Settings, log_file: Path, ready: Event) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    sys.stderr = log_file.open("w", encoding="utf-8", buffering=1)
    logs.configure("info")
    serve_receiver(settings, ready.set)


def cpu_seconds(process_id: int) -> float:
    fields = Path(f"/proc/{process_id}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_receiver_without_descriptors_refuses_waits_and_recovers(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path, dicom_host="127.0.0.1", dicom_port=free_port(), minimum_free_bytes=0,
        check_called_ae_title=False, maximum_associations=500, maximum_associations_per_host=500,
    )  # fmt: skip
    database = Database(settings.index_url)
    database.upgrade()
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    log_file = tmp_path / "log"
    process = context.Process(target=serve_with_few_descriptors, args=(settings, log_file, ready))
    process.start()
    try:
        assert ready.wait(WAIT_SECONDS), "The receiver did not start."
        running = Running(settings.dicom_port, settings, Spool(settings.spool_dir), database)
        with storage_user(running.port, OBJECTS) as user, contextlib.ExitStack() as callers:
            assert user.store(OBJECTS[0]) == STORED
            for _ in range(DESCRIPTORS):
                caller = callers.enter_context(socket.socket())
                caller.connect(("127.0.0.1", running.port))
            wait_until(lambda: "cannot_accept" in log_file.read_text(), "it says that it cannot accept")
            answer = user.store(OBJECTS[1])
            assert answer.status == status.OUT_OF_RESOURCES
            begin = cpu_seconds(process.pid or 0)
            time.sleep(LOOK_SECONDS)  # what it takes meanwhile is what is measured
            assert cpu_seconds(process.pid or 0) - begin < LOOK_SECONDS / 4
            assert log_file.read_text().count("cannot_accept") == 1
            assert "LimitNOFILE" in log_file.read_text()
            assert [instance.sop_instance_uid for instance in running.instances()] == [OBJECTS[0].sop_instance_uid]
            wait_until(lambda: len(running.files()) == 1, "nothing half is left")
        wait_until(lambda: _stores(running), "objects are taken again")
        assert "accepts_again" in log_file.read_text()
        wait_until(lambda: len(running.files()) == 2, "nothing half is left")
    finally:
        process.terminate()
        process.join(WAIT_SECONDS)
        process.kill()
        database.dispose()
    assert process.exitcode == 0


def _stores(running: Running) -> bool:
    try:
        return store_all(running.port, [OBJECTS[2]]) == [STORED]
    except AssertionError:  # not accepted yet
        return False
