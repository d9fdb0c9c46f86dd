"""FrameCache: decoded groups of containers, kept for the next read, bounded in bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from thinfilm_codecs.blocks import SampleArray


class FrameCache:
    """Keeps the decoded groups that were read last, at most `capacity_bytes` of them; for many threads.

    The arrays are shared, and so read-only.
    """

    def __init__(self, capacity_bytes: int) -> None:
        """Start empty."""
        self._capacity = capacity_bytes
        self._arrays: OrderedDict[Hashable, SampleArray] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes that are kept now."""
        return self._bytes

    def get(self, key: Hashable, load: Callable[[], SampleArray]) -> SampleArray:
        """Return the array kept under `key`, or the one that `load` gives, which is then kept if it fits at all."""
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
                return self._arrays[key]
        array = load()  # outside the lock: two threads may decode the same group, none waits for another's
        array.flags.writeable = False
        with self._lock:
            if key not in self._arrays and array.nbytes <= self._capacity:
                self._arrays[key] = array
                self._bytes += array.nbytes
                while self._bytes > self._capacity:
                    _, dropped = self._arrays.popitem(last=False)
                    self._bytes -= dropped.nbytes
        return array
