"""Several clients at a time, a process each, so that they do not wait for one another's interpreter."""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from typing import TypeVar

from thinfilm_gateway.client.network import Node

Share = TypeVar("Share")
Result = TypeVar("Result")

_start: Barrier


class UnknownAddress(Exception):
    """What was given is no HOST:PORT or HOST:PORT/AE_TITLE; the message is one sentence."""


def parse_node(text: str) -> Node:
    """Read HOST:PORT or HOST:PORT/AE_TITLE. Raises UnknownAddress."""
    address, _, ae_title = text.partition("/")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UnknownAddress(f"{text!r} is not HOST:PORT or HOST:PORT/AE_TITLE.")
    return Node(host.strip("[]"), int(port), ae_title or "ANY-SCP")


def run_at_once(work: Callable[[Share], Result], shares: Sequence[Share]) -> tuple[float, list[Result]]:
    """Do `work` on each share in a process of its own, all starting at the same moment.

    Returns the seconds from that moment to the end of the last, and the results. `work` is a function of a module.
    """
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(len(shares))
    with ProcessPoolExecutor(len(shares), context, _keep_barrier, (barrier,)) as pool:
        timed = [pool.submit(_timed, work, share) for share in shares]
        spans = [future.result() for future in timed]
    seconds = max(end for _, end, _ in spans) - min(start for start, _, _ in spans)
    return seconds, [result for _, _, result in spans]


def _keep_barrier(barrier: Barrier) -> None:
    global _start
    _start = barrier


def _timed(work: Callable[[Share], Result], share: Share) -> tuple[float, float, Result]:
    _start.wait()
    start = time.monotonic()  # one clock for all processes of the machine
    result = work(share)
    return start, time.monotonic(), result
