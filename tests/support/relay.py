"""A TCP relay that stands between a client and its server, to cut the line at a chosen moment."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from enum import Enum, auto


class Cut(Enum):
    """When the line is cut."""

    NEVER = auto()
    NOW = auto()  # open lines, and every new one at once
    BEFORE = auto()  # once, when the client sends the watched bytes: they do not arrive
    AFTER = auto()  # once, when the client has sent the watched bytes: they arrive, the answer does not


class Relay:
    """Relays every connection to `port` to the server; use `relay`."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._cut = Cut.NEVER
        self._watched = b""
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def cut(self, when: Cut, watched: bytes = b"") -> None:
        """Cut the line, at once or at some bytes; Cut.NEVER mends it."""
        self._watched = watched
        self._cut = when
        if when is Cut.NOW:
            self._hang_up()

    def close(self) -> None:
        self._cut = Cut.NOW
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._hang_up()
        for thread in self._threads:
            thread.join()

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._cut is Cut.NOW:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._server_port))
            self._open += [client, server]
            self._start(self._forward, client, server, True)
            self._start(self._forward, server, client, False)

    def _forward(self, source: socket.socket, sink: socket.socket, from_client: bool) -> None:
        try:
            while data := source.recv(65536):
                due = from_client and self._cut in (Cut.BEFORE, Cut.AFTER) and self._watched in data
                if not due:
                    sink.sendall(data)
                    continue
                when, self._cut = self._cut, Cut.NEVER
                source.shutdown(socket.SHUT_RDWR)  # the client hears nothing more
                if when is Cut.AFTER:
                    sink.sendall(data)
                    sink.shutdown(socket.SHUT_WR)
                else:
                    sink.shutdown(socket.SHUT_RDWR)
                return
        except OSError:
            pass
        finally:
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

    def _hang_up(self) -> None:
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._open.clear()


@contextlib.contextmanager
def relay(server_port: int) -> Iterator[Relay]:
    """Run a relay to a server on this machine."""
    running = Relay(server_port)
    try:
        yield running
    finally:
        running.close()
