"""The load: senders that store small series over several associations, each object until it is acknowledged."""

import contextlib
import random
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from thinfilm_gateway.client.files import DicomFile, read
from thinfilm_gateway.client.network import Node, PeerRefused, Sent, store
from thinfilm_gateway.client.phantom import write_ct
from thinfilm_gateway.dimse import status

ASSOCIATIONS = 4
SLICES = 6
THINNED = 8  # of 512 x 512: images of 64 x 64, 8 KiB
LONGEST_PAUSE_SECONDS = 4.0  # between two series of a sender
RETRY_SECONDS = 0.5  # before what was not acknowledged is sent again


class Senders:
    """Store one series after the other for as long as the context lasts.

    acknowledged: what was answered with 0x0000, by SOP Instance UID. refused: how often there was which other status.
    """

    def __init__(self, node: Callable[[], Node], folder: Path, seed: int, associations: int = ASSOCIATIONS) -> None:
        """Send to what `node` returns at the time, files that are written below `folder`."""
        self.acknowledged: dict[str, DicomFile] = {}
        self.refused: Counter[int] = Counter()
        self._node = node
        self._folder = folder
        self._ended = threading.Event()
        self._changed = threading.Condition()
        self._errors: list[Exception] = []
        self._threads = [
            threading.Thread(target=self._send, args=(random.Random(f"{seed} {number}"), folder / str(number)))  # noqa: S311
            for number in range(associations)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        if kind is None and self._errors:
            raise self._errors[0]

    def await_acknowledged(self, more: int, seconds: float = 120.0) -> None:
        """Wait until `more` objects than now are acknowledged. Raises PeerRefused."""
        self._await(lambda: len(self.acknowledged), more, seconds, "acknowledged")

    def await_refused(self, code: int, seconds: float = 120.0) -> None:
        """Wait until a further object is answered with this status. Raises PeerRefused."""
        self._await(lambda: self.refused[code], 1, seconds, f"answered with {code:04X}")

    def _await(self, count: Callable[[], int], more: int, seconds: float, what: str) -> None:
        with self._changed:
            wanted = count() + more
            if not self._changed.wait_for(lambda: count() >= wanted or self._errors, seconds):
                raise PeerRefused(f"In {seconds:g} s, {count() - wanted + more} of {more} objects were {what}.")

    def _send(self, moments: random.Random, folder: Path) -> None:
        try:
            while not self._ended.is_set():
                folder.mkdir(parents=True)
                left = [read(path) for path in write_ct(folder, SLICES, SLICES, THINNED)]
                while left and not self._ended.is_set():
                    left = self._store(left)
                    if left:
                        self._ended.wait(RETRY_SECONDS)
                shutil.rmtree(folder)
                self._ended.wait(moments.uniform(0, LONGEST_PAUSE_SECONDS))
        except Exception as error:
            with self._changed:
                self._errors.append(error)
                self._changed.notify_all()

    def _store(self, files: list[DicomFile]) -> list[DicomFile]:
        """Send files once; return those that were not acknowledged."""
        answers: list[Sent] = []
        with contextlib.suppress(PeerRefused, OSError):  # then the gateway is away
            store(self._node(), files, answers.append)
        with self._changed:
            for answer in answers:
                if answer.status == status.SUCCESS:
                    self.acknowledged[answer.file.sop_instance_uid] = answer.file
                elif answer.status is not None:
                    self.refused[answer.status] += 1
            self._changed.notify_all()
        return [file for file in files if file.sop_instance_uid not in self.acknowledged]
