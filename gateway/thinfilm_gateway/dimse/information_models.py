"""The Query/Retrieve information models that are served, and their levels (PS3.4 C.6)."""

from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from thinfilm_gateway.dimse import status
from thinfilm_gateway.dimse.identifiers import Identifier, UnreadableIdentifier, decode_identifier
from thinfilm_gateway.index.levels import Level

PATIENT_ROOT_LEVELS = (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE)
STUDY_ROOT_LEVELS = (Level.STUDY, Level.SERIES, Level.IMAGE)

FIND = (str(PatientRootQueryRetrieveInformationModelFind), str(StudyRootQueryRetrieveInformationModelFind))
GET = (str(PatientRootQueryRetrieveInformationModelGet), str(StudyRootQueryRetrieveInformationModelGet))
MOVE = (str(PatientRootQueryRetrieveInformationModelMove), str(StudyRootQueryRetrieveInformationModelMove))

_LEVELS = {
    **dict.fromkeys((FIND[0], GET[0], MOVE[0]), PATIENT_ROOT_LEVELS),
    **dict.fromkeys((FIND[1], GET[1], MOVE[1]), STUDY_ROOT_LEVELS),
}


class Refused(Exception):
    """A request cannot be served.

    status: of the response; the message is one sentence for its Error Comment.
    """

    def __init__(self, response_status: int, comment: str) -> None:
        super().__init__(comment)
        self.status = response_status


def read_identifier(raw: bytes, transfer_syntax_uid: str, sop_class_uid: str) -> tuple[Identifier, Level]:
    """Decode the identifier of a request and check its level. Raises Refused."""
    try:
        identifier = decode_identifier(raw, transfer_syntax_uid)
    except UnreadableIdentifier as error:
        raise Refused(status.UNABLE_TO_PROCESS, f"Unreadable identifier: {error}") from error
    levels = _LEVELS[sop_class_uid]
    if not identifier.level:
        raise Refused(status.IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS, "Query/Retrieve Level (0008,0052) is missing.")
    if identifier.level not in levels:
        known = ", ".join(levels)
        raise Refused(status.IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS, f"The level must be one of {known}.")
    return identifier, Level(identifier.level)
