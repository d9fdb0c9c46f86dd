"""C-STORE: takes any object bit for bit and acknowledges it when it is durable (PS3.4 Annex B, PS3.7 9.1.1)."""

import datetime as dt
import errno
from typing import Any

import structlog
from pydicom import Dataset
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext

from thinfilm_gateway.archive.quota import SpoolQuota
from thinfilm_gateway.archive.spool import Spool, SpoolWriter
from thinfilm_gateway.archive.store import StorageAway
from thinfilm_gateway.dicom import part10, values
from thinfilm_gateway.dicom.dataset import UnreadableDataSet, outline
from thinfilm_gateway.dicom.inflating import CannotInflate, Scratch
from thinfilm_gateway.dimse import command_sets, status
from thinfilm_gateway.dimse.association import Association
from thinfilm_gateway.dimse.commit import CannotCommit, Committer
from thinfilm_gateway.index.ingest import Outcome, Received, UnindexableDataSet, required_uids

log = structlog.get_logger()

_MENDS: dict[int | None, str] = {
    errno.EMFILE: "Raise the limit of open files (LimitNOFILE), or lower maximum_associations.",
    errno.ENOSPC: "Make room under data_dir, or give it a larger disk.",
    errno.EDQUOT: "Raise the quota of the user that the gateway runs as.",
    errno.EROFS: "Mount data_dir writable.",
}


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_REJECTED = {
    Outcome.REJECTED: "Other content is kept under this SOP Instance UID already.",
    Outcome.SURPLUS: "Too many contents are kept under this SOP Instance UID.",
}

FULL = "The spool's disk is full."
NO_FILES = "The spool's disk has no room for further files (inodes)."


class Refused(Exception):
    """The object is not stored; nothing of it is kept."""

    def __init__(self, code: int, comment: str) -> None:
        super().__init__(comment)
        self.status = code
        self.comment = comment


class Reception:
    """The data set of one C-STORE request on its way into the spool, or, once refused, into nothing."""

    def __init__(
        self,
        writer: SpoolWriter | None,
        received_at: dt.datetime,
        refusal: Refused | None = None,
        quota: SpoolQuota | None = None,
    ) -> None:
        self.received_at = received_at
        self._writer = writer
        self._refusal = refusal
        self._quota = quota

    @property
    def writer(self) -> SpoolWriter:
        """The object in the spool. Raises Refused if it got lost on the way."""
        if self._refusal is not None:
            raise self._refusal
        assert self._writer is not None, "What was not refused is written."
        return self._writer

    def write(self, data: memoryview) -> None:
        """Take the next bytes."""
        if self._refusal is None and self._writer is not None:
            try:
                _check_quota(self._quota)
                self._writer.write(data)
            except Refused as refusal:
                self._refuse(refusal)
            except OSError as error:
                self._refuse(_spool_refused(error))

    def discard(self) -> None:
        """Leave nothing on the disk."""
        if self._writer is not None:
            self._writer.discard()

    def _refuse(self, refusal: Refused) -> None:
        """Let the rest of the data set go into nothing."""
        self.discard()
        self._refusal = refusal


class StorageService:
    """The Storage service as SCP, level 2 (full), over one spool and one index."""

    def __init__(
        self, spool: Spool, committer: Committer, minimum_free_bytes: int, quota: SpoolQuota | None = None
    ) -> None:
        self._spool = spool
        self._committer = committer
        self._minimum_free_bytes = minimum_free_bytes
        self._quota = quota

    def open(self, association: Association, request: C_STORE, context: PresentationContext) -> Reception:
        """Decide, before its data set is read, whether there is room for the object."""
        received_at = dt.datetime.now(dt.UTC)
        try:
            self._check_resources()
            writer = self._begin(association, request, context, received_at)
            return Reception(writer, received_at, quota=self._quota)
        except Refused as refusal:
            return Reception(None, received_at, refusal)

    def serve(self, association: Association, request: C_STORE, context: PresentationContext) -> None:
        """Examine and commit the object, and answer."""
        refusal = self._store(association, request, context)
        response = command_sets.store_response(request, status.SUCCESS if refusal is None else refusal.status)
        if refusal is not None:
            response["ErrorComment"] = status.error_comment(refusal.comment)
            log.warning(
                "store_refused",
                peer=association.peer,
                sop_instance_uid=str(request.AffectedSOPInstanceUID),
                status=f"{refusal.status:04X}",
                comment=refusal.comment,
            )
        association.send_message(context.context_id, command_sets.C_STORE_RSP, response)

    def _store(self, association: Association, request: C_STORE, context: PresentationContext) -> Refused | None:
        """Examine and commit the object; None if it is stored."""
        reception: Reception | None = request.sink
        if reception is None:
            return Refused(status.CANNOT_UNDERSTAND, "The request came without a data set.")
        try:
            received = self._examine(reception, association, request, context.transfer_syntax[0])
            outcome = self._committer.commit(reception.writer, received)
        except Refused as refusal:
            return refusal
        except CannotCommit as error:
            return Refused(status.OUT_OF_RESOURCES, str(error))
        except Exception:
            log.exception("store_failed", peer=association.peer, sop_instance_uid=str(request.AffectedSOPInstanceUID))
            return Refused(status.PROCESSING_FAILURE, "The gateway failed; see its log.")
        if outcome in _REJECTED:
            return Refused(status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS, _REJECTED[outcome])
        log.debug("stored", peer=association.peer, sop_instance_uid=received.sop_instance_uid, outcome=outcome.name)
        return None

    def _examine(
        self, reception: Reception, association: Association, request: C_STORE, transfer_syntax_uid: str
    ) -> Received:
        """Describe the object for the index. Raises Refused; nothing of the object is left then."""
        try:
            return _describe(reception, association, request, transfer_syntax_uid, self._minimum_free_bytes)
        except BaseException:
            reception.discard()
            raise

    def _begin(
        self, association: Association, request: C_STORE, context: PresentationContext, received_at: dt.datetime
    ) -> SpoolWriter:
        header = part10.build(
            request.AffectedSOPClassUID,
            request.AffectedSOPInstanceUID,
            context.transfer_syntax[0],
            association.requestor.ae_title,
            association.requestor.address_info.address,
            received_at,
        )
        try:
            writer = self._spool.create()
        except StorageAway as error:
            raise Refused(status.OUT_OF_RESOURCES, "The spool, or the index that knows it, is away.") from error
        except OSError as error:
            raise _spool_refused(error) from error
        writer.write(header)
        writer.begin_dataset()
        return writer

    def _check_resources(self) -> None:
        if not self._committer.available:
            raise Refused(status.OUT_OF_RESOURCES, "The index is not available.")
        try:
            space = self._spool.space()
        except OSError as error:
            raise Refused(status.OUT_OF_RESOURCES, "The spool cannot be reached.") from error
        if space.free_bytes < self._minimum_free_bytes:
            raise Refused(status.OUT_OF_RESOURCES, FULL)
        if space.has_no_files:
            raise Refused(status.OUT_OF_RESOURCES, NO_FILES)
        _check_quota(self._quota)


def _check_quota(quota: SpoolQuota | None) -> None:
    if quota is not None and quota.is_reached:
        raise Refused(status.OUT_OF_RESOURCES, "The spool has reached its quota.")


def _spool_refused(error: OSError, comment: str = "") -> Refused:
    comment = comment or (FULL if error.errno in _FULL else "The spool cannot be written.")
    log.error("spool_refused", error=str(error), mend=_MENDS.get(error.errno, "Look at the disk of data_dir."))
    return Refused(status.OUT_OF_RESOURCES, comment)


def _describe(
    reception: Reception, association: Association, request: Any, transfer_syntax_uid: str, minimum_free_bytes: int
) -> Received:
    """Read as much of the data set as the index wants. Raises Refused."""
    writer = reception.writer
    try:
        with writer.mapped_dataset() as dataset:
            attributes = outline(dataset, transfer_syntax_uid, Scratch(writer.folder, minimum_free_bytes)).attributes
    except UnreadableDataSet as error:
        raise Refused(status.CANNOT_UNDERSTAND, str(error)) from error
    except CannotInflate as error:
        raise _spool_refused(error, "The data set cannot be inflated on the disk of the spool.") from error
    except OSError as error:  # what was still held in memory did not fit on the disk
        raise _spool_refused(error) from error
    _check_uids(attributes, request)
    return Received(
        attributes=attributes,
        sop_instance_uid=str(request.AffectedSOPInstanceUID),
        sop_class_uid=str(request.AffectedSOPClassUID),
        transfer_syntax_uid=str(transfer_syntax_uid),
        sha256=writer.sha256,
        dataset_bytes=writer.dataset_bytes,
        dataset_offset=writer.dataset_offset,
        spool_name="",
        sender_ae_title=association.requestor.ae_title,
        sender_address=association.requestor.address_info.address,
        received_at=reception.received_at,
    )


def _check_uids(attributes: Dataset, request: Any) -> None:
    """Refuse a data set that is another object than the command says, or that belongs nowhere."""
    for keyword, expected in (
        ("SOPInstanceUID", request.AffectedSOPInstanceUID),
        ("SOPClassUID", request.AffectedSOPClassUID),
    ):
        found = values.text(attributes, keyword)
        if found and found != expected:
            raise Refused(
                status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS, f"{keyword} of the data set differs from the command's."
            )
    try:
        required_uids(attributes)
    except UnindexableDataSet as error:
        raise Refused(status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS, str(error)) from error
