"""What the receivers of a gateway share: the sockets that they accept from, and how many associations each one has."""

import contextlib
import multiprocessing
import socket
import time
from collections.abc import MutableSequence
from dataclasses import dataclass

BACKLOG = 1024  # connections that may wait to be accepted, while receivers are busy, or being started again
GIVE_WAY_SECONDS = 0.005  # for each association more than the idlest receiver has
LONGEST_WAY_SECONDS = 0.02


class Load:
    """How many associations each receiver has.

    All receivers are woken by a connection, and one of them gets it. Those with more associations than another give
    that one a moment to be quicker, so that no interpreter has all the work while others idle.
    """

    def __init__(self, counts: MutableSequence[int], place: int) -> None:
        """Stand at `place` among `counts`, those of all receivers, in memory that they share."""
        self._counts = counts
        self._place = place

    def record(self, associations: int) -> None:
        """Tell the others how many this one has."""
        self._counts[self._place] = associations

    def give_way(self) -> None:
        """Wait a little if another receiver has fewer."""
        more = self._counts[self._place] - min(self._counts)
        if more > 0:
            time.sleep(min(LONGEST_WAY_SECONDS, more * GIVE_WAY_SECONDS))


@dataclass(frozen=True)
class Shared:
    """What a receiver has in common with the others; it can be handed to a process that is being started.

    tls_listener: None without TLS.
    """

    listener: socket.socket
    tls_listener: socket.socket | None
    load: Load

    def end_listening(self) -> None:
        """Refuse further connections, here and in all processes that share the sockets."""
        for listener in (self.listener, self.tls_listener):
            if listener is not None:
                with contextlib.suppress(OSError):  # ended already, or closed
                    listener.shutdown(socket.SHUT_RDWR)


def loads(receivers: int) -> list[Load]:
    """Return the loads of so many receivers, which know of one another."""
    counts = multiprocessing.get_context("spawn").RawArray("i", receivers)
    return [Load(counts, place) for place in range(receivers)]


def listen(host: str, port: int) -> socket.socket:
    """Listen on a port, a free one for 0.

    Raises OSError if anyone else does, UnicodeError for what can be no name of a host.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)  # of the receivers that are woken by a connection, all but one find it gone
    except OSError:
        listener.close()
        raise
    return listener


def port_of(listener: socket.socket) -> int:
    """Return the port that is listened on."""
    return int(listener.getsockname()[1])
