import datetime as dt
import errno
import os
import resource
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from support.datasets import (
    DEFLATED,
    IMPLICIT_LITTLE,
    EncodedDataSet,
    Syntax,
    ct_series,
    deflate,
    encode,
    mr_series,
    one_of_each,
    patient,
    trailing_padding,
    uid,
)
from support.house import House, flip_byte, make_due
from thinfilm_codecs import registry
from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray
from thinfilm_codecs.codec import Codec
from thinfilm_gateway.archive.container.format import FRAMES
from thinfilm_gateway.archive.container.literals import LiteralWriter
from thinfilm_gateway.archive.container.pack import Source
from thinfilm_gateway.archive.container.reader import sections
from thinfilm_gateway.archive.container.report import PackReport
from thinfilm_workers import runner
from thinfilm_workers.jobs import compress


def test_a_quiet_series_becomes_one_proven_container_and_keeps_its_spool_copies(house: House) -> None:
    series = ct_series(6)
    house.receive(series)

    assert house.work() == 1

    house.assert_archived(series)
    (container,) = house.containers()
    assert container.codecs == "jpegls"
    assert container.size_bytes == house.container_path(container.key).stat().st_size
    assert [instance.container_entry for instance in house.instances()] == list(range(6))
    assert all(house.spool_path(instance).exists() for instance in house.instances())
    assert [job.state for job in house.jobs()] == ["done"]
    assert house.stray_files() == []


def test_every_kind_of_object_is_archived_byte_for_byte(house: House) -> None:
    objects = list(one_of_each().values())
    house.receive(objects)
    house.work()
    house.assert_archived(objects)


def test_late_arrivals_make_a_further_container(house: House) -> None:
    series = ct_series(5)
    house.receive(series[:3])
    house.work()
    house.receive(series[3:])
    house.work()
    house.assert_archived(series)
    assert [instance.container_pk for instance in house.instances()] == [1, 1, 1, 2, 2]


def test_a_large_series_is_parted_into_several_containers(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    series = ct_series(5, size=64)
    monkeypatch.setattr(compress, "PORTION_BYTES", 2 * len(series[0].dataset) + 100)
    house.receive(series)
    house.work()
    house.assert_archived(series)
    assert [instance.container_pk for instance in house.instances()] == [1, 1, 2, 2, 3]


def test_two_revisions_of_one_object_are_both_archived(house: House) -> None:
    first = ct_series(1)[0]
    second = ct_series(1, first_seed=7)[0]
    assert first.sop_instance_uid == second.sop_instance_uid
    house.receive([first, second])
    house.work()
    house.assert_archived([first, second])
    assert house.stray_files() == []


@pytest.mark.parametrize("odd", ["..", "1.2/3", "REM 1", ""])
def test_an_object_whose_uid_is_none_is_archived_with_its_series(house: House, odd: str) -> None:
    first, second = ct_series(2)
    series = [first._replace(sop_instance_uid=odd), second]
    house.receive(series)
    house.work()
    house.assert_archived(series)


def test_a_damaged_spool_file_is_quarantined_and_the_others_go_on(house: House) -> None:
    series = ct_series(4)
    house.receive(series)
    flip_byte(house.spool_path(house.instances()[1]), -5)
    house.work()
    assert house.states() == ["archived", "quarantined", "archived", "archived"]
    house.assert_archived([series[0], *series[2:]])
    (event,) = house.audits("quarantined")
    assert event.sop_instance_uid == series[1].sop_instance_uid
    assert house.spool_path(house.instances()[1]).exists()


def test_a_lost_spool_file_is_quarantined(house: House) -> None:
    series = ct_series(2)
    house.receive(series)
    house.spool_path(house.instances()[0]).unlink()
    house.work()
    assert house.states() == ["quarantined", "archived"]


def test_a_spool_that_is_away_condemns_nothing(build_house: Callable[..., House]) -> None:
    house = build_house(max_attempts=1)
    series = ct_series(2)
    house.receive(series)
    spool = house.context.settings.spool_dir
    aside = spool.rename(spool.with_name("aside"))
    spool.mkdir()
    house.work()
    assert house.states() == ["received", "received"]
    assert house.jobs()[0].state == "waiting"
    assert "mounted" in str(house.jobs()[0].error)
    spool.rmdir()
    aside.rename(spool)
    make_due(house)
    house.work()
    house.assert_archived(series)


FILE_META = encode({0x00020000: ("UL", 28), 0x00020010: ("UI", "1.2.840.10008.1.2.1\0")}, Syntax())


def with_file_meta(encoded: EncodedDataSet) -> EncodedDataSet:
    return encoded._replace(dataset=FILE_META + encoded.dataset)


def test_data_sets_that_begin_with_file_meta_elements_are_archived_with_their_series(house: House) -> None:
    first, second, third = ct_series(3)
    (implicit,) = ct_series(1, transfer_syntax_uid=IMPLICIT_LITTLE, first_seed=9)
    objects = [
        with_file_meta(first),
        second,
        third._replace(dataset=FILE_META[:12] + third.dataset),
        implicit._replace(dataset=encode({0x00020010: ("UI", b"1.2\0")}, Syntax(implicit=True)) + implicit.dataset),
    ]
    house.receive(objects)
    house.work()
    house.assert_archived(objects)
    assert [job.state for job in house.jobs()] == ["done"]


def test_an_object_that_does_not_read_back_keeps_no_other_from_the_archive_and_is_tried_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = [*ct_series(3), ct_series(4, size=32)[3]]
    house.receive(series)
    put = house.context.store.put

    def put_with_one_bad_entry(key: str, source: Path) -> None:
        put(key, source)
        with house.context.store.open(key) as reader:
            frames = [section for kind, section in sections(reader) if kind == FRAMES]
        if len(frames) == 2:
            flip_byte(house.container_path(key), frames[1].offset + 16 + frames[1].length // 2)

    monkeypatch.setattr(house.context.store, "put", put_with_one_bad_entry)
    house.work()
    assert house.states() == ["archived", "archived", "archived", "received"]
    (job,) = house.jobs()
    assert (job.state, job.attempts) == ("waiting", 1)
    assert "did not read back" in str(job.error)
    assert house.stray_files() == []
    make_due(house)
    house.work()
    house.assert_archived(series)


def test_a_spool_file_that_cannot_be_read_keeps_no_other_from_the_archive(build_house: Callable[..., House]) -> None:
    house = build_house(max_attempts=1)
    series = ct_series(4)
    house.receive(series)
    path = house.spool_path(house.instances()[2])
    path.unlink()
    path.mkdir()
    house.work()
    assert house.states() == ["archived", "archived", "as_received", "archived"]
    (event,) = house.audits("left_as_received")
    assert event.sop_instance_uid == series[2].sop_instance_uid
    assert "directory" in event.detail.lower()


@pytest.mark.parametrize("bad", [{0}, {3}, {1, 2, 5}, set(range(6))])
def test_what_packing_cannot_keep_is_left_as_received_and_the_others_go_on(
    build_house: Callable[..., House], monkeypatch: pytest.MonkeyPatch, bad: set[int]
) -> None:
    house = build_house(max_attempts=2)
    series = ct_series(6)
    house.receive(series)
    names = {series[number].sop_instance_uid for number in bad}
    pack = compress.pack

    def fail_on_some(sources: Sequence[Source], *others: Any) -> PackReport:
        if any(source.name in names for source in sources):
            raise RuntimeError("No codec could keep its frames.")
        return pack(sources, *others)

    monkeypatch.setattr(compress, "pack", fail_on_some)
    house.work()
    assert house.states() == ["received"] * 6
    make_due(house)
    house.work()
    assert house.states() == ["as_received" if number in bad else "archived" for number in range(6)]
    assert {event.sop_instance_uid for event in house.audits("left_as_received")} == names
    assert {event.detail for event in house.audits("left_as_received")} == {"No codec could keep its frames."}
    assert [job.state for job in house.jobs()] == ["done"]
    assert house.stray_files() == []
    house.assert_retrievable(series)


def test_a_file_that_changes_while_it_is_packed_is_left_as_received_at_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = ct_series(3)
    house.receive(series)
    path = house.spool_path(house.instances()[1])
    content = path.read_bytes()
    keep = LiteralWriter.finish

    def change(writer: LiteralWriter) -> Any:
        if path.exists():
            path.unlink()
            path.write_bytes(content[:-100])
        return keep(writer)

    monkeypatch.setattr(LiteralWriter, "finish", change)
    house.work()
    assert house.states() == ["archived", "as_received", "archived"]
    (event,) = house.audits("left_as_received")
    assert "changed while it was packed" in event.detail


def test_a_deflated_object_is_inflated_on_the_disk_of_the_archive_not_on_that_of_the_system(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = ct_series(3, transfer_syntax_uid=DEFLATED)
    house.receive(objects)
    monkeypatch.setattr(tempfile, "tempdir", str(house.context.work_dir / "no such folder"))
    house.work()
    house.assert_archived(objects)
    assert not house.audits("codec_fallback")


def test_an_object_that_cannot_be_inflated_here_is_kept_as_bytes_with_its_series(house: House) -> None:
    (small,) = ct_series(1, transfer_syntax_uid=DEFLATED, first_seed=5)
    inflated = zlib.decompress(small.dataset, -15) + trailing_padding(Syntax(), 4 << 20)
    objects = [*ct_series(2), small._replace(dataset=deflate(inflated))]
    house.receive(objects)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, hard))
    try:
        house.work()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    house.assert_archived(objects)
    assert any("inflated" in event.detail for event in house.audits("codec_fallback"))


class Lying(Codec):
    """Decodes to other samples than it was given."""

    codec_id = "lying"

    def supports(self, layout: BlockLayout) -> bool:
        return True

    def frames_per_group(self, layout: BlockLayout) -> int:
        return 1

    def encode(self, group: PixelBlock, parameters: bytes) -> bytes:
        return group.samples.tobytes()[:1]

    def decode(self, stream: bytes, layout: BlockLayout, parameters: bytes) -> SampleArray:
        return np.zeros(layout.shape, layout.dtype)


class Broken(Lying):
    """Fails on every group."""

    codec_id = "broken"

    def encode(self, group: PixelBlock, parameters: bytes) -> bytes:
        raise RuntimeError("out of memory")


@pytest.mark.parametrize(
    ("codec", "candidates"), [(Lying(), ("lying", "jpegls")), (Broken(), ("broken",))], ids=["lying", "broken"]
)
def test_a_codec_that_fails_falls_down_the_ladder_and_is_recorded(
    build_house: Callable[..., House],
    monkeypatch: pytest.MonkeyPatch,
    codec: Codec,
    candidates: tuple[str, ...],
) -> None:
    monkeypatch.setitem(registry._CODECS, codec.codec_id, codec)
    house = build_house(lossless_codecs=candidates)
    series = mr_series(3)
    house.receive(series)
    house.work()
    house.assert_archived(series)
    assert codec.codec_id not in house.containers()[0].codecs
    assert any(codec.codec_id in event.detail for event in house.audits("codec_fallback"))


def test_a_container_that_does_not_read_back_is_deleted_and_after_the_last_attempt_all_stays_as_received(
    build_house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    house = build_house(max_attempts=1)
    series = ct_series(3)
    house.receive(series)
    put = house.context.store.put

    def put_on_a_bad_disk(key: str, source: object) -> None:
        put(key, source)  # type: ignore[arg-type]
        flip_byte(house.container_path(key), 200)

    monkeypatch.setattr(house.context.store, "put", put_on_a_bad_disk)
    house.work()

    assert house.states() == ["as_received"] * 3
    (job,) = house.jobs()
    assert job.state == "failed"
    assert job.error
    assert house.containers() == []
    assert house.stray_files() == []
    house.assert_retrievable(series)
    assert len(house.audits("not_proven")) == 1


def test_a_failed_attempt_is_tried_again_after_a_pause(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.receive(ct_series(2))

    def refuse(key: str, source: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as disk:
        disk.setattr(house.context.store, "put", refuse)
        assert house.work() == 1
    (job,) = house.jobs()
    assert job.state == "waiting"
    assert job.attempts == 1
    assert "Permission denied" in str(job.error)
    assert house.states() == ["received", "received"]
    assert house.stray_files() == []


@pytest.mark.parametrize(
    "trouble",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
        OperationalError("UPDATE", None, Exception("server closed the connection")),
    ],
    ids=["full disk", "read-only disk", "index away"],
)
def test_trouble_with_disk_or_index_postpones_a_job_and_is_no_attempt(
    build_house: Callable[..., House], monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    house = build_house(max_attempts=2)
    series = ct_series(2)
    house.receive(series)

    def fail(key: str, source: object) -> None:
        raise trouble

    with monkeypatch.context() as disk:
        disk.setattr(house.context.store, "put", fail)
        for _ in range(3):
            before = dt.datetime.now(dt.UTC)
            assert house.work() == 1
            (job,) = house.jobs()
            assert (job.state, job.attempts) == ("waiting", 0)
            assert job.not_before >= before + dt.timedelta(seconds=59)
            assert house.states() == ["received", "received"]
            make_due(house)
    assert house.stray_files() == []
    assert house.work() == 1
    house.assert_archived(series)


MOUNTED_READ_ONLY = 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; exec "$2" -c "$3"'
ONE_JOB = """
from thinfilm_gateway import config, data_folder
from thinfilm_gateway.index.volumes import KnownVolumes
from thinfilm_gateway.archive.container.format import FRAMES
from thinfilm_gateway.archive.container.literals import LiteralWriter
from thinfilm_gateway.archive.container.pack import Source
from thinfilm_gateway.archive.container.reader import sections
from thinfilm_gateway.archive.container.report import PackReport
from thinfilm_workers import runner
from thinfilm_workers.context import Context

settings = config.load()
assert runner.run_next(Context.open(settings), "worker", runner.QUEUES)
print(data_folder.room(settings, KnownVolumes()).obstacle)
"""


def test_a_read_only_archive_holds_up_compression_and_nothing_else(house: House) -> None:
    series = ct_series(3)
    house.receive(series)
    archive = house.context.settings.archive_dir
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-e", "-c", MOUNTED_READ_ONLY, "sh"]
    done = subprocess.run(
        [*alone, str(archive), sys.executable, ONE_JOB],
        env={**os.environ, **house.context.settings.to_environment()},
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=True,
    )
    assert (
        f"Nothing is compressed: {archive} cannot be written; mount it writable. Objects wait in the spool."
        in done.stdout
    )
    (job,) = house.jobs()
    assert (job.state, job.attempts) == ("waiting", 0)
    assert "Read-only file system" in str(job.error)
    assert house.stray_files() == []
    house.assert_retrievable(series)
    make_due(house)
    house.work()
    house.assert_archived(series)


def test_an_index_that_is_away_is_waited_for_until_the_job_can_be_postponed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.receive(ct_series(1))
    session = house.context.database.session
    refused = []

    def refuse_twice() -> AbstractContextManager[Session]:
        if len(refused) < 2:
            refused.append(True)
            raise OperationalError("BEGIN", None, Exception("the database is starting up"))
        return session()

    def fail(key: str, source: object) -> None:
        monkeypatch.setattr(house.context.database, "session", refuse_twice)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runner, "_ASK_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(house.context.store, "put", fail)
    assert house.work() == 1
    assert len(refused) == 2
    (job,) = house.jobs()
    assert (job.state, job.attempts) == ("waiting", 0)


def test_series_of_other_patients_are_not_touched(house: House) -> None:
    mine, other = ct_series(2), ct_series(2, who=patient("Roe^Rick", "T-002"), series=uid("other"))
    house.receive(mine)
    house.receive(other, quiet=dt.timedelta(hours=1))
    house.work()
    assert house.states() == ["archived", "archived", "received", "received"]
