"""An association of the gateway: who may be what in it, and which function serves which request (PS3.7 9, Annex D).

One thread serves the requests, one by one; the thread of the upper layer (transport.py) receives and sends beside it.
"""

import queue
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from pynetdicom import acse, association, evt
from pynetdicom._globals import MODE_REQUESTOR
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from thinfilm_gateway.dimse import contexts, status
from thinfilm_gateway.dimse.messages import DataSetSink, DIMSEServiceProvider
from thinfilm_gateway.dimse.transport import AssociationSocket, DULServiceProvider

log = structlog.get_logger()

LINGER_SECONDS = 2.0  # for the last words to go out and the peer to close, before the connection is broken

STORAGE = "storage"
"""The key, in a table of services, of the one that serves C-STORE, whatever the SOP class."""

Service = Callable[["Association", Any, PresentationContext], None]
"""Serves one request: takes association, pynetdicom's DIMSE primitive and accepted context; sends all responses."""

OpenStore = Callable[["Association", C_STORE, PresentationContext], DataSetSink]
"""Called when the command set of a C-STORE is there and its data set comes next: says where the data set goes."""


class Association(association.Association):
    """An association with a peer, as acceptor or requestor.

    As acceptor, its thread serves the peer's requests with `services` (keys: SOP class UID, or STORAGE). As requestor
    it has no thread: whoever made it with `request_association` sends, waits with `dimse.get_msg(block=True)`, and
    releases.
    """

    def __init__(
        self, ae: Any, mode: str, services: Mapping[str, Service] | None = None, open_store: OpenStore | None = None
    ) -> None:
        super().__init__(ae, mode)
        self.services = services or {}
        self.serving = False  # whether a request is being served right now
        self._open_store = open_store
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

    def open_store(self, request: C_STORE, context_id: int) -> DataSetSink:
        """Say where the data set of a C-STORE goes. Raises KeyError if its context was not accepted."""
        assert self._open_store is not None, "Nobody may store here."
        return self._open_store(self, request, self._accepted_cx[context_id])

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
        if context is None or not msg.is_valid_request:
            log.warning("unexpected_message", peer=self.peer, message=msg.msg_type)
            self.abort()
            return
        is_store = isinstance(msg, C_STORE)
        sop_class = msg.AffectedSOPClassUID or getattr(msg, "RequestedSOPClassUID", None)
        service = self.services.get(STORAGE if is_store else str(sop_class))
        if service is None:
            self._refuse(msg, context_id)
            return
        self.dimse.cancel_req = {}
        try:
            service(self, msg, context)
        except Exception:
            log.exception("service_failed", peer=self.peer, message=msg.msg_type)
            self.abort()

    def _refuse(self, request: Any, context_id: int) -> None:
        log.warning("service_refused", peer=self.peer, message=request.msg_type)
        response = type(request)()
        response.MessageIDBeingRespondedTo = request.MessageID
        response.Status = status.SOP_CLASS_NOT_SUPPORTED
        self.dimse.send_msg(response, context_id)

    def release(self) -> None:
        """Release the association, as requestor, and wait for the end."""
        if self.is_established:
            self.acse.negotiate_release()

    def stop(self) -> None:
        """Abort the association and return at once; its own thread ends when the request that it serves is served."""
        self.abort(block=False)
        self._kill = True
        self.dimse.msg_queue.put((None, None))

    def kill(self) -> None:
        """End both threads; the last PDU still goes out if the peer takes it soon."""
        self._kill = True
        self.is_established = False
        self.dul.end(LINGER_SECONDS)

    def _seconds_to_idle(self) -> float | None:
        timer = self.dul._idle_timer
        return None if timer.timeout is None else max(0.0, timer.remaining) + 0.01

    def _bind_defaults(self) -> None:
        """Bind what negotiation asks for; pynetdicom's handlers that log each PDU and message stay out."""
        for event in evt._INTERVENTION_EVENTS:
            self.bind(event, evt.get_default_handler(event))


class ACSE(acse.ACSE):
    """Negotiation with what contexts.py says, for each proposal anew instead of from a list of all SOP classes."""

    def _negotiate_as_acceptor(self) -> None:
        request = self.requestor.primitive
        narrowed = contexts.choose(request.presentation_context_definition_list)
        request.presentation_context_definition_list = narrowed
        self.acceptor.supported_contexts = contexts.supported(narrowed)
        super()._negotiate_as_acceptor()


def request_association(
    ae: Any,
    host: str,
    port: int,
    ae_title: str,
    proposed: Sequence[PresentationContext],
    negotiation_items: Sequence[Any] = (),
) -> Association:
    """Request an association with a peer; look at `is_established` for how it ended.

    ae: pynetdicom's ApplicationEntity, for title, timeouts and maximum PDU size. proposed: contexts without ids.
    """
    requested = Association(ae, MODE_REQUESTOR)
    local = AddressInformation("::0" if ":" in host else "", 0)
    requested.set_socket(AssociationSocket(requested, address=local))
    requested.acceptor.ae_title = ae_title
    requested.acceptor.address_info = AddressInformation(host, port)
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
