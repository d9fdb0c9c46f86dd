"""SIGTERM and SIGINT as something to wait for, alone or beside the ends of child processes."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection


@contextlib.contextmanager
def stop_signal() -> Iterator[Connection]:
    """Give a connection that becomes readable, and stays so, when the process is asked to stop; main thread only.

    The interpreter writes into it in the very moment. Handlers in Python run once the main thread comes back from what
    it waits for, and a signal that another thread takes, or that comes just before that wait, does not bring it back.
    """
    receiving, sending = multiprocessing.Pipe(duplex=False)
    os.set_blocking(sending.fileno(), False)
    previous = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    wakened = signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)
    try:
        yield receiving
    finally:
        signal.set_wakeup_fd(wakened)
        for number, handler in previous.items():
            signal.signal(number, handler)
        sending.close()
        receiving.close()
