"""Results in order, computed in a pool ahead of who takes them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[_Item], _Result],
    items: Iterable[_Item],
    cost: Callable[[_Item], int],
    most: int,
) -> Iterator[_Result]:
    """Give the result of each item, in order.

    Items are begun ahead of the one whose result is awaited as long as all that are begun cost no more than `most`;
    one is always begun. When the iteration is given up, those that have not started never will.
    """
    begun: deque[tuple[int, Future[_Result]]] = deque()
    total = 0
    try:
        for item in items:
            price = cost(item)
            while begun and total + price > most:
                total -= begun[0][0]
                yield begun.popleft()[1].result()
            begun.append((price, pool.submit(work, item)))
            total += price
        while begun:
            yield begun.popleft()[1].result()
    finally:
        for _, future in begun:
            future.cancel()
