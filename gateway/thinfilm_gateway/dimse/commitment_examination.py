"""Says of each instance whether storage commitment is given for it, and if not, why (PS3.3 C.14.1.1)."""

from collections.abc import Callable, Sequence

import structlog

from thinfilm_gateway.archive.objects import IntegrityError
from thinfilm_gateway.archive.presence import NamedCopies, Presence
from thinfilm_gateway.archive.store import StorageAway
from thinfilm_gateway.config import CommitmentDepth
from thinfilm_gateway.dimse import contexts, status
from thinfilm_gateway.dimse.prefetch import Preparer
from thinfilm_gateway.index.commitments import Reference
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.locate import InstanceLocation, locate_revisions
from thinfilm_gateway.index.states import InstanceState

log = structlog.get_logger()

_AT_A_TIME = 500  # references that are looked up in one transaction

Revisions = Sequence[tuple[InstanceLocation, NamedCopies]]


class Examiner:
    """Examines instances, as closely as `depth` says; many threads use one."""

    def __init__(self, depth: CommitmentDepth, database: Database, presence: Presence, preparer: Preparer) -> None:
        """depth: "index" asks the index, "object" looks whether a copy lies there, "checksum" reads and proves one."""
        self._depth = depth
        self._database = database
        self._presence = presence
        self._preparer = preparer

    def examine(self, references: Sequence[Reference], progress: Callable[[], None]) -> list[int | None]:
        """Return the failure reason of each, None where it can be committed; `progress` is called before each.

        All that is kept under the UID counts: whoever asks may have sent any of the revisions. Raises SQLAlchemyError.
        """
        reasons = []
        for start in range(0, len(references), _AT_A_TIME):
            page = references[start : start + _AT_A_TIME]
            with self._database.reading() as session:
                kept = locate_revisions(session, list({reference.sop_instance_uid for reference in page}))
            for reference in page:
                progress()
                revisions = kept.get(reference.sop_instance_uid, ())
                reasons.append(failure_by_index(reference, revisions) or self._failure_of_copies(revisions))
        return reasons

    def _failure_of_copies(self, revisions: Revisions) -> int | None:
        if self._depth == "index":
            return None
        for location, copies in revisions:
            try:
                if reason := self._failure_of_object(location, copies):
                    return reason
            except (OSError, StorageAway) as error:
                log.error("storage_away", sop_instance_uid=location.sop_instance_uid, error=str(error))
                return status.RESOURCE_LIMITATION
        return None

    def _failure_of_object(self, location: InstanceLocation, copies: NamedCopies) -> int | None:
        """Look at an object. What does not lie there as it should has to prove that it is there all the same."""
        lies_there = self._presence.any_lies_there(copies)
        if lies_there and self._depth == "object":
            return None
        try:
            self._preparer.fetch(location).close()
        except IntegrityError:
            return status.PROCESSING_FAILURE if lies_there else status.NO_SUCH_OBJECT_INSTANCE
        return None


def failure_by_index(reference: Reference, revisions: Revisions) -> int | None:
    """Return the failure reason of a reference as far as the index knows; revisions: what is kept under its UID."""
    if not contexts.is_storage(reference.sop_class_uid):
        return status.SOP_CLASS_NOT_SUPPORTED
    if not revisions or not all(copies for _, copies in revisions):
        return status.NO_SUCH_OBJECT_INSTANCE
    if reference.sop_class_uid not in {location.sop_class_uid for location, _ in revisions}:
        return status.CLASS_INSTANCE_CONFLICT
    if any(location.state is InstanceState.QUARANTINED for location, _ in revisions):
        return status.PROCESSING_FAILURE
    return None
