"""HTTP connections that cannot be held for ever nor be taken from others, however many somebody opens."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 256
REQUEST_SECONDS = 10.0  # from the first moment of a request, or of its connection, to its last byte
ANSWER_SECONDS = 60.0  # from then on until the answer is ready and taken
KEEP_ALIVE_SECONDS = 5.0  # between two requests
LARGEST_HEADER_BYTES = 16 * 1024

_NOT_ALL_HERE = (h11.IDLE, h11.SEND_BODY)


class LimitedConnection(H11Protocol):
    """A connection with deadlines for each request as a whole, however its bytes drip.

    Where there are too many, the one that has waited longest for a request to come in makes room for the newest. A
    caller that sends its request at once is served beside any number of those who do not.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._deadline: asyncio.TimerHandle | None = None
        self._waits_since = self.loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Make room for the connection, and wait for its first request."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._begin()
        if len(self.connections) > MOST_CONNECTIONS:
            waiting = [one for one in self.connections if isinstance(one, LimitedConnection) and one.is_waiting]
            min(waiting, key=lambda one: one._waits_since).give_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request; the first of them begin it."""
        if self._deadline is None:
            self._begin()
        super().data_received(data)

    def on_response_complete(self) -> None:
        """End the request; another one may have come in behind it."""
        self._end()
        answered = self.cycle
        super().on_response_complete()
        if self.cycle is not answered and not self.cycle.response_complete:
            self._begin()

    @property
    def is_waiting(self) -> bool:
        """Whether nobody is at work for this connection: no whole request has come in."""
        return self.cycle is None or self.cycle.response_complete

    def give_up(self) -> None:
        """Close the connection at once, whatever the caller has not taken yet."""
        self._end()
        self.connections.discard(self)
        self.transport.abort()

    def _begin(self) -> None:
        self._end()
        self._waits_since = self.loop.time()
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self._request_is_due)

    def _request_is_due(self) -> None:
        if self.conn.their_state in _NOT_ALL_HERE:
            self.give_up()
        else:
            self._deadline = self.loop.call_later(ANSWER_SECONDS, self.give_up)

    def _end(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
