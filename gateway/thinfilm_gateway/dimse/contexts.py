"""Which presentation contexts and roles the gateway accepts (PS3.7 D.3, PS3.8 9.3.2).

Everything that could be an object of a study is taken: every storage class, retired ones too, and every class that the
standard does not know, private ones included, in any transfer syntax. Services beside storage are named one by one.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MPEGTransferSyntaxes,
    VideoEndoscopicImageStorage,
    VideoMicroscopicImageStorage,
    VideoPhotographicImageStorage,
)
from pynetdicom import sop_class
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import _STORAGE_CLASSES

from thinfilm_gateway.config import OPERATIONS, Operation
from thinfilm_gateway.dimse.information_models import FIND, GET, MOVE

# What is exchanged beside objects (identifiers; Verification has no data set), best first.
SERVICE_TRANSFER_SYNTAXES: tuple[str, ...] = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"  # of DICOM (PS3.7 A.2.1)
VERIFICATION = "1.2.840.10008.1.1"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"  # Push Model (PS3.4 Annex J)

# Classes beside storage for which there is a service, and the operation for which a peer needs permission.
SERVICE_CLASSES: dict[str, Operation] = {
    VERIFICATION: "echo",
    STORAGE_COMMITMENT: "commit",
    **dict.fromkeys(FIND, "find"),
    **dict.fromkeys(GET, "get"),
    **dict.fromkeys(MOVE, "move"),
}

# Results of a presentation context (PS3.8 Table 9-18)
ACCEPTED, USER_REJECTION, ABSTRACT_SYNTAX_NOT_SUPPORTED, TRANSFER_SYNTAXES_NOT_SUPPORTED = 0, 1, 3, 4

_VIDEO_CLASSES = frozenset(  # PS3.3 A.32.5 to A.32.7
    (VideoEndoscopicImageStorage, VideoMicroscopicImageStorage, VideoPhotographicImageStorage)
)
_VIDEO_SYNTAXES = frozenset(MPEGTransferSyntaxes)  # HEVC among them
_STORAGE = frozenset(_STORAGE_CLASSES.values())
_OTHER_SERVICES = frozenset(
    uid
    for name, classes in vars(sop_class).items()
    if name.endswith("_CLASSES") and name not in ("_STORAGE_CLASSES", "_SERVICE_CLASSES")
    for uid in classes.values()
)


@dataclass(frozen=True)
class Proposed:
    """A presentation context that a requestor proposes; abstract_syntax is empty where it names none that is a UID."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True)
class Roles:
    """What a requestor wants to be for a SOP class, or may be (PS3.7 D.3.3.4)."""

    scu: bool
    scp: bool


_SCU = Roles(scu=True, scp=False)  # what a requestor is that says nothing


def is_storage(abstract_syntax: str) -> bool:
    """Whether objects of the class are taken.

    Left out are the storage classes of objects that belong to no study (hanging protocols, colour palettes ...).
    """
    if abstract_syntax in _STORAGE:
        return True
    if abstract_syntax in _OTHER_SERVICES:
        return False
    uid = UID(abstract_syntax)
    known_to_the_standard = uid.name != abstract_syntax
    return not known_to_the_standard or (uid.type == "SOP Class" and "Storage" in uid.name)


def negotiate(
    proposed: Sequence[Proposed], roles: Mapping[str, Roles] | None = None, allowed: Collection[Operation] = OPERATIONS
) -> list[PresentationContext]:
    """Answer each proposed context: accepted in one transfer syntax, or rejected (PS3.8 9.3.3.2).

    roles: what the requestor wants to be, by SOP class; without, it is SCU. allowed: what it may ask for.
    Services are accepted in our first syntax. Storage, if the requestor may store, in the sender's first, which is what
    it likes to send best, but big endian, which is retired, last: DCMTK offers it together with Implicit VR. Storage to
    a requestor that is SCP, as C-GET needs it (PS3.4 C.5.3), as `syntaxes_to_send` says.
    """
    roles = roles or {}
    offers: dict[str, dict[int, Sequence[str]]] = {}
    for context in proposed:
        if "get" in allowed and context.transfer_syntaxes and roles.get(context.abstract_syntax, _SCU).scp:
            offers.setdefault(context.abstract_syntax, {})[context.context_id] = _preferred(context)
    to_send: dict[int, str] = {}
    for storage_class, offer in offers.items():
        to_send |= syntaxes_to_send(offer, is_video=storage_class in _VIDEO_CLASSES)
    return [_answer(context, roles.get(context.abstract_syntax, _SCU), allowed, to_send) for context in proposed]


def role_replies(
    answered: Iterable[PresentationContext], roles: Mapping[str, Roles]
) -> list[SCP_SCU_RoleSelectionNegotiation]:
    """Answer the role selection of the storage classes of accepted contexts (PS3.7 D.3.3.4)."""
    replies = {}
    for context in answered:
        uid = str(context.abstract_syntax)
        if context.result == ACCEPTED and uid in roles and is_storage(uid):
            reply = SCP_SCU_RoleSelectionNegotiation()
            reply.sop_class_uid, reply.scu_role, reply.scp_role = uid, context.as_scp, context.as_scu
            replies[uid] = reply
    return list(replies.values())


def syntaxes_to_send(offers: Mapping[int, Sequence[str]], *, is_video: bool = False) -> dict[int, str]:
    """Choose the syntax of each context of one storage class in which the requestor takes objects.

    offers: transfer syntaxes by context id. Which objects it will ask for is not known yet, and they may have come in
    any syntax. So one context is native if any can be, Explicit rather than Implicit VR, which loses private VRs: what
    can be decoded can be sent in it. The others then take what no context takes yet. Objects of video classes come in
    the syntaxes of video, which nobody decodes here.
    """
    if is_video:
        offers = {context_id: _videos(offered) or offered for context_id, offered in offers.items()}
    chosen = {context_id: offered[0] for context_id, offered in offers.items() if len(offered) == 1}
    for native in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        if native in chosen.values():
            break
        fitting = [context_id for context_id, offered in offers.items() if native in offered]
        if fitting:
            chosen[fitting[0]] = native
            break
    for context_id, offered in offers.items():
        if context_id not in chosen:
            chosen[context_id] = next((one for one in offered if one not in chosen.values()), offered[0])
    return chosen


def _videos(offered: Sequence[str]) -> list[str]:
    return [syntax for syntax in offered if syntax in _VIDEO_SYNTAXES]


def presentation_context(
    context_id: int, abstract_syntax: str, transfer_syntaxes: Iterable[str], result: int
) -> PresentationContext:
    """Return a context with its result, as pynetdicom has it; any byte can be its id, even an even one."""
    context = PresentationContext()
    context._context_id = context_id  # the setter wants an odd one, as the standard does, but others serve any
    context.abstract_syntax = abstract_syntax
    context.transfer_syntax = list(transfer_syntaxes)
    context.result = result
    return context


def _answer(
    context: Proposed, role: Roles, allowed: Collection[Operation], to_send: Mapping[int, str]
) -> PresentationContext:
    uid = context.abstract_syntax
    as_scu = as_scp = False
    syntax: str | None = None
    if uid in SERVICE_CLASSES:
        as_scp = SERVICE_CLASSES[uid] in allowed
        syntax = next((one for one in SERVICE_TRANSFER_SYNTAXES if one in context.transfer_syntaxes), None)
    elif uid and is_storage(uid):
        as_scp = role.scu and "store" in allowed
        as_scu = role.scp and "get" in allowed
        syntax = to_send.get(context.context_id) or next(iter(_preferred(context)), None)
    else:
        return _rejection(context, ABSTRACT_SYNTAX_NOT_SUPPORTED)
    if not as_scu and not as_scp:
        return _rejection(context, USER_REJECTION)
    if syntax is None:
        return _rejection(context, TRANSFER_SYNTAXES_NOT_SUPPORTED)
    accepted = presentation_context(context.context_id, uid, [syntax], ACCEPTED)
    accepted._as_scu, accepted._as_scp = as_scu, as_scp
    return accepted


def _rejection(context: Proposed, result: int) -> PresentationContext:
    """Reject a context; the transfer syntax in the answer means nothing then (PS3.8 Table 9-18)."""
    syntaxes = context.transfer_syntaxes[:1] or (ImplicitVRLittleEndian,)
    return presentation_context(context.context_id, context.abstract_syntax, syntaxes, result)


def _preferred(context: Proposed) -> list[str]:
    return sorted(context.transfer_syntaxes, key=lambda syntax: syntax == ExplicitVRBigEndian)
