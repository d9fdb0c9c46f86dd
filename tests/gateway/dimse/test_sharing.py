"""Receivers that share a port share its connections."""

import pytest

from thinfilm_gateway.dimse import sharing


def test_only_those_with_more_than_the_idlest_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(sharing.time, "sleep", slept.append)
    first, second, third = sharing.loads(3)
    for load in (first, second, third):
        load.give_way()
    assert slept == []
    first.record(2)
    second.record(1)
    for load in (first, second, third):
        load.give_way()
    assert slept == [2 * sharing.GIVE_WAY_SECONDS, sharing.GIVE_WAY_SECONDS]
    first.record(1000)
    third.record(1)
    slept.clear()
    for load in (first, second, third):
        load.give_way()
    assert slept == [sharing.LONGEST_WAY_SECONDS]


def test_a_port_that_is_listened_on_is_refused_and_one_that_was_is_not() -> None:
    with sharing.listen("127.0.0.1", 0) as listener:
        port = sharing.port_of(listener)
        with pytest.raises(OSError, match="in use"):
            sharing.listen("127.0.0.1", port)
    with sharing.listen("127.0.0.1", port) as listener:
        assert sharing.port_of(listener) == port
