"""Reports the outcome of storage commitment by N-EVENT-REPORT, until the peer has taken it (PS3.4 J.3.3)."""

import contextlib
import datetime as dt
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import TimeoutError as NoAnswer
from typing import Any

import structlog
from pynetdicom import build_context, build_role
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.presentation import PresentationContext
from sqlalchemy.exc import SQLAlchemyError

from thinfilm_gateway.config import Settings
from thinfilm_gateway.dimse import contexts, status
from thinfilm_gateway.dimse.association import Association
from thinfilm_gateway.dimse.commitment_examination import Examiner
from thinfilm_gateway.dimse.commitment_messages import event_report
from thinfilm_gateway.dimse.peers import Peers
from thinfilm_gateway.index import commitments
from thinfilm_gateway.index.commitments import HeldCommitment
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.states import CommitmentState
from thinfilm_gateway.lasting_thread import LastingThread

log = structlog.get_logger()

_THREADS = 4  # so that a peer that stands still holds up neither the others nor their examinations
_POLL_SECONDS = 1.0  # between two looks for what is due
_HOLD_ON_SECONDS = 20.0  # of an examination, between two signs that it goes on
_STOP_SECONDS = 5.0

ANSWER_SECONDS = 10.0
"""For a peer to answer on its own association, where it can be told on a new one: a thread waits meanwhile."""

_Handed = tuple[HeldCommitment, Association, PresentationContext]


class _NotReported(Exception):
    """The peer has not taken the report; the message is one sentence."""


class _LetGo(Exception):
    """This process no longer works on the storage commitment."""


class Reporter:
    """Threads that examine and report: what this process was just asked for, and what is due in the index."""

    def __init__(self, settings: Settings, peers: Peers, ae: Any, database: Database, examiner: Examiner) -> None:
        """ae: pynetdicom's application entity, as which associations are requested."""
        self._settings = settings
        self._peers = peers
        self._ae = ae
        self._database = database
        self._examiner = examiner
        # Longer than a peer that stands still can take, and a bit of an examination.
        self.hold = dt.timedelta(seconds=60 + 2 * settings.network_timeout_seconds)
        self._stopping = threading.Event()
        self._handed: queue.SimpleQueue[_Handed | None] = queue.SimpleQueue()
        self._looking = threading.Lock()
        self._outgoing: set[Association] = set()
        self._threads = [LastingThread(f"storage commitment {number}", self._run) for number in range(1, _THREADS + 1)]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Break off what is going on; another process, or the next start, takes it up."""
        self._stopping.set()
        for thread in self._threads:
            thread.stopping.set()
            self._handed.put(None)
        for association in list(self._outgoing):
            association.abort()
        deadline = time.monotonic() + _STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        while not self._handed.empty():
            if (handed := self._handed.get()) is not None:
                with contextlib.suppress(SQLAlchemyError):
                    _Work(self._database, handed[0], self.hold, self._stopping).release()

    def report(self, held: HeldCommitment, association: Association, context: PresentationContext) -> None:
        """Examine a request and report the outcome, on its own association if that is open still; returns at once."""
        self._handed.put((held, association, context))

    def _run(self) -> None:
        busy = True  # what an earlier process left is looked for at once
        while not self._stopping.is_set():
            handed = None
            with contextlib.suppress(queue.Empty):
                handed = self._handed.get(timeout=0 if busy else _POLL_SECONDS)
            try:
                if handed is not None:
                    held, association, context = handed
                    self._settle(_Work(self._database, held, self.hold, self._stopping), association, context)
                elif not self._stopping.is_set():
                    busy = self._settle_due()
            except SQLAlchemyError as error:  # it is due again when nobody holds it any longer
                log.warning("index_away", error=type(error).__name__)
                busy = False

    def _settle_due(self) -> bool:
        """Settle what has been due the longest; False if nothing is."""
        if not self._looking.acquire(blocking=False):  # one look at a time, over one connection
            return False
        try:
            held = commitments.claim_due(self._database, self.hold)
        finally:
            self._looking.release()
        if held is not None:
            self._settle(_Work(self._database, held, self.hold, self._stopping))
        return held is not None

    def _settle(
        self, work: "_Work", association: Association | None = None, context: PresentationContext | None = None
    ) -> None:
        """Examine what has not been examined, and report. Raises SQLAlchemyError."""
        try:
            if work.held.state is CommitmentState.REQUESTED:
                self._examine(work)
            if association is None or context is None or not self._reported_on(association, context, work.held):
                work.hold_on()
                self._report_anew(work.held)
        except _LetGo:
            work.release()
        except _NotReported as error:
            work.put_off(str(error))
        except SQLAlchemyError:
            raise
        except Exception:
            log.exception("commitment_failed", transaction_uid=work.held.transaction_uid)
            work.put_off("The gateway failed; see its log.")
        else:
            work.done()

    def _examine(self, work: "_Work") -> None:
        """Find out for what storage commitment is given, and note it before anybody is told. Raises _LetGo."""
        reasons: Sequence[int | None]
        if work.held.is_repeated:
            reasons = [status.DUPLICATE_TRANSACTION_UID] * len(work.held.references)
        else:
            reasons = self._examiner.examine(work.held.references, work.beat)
        work.note(reasons)

    def _reported_on(self, association: Association, context: PresentationContext, held: HeldCommitment) -> bool:
        """Report on the association of the request; False if that has ended, or the peer does not answer there.

        Raises _NotReported.
        """
        answer = association.event_reports.submit(
            context.context_id, event_report(held, self._settings.ae_title, context)
        )
        seconds = self._settings.network_timeout_seconds
        if self._peers.destination(held.ae_title) is not None:
            seconds = min(seconds, ANSWER_SECONDS)
        try:
            code = answer.result(seconds)
        except NoAnswer:
            return False
        if code is not None:
            _check(code, held.ae_title)
        return code is not None

    def _report_anew(self, held: HeldCommitment) -> None:
        """Report on an association of our own, on which we are the SCP. Raises _NotReported, _LetGo.

        A peer that takes the context but says nothing of the roles is reported to all the same.
        """
        peer = self._peers.destination(held.ae_title)
        if peer is None:
            raise _NotReported(f"The settings have no peer {held.ae_title} with a port.")
        proposed = build_context(contexts.STORAGE_COMMITMENT, list(contexts.SERVICE_TRANSFER_SYNTAXES))
        role = build_role(contexts.STORAGE_COMMITMENT, scp_role=True)
        try:
            association = self._peers.request(self._ae, peer, [proposed], [role])
        except (OSError, UnicodeError) as error:
            raise _NotReported(f"The host {peer.host} of {peer.ae_title} is not known: {error}.") from error
        self._outgoing.add(association)
        try:
            if self._stopping.is_set():
                raise _LetGo
            if not association.is_established:
                how = "refused the association" if association.is_rejected else "cannot be reached"
                raise _NotReported(f"{peer.ae_title} at {peer.host}:{peer.port} {how}.")
            if not association.accepted_contexts:
                raise _NotReported(f"{peer.ae_title} at {peer.host}:{peer.port} takes no storage commitment.")
            code = self._answer(association, held)
            if code is None:
                raise _NotReported(f"{peer.ae_title} at {peer.host}:{peer.port} did not answer the report.")
            association.release()
            _check(code, peer.ae_title)
        finally:
            self._outgoing.discard(association)
            if association.is_established:
                association.abort()
            association.kill()

    def _answer(self, association: Association, held: HeldCommitment) -> int | None:
        """Send the report and return the status of the response; None if there is none."""
        context = association.accepted_contexts[0]
        report = event_report(held, self._settings.ae_title, context)
        report.MessageID = 1
        association.dimse.send_msg(report, context.context_id)
        _, response = association.dimse.get_msg(block=True)
        if not isinstance(response, N_EVENT_REPORT) or not response.is_valid_response:
            return None
        return int(response.Status)


class _Work:
    """A storage commitment in the hands of this process: what is noted of it goes to the index from here."""

    def __init__(self, database: Database, held: HeldCommitment, hold: dt.timedelta, stopping: threading.Event) -> None:
        self.held = held
        self._database = database
        self._hold = hold
        self._stopping = stopping
        self._held_on_at = time.monotonic()

    def beat(self) -> None:
        """Hold on, if the last time is long enough ago. Raises _LetGo when this process stops."""
        if self._stopping.is_set():
            raise _LetGo
        if time.monotonic() - self._held_on_at > _HOLD_ON_SECONDS:
            self.hold_on()

    def hold_on(self) -> None:
        """Show that this process goes on with it. Raises _LetGo if it shall not, or another one does."""
        if self._stopping.is_set():
            raise _LetGo
        with self._database.session() as session:
            self._is_still(commitments.hold_on(session, self.held, self._hold))
        self._held_on_at = time.monotonic()

    def note(self, failure_reasons: Sequence[int | None]) -> None:
        """Note the outcome of the examination. Raises _LetGo."""
        with self._database.session() as session:
            self._is_still(commitments.record_outcome(session, self.held, failure_reasons))
        failed = sum(reason is not None for reason in failure_reasons)
        log.info(
            "commitment_examined",
            peer=self.held.ae_title,
            transaction_uid=self.held.transaction_uid,
            committed=len(failure_reasons) - failed,
            failed=failed,
        )

    def done(self) -> None:
        """Note that the peer has taken the report."""
        with self._database.session() as session:
            commitments.record_report(session, self.held)
        log.info("commitment_reported", peer=self.held.ae_title, transaction_uid=self.held.transaction_uid)

    def put_off(self, reason: str) -> None:
        """Let the next attempt wait."""
        with self._database.session() as session:
            state = commitments.put_off(session, self.held, reason)
        log.warning(
            "commitment_not_reported",
            peer=self.held.ae_title,
            transaction_uid=self.held.transaction_uid,
            attempt=self.held.attempts,
            state=state.value,
            reason=reason,
        )

    def release(self) -> None:
        """Leave it to whoever comes next."""
        with self._database.session() as session:
            commitments.release(session, self.held)

    def _is_still(self, held: HeldCommitment | None) -> None:
        if held is None:
            raise _LetGo
        self.held = held


def _check(code: int, ae_title: str) -> None:
    """Raise _NotReported unless the status of a response is success or a warning (PS3.7 Annex C)."""
    is_warning = code in (0x0001, 0x0107, 0x0116) or code >> 12 == 0xB
    if code != status.SUCCESS and not is_warning:
        raise _NotReported(f"{ae_title} answered the report with status {code:04X}.")
