"""C-GET and C-MOVE, Patient Root and Study Root (PS3.4 C.4.2, C.4.3)."""

import math
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import structlog
from pynetdicom.dimse_primitives import C_GET
from pynetdicom.presentation import PresentationContext
from sqlalchemy.exc import SQLAlchemyError

from thinfilm_gateway.archive.objects import ObjectReader
from thinfilm_gateway.config import Peer, Settings
from thinfilm_gateway.dicom.element_tree import Element
from thinfilm_gateway.dicom.inflating import Scratch
from thinfilm_gateway.dicom.tags import FAILED_SOP_INSTANCE_UID_LIST
from thinfilm_gateway.dimse import command_sets, status
from thinfilm_gateway.dimse.association import Association
from thinfilm_gateway.dimse.delivery import Delivery
from thinfilm_gateway.dimse.destinations import batches, connect
from thinfilm_gateway.dimse.identifiers import encode_identifier
from thinfilm_gateway.dimse.information_models import Refused, read_identifier
from thinfilm_gateway.dimse.peers import Peers
from thinfilm_gateway.dimse.prefetch import Preparer, ReadAhead
from thinfilm_gateway.dimse.suboperations import (
    MAXIMUM_SUBOPERATIONS,
    ChannelLost,
    MoveOriginator,
    StoreChannel,
    Tally,
)
from thinfilm_gateway.index import cache
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.levels import UNIQUE_KEYS, InvalidIdentifier
from thinfilm_gateway.index.locate import InstanceLocation, locate

log = structlog.get_logger()

_PENDING_SECONDS = 1.0  # between the pending responses of a C-MOVE
_TOUCHED_AT_A_TIME = 5000
_PATIENCE_SECONDS = 0.2  # between looks at whether the requestor cancelled or went away


class RetrieveService:
    """Serves the C-GET and C-MOVE requests of all associations of a process."""

    def __init__(self, settings: Settings, peers: Peers, database: Database, objects: ObjectReader) -> None:
        self._settings = settings
        self._peers = peers
        self._database = database
        self._preparer = Preparer(database, objects, Scratch(settings.spool_dir, settings.minimum_free_bytes))
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="read-ahead")

    def close(self) -> None:
        """Stop the threads that prepare objects; no request is served any more."""
        self._pool.shutdown(cancel_futures=True)

    def get(self, association: Association, request: Any, context: PresentationContext) -> None:
        """Serve a C-GET: objects go back over the association that asked for them."""
        retrieval = _Retrieval(association, request, context)
        try:
            instances = self._locate(request, context)
        except Refused as refusal:
            retrieval.refuse(refusal)
            return
        retrieval.begin(len(instances))
        channel = StoreChannel(association)
        with self._ahead(instances, channel) as ahead:
            delivery = Delivery(ahead, request.Priority)
            try:
                while not retrieval.cancelled and (outcome := delivery.send_next(channel)) is not None:
                    retrieval.record(outcome.instance, outcome.store_status, outcome.reason)
                    retrieval.report_progress()
            except ChannelLost as error:
                log.warning("retrieval_broken_off", peer=association.peer, reason=str(error))
                return
        retrieval.end()
        self._touch(instances)

    def move(self, association: Association, request: Any, context: PresentationContext) -> None:
        """Serve a C-MOVE: objects go to a destination of the settings."""
        retrieval = _Retrieval(association, request, context, seconds_between_reports=_PENDING_SECONDS)
        try:
            destination = self._destination(str(request.MoveDestination or "").strip())
            instances = self._locate(request, context)
        except Refused as refusal:
            retrieval.refuse(refusal)
            return
        retrieval.begin(len(instances))
        originator = MoveOriginator(str(association.requestor.ae_title), request.MessageID)
        for batch in batches(instances):
            if not retrieval.stopped:
                self._move_batch(retrieval, destination, batch, originator)
        retrieval.end()
        self._touch(instances)

    def _move_batch(
        self, retrieval: "_Retrieval", destination: Peer, batch: list[InstanceLocation], originator: MoveOriginator
    ) -> None:
        """Send objects that share their presentation contexts, over as many associations as the settings say."""
        open_channel = partial(connect, self._peers, retrieval.association.ae, destination, batch)
        try:
            channel = open_channel()
        except ChannelLost as error:
            log.warning("destination_lost", destination=destination.ae_title, reason=str(error))
            for instance in batch:
                retrieval.record(instance, status.PROCESSING_FAILURE, str(error))
            return
        with self._ahead(batch, channel) as ahead:
            delivery = Delivery(ahead, retrieval.request.Priority, originator)
            more = min(self._settings.move_associations, len(batch)) - 1
            for outcome in delivery.send_all(channel, more, open_channel, _PATIENCE_SECONDS):
                if outcome is not None:
                    retrieval.record(outcome.instance, outcome.store_status, outcome.reason)
                retrieval.report_progress()
                if retrieval.stopped:
                    delivery.stop()
            if not retrieval.stopped:
                for instance in ahead.left():
                    retrieval.record(instance, status.PROCESSING_FAILURE, "The destination took no more objects.")

    def _locate(self, request: Any, context: PresentationContext) -> list[InstanceLocation]:
        """Return the instances that are asked for. Raises Refused."""
        raw = request.Identifier.getvalue() if request.Identifier else b""
        identifier, level = read_identifier(raw, str(context.transfer_syntax[0]), str(context.abstract_syntax))
        keys = {keyword: identifier.value(keyword) for keyword in UNIQUE_KEYS.values()}
        for keyword, value in keys.items():
            if keyword != "PatientID" and set(value) & set("*?"):
                comment = f"{keyword} takes no wild cards in a retrieve request."
                raise Refused(status.IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS, comment)
        keys["IssuerOfPatientID"] = identifier.value("IssuerOfPatientID")
        try:
            with self._database.reading() as session:
                instances = locate(session, level, keys, limit=MAXIMUM_SUBOPERATIONS + 1)
        except InvalidIdentifier as error:
            raise Refused(status.IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS, str(error)) from error
        except SQLAlchemyError as error:
            log.warning("index_away", error=str(error))
            raise Refused(status.UNABLE_TO_CALCULATE_MATCHES, "The index is not available.") from error
        if len(instances) > MAXIMUM_SUBOPERATIONS:
            # A701, not A702: the response to that one has counts, and these are US (PS3.4 Table C.4-2).
            comment = f"More than {MAXIMUM_SUBOPERATIONS} objects match."
            raise Refused(status.UNABLE_TO_CALCULATE_MATCHES, comment)
        return instances

    def _destination(self, ae_title: str) -> Peer:
        destination = self._peers.destination(ae_title)
        if destination is None:
            raise Refused(status.MOVE_DESTINATION_UNKNOWN, f"Unknown move destination {ae_title}.")
        return destination

    def _ahead(self, instances: Sequence[InstanceLocation], channel: StoreChannel) -> ReadAhead:
        preparer = self._preparer
        return ReadAhead(
            self._pool, instances, preparer.start, lambda instance: preparer.prepare(instance, channel.contexts)
        )

    def _touch(self, instances: Sequence[InstanceLocation]) -> None:
        """Tell the cache of spool copies what was read."""
        cached = [one.instance_pk for one in instances if one.location.spool_name and one.location.container_key]
        if not cached:
            return
        try:
            for start in range(0, len(cached), _TOUCHED_AT_A_TIME):
                with self._database.session() as session:
                    cache.touch(session, cached[start : start + _TOUCHED_AT_A_TIME])
        except SQLAlchemyError as error:  # the objects are delivered; the cache only knows a little less
            log.warning("cache_not_touched", error=str(error))


class _Retrieval:
    """One C-GET or C-MOVE: its account, and its responses (PS3.7 9.1.3, 9.1.4)."""

    def __init__(
        self, association: Association, request: Any, context: PresentationContext, seconds_between_reports: float = 0.0
    ) -> None:
        self.association = association
        self.request = request
        self._context = context
        self._tally = Tally(0)
        self._seconds = seconds_between_reports
        self._reported_at = -math.inf

    @property
    def cancelled(self) -> bool:
        """Whether a C-CANCEL came."""
        return self.request.MessageID in self.association.dimse.cancel_req

    @property
    def stopped(self) -> bool:
        """Whether nothing more is to be sent: the requestor cancelled, or its association has ended."""
        return self.cancelled or not self.association.dul.is_alive()

    def begin(self, suboperations: int) -> None:
        """Say how many objects there are."""
        self._tally = Tally(suboperations)
        log.info("retrieval_begins", peer=self.association.peer, operation=self.request.msg_type, objects=suboperations)

    def record(self, instance: InstanceLocation, store_status: int, reason: str = "") -> None:
        """Count one sub-operation; reason: why there was no response to it."""
        self._tally.record(instance.sop_instance_uid, store_status, reason)
        if store_status != status.SUCCESS:
            log.warning(
                "suboperation_not_successful",
                sop_instance_uid=instance.sop_instance_uid,
                status=f"{store_status:04X}",
                reason=reason,
            )

    def report_progress(self) -> None:
        """Send a pending response, if the last one is long enough ago and something remains."""
        now = time.monotonic()
        if self._tally.remaining and now - self._reported_at >= self._seconds:
            self._reported_at = now
            self._send(status.PENDING, remaining=True)

    def refuse(self, refusal: Refused) -> None:
        """Send the one response of a request that is not served."""
        log.warning(
            "retrieval_refused", peer=self.association.peer, status=f"{refusal.status:04X}", reason=str(refusal)
        )
        self._respond({"Status": refusal.status, "ErrorComment": status.error_comment(str(refusal))})

    def end(self) -> None:
        """Send the last response."""
        tally = self._tally
        final = status.CANCEL if self.cancelled and tally.remaining else tally.final_status
        log.info(
            "retrieval_ends",
            peer=self.association.peer,
            status=f"{final:04X}",
            completed=tally.completed,
            failed=tally.failed,
            warning=tally.warning,
        )
        self._send(final, remaining=final == status.CANCEL)

    def _send(self, response_status: int, *, remaining: bool) -> None:
        tally = self._tally
        values: dict[str, str | int] = {
            "Status": response_status,
            "NumberOfCompletedSuboperations": tally.completed,
            "NumberOfFailedSuboperations": tally.failed,
            "NumberOfWarningSuboperations": tally.warning,
        }
        if remaining:
            values["NumberOfRemainingSuboperations"] = tally.remaining
        if response_status in (status.PENDING, status.SUCCESS):
            self._respond(values)
            return
        if tally.failure:
            values["ErrorComment"] = status.error_comment(tally.failure)
        uids = "\\".join(tally.failed_sop_instance_uids).encode("ascii")
        failed = Element(FAILED_SOP_INSTANCE_UID_LIST, "UI", uids + b"\0" * (len(uids) % 2))
        self._respond(values, encode_identifier([failed], str(self._context.transfer_syntax[0])))

    def _respond(self, values: Mapping[str, str | int], identifier: bytes | None = None) -> None:
        field = command_sets.C_GET_RSP if isinstance(self.request, C_GET) else command_sets.C_MOVE_RSP
        about = {
            "AffectedSOPClassUID": str(self.request.AffectedSOPClassUID),
            "MessageIDBeingRespondedTo": self.request.MessageID,
        }
        dataset = None if identifier is None else memoryview(identifier)
        self.association.send_message(self._context.context_id, field, {**about, **values}, dataset)
