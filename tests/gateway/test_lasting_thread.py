import threading

import pytest

from support.receiver import wait_until
from thinfilm_gateway import lasting_thread
from thinfilm_gateway.lasting_thread import LastingThread


def test_a_thread_that_fails_is_told_of_and_run_again(monkeypatch):
    monkeypatch.setattr(lasting_thread, "LONGEST_PAUSE_SECONDS", 0.01)
    runs = []

    def work() -> None:
        runs.append(thread.trouble)
        if len(runs) < 3:
            raise ModuleNotFoundError("No module named 'packaging'.")
        thread.stopping.wait()

    thread = LastingThread("dispatcher", work)
    assert thread.trouble is None, "it was not started yet"
    thread.start()
    wait_until(lambda: len(runs) == 3, "it was run again twice")
    told = (
        "The thread dispatcher failed (ModuleNotFoundError: No module named 'packaging') and is run again; see the log."
    )
    assert runs == [None, told, told]
    assert thread.trouble == told, "a moment after a failure it may fail again"
    monkeypatch.setattr(lasting_thread, "HEALTHY_SECONDS", 0.0)
    assert thread.trouble is None, "it has run long enough since"
    thread.stop()
    assert not thread.is_alive()
    assert thread.trouble is None


@pytest.mark.parametrize("error", [SystemExit(1), MemoryError(), RuntimeError("x")], ids=repr)
def test_whatever_a_thread_raises_does_not_end_it(monkeypatch, error):
    monkeypatch.setattr(lasting_thread, "LONGEST_PAUSE_SECONDS", 0.01)
    second_run = threading.Event()
    errors = [error]

    def work() -> None:
        if errors:
            raise errors.pop()
        second_run.set()
        thread.stopping.wait()

    thread = LastingThread("watch", work)
    thread.start()
    assert second_run.wait(10)
    thread.stop()


def test_a_thread_that_ends_by_itself_is_missed():
    thread = LastingThread("watch", lambda: None)
    thread.start()
    thread.join()
    assert thread.trouble == "The thread watch has ended; restart the gateway."


def test_a_thread_is_stopped_while_it_pauses(monkeypatch):
    monkeypatch.setattr(lasting_thread, "LONGEST_PAUSE_SECONDS", 3600.0)

    def work() -> None:
        raise RuntimeError("x")

    thread = LastingThread("watch", work)
    thread.start()
    wait_until(lambda: thread.trouble is not None, "it has failed")
    thread.stop()
    assert not thread.is_alive()
