"""Children of `thinfilm serve`: awaited as long as they live."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import structlog

from support.receiver import wait_until
from thinfilm_gateway import supervisor
from thinfilm_gateway.config import Settings
from thinfilm_gateway.supervisor import Child, NotReady, stop_all

GO = "go"


def ready_when_told(settings: Settings, on_ready: Callable[[], None]) -> None:
    """Be ready, and end, when somebody writes into a pipe; until then stand for a start that takes long."""
    (settings.data_dir / GO).read_bytes()
    on_ready()


def end_at_once(settings: Settings, on_ready: Callable[[], None]) -> None:
    del settings, on_ready


@pytest.fixture
def never() -> Iterator[Connection]:
    """What becomes readable when `serve` shall stop."""
    receiving, sending = multiprocessing.Pipe(duplex=False)
    with receiving, sending:
        yield receiving


def test_a_child_that_takes_long_to_start_is_waited_for(
    tmp_path: Path, never: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STILL_STARTING_SECONDS", 0.05)
    os.mkfifo(tmp_path / GO)
    child = Child("receiver 1", ready_when_told, Settings(data_dir=tmp_path))
    with structlog.testing.capture_logs() as lines, ThreadPoolExecutor(1) as pool:
        child.start()
        try:
            ready = pool.submit(child.await_ready, never)
            wait_until(lambda: [line["event"] for line in lines].count("still_starting") > 1, "the log says so twice")
            assert not ready.done()
            (tmp_path / GO).write_bytes(b"now")
            ready.result(60)
        finally:
            stop_all([child])


def test_a_child_that_ends_before_it_is_ready_is_not_waited_for(tmp_path: Path, never: Connection) -> None:
    child = Child("receiver 1", end_at_once, Settings(data_dir=tmp_path))
    child.start()
    with pytest.raises(NotReady, match=r"^The receiver 1 ended before it was ready; the log above says why\.$"):
        child.await_ready(never)
    child.process.join()
