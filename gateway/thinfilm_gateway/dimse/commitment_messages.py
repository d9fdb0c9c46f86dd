"""What storage commitment says on the network: the request, and the report of its outcome (PS3.4 J.3.2, J.3.3)."""

from io import BytesIO

from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.presentation import PresentationContext

from thinfilm_gateway.dicom.character_sets import CharacterSet
from thinfilm_gateway.dicom.element_tree import Element, Elements
from thinfilm_gateway.dicom.tags import (
    FAILED_SOP_SEQUENCE,
    FAILURE_REASON,
    REFERENCED_SOP_CLASS_UID,
    REFERENCED_SOP_INSTANCE_UID,
    REFERENCED_SOP_SEQUENCE,
    RETRIEVE_AE_TITLE,
    TRANSACTION_UID,
)
from thinfilm_gateway.dimse import contexts
from thinfilm_gateway.dimse.identifiers import UnreadableIdentifier, decode_elements, encode_identifier, value_of
from thinfilm_gateway.index.commitments import HeldCommitment, Reference
from thinfilm_gateway.index.ingest import LONGEST_UID

COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"  # the well-known instance of the SOP class
REQUEST_STORAGE_COMMITMENT = 1  # Action Type
ALL_COMMITTED, FAILURES_EXIST = 1, 2  # Event Types


class InvalidRequest(Exception):
    """A request says too little, or nonsense; the message is one sentence."""


def read_request(raw: bytes, transfer_syntax_uid: str) -> tuple[str, list[Reference]]:
    """Return the Transaction UID and the instances of a request's Action Information. Raises InvalidRequest."""
    try:
        information = decode_elements(raw, transfer_syntax_uid)
    except UnreadableIdentifier as error:
        raise InvalidRequest(str(error)) from error
    return _uid(information, TRANSACTION_UID, "Transaction UID (0008,1195)"), _references(information)


def event_report(held: HeldCommitment, retrieve_ae_title: str, context: PresentationContext) -> N_EVENT_REPORT:
    """Make the report of an outcome, but for its Message ID."""
    report = N_EVENT_REPORT()
    report.AffectedSOPClassUID = contexts.STORAGE_COMMITMENT
    report.AffectedSOPInstanceUID = COMMITMENT_INSTANCE
    report.EventTypeID = FAILURES_EXIST if any(held.failure_reasons) else ALL_COMMITTED
    transfer_syntax_uid = str(context.transfer_syntax[0])
    report.EventInformation = BytesIO(_event_information(held, retrieve_ae_title, transfer_syntax_uid))
    return report


def _references(information: Elements) -> list[Reference]:
    sequence = information.get(REFERENCED_SOP_SEQUENCE)
    items = sequence.value if sequence is not None and isinstance(sequence.value, list) else []
    if not items:
        raise InvalidRequest("Referenced SOP Sequence (0008,1199) is empty.")
    return [
        Reference(
            _uid(item, REFERENCED_SOP_CLASS_UID, "Referenced SOP Class UID (0008,1150)"),
            _uid(item, REFERENCED_SOP_INSTANCE_UID, "Referenced SOP Instance UID (0008,1155)"),
        )
        for item in items
    ]


def _uid(elements: Elements, tag: int, name: str) -> str:
    """Return a UID of the request. Raises InvalidRequest for one that is missing, or that the index cannot hold."""
    uid = elements.text(tag)
    if not uid:
        raise InvalidRequest(f"{name} is missing.")
    if len(uid) > LONGEST_UID or not uid.isascii() or not uid.isprintable():
        raise InvalidRequest(f"{name} is no UID.")
    return uid


def _event_information(held: HeldCommitment, retrieve_ae_title: str, transfer_syntax_uid: str) -> bytes:
    """Encode what is reported: of each instance that it is committed, or why it is not (PS3.4 Table J.3-2)."""

    def element(tag: int, vr: str, text: str) -> Element:
        return Element(tag, vr, value_of(text, vr, CharacterSet.of(""), transfer_syntax_uid))

    def item(reference: Reference, reason: int | None) -> Elements:
        found = [
            element(REFERENCED_SOP_CLASS_UID, "UI", reference.sop_class_uid),
            element(REFERENCED_SOP_INSTANCE_UID, "UI", reference.sop_instance_uid),
        ]
        return Elements(found if reason is None else [*found, element(FAILURE_REASON, "US", str(reason))])

    outcomes = list(zip(held.references, held.failure_reasons, strict=True))
    committed = [item(reference, reason) for reference, reason in outcomes if reason is None]
    failed = [item(reference, reason) for reference, reason in outcomes if reason is not None]
    information = [element(TRANSACTION_UID, "UI", held.transaction_uid)]
    if committed:
        information += [
            element(RETRIEVE_AE_TITLE, "AE", retrieve_ae_title),
            Element(REFERENCED_SOP_SEQUENCE, "SQ", committed),
        ]
    if failed:
        information.append(Element(FAILED_SOP_SEQUENCE, "SQ", failed))
    return encode_identifier(information, transfer_syntax_uid)
