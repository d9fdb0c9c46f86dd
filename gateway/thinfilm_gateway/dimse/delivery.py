"""Send prepared objects, over one channel or several at a time, and tell how each one ended."""

import itertools
import queue
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import structlog

from thinfilm_gateway.dimse import status
from thinfilm_gateway.dimse.prefetch import Prepared, ReadAhead, Unsendable
from thinfilm_gateway.dimse.suboperations import ChannelLost, MoveOriginator, StoreChannel, StoreContext, StoreRequest
from thinfilm_gateway.index.locate import InstanceLocation

log = structlog.get_logger()


@dataclass(frozen=True)
class Outcome:
    """How one sub-operation ended: the status of its response, or a failure and the reason in a sentence."""

    instance: InstanceLocation
    store_status: int
    reason: str = ""


class Delivery:
    """Takes objects from a read-ahead and sends each one over the channel that is free; made for one use."""

    def __init__(self, ahead: ReadAhead, priority: int | None, originator: MoveOriginator | None = None) -> None:
        self._ahead = ahead
        self._priority = priority or 0
        self._originator = originator
        self._message_ids = itertools.cycle(range(1, 0x10000))
        self._outcomes: queue.Queue[Outcome | None] = queue.Queue()  # None: a channel ended, or will not come
        self._state = threading.Lock()
        self._channels: list[StoreChannel] = []  # that are sending
        self._connecting = 0
        self._stopped = False

    def send_next(self, channel: StoreChannel) -> Outcome | None:
        """Send one object; None behind the last. Raises ChannelLost."""
        prepared = self._ahead.take()
        return None if prepared is None else self._send(prepared, channel)

    def send_all(
        self, first: StoreChannel, more: int, connect: Callable[[], StoreChannel], patience: float
    ) -> Generator[Outcome | None, None, None]:
        """Send everything, over `first` and up to `more` channels that `connect` opens; give the outcomes as they come.

        The further channels join when the peer accepts them; if it never does, nothing waits for them. A channel that
        is lost fails the object that it was sending; the others go on. All channels are released in the end.
        Gives None whenever there was no outcome for `patience` seconds.
        """
        self._channels = [first]
        self._connecting = more
        self._start(self._work, first)
        for _ in range(more):
            self._start(self._join_in, connect, first.contexts)
        while self._goes_on():
            try:
                outcome = self._outcomes.get(timeout=patience)
            except queue.Empty:
                yield None
                continue
            if outcome is not None:
                yield outcome
        self.stop()
        while not self._outcomes.empty():
            if (outcome := self._outcomes.get()) is not None:
                yield outcome

    def stop(self) -> None:
        """Send nothing more after the objects that are on their way."""
        with self._state:
            self._stopped = True

    def _goes_on(self) -> bool:
        """Tell whether there is a channel, or one may come that still finds something to send."""
        with self._state:
            return bool(self._channels) or (self._connecting > 0 and not self._stopped and not self._ahead.is_empty)

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        threading.Thread(target=work, args=arguments, name="delivery", daemon=True).start()

    def _join_in(self, connect: Callable[[], StoreChannel], contexts: tuple[StoreContext, ...]) -> None:
        """Open a further channel and send over it, unless all is sent by then."""
        try:
            channel = connect()
        except ChannelLost as error:
            log.info("no_further_association", reason=str(error))
            channel = None
        with self._state:
            self._connecting -= 1
            # Objects are made ready for the contexts of the first channel.
            wanted = channel is not None and channel.contexts == contexts and not self._stopped
            if channel is not None and wanted:
                self._channels.append(channel)
        if channel is None:
            self._outcomes.put(None)
        elif wanted:
            self._work(channel)
        else:
            channel.release()
            self._outcomes.put(None)

    def _work(self, channel: StoreChannel) -> None:
        try:
            while not self._stopped and (prepared := self._ahead.take()) is not None:
                try:
                    self._outcomes.put(self._send(prepared, channel))
                except ChannelLost as error:
                    log.warning("destination_lost", reason=str(error))
                    self._outcomes.put(Outcome(prepared.instance, status.PROCESSING_FAILURE, str(error)))
                    return
            channel.release()
        except Exception:
            log.exception("delivery_failed")
            channel.abort()
        finally:
            with self._state:
                self._channels.remove(channel)
            self._outcomes.put(None)

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
