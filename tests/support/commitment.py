"""A storage commitment service class user made of pynetdicom, not of ours (PS3.4 Annex J)."""

import contextlib
import datetime as dt
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from sqlalchemy import select, update

from support.datasets import EncodedDataSet
from support.receiver import Running, wait_until
from thinfilm_gateway.index.models import Commitment
from thinfilm_gateway.index.states import CommitmentState

MODALITY = "MODALITY"

Reference = tuple[str, str]
"""SOP Class UID, SOP Instance UID."""


def references(objects: Iterable[EncodedDataSet]) -> list[Reference]:
    return [(one.sop_class_uid, one.sop_instance_uid) for one in objects]


def action_information(transaction_uid: str | None, wanted: Iterable[Reference]) -> Dataset:
    information = Dataset()
    if transaction_uid is not None:
        information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = [_item(*reference) for reference in wanted]
    return information


def _item(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


@dataclass(frozen=True)
class Report:
    """An N-EVENT-REPORT as it came. roles: what the requestor of its association proposed, (SCU, SCP)."""

    event_type: int
    information: Dataset
    roles: tuple[bool, bool] | None
    on_new_association: bool

    @property
    def committed(self) -> list[str]:
        items = self.information.get("ReferencedSOPSequence") or []
        return [str(item.ReferencedSOPInstanceUID) for item in items]

    @property
    def failed(self) -> dict[str, int]:
        items = self.information.get("FailedSOPSequence") or []
        return {str(item.ReferencedSOPInstanceUID): int(item.FailureReason) for item in items}


@dataclass
class Modality:
    """A peer that asks for storage commitment, and takes reports on its own associations and on others.

    answers: statuses for the reports to come, success after them. refusals: associations that it still rejects.
    """

    reports: list[Report] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    rejected: int = 0
    refusals: int = 0
    _came: threading.Condition = field(default_factory=threading.Condition)

    def take(self, event: Any) -> tuple[int, None]:
        requested_by_peer = event.assoc.is_acceptor
        roles = event.assoc.requestor.role_selection.get(StorageCommitmentPushModel) if requested_by_peer else None
        with self._came:
            answer = self.answers.pop(0) if self.answers else 0x0000
            self.reports.append(
                Report(
                    event.event_type,
                    event.event_information,
                    (bool(roles.scu_role), bool(roles.scp_role)) if roles else None,
                    requested_by_peer,
                )
            )
            self._came.notify_all()
        return answer, None

    def await_reports(self, count: int = 1, seconds: float = 40.0) -> list[Report]:
        with self._came:
            assert self._came.wait_for(lambda: len(self.reports) >= count, seconds), f"{len(self.reports)} came."
        return self.reports

    @contextlib.contextmanager
    def asking(
        self, port: int, *more: Any, transfer_syntaxes: list[str] | None = None, ae_title: str = MODALITY
    ) -> Iterator["Asking"]:
        """Open an association on which to ask; `more` contexts are proposed too."""
        proposed = build_context(StorageCommitmentPushModel, transfer_syntaxes)
        association = AE(ae_title).associate(
            "127.0.0.1", port, [proposed, *more], "THINFILM", evt_handlers=[(evt.EVT_N_EVENT_REPORT, self.take)]
        )
        assert association.is_established, "The association was not accepted."
        connection = association.dul.socket.socket
        answers = _Answers(association)
        try:
            yield Asking(association)
        finally:
            answers.finish()
            if association.is_established:
                association.release()
            association.join()
            connection.close()  # pynetdicom leaves it open when the peer was faster

    def ask(self, port: int, transaction_uid: str, wanted: Iterable[Reference], ae_title: str = MODALITY) -> int:
        """Ask, and leave at once; return the status of the response."""
        with self.asking(port, ae_title=ae_title) as asking:
            return asking.request(transaction_uid, wanted)

    @contextlib.contextmanager
    def listening(self, port: int, *, takes_roles: bool = True) -> Iterator[None]:
        """Take reports on new associations at this port."""
        entity = AE(MODALITY)
        roles = {"scu_role": False, "scp_role": True} if takes_roles else {}
        entity.add_supported_context(StorageCommitmentPushModel, **roles)
        if self.refusals:
            entity.require_calling_aet = ["NOBODY"]

        def count(event: Any) -> None:
            self.rejected += 1
            if self.rejected == self.refusals:
                entity.require_calling_aet = []

        handlers = [(evt.EVT_N_EVENT_REPORT, self.take), (evt.EVT_REJECTED, count)]
        server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
        try:
            yield
        finally:
            server.shutdown()


class _Answers:
    """Keeps an association from being released while a report is being answered, which pynetdicom would do."""

    def __init__(self, association: Any) -> None:
        self._serve = association._serve_request
        self._lock = threading.Lock()
        self._running = 0
        self._finished = False
        association._serve_request = self._watched

    def finish(self) -> None:
        """Wait for the answers that are being given; give no more."""
        with self._lock:
            self._finished = True
        wait_until(lambda: not self._running, "no report is being answered")

    def _watched(self, message: Any, context_id: int) -> None:
        with self._lock:
            if self._finished:
                return
            self._running += 1
        self._serve(message, context_id)
        with self._lock:
            self._running -= 1


@dataclass(frozen=True)
class Asking:
    """An association for requests."""

    association: Any

    def request(
        self,
        transaction_uid: str | None,
        wanted: Iterable[Reference],
        *,
        action_type: int = 1,
        instance_uid: str = StorageCommitmentPushModelInstance,
    ) -> int:
        """Ask for storage commitment and return the status of the response."""
        information = action_information(transaction_uid, wanted)
        status, _ = self.association.send_n_action(information, action_type, StorageCommitmentPushModel, instance_uid)
        assert status, "No response came."
        return int(status.Status)


def commitments(running: Running) -> list[Commitment]:
    """Return the rows of the index."""
    with running.database.reading() as session:
        return list(session.scalars(select(Commitment).order_by(Commitment.id)))


def states(running: Running) -> list[CommitmentState]:
    return [row.state for row in commitments(running)]


_SHORTEST_HOLD = dt.timedelta(seconds=50)
"""What is held is held for longer, what waits for its next attempt waits for less."""


def is_put_off(row: Commitment) -> bool:
    """Tell whether an attempt has failed and the next one waits."""
    return bool(row.error) and row.not_before < dt.datetime.now(dt.UTC) + _SHORTEST_HOLD


def make_due(running: Running, *, held_too: bool = False, **values: Any) -> None:
    """Spare a test the pause before the next attempt; `held_too`: whoever holds one is dead."""
    now = dt.datetime.now(dt.UTC)
    statement = update(Commitment).values(not_before=now, **values)
    with running.database.session() as session:
        session.execute(statement if held_too else statement.where(Commitment.not_before < now + _SHORTEST_HOLD))
