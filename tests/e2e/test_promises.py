"""The promises of docs/architecture.md, each with a test here that tries to break it, and where the thorough ones are.

| promise | thorough tests |
| --- | --- |
| P1 durable before success | gateway/dimse/test_storage.py, gateway/dimse/test_server.py, gateway/bench/test_chaos.py |
| P2 byte-exact | e2e/test_end_to_end.py, e2e/test_odd_input.py, e2e/test_orthanc.py, gateway/archive/test_pack.py |
| P3 never delete what is not proven | workers/test_compress.py, workers/test_crashes.py, workers/test_evict.py |
| P4 lossy is never silent | workers/test_lossy_rules.py, e2e/test_lossy.py, gateway/archive/test_derivation.py |
| P5 the broker is not the truth | workers/test_celery.py, `thinfilm bench chaos` |
| P6 the index is not the truth either | workers/test_reindex.py |
| P7 containers are immutable | gateway/archive/test_container_format.py, gateway/archive/test_container_damage.py |
| P8 decoding is exact arithmetic | codecs/test_backends.py, codecs/test_neural.py, codecs/test_mutated_streams.py |
| P9 compression never holds up ingest | workers/test_compress.py, workers/test_local.py |
"""

import errno
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from support import neural_goldens
from support.containers import BytesReader
from support.datasets import EncodedDataSet, ct_series, encoded_data_sets, one_of_each
from support.house import House, flip_byte, make_due
from support.objects import write_files
from support.receiver import Running, running_receiver
from support.scu import Answer, store_all
from support.servers import stoppable_redis
from thinfilm_codecs import registry
from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray
from thinfilm_codecs.codec import Codec
from thinfilm_codecs.lossless.neural import Neural, Preset, compiled, reference
from thinfilm_codecs.lossless.neural.backends import Kernel
from thinfilm_gateway.archive.container.reader import open_container
from thinfilm_gateway.commands.compress import compress, sources
from thinfilm_gateway.commands.expand import expand
from thinfilm_gateway.dimse import status
from thinfilm_gateway.dispatch import Broker, BrokerAway, send_due
from thinfilm_gateway.policy.lossy import LossyTreatment
from thinfilm_gateway.policy.rules import LossyRule
from thinfilm_workers.context import Context
from thinfilm_workers.jobs.evict import evict
from thinfilm_workers.jobs.reindex import reindex
from thinfilm_workers.jobs.scrub import scrub
from thinfilm_workers.jobs.sweep import tidy

SERIES = ct_series(4, 48)
STORED = Answer(status.SUCCESS, "")
NO_COPIES = {"cache_bytes": 0}


@pytest.fixture
def house(tmp_path: Path, sqlite_template: Path) -> Iterator[House]:
    """A house over SQLite that keeps no spool copies longer than it must."""
    house = _house(tmp_path, sqlite_template, **NO_COPIES)
    yield house
    house.context.database.dispose()


def _house(folder: Path, sqlite_template: Path, **overrides: Any) -> House:
    index = folder / "index.sqlite"
    index.write_bytes(sqlite_template.read_bytes())
    return House.build(folder, f"sqlite:///{index}", **overrides)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Running]:
    with running_receiver(tmp_path, lossless_codecs=("jpegls",)) as running:
        yield running


# P1: a success status is sent only when bytes and rows would survive a power cut


def test_p1_success_means_that_file_name_and_row_were_synced(
    receiver: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    fsync = os.fsync

    def note(descriptor: int) -> None:
        fsync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", note)
    assert store_all(receiver.port, SERIES) == [STORED] * len(SERIES)
    for row in receiver.instances():
        path = receiver.spool.path(str(row.spool_name))
        assert {path.stat().st_ino, path.parent.stat().st_ino} <= synced
    with receiver.database.reading() as session:
        assert session.execute(text("PRAGMA synchronous")).scalar_one() == 2  # FULL


def test_p1_without_a_sync_there_is_no_success(receiver: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        (answer,) = store_all(receiver.port, SERIES[:1])
    assert answer.status == status.OUT_OF_RESOURCES
    receiver.assert_nothing_kept()
    assert store_all(receiver.port, SERIES[:1]) == [STORED]


def test_p1_without_a_commit_there_is_no_success(receiver: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise OperationalError("COMMIT", {}, Exception("disk I/O error"))

    with monkeypatch.context() as broken:
        broken.setattr("thinfilm_gateway.dimse.commit.register_all", fail)
        (answer,) = store_all(receiver.port, SERIES[:1])
    assert answer.status == status.OUT_OF_RESOURCES
    assert receiver.instances() == []


# P2: what was stored comes back with the same SHA-256


@pytest.fixture(scope="module")
def lasting_house(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[House]:
    house = _house(tmp_path_factory.mktemp("house"), sqlite_template, **NO_COPIES)
    yield house
    house.context.database.dispose()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(encoded_data_sets(), min_size=1, max_size=4))
def test_p2_whatever_is_odd_about_an_object_it_comes_back_from_the_archive_as_it_was(
    lasting_house: House, objects: list[EncodedDataSet]
) -> None:
    lasting_house.receive(objects)
    lasting_house.work()
    evict(lasting_house.context)
    lasting_house.assert_archived(objects)


# P3: no original is dropped before its compressed form was read back from storage and proven


def test_p3_a_container_that_does_not_read_back_costs_no_original(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.receive(SERIES)
    put = house.context.store.put

    def put_on_a_bad_disk(key: str, source: Path) -> None:
        put(key, source)
        flip_byte(house.container_path(key), house.container_path(key).stat().st_size // 2)

    monkeypatch.setattr(house.context.store, "put", put_on_a_bad_disk)
    for _ in range(house.context.settings.max_attempts):
        house.work()
        make_due(house)
        evict(house.context)
        tidy(house.context)
    assert house.containers() == []
    house.assert_retrievable(SERIES)


def test_p3_a_container_that_is_lost_later_keeps_the_spool_copies_there_are(house: House) -> None:
    house.receive(SERIES)
    house.work()
    house.container_path(house.containers()[0].key).unlink()
    evict(house.context)
    house.assert_retrievable(SERIES)


# P5: losing the broker loses nothing


def test_p5_what_a_broker_that_is_gone_was_told_is_done_all_the_same(house: House) -> None:
    house.receive(SERIES)
    with stoppable_redis() as (url, server):
        broker = Broker(url)
        assert send_due(house.context.database, broker) == 1
        server.stop()
        house.receive(ct_series(2, 32, series="after"))
        with pytest.raises(BrokerAway):
            send_due(house.context.database, broker)
        broker.close()
    house.work()
    house.assert_archived([*SERIES, *ct_series(2, 32, series="after")])
    assert {job.state for job in house.jobs()} == {"done"}


# P6: spool and containers alone give the index back


def test_p6_an_index_that_is_lost_is_rebuilt(house: House, tmp_path: Path, sqlite_template: Path) -> None:
    archived, waiting = list(one_of_each().values()), ct_series(3, 32, series="waiting")
    house.receive(archived)
    house.work()
    evict(house.context)
    house.receive(waiting)
    house.context.database.dispose()
    (tmp_path / "index.sqlite").unlink()

    rebuilt = _house(tmp_path, sqlite_template)
    assert reindex(rebuilt.context).damages == ()
    rebuilt.assert_archived(archived)
    rebuilt.assert_retrievable([*archived, *waiting])
    rebuilt.context.database.dispose()


# P7: containers are immutable and describe themselves


def test_p7_nothing_that_is_done_with_a_container_changes_it(house: House) -> None:
    house.receive(SERIES[:3])
    house.work()
    (container,) = house.containers()
    path = house.container_path(container.key)
    before, written_at = path.read_bytes(), path.stat().st_mtime_ns

    house.receive(SERIES[3:])  # late
    house.receive(SERIES[:1])  # again
    house.receive([SERIES[1]._replace(dataset=SERIES[0].dataset)])  # other content
    house.work()
    evict(house.context)
    scrub(house.context)
    tidy(house.context)

    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, written_at)
    assert len(house.containers()) > 1
    alone = open_container(BytesReader(before))
    assert [alone.read_dataset(entry) for entry in range(3)] == [encoded.dataset for encoded in SERIES[:3]]


# P8: a stream decodes to the same samples whoever computes


def test_p8_a_kept_stream_decodes_to_the_same_samples_on_every_back_end(monkeypatch: pytest.MonkeyPatch) -> None:
    golden = neural_goldens.goldens()["real-ct"]
    parameters, stream = neural_goldens.parameters_and_stream("real-ct")
    expected = json.loads(neural_goldens.HASHES.read_text())["real-ct"]["samples"]
    back_ends = [reference, *(Kernel(instruction_set) for instruction_set in compiled.instruction_sets())]
    for back_end in back_ends:
        monkeypatch.setattr("thinfilm_codecs.lossless.neural.codec.back_end", lambda device, it=back_end: it)
        decoded = Neural(Preset.FAST).decode(stream, golden.block.layout, parameters)
        assert neural_goldens.hashed(decoded.tobytes()) == expected


# P4: lossy is never silent


def test_p4_no_sample_changes_but_under_another_uid_flagged_and_below_the_ceiling(tmp_path: Path) -> None:
    files = write_files(tmp_path / "in", SERIES)
    compress(sources([tmp_path / "in"]), tmp_path / "x.tfa", ["jpegls"], lossy=LossyTreatment("near_lossless"))
    expand(tmp_path / "x.tfa", tmp_path / "back")
    for file in files:
        was, found = pydicom.dcmread(file.path), pydicom.dcmread(tmp_path / "back" / file.path.name)
        assert (found.pixel_array != was.pixel_array).any()
        assert found.SOPInstanceUID != was.SOPInstanceUID
        assert found.ImageType[0] == "DERIVED"
        assert found.LossyImageCompression == "01"
        assert float(found.LossyImageCompressionRatio) <= 5
        assert found.SourceImageSequence[0].ReferencedSOPInstanceUID == was.SOPInstanceUID


def test_p4_a_ratio_above_the_ceiling_is_refused_when_the_settings_are_read() -> None:
    with pytest.raises(ValueError, match="above the ceiling of 5"):
        LossyRule(modality="CT", ratio=8, delay_days=0, keep_original_days=0)


# P9: compression never holds up ingest, and a codec that fails falls back


class Stuck(Codec):
    """Waits until it is let go, then fails."""

    codec_id = "stuck"

    def __init__(self) -> None:
        self.begun, self.let_go = threading.Event(), threading.Event()

    def supports(self, layout: BlockLayout) -> bool:
        return True

    def frames_per_group(self, layout: BlockLayout) -> int:
        return 1

    def encode(self, group: PixelBlock, parameters: bytes) -> bytes:
        self.begun.set()
        assert self.let_go.wait(60)
        raise MemoryError

    def decode(self, stream: bytes, layout: BlockLayout, parameters: bytes) -> SampleArray:
        raise NotImplementedError


def test_p9_objects_are_taken_while_a_codec_is_stuck_and_its_series_falls_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = Stuck()
    monkeypatch.setitem(registry._CODECS, stuck.codec_id, stuck)
    with running_receiver(tmp_path, series_quiet_seconds=0, lossless_codecs=("stuck", "jpegls")) as receiver:
        house = House(Context.open(receiver.settings))
        assert store_all(receiver.port, SERIES) == [STORED] * len(SERIES)
        worker = threading.Thread(target=house.work)
        worker.start()
        try:
            assert stuck.begun.wait(60)
            later = ct_series(20, 32, series="later")
            assert store_all(receiver.port, later) == [STORED] * len(later)
        finally:
            stuck.let_go.set()
            worker.join()
        house.work()
        house.assert_archived([*SERIES, *later])
        assert all("stuck" not in container.codecs for container in house.containers())
        assert house.audits("codec_fallback")
        house.context.database.dispose()
