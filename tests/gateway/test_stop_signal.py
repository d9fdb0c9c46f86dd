"""A request to stop is heard whichever thread of the process the system gives it to."""

import os
import signal
from pathlib import Path

import pytest

from support.receiver import receiver_process, wait_until
from thinfilm_gateway.stop_signal import stop_signal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_request_stays_and_the_handlers_of_before_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_signal() as stop:
        assert not stop.poll(0)
        os.kill(os.getpid(), number)
        assert stop.poll(20)
        assert stop.poll(0)
    assert signal.getsignal(number) is before


def test_a_receiver_stops_when_another_of_its_threads_takes_the_signal(tmp_path: Path) -> None:
    with receiver_process(tmp_path) as receiver:
        assert receiver.process is not None
        pid = receiver.process.pid
        threads = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir() if int(task.name) != pid]
        os.kill(threads[0], signal.SIGTERM)  # Linux prefers the thread that is named
        wait_until(lambda: not receiver.process.is_alive(), "the receiver ends")
        assert receiver.process.exitcode == 0
