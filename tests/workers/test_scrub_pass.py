"""The scrub that runs by itself: everything once in so many days, from where it was."""

import datetime as dt
from collections.abc import Callable

from sqlalchemy import update

from support.datasets import ct_series
from support.house import House, flip_byte
from thinfilm_gateway.index import scrub_passes
from thinfilm_gateway.index.models import Container, ScrubPass
from thinfilm_gateway.index.scrub_passes import Scrubbed
from thinfilm_workers.jobs.scrub import scrub
from thinfilm_workers.jobs.scrub_pass import scrub_on

MONTH = dt.timedelta(days=30)


def archived(house: House, count: int) -> None:
    """Bring several series into the archive, each into a container of its own."""
    for number in range(count):
        house.receive(ct_series(2, series=f"series {number}"))
    house.work()


def let_pass(house: House, time: dt.timedelta) -> None:
    """Let all that the index knows of be older."""
    with house.context.database.session() as session:
        for container in session.query(Container):
            container.verified_at -= time
        for one in session.query(ScrubPass):
            one.began_at -= time
            if one.finished_at:
                one.finished_at -= time


def told(house: House) -> Scrubbed:
    with house.context.database.reading() as session:
        return scrub_passes.scrubbed(session)


def verified(house: House) -> int:
    """Count the containers that were read within the last minute."""
    recent = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)
    return sum(container.verified_at > recent for container in house.containers())


def test_nothing_is_begun_while_nothing_is_kept(house: House) -> None:
    scrub_on(house.context)
    assert told(house) == Scrubbed(None, None, 0)


def test_a_pass_reads_no_faster_than_its_days_ask_for(house: House) -> None:
    archived(house, 4)
    let_pass(house, MONTH)
    scrub_on(house.context)
    assert verified(house) == 1
    assert 0 < (told(house).share or 0) < 0.5
    scrub_on(house.context)
    assert verified(house) == 1, "the month has only begun"


def test_a_pass_goes_on_where_it_was_and_ends_with_everything_read(house: House) -> None:
    archived(house, 4)
    let_pass(house, MONTH)
    scrub_on(house.context)
    let_pass(house, MONTH / 2)
    with house.context.database.session() as session:  # so that what was read does not count as new
        session.execute(update(Container).values(verified_at=dt.datetime.now(dt.UTC) - MONTH))
    scrub_on(house.context)
    assert 1 <= verified(house) <= 3
    let_pass(house, MONTH)
    scrub_on(house.context)
    assert told(house).share is None
    assert told(house).whole_at is not None
    assert told(house).damages == 0


def test_the_next_pass_begins_when_the_days_are_over(house: House) -> None:
    archived(house, 1)
    scrub_on(house.context)
    let_pass(house, MONTH / 2)
    scrub_on(house.context)
    assert house.count(ScrubPass) == 1
    let_pass(house, MONTH / 2)
    scrub_on(house.context)
    assert house.count(ScrubPass) == 2


def test_what_rots_is_found_and_healed_by_itself(house: House) -> None:
    series = ct_series(2)
    house.receive(series)
    house.work()
    path = house.container_path(house.containers()[0].key)
    flip_byte(path, path.stat().st_size // 2)
    let_pass(house, MONTH)
    scrub_on(house.context)
    house.work()
    house.assert_archived(series)
    assert house.rows(ScrubPass)[0].damages >= 1


def test_what_stays_as_received_is_read_too(build_house: Callable[..., House]) -> None:
    house = build_house()
    house.receive(ct_series(2), quiet=MONTH)
    path = house.spool_path(house.instances()[0])
    flip_byte(path, -100)
    scrub_on(house.context)
    assert sorted(house.states()) == ["quarantined", "received"]


def test_a_scrub_by_hand_counts_as_a_whole_pass(house: House) -> None:
    archived(house, 2)
    scrub(house.context)
    assert told(house).whole_at is not None
    scrub_on(house.context)
    assert told(house).share is None
