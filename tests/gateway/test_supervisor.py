"""Children of `thinfilm serve`: awaited as long as they live."""

import contextlib
import errno
import multiprocessing
import os
import resource
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


def run_until_told(settings: Settings, on_ready: Callable[[], None]) -> None:
    on_ready()
    (settings.data_dir / GO).read_bytes()


def be_starved_and_start(data_dir: Path, outcome: Connection) -> None:
    """Use up all descriptors of this process, let a child be started, then another; say how both went."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))
    first, second = (Child(name, run_until_told, Settings(data_dir=data_dir)) for name in ("first", "second"))
    _, stop = multiprocessing.Pipe()
    first.start()
    first.await_ready(stop)
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.dup(0))
    first.process.kill()
    first.process.join()
    while not first.alive:  # from the reserve
        first.keep_alive()
    second._reserve = supervisor.Reserve()  # of which nothing can be had
    second.start()
    alive = [first.alive, second.alive]
    trouble = second.trouble
    for descriptor in taken:
        os.close(descriptor)
    while not second.alive:
        second.keep_alive()
    second.await_ready(stop)
    for child in (first, second):
        child.process.kill()
    outcome.send((*alive, trouble))


def test_a_child_is_started_from_the_reserve_when_no_descriptor_is_left_and_else_as_soon_as_there_is(
    tmp_path: Path, never: Connection
) -> None:
    del never
    os.mkfifo(tmp_path / GO)
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=be_starved_and_start, args=(tmp_path, sending))
    process.start()
    sending.close()
    with receiving:
        assert receiving.poll(60), "The starved process said nothing."
        first_alive, second_alive, trouble = receiving.recv()
    process.join(60)
    assert first_alive
    assert not second_alive
    assert "second does not run" in trouble
    assert process.exitcode == 0


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EAGAIN])
def test_a_child_that_the_system_has_no_room_for_is_started_later_and_the_others_live(
    tmp_path: Path, never: Connection, number: int
) -> None:
    os.mkfifo(tmp_path / GO)
    healthy, late = (Child(name, run_until_told, Settings(data_dir=tmp_path)) for name in ("healthy", "late"))
    fails = [True]

    def launch() -> None:
        if fails:
            raise OSError(number, os.strerror(number))
        Child._launch(late)

    late._launch = launch
    healthy.start()
    late.start()
    try:
        with ThreadPoolExecutor(1) as pool:
            ready = pool.submit(late.await_ready, never)
            healthy.await_ready(never)
            assert not late.alive
            fails.clear()
            ready.result(60)
            assert late.alive
            assert healthy.alive
    finally:
        stop_all([healthy, late])
