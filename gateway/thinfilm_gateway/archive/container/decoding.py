"""The threads of this process that decode groups of frames, and how far they work ahead of a reader."""

import functools
import os
from concurrent.futures import ThreadPoolExecutor

from thinfilm_gateway.archive.container.format import MIB
from thinfilm_gateway.background import usable_cores

_AHEAD_BYTES_PER_CORE = 16 * MIB  # a group or two
_MOST_AHEAD_BYTES = 256 * MIB


@functools.cache
def decoders() -> ThreadPoolExecutor:
    """Return the threads that decode, one a core: a decoder lets go of the interpreter's lock."""
    return ThreadPoolExecutor(usable_cores(), thread_name_prefix="decode")


def ahead_bytes() -> int:
    """Return how many bytes of pixels are decoded ahead of one reader: as much as keeps all cores busy."""
    return min(usable_cores() * _AHEAD_BYTES_PER_CORE, _MOST_AHEAD_BYTES)


os.register_at_fork(after_in_child=decoders.cache_clear)  # threads do not survive it
