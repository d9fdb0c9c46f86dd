"""A query/retrieve service class user made of pynetdicom, not of ours, and a receiver that has something to give."""

import contextlib
import datetime as dt
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)
from sqlalchemy import insert, select

from support.datasets import EncodedDataSet
from support.receiver import Running, running_receiver
from thinfilm_gateway.dicom import part10
from thinfilm_gateway.dicom.dataset import outline
from thinfilm_gateway.heart import process_name
from thinfilm_gateway.index.ingest import Outcome, register_all
from thinfilm_gateway.index.ingest import Received as ReceivedObject
from thinfilm_gateway.index.models import Instance
from thinfilm_workers import runner
from thinfilm_workers.context import Context

FIND = {
    "PATIENT": PatientRootQueryRetrieveInformationModelFind,
    "STUDY": StudyRootQueryRetrieveInformationModelFind,
}
GET = {"PATIENT": PatientRootQueryRetrieveInformationModelGet, "STUDY": StudyRootQueryRetrieveInformationModelGet}
MOVE = {"PATIENT": PatientRootQueryRetrieveInformationModelMove, "STUDY": StudyRootQueryRetrieveInformationModelMove}


OnResponse = Callable[[Any, int], None]
"""Called after each response with the association and the number of responses so far."""


@dataclass(frozen=True)
class Received:
    """An object as it came over the network."""

    dataset: bytes
    transfer_syntax_uid: str
    sop_instance_uid: str
    move_originator: tuple[str, int] | None


@dataclass
class Operation:
    """What a query or retrieval gave: (status data set, identifier) of each response, and the objects that came."""

    responses: list[tuple[Dataset, Dataset | None]] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)

    @property
    def final(self) -> Dataset:
        """The command set of the last response."""
        return self.responses[-1][0]

    @property
    def status(self) -> int:
        return int(self.final.Status)

    @property
    def counts(self) -> tuple[int | None, int, int, int]:
        """Remaining, completed, failed, warning of the last response."""
        return counts(self.final)

    @property
    def failed_uids(self) -> list[str]:
        identifier = self.responses[-1][1]
        assert identifier is not None, "The response has no identifier."
        value = identifier.get("FailedSOPInstanceUIDList") or []
        return [value] if isinstance(value, str) else list(value)

    @property
    def matches(self) -> list[Dataset]:
        return [identifier for status, identifier in self.responses if status.Status in (0xFF00, 0xFF01) and identifier]


def counts(status: Dataset) -> tuple[int | None, int, int, int]:
    return (
        status.get("NumberOfRemainingSuboperations"),
        status.NumberOfCompletedSuboperations,
        status.NumberOfFailedSuboperations,
        status.NumberOfWarningSuboperations,
    )


def identifier(level: str | None, **keys: Any) -> Dataset:
    """Keys by keyword, wrong ones too."""
    dataset = Dataset()
    levels = {} if level is None else {"QueryRetrieveLevel": level}
    for keyword, value in (levels | keys).items():
        tag = tag_for_keyword(keyword)
        assert tag is not None, keyword
        dataset.add(DataElement(tag, dictionary_VR(tag), value, validation_mode=IGNORE))
    return dataset


def find(
    port: int,
    keys: Dataset,
    root: str = "STUDY",
    on_response: OnResponse | None = None,
    syntaxes: Sequence[str] | None = None,
) -> Operation:
    """Query over a context of these transfer syntaxes."""
    context = build_context(FIND[root], list(syntaxes)) if syntaxes else build_context(FIND[root])
    operation = Operation()
    with _association(port, [context]) as association:
        _collect(operation, association, association.send_c_find(keys, FIND[root], msg_id=7), on_response)
    return operation


def get(
    port: int,
    keys: Dataset,
    contexts: Sequence[tuple[str, Sequence[str]]],
    root: str = "STUDY",
    *,
    roles: bool = True,
    answer: Callable[[Received], int] = lambda _: 0,
    on_response: OnResponse | None = None,
    tls: ssl.SSLContext | None = None,
) -> Operation:
    """Retrieve by C-GET over contexts of (SOP class, transfer syntaxes); `answer` gives the status to each object."""
    operation = Operation()
    proposed = [build_context(GET[root]), *(build_context(uid, list(syntaxes)) for uid, syntaxes in contexts)]
    items = [build_role(uid, scp_role=True) for uid in dict.fromkeys(uid for uid, _ in contexts)] if roles else []
    handlers = [(evt.EVT_C_STORE, _take, [operation, answer])]
    with _association(port, proposed, items, handlers, tls) as association:
        _collect(operation, association, association.send_c_get(keys, GET[root], msg_id=7), on_response)
    return operation


def move(
    port: int,
    keys: Dataset,
    destination: str,
    root: str = "STUDY",
    on_response: OnResponse | None = None,
) -> Operation:
    """Retrieve by C-MOVE."""
    operation = Operation()
    with _association(port, [build_context(MOVE[root])]) as association:
        responses = association.send_c_move(keys, destination, MOVE[root], msg_id=7)
        _collect(operation, association, responses, on_response)
    return operation


@contextlib.contextmanager
def destination(
    contexts: Sequence[tuple[str, Sequence[str]]],
    answer: Callable[[Received], int] = lambda _: 0,
    maximum_associations: int = 10,
    on_event: Sequence[tuple[Any, Callable[[Any], Any]]] = (),
) -> Iterator[tuple[int, Operation]]:
    """Run a C-MOVE destination that accepts only these (SOP class, transfer syntaxes); give its port and what came."""
    operation = Operation()
    entity = AE("DESTINATION")
    entity.maximum_associations = maximum_associations
    for uid, syntaxes in contexts:
        entity.add_supported_context(uid, list(syntaxes))
    handlers = [(evt.EVT_C_STORE, _take, [operation, answer]), *on_event]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield server.server_address[1], operation
    finally:
        server.shutdown()


@contextlib.contextmanager
def gateway_with(folder: Path, objects: Sequence[EncodedDataSet], **settings: Any) -> Iterator[Running]:
    """Run a receiver that has these objects, as if they had been sent to it."""
    with running_receiver(folder, series_quiet_seconds=0, lossless_codecs=("jpegls",), **settings) as running:
        received = [_spool(running, encoded) for encoded in objects]
        outcomes = register_all(running.database, received, dt.timedelta(0))
        assert set(outcomes) == {Outcome.STORED}
        yield running


def _spool(running: Running, encoded: EncodedDataSet) -> ReceivedObject:
    now = dt.datetime.now(dt.UTC)
    writer = running.spool.create()
    uids = (encoded.sop_class_uid, encoded.sop_instance_uid, encoded.transfer_syntax_uid)
    writer.write(part10.build(*uids, "TEST", "192.0.2.7", now))
    writer.begin_dataset()
    writer.write(encoded.dataset)
    sha256 = writer.sha256
    running.spool.commit([writer])
    return ReceivedObject(
        attributes=outline(encoded.dataset, encoded.transfer_syntax_uid).attributes,
        sop_instance_uid=encoded.sop_instance_uid,
        sop_class_uid=encoded.sop_class_uid,
        transfer_syntax_uid=encoded.transfer_syntax_uid,
        sha256=sha256,
        dataset_bytes=writer.dataset_bytes,
        dataset_offset=writer.dataset_offset,
        spool_name=writer.name,
        sender_ae_title="TEST",
        sender_address="192.0.2.7",
        received_at=now,
    )


def archive(running: Running, *, drop_spool: bool) -> None:
    """Compress everything that was received; `drop_spool`: let the cache forget the spool copies."""
    context = Context.open(running.settings)
    try:
        while runner.run_next(context, process_name(), runner.QUEUES):
            pass
    finally:
        context.database.dispose()
    if drop_spool:
        for instance in running.instances():
            running.spool.remove(str(instance.spool_name))


def multiply_rows(running: Running, instances: int) -> None:
    """Bring the index, not the spool, to so many instances: all like the first."""
    with running.database.session() as session:
        row = session.execute(select(*Instance.__table__.columns)).mappings().first()
        assert row is not None, "There is no instance to multiply."
        numbers = range(len(running.instances()) + 1, instances + 1)
        rows = [{**row, "id": n, "sop_instance_uid": f"2.25.{n}", "spool_name": f"{n:032x}"} for n in numbers]
        session.execute(insert(Instance), rows)


def cancel_at(number: int) -> OnResponse:
    """Send a C-CANCEL at the response of this number."""

    def cancel(association: Any, responses: int) -> None:
        if responses == number:
            association.send_c_cancel(7, query_model=association.accepted_contexts[0].abstract_syntax)

    return cancel


def _collect(operation: Operation, association: Any, responses: Any, on_response: OnResponse | None) -> None:
    for status, identifier in responses:
        operation.responses.append((status, identifier))
        if on_response is not None:
            on_response(association, len(operation.responses))
        if not association.is_established:
            break  # no response will come any more, and pynetdicom would wait for it


def _take(event: Any, operation: Operation, answer: Callable[[Received], int]) -> int:
    request = event.request
    originator = request.MoveOriginatorApplicationEntityTitle
    received = Received(
        request.DataSet.getvalue(),
        str(event.context.transfer_syntax),
        str(request.AffectedSOPInstanceUID),
        (str(originator), int(request.MoveOriginatorMessageID)) if originator else None,
    )
    operation.received.append(received)
    return answer(received)


@contextlib.contextmanager
def _association(
    port: int,
    contexts: Sequence[Any],
    items: Sequence[Any] = (),
    handlers: Sequence[Any] = (),
    tls: ssl.SSLContext | None = None,
) -> Iterator[Any]:
    entity = AE("QR-USER")
    association = entity.associate(
        "127.0.0.1",
        port,
        list(contexts),
        "THINFILM",
        ext_neg=list(items),
        evt_handlers=list(handlers),
        tls_args=tls and (tls, "localhost"),
    )
    assert association.is_established, "The association was not accepted."
    try:
        yield association
    finally:
        if association.is_established:
            association.release()
