"""FrameCache: decoded groups of containers, decoded once for all who want them, kept for the next, bounded in bytes."""

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from functools import partial

from thinfilm_codecs.blocks import SampleArray
from thinfilm_gateway.archive.container.decoding import decoders
from thinfilm_gateway.dicom.budget import decode_budget

Decoded = Future[SampleArray]
"""A group that is decoded, or about to be."""


class FrameCache:
    """Keeps the decoded groups that were asked for last, at most `capacity_bytes` of them; for many threads.

    A group that somebody still holds is found too, however many bytes that takes. The arrays are shared, and so
    read-only.
    """

    def __init__(self, capacity_bytes: int) -> None:
        """Start empty."""
        self._capacity = capacity_bytes
        self._kept: OrderedDict[Hashable, tuple[Decoded, int]] = OrderedDict()  # with its bytes
        self._held: weakref.WeakValueDictionary[Hashable, Decoded] = weakref.WeakValueDictionary()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes that are kept now."""
        return self._bytes

    def start(self, key: Hashable, load: Callable[[], SampleArray], nbytes: int) -> Decoded:
        """Return what is there under `key`, or else what `load` will give in one of the threads that decode.

        nbytes: of the decode budget, what `load` takes.
        """
        with self._lock:
            found = self._held.get(key)
            if found is None:
                found = self._held[key] = decoders().submit(self._load, key, partial(_within_budget, load, nbytes))
            elif key in self._kept:
                self._kept.move_to_end(key)
            return found

    def get(self, key: Hashable, load: Callable[[], SampleArray]) -> SampleArray:
        """Return what is there under `key`, or else what `load` gives, at once: for what is no work to decode."""
        with self._lock:
            found = self._held.get(key)
            if found is None:
                ours = self._held[key] = Future()
            elif key in self._kept:
                self._kept.move_to_end(key)
        if found is not None:
            return found.result()
        try:
            ours.set_result(self._load(key, load))
        except BaseException as error:
            ours.set_exception(error)
            raise
        return ours.result()

    def _load(self, key: Hashable, load: Callable[[], SampleArray]) -> SampleArray:
        try:
            array = load()
        except BaseException:
            with self._lock:
                del self._held[key]  # the next may be luckier
            raise
        array.flags.writeable = False
        with self._lock:
            if array.nbytes <= self._capacity:
                self._kept[key] = self._held[key], array.nbytes
                self._bytes += array.nbytes
                while self._bytes > self._capacity:
                    _, (_, nbytes) = self._kept.popitem(last=False)
                    self._bytes -= nbytes
        return array


def _within_budget(load: Callable[[], SampleArray], nbytes: int) -> SampleArray:
    with decode_budget().taken(nbytes):
        return load()
