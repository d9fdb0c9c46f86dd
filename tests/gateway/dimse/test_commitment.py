"""Storage commitment over the network: who asks is told the truth, once, and in the end, whatever happens between."""

import datetime as dt
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, build_context
from pynetdicom.dimse_primitives import N_ACTION
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from sqlalchemy import select

from support.commitment import MODALITY, Modality, Report, commitments, is_put_off, make_due, references, states
from support.datasets import (
    CT_IMAGE,
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    MR_IMAGE,
    ct_series,
    mr_series,
    uid,
)
from support.house import flip_byte
from support.query_retrieve import archive, get, identifier
from support.receiver import Running, receiver_process, running_receiver, wait_until
from support.relay import Cut, relay
from support.scu import StorageUser, store_all
from support.servers import PostgresServer, free_port
from thinfilm_gateway.config import Peer
from thinfilm_gateway.dimse import commitment_reports, status
from thinfilm_gateway.index import commitments as index_commitments
from thinfilm_gateway.index.commitments import REPORT_FOR, Reference
from thinfilm_gateway.index.models import AuditEvent
from thinfilm_gateway.index.states import CommitmentState, InstanceState
from thinfilm_gateway.index.status import problems, summary

CT = ct_series(4, 32)
MISSING = (CT_IMAGE, uid("never stored"))
VERIFICATION = "1.2.840.10008.1.1"


def transaction() -> str:
    return f"2.25.{uuid.uuid4().int}"


@pytest.fixture
def port() -> int:
    """Where the modality listens, if it does."""
    return free_port()


@pytest.fixture
def run(tmp_path: Path, port: int) -> Callable[..., Any]:
    """Run a receiver that knows the modality."""
    peers = (Peer(ae_title=MODALITY, host="127.0.0.1", port=port),)
    return lambda **settings: running_receiver(
        tmp_path, **{"peers": peers, "series_quiet_seconds": 0, "lossless_codecs": ("jpegls",), **settings}
    )


@pytest.fixture
def receiver(run: Callable[..., Any]) -> Iterator[Running]:
    with run() as running:
        yield running


@pytest.fixture
def modality() -> Modality:
    return Modality()


def committed(receiver: Running) -> list[bool]:
    return [row.committed_at is not None for row in receiver.instances()]


def archive_and_forget(receiver: Running) -> None:
    """Compress everything, and let the cache forget the spool copies, in the index too."""
    archive(receiver, drop_spool=True)
    with receiver.database.session() as session:
        for row in receiver.instances():
            session.merge(row).spool_name = None


def on_same_association(modality: Modality, receiver: Running, wanted: list[tuple[str, str]]) -> Report:
    """Ask, stay, and return the report."""
    with modality.asking(receiver.port) as asking:
        count = len(modality.reports)
        assert asking.request(transaction(), wanted) == status.SUCCESS
        return modality.await_reports(count + 1)[-1]


# What is told


def test_what_was_stored_is_committed_and_told_on_the_same_association(receiver: Running, modality: Modality) -> None:
    store_all(receiver.port, CT)
    transaction_uid = transaction()
    with modality.asking(receiver.port) as asking:
        assert asking.request(transaction_uid, references(CT[:3])) == status.SUCCESS
        (report,) = modality.await_reports()
    assert (report.event_type, report.on_new_association) == (1, False)
    assert report.information.TransactionUID == transaction_uid
    assert report.information.RetrieveAETitle == "THINFILM"
    assert report.committed == [one.sop_instance_uid for one in CT[:3]]
    assert "FailedSOPSequence" not in report.information
    wait_until(lambda: states(receiver) == [CommitmentState.REPORTED], "the answer is noted")
    assert committed(receiver) == [True] * 3 + [False]
    with receiver.database.reading() as session:
        (event,) = session.scalars(select(AuditEvent).where(AuditEvent.kind == "storage_commitment"))
    assert (event.peer, event.detail) == (
        MODALITY,
        f"3 of 3 instances committed in transaction {transaction_uid}.",
    )


def test_every_failure_has_its_reason_and_the_others_are_committed(receiver: Running, modality: Modality) -> None:
    store_all(receiver.port, CT)
    sound, wrong_class, quarantined, lost = CT
    rows = {row.sop_instance_uid: row for row in receiver.instances()}
    with receiver.database.session() as session:
        session.merge(rows[quarantined.sop_instance_uid]).state = InstanceState.QUARANTINED
    receiver.spool.remove(str(rows[lost.sop_instance_uid].spool_name))
    not_storage = (VERIFICATION, uid("no object"))
    wanted = [*references([sound, quarantined, lost]), (MR_IMAGE, wrong_class.sop_instance_uid), MISSING, not_storage]
    report = on_same_association(modality, receiver, wanted)
    assert report.event_type == 2
    assert report.committed == [sound.sop_instance_uid]
    assert report.failed == {
        quarantined.sop_instance_uid: status.PROCESSING_FAILURE,
        lost.sop_instance_uid: status.NO_SUCH_OBJECT_INSTANCE,
        wrong_class.sop_instance_uid: status.CLASS_INSTANCE_CONFLICT,
        MISSING[1]: status.NO_SUCH_OBJECT_INSTANCE,
        not_storage[1]: status.SOP_CLASS_NOT_SUPPORTED,
    }
    assert committed(receiver) == [True, False, False, False]


def test_objects_inside_containers_are_committed_at_every_depth(run: Callable[..., Any], modality: Modality) -> None:
    with run() as receiver:
        store_all(receiver.port, CT)
        archive(receiver, drop_spool=True)
        assert {row.state for row in receiver.instances()} == {InstanceState.ARCHIVED}
    for depth in ("index", "object", "checksum"):
        with run(commitment_depth=depth) as receiver:
            report = on_same_association(modality, receiver, references(CT))
            assert (report.event_type, len(report.committed)) == (1, len(CT))


@pytest.mark.parametrize(
    ("depth", "lost", "damaged"),
    [
        ("index", None, None),
        ("object", status.NO_SUCH_OBJECT_INSTANCE, None),
        ("checksum", status.NO_SUCH_OBJECT_INSTANCE, status.PROCESSING_FAILURE),
    ],
)
def test_the_depth_says_how_closely_is_looked(
    run: Callable[..., Any], modality: Modality, depth: str, lost: int | None, damaged: int | None
) -> None:
    with run(commitment_depth=depth) as receiver:
        store_all(receiver.port, CT[:3])
        _, without_file, with_flipped_byte = receiver.instances()
        receiver.spool.remove(str(without_file.spool_name))
        flip_byte(receiver.spool.path(str(with_flipped_byte.spool_name)), -1)
        report = on_same_association(modality, receiver, references(CT[:3]))
        expected = {without_file.sop_instance_uid: lost, with_flipped_byte.sop_instance_uid: damaged}
        assert report.failed == {uid: reason for uid, reason in expected.items() if reason}
        found = [row.state is InstanceState.QUARANTINED for row in receiver.instances()]
        assert found == [False, bool(lost), bool(damaged)], "what was found damaged is never sent"


def test_a_damaged_container_gives_no_commitment_by_checksum(run: Callable[..., Any], modality: Modality) -> None:
    with run(commitment_depth="checksum", decoded_cache_bytes=0) as receiver:
        store_all(receiver.port, CT)
        archive_and_forget(receiver)
        (container,) = receiver.settings.archive_dir.glob("??/*.tfa")
        flip_byte(container, container.stat().st_size // 2)
        report = on_same_association(modality, receiver, references(CT))
        assert set(report.failed.values()) == {status.PROCESSING_FAILURE}
        assert not any(committed(receiver)[: len(report.failed)])


def test_storage_that_is_away_is_a_lack_of_resources_and_no_loss(receiver: Running, modality: Modality) -> None:
    store_all(receiver.port, CT)
    archive_and_forget(receiver)
    folder = receiver.settings.archive_dir
    folder.rename(folder.with_suffix(".away"))
    folder.mkdir()
    report = on_same_association(modality, receiver, references(CT))
    assert set(report.failed.values()) == {status.RESOURCE_LIMITATION}
    folder.rmdir()
    folder.with_suffix(".away").rename(folder)
    assert on_same_association(modality, receiver, references(CT)).event_type == 1


def test_all_revisions_of_an_object_must_be_sound(run: Callable[..., Any], modality: Modality) -> None:
    with run(commitment_depth="checksum") as receiver:
        changed = CT[0]._replace(dataset=CT[0].dataset[:-2] + b"\x12\x34")
        store_all(receiver.port, [CT[0], changed])
        assert on_same_association(modality, receiver, references(CT[:1])).event_type == 1
        assert committed(receiver) == [True, True]
        flip_byte(receiver.spool.path(str(receiver.instances()[1].spool_name)), -1)
        report = on_same_association(modality, receiver, references(CT[:1]))
        assert report.failed == {CT[0].sop_instance_uid: status.PROCESSING_FAILURE}


def test_a_transaction_uid_that_is_in_use_commits_nothing(receiver: Running, modality: Modality) -> None:
    store_all(receiver.port, CT)
    transaction_uid = transaction()
    with modality.asking(receiver.port) as asking:
        for number, wanted in enumerate((CT[:1], CT[:1], CT[1:2]), start=1):
            assert asking.request(transaction_uid, references(wanted)) == status.SUCCESS
            modality.await_reports(number)
    first, *repeated = modality.reports
    assert first.committed == [CT[0].sop_instance_uid]
    assert [list(report.failed.values()) for report in repeated] == [[status.DUPLICATE_TRANSACTION_UID]] * 2
    assert {report.information.TransactionUID for report in modality.reports} == {transaction_uid}
    assert committed(receiver) == [True, False, False, False]


def test_thousands_of_instances_are_one_request_and_one_report(receiver: Running, modality: Modality) -> None:
    store_all(receiver.port, CT)
    wanted = references(CT) + [(CT_IMAGE, uid("missing", number)) for number in range(4000)]
    report = on_same_association(modality, receiver, wanted)
    assert len(report.committed) == len(CT)
    assert list(report.failed) == [sop_instance_uid for _, sop_instance_uid in wanted[len(CT) :]]


@pytest.mark.parametrize("transfer_syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED])
def test_every_transfer_syntax_of_the_services_will_do(
    receiver: Running, modality: Modality, transfer_syntax: str
) -> None:
    store_all(receiver.port, CT[:1])
    with modality.asking(receiver.port, transfer_syntaxes=[transfer_syntax]) as asking:
        assert asking.request(transaction(), [*references(CT[:1]), MISSING]) == status.SUCCESS
        (report,) = modality.await_reports()
    assert report.committed == [CT[0].sop_instance_uid]
    assert report.failed == {MISSING[1]: status.NO_SUCH_OBJECT_INSTANCE}


def test_objects_that_are_still_being_compressed_are_committed(run: Callable[..., Any], modality: Modality) -> None:
    with run(commitment_depth="checksum", cache_bytes=0) as receiver:
        store_all(receiver.port, CT)
        before = on_same_association(modality, receiver, references(CT))
        archive(receiver, drop_spool=True)
        after = on_same_association(modality, receiver, references(CT))
        assert (before.event_type, after.event_type) == (1, 1)
        assert committed(receiver) == [True] * len(CT), "it is a matter of the object, not of where it lies"


# What is refused


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        pytest.param({"action_type": 2}, status.NO_SUCH_ACTION, id="another action"),
        pytest.param({"instance_uid": "1.2.3"}, status.NO_SUCH_OBJECT_INSTANCE, id="another instance"),
        pytest.param({"transaction_uid": None}, status.INVALID_ARGUMENT_VALUE, id="no transaction"),
        pytest.param({"wanted": []}, status.INVALID_ARGUMENT_VALUE, id="no objects"),
        pytest.param({"wanted": [("", "1.2.3")]}, status.INVALID_ARGUMENT_VALUE, id="an object without class"),
        pytest.param({"wanted": [(CT_IMAGE, "")]}, status.INVALID_ARGUMENT_VALUE, id="an object without UID"),
    ],
)
def test_a_request_that_is_none_is_refused_and_the_association_goes_on(
    receiver: Running, modality: Modality, asked: dict[str, Any], code: int
) -> None:
    store_all(receiver.port, CT[:1])
    request = {"transaction_uid": transaction(), "wanted": references(CT[:1])}
    with modality.asking(receiver.port) as asking:
        assert asking.request(**{**request, **asked}) == code
        assert commitments(receiver) == []
        assert asking.request(**request) == status.SUCCESS
        modality.await_reports()


@pytest.mark.parametrize("raw", [b"", b"no data set at all", bytes(range(256))])
def test_bytes_that_are_no_request_are_refused(receiver: Running, modality: Modality, raw: bytes) -> None:
    with modality.asking(receiver.port) as asking:
        asking.association._reactor_checkpoint.clear()
        request = N_ACTION()
        request.MessageID = 1
        request.RequestedSOPClassUID = StorageCommitmentPushModel
        request.RequestedSOPInstanceUID = StorageCommitmentPushModelInstance
        request.ActionTypeID = 1
        request.ActionInformation = BytesIO(raw) if raw else None
        asking.association.dimse.send_msg(request, asking.association.accepted_contexts[0].context_id)
        _, response = asking.association.dimse.get_msg(block=True)
        asking.association._reactor_checkpoint.set()
        assert response.Status == status.INVALID_ARGUMENT_VALUE
        assert response.ErrorComment


def test_without_an_index_nothing_is_promised(
    tmp_path: Path, postgres_server: PostgresServer, modality: Modality
) -> None:
    url = postgres_server.create_database(f"index_{uuid.uuid4().hex}")
    with relay(postgres_server.port) as line:
        url = url.replace(f":{postgres_server.port}/", f":{line.port}/")
        with (
            running_receiver(tmp_path, database_url=url) as receiver,
            modality.asking(receiver.port) as asking,
        ):
            line.cut(Cut.NOW)
            assert asking.request(transaction(), [MISSING]) == status.RESOURCE_LIMITATION
            line.cut(Cut.NEVER)
            assert asking.request(transaction(), [MISSING]) == status.SUCCESS
            (report,) = modality.await_reports()
            assert report.failed == {MISSING[1]: status.NO_SUCH_OBJECT_INSTANCE}


# On which association, and what if it does not get there


@pytest.mark.parametrize("takes_roles", [True, False], ids=["roles", "a peer that ignores roles"])
def test_a_peer_that_has_left_is_told_on_a_new_association_on_which_we_are_the_scp(
    receiver: Running, modality: Modality, port: int, takes_roles: bool
) -> None:
    store_all(receiver.port, CT)
    with modality.listening(port, takes_roles=takes_roles):
        assert modality.ask(receiver.port, transaction(), references(CT)) == status.SUCCESS
        (report,) = modality.await_reports()
        wait_until(lambda: states(receiver) == [CommitmentState.REPORTED], "the answer is noted")
    assert report.event_type == 1
    if report.on_new_association:  # the report may have been quicker than the release
        assert report.roles == (False, True)


class Standing(Modality):
    """A modality that holds its own association open and answers nothing there until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = threading.Event()

    def take(self, event: Any) -> tuple[int, None]:
        if event.assoc.is_requestor:
            self.may_answer.wait()
        return super().take(event)


def test_a_peer_that_holds_its_association_without_answering_is_soon_told_on_a_new_one(
    run: Callable[..., Any], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitment_reports, "ANSWER_SECONDS", 0.1)
    modality = Standing()
    with (
        run(network_timeout_seconds=600) as receiver,
        modality.listening(port),
        modality.asking(receiver.port) as asking,
    ):
        try:
            assert asking.request(transaction(), [MISSING]) == status.SUCCESS
            (report,) = modality.await_reports()
            assert report.on_new_association
            wait_until(lambda: states(receiver) == [CommitmentState.REPORTED], "the answer is noted")
        finally:
            modality.may_answer.set()


def test_a_report_waits_for_the_end_of_what_the_peer_asked_for_meanwhile(receiver: Running, modality: Modality) -> None:
    more = [build_context(CT_IMAGE, [EXPLICIT_LITTLE])]
    with modality.asking(receiver.port, *more) as asking:
        user = StorageUser(asking.association)
        for one in CT:
            assert asking.request(transaction(), references(CT)) == status.SUCCESS
            asking.association._reactor_checkpoint.clear()
            user.send(one)
            _await_store_response(asking.association)
            asking.association._reactor_checkpoint.set()
        reports = modality.await_reports(len(CT))
    assert {report.information.TransactionUID for report in reports} == {
        row.transaction_uid for row in commitments(receiver)
    }
    assert len(receiver.instances()) == len(CT)


def _await_store_response(association: Any) -> None:
    """Take messages until the C-STORE response; reports among them are served as pynetdicom would."""
    while True:
        context_id, message = association.dimse.get_msg(block=True)
        assert message is not None
        if message.msg_type == "C-STORE" and message.Status is not None:
            assert message.Status == status.SUCCESS
            return
        association._serve_request(message, context_id)


def test_a_retrieval_on_the_association_is_not_disturbed_by_a_report(receiver: Running, modality: Modality) -> None:
    store_all(receiver.port, CT)
    with modality.asking(receiver.port) as asking:
        for _ in range(3):
            assert asking.request(transaction(), references(CT)) == status.SUCCESS
            keys = identifier("IMAGE", SOPInstanceUID=[one.sop_instance_uid for one in CT])
            operation = get(receiver.port, keys, [(CT_IMAGE, [EXPLICIT_LITTLE])])
            assert operation.counts == (None, len(CT), 0, 0)
        modality.await_reports(3)


def test_a_peer_that_refuses_is_told_as_soon_as_it_does_not(receiver: Running, modality: Modality, port: int) -> None:
    store_all(receiver.port, CT)
    modality.refusals = 2
    with modality.listening(port):
        assert modality.ask(receiver.port, transaction(), [MISSING]) == status.SUCCESS
        _settle_on_new_associations(receiver, modality, until=lambda: len(modality.reports) == 1)
        wait_until(lambda: states(receiver) == [CommitmentState.REPORTED], "the answer is noted")
    if modality.reports[0].on_new_association:
        assert modality.rejected == 2


def test_the_pauses_between_the_attempts_grow(receiver: Running, modality: Modality) -> None:
    assert modality.ask(receiver.port, transaction(), [MISSING]) == status.SUCCESS
    pauses = []
    for attempt in range(1, 4):
        wait_until(lambda attempt=attempt: _has_failed(receiver, attempt), "an attempt has failed")  # type: ignore[misc]
        (row,) = commitments(receiver)
        pauses.append(row.not_before - dt.datetime.now(dt.UTC))
        make_due(receiver)
    assert pauses[0] < pauses[1] < pauses[2] < dt.timedelta(seconds=30)
    (row,) = commitments(receiver)
    assert "cannot be reached" in str(row.error)


def _has_failed(receiver: Running, attempt: int) -> bool:
    (row,) = commitments(receiver)
    return row.attempts == attempt and is_put_off(row)


def _settle_on_new_associations(receiver: Running, modality: Modality, until: Callable[[], bool]) -> None:
    """Spare a test the pauses until it has come about."""

    def hurried() -> bool:
        if all(map(is_put_off, commitments(receiver))):
            make_due(receiver)
        return until()

    wait_until(hurried, "the report has come")


def test_a_peer_that_answers_with_a_failure_is_told_again(receiver: Running, modality: Modality, port: int) -> None:
    modality.answers = [0x0110, 0x0213]
    with modality.listening(port):
        with modality.asking(receiver.port) as asking:
            assert asking.request(transaction(), [MISSING]) == status.SUCCESS
            modality.await_reports(1)
            wait_until(lambda: "0110" in str(commitments(receiver)[0].error), "the answer is noted")
            assert states(receiver) == [CommitmentState.EXAMINED]
        _settle_on_new_associations(receiver, modality, until=lambda: len(modality.reports) == 3)
        wait_until(lambda: states(receiver) == [CommitmentState.REPORTED], "the answer is noted")
    assert [report.on_new_association for report in modality.reports] == [False, True, True]
    assert len({str(report.information) for report in modality.reports}) == 1


def test_a_restart_forgets_no_report(run: Callable[..., Any], modality: Modality, port: int) -> None:
    with run() as receiver:
        store_all(receiver.port, CT)
        assert modality.ask(receiver.port, transaction(), references(CT)) == status.SUCCESS
        wait_until(lambda: bool(commitments(receiver)[0].error), "an attempt has failed")
    with modality.listening(port), run() as receiver:
        make_due(receiver)
        (report,) = modality.await_reports()
        wait_until(lambda: states(receiver) == [CommitmentState.REPORTED], "the answer is noted")
    assert report.committed == [one.sop_instance_uid for one in CT]
    assert (report.on_new_association, report.roles) == (True, (False, True))


def test_a_receiver_that_is_killed_leaves_the_report_to_the_next(
    tmp_path: Path, run: Callable[..., Any], modality: Modality, port: int
) -> None:
    transaction_uid = transaction()
    with receiver_process(tmp_path) as receiver:
        store_all(receiver.port, CT)
        with modality.asking(receiver.port) as asking:
            assert asking.request(transaction_uid, references(CT)) == status.SUCCESS
            assert receiver.process is not None
            os.kill(receiver.process.pid or 0, signal.SIGKILL)
            receiver.process.join(20)
        told = len(modality.reports)
    with modality.listening(port), run() as receiver:
        if states(receiver) != [CommitmentState.REPORTED]:
            make_due(receiver, held_too=True)
            modality.await_reports(told + 1)
        wait_until(lambda: states(receiver) == [CommitmentState.REPORTED], "the answer is noted")
    assert {report.information.TransactionUID for report in modality.reports} == {transaction_uid}
    assert {report.event_type for report in modality.reports} == {1}


def test_a_report_that_nobody_takes_is_given_up_in_the_end_and_told_to_the_operator(
    receiver: Running, modality: Modality
) -> None:
    transaction_uid = transaction()
    assert modality.ask(receiver.port, transaction_uid, [MISSING], ae_title="STRANGER") == status.SUCCESS
    wait_until(lambda: bool(commitments(receiver)[0].error), "an attempt has failed")
    make_due(receiver, requested_at=dt.datetime.now(dt.UTC) - REPORT_FOR)
    wait_until(lambda: states(receiver) == [CommitmentState.FAILED], "it is given up")
    with receiver.database.reading() as session:
        assert summary(session).commitments_failed == 1
        assert summary(session).needs_a_hand
        (problem,) = problems(session)
    assert (problem.kind, problem.uid) == ("commitment_not_reported", transaction_uid)
    assert problem.reason == "The settings have no peer STRANGER with a port."


def test_a_peer_whose_host_is_not_known_is_named(run: Callable[..., Any]) -> None:
    with run(peers=(Peer(ae_title=MODALITY, host="nowhere.invalid", port=104),)) as receiver:
        index_commitments.request(receiver.database, transaction(), MODALITY, [Reference(*MISSING)], dt.timedelta(0))
        wait_until(lambda: is_put_off(commitments(receiver)[0]), "an attempt has failed")
        assert str(commitments(receiver)[0].error).startswith("The host nowhere.invalid of MODALITY is not known: ")


def test_objects_of_several_series_and_classes_are_one_request(receiver: Running, modality: Modality) -> None:
    objects = [*CT, *mr_series(3)]
    store_all(receiver.port, objects)
    report = on_same_association(modality, receiver, references(objects))
    assert (report.event_type, len(report.committed)) == (1, len(objects))


def test_a_peer_that_may_not_ask_for_commitment_gets_no_context_for_it(run: Callable[..., Any]) -> None:
    with run(peers=(Peer(ae_title=MODALITY, host="127.0.0.1", allow=("echo", "store")),)) as receiver:
        proposed = [build_context(StorageCommitmentPushModel), build_context(VERIFICATION)]
        association = AE(MODALITY).associate("127.0.0.1", receiver.port, proposed, "THINFILM")
        assert [context.abstract_syntax for context in association.accepted_contexts] == [VERIFICATION]
        association.release()
