"""The process that answers HTTP: one of the children of `thinfilm serve`, so that nothing in it harms the others."""

import contextlib
import signal
import socket
from collections.abc import Iterator, Sequence
from functools import partial

import uvicorn

from thinfilm_gateway.config import Settings
from thinfilm_gateway.counts import Tally
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.web import limits
from thinfilm_gateway.web.app import create_app
from thinfilm_gateway.web.health import examine
from thinfilm_gateway.web.limits import LimitedConnection

STOP_SECONDS = 5  # for answers that are being sent when the gateway stops


class _Server(uvicorn.Server):
    """A server that stops in order on SIGTERM, and lets the process end with status 0 then."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        def stop(*signal_and_frame: object) -> None:
            del signal_and_frame
            self.should_exit = True

        signal.signal(signal.SIGTERM, stop)
        yield


def serve_http(listener: socket.socket, receivers_alive: Sequence[int], settings: Settings) -> None:
    """Answer on a socket that listens, until SIGTERM.

    receivers_alive: one number a receiver, in memory shared with the supervisor: 1 while it lives, else 0.
    """
    database = Database(settings.index_url)
    app = create_app(partial(examine, settings, database, receivers_alive, Tally()))
    config = uvicorn.Config(
        app,
        http=LimitedConnection,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=limits.LARGEST_HEADER_BYTES,
        timeout_keep_alive=int(limits.KEEP_ALIVE_SECONDS),
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    try:
        _Server(config).run(sockets=[listener])
    finally:
        database.dispose()
