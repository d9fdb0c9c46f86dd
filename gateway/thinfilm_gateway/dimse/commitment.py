"""Storage Commitment, Push Model, as SCP: takes requests, which are N-ACTIONs (PS3.4 Annex J, PS3.7 10.1.4)."""

from typing import Any

import structlog
from pynetdicom.dimse_primitives import N_ACTION
from pynetdicom.presentation import PresentationContext
from sqlalchemy.exc import SQLAlchemyError

from thinfilm_gateway.archive.objects import ObjectReader
from thinfilm_gateway.archive.presence import Presence
from thinfilm_gateway.archive.spool import Spool
from thinfilm_gateway.archive.store import ObjectStore
from thinfilm_gateway.config import Settings
from thinfilm_gateway.dicom.inflating import Scratch
from thinfilm_gateway.dimse import status
from thinfilm_gateway.dimse.association import Association
from thinfilm_gateway.dimse.commitment_examination import Examiner
from thinfilm_gateway.dimse.commitment_messages import (
    COMMITMENT_INSTANCE,
    REQUEST_STORAGE_COMMITMENT,
    InvalidRequest,
    read_request,
)
from thinfilm_gateway.dimse.commitment_reports import Reporter
from thinfilm_gateway.dimse.information_models import Refused
from thinfilm_gateway.dimse.peers import Peers
from thinfilm_gateway.dimse.prefetch import Preparer
from thinfilm_gateway.index import commitments
from thinfilm_gateway.index.commitments import HeldCommitment
from thinfilm_gateway.index.database import Database

log = structlog.get_logger()


class CommitmentService:
    """Serves the requests of all associations of a process.

    A request is a row of the index before it is answered. What it names is examined, and the outcome reported, by the
    threads of the Reporter: on the same association if that is open still.
    """

    def __init__(
        self,
        settings: Settings,
        peers: Peers,
        ae: Any,
        database: Database,
        spool: Spool,
        store: ObjectStore,
        objects: ObjectReader,
    ) -> None:
        """ae: pynetdicom's application entity, for the associations on which reports go out."""
        preparer = Preparer(database, objects, Scratch(settings.spool_dir, settings.minimum_free_bytes))
        examiner = Examiner(settings.commitment_depth, database, Presence(spool, store), preparer)
        self._database = database
        self._reporter = Reporter(settings, peers, ae, database, examiner)

    def start(self) -> None:
        """Begin to report, also what an earlier process did not get to."""
        self._reporter.start()

    def stop(self) -> None:
        """Stop reporting; what is left is reported by another process, or after the next start."""
        self._reporter.stop()

    def serve(self, association: Association, request: Any, context: PresentationContext) -> None:
        """Take a request and answer it; the report follows later."""
        if not isinstance(request, N_ACTION):
            log.warning("unexpected_message", peer=association.peer, message=request.msg_type)
            association.abort()
            return
        response = N_ACTION()
        response.MessageIDBeingRespondedTo = request.MessageID
        response.AffectedSOPClassUID = request.RequestedSOPClassUID
        response.AffectedSOPInstanceUID = request.RequestedSOPInstanceUID
        response.ActionTypeID = request.ActionTypeID
        held = None
        try:
            held = self._enter(association, request, context)
            response.Status = status.SUCCESS
        except Refused as refusal:
            log.warning("commitment_refused", peer=association.peer, reason=str(refusal))
            response.Status = refusal.status
            response.ErrorComment = status.error_comment(str(refusal))
        association.dimse.send_msg(response, context.context_id)
        if held is not None:
            self._reporter.report(held, association, context)

    def _enter(self, association: Association, request: Any, context: PresentationContext) -> HeldCommitment:
        """Read the request and enter it into the index. Raises Refused."""
        if request.RequestedSOPInstanceUID != COMMITMENT_INSTANCE:
            raise Refused(status.NO_SUCH_OBJECT_INSTANCE, f"The instance must be {COMMITMENT_INSTANCE}.")
        if request.ActionTypeID != REQUEST_STORAGE_COMMITMENT:
            raise Refused(status.NO_SUCH_ACTION, f"The Action Type must be {REQUEST_STORAGE_COMMITMENT}.")
        raw = request.ActionInformation.getvalue() if request.ActionInformation else b""
        try:
            transaction_uid, references = read_request(raw, str(context.transfer_syntax[0]))
        except InvalidRequest as error:
            raise Refused(status.INVALID_ARGUMENT_VALUE, str(error)) from error
        ae_title = str(association.requestor.ae_title).strip()
        try:
            held = commitments.request(self._database, transaction_uid, ae_title, references, self._reporter.hold)
        except commitments.TooMuchWaits as error:
            raise Refused(status.RESOURCE_LIMITATION, str(error)) from error
        except SQLAlchemyError as error:
            log.warning("index_away", error=type(error).__name__)
            raise Refused(status.RESOURCE_LIMITATION, "The index is not available.") from error
        log.info(
            "commitment_requested", peer=association.peer, transaction_uid=transaction_uid, instances=len(references)
        )
        return held
