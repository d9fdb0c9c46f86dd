"""Status codes that the gateway sends and understands (PS3.7 Annex C, PS3.4 Tables B.2-1, C.4-1, C.4-2, C.4-3).

Failure reasons of storage commitment (PS3.3 C.14.1.1) are among them.
"""

SUCCESS = 0x0000  # PS3.7 C.1.1
CANCEL = 0xFE00  # PS3.4 Tables C.4-1 to C.4-3: matching or sub-operations ended by a C-CANCEL
PENDING = 0xFF00  # PS3.4 Tables C.4-1 to C.4-3
PENDING_OPTIONAL_KEYS_NOT_SUPPORTED = 0xFF01  # PS3.4 Table C.4-1

PROCESSING_FAILURE = 0x0110  # PS3.7 C.5.12
SOP_CLASS_NOT_SUPPORTED = 0x0122  # PS3.7 C.5.6
NOT_AUTHORIZED = 0x0124  # PS3.7 Annex C: the peer may not use the service

# Storage commitment: N-ACTION (PS3.7 10.1.4), and failure reasons (PS3.3 C.14.1.1), as are 0110 and 0122
NO_SUCH_OBJECT_INSTANCE = 0x0112
INVALID_ARGUMENT_VALUE = 0x0115
CLASS_INSTANCE_CONFLICT = 0x0119
NO_SUCH_ACTION = 0x0123
DUPLICATE_TRANSACTION_UID = 0x0131
RESOURCE_LIMITATION = 0x0213

# C-STORE, PS3.4 Table B.2-1
OUT_OF_RESOURCES = 0xA700
DATA_SET_DOES_NOT_MATCH_SOP_CLASS = 0xA900
CANNOT_UNDERSTAND = 0xC000

# C-FIND, C-GET and C-MOVE, PS3.4 Tables C.4-1, C.4-2, C.4-3
UNABLE_TO_CALCULATE_MATCHES = 0xA701
UNABLE_TO_PERFORM_SUBOPERATIONS = 0xA702
MOVE_DESTINATION_UNKNOWN = 0xA801
IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS = 0xA900
SUBOPERATIONS_COMPLETE_WITH_FAILURES = 0xB000
UNABLE_TO_PROCESS = 0xC000

ERROR_COMMENT_CHARACTERS = 64  # (0000,0902) is a long string, PS3.5 6.2


def error_comment(sentence: str) -> str:
    """Cut a sentence to what Error Comment (0000,0902) can hold: 64 characters of the default repertoire."""
    plain = sentence.encode("ascii", "replace").decode("ascii").replace("\\", "/")
    return plain if len(plain) <= ERROR_COMMENT_CHARACTERS else plain[: ERROR_COMMENT_CHARACTERS - 3] + "..."
