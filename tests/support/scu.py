"""A storage service class user made of pynetdicom, not of ours, that sends any bytes whatever as a data set."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pynetdicom import AE, build_context
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA

from support.datasets import EncodedDataSet


@dataclass(frozen=True)
class Answer:
    """A C-STORE response."""

    status: int
    comment: str


class StorageUser:
    """An open association; use `storage_user`."""

    def __init__(self, association: Any) -> None:
        self.association = association

    def store(self, encoded: EncodedDataSet, *, sop_class_uid: str = "", sop_instance_uid: str = "") -> Answer:
        """Send an object, under other UIDs in the command than those of the object if given, and await the answer."""
        self.send(encoded, sop_class_uid=sop_class_uid, sop_instance_uid=sop_instance_uid)
        _, response = self.association.dimse.get_msg(block=True)
        assert response is not None, "The association ended without an answer."
        return Answer(response.Status, response.ErrorComment or "")

    def send(self, encoded: EncodedDataSet, *, sop_class_uid: str = "", sop_instance_uid: str = "") -> None:
        """Send an object and do not wait."""
        self.association._reactor_checkpoint.clear()
        request = C_STORE()
        request.MessageID = 1
        request.AffectedSOPClassUID = sop_class_uid or encoded.sop_class_uid
        request.AffectedSOPInstanceUID = sop_instance_uid or encoded.sop_instance_uid
        request.Priority = 2
        request.DataSet = BytesIO(encoded.dataset)
        context_id = self._context_id(encoded)
        self.association.dimse.send_msg(request, context_id)
        if not encoded.dataset:  # pynetdicom announces an empty data set and does not send it
            last_fragment = P_DATA()
            last_fragment.presentation_data_value_list.append((context_id, b"\x02"))
            self.association.dul.send_pdu(last_fragment)

    def _context_id(self, encoded: EncodedDataSet) -> int:
        for context in self.association.accepted_contexts:
            accepted = (context.abstract_syntax, context.transfer_syntax[0])
            if accepted == (encoded.sop_class_uid, encoded.transfer_syntax_uid):
                return int(context.context_id)
        raise AssertionError(f"No accepted context for {encoded.sop_class_uid} in {encoded.transfer_syntax_uid}.")


@contextlib.contextmanager
def storage_user(
    port: int, objects: Sequence[EncodedDataSet], maximum_pdu_size: int = 16382, patience: float = 30
) -> Iterator[StorageUser]:
    """Open an association with a context of its own for each pair of SOP class and transfer syntax of the objects.

    patience: seconds that an answer may take.
    """
    entity = AE("STORE-USER")
    entity.maximum_pdu_size = maximum_pdu_size
    entity.dimse_timeout, entity.network_timeout = patience, 2 * patience
    pairs = sorted({(encoded.sop_class_uid, encoded.transfer_syntax_uid) for encoded in objects})
    association = entity.associate("127.0.0.1", port, [build_context(*pair) for pair in pairs], "THINFILM")
    assert association.is_established, "The association was not accepted."
    connection = association.dul.socket.socket
    try:
        yield StorageUser(association)
    finally:
        association._reactor_checkpoint.set()
        if association.is_established:
            association.release()
        association.join()
        connection.close()  # pynetdicom leaves it open when the peer was faster


def store_all(port: int, objects: Sequence[EncodedDataSet], patience: float = 30) -> list[Answer]:
    """Send objects over one association, as many as its presentation contexts allow."""
    with storage_user(port, objects, patience=patience) as user:
        return [user.store(encoded) for encoded in objects]
