"""Which presentation contexts and roles the gateway accepts (PS3.7 D.3, PS3.8 9.3.2).

Everything that could be an object of a study is taken: every storage class, retired ones too, and every class that the
standard does not know, private ones included, in any transfer syntax. Services beside storage are named one by one.
"""

from collections.abc import Collection, Iterable, Sequence

from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import sop_class
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

_STORAGE = frozenset(_STORAGE_CLASSES.values())
_OTHER_SERVICES = frozenset(
    uid
    for name, classes in vars(sop_class).items()
    if name.endswith("_CLASSES") and name not in ("_STORAGE_CLASSES", "_SERVICE_CLASSES")
    for uid in classes.values()
)


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


def choose(proposed: Iterable[PresentationContext]) -> list[PresentationContext]:
    """Narrow each proposed context to the one transfer syntax that the gateway would accept in it.

    Storage: the sender's first, which is what it likes to send best, but big endian, which is retired, last: DCMTK
    offers it together with Implicit VR. Services: ours in our order. A context that the gateway has no use for keeps
    its first, to be rejected.
    """
    narrowed = []
    for context in proposed:
        offered = sorted(context.transfer_syntax, key=lambda syntax: bool(syntax == ExplicitVRBigEndian))
        wanted: Sequence[str] = offered if is_storage(context.abstract_syntax) else SERVICE_TRANSFER_SYNTAXES
        chosen = next((syntax for syntax in wanted if syntax in offered), offered[0])
        narrowed.append(_context(context.abstract_syntax, [chosen], context.context_id))
    return narrowed


def supported(
    narrowed: Iterable[PresentationContext],
    allowed: Collection[Operation] = OPERATIONS,
    provided: Collection[str] = (),
) -> list[PresentationContext]:
    """Give the contexts to accept out of those that `choose` made, one an abstract syntax.

    allowed: what the requestor may ask for. provided: the SOP classes for which it proposes to be SCP, as C-GET needs
    it for storage (PS3.4 C.5.3).
    """
    syntaxes: dict[str, list[str]] = {}
    for context in narrowed:
        known = syntaxes.setdefault(context.abstract_syntax, [])
        known.extend(syntax for syntax in context.transfer_syntax if syntax not in known)
    accepted = []
    for abstract_syntax, offered in syntaxes.items():
        if is_storage(abstract_syntax):
            context = _context(abstract_syntax, offered)
            context.scu_role, context.scp_role = "store" in allowed, "get" in allowed
            if context.scu_role or (context.scp_role and abstract_syntax in provided):
                accepted.append(context)
        elif SERVICE_CLASSES.get(abstract_syntax) in allowed:
            usable = [syntax for syntax in offered if syntax in SERVICE_TRANSFER_SYNTAXES]
            if usable:
                accepted.append(_context(abstract_syntax, usable))
    return accepted


def _context(
    abstract_syntax: str, transfer_syntaxes: Sequence[str], context_id: int | None = None
) -> PresentationContext:
    context = PresentationContext()
    context.context_id = context_id
    context.abstract_syntax = abstract_syntax
    context.transfer_syntax = list(transfer_syntaxes)
    return context
