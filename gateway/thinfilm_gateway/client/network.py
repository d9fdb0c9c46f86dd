"""C-ECHO, C-STORE, C-GET and C-MOVE as a service class user that takes data sets as they are (PS3.4 A, B, C)."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, build_context, build_role
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet, StudyRootQueryRetrieveInformationModelMove

from thinfilm_gateway.client.files import DicomFile
from thinfilm_gateway.dimse import command_sets, status
from thinfilm_gateway.dimse.association import STORAGE, Association, OpenStore, request_association
from thinfilm_gateway.dimse.server import AssociationServer

AE_TITLE = "THINFILM-CLIENT"
MAXIMUM_CONTEXTS = 126  # a request has at most 128; two are left for the query/retrieve classes

Sink = Callable[[str, str, bytes], None]
"""Takes the SOP Instance UID, the transfer syntax UID and the encoded data set of an object that came in."""


class PeerRefused(Exception):
    """The peer is away, or did not do what it was asked; the message is one sentence."""


@dataclass(frozen=True)
class Node:
    """A DICOM application entity to talk to."""

    host: str
    port: int
    ae_title: str


@dataclass(frozen=True)
class Sent:
    """How the peer answered the C-STORE of a file.

    status: as in PS3.4 table B.2-1; None if the association ended without an answer.
    seconds: from request to response.
    """

    file: DicomFile
    status: int | None
    comment: str
    seconds: float


def echo(node: Node) -> bool:
    """Tell whether the node answers a C-ECHO with success."""
    entity = AE(AE_TITLE)
    entity.connection_timeout = 5
    association = entity.associate(node.host, node.port, [build_context("1.2.840.10008.1.1")], node.ae_title)
    if not association.is_established:
        return False
    answer = association.send_c_echo()
    association.release()
    return bool("Status" in answer and answer.Status == status.SUCCESS)


def store(node: Node, files: Sequence[DicomFile], on_sent: Callable[[Sent], None] | None = None) -> list[Sent]:
    """Send files over one association after another, each as large as its presentation contexts allow.

    Raises PeerRefused if the node does not accept an association.
    """
    results: list[Sent] = []
    for batch in _batches(files):
        results += _store_batch(node, batch, on_sent or (lambda sent: None))
    return results


def store_parallel(
    node: Node, files: Sequence[DicomFile], associations: int, on_sent: Callable[[Sent], None] | None = None
) -> list[Sent]:
    """Send files over several associations at a time, every n-th file on each. Raises PeerRefused."""
    shares = [files[first::associations] for first in range(associations)]
    with ThreadPoolExecutor(associations) as pool:
        return [sent for part in pool.map(lambda share: store(node, share, on_sent), shares) for sent in part]


def get(node: Node, files: Sequence[DicomFile], sink: Sink) -> None:
    """C-GET the series of `files`, which is one series, in the transfer syntaxes of the files.

    Raises PeerRefused if the operation does not end with success.
    """
    _get(node, files, _series(files[0]), sink)


def get_one(node: Node, file: DicomFile, sink: Sink) -> None:
    """C-GET one instance, as `get` does a series."""
    identifier = _series(file)
    identifier.QueryRetrieveLevel = "IMAGE"
    identifier.SOPInstanceUID = file.sop_instance_uid
    _get(node, [file], identifier, sink)


def _get(node: Node, files: Sequence[DicomFile], identifier: Dataset, sink: Sink) -> None:
    model = StudyRootQueryRetrieveInformationModelGet
    pairs = _pairs(files)
    contexts = [build_context(model, ImplicitVRLittleEndian), *(build_context(*pair) for pair in pairs)]
    roles = [build_role(sop_class, scp_role=True) for sop_class in {sop_class for sop_class, _ in pairs}]
    association = _request(node, contexts, roles, lambda *_: _Arrival())
    try:
        asking = [context.context_id for context in association.accepted_contexts if context.abstract_syntax == model]
        if not asking:
            raise PeerRefused(f"{node.ae_title} does not accept C-GET.")
        request: dict[str, str | int] = {"AffectedSOPClassUID": str(model), "MessageID": 1, "Priority": 0}
        encoded = memoryview(encode(identifier, True, True) or b"")
        association.send_message(asking[0], command_sets.C_GET_RQ, request, encoded)
        _take_all(association, sink)
    finally:
        association.release()
        association.kill()


def _take_all(association: Association, sink: Sink) -> None:
    """Take what comes after a C-GET until its last response. Raises PeerRefused if that is not success."""
    while True:
        context_id, message = association.dimse.get_msg(block=True)
        if context_id is None or message is None:
            association.abort()
            raise PeerRefused("The C-GET ended without an answer.")
        if isinstance(message, C_STORE):
            _take(association, message, association._accepted_cx[context_id], sink)
        elif message.Status != status.PENDING:
            comment = str(message.ErrorComment or "")
            _check_final("C-GET", message.Status, message.NumberOfFailedSuboperations or 0, comment)
            return


def move(node: Node, files: Sequence[DicomFile], destination_ae_title: str) -> None:
    """C-MOVE the series of `files`, which is one series, to a destination that the node knows.

    Raises PeerRefused if the operation does not end with success.
    """
    association = _associate(node, [build_context(StudyRootQueryRetrieveInformationModelMove)])
    try:
        model = StudyRootQueryRetrieveInformationModelMove
        answer = list(association.send_c_move(_series(files[0]), destination_ae_title, model))[-1][0]
        if "Status" not in answer:
            raise PeerRefused("The C-MOVE ended without an answer.")
        failed, comment = answer.get("NumberOfFailedSuboperations", 0), answer.get("ErrorComment", "")
        _check_final("C-MOVE", answer.Status, failed, comment)
    finally:
        association.release()


@contextlib.contextmanager
def destination(ae_title: str, sink: Sink, port: int = 0) -> Iterator[int]:
    """Be a C-MOVE destination on a port of the loopback interface, a free one for 0; the port is yielded.

    What it is sent, of any SOP class, goes to `sink`, by one thread an association.
    """
    entity = _entity()
    entity.ae_title = ae_title

    def take(association: Association, request: C_STORE, context: PresentationContext) -> None:
        _take(association, request, context, sink)

    server = AssociationServer(entity, ("127.0.0.1", port), {STORAGE: take}, lambda *_: _Arrival())
    thread = threading.Thread(target=server.serve_forever, name="destination", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()


def _take(association: Association, request: Any, context: PresentationContext, sink: Sink) -> None:
    """Take an object that the peer stores here, and say so."""
    sink(str(request.AffectedSOPInstanceUID), str(context.transfer_syntax[0]), bytes(request.sink.dataset))
    response = command_sets.store_response(request, status.SUCCESS)
    association.send_message(context.context_id, command_sets.C_STORE_RSP, response)


class _Arrival:
    """A data set on its way in."""

    def __init__(self) -> None:
        self.dataset = bytearray()

    def write(self, data: memoryview) -> None:
        self.dataset += data

    def discard(self) -> None:
        self.dataset.clear()


def _entity() -> Any:
    entity = AE(AE_TITLE)
    entity.maximum_pdu_size = 1024 * 1024
    entity.maximum_associations = 32
    entity.dimse_timeout = entity.network_timeout = 600
    return entity


def _associate(node: Node, contexts: Sequence[Any]) -> Any:
    association = _entity().associate(node.host, node.port, list(contexts), node.ae_title)
    _check_established(association, node)
    return association


def _request(
    node: Node, contexts: Sequence[Any], roles: Sequence[Any] = (), open_store: OpenStore | None = None
) -> Association:
    association = request_association(
        _entity(), node.host, node.port, node.ae_title, contexts, roles, open_store=open_store
    )
    _check_established(association, node)
    return association


def _check_established(association: Any, node: Node) -> None:
    if not association.is_established:
        raise PeerRefused(f"{node.ae_title} at {node.host} port {node.port} did not accept an association.")


def _store_batch(node: Node, files: Sequence[DicomFile], on_sent: Callable[[Sent], None]) -> list[Sent]:
    results = []
    association = _associate_to_store(node, files)
    for number, file in enumerate(files):
        if not association.is_established:  # the peer aborted over the file before
            association = _associate_to_store(node, files)
        sent = _store_one(association, file, number % 65535 + 1)
        on_sent(sent)
        results.append(sent)
    association.release()
    association.kill()
    return results


def _store_one(association: Association, file: DicomFile, message_id: int) -> Sent:
    contexts = {
        (str(c.abstract_syntax), str(c.transfer_syntax[0])): c.context_id for c in association.accepted_contexts
    }
    context_id = contexts.get((file.sop_class_uid, file.transfer_syntax_uid))
    if context_id is None:
        return Sent(file, status.SOP_CLASS_NOT_SUPPORTED, "The presentation context was not accepted.", 0.0)
    command: dict[str, str | int] = {
        "AffectedSOPClassUID": file.sop_class_uid,
        "MessageID": message_id,
        "Priority": 0,
        "AffectedSOPInstanceUID": file.sop_instance_uid,
    }
    dataset = file.dataset()
    started = time.perf_counter()
    association.send_message(context_id, command_sets.C_STORE_RQ, command, dataset or None)
    _, response = association.dimse.get_msg(block=True)
    seconds = time.perf_counter() - started
    if response is None:
        association.abort()
        return Sent(file, None, "", seconds)
    return Sent(file, int(response.Status), str(response.ErrorComment or ""), seconds)


def _associate_to_store(node: Node, files: Sequence[DicomFile]) -> Association:
    return _request(node, [build_context(*pair) for pair in _pairs(files)])


def _batches(files: Sequence[DicomFile]) -> Iterator[list[DicomFile]]:
    """Cut `files`, in their order, where an association would need too many presentation contexts."""
    batch: list[DicomFile] = []
    for file in files:
        if len(_pairs([*batch[-MAXIMUM_CONTEXTS:], file])) > MAXIMUM_CONTEXTS:
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch


def _pairs(files: Sequence[DicomFile]) -> list[tuple[str, str]]:
    """Return the SOP classes and transfer syntaxes of the files: each pair is a presentation context of its own."""
    return sorted({(file.sop_class_uid, file.transfer_syntax_uid) for file in files})


def _series(file: DicomFile) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "SERIES"
    identifier.StudyInstanceUID = file.study_instance_uid
    identifier.SeriesInstanceUID = file.series_instance_uid
    return identifier


def _check_final(operation: str, code: int, failed: int, comment: str) -> None:
    if code != status.SUCCESS:
        said = f": {comment}" if comment else ""
        raise PeerRefused(f"The {operation} ended with status {code:04X}, {failed} failed{said}.")
