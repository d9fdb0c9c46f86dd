"""The PDUs that open and end associations, read as other implementations write them (PS3.8 9.3, PS3.7 D.3.3).

pynetdicom's decoders raise over what they do not expect: an unknown item, a name that is too long, a title padded with
NUL. Here all that can be read is read, what is unknown is passed over, and a request of which nothing can be made is
still one that can be rejected.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pynetdicom.pdu_primitives import (
    A_ABORT,
    A_ASSOCIATE,
    A_P_ABORT,
    A_RELEASE,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext

from thinfilm_gateway.dimse import ae_titles
from thinfilm_gateway.dimse.contexts import (
    APPLICATION_CONTEXT,
    TRANSFER_SYNTAXES_NOT_SUPPORTED,
    Proposed,
    Roles,
    presentation_context,
)
from thinfilm_gateway.dimse.rejection import (
    APPLICATION_CONTEXT_NOT_SUPPORTED,
    CALLING_AE_TITLE_NOT_RECOGNIZED,
    NO_REASON,
    PROTOCOL_VERSION_NOT_SUPPORTED,
    Rejected,
)

_FIXED_BYTES = 68  # version, titles and reserved fields of A-ASSOCIATE-RQ and -AC, behind the header of the PDU
_CALLED, _CALLING = slice(4, 20), slice(20, 36)
_ITEM = struct.Struct(">BxH")  # type, length (PS3.8 9.3.2, 9.3.3; PS3.7 D.3.3)
_ROLES = struct.Struct(">BB")

_APPLICATION_CONTEXT, _PROPOSED_CONTEXT, _ANSWERED_CONTEXT, _USER_INFORMATION = 0x10, 0x20, 0x21, 0x50
_ABSTRACT_SYNTAX, _TRANSFER_SYNTAX = 0x30, 0x40
_MAXIMUM_LENGTH, _ROLE_SELECTION = 0x51, 0x54
_CONTEXT_FIELDS = 4  # context id, result and reserved bytes before the sub-items of a presentation context

_MAXIMUM_LENGTH_BYTES = 4
_VERSION_1 = 0x0001  # bit 0 of the protocol version, the only one to be tested
_UID = re.compile(rb"[0-9.]{1,64}")

_ABORT_BY_PROVIDER = 2
_PROVIDER_REASONS = (0, 1, 2, 4, 5, 6)  # PS3.8 Table 9-26
_REJECTION_RESULTS, _REJECTION_SOURCES, _REJECTION_REASONS = (1, 2), (1, 2, 3), (1, 2, 3, 7)


class InvalidPdu(Exception):
    """The peer's bytes are no PDU that it may send; the message is one sentence."""


class RequestedAssociation(A_ASSOCIATE):
    """An A-ASSOCIATE indication: what a peer asks for.

    called_ae_title, calling_ae_title: up to 16 characters, without padding, with a question mark for each that is not
    printable ASCII; may be empty. fault: why the association can only be rejected, None if it may be accepted.
    """

    def __init__(self, called_ae_title: str, calling_ae_title: str) -> None:
        """Ask for nothing yet."""
        super().__init__()
        # Not through the setters, which raise over titles that are none; the answer has to repeat these too.
        self._called_ae_title, self._calling_ae_title = called_ae_title, calling_ae_title
        self.proposed: list[Proposed] = []
        self.roles: dict[str, Roles] = {}
        self.fault: Rejected | None = None


@dataclass(frozen=True)
class ReceivedPdu:
    """Stands where pynetdicom's state machine has a PDU of its own."""

    primitive: Any
    protocol_version: int = 1  # which `read` has looked at

    def to_primitive(self) -> Any:
        """Return the indication or confirmation for the user."""
        return self.primitive


def read(pdu_type: int, body: bytes) -> tuple[ReceivedPdu, str]:
    """Read a PDU other than P-DATA, and name the event that it is (PS3.8 9.2).

    body: what follows its length. Raises InvalidPdu; never for a request, which can be rejected whatever it is.
    """
    if pdu_type not in _READERS:
        raise InvalidPdu(f"There is no PDU of type {pdu_type:#04x}.")
    reader, event = _READERS[pdu_type]
    return ReceivedPdu(reader(body)), event


def _request(body: bytes) -> RequestedAssociation:
    """Read an A-ASSOCIATE-RQ (PS3.8 Table 9-11)."""
    request = RequestedAssociation(ae_titles.read(body[_CALLED]), ae_titles.read(body[_CALLING]))
    try:
        if len(body) < _FIXED_BYTES:
            raise InvalidPdu("It ends within its fixed fields.")
        if not int.from_bytes(body[:2], "big") & _VERSION_1:
            raise Rejected(PROTOCOL_VERSION_NOT_SUPPORTED, "It speaks another version of the protocol than 1.")
        if not ae_titles.is_printable(body[_CALLING]):
            raise Rejected(CALLING_AE_TITLE_NOT_RECOGNIZED, "Its AE title is not in printable ASCII.")
        _read_items(body[_FIXED_BYTES:], request)
    except Rejected as fault:
        request.fault = fault
    except InvalidPdu as error:
        request.fault = Rejected(NO_REASON, f"Its request cannot be read: {error}")
    return request


def _read_items(items: bytes, request: RequestedAssociation) -> None:
    """Read the variable items of a request. Raises InvalidPdu, Rejected."""
    application_context: str | None = None
    proposed: dict[int, Proposed] = {}
    information = bytearray()
    for item_type, value in _items(items):
        if item_type == _APPLICATION_CONTEXT and application_context is None:
            application_context = _uid(value)
        elif item_type == _PROPOSED_CONTEXT:
            context = _proposed_context(value)
            if proposed.setdefault(context.context_id, context) != context:
                raise Rejected(NO_REASON, f"It gives the id {context.context_id} to several presentation contexts.")
        elif item_type == _USER_INFORMATION:
            information += value
    if application_context != APPLICATION_CONTEXT:
        raise Rejected(APPLICATION_CONTEXT_NOT_SUPPORTED, "It wants another application context than that of DICOM.")
    if not proposed:
        raise Rejected(NO_REASON, "It proposes no presentation context.")
    request.proposed = list(proposed.values())
    maximum_length, request.roles = _user_information(bytes(information))
    request.user_information = [_maximum_length(maximum_length)]


def _acceptance(body: bytes) -> A_ASSOCIATE:
    """Read an A-ASSOCIATE-AC (PS3.8 Table 9-17). Raises InvalidPdu."""
    if len(body) < _FIXED_BYTES:
        raise InvalidPdu("An A-ASSOCIATE-AC ends within its fixed fields.")
    accepted = A_ASSOCIATE()
    accepted.result = 0
    information = bytearray()
    for item_type, value in _items(body[_FIXED_BYTES:]):
        if item_type == _ANSWERED_CONTEXT:
            accepted.presentation_context_definition_results_list.append(_answered_context(value))
        elif item_type == _USER_INFORMATION:
            information += value
    maximum_length, roles = _user_information(bytes(information))
    accepted.user_information = [_maximum_length(maximum_length)]
    for sop_class_uid, role in roles.items():
        selection = SCP_SCU_RoleSelectionNegotiation()
        selection.sop_class_uid, selection.scu_role, selection.scp_role = sop_class_uid, role.scu, role.scp
        accepted.user_information.append(selection)
    return accepted


def _rejection(body: bytes) -> A_ASSOCIATE:
    """Read an A-ASSOCIATE-RJ (PS3.8 Table 9-21); values that there are not mean that no reason is given."""
    result, source, reason = body.ljust(4, b"\0")[1:4]
    rejected = A_ASSOCIATE()
    rejected.result = result if result in _REJECTION_RESULTS else 1
    rejected.result_source = source if source in _REJECTION_SOURCES else 1
    rejected.diagnostic = reason if reason in _REJECTION_REASONS else 1
    return rejected


def _release_request(body: bytes) -> A_RELEASE:
    del body  # reserved
    return A_RELEASE()


def _release_response(body: bytes) -> A_RELEASE:
    del body
    released = A_RELEASE()
    released.result = "affirmative"
    return released


def _abort(body: bytes) -> A_ABORT | A_P_ABORT:
    """Read an A-ABORT (PS3.8 Table 9-26)."""
    source, reason = body.ljust(4, b"\0")[2:4]
    if source == _ABORT_BY_PROVIDER:
        by_provider = A_P_ABORT()
        by_provider.provider_reason = reason if reason in _PROVIDER_REASONS else 0
        return by_provider
    by_user = A_ABORT()
    by_user.abort_source = 0
    return by_user


_READERS = {
    0x01: (_request, "Evt6"),
    0x02: (_acceptance, "Evt3"),
    0x03: (_rejection, "Evt4"),
    0x05: (_release_request, "Evt12"),
    0x06: (_release_response, "Evt13"),
    0x07: (_abort, "Evt16"),
}


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Cut items or sub-items apart: (type, value). Raises InvalidPdu if they do not fill the data."""
    start = 0
    while start < len(data):
        if len(data) - start < _ITEM.size:
            raise InvalidPdu("It ends within the header of an item.")
        item_type, length = _ITEM.unpack_from(data, start)
        start += _ITEM.size + length
        if start > len(data):
            raise InvalidPdu(f"An item of {length} bytes does not fit into what holds it.")
        yield item_type, data[start - length : start]


def _uid(value: bytes) -> str:
    """Return a UID without padding; empty for what is none."""
    value = value.strip(b"\0 ")
    return value.decode("ascii") if _UID.fullmatch(value) else ""


def _context_fields(value: bytes) -> tuple[int, int, list[str], list[str]]:
    """Return context id, result, abstract and transfer syntaxes of a presentation context. Raises InvalidPdu."""
    if len(value) < _CONTEXT_FIELDS:
        raise InvalidPdu("A presentation context has no id.")
    abstract, transfer = [], []
    for item_type, name in _items(value[_CONTEXT_FIELDS:]):
        uid = _uid(name)
        if uid and item_type == _ABSTRACT_SYNTAX:
            abstract.append(uid)
        elif uid and item_type == _TRANSFER_SYNTAX and uid not in transfer:
            transfer.append(uid)
    return value[0], value[2], abstract, transfer


def _proposed_context(value: bytes) -> Proposed:
    context_id, _, abstract, transfer = _context_fields(value)
    return Proposed(context_id, abstract[0] if abstract else "", tuple(transfer))


def _answered_context(value: bytes) -> PresentationContext:
    context_id, result, _, transfer = _context_fields(value)
    if not transfer and not result:
        result = TRANSFER_SYNTAXES_NOT_SUPPORTED  # accepted, but in none
    return presentation_context(context_id, "", transfer[:1], result)


def _user_information(items: bytes) -> tuple[int, dict[str, Roles]]:
    """Return the maximum length (0: no limit) and the roles by SOP class. Raises InvalidPdu.

    All else is passed over: names of implementations, and what is negotiated there and not supported here.
    """
    maximum_length: int | None = None
    roles: dict[str, Roles] = {}
    for item_type, value in _items(items):
        if item_type == _MAXIMUM_LENGTH and len(value) == _MAXIMUM_LENGTH_BYTES and maximum_length is None:
            maximum_length = int.from_bytes(value, "big")
        elif item_type == _ROLE_SELECTION and len(value) > _ROLES.size:
            uid_bytes = int.from_bytes(value[:2], "big")
            uid, selection = _uid(value[2 : 2 + uid_bytes]), value[2 + uid_bytes :]
            if uid and len(selection) == _ROLES.size:
                scu, scp = _ROLES.unpack(selection)
                roles.setdefault(uid, Roles(bool(scu), bool(scp)))
    return maximum_length or 0, roles


def _maximum_length(received_bytes: int) -> MaximumLengthNotification:
    notification = MaximumLengthNotification()
    notification.maximum_length_received = received_bytes
    return notification
