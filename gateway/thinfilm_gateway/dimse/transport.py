"""The upper layer of an association (PS3.8): pynetdicom's state machine, driven by events instead of by polling.

pynetdicom looks for work every millisecond, reads 4 KiB at a time and copies a P-DATA PDU about five times. Here the
thread of the upper layer sleeps until the peer or the local user has something for it, reads a PDU with one system call
into one buffer, and hands out views of that buffer. Which action follows an event in which state stays pynetdicom's.
"""

import contextlib
import queue
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import structlog
from pynetdicom import dul, transport
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.pdu_primitives import A_ABORT, A_P_ABORT, A_RELEASE, P_DATA

from thinfilm_gateway.dimse import association_pdus
from thinfilm_gateway.dimse.association_pdus import InvalidPdu

log = structlog.get_logger()

SEND_QUEUE_PDUS = 4  # P-DATA PDUs that may wait for a slow peer; then the sender waits too
WAITING_MESSAGES = 8  # requests of a peer that may wait to be served; then nothing more is read from it
LARGEST_OTHER_PDU = 1024 * 1024  # of A-ASSOCIATE, A-RELEASE and A-ABORT PDUs
SMALLEST_PDU_BYTES = 64  # of a P-DATA PDU that a peer may want; no fragment fits into less than eight

_P_DATA_TF = 0x04
_PDU_TYPES = range(0x01, 0x08)
_PDU_HEADER = struct.Struct(">BxL")  # type, length (PS3.8 9.3.1)
_PDV_HEADER = struct.Struct(">LBB")  # item length, context id, message control header (PS3.8 9.3.5.1, Annex E.2)
_LAST_FRAGMENT = 0x02

_CONNECTION_CLOSED = "Evt17"
_ARTIM_EXPIRED = "Evt18"
_INVALID_PDU = "Evt19"
_AWAITING_CLOSE = "Sta13"


class NotSecured(Exception):
    """The connection could not be encrypted, or not with this peer; the message says why."""


@dataclass(frozen=True)
class Fragment:
    """A presentation data value: part of a command or data set. The view is valid until the next PDU is read."""

    context_id: int
    is_command: bool
    is_last: bool
    data: memoryview


class ReceivedData:
    """A P-DATA indication. Stands where pynetdicom has a P_DATA_TF PDU and, at the same time, the P_DATA primitive."""

    def __init__(self, fragments: list[Fragment]) -> None:
        self.fragments = fragments

    def to_primitive(self) -> "ReceivedData":
        """Serve the state machine, which turns PDUs into primitives."""
        return self


class DataToSend(P_DATA):
    """A P-DATA request with one fragment of a command or data set, sent without a copy.

    The bytes under the view must stay until the peer has answered the message, or the association has ended.
    """

    def __init__(self, context_id: int, control: int, data: memoryview) -> None:
        """Send `data` under this message control header."""
        super().__init__()
        self.data = data
        # Not through the setter: it wants bytes, and joining header and fragment would be a copy.
        self._presentation_data_value_list = [(context_id, (control, data))]


def fragments_to_send(
    context_id: int, data: memoryview, maximum_pdu_bytes: int, *, is_command: bool = False
) -> Iterator[DataToSend]:
    """Cut a command or data set into the P-DATA requests that a peer with this maximum PDU length takes.

    maximum_pdu_bytes: as the peer said, 0 for no limit. One below SMALLEST_PDU_BYTES is not kept to.
    """
    limit = min(maximum_pdu_bytes or LARGEST_OTHER_PDU, LARGEST_OTHER_PDU)
    largest = max(limit, SMALLEST_PDU_BYTES) - _PDV_HEADER.size
    for start in range(0, len(data), largest):
        last = _LAST_FRAGMENT if start + largest >= len(data) else 0
        yield DataToSend(context_id, int(is_command) | last, data[start : start + largest])


class AssociationSocket(transport.AssociationSocket):
    """A connection whose reads and writes are whole PDUs, and fail when the peer stands still too long."""

    def __init__(self, assoc: Any, client_socket: socket.socket | None = None, address: Any = None) -> None:
        super().__init__(assoc, client_socket, address)
        if client_socket is not None:
            self._configure(client_socket)

    def connect(self, primitive: Any) -> None:
        """Open the connection, as requestor."""
        super().connect(primitive)
        if self.socket is not None:
            self._configure(self.socket)

    def secure(self) -> None:
        """Do what comes before the first PDU on an accepted connection: nothing, on a plain one.

        Raises NotSecured.
        """

    @property
    def holds_data(self) -> bool:
        """Whether there is data that was taken from the connection already, so that it shows no sign of it."""
        return False

    def begins_pdu(self) -> bool:
        """Tell whether what can be read belongs to a PDU: always, on a plain connection."""
        return True

    @property
    def ready(self) -> bool:
        """Whether something can be read: data, or the end of the connection."""
        if self.socket is None or not self._is_connected:
            return False
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(0))

    def fill(self, buffer: memoryview) -> int:
        """Read until the buffer is full; returns fewer bytes only where the connection ended.

        Raises OSError, and so when the peer takes too long, even if something comes all the time.
        """
        return self.fill_from(buffer, 0)

    def fill_from(self, buffer: memoryview, received: int) -> int:
        """Read until the buffer is full, of which so many bytes are there already."""
        # Who is no association yet has less time than who is one.
        seconds = self.assoc.network_timeout if self.assoc.is_established else self.assoc.acse_timeout
        deadline = None if seconds is None else time.monotonic() + seconds
        while received < len(buffer):
            if self.socket is None:
                break
            try:
                count = self.receive_some(buffer[received:])
            except BlockingIOError:  # nothing came for as long as the kernel waits
                pass
            else:
                if count == 0:
                    break
                received += count
            if received < len(buffer) and deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError("The peer takes too long for one PDU.")
        return received

    def receive_some(self, buffer: memoryview) -> int:
        """Read as much as there is, at most the whole buffer; returns how many bytes, 0 at the end. Raises OSError."""
        assert self.socket is not None, "Is connected."
        return int(self.socket.recv_into(buffer, 0, socket.MSG_WAITALL))

    def send(self, bytestream: bytes) -> None:
        """Send a PDU."""
        self.send_parts([memoryview(bytestream)])

    def send_parts(self, parts: list[memoryview]) -> None:
        """Send a PDU that lies in several places.

        A connection that breaks meanwhile becomes an event. So does a peer that needs longer than the network timeout,
        even if it takes a little all the time.
        """
        seconds = self.assoc.network_timeout
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            while parts:
                if self.socket is None:
                    raise ConnectionError("The connection is closed.")
                sent = self.send_some(parts)
                while parts and sent >= len(parts[0]):
                    sent -= len(parts.pop(0))
                if parts:
                    parts[0] = parts[0][sent:]
                    if deadline is not None and time.monotonic() > deadline:
                        log.warning("association_silent", peer=self.assoc.peer, seconds=seconds)
                        raise TimeoutError("The peer takes too long for one PDU.")
        except OSError:
            self.event_queue.put(_CONNECTION_CLOSED)

    def send_some(self, parts: list[memoryview]) -> int:
        """Send the beginning of a PDU; returns how many bytes. Raises OSError."""
        assert self.socket is not None, "Is connected."
        return int(self.socket.sendmsg(parts))

    def break_off(self) -> None:
        """End the connection from another thread: whatever waits on it returns. The socket itself stays open."""
        connection = self.socket
        if connection is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # not SSLSocket's, which forgets the keys

    def _shutdown_socket(self) -> None:
        """End and close the connection; pynetdicom leaves it open when the peer was faster."""
        self.break_off()
        if self.socket is not None:
            self.socket.close()

    def _configure(self, connection: socket.socket) -> None:
        # The time limits are the kernel's, not Python's: a Python timeout costs a poll with every read, and makes
        # MSG_WAITALL useless. The receive buffer is left to the kernel too, which grows it further than we may.
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        network, negotiation = self.assoc.network_timeout, self.assoc.acse_timeout
        if network is not None:
            look = network if negotiation is None else min(network, negotiation)  # `fill` sees to the rest
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(look))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(network))


class DULServiceProvider(dul.DULServiceProvider):
    """The upper layer's thread: takes what peer and local user have, feeds the state machine, sleeps in between."""

    def __init__(self, assoc: Any) -> None:
        super().__init__(assoc)
        self.daemon = True  # a process that ends must not wait for a peer
        self.to_user_queue = _IndicationQueue(assoc)
        self._wake_sender, self._wake_receiver = socket.socketpair()
        self._wake_sender.setblocking(False)
        self._wake_receiver.setblocking(False)
        self._buffer = bytearray()
        self._sending = threading.Condition()
        self._to_send = 0  # P-DATA requests that wait in to_provider_queue
        self._ended = False

    # What the local user's thread calls

    def send_pdu(self, primitive: Any) -> None:
        """Queue a primitive for the peer; waits while too much is queued. What comes after the end is dropped."""
        with self._sending:
            if isinstance(primitive, P_DATA):
                self._sending.wait_for(lambda: self._ended or self._to_send < SEND_QUEUE_PDUS)
                self._to_send += 1
            if self._ended:
                return
            super().send_pdu(primitive)
        self.wake()

    def wake(self) -> None:
        """Make the thread look for work."""
        with contextlib.suppress(OSError):  # full: it will wake anyway; closed: it has ended
            self._wake_sender.send(b"\0")

    def kill_dul(self) -> None:
        """Make the thread end as soon as it is between two actions."""
        super().kill_dul()
        self.wake()

    def end(self, seconds: float) -> None:
        """Let the thread come to its end by itself for some time, then break the connection under it."""
        if not self.is_alive() or threading.current_thread() is self:
            return
        self.join(seconds)
        if self.is_alive():
            self.kill_dul()
            self.socket.break_off()
            self.join()

    # What the thread does

    def run_reactor(self) -> None:
        """Run until the association is over."""
        self._idle_timer.start()
        self.assoc._dul_ready.set()
        try:
            self.socket.secure()
            while (event := self._next_event()) is not None:
                self.state_machine.do_action(event)
        except NotSecured as error:
            log.warning("tls_handshake_failed", peer=self.assoc.peer, error=str(error))
        except Exception:
            log.exception("upper_layer_failed", peer=self.assoc.peer)
            self.socket.send(_provider_abort())
        finally:
            self._finish()

    def _next_event(self) -> str | None:
        """Return the next event for the state machine, waiting for it; None if the thread is to end."""
        while not self._kill_thread:
            try:
                return str(self.event_queue.get_nowait())
            except queue.Empty:
                pass
            if self.artim_timer.expired:
                return _ARTIM_EXPIRED
            if self.state_machine.current_state == _AWAITING_CLOSE:
                self._drop_requests()  # too late to send anything (PS3.8 Table 9-10)
            elif self._process_recv_primitive():
                continue
            if self._wait():
                self._read_pdu_data()
                self._idle_timer.restart()
        return None

    def _wait(self) -> bool:
        """Sleep until there is something to do; True if it is to read from the peer."""
        connection = self.socket.socket
        milliseconds = self._milliseconds_to_artim()
        poll = select.poll()
        poll.register(self._wake_receiver, select.POLLIN)
        connected = connection is not None and self.socket._is_connected  # a requestor's is not, at first
        reads = connected and self.assoc.dimse.msg_queue.qsize() < WAITING_MESSAGES
        if reads:
            poll.register(connection, select.POLLIN)
        holds_data = reads and self.socket.holds_data
        ready = {descriptor for descriptor, _ in poll.poll(0 if holds_data else milliseconds)}
        if self._wake_receiver.fileno() in ready:
            self._wake_receiver.recv(4096)
            ready.discard(self._wake_receiver.fileno())
        return bool(ready or holds_data) and self.socket.begins_pdu()

    def _milliseconds_to_artim(self) -> float | None:
        timer = self.artim_timer
        if timer.timeout is None or timer._start_time is None or timer._end_time is not None:
            return None
        return max(0.0, float(timer.remaining) * 1000) + 1

    def _read_pdu_data(self) -> None:
        """Read one PDU; its event goes to the event queue, the PDU itself to the queue of received ones."""
        try:
            header = bytearray(_PDU_HEADER.size)
            if self.socket.fill(memoryview(header)) < len(header):
                self.event_queue.put(_CONNECTION_CLOSED)
                return
            pdu_type, length = _PDU_HEADER.unpack(header)
            self._check_header(pdu_type, length)
            body = self._room(length)
            if self.socket.fill(body) < length:
                self.event_queue.put(_CONNECTION_CLOSED)
                return
            pdu: Any
            if pdu_type == _P_DATA_TF:
                pdu, event = ReceivedData(_fragments(body)), "Evt10"
            else:
                pdu, event = association_pdus.read(pdu_type, bytes(body))
        except OSError:
            self.event_queue.put(_CONNECTION_CLOSED)
        except InvalidPdu as error:
            log.warning("invalid_pdu", peer=self.assoc.peer, error=str(error))
            self.event_queue.put(_INVALID_PDU)
        else:
            self._recv_pdu.put(pdu)
            self.event_queue.put(event)

    def _check_header(self, pdu_type: int, length: int) -> None:
        if pdu_type not in _PDU_TYPES:
            raise InvalidPdu(f"There is no PDU of type {pdu_type:#04x}.")
        local = self.assoc.acceptor if self.assoc.is_acceptor else self.assoc.requestor
        largest = local.maximum_length if pdu_type == _P_DATA_TF else LARGEST_OTHER_PDU
        if length > largest:
            raise InvalidPdu(f"A PDU of {length} bytes exceeds the {largest} that were negotiated.")

    def _room(self, length: int) -> memoryview:
        if length > len(self._buffer):
            self._buffer = bytearray(length)
        return memoryview(self._buffer)[:length]

    def _send(self, pdu: Any) -> None:
        """Send a PDU, for the state machine."""
        if pdu.pdu_type != _P_DATA_TF:
            super()._send(pdu)
            return
        values: list[memoryview] = []
        for item in pdu.presentation_data_value_items:
            value = item.presentation_data_value
            control, data = value if isinstance(value, tuple) else (value[0], memoryview(value)[1:])
            header = _PDV_HEADER.pack(2 + len(data), item.presentation_context_id, control)
            values += [memoryview(header), data]
        header = _PDU_HEADER.pack(_P_DATA_TF, sum(map(len, values)))
        self.socket.send_parts([memoryview(header), *values])
        with self._sending:
            self._to_send -= 1
            self._sending.notify()

    def _drop_requests(self) -> None:
        with self._sending:
            self.to_provider_queue.queue.clear()
            self._to_send = 0
            self._sending.notify_all()

    def _finish(self) -> None:
        """Leave nothing behind: no connection, no half object, nobody who waits."""
        with self._sending:
            self._ended = True
        self._drop_requests()
        self.socket._shutdown_socket()
        self.assoc.dimse.give_up()
        self._wake_sender.close()
        self._wake_receiver.close()
        self._buffer = bytearray()  # the association itself may live until the next garbage collection
        self.to_user_queue.put(A_P_ABORT())  # behind whatever said first how the association ended


class _IndicationQueue(queue.Queue[Any]):
    """Indications for the thread of the association, which waits at its messages: the end of it all wakes it there."""

    def __init__(self, assoc: Any) -> None:
        super().__init__()
        self._assoc = assoc

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        if isinstance(item, A_RELEASE | A_ABORT | A_P_ABORT):
            self._assoc.dimse.msg_queue.put((None, None))


def _timeval(seconds: float) -> bytes:
    whole, fraction = divmod(float(seconds), 1)
    return struct.pack("@ll", int(whole), int(fraction * 1_000_000))


def _provider_abort() -> bytes:
    """Return an A-ABORT PDU of the service provider, for when the state machine itself failed (PS3.8 9.3.8)."""
    pdu = A_ABORT_RQ()
    pdu.source, pdu.reason_diagnostic = 0x02, 0x00
    return bytes(pdu.encode())


def _fragments(body: memoryview) -> list[Fragment]:
    """Cut the variable field of a P-DATA-TF PDU into its items (PS3.8 9.3.5.1). Raises InvalidPdu."""
    fragments = []
    start = 0
    while start < len(body):
        if len(body) - start < _PDV_HEADER.size:
            raise InvalidPdu("A P-DATA PDU ends within the header of an item.")
        length, context_id, control = _PDV_HEADER.unpack_from(body, start)
        end = start + 4 + length
        if length < 2 or end > len(body):
            raise InvalidPdu(f"An item of {length} bytes does not fit into its P-DATA PDU.")
        fragments.append(Fragment(context_id, bool(control & 1), bool(control & _LAST_FRAGMENT), body[start + 6 : end]))
        start = end
    return fragments
