"""C-STORE: what is acknowledged is kept bit for bit; what is refused leaves nothing."""

import datetime as dt
import hashlib
import os
import re
import resource
import socket
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, select

from support import dcmtk
from support.datasets import (
    CT_IMAGE,
    DEFLATED,
    EXPLICIT_LITTLE,
    XA_IMAGE,
    EncodedDataSet,
    bundled_files,
    ct_series,
    damaged_data_sets,
    deflate,
    encoded_data_sets,
    finish,
    instance,
    one_of_each,
    uid,
    with_pixels,
)
from support.query_retrieve import archive
from support.receiver import Running, receiver_process, running_receiver, wait_until
from support.relay import Cut, Relay, relay
from support.scu import Answer, StorageUser, storage_user, store_all
from support.servers import PostgresServer, free_port, postgres, stoppable_postgres
from thinfilm_gateway.archive.spool import Spool
from thinfilm_gateway.archive.store import FolderStore
from thinfilm_gateway.dicom import part10, values
from thinfilm_gateway.dicom.dataset import UnreadableDataSet, outline
from thinfilm_gateway.dimse import status
from thinfilm_gateway.dimse.commit import CannotCommit, Committer
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.ingest import Outcome, Received, UnindexableDataSet
from thinfilm_gateway.index.models import AuditEvent

MIB = 1024 * 1024
CT, OTHER_CT, *_ = ct_series(4)
STORED = Answer(status.SUCCESS, "")
INDEX_AWAY = Answer(status.OUT_OF_RESOURCES, "The index is not available.")


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Running]:
    with running_receiver(tmp_path) as running:
        yield running


@pytest.fixture
def quick_receiver(tmp_path: Path) -> Iterator[Running]:
    """A receiver whose series are due for compression at once."""
    with running_receiver(tmp_path, series_quiet_seconds=0, lossless_codecs=("jpegls",)) as running:
        yield running


def read(path: Path) -> EncodedDataSet:
    file = path.read_bytes()
    header = part10.locate(file)
    assert header is not None
    return EncodedDataSet(
        file[header.dataset_offset :], header.transfer_syntax_uid, header.sop_class_uid, header.sop_instance_uid
    )


def kept(receiver: Running) -> dict[str, bytes]:
    return {row.sop_instance_uid: receiver.dataset(row) for row in receiver.instances()}


def real_objects() -> list[EncodedDataSet]:
    """Return pydicom's files as a sender would send them: under the UIDs of the data set itself."""
    objects = []
    for encoded in map(read, bundled_files()):
        try:
            attributes = outline(encoded.dataset, encoded.transfer_syntax_uid).attributes
        except UnreadableDataSet:
            continue
        sop_instance_uid, sop_class_uid = (values.text(attributes, f"SOP{kind}UID") for kind in ("Instance", "Class"))
        if sop_instance_uid and sop_class_uid and encoded.transfer_syntax_uid:
            objects.append(encoded._replace(sop_instance_uid=sop_instance_uid, sop_class_uid=sop_class_uid))
    return objects


# What is kept


def test_real_files_in_all_their_transfer_syntaxes_are_kept_bit_for_bit(receiver: Running) -> None:
    objects = real_objects()
    answers = store_all(receiver.port, objects)

    stored = {encoded for encoded, answer in zip(objects, answers, strict=True) if answer == STORED}
    assert stored == {
        EncodedDataSet(receiver.dataset(row), row.transfer_syntax_uid, row.sop_class_uid, row.sop_instance_uid)
        for row in receiver.instances()
    }
    assert len(stored) > 50
    assert len({encoded.transfer_syntax_uid for encoded in stored}) > 10
    for answer in answers:
        if answer != STORED:
            assert answer.status == status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS
            assert answer.comment.startswith("The data set has no Study Instance UID")


def test_odd_data_sets_are_kept_bit_for_bit(receiver: Running) -> None:
    objects = list(one_of_each().values())
    assert store_all(receiver.port, objects) == [STORED] * len(objects)
    assert kept(receiver) == {encoded.sop_instance_uid: encoded.dataset for encoded in objects}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(encoded=st.one_of(encoded_data_sets(), damaged_data_sets()))
def test_any_bytes_are_kept_as_they_are_or_refused_without_a_trace(receiver: Running, encoded: EncodedDataSet) -> None:
    files, rows = len(receiver.files()), len(receiver.instances())
    (answer,) = store_all(receiver.port, [encoded])
    if answer == STORED:
        assert encoded.dataset in [
            receiver.dataset(row) for row in receiver.instances() if row.sop_instance_uid == encoded.sop_instance_uid
        ]
    else:
        assert answer.status in (status.CANNOT_UNDERSTAND, status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS)
        assert answer.comment
        wait_until(lambda: len(receiver.files()) == files, "the spool is as before")
        assert len(receiver.instances()) == rows


def test_what_dcmtk_sends_is_kept_as_dcmtk_itself_would_keep_it(receiver: Running, tmp_path: Path) -> None:
    names = ("CT_small", "MR_small_RLE", "693_J2KI", "SC_rgb_jpeg_dcmtk", "image_dfl", "liver_1frame")
    files = [path for path in bundled_files() if path.stem in names]
    assert len(files) == len(names)
    folder = tmp_path / "storescp"
    folder.mkdir()
    port = free_port()
    with dcmtk.storescp(port, folder):
        dcmtk.dcmsend(port, files, called="STORESCP").check()
    dcmtk.dcmsend(receiver.port, files).check()

    theirs = {encoded.sop_instance_uid: encoded for encoded in map(read, folder.iterdir())}
    assert len(theirs) == 6
    assert kept(receiver) == {name: encoded.dataset for name, encoded in theirs.items()}
    for row in receiver.instances():
        assert row.transfer_syntax_uid == theirs[row.sop_instance_uid].transfer_syntax_uid
        assert (row.sender_ae_title, row.sender_address) == ("DCMSEND", "127.0.0.1")


def test_storescu_with_its_own_choice_of_contexts_is_served(receiver: Running, tmp_path: Path) -> None:
    file = CT.write(tmp_path / "ct.dcm")
    dcmtk.storescu(receiver.port, [file]).check()
    dcmtk.storescu(receiver.port, [file], "--max-pdu", "4096", "--max-send-pdu", "4096", "+II").check()
    dcmtk.storescu(receiver.port, [file], "-xi", "+II").check()
    assert [row.transfer_syntax_uid for row in receiver.instances()] == [
        EXPLICIT_LITTLE,
        EXPLICIT_LITTLE,
        "1.2.840.10008.1.2",
    ]
    assert len({row.sop_instance_uid for row in receiver.instances()}) == 3


def test_a_private_class_in_a_private_transfer_syntax_is_kept(receiver: Running) -> None:
    encoded = CT._replace(
        dataset=CT.dataset.replace(CT_IMAGE.encode() + b"\0", b"1.3.6.1.4.1.9590.100.1.77"[:26].ljust(26, b"\0")),
        sop_class_uid="1.3.6.1.4.1.9590.100.1.77",
        transfer_syntax_uid="1.3.6.1.4.1.9590.100.1.99",
    )
    assert store_all(receiver.port, [encoded]) == [STORED]
    assert kept(receiver) == {encoded.sop_instance_uid: encoded.dataset}


@pytest.mark.parametrize("odd_uid", ["1.2.840.03.007", "1.2.826." + "1234567890." * 7 + "1"])
def test_an_object_with_a_uid_that_breaks_the_rules_is_kept_under_it(receiver: Running, odd_uid: str) -> None:
    encoded = finish({**instance(CT_IMAGE, "CT"), "SOPInstanceUID": odd_uid})
    with storage_user(receiver.port, [encoded]) as user:
        assert user.store(encoded) == STORED
    assert kept(receiver) == {odd_uid: encoded.dataset}


# The same UID again


def test_an_identical_object_is_acknowledged_again_and_kept_once(receiver: Running) -> None:
    assert store_all(receiver.port, [CT]) == [STORED]
    assert store_all(receiver.port, [CT, CT]) == [STORED, STORED]
    assert kept(receiver) == {CT.sop_instance_uid: CT.dataset}
    assert len(receiver.files()) == 1


@pytest.mark.parametrize("how", ["gone", "shorter", "archived"])
def test_an_identical_object_takes_the_place_of_a_copy_that_is_lost(quick_receiver: Running, how: str) -> None:
    receiver = quick_receiver
    assert store_all(receiver.port, [CT]) == [STORED]
    if how == "archived":
        archive(receiver, drop_spool=True)
        (container,) = [path for path in receiver.settings.archive_dir.rglob("*") if path.is_file()]
        another = receiver.settings.archive_dir / "00" / f"{'0' * 32}.tfa"  # else the whole archive would seem away
        another.parent.mkdir(exist_ok=True)
        container.rename(another)
    else:
        (path,) = receiver.files()
        path.unlink() if how == "gone" else os.truncate(path, 1000)
    assert store_all(receiver.port, [CT]) == [STORED]
    assert kept(receiver) == {CT.sop_instance_uid: CT.dataset}
    assert [row.state for row in receiver.instances()] == ["received"]
    with receiver.database.reading() as session:
        assert sorted(session.scalars(select(AuditEvent.kind))) == ["copy_lost", "healed"]


def test_an_identical_object_is_dropped_while_its_container_is_there(quick_receiver: Running) -> None:
    receiver = quick_receiver
    assert store_all(receiver.port, [CT]) == [STORED]
    archive(receiver, drop_spool=True)
    assert store_all(receiver.port, [CT]) == [STORED]
    assert [row.state for row in receiver.instances()] == ["archived"]
    assert receiver.files() == []


def test_other_content_under_the_same_uid_is_kept_beside_the_first(receiver: Running) -> None:
    changed = CT._replace(dataset=CT.dataset[:-2] + b"\x12\x34")
    assert store_all(receiver.port, [CT, changed]) == [STORED, STORED]

    first, second = receiver.instances()
    assert [receiver.dataset(first), receiver.dataset(second)] == [CT.dataset, changed.dataset]
    assert (first.current, second.current) == (True, False)
    assert (first.revision, second.revision) == (1, 2)


# What is refused


@pytest.mark.parametrize(
    ("encoded", "code"),
    [
        pytest.param(CT._replace(dataset=b""), status.CANNOT_UNDERSTAND, id="no bytes at all"),
        pytest.param(CT._replace(dataset=bytes(range(256)) * 40), status.CANNOT_UNDERSTAND, id="no data set"),
        pytest.param(CT._replace(dataset=CT.dataset[:-100]), status.CANNOT_UNDERSTAND, id="a truncated data set"),
    ],
)
def test_bytes_that_are_no_data_set_are_refused(receiver: Running, encoded: EncodedDataSet, code: int) -> None:
    (answer,) = store_all(receiver.port, [encoded])
    assert answer.status == code
    assert 0 < len(answer.comment) <= 64
    receiver.assert_nothing_kept()


@pytest.mark.parametrize(
    "command",
    [
        pytest.param({"sop_instance_uid": uid("another")}, id="another instance"),
        pytest.param({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.4"}, id="another class"),
    ],
)
def test_a_data_set_that_is_not_what_the_command_says_is_refused(receiver: Running, command: dict[str, str]) -> None:
    with storage_user(receiver.port, [CT]) as user:
        answer = user.store(CT, **command)
        assert answer.status == status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS
        assert "differs from the command" in answer.comment
        receiver.assert_nothing_kept()
        assert user.store(CT) == STORED  # the association goes on


@pytest.mark.parametrize("missing", ["0020000d", "0020000e", "00080018"])
def test_a_data_set_without_a_uid_that_it_must_have_is_refused(receiver: Running, missing: str) -> None:
    tag = bytes.fromhex(missing)
    encoded_tag = bytes((tag[1], tag[0], tag[3], tag[2]))
    start = CT.dataset.index(encoded_tag + b"UI")
    length = int.from_bytes(CT.dataset[start + 6 : start + 8], "little")
    without = CT.dataset[:start] + CT.dataset[start + 8 + length :]
    (answer,) = store_all(receiver.port, [CT._replace(dataset=without)])
    assert answer.status == status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS
    receiver.assert_nothing_kept()


def test_a_disk_below_its_watermark_is_told_before_the_object_is_read(tmp_path: Path) -> None:
    with running_receiver(tmp_path, minimum_free_bytes=2**60) as receiver:
        (answer,) = store_all(receiver.port, [CT])
        assert answer == Answer(status.OUT_OF_RESOURCES, "The spool's disk is full.")
        receiver.assert_nothing_kept()


@pytest.mark.parametrize(("size", "room"), [(4 * MIB, 2 * MIB), (600_000, 300_000)])
def test_a_disk_that_fills_up_meanwhile_is_told_and_nothing_half_stays(receiver: Running, size: int, room: int) -> None:
    large = large_object(size)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        (answer,) = store_all(receiver.port, [large])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert answer == Answer(status.OUT_OF_RESOURCES, "The spool cannot be written.")
    receiver.assert_nothing_kept()
    assert store_all(receiver.port, [large]) == [STORED]


def test_a_deflated_object_is_inflated_on_the_disk_of_the_spool_not_on_that_of_the_system(
    receiver: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    (deflated,) = ct_series(1, 32, DEFLATED)
    assert store_all(receiver.port, [deflated]) == [STORED]
    assert kept(receiver) == {deflated.sop_instance_uid: deflated.dataset}


def test_a_deflated_object_that_finds_no_room_to_be_inflated_is_told_and_nothing_of_it_stays(receiver: Running) -> None:
    large = large_object(4 * MIB)
    deflated = large._replace(dataset=deflate(large.dataset), transfer_syntax_uid=DEFLATED)
    assert len(deflated.dataset) < MIB
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, hard))
    try:
        (answer,) = store_all(receiver.port, [deflated])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert answer == Answer(status.OUT_OF_RESOURCES, "The data set cannot be inflated on the disk of the spool.")
    receiver.assert_nothing_kept()
    assert store_all(receiver.port, [deflated]) == [STORED]


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[PostgresServer]:
    with postgres() as server:
        yield server


@pytest.fixture
def behind_relay(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[tuple[Running, Relay]]:
    """A receiver, and the line to its index."""
    url = postgres_server.create_database(f"index_{uuid.uuid4().hex}")
    with relay(postgres_server.port) as line:
        url = url.replace(f":{postgres_server.port}/", f":{line.port}/")
        with running_receiver(tmp_path, database_url=url) as running:
            yield running, line


def test_an_index_that_is_away_is_told_and_objects_are_taken_when_it_is_back(
    behind_relay: tuple[Running, Relay],
) -> None:
    receiver, line = behind_relay
    with storage_user(receiver.port, [CT]) as user:
        assert user.store(CT) == STORED
        line.cut(Cut.NOW)
        assert user.store(OTHER_CT) == INDEX_AWAY
        assert user.store(OTHER_CT) == INDEX_AWAY
        line.cut(Cut.NEVER)
        wait_until(lambda: user.store(OTHER_CT) == STORED, "objects are taken again")
    assert kept(receiver) == {CT.sop_instance_uid: CT.dataset, OTHER_CT.sop_instance_uid: OTHER_CT.dataset}


def test_a_database_that_is_stopped_and_started_costs_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    series = ct_series(30, 32)
    large = large_object(24 * MIB)
    with (
        stoppable_postgres() as (server, database),
        running_receiver(tmp_path, database_url=server.create_database("thinfilm")) as receiver,
        storage_user(receiver.port, [*series, large]) as user,
    ):
        assert [user.store(one) for one in series[:10]] == [STORED] * 10
        database.stop()
        assert user.store(series[10]) == INDEX_AWAY
        left = len(receiver.files())
        assert user.store(large) == INDEX_AWAY
        assert len(receiver.files()) == left, "it was refused before it was read"
        database.start()
        wait_until(lambda: user.store(series[10]) == STORED, "objects are taken again")
        assert [user.store(one) for one in [*series[11:], large]] == [STORED] * 20
        assert kept(receiver) == {one.sop_instance_uid: one.dataset for one in [*series, large]}


def test_an_object_whose_commit_did_not_reach_the_index_leaves_its_file_to_the_sweep(
    behind_relay: tuple[Running, Relay],
) -> None:
    receiver, line = behind_relay
    line.cut(Cut.BEFORE, b"COMMIT")
    with storage_user(receiver.port, [CT, OTHER_CT]) as user:
        assert user.store(CT) == INDEX_AWAY
        wait_until(lambda: user.store(OTHER_CT) == STORED, "the index is back")
    assert kept(receiver) == {OTHER_CT.sop_instance_uid: OTHER_CT.dataset}
    assert CT.dataset in [path.read_bytes()[-len(CT.dataset) :] for path in receiver.files()]


def test_an_object_whose_commit_was_not_confirmed_keeps_its_bytes(behind_relay: tuple[Running, Relay]) -> None:
    receiver, line = behind_relay
    line.cut(Cut.AFTER, b"COMMIT")
    with storage_user(receiver.port, [CT]) as user:
        assert user.store(CT) == INDEX_AWAY
        wait_until(lambda: user.store(CT) == STORED, "the object is taken")
    assert kept(receiver) == {CT.sop_instance_uid: CT.dataset}
    wait_until(lambda: len(receiver.files()) == 1, "the second copy is gone")


# Interruptions, size and company


@pytest.mark.parametrize("how", ["abort", "close"])
def test_a_transfer_that_is_broken_off_leaves_nothing(receiver: Running, how: str) -> None:
    large = large_object(8 * MIB)
    with storage_user(receiver.port, [large], maximum_pdu_size=0) as user:
        send_half(user, large)
        wait_until(lambda: bool(receiver.files()), "half of the object is in the spool")
        if how == "abort":
            user.association.abort()
        else:
            user.association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        receiver.assert_nothing_kept()


def test_a_client_that_aborts_after_its_last_object_leaves_that_object(receiver: Running, tmp_path: Path) -> None:
    dcmtk.storescu(receiver.port, [CT.write(tmp_path / "ct.dcm")], "--abort")
    assert kept(receiver) == {CT.sop_instance_uid: CT.dataset}


def test_a_large_object_costs_little_memory(tmp_path: Path) -> None:
    large = large_object(96 * MIB)
    file = large.write(tmp_path / "large.dcm")
    with receiver_process(tmp_path) as receiver:
        dcmtk.storescu(receiver.port, [CT.write(tmp_path / "ct.dcm")]).check()
        before = peak_memory(receiver)
        dcmtk.storescu(receiver.port, [file]).check()
        assert peak_memory(receiver) - before < 16 * MIB
        _, row = receiver.instances()
        assert row.sha256 == hashlib.sha256(large.dataset).hexdigest()
        assert receiver.dataset(row) == large.dataset


def test_parallel_senders_are_all_served(receiver: Running) -> None:
    series = ct_series(64, 64)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda first: store_all(receiver.port, series[first::8]), range(8)))
    assert answers == [[STORED] * 8] * 8
    assert kept(receiver) == {encoded.sop_instance_uid: encoded.dataset for encoded in series}


# The group commit


@pytest.fixture
def committer(tmp_path: Path) -> Iterator[tuple[Committer, Spool, Database]]:
    """A group commit that has not begun to work."""
    database = Database(f"sqlite:///{tmp_path / 'index.sqlite'}")
    database.upgrade()
    spool = Spool(tmp_path / "spool")
    committer = Committer(spool, FolderStore(tmp_path / "archive"), database, dt.timedelta(seconds=30))
    yield committer, spool, database
    committer.stop()
    database.dispose()


def hand_in(committer: Committer, spool: Spool, encoded: EncodedDataSet) -> "Future[Outcome]":
    """Commit an object as an association does; returns once it is handed in."""
    writer = spool.create()
    writer.begin_dataset()
    writer.write(encoded.dataset)
    received = Received(
        attributes=outline(encoded.dataset, encoded.transfer_syntax_uid).attributes,
        sop_instance_uid=encoded.sop_instance_uid,
        sop_class_uid=encoded.sop_class_uid,
        transfer_syntax_uid=encoded.transfer_syntax_uid,
        sha256=writer.sha256,
        dataset_bytes=writer.dataset_bytes,
        dataset_offset=writer.dataset_offset,
        spool_name=None,
        sender_ae_title="TEST",
        sender_address="127.0.0.1",
        received_at=dt.datetime.now(dt.UTC),
    )
    return committer.hand_in(writer, received)


def test_objects_that_wait_together_are_committed_in_one_transaction(
    committer: tuple[Committer, Spool, Database],
) -> None:
    group, spool, database = committer
    transactions: list[object] = []
    event.listen(database.engine, "commit", transactions.append)
    outcomes = [hand_in(group, spool, encoded) for encoded in ct_series(20, 16)]
    group.start()
    assert [outcome.result() for outcome in outcomes] == [Outcome.STORED] * 20
    assert len(transactions) == 1
    assert len(list(spool.names())) == 20


def test_an_object_that_the_index_cannot_take_fails_alone(committer: tuple[Committer, Spool, Database]) -> None:
    group, spool, _ = committer
    first, bad, last = ct_series(3, 16)
    bad = bad._replace(dataset=bad.dataset.replace(b"\x20\x00\x0d\x00UI", b"\x20\x00\x0d\x01UI"))
    outcomes = [hand_in(group, spool, encoded) for encoded in (first, bad, last)]
    group.start()
    assert outcomes[0].result() is outcomes[2].result() is Outcome.STORED
    assert isinstance(outcomes[1].exception(), UnindexableDataSet)
    wait_until(lambda: len(list(spool.names())) == 2, "nothing of the bad object is in the spool")


def test_an_error_that_nobody_foresaw_fails_its_group_and_the_next_is_committed(
    committer: tuple[Committer, Spool, Database],
) -> None:
    group, spool, _ = committer
    writer = spool.create()
    writer.begin_dataset()
    strange: Any = object()  # no received object at all
    failed = group.hand_in(writer, strange)
    beside = hand_in(group, spool, OTHER_CT)
    group.start()
    assert isinstance(failed.exception(timeout=20), TypeError)
    assert isinstance(beside.exception(timeout=20), CannotCommit)
    assert hand_in(group, spool, CT).result(timeout=20) is Outcome.STORED


def large_object(size: int) -> EncodedDataSet:
    """Return a multi-frame object with about this many bytes of pixels."""
    side = 256
    ramp = np.arange(side * side, dtype=np.uint32).astype(np.uint8).reshape(side, side)
    frames = np.stack([ramp + np.uint8(frame % 256) for frame in range(size // (side * side))])
    return finish(with_pixels(instance(XA_IMAGE, "XA"), frames))


def send_half(user: StorageUser, encoded: EncodedDataSet) -> None:
    """Send the command and the first half of the data set."""
    fragments: list[Any] = []
    user.association.dul.send_pdu, send = fragments.append, user.association.dul.send_pdu
    user.send(encoded)
    for fragment in fragments[: len(fragments) // 2 + 1]:
        send(fragment)
    user.association.dul.send_pdu = send


def peak_memory(receiver: Running) -> int:
    """Return the most memory that the process ever had, in bytes."""
    assert receiver.process is not None
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{receiver.process.pid}/status").read_text())
    return int(line) * 1024
