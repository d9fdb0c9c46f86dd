"""SIGTERM and SIGINT as something to wait for beside the ends of child processes."""

import contextlib
import multiprocessing
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection


@contextlib.contextmanager
def stop_signal() -> Iterator[Connection]:
    """Give a connection that becomes readable when the process is asked to stop."""
    receiving, sending = multiprocessing.Pipe(duplex=False)

    def ask(signum: int, frame: object) -> None:
        del signum, frame
        sending.send_bytes(b"stop")

    previous = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield receiving
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        sending.close()
        receiving.close()
