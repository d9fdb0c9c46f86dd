import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from thinfilm_gateway.archive.ahead import in_order


def test_results_come_in_order_however_late_the_first_is_done() -> None:
    second_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            second_done.wait()
        else:
            second_done.set()
        return item * 10

    with ThreadPoolExecutor(2) as pool:
        assert list(in_order(pool, work, range(5), lambda item: 1, 2)) == [0, 10, 20, 30, 40]


@pytest.mark.parametrize(("cost", "most", "ahead"), [(1, 3, 3), (2, 3, 1), (9, 3, 1)])
def test_no_more_is_begun_than_the_limit_allows_but_always_one(cost: int, most: int, ahead: int) -> None:
    taken: list[int] = []
    begun: list[int] = []

    def items() -> list[int]:
        return list(range(8))

    def price(item: int) -> int:
        begun.append(item)  # it is asked just before the item is begun, or waits for its turn
        return cost

    with ThreadPoolExecutor(1) as pool:
        for result in in_order(pool, lambda item: item, items(), price, most):
            assert len(begun) - len(taken) <= ahead + 1
            taken.append(result)
    assert taken == items()


def test_an_error_comes_in_its_place_and_nothing_behind_it_is_begun() -> None:
    done: list[int] = []

    def work(item: int) -> int:
        if item == 1:
            raise ZeroDivisionError
        done.append(item)
        return item

    with ThreadPoolExecutor(1) as pool:
        results = in_order(pool, work, range(100), lambda item: 1, 2)
        assert next(results) == 0
        with pytest.raises(ZeroDivisionError):
            next(results)
    assert max(done) <= 2
