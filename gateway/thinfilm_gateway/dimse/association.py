"""An association of the gateway: who may be what in it, and which function serves which request (PS3.7 9, Annex D).

One thread serves the requests, one by one; the thread of the upper layer (transport.py) receives and sends beside it.
"""

import queue
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import structlog
from pynetdicom import acse, association, evt
from pynetdicom._globals import MODE_REQUESTOR
from pynetdicom.dimse_primitives import C_MOVE, C_STORE
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from thinfilm_gateway.config import OPERATIONS, Operation
from thinfilm_gateway.dicom.mapped import PIECE_BYTES, let_go
from thinfilm_gateway.dimse import contexts, status
from thinfilm_gateway.dimse.association_pdus import RequestedAssociation
from thinfilm_gateway.dimse.command_sets import DATA_SET, NO_DATA_SET, encoded
from thinfilm_gateway.dimse.event_reports import EventReports
from thinfilm_gateway.dimse.messages import DataSetSink, DIMSEServiceProvider
from thinfilm_gateway.dimse.rejection import NO_REASON, Rejected
from thinfilm_gateway.dimse.secure_transport import Encryption, SecureAssociationSocket
from thinfilm_gateway.dimse.transport import (
    SMALLEST_PDU_BYTES,
    AssociationSocket,
    DULServiceProvider,
    fragments_to_send,
)

log = structlog.get_logger()

LINGER_SECONDS = 2.0  # for the last words to go out and the peer to close, before the connection is broken

STORAGE = "storage"
"""The key, in a table of services, of the one that serves C-STORE, whatever the SOP class."""

Service = Callable[["Association", Any, PresentationContext], None]
"""Serves one request: takes association, pynetdicom's DIMSE primitive and accepted context; sends all responses."""

OpenStore = Callable[["Association", C_STORE, PresentationContext], DataSetSink]
"""Called when the command set of a C-STORE is there and its data set comes next: says where the data set goes."""

Admit = Callable[["Association"], Collection[Operation]]
"""Called when a peer requests an association: says what it may ask for. Raises Rejected."""


class Association(association.Association):
    """An association with a peer, as acceptor or requestor.

    As acceptor, its thread serves the peer's requests with `services` (keys: SOP class UID, or STORAGE). As requestor
    it has no thread: whoever made it with `request_association` sends, waits with `dimse.get_msg(block=True)`, and
    releases.
    """

    is_established: bool

    def __init__(
        self,
        ae: Any,
        mode: str,
        services: Mapping[str, Service] | None = None,
        open_store: OpenStore | None = None,
        admit: Admit = lambda association: OPERATIONS,
    ) -> None:
        super().__init__(ae, mode)
        self.services = services or {}
        self.serving = False  # whether a request is being served right now
        self.allowed: Collection[Operation] = ()  # what the peer may ask for, once it is admitted
        self.admitted = False  # whether it counts as an association, and no longer as a connection that may become one
        self.turned_away = False
        self._open_store = open_store
        self._admit = admit
        self.event_reports = EventReports(self)
        self.acse = ACSE(self)
        self.dul = DULServiceProvider(self)
        self.dimse = DIMSEServiceProvider(self)
        self.acse_timeout = ae.acse_timeout  # again: they set timers of the upper layer
        self.network_timeout = ae.network_timeout
        self._is_paused = True  # there is no loop that would have to be paused before sending

    @property
    def peer(self) -> str:
        """Who is at the other end, for logs and audit: application entity title and address."""
        remote = self.requestor if self.is_acceptor else self.acceptor
        address = remote.address_info
        return f"{remote.ae_title or '?'}@{address.address if address else '?'}"

    @property
    def idle_seconds(self) -> float:
        """How long the peer has wanted nothing; 0 while a request is served or received."""
        if self.serving or self.dimse.receiving or self.network_timeout is None:
            return 0.0
        return float(self.network_timeout - self.dul._idle_timer.remaining)

    def admit(self) -> None:
        """Find out what the peer may ask for. Raises Rejected."""
        self.allowed = self._admit(self)

    def open_store(self, request: C_STORE, context_id: int) -> DataSetSink:
        """Say where the data set of a C-STORE goes. Raises KeyError if its context was not accepted."""
        if "store" not in self.allowed:
            return _Nowhere()
        assert self._open_store is not None, "Nobody may store here."
        return self._open_store(self, request, self._accepted_cx[context_id])

    def send_message(
        self,
        context_id: int,
        command_field: int,
        values: Mapping[str, str | int],
        dataset: memoryview | None = None,
    ) -> None:
        """Send a message: its command set, of keyword -> value, and the encoded data set, which is not copied.

        The bytes under `dataset` must stay until the peer has answered, or the association has ended.
        """
        kind = NO_DATA_SET if dataset is None else DATA_SET
        command_set = encoded({**values, "CommandField": command_field, "CommandDataSetType": kind})
        largest = self.dimse.maximum_pdu_size
        for fragment in fragments_to_send(context_id, memoryview(command_set), largest, is_command=True):
            self.dul.send_pdu(fragment)
        queued = 0
        for fragment in fragments_to_send(context_id, dataset or memoryview(b""), largest):
            self.dul.send_pdu(fragment)
            queued += len(fragment.data)
            if queued >= PIECE_BYTES:
                let_go(fragment.data)
                queued = 0

    def run_reactor(self) -> None:
        """Accept the association and serve its requests until it ends."""
        try:
            self.dul.start()
            request = self.dul.receive_pdu(wait=True, timeout=self.acse_timeout)
            if isinstance(request, A_ASSOCIATE):
                self.requestor.primitive = request
                self.acse.negotiate_association()
                if self.is_established:
                    log.info("association_accepted", peer=self.peer)
                    self._run_reactor()
        except Exception:
            log.exception("association_failed", peer=self.peer)
            self.abort()
        finally:
            self.kill()
            self.dul.socket._shutdown_socket()
            self.dimse.discard_waiting()

    def _run_reactor(self) -> None:
        """Serve requests in the order in which they came; look at how the association stands in between."""
        while not self._kill:
            self.event_reports.send_waiting()
            try:
                context_id, message = self.dimse.take(self._seconds_to_idle())
            except queue.Empty:
                if self.dul.idle_timer_expired():
                    log.warning("association_silent", peer=self.peer, seconds=self.network_timeout)
                    self.abort()
                continue
            if message is not None and context_id is not None:
                self.serving = True
                self._serve_request(message, context_id)
                self.serving = False
                self.dul._idle_timer.restart()  # the peer waited for us
            elif self.acse.is_aborted():
                log.info("association_aborted", peer=self.peer)
                self.is_aborted = True
                return
            elif self.is_established and self.acse.is_release_requested():
                self.acse.send_release(is_response=True)
                log.info("association_released", peer=self.peer)
                self.is_released = True
                return

    def _serve_request(self, msg: Any, context_id: int) -> None:
        """Hand a request to its service; one that has none is answered so, one that is none ends the association."""
        context = self._accepted_cx.get(context_id)
        # A C-MOVE without a destination is refused as one to an unknown destination.
        is_request = msg.is_valid_request or (isinstance(msg, C_MOVE) and msg.MessageID is not None)
        if context is None or not is_request:
            log.warning("unexpected_message", peer=self.peer, message=msg.msg_type)
            self.abort()
            return
        is_store = isinstance(msg, C_STORE)
        sop_class = str(msg.AffectedSOPClassUID or getattr(msg, "RequestedSOPClassUID", None))
        service = self.services.get(STORAGE if is_store else sop_class)
        if service is None:
            self._refuse(msg, context_id, status.SOP_CLASS_NOT_SUPPORTED)
            return
        if ("store" if is_store else contexts.SERVICE_CLASSES[sop_class]) not in self.allowed:
            self._refuse(msg, context_id, status.NOT_AUTHORIZED)
            return
        self.dimse.cancel_req = {}
        try:
            service(self, msg, context)
        except Exception:
            log.exception("service_failed", peer=self.peer, message=msg.msg_type)
            self.abort()

    def _refuse(self, request: Any, context_id: int, response_status: int) -> None:
        log.warning("service_refused", peer=self.peer, message=request.msg_type, status=f"{response_status:04X}")
        response = type(request)()
        response.MessageIDBeingRespondedTo = request.MessageID
        response.Status = response_status
        self.dimse.send_msg(response, context_id)

    def release(self) -> None:
        """Release the association, as requestor, and wait for the end."""
        if self.is_established:
            self.acse.negotiate_release()

    def stop(self) -> None:
        """Abort the association and return at once; its own thread ends when the request that it serves is served."""
        if not self.is_established:
            self.dul.socket.break_off()  # nobody to tell, and a handshake does not look whether it is to end
        self.abort(block=False)
        self._kill = True
        self.dimse.msg_queue.put((None, None))

    def turn_away(self) -> None:
        """End a connection that is no association, from another thread; its own threads end by themselves then."""
        log.warning("connection_turned_away", peer=self.peer)
        self.turned_away = True
        self.dul.socket.break_off()

    def kill(self) -> None:
        """End both threads; the last PDU still goes out if the peer takes it soon."""
        self._kill = True
        self.is_established = False
        self.event_reports.end()
        self.dul.end(LINGER_SECONDS)

    def _seconds_to_idle(self) -> float | None:
        timer = self.dul._idle_timer
        return None if timer.timeout is None else max(0.0, timer.remaining) + 0.01

    def _bind_defaults(self) -> None:
        """Bind what negotiation asks for; pynetdicom's handlers that log each PDU and message stay out."""
        for event in evt._INTERVENTION_EVENTS:
            self.bind(event, evt.get_default_handler(event))


class ACSE(acse.ACSE):
    """Negotiation as acceptor with what contexts.py says, for each proposal anew."""

    def _negotiate_as_acceptor(self) -> None:
        request = self.requestor.primitive
        self.requestor._ae_title = request.calling_ae_title  # the setter wants a title that is one
        try:
            self._examine(request)
        except Rejected as rejected:
            log.warning("association_rejected", peer=self.assoc.peer, reason=str(rejected))
            self.send_reject(*rejected.rejection)
            self.assoc.kill()
            return
        answered = contexts.negotiate(request.proposed, request.roles, self.assoc.allowed)
        self.assoc._accepted_cx = {context.context_id: context for context in answered if not context.result}
        self.assoc._rejected_cx = [context for context in answered if context.result]
        for reply in contexts.role_replies(answered, request.roles):
            self.acceptor.add_negotiation_item(reply)
        self.send_accept()
        self.assoc.is_established = True

    def _examine(self, request: RequestedAssociation) -> None:
        """Look whether the association can be accepted. Raises Rejected."""
        if request.fault is not None:
            raise request.fault
        if 0 < (largest := self.requestor.maximum_length) < SMALLEST_PDU_BYTES:
            raise Rejected(NO_REASON, f"It takes P-DATA PDUs of at most {largest} bytes.")
        self.assoc.admit()

    def send_accept(self) -> None:
        """Accept the association, and repeat the titles of the request, whatever they are."""
        request = self.requestor.primitive
        answer = A_ASSOCIATE()
        answer.application_context_name = contexts.APPLICATION_CONTEXT
        answer._called_ae_title, answer._calling_ae_title = request.called_ae_title, request.calling_ae_title
        answer.result, answer.result_source = 0, 1
        answer.presentation_context_definition_results_list = (
            self.assoc.accepted_contexts + self.assoc.rejected_contexts
        )
        answer.user_information = self.acceptor.user_information
        self.acceptor.primitive = answer
        self.dul.send_pdu(answer)


class _Nowhere:
    """Takes the data set of a C-STORE request that will be refused."""

    def write(self, data: memoryview) -> None:
        """Drop it."""

    def discard(self) -> None:
        """Leave nothing behind: there is nothing."""


def request_association(
    ae: Any,
    host: str,
    port: int,
    ae_title: str,
    proposed: Sequence[PresentationContext],
    negotiation_items: Sequence[Any] = (),
    encryption: Encryption | None = None,
    open_store: OpenStore | None = None,
) -> Association:
    """Request an association with a peer; look at `is_established` for how it ended.

    ae: pynetdicom's ApplicationEntity, for title, timeouts and maximum PDU size. proposed: contexts without ids.
    encryption: None for a plain connection. open_store: for what the peer stores here, after a C-GET.
    Raises OSError or UnicodeError if the host has no address.
    """
    remote = AddressInformation(host, port)  # first: nothing is open yet if it has no address
    requested = Association(ae, MODE_REQUESTOR, open_store=open_store)
    if open_store is not None:
        requested.allowed = {"store"}
    local = AddressInformation("::0" if ":" in host else "", 0)
    if encryption is None:
        requested.set_socket(AssociationSocket(requested, address=local))
    else:
        requested.set_socket(SecureAssociationSocket(requested, encryption, address=local))
    requested.acceptor.ae_title = ae_title
    requested.acceptor.address_info = remote
    requested.requestor.address_info = local
    requested.requestor.ae_title = ae.ae_title
    requested.requestor.maximum_length = ae.maximum_pdu_size
    requested.requestor.implementation_class_uid = ae.implementation_class_uid
    requested.requestor.implementation_version_name = ae.implementation_version_name
    for item in negotiation_items:
        requested.requestor.add_negotiation_item(item)
    requested.requestor.requested_contexts = [
        _numbered(context, 2 * position + 1) for position, context in enumerate(proposed)
    ]
    requested.request()
    return requested


def _numbered(context: PresentationContext, context_id: int) -> PresentationContext:
    numbered = PresentationContext()
    numbered.context_id = context_id
    numbered.abstract_syntax = context.abstract_syntax
    numbered.transfer_syntax = list(context.transfer_syntax)
    return numbered
