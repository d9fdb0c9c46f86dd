"""What peers send, PDU by PDU (PS3.8 section 9.3), right or wrong, past any library."""

import functools
import socket
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from pynetdicom import AE, association, build_context, pdu

from support.datasets import CT_IMAGE, ct_series
from support.mutations import mutated

ASSOCIATE_REQUEST, P_DATA, RELEASE_REQUEST, ABORT = 0x01, 0x04, 0x05, 0x07
VERIFICATION = "1.2.840.10008.1.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
EXPLICIT_LITTLE, IMPLICIT_LITTLE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
C_STORE, C_FIND, C_ECHO, C_CANCEL = 0x0001, 0x0020, 0x0030, 0x0FFF
WITH_DATA_SET, WITHOUT_DATA_SET = 0x0001, 0x0101
COMMAND, LAST = 0x01, 0x02  # bits of the message control header (PS3.8 annex E)

ECHO_CONTEXT, STORE_CONTEXT, FIND_CONTEXT = 1, 3, 5
_CLASSES = (
    (VERIFICATION, IMPLICIT_LITTLE),
    (CT_IMAGE, EXPLICIT_LITTLE),
    (STUDY_ROOT_FIND, IMPLICIT_LITTLE),
)

Session = list[bytes]
"""The PDUs of one connection, encoded."""


def encoded(pdu_type: int, body: bytes, declared: int | None = None) -> bytes:
    """Encode a PDU, with another length than its own if given."""
    return struct.pack(">BxL", pdu_type, len(body) if declared is None else declared) + body


def item(context_id: int, control: int, fragment: bytes, declared: int | None = None) -> bytes:
    """Encode a presentation data value item."""
    length = len(fragment) + 2 if declared is None else declared
    return struct.pack(">LBB", length, context_id, control) + fragment


@functools.cache
def associate_request() -> bytes:
    """Encode a request for the three contexts of this module."""
    requested: Any = association.Association(AE("FUZZ"), "requestor")
    requested.requestor.ae_title, requested.acceptor.ae_title = "FUZZ", "THINFILM"
    requested.requestor.maximum_length = 16384
    requested.requestor.implementation_class_uid = "1.2.3"
    requested.requestor.address_info = requested.acceptor.address_info = None
    contexts = []
    for context_id, pair in zip((ECHO_CONTEXT, STORE_CONTEXT, FIND_CONTEXT), _CLASSES, strict=True):
        context = build_context(*pair)
        context.context_id = context_id
        contexts.append(context)
    requested.requestor.requested_contexts = contexts
    sent: list[Any] = []
    requested.dul.send_pdu = sent.append
    requested.acse.send_request()
    return bytes(pdu.A_ASSOCIATE_RQ(sent[0]).encode())


def command(field: int, sop_class_uid: str, data_set: int, sop_instance_uid: str = "", message_id: int = 1) -> bytes:
    """Encode a command set."""
    values = [
        (0x0002, _even(sop_class_uid)),
        (0x0100, struct.pack("<H", field)),
        (0x0110, struct.pack("<H", message_id)),
        (0x0700, struct.pack("<H", 0)),
        (0x0800, struct.pack("<H", data_set)),
        (0x1000, _even(sop_instance_uid)),
    ]
    body = b"".join(struct.pack("<HHL", 0, element, len(value)) + value for element, value in values if value)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def message(context_id: int, command_set: bytes, data_set: bytes = b"", piece: int = 4096) -> Session:
    """Encode a message: a PDU for its command, one for each piece of its data set."""
    pdus = [encoded(P_DATA, item(context_id, COMMAND | LAST, command_set))]
    for start in range(0, len(data_set), piece):
        last = LAST if start + piece >= len(data_set) else 0
        pdus.append(encoded(P_DATA, item(context_id, last, data_set[start : start + piece])))
    return pdus


def good_session(random: np.random.Generator) -> bytes:
    """Make what a well-behaved peer sends: an association, one to four messages, the release."""
    return b"".join(_good_session(random))


def hostile_session(random: np.random.Generator) -> bytes:
    """Make a good session, then spoil it in one to three ways."""
    session = _good_session(random)
    for _ in range(int(random.integers(1, 4))):
        session = _WAYS[random.integers(len(_WAYS))](session, random) or session
    return b"".join(session)


def _good_session(random: np.random.Generator) -> Session:
    session = [associate_request()]
    for number in range(int(random.integers(1, 5))):
        kind = random.integers(3)
        if kind == 0:
            session += message(ECHO_CONTEXT, command(C_ECHO, VERIFICATION, WITHOUT_DATA_SET, message_id=number + 1))
        elif kind == 1:
            image = ct_series(1, size=16, series=f"fuzz-{random.integers(2**16)}")[0]
            store = command(C_STORE, CT_IMAGE, WITH_DATA_SET, image.sop_instance_uid, number + 1)
            session += message(STORE_CONTEXT, store, image.dataset, int(random.choice([100, 512, 16384])))
        else:
            keys = struct.pack("<HHL", 0x0008, 0x0052, 6) + b"STUDY " + struct.pack("<HHL", 0x0020, 0x000D, 0)
            session += message(FIND_CONTEXT, command(C_FIND, STUDY_ROOT_FIND, WITH_DATA_SET, "", number + 1), keys)
    return [*session, encoded(RELEASE_REQUEST, bytes(4))]


def converse(port: int, data: bytes, hang_up: bool = True, seconds: float = 30.0) -> bytes:
    """Send a session over a connection of its own; return all that came back until the receiver ended it.

    What follows a whole association request waits for the answer to it. hang_up: say that nothing more will come;
    otherwise the receiver must find out by its timeout. Raises TimeoutError if the receiver neither answers nor ends
    the connection in `seconds`.
    """
    request = associate_request()
    received = bytearray()
    with socket.create_connection(("127.0.0.1", port), seconds) as connection:
        try:
            if data.startswith(request):
                connection.sendall(request)
                received += connection.recv(65536)
                data = data[len(request) :]
            connection.sendall(data)
            if hang_up:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                received += part
        except (ConnectionResetError, BrokenPipeError):
            pass  # it has aborted already
    return bytes(received)


def _even(text: str) -> bytes:
    value = text.encode("ascii")
    return value + b"\0" * (len(value) % 2)


# The ways to spoil a session; the association request is the first of its PDUs


def _mutate_bytes(session: Session, random: np.random.Generator) -> Session:
    return [session[0], mutated(b"".join(session[1:]), session[0], random)]


def _mutate_one_pdu(session: Session, random: np.random.Generator) -> Session:
    at = int(random.integers(len(session)))
    return [*session[:at], mutated(session[at], session[0], random), *session[at + 1 :]]


def _lie_about_a_length(session: Session, random: np.random.Generator) -> Session:
    at = int(random.integers(len(session)))
    offset = 2 if random.random() < 0.5 or len(session[at]) < 10 else 6  # of the PDU, or of its first item
    lie = int(random.choice([0, 1, 2, 6, 65535, 2**20, 2**20 + 1, 2**31, 2**32 - 1]))
    spoilt = session[at][:offset] + struct.pack(">L", lie) + session[at][offset + 4 :]
    return [*session[:at], spoilt, *session[at + 1 :]]


def _break_off(session: Session, random: np.random.Generator) -> Session:
    whole = b"".join(session)
    cut = whole[: int(random.integers(len(whole)))]
    return [cut, encoded(ABORT, b"\0\0\0\0")] if random.random() < 0.5 else [cut]


def _drop_double_or_swap(session: Session, random: np.random.Generator) -> Session:
    first, second = sorted(int(position) for position in random.integers(0, len(session), 2))
    kind = random.integers(3)
    if kind == 0:
        return session[:first] + session[first + 1 :]
    if kind == 1:
        return session[: first + 1] + session[first:]
    return [*session[:first], session[second], *session[first + 1 : second], session[first], *session[second + 1 :]]


def _interleave_contexts(session: Session, random: np.random.Generator) -> Session:
    """Put a message of another context, or a second data set, into the middle of one that is being sent."""
    image = ct_series(1, size=16, series=f"fuzz-{random.integers(2**16)}")[0]
    store = command(C_STORE, CT_IMAGE, WITH_DATA_SET, image.sop_instance_uid, 7)
    one = message(STORE_CONTEXT, store, image.dataset, 256)
    other = message(ECHO_CONTEXT, command(C_ECHO, VERIFICATION, WITHOUT_DATA_SET, message_id=8))
    alien = [encoded(P_DATA, item(int(random.choice([0, 1, 2, 5, 7, 255])), int(random.integers(256)), b"alien"))]
    at = int(random.integers(1, len(one)))
    return [session[0], *one[:at], *(other if random.random() < 0.5 else alien), *one[at:], *session[1:]]


def _exceed_the_maximum(session: Session, random: np.random.Generator) -> Session:
    size = int(random.choice([2**20 - 6, 2**20 - 5, 2**20 + 1]))
    return [session[0], encoded(P_DATA, item(STORE_CONTEXT, int(random.integers(4)), bytes(size))), *session[1:]]


def _forget_the_data_set(session: Session, random: np.random.Generator) -> Session:
    """Announce a data set and send none, or send one that was not announced."""
    announced = random.random() < 0.5
    store = command(C_STORE, CT_IMAGE, WITH_DATA_SET if announced else WITHOUT_DATA_SET, "1.2.3")
    return [session[0], *message(STORE_CONTEXT, store, b"" if announced else b"surplus "), *session[1:]]


def _ask_for_the_unknown(session: Session, random: np.random.Generator) -> Session:
    field = int(random.integers(2**16))
    unknown = command(field, CT_IMAGE, int(random.choice([WITH_DATA_SET, WITHOUT_DATA_SET])), "1.2.3", 9)
    return [session[0], *message(int(random.choice([1, 3, 5])), unknown, random.bytes(20)), *session[1:]]


def _spread_a_command(session: Session, random: np.random.Generator) -> Session:
    """Send a command in many fragments that may never end."""
    whole = command(C_ECHO, VERIFICATION, WITHOUT_DATA_SET)
    ended = LAST if random.random() < 0.5 else 0
    pieces = [item(ECHO_CONTEXT, COMMAND, whole[at : at + 1]) for at in range(len(whole) - 1)]
    last = item(ECHO_CONTEXT, COMMAND | ended, whole[-1:])
    return [session[0], encoded(P_DATA, b"".join(pieces) + last), *session[1:]]


_WAYS: tuple[Callable[[Session, np.random.Generator], Session], ...] = (
    _mutate_bytes,
    _mutate_one_pdu,
    _lie_about_a_length,
    _break_off,
    _drop_double_or_swap,
    _interleave_contexts,
    _exceed_the_maximum,
    _forget_the_data_set,
    _ask_for_the_unknown,
    _spread_a_command,
)
