"""Send prepared objects, over one channel or several at a time, and tell how each one ended."""

import itertools
import queue
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import structlog

from thinfilm_gateway.dimse import status
from thinfilm_gateway.dimse.prefetch import Prepared, ReadAhead, Unsendable
from thinfilm_gateway.dimse.suboperations import ChannelLost, MoveOriginator, StoreChannel, StoreRequest
from thinfilm_gateway.index.locate import InstanceLocation

log = structlog.get_logger()


@dataclass(frozen=True)
class Outcome:
    """How one sub-operation ended: the status of its response, or a failure and the reason in a sentence."""

    instance: InstanceLocation
    store_status: int
    reason: str = ""


class Delivery:
    """Takes objects from a read-ahead and sends each one over the channel that is free."""

    def __init__(self, ahead: ReadAhead, priority: int | None, originator: MoveOriginator | None = None) -> None:
        self._ahead = ahead
        self._priority = priority or 0
        self._originator = originator
        self._stop = threading.Event()
        self._message_ids = itertools.cycle(range(1, 0x10000))

    def send_next(self, channel: StoreChannel) -> Outcome | None:
        """Send one object; None behind the last. Raises ChannelLost."""
        prepared = self._ahead.take()
        return None if prepared is None else self._send(prepared, channel)

    def send_all(self, channels: Sequence[StoreChannel], patience: float) -> Generator[Outcome | None, None, None]:
        """Send everything over all channels, a thread each, and release them; give the outcomes as they come.

        Gives None whenever there was no outcome for `patience` seconds. A channel that is lost fails the object that it
        was sending; the others go on. Closed early, it breaks off what is on its way.
        """
        outcomes: queue.Queue[Outcome | None] = queue.Queue()
        threads = [
            threading.Thread(target=self._work, args=(channel, outcomes), name="delivery", daemon=True)
            for channel in channels
        ]
        for thread in threads:
            thread.start()
        running = len(threads)
        try:
            while running:
                try:
                    outcome = outcomes.get(timeout=patience)
                except queue.Empty:
                    yield None
                    continue
                if outcome is None:
                    running -= 1
                else:
                    yield outcome
        finally:
            self.stop()
            if running:
                for channel in channels:
                    channel.abort()
            for thread in threads:
                thread.join()

    def stop(self) -> None:
        """Send nothing more after the objects that are on their way."""
        self._stop.set()

    def _work(self, channel: StoreChannel, outcomes: "queue.Queue[Outcome | None]") -> None:
        try:
            while not self._stop.is_set() and (prepared := self._ahead.take()) is not None:
                try:
                    outcomes.put(self._send(prepared, channel))
                except ChannelLost as error:
                    log.warning("destination_lost", reason=str(error))
                    outcomes.put(Outcome(prepared.instance, status.PROCESSING_FAILURE, str(error)))
                    return
            channel.release()
        except Exception:
            log.exception("delivery_failed")
            channel.abort()
        finally:
            outcomes.put(None)

    def _send(self, prepared: Prepared, channel: StoreChannel) -> Outcome:
        if isinstance(prepared, Unsendable):
            return Outcome(prepared.instance, status.PROCESSING_FAILURE, prepared.reason)
        request = StoreRequest(
            context_id=prepared.context_id,
            message_id=next(self._message_ids),
            priority=self._priority,
            sop_class_uid=prepared.instance.sop_class_uid,
            sop_instance_uid=prepared.instance.sop_instance_uid,
            dataset=prepared.dataset,
            originator=self._originator,
        )
        try:
            return Outcome(prepared.instance, channel.store(request))
        finally:
            prepared.close()
