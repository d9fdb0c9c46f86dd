"""The memory of decoders in one process: waited for, in turn, and never exceeded."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from thinfilm_gateway.dicom.budget import DecodeBudget

WAIT_SECONDS = 30


class Meter:
    """Counts what is held at a time."""

    def __init__(self, budget: DecodeBudget) -> None:
        self.budget = budget
        self.lock = threading.Lock()
        self.held = self.most = self.served = 0

    def work(self, nbytes: int) -> None:
        with self.budget.taken(nbytes):
            with self.lock:
                self.held += nbytes
                self.most = max(self.most, self.held)
            with self.lock:
                self.held -= nbytes
                self.served += 1


def test_all_are_served_and_never_is_more_taken_than_there_is() -> None:
    meter = Meter(DecodeBudget(100))
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(meter.work, [1 + 37 * number % 100 for number in range(400)]))
    assert meter.served == 400
    assert meter.most <= 100


def taken_in_the_background(budget: DecodeBudget, nbytes: int, got: threading.Event) -> threading.Thread:
    def take() -> None:
        with budget.taken(nbytes):
            got.set()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    return thread


def test_what_needs_more_than_is_left_waits_and_those_behind_it_do_not_overtake() -> None:
    budget = DecodeBudget(100)
    large, small = threading.Event(), threading.Event()
    with budget.taken(60):
        first = taken_in_the_background(budget, 90, large)
        assert not large.wait(0.1)
        second = taken_in_the_background(budget, 10, small)
        assert not small.wait(0.1)
    assert large.wait(WAIT_SECONDS)
    assert small.wait(WAIT_SECONDS)
    first.join()
    second.join()


def test_more_than_all_there_is_is_given_alone() -> None:
    budget = DecodeBudget(100)
    got = threading.Event()
    with budget.taken(1):
        thread = taken_in_the_background(budget, 1000, got)
        assert not got.wait(0.05)
    assert got.wait(WAIT_SECONDS)
    thread.join()


def test_what_fails_gives_back_what_it_took() -> None:
    budget = DecodeBudget(100)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), budget.taken(100):
            raise ZeroDivisionError
    with budget.taken(100):
        pass


def test_a_larger_budget_lets_those_in_who_wait() -> None:
    budget = DecodeBudget(100)
    got = threading.Event()
    with budget.taken(60):
        thread = taken_in_the_background(budget, 60, got)
        assert not got.wait(0.05)
        budget.resize(200)
        assert got.wait(WAIT_SECONDS)
    thread.join()
