"""Savings that are true against the files on the disk, and count each received object once."""

import datetime as dt
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from sqlalchemy import update

from support.datasets import EncodedDataSet, ct_series, mr_series, structured_report
from support.house import House
from support.lossy_codec import Quantised
from thinfilm_codecs import registry
from thinfilm_gateway import counts
from thinfilm_gateway.commands import status as command
from thinfilm_gateway.counts import Tally
from thinfilm_gateway.index.models import Derivation, Instance
from thinfilm_gateway.index.savings import NO_PIXELS, NOT_COMPRESSED, Savings, savings
from thinfilm_gateway.index.states import InstanceState
from thinfilm_gateway.policy.rules import LossyRule
from thinfilm_workers.jobs.evict import evict
from thinfilm_workers.jobs.lossy_rules import apply_lossy_rules
from thinfilm_workers.jobs.resent import check_resent
from thinfilm_workers.jobs.sweep import sweep, tidy

RULE = LossyRule(modality="CT", delay_days=0, keep_original_days=30)


@pytest.fixture(autouse=True)
def quantised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._LOSSY, "near_lossless", Quantised())


def figures(house: House) -> Savings:
    """Count, and hold the figures against the disk."""
    with house.context.database.reading() as session:
        found = savings(session)
    settings = house.context.settings
    marks = sum(path.stat().st_size for path in settings.data_dir.rglob(".thinfilm"))
    assert found.total.kept_bytes + found.cached_bytes == bytes_in(settings.spool_dir, settings.archive_dir) - marks
    for parts in (found.by_modality.values(), found.by_codec.values()):
        assert sum(part.received_bytes for part in parts) == found.total.received_bytes
        assert sum(part.kept_bytes for part in parts) == found.total.kept_bytes - found.left_bytes
    return found


def bytes_in(*folders: Path) -> int:
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


def size(objects: Iterable[EncodedDataSet]) -> int:
    return sum(len(each.dataset) for each in objects)


def test_an_empty_gateway_has_received_and_saved_nothing(house: House) -> None:
    found = figures(house)
    assert (found.total.received_bytes, found.total.kept_bytes, found.total.ratio) == (0, 0, None)


def test_what_waits_in_the_spool_is_kept_as_it_came(house: House) -> None:
    objects = [*ct_series(2), structured_report()]
    house.receive(objects)
    found = figures(house)
    assert found.total.received_bytes == size(objects)
    assert size(objects) < found.total.kept_bytes < size(objects) + 3 * 1000, "with a header each"
    assert set(found.by_codec) == {NOT_COMPRESSED}
    assert set(found.by_modality) == {"CT", "SR"}


def test_a_spool_copy_of_what_is_archived_is_kept_twice_and_no_saving_less(build_house: Callable[..., House]) -> None:
    house = build_house(cache_bytes=0)
    objects = [*ct_series(3), structured_report()]
    house.receive(objects)
    house.work()
    found = figures(house)
    assert found.cached_bytes > size(objects)
    assert set(found.by_codec) == {"jpegls", NO_PIXELS}
    assert found.by_codec["jpegls"].received_bytes == size(objects[:3])
    assert found.to_json()["kept_twice_bytes"] == found.cached_bytes
    evict(house.context)
    later = figures(house)
    assert (later.cached_bytes, later.total) == (0, found.total)
    assert later.total.ratio is not None
    assert later.total.ratio > 1


@pytest.mark.parametrize("duplicates", ["keep-first", "version"])
def test_an_object_that_comes_again_counts_once_and_other_content_under_its_uid_counts_too(
    build_house: Callable[..., House], duplicates: str
) -> None:
    house = build_house(duplicates=duplicates)
    (first,) = ct_series(1)
    other = first._replace(dataset=first.dataset[:-2] + b"\1\2")
    for objects in ([first], [first], [other], [other]):
        house.receive(objects)
        house.work()
    check_resent(house.context)  # what came again goes, since the kept copies are right
    assert figures(house).total.received_bytes == size([first, other])


def test_what_is_damaged_or_was_given_up_is_received_and_kept_all_the_same(house: House) -> None:
    objects = [*ct_series(2), *mr_series(2)]
    house.receive(objects[:2])
    house.work()
    house.receive(objects[2:])
    states = [InstanceState.QUARANTINED, InstanceState.ARCHIVED, InstanceState.QUARANTINED, InstanceState.AS_RECEIVED]
    with house.context.database.session() as session:
        for pk, state in enumerate(states, 1):
            session.execute(update(Instance).where(Instance.id == pk).values(state=state))
    assert figures(house).total.received_bytes == size(objects)


def test_a_lossy_rule_lowers_the_ratio_while_originals_wait_and_raises_it_once_they_are_gone(
    build_house: Callable[..., House],
) -> None:
    house = build_house(lossy=(RULE,))
    images, others = ct_series(3), mr_series(2)
    house.receive([*images, *others])
    house.work()
    before = figures(house)
    apply_lossy_rules(house.context)
    house.work()
    waiting = figures(house)
    assert waiting.total.received_bytes == before.total.received_bytes == size([*images, *others])
    assert waiting.total.kept_bytes > before.total.kept_bytes
    assert (waiting.total.ratio or 0) < (before.total.ratio or 0)
    assert before.waiting_bytes == 0
    assert waiting.waiting_bytes == before.by_modality["CT"].kept_bytes
    assert waiting.by_codec["near_lossless"].received_bytes == 0, "the originals are what came"

    with house.context.database.session() as session:
        session.execute(update(Derivation).values(retire_at=dt.datetime.now(dt.UTC) - dt.timedelta(days=1)))
        session.execute(update(Derivation).values(decided_at=dt.datetime.now(dt.UTC) - dt.timedelta(days=31)))
    apply_lossy_rules(house.context)
    house.work()
    sweep(house.context)
    tidy(house.context, dt.timedelta(0))
    gone = figures(house)
    assert len([row for row in house.rows(Derivation) if row.retired_at]) == 3
    assert gone.total.received_bytes == before.total.received_bytes, "what came does not become less"
    assert gone.waiting_bytes == 0
    assert gone.by_codec["near_lossless"].received_bytes == size(images)
    assert gone.by_modality["CT"].received_bytes == size(images)
    house.receive(images[:1])
    house.work()
    again = figures(house)
    assert again.total.received_bytes == before.total.received_bytes, "an original that comes again counts once"


def test_what_no_object_of_a_container_needs_any_more_is_named(house: House) -> None:
    house.receive(ct_series(3))
    house.work()
    before = figures(house)
    with house.context.database.session() as session:
        session.execute(update(Instance).where(Instance.id == 1).values(container_pk=None, stored_bytes=None))
    left = figures(house).left_bytes
    assert left > before.left_bytes
    assert abs(before.left_bytes) <= 3, "what sharing rounds off"


def test_status_and_health_count_once_and_the_same(house: House) -> None:
    house.receive(ct_series(2))
    house.work()
    told = command.status(house.context.settings).to_json()["savings"]
    assert told == figures(house).to_json()
    assert told["saved_bytes"] == told["received_bytes"] - told["kept_bytes"]
    assert told["by_modality"]["CT"]["ratio"] == told["by_codec"]["jpegls"]["ratio"]


def test_who_asks_often_is_told_the_same_while_counting_would_cost_too_much(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    tally = Tally()
    with house.context.database.reading() as session:
        first = tally.counts(session)
        tally._good_until += 1000  # as if that had taken half a minute
        assert tally.counts(session) is first
        monkeypatch.setattr(counts.time, "monotonic", lambda: tally._good_until)
        assert tally.counts(session).counted_at > first.counted_at
