"""C-FIND, Patient Root and Study Root (PS3.4 C.4.1): answers streamed, each in a character set that covers it."""

from collections.abc import Iterator
from typing import Any

import structlog
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pynetdicom.presentation import PresentationContext
from sqlalchemy.exc import SQLAlchemyError

from thinfilm_gateway.dicom.character_sets import GOVERNED_VRS, CharacterSet, common_character_set
from thinfilm_gateway.dicom.element_tree import Element, Elements
from thinfilm_gateway.dicom.tags import (
    ALTERNATE_REPRESENTATION_SEQUENCE,
    CODE_MEANING,
    CODE_VALUE,
    CODING_SCHEME_DESIGNATOR,
    PURPOSE_OF_REFERENCE_CODE_SEQUENCE,
    QUERY_RETRIEVE_LEVEL,
    REFERENCED_SOP_CLASS_UID,
    REFERENCED_SOP_INSTANCE_UID,
    SERIES_INSTANCE_UID,
    SPECIFIC_CHARACTER_SET,
)
from thinfilm_gateway.dimse import command_sets, status
from thinfilm_gateway.dimse.association import Association
from thinfilm_gateway.dimse.identifiers import (
    Identifier,
    encode_identifier,
    value_of,
)
from thinfilm_gateway.dimse.information_models import FIND, Refused, read_identifier
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.find import ALTERNATE_REPRESENTATION, AlternateRepresentation, Match, Query, Root, find
from thinfilm_gateway.index.levels import InvalidIdentifier, Level

log = structlog.get_logger()

_ALWAYS_ANSWERED = {"RetrieveAETitle": "", "InstanceAvailability": ""}


class QueryService:
    """Serves the C-FIND requests of all associations of a process."""

    def __init__(self, ae_title: str, database: Database) -> None:
        self._ae_title = ae_title
        self._database = database

    def find(self, association: Association, request: Any, context: PresentationContext) -> None:
        """Serve a C-FIND: a pending response for each match, then the final one."""
        answered = 0
        try:
            raw = request.Identifier.getvalue() if request.Identifier else b""
            transfer_syntax_uid = str(context.transfer_syntax[0])
            identifier, level = read_identifier(raw, transfer_syntax_uid, str(context.abstract_syntax))
            query = self._query(identifier, level, str(context.abstract_syntax))
            answers = _Answers(identifier, query, transfer_syntax_uid)
            final = status.SUCCESS
            for match in self._matches(query):
                if request.MessageID in association.dimse.cancel_req:
                    final = status.CANCEL
                    break
                if not association.dul.is_alive():
                    break
                _respond(association, request, context, answers.status, answers.encode(match))
                answered += 1
        except Refused as refusal:
            log.warning("query_refused", peer=association.peer, status=f"{refusal.status:04X}")
            log.debug("query_refused_because", reason=str(refusal))  # may quote a key
            _respond(association, request, context, refusal.status, comment=str(refusal))
            return
        log.info(
            "query_answered", peer=association.peer, query_level=str(level), matches=answered, status=f"{final:04X}"
        )
        _respond(association, request, context, final)

    def _query(self, identifier: Identifier, level: Level, sop_class_uid: str) -> Query:
        keys = {key.keyword: key.value for key in identifier.keys if key.keyword}
        root = Root.PATIENT if sop_class_uid == FIND[0] else Root.STUDY
        return Query(level, root, {**_ALWAYS_ANSWERED, **keys}, retrieve_ae_title=self._ae_title)

    def _matches(self, query: Query) -> Iterator[Match]:
        """Give the matches; the transaction ends with the iteration. Raises Refused."""
        try:
            with self._database.reading() as session:
                yield from find(session, query)
        except InvalidIdentifier as error:
            raise Refused(status.UNABLE_TO_PROCESS, str(error)) from error
        except SQLAlchemyError as error:
            log.warning("index_away", error=str(error))
            raise Refused(status.OUT_OF_RESOURCES, "The index is not available.") from error


class _Answers:
    """Turns matches into identifiers: the keys of the query, the unique keys, and what each answer must have."""

    def __init__(self, identifier: Identifier, query: Query, transfer_syntax_uid: str) -> None:
        unknown = any(not key.keyword for key in identifier.keys)
        unsupported = bool(query.unsupported or query.unmatched) or unknown
        self.status = status.PENDING_OPTIONAL_KEYS_NOT_SUPPORTED if unsupported else status.PENDING
        self._level = identifier.level
        self._requested_set = identifier.character_set
        self._transfer_syntax_uid = transfer_syntax_uid
        self._asks_for_alternates = query.asks_for_alternates
        self._empty = [(key.tag, key.vr) for key in identifier.keys if not _has_values(key.keyword, query)]
        self._tags: dict[str, tuple[int, str]] = {}

    def encode(self, match: Match) -> bytes:
        """Return the identifier of one answer."""
        texts = {self._tag(keyword): _text(value) for keyword, value in match.values.items()}
        character_set = common_character_set(
            (self._requested_set, CharacterSet.of(match.specific_character_set)),
            [text for (_, vr), text in texts.items() if vr in GOVERNED_VRS],
        ).defined
        texts[QUERY_RETRIEVE_LEVEL, "CS"] = self._level
        texts.update(dict.fromkeys(self._empty, ""))
        if character_set.values:
            texts[SPECIFIC_CHARACTER_SET, "CS"] = str(character_set)
        elements = [
            Element(tag, vr, value_of(text, vr, character_set, self._transfer_syntax_uid))
            for (tag, vr), text in texts.items()
        ]
        if match.alternate is not None:
            elements.append(_alternate(match.alternate))
        elif self._asks_for_alternates:
            elements.append(Element(*self._tag(ALTERNATE_REPRESENTATION), value=b""))
        return encode_identifier(elements, self._transfer_syntax_uid)

    def _tag(self, keyword: str) -> tuple[int, str]:
        """Return tag and VR of a keyword that the index answers."""
        found = self._tags.get(keyword)
        if found is None:
            tag = tag_for_keyword(keyword)
            assert tag is not None, f"The index answers {keyword}, which is no attribute."
            found = self._tags[keyword] = (tag, str(dictionary_VR(tag)))
        return found


def _alternate(alternate: AlternateRepresentation) -> Element:
    """Return the sequence that refers to the lossy representation of an image (PS3.4 C.6.1.1.5.1)."""
    purpose = Elements(
        [
            Element(CODE_VALUE, "SH", b"121325"),
            Element(CODING_SCHEME_DESIGNATOR, "SH", b"DCM "),
            Element(CODE_MEANING, "LO", b"Lossy compressed image"),
        ]
    )
    item = Elements(
        [
            Element(REFERENCED_SOP_CLASS_UID, "UI", _uid(alternate.sop_class_uid)),
            Element(REFERENCED_SOP_INSTANCE_UID, "UI", _uid(alternate.sop_instance_uid)),
            Element(SERIES_INSTANCE_UID, "UI", _uid(alternate.series_instance_uid)),
            Element(PURPOSE_OF_REFERENCE_CODE_SEQUENCE, "SQ", [purpose]),
        ]
    )
    return Element(ALTERNATE_REPRESENTATION_SEQUENCE, "SQ", [item])


def _uid(uid: str) -> bytes:
    return uid.encode("ascii") + b"\0" * (len(uid) % 2)


def _has_values(keyword: str, query: Query) -> bool:
    return bool(keyword) and keyword in query.keys and keyword not in query.unsupported


def _text(value: str | int | list[str]) -> str:
    return "\\".join(value) if isinstance(value, list) else str(value)


def _respond(
    association: Association,
    request: Any,
    context: PresentationContext,
    response_status: int,
    identifier: bytes | None = None,
    comment: str = "",
) -> None:
    values = {
        "AffectedSOPClassUID": str(request.AffectedSOPClassUID),
        "MessageIDBeingRespondedTo": request.MessageID,
        "Status": response_status,
    }
    if comment:
        values["ErrorComment"] = status.error_comment(comment)
    dataset = None if identifier is None else memoryview(identifier)
    association.send_message(context.context_id, command_sets.C_FIND_RSP, values, dataset)
