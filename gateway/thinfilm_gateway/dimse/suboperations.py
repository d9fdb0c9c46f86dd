"""C-STORE sub-operations: over which context, as which bytes, and the account of how they went (PS3.4 C.4.2, C.4.3)."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from pydicom.uid import UID
from pynetdicom.dimse_primitives import C_STORE

from thinfilm_gateway.dicom.transcode import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from thinfilm_gateway.dimse import command_sets, status
from thinfilm_gateway.dimse.association import Association

MAXIMUM_CONTEXTS = 128  # of one association: the odd numbers of a byte (PS3.8 9.3.2.2)
MAXIMUM_SUBOPERATIONS = 65535  # the counts are US


class ChannelLost(Exception):
    """No more objects can go to the peer; the message is one sentence."""


class NoContext(Exception):
    """The peer accepted no context for an object; the message is one sentence."""


@dataclass(frozen=True)
class StoreContext:
    """A presentation context that the peer accepted for storage from us to it."""

    context_id: int
    sop_class_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True)
class MoveOriginator:
    """Who asked for a C-MOVE: its AE title, and the Message ID of its request."""

    ae_title: str
    message_id: int


@dataclass(frozen=True)
class StoreRequest:
    """One object ready to be sent.

    dataset: encoded in the transfer syntax of the context.
    """

    context_id: int
    message_id: int
    priority: int
    sop_class_uid: str
    sop_instance_uid: str
    dataset: memoryview
    originator: MoveOriginator | None = None


@dataclass
class Tally:
    """The account of a retrieval: how many sub-operations remain, and how the others ended."""

    remaining: int
    completed: int = 0
    failed: int = 0
    warning: int = 0
    failed_sop_instance_uids: list[str] = field(default_factory=list)
    failure: str = ""

    def record(self, sop_instance_uid: str, store_status: int, reason: str = "") -> None:
        """Count one sub-operation by the status of its C-STORE response (PS3.4 Table B.2-1).

        reason: why there was no response. `failure` says why the first of those that failed did.
        """
        self.remaining -= 1
        if store_status == status.SUCCESS:
            self.completed += 1
        elif store_status >> 12 == 0xB or store_status in (0x0001, 0x0107, 0x0116):
            self.warning += 1
        else:
            self.failed += 1
            self.failure = self.failure or reason or f"The peer answered {store_status:04X} to a C-STORE."
            self.failed_sop_instance_uids.append(sop_instance_uid)

    @property
    def final_status(self) -> int:
        """Status of the last response (PS3.4 Tables C.4-2, C.4-3): success, warning, or failure if all have failed."""
        if not self.failed and not self.warning:
            return status.SUCCESS
        if not self.completed and not self.warning:
            return status.UNABLE_TO_PERFORM_SUBOPERATIONS
        return status.SUBOPERATIONS_COMPLETE_WITH_FAILURES


def choose_context(sop_class_uid: str, transfer_syntax_uid: str, contexts: Collection[StoreContext]) -> StoreContext:
    """Return the context to send an object in: as it was received, else one to transcode for.

    Raises NoContext.
    """
    if not contexts:
        raise NoContext("The peer takes no objects: it has the role of SCP for no storage class.")
    accepted = {context.transfer_syntax_uid: context for context in contexts if context.sop_class_uid == sop_class_uid}
    for candidate in (transfer_syntax_uid, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN):
        if candidate in accepted:
            return accepted[candidate]
    sop_class = UID(sop_class_uid).name
    if not accepted:
        raise NoContext(f"The peer takes no objects of SOP class {sop_class} ({sop_class_uid}).")
    received = UID(transfer_syntax_uid).name
    raise NoContext(
        f"No context takes {sop_class} as received ({received}) or native little endian"
        f" ({sop_class_uid}, {transfer_syntax_uid})."
    )


def proposals(kinds: Iterable[tuple[str, str]]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the (SOP class, transfer syntaxes) to propose for objects of these (SOP class, received transfer syntax).

    The received syntax stands alone in its context, so that the peer cannot prefer another one; beside it goes one
    context with the native syntaxes.
    """
    received: dict[str, list[str]] = {}
    for sop_class_uid, transfer_syntax_uid in kinds:
        known = received.setdefault(sop_class_uid, [])
        if transfer_syntax_uid not in known:
            known.append(transfer_syntax_uid)
    found: list[tuple[str, tuple[str, ...]]] = []
    for sop_class_uid, transfer_syntax_uids in received.items():
        found += [(sop_class_uid, (uid,)) for uid in transfer_syntax_uids]
        native = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
        rest = tuple(uid for uid in native if uid not in transfer_syntax_uids)
        found += [(sop_class_uid, rest)] if rest else []
    return found


class StoreChannel:
    """An association over which objects go to a peer, one at a time; one thread uses it."""

    def __init__(self, association: Association) -> None:
        self._association = association
        self.contexts = tuple(
            StoreContext(context.context_id, str(context.abstract_syntax), str(context.transfer_syntax[0]))
            for context in association.accepted_contexts
            if context.as_scu
        )

    def store(self, request: StoreRequest) -> int:
        """Send an object, wait for the response and return its status.

        Raises ChannelLost if the association ended, or the peer did not answer; it is over then.
        """
        association = self._association
        values: dict[str, str | int] = {
            "AffectedSOPClassUID": request.sop_class_uid,
            "MessageID": request.message_id,
            "Priority": request.priority,
            "AffectedSOPInstanceUID": request.sop_instance_uid,
        }
        if request.originator is not None:
            values["MoveOriginatorApplicationEntityTitle"] = request.originator.ae_title
            values["MoveOriginatorMessageID"] = request.originator.message_id
        association.send_message(request.context_id, command_sets.C_STORE_RQ, values, request.dataset)
        _, response = association.dimse.get_msg(block=True)
        if (
            not isinstance(response, C_STORE)
            or not response.is_valid_response
            or response.MessageIDBeingRespondedTo != request.message_id
        ):
            # The view of the data set is let go after this, so nothing of it may still wait to be sent.
            self.abort()
            said = "nothing" if response is None else f"a {response.msg_type}"
            raise ChannelLost(f"Where {association.peer} should have answered a C-STORE, {said} came.")
        return int(response.Status)

    def release(self) -> None:
        """End the association, as its requestor."""
        self._association.release()
        self._association.kill()

    def abort(self) -> None:
        """Break the association off; another thread that waits in `store` returns."""
        self._association.abort()
