from collections.abc import Callable

import pytest

from support.datasets import ct_series, one_of_each
from support.house import House, flip_byte
from thinfilm_gateway.archive.container.format import FRAMES, LITERALS, MANIFEST
from thinfilm_gateway.archive.container.reader import sections
from thinfilm_gateway.archive.store import StorageAway
from thinfilm_gateway.index.states import InstanceState
from thinfilm_workers.jobs.scrub import Finding, decide, scrub


def _flip_section(house: House, kind: bytes) -> None:
    """Damage the first section of a kind in the first container."""
    key = house.containers()[0].key
    with house.context.store.open(key) as reader:
        section = next(section for found, section in sections(reader) if found == kind)
    flip_byte(house.container_path(key), section.offset + 16 + section.length // 2)


def _drop_spool_copies(house: House) -> None:
    for instance in house.instances():
        house.spool_path(instance).unlink()
    with house.context.database.session() as session:
        for instance in house.instances():
            session.merge(instance).spool_name = None


def test_a_sound_house_has_no_damages_and_renews_the_proof_of_its_containers(house: House) -> None:
    objects = list(one_of_each().values())
    house.receive(objects)
    house.work()
    before = house.containers()[0].verified_at
    report = scrub(house.context)
    assert report.damages == ()
    assert report.instances == len(objects)
    assert report.containers == len(house.containers())
    assert house.containers()[0].verified_at > before


@pytest.mark.parametrize("kind", [LITERALS, FRAMES, MANIFEST])
def test_a_damaged_container_is_compressed_anew_from_good_spool_copies(house: House, kind: bytes) -> None:
    series = ct_series(4)
    house.receive(series)
    house.work()
    _flip_section(house, kind)

    report = scrub(house.context)

    assert report.damages
    assert report.recompressed == 4
    assert report.quarantined == 0
    house.work()
    house.assert_archived(series)
    assert scrub(house.context).recompressed == 0
    assert len(house.audits("healed")) == 4


def test_damaged_frames_without_a_spool_copy_quarantine_only_the_instances_that_need_them(house: House) -> None:
    series = ct_series(3, size=512)
    house.receive(series)
    house.work()
    _drop_spool_copies(house)
    _flip_section(house, FRAMES)

    report = scrub(house.context)

    assert report.quarantined == 1
    assert sorted(house.states()) == ["archived", "archived", "quarantined"]
    assert scrub(house.context).quarantined == 0


def test_a_damaged_spool_copy_is_dropped_where_the_container_is_good(house: House) -> None:
    series = ct_series(3)
    house.receive(series)
    house.work()
    flip_byte(house.spool_path(house.instances()[1]), -1)

    report = scrub(house.context)

    assert len(report.damages) == 1
    assert report.dropped == 1
    assert [instance.spool_name is None for instance in house.instances()] == [False, True, False]
    assert house.stray_files() == []
    house.assert_retrievable(series)


def test_a_damaged_spool_file_that_is_the_only_copy_is_quarantined_until_it_is_whole_again(house: House) -> None:
    series = ct_series(2)
    house.receive(series)
    path = house.spool_path(house.instances()[0])
    flip_byte(path, -1)
    assert scrub(house.context).quarantined == 1
    assert house.states() == ["quarantined", "received"]

    flip_byte(path, -1)
    assert scrub(house.context).recompressed == 1
    house.work()
    house.assert_archived(series)


def test_what_was_quarantined_is_released_when_its_container_reads_again(house: House) -> None:
    series = ct_series(2)
    house.receive(series)
    house.work()
    _drop_spool_copies(house)
    path = house.container_path(house.containers()[0].key)
    aside = path.rename(path.with_suffix(".aside"))
    other = path.with_name("f" * 32 + ".tfa")
    other.write_bytes(b"so that the archive is not empty")
    assert scrub(house.context).quarantined == 2

    other.unlink()
    aside.rename(path)
    assert scrub(house.context).released == 2
    house.assert_archived(series)


def test_an_archive_or_a_spool_that_is_not_mounted_condemns_nothing(build_house: Callable[..., House]) -> None:
    house = build_house()
    house.receive(ct_series(2))
    house.work()
    for folder in (house.context.settings.archive_dir, house.context.settings.spool_dir):
        aside = folder.rename(folder.with_name("aside"))
        folder.mkdir()
        with pytest.raises(StorageAway, match="mounted"):
            scrub(house.context)
        folder.rmdir()
        aside.rename(folder)
    assert house.states() == ["archived", "archived"]
    assert scrub(house.context).damages == ()


@pytest.mark.parametrize(
    ("state", "spool", "container", "finding"),
    [
        ("received", True, None, Finding.SOUND),
        ("received", False, None, Finding.QUARANTINE),
        ("received", None, None, Finding.QUARANTINE),
        ("as_received", True, None, Finding.SOUND),
        ("archived", None, True, Finding.SOUND),
        ("archived", True, True, Finding.SOUND),
        ("archived", False, True, Finding.DROP_SPOOL_COPY),
        ("archived", True, False, Finding.RECOMPRESS),
        ("archived", False, False, Finding.QUARANTINE),
        ("archived", None, False, Finding.QUARANTINE),
        ("quarantined", True, None, Finding.RECOMPRESS),
        ("quarantined", None, True, Finding.RELEASE),
        ("quarantined", False, True, Finding.RELEASE),
        ("quarantined", False, False, Finding.QUARANTINE),
    ],
)
def test_a_copy_that_is_good_decides(state: str, spool: bool | None, container: bool | None, finding: Finding) -> None:
    assert decide(InstanceState(state), spool, container) is finding
