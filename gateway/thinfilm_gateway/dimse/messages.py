"""DIMSE messages out of the fragments that the upper layer delivers (PS3.7 6.3, PS3.8 Annex E).

The data set of a C-STORE goes fragment by fragment to whoever stores it and is never held here.
"""

import queue
from io import BytesIO
from typing import Any, Protocol

import pydicom
import structlog
from pynetdicom import _config, dimse
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL, C_STORE, N_EVENT_REPORT
from pynetdicom.pdu_primitives import P_DATA

from thinfilm_gateway.dimse.command_sets import store_request, tidied
from thinfilm_gateway.dimse.transport import WAITING_MESSAGES, Fragment, ReceivedData

log = structlog.get_logger()

# What is odd in a command set is kept like what is odd in a data set: pydicom would tell standard error of each value,
# pynetdicom would abort over a UID or title that is too long. Both have no narrower place to say this.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
_config.VALIDATORS["UI"] = _config.VALIDATORS["AE"] = lambda value: (True, "")

LARGEST_COMMAND_BYTES = 64 * 1024
LARGEST_IDENTIFIER_BYTES = 16 * 1024 * 1024  # a list of 200 000 UIDs
WAITING_CANCELS = 10

_LAST_COMMAND_FRAGMENT = b"\x03"
_WAKE = object()  # stands where a message would
_INVALID_PDU = "Evt19"


class InvalidMessage(Exception):
    """The peer's fragments make no message; the message of the error is one sentence."""


class DataSetSink(Protocol):
    """Takes the data set of one C-STORE request as it arrives. Never raises: what goes wrong shows in the response."""

    def write(self, data: memoryview) -> None:
        """Take the next bytes; they must be copied before the return."""

    def discard(self) -> None:
        """Leave nothing behind: nobody will serve the message. Can be called at any time, more than once."""


class DIMSEServiceProvider(dimse.DIMSEServiceProvider):
    """The messages of one association. Everything received runs in the thread of the upper layer."""

    def __init__(self, assoc: Any) -> None:
        super().__init__(assoc)
        self._command = bytearray()
        self._context_id = 0
        self._primitive: Any = None  # the message whose data set is on its way
        self._identifier: BytesIO | None = None  # its data set, unless it is a C-STORE
        self._sink: DataSetSink | None = None  # where its data set goes if it is a C-STORE

    @property
    def receiving(self) -> bool:
        """Whether a message is on its way, or waits to be served."""
        return self._primitive is not None or not self.msg_queue.empty()

    def receive_primitive(self, primitive: ReceivedData) -> None:
        """Take a P-DATA indication; what breaks the rules ends the association."""
        try:
            for fragment in primitive.fragments:
                if fragment.is_command:
                    self._take_command(fragment)
                else:
                    self._take_data(fragment)
        except Exception as error:  # pynetdicom's primitives refuse bad values in their own ways
            log.warning("invalid_message", peer=self.assoc.peer, error=str(error))
            self.give_up()
            self.dul.event_queue.put(_INVALID_PDU)

    def take(self, timeout: float | None) -> tuple[int | None, Any]:
        """Return the next request and its context, waiting for it; (None, None) if there is something else to see to.

        timeout: seconds, None for no limit. Raises queue.Empty when they are over.
        """
        context_id, message = self.msg_queue.get(timeout=timeout)
        self._let_read_on()
        return context_id, None if message is _WAKE else message

    def wake(self) -> None:
        """Make a waiting `take` return; whoever waits for a response by `get_msg` waits on."""
        self.msg_queue.put((None, _WAKE))

    def get_msg(self, block: bool = False) -> tuple[int | None, Any]:
        """Return the next message, for a service that waits for a response; (None, None) if none came in time."""
        try:
            context_id, message = self.msg_queue.get(block=block, timeout=self.dimse_timeout)
            while message is _WAKE:
                context_id, message = self.msg_queue.get(block=block, timeout=self.dimse_timeout)
        except queue.Empty:
            return None, None
        self._let_read_on()
        return context_id, message

    def give_up(self) -> None:
        """Leave nothing behind of a message that is not whole."""
        if self._sink is not None:
            self._sink.discard()
        self._begin()

    def discard_waiting(self) -> None:
        """Leave nothing behind of the requests that nobody will serve any more."""
        while True:
            try:
                _, message = self.msg_queue.get_nowait()
            except queue.Empty:
                return
            if isinstance(message, C_STORE) and message.sink is not None:
                message.sink.discard()

    def _take_command(self, fragment: Fragment) -> None:
        if self._primitive is not None:
            raise InvalidMessage("A command set came where a data set was expected.")
        if self._command and fragment.context_id != self._context_id:
            raise InvalidMessage("The fragments of a command set came over several presentation contexts.")
        self._context_id = fragment.context_id
        self._command += fragment.data
        if len(self._command) > LARGEST_COMMAND_BYTES:
            raise InvalidMessage(f"A command set is longer than {LARGEST_COMMAND_BYTES} bytes.")
        if fragment.is_last:
            self._decode_command()

    def _decode_command(self) -> None:
        command_set = bytes(self._command)
        self._command.clear()
        request = store_request(command_set)
        if request is not None:
            request._context_id = self._context_id
            self._primitive = request
            self._sink = request.sink = self.assoc.open_store(request, self._context_id)
            return
        context = self.assoc._accepted_cx.get(self._context_id)
        plain = tidied(command_set, str(context.abstract_syntax) if context else "")
        indication = P_DATA()
        indication.presentation_data_value_list.append((self._context_id, _LAST_COMMAND_FRAGMENT + plain))
        message = DIMSEMessage()
        try:
            has_no_dataset = message.decode_msg(indication, self.assoc)
        except KeyError as error:
            raise InvalidMessage(f"There is no message with the Command Field {error}.") from error
        primitive = message.message_to_primitive()
        if isinstance(primitive, C_STORE):
            primitive.sink = None
        if has_no_dataset:
            self._deliver(primitive)
            return
        self._primitive = primitive
        if isinstance(primitive, C_STORE) and primitive.is_valid_request:
            self._sink = primitive.sink = self.assoc.open_store(primitive, self._context_id)
        else:
            self._identifier = message.data_set

    def _take_data(self, fragment: Fragment) -> None:
        if self._primitive is None or fragment.context_id != self._context_id:
            raise InvalidMessage("A data set came without its command set.")
        if self._sink is not None:
            self._sink.write(fragment.data)
        else:
            assert self._identifier is not None, "A data set has a place to go."
            self._identifier.write(fragment.data)
            if self._identifier.tell() > LARGEST_IDENTIFIER_BYTES:
                raise InvalidMessage(f"An identifier is longer than {LARGEST_IDENTIFIER_BYTES} bytes.")
        if fragment.is_last:
            primitive = self._primitive
            self._begin()
            self._deliver(primitive)

    def _deliver(self, primitive: Any) -> None:
        if isinstance(primitive, C_CANCEL):
            if len(self.cancel_req) < WAITING_CANCELS:
                self.cancel_req[primitive.MessageIDBeingRespondedTo] = primitive
        elif isinstance(primitive, N_EVENT_REPORT) and primitive.is_valid_response and self.assoc.is_acceptor:
            self.assoc.event_reports.answer(primitive)
        else:
            self.msg_queue.put((self._context_id, primitive))

    def _begin(self) -> None:
        self._command.clear()
        self._primitive = self._identifier = self._sink = None

    def _let_read_on(self) -> None:
        if self.msg_queue.qsize() == WAITING_MESSAGES - 1:
            self.dul.wake()
