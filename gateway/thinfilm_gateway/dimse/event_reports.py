"""N-EVENT-REPORTs on an association that the peer has requested, between the peer's own requests (PS3.7 10.1.1)."""

import threading
from collections import deque
from concurrent.futures import Future
from typing import Any

from pynetdicom.dimse_primitives import N_EVENT_REPORT

Answer = Future[int | None]
"""The Status of the response; None if the association ended without one."""


class EventReports:
    """The reports of one association: any thread submits them, the association's own thread sends them."""

    def __init__(self, association: Any) -> None:
        self._association = association
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, N_EVENT_REPORT, Answer]] = deque()
        self._unanswered: dict[int, Answer] = {}
        self._sent = 0
        self._ended = False

    def submit(self, context_id: int, report: N_EVENT_REPORT) -> Answer:
        """Let a report be sent, in the context of this id, as soon as no request of the peer is being served."""
        answer: Answer = Future()
        with self._lock:
            if self._ended:
                answer.set_result(None)
                return answer
            self._waiting.append((context_id, report, answer))
        self._association.dimse.wake()
        return answer

    def send_waiting(self) -> None:
        """Send what waits, unless the peer has asked for the end of the association."""
        while self._association.dul.peek_next_pdu() is None:
            with self._lock:
                if not self._waiting:
                    return
                context_id, report, answer = self._waiting.popleft()
                self._sent += 1
                report.MessageID = self._sent % 0x10000
                self._unanswered[report.MessageID] = answer
            self._association.dimse.send_msg(report, context_id)

    def answer(self, response: N_EVENT_REPORT) -> None:
        """Take the response to a report; one that nobody waits for is dropped."""
        with self._lock:
            answer = self._unanswered.pop(response.MessageIDBeingRespondedTo, None)
        if answer is not None:
            answer.set_result(int(response.Status))

    def end(self) -> None:
        """Tell whoever waits that no response will come."""
        with self._lock:
            self._ended = True
            answers = [answer for _, _, answer in self._waiting] + list(self._unanswered.values())
            self._waiting.clear()
            self._unanswered.clear()
        for answer in answers:
            answer.set_result(None)
