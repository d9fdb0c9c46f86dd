"""Containers that no row names, as after the restore of an older index: nothing that lies only there may go."""

import datetime as dt
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from support.datasets import ct_series
from support.house import House, flip_byte, make_due
from thinfilm_gateway.archive.store import new_key
from thinfilm_gateway.index.models import Container, Instance, Job, Patient, Series, Study, StudyPatient
from thinfilm_gateway.index.states import InstanceState
from thinfilm_workers.jobs.compress import discard
from thinfilm_workers.jobs.orphans import UNUSED_FOR
from thinfilm_workers.jobs.scrub import scrub
from thinfilm_workers.jobs.sweep import ATTACH_AFTER, tidy

AT_ONCE = dt.timedelta(0)
SERIES = ct_series(3)


@pytest.fixture
def archived(house: House) -> House:
    """A house with a series in the archive alone: the cache let its spool copies go."""
    house.archive_alone(SERIES)
    return house


def restore_index_before_archiving(house: House, state: InstanceState = InstanceState.RECEIVED) -> None:
    """Say of all objects what the index said before they were archived: that they lie in the spool.

    state: what it said then, or what a job made of that when it found no spool copies.
    """
    before = {"state": state, "container_pk": None, "container_entry": None, "stored_bytes": None}
    with house.context.database.session() as session:
        for number, instance in enumerate(house.instances()):
            names = {"spool_name": f"{number:02x}" * 48}
            session.execute(update(Instance).where(Instance.id == instance.id).values(**before, **names))
        session.execute(delete(Container))
        session.execute(delete(Job))


def restore_index_before_receipt(house: House) -> None:
    with house.context.database.session() as session:
        for model in (Job, Instance, StudyPatient, Series, Study, Patient, Container):
            session.execute(delete(model))


def copy_of_the_container(house: House) -> str:
    """Put a second container with the same content into the store, of which the index knows nothing."""
    key = new_key()
    copy = house.context.work_dir / "copy"
    shutil.copy(house.container_path(house.containers()[0].key), copy)
    house.context.store.put(key, copy)
    return key


def pass_the_grace(house: House) -> None:
    long_ago = dt.datetime.now(dt.UTC) - UNUSED_FOR - dt.timedelta(minutes=1)
    with house.context.database.session() as session:
        session.execute(update(Container).where(Container.unused_since.is_not(None)).values(unused_since=long_ago))


@pytest.mark.parametrize("state", [InstanceState.RECEIVED, InstanceState.AS_RECEIVED, InstanceState.QUARANTINED])
def test_an_index_from_before_the_archiving_finds_the_only_copies_again(archived: House, state: InstanceState) -> None:
    restore_index_before_archiving(archived, state)
    for _ in range(2):
        tidy(archived.context, AT_ONCE)
    archived.assert_archived(SERIES)
    archived.assert_retrievable(SERIES)
    assert [container.unused_since for container in archived.containers()] == [None]
    assert scrub(archived.context).damages == ()


def test_an_index_from_before_the_receipt_finds_objects_with_their_study_and_sender_again(archived: House) -> None:
    before = {row.sop_instance_uid: (row.sha256, row.sender_ae_title, row.received_at) for row in archived.instances()}
    restore_index_before_receipt(archived)
    tidy(archived.context, AT_ONCE)
    after = {row.sop_instance_uid: (row.sha256, row.sender_ae_title, row.received_at) for row in archived.instances()}
    assert after == before
    archived.assert_archived(SERIES)


def test_an_index_that_names_a_container_that_is_gone_finds_the_objects_in_another(archived: House) -> None:
    """The series was compressed anew after the backup, and the old container went."""
    old = archived.containers()[0].key
    new = copy_of_the_container(archived)
    archived.context.store.delete(old)
    tidy(archived.context, AT_ONCE)
    archived.assert_archived(SERIES)
    assert new in [container.key for container in archived.containers()]


def test_an_index_that_names_a_damaged_container_finds_the_objects_in_another(archived: House) -> None:
    old = archived.containers()[0].key
    copy_of_the_container(archived)
    flip_byte(archived.container_path(old), archived.container_path(old).stat().st_size // 2)
    tidy(archived.context, AT_ONCE)
    assert scrub(archived.context).quarantined == 0
    archived.assert_retrievable(SERIES)


def test_a_container_whose_objects_all_have_another_home_is_listed_and_goes_after_the_grace(archived: House) -> None:
    key = copy_of_the_container(archived)
    tidy(archived.context, AT_ONCE)
    assert archived.container_path(key).exists()
    (listed,) = [container for container in archived.containers() if container.unused_since]
    assert listed.key == key

    tidy(archived.context, AT_ONCE)
    assert archived.container_path(key).exists()

    pass_the_grace(archived)
    tidy(archived.context, AT_ONCE)
    assert not archived.container_path(key).exists()
    assert len(archived.containers()) == 1
    archived.assert_archived(SERIES)


def test_a_listed_container_stays_when_the_other_home_is_damaged_by_the_end_of_the_grace(archived: House) -> None:
    home = archived.container_path(archived.containers()[0].key)
    key = copy_of_the_container(archived)
    tidy(archived.context, AT_ONCE)
    pass_the_grace(archived)
    flip_byte(home, home.stat().st_size // 2)
    tidy(archived.context, AT_ONCE)
    assert archived.container_path(key).exists()
    archived.assert_retrievable(SERIES)


def test_a_damaged_container_goes_after_the_grace_if_all_that_was_in_it_is_proven_elsewhere(archived: House) -> None:
    key = copy_of_the_container(archived)
    flip_byte(archived.container_path(key), archived.container_path(key).stat().st_size // 2)
    tidy(archived.context, AT_ONCE)
    assert archived.container_path(key).exists()
    pass_the_grace(archived)
    tidy(archived.context, AT_ONCE)
    assert not archived.container_path(key).exists()
    archived.assert_archived(SERIES)


def test_a_damaged_container_stays_while_what_was_in_it_is_nowhere_else(archived: House) -> None:
    restore_index_before_receipt(archived)
    (path,) = archived.context.settings.archive_dir.glob("*/*.tfa")
    flip_byte(path, path.stat().st_size // 2)
    for _ in range(3):
        tidy(archived.context, AT_ONCE)
        pass_the_grace(archived)
    assert path.exists()


def test_what_waits_in_the_spool_is_not_given_back_to_a_damaged_container(house: House) -> None:
    house.receive(SERIES)
    house.work()
    path = house.container_path(house.containers()[0].key)
    flip_byte(path, -1)  # of the footer: all can be read still
    scrub(house.context)
    tidy(house.context, AT_ONCE)
    make_due(house)
    house.work()
    tidy(house.context, AT_ONCE)
    house.assert_archived(SERIES)
    assert scrub(house.context).damages == ()
    assert len([container for container in house.containers() if container.unused_since is None]) == 1


def test_a_container_of_which_nothing_can_be_read_is_never_removed(archived: House) -> None:
    key = copy_of_the_container(archived)
    archived.container_path(key).write_bytes(b"damaged beyond reading")
    for _ in range(3):
        tidy(archived.context, AT_ONCE)
        pass_the_grace(archived)
    assert archived.container_path(key).exists()


def test_a_young_container_is_left_to_the_worker_that_is_about_to_name_it(archived: House) -> None:
    restore_index_before_archiving(archived)
    tidy(archived.context)
    assert archived.containers() == []
    path = next(archived.context.settings.archive_dir.glob("*/*.tfa"))
    os.utime(path, (time.time() - 2 * ATTACH_AFTER.total_seconds(),) * 2)
    tidy(archived.context)
    archived.assert_archived(SERIES)


def test_a_container_that_a_clock_dated_far_ahead_is_attached_too(archived: House) -> None:
    restore_index_before_archiving(archived)
    path = next(archived.context.settings.archive_dir.glob("*/*.tfa"))
    os.utime(path, (time.time() + 400 * 86400,) * 2)
    tidy(archived.context)
    archived.assert_archived(SERIES)


def test_a_worker_does_not_discard_its_container_once_the_index_names_it(archived: House) -> None:
    key = archived.containers()[0].key
    discard(archived.context, key)
    archived.assert_archived(SERIES)


def test_a_worker_discards_a_container_that_the_index_does_not_name(archived: House) -> None:
    key = copy_of_the_container(archived)
    discard(archived.context, key)
    assert not archived.container_path(key).exists()
    assert len(archived.containers()) == 1


def test_what_a_worker_left_when_it_was_killed_before_its_commit_becomes_the_home_of_what_waits(house: House) -> None:
    house.receive(SERIES)
    house.work()
    restore_index_before_archiving(house)
    tidy(house.context, AT_ONCE)
    house.assert_archived(SERIES)
    make_due(house)
    house.work()
    assert len(house.containers()) == 1


def test_a_container_in_which_nothing_lies_any_more_goes_after_the_grace(house: House) -> None:
    house.receive(SERIES)
    house.work()
    old = house.containers()[0].key
    path = house.container_path(old)
    whole = path.read_bytes()
    path.write_bytes(b"damaged beyond reading")
    scrub(house.context)  # the spool copies are good, and are compressed anew
    house.work()
    path.write_bytes(whole)
    tidy(house.context)
    pass_the_grace(house)
    tidy(house.context)
    assert not path.exists()
    house.assert_archived(SERIES)


def test_an_empty_index_over_a_whole_archive_is_filled_from_it(
    build_house: Callable[..., House], tmp_path: Path, sqlite_template: Path
) -> None:
    house = build_house()
    house.receive(SERIES)
    house.work()
    shutil.copy(sqlite_template, tmp_path / "empty.sqlite")
    empty = build_house(database_url=f"sqlite:///{tmp_path / 'empty.sqlite'}")
    for name in empty.context.spool.names():
        empty.context.spool.remove(name)
    tidy(empty.context, AT_ONCE)
    empty.assert_archived(SERIES)
