"""The receiver process: one port for several, a limit that is told, and a clean stop."""

import os
import signal
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from pynetdicom import AE, build_context

from support import dcmtk
from support.datasets import ct_series
from support.receiver import Running, receiver_process, running_receiver, wait_until
from support.scu import Answer, storage_user, store_all
from thinfilm_gateway.dicom.part10 import IMPLEMENTATION_CLASS_UID
from thinfilm_gateway.dimse import sharing, status
from thinfilm_gateway.dimse.sharing import Shared

VERIFICATION = "1.2.840.10008.1.1"
CT, OTHER_CT = ct_series(2)
STORED = Answer(status.SUCCESS, "")


def test_an_echo_is_answered(tmp_path: Path) -> None:
    with running_receiver(tmp_path) as receiver:
        dcmtk.echoscu(receiver.port).check()
        dcmtk.echoscu(receiver.port, "--repeat", "20").check()


def test_the_gateway_says_who_it_is(tmp_path: Path) -> None:
    with running_receiver(tmp_path, ae_title="KEEPER") as receiver:
        association = AE().associate("127.0.0.1", receiver.port, [build_context(VERIFICATION)], "KEEPER")
        assert association.acceptor.implementation_class_uid == IMPLEMENTATION_CLASS_UID
        assert association.acceptor.maximum_length == receiver.settings.maximum_pdu_bytes
        association.release()


def test_a_class_that_has_no_service_is_refused_and_the_association_goes_on(tmp_path: Path) -> None:
    worklist = "1.2.840.10008.5.1.4.31"
    with running_receiver(tmp_path) as receiver:
        asked = [build_context(worklist), build_context(VERIFICATION)]
        association = AE().associate("127.0.0.1", receiver.port, asked)
        assert [context.abstract_syntax for context in association.accepted_contexts] == [VERIFICATION]
        assert association.send_c_echo().Status == status.SUCCESS
        association.release()


def test_receivers_share_a_port_and_its_associations(tmp_path: Path) -> None:
    one, two = sharing.loads(2)
    with (
        sharing.listen("127.0.0.1", 0) as listener,
        running_receiver(tmp_path / "two", Shared(listener.dup(), None, two)) as second,
    ):
        with running_receiver(tmp_path / "one", Shared(listener.dup(), None, one)) as first, ExitStack() as users:
            assert first.port == second.port == sharing.port_of(listener)
            for _ in range(20):
                users.enter_context(storage_user(first.port, [CT]))
            shares = [len(running.receiver.associations) for running in (first, second) if running.receiver]
            assert sum(shares) == 20
            assert min(shares) > 0
        for _ in range(5):
            dcmtk.echoscu(second.port).check()


def test_an_association_above_the_limit_is_rejected_for_now(tmp_path: Path) -> None:
    with running_receiver(tmp_path, maximum_associations=2) as receiver:
        with storage_user(receiver.port, [CT]) as one, storage_user(receiver.port, [CT]):
            rejected = AE().associate("127.0.0.1", receiver.port, [build_context(VERIFICATION)])
            assert rejected.is_rejected
            answer = rejected.acceptor.primitive
            assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)  # local limit exceeded
            assert "Local Limit Exceeded" in dcmtk.echoscu(receiver.port, "-v").output
            assert one.store(CT) == STORED
        wait_until(lambda: dcmtk.echoscu(receiver.port).ok, "there is room again")


def test_connections_far_above_the_limit_are_dropped(tmp_path: Path) -> None:
    with running_receiver(tmp_path, maximum_associations=1) as receiver, storage_user(receiver.port, [CT]):
        waiting = [dcmtk.start("echoscu", "127.0.0.1", str(receiver.port)) for _ in range(10)]
        assert all(client.wait(20) for client in waiting)
        for client in waiting:
            client.communicate()


def test_a_receiver_that_stops_lets_a_transfer_end(tmp_path: Path) -> None:
    with running_receiver(tmp_path) as receiver:
        with storage_user(receiver.port, [CT, OTHER_CT]) as user:
            assert user.store(CT) == STORED
            stopping = threading.Thread(target=stop, args=(receiver,))
            stopping.start()
            wait_until(lambda: not dcmtk.echoscu(receiver.port).ok, "nothing more is accepted")
            assert user.store(OTHER_CT) == STORED
        stopping.join(10)
        assert not stopping.is_alive()
        assert len(receiver.instances()) == 2


def test_a_receiver_that_stops_does_not_wait_for_an_idle_peer(tmp_path: Path) -> None:
    with running_receiver(tmp_path) as receiver:
        association = AE().associate("127.0.0.1", receiver.port, [build_context(VERIFICATION)])
        begun = time.monotonic()
        stop(receiver)
        assert time.monotonic() - begun < 5
        wait_until(lambda: association.is_aborted, "the idle peer was told")


def test_a_receiver_process_ends_on_sigterm_with_zero_and_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    with receiver_process(tmp_path) as receiver:
        assert store_all(receiver.port, [CT]) == [STORED]
        assert receiver.process is not None
        receiver.process.terminate()
        receiver.process.join(20)
        assert receiver.process.exitcode == 0
        (row,) = receiver.instances()
        assert receiver.dataset(row) == CT.dataset


def test_a_receiver_process_that_is_killed_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    series = ct_series(40, 64)
    with receiver_process(tmp_path) as receiver:
        acknowledged: list[str] = []
        sending = threading.Thread(target=send_until_the_end, args=(receiver.port, series, acknowledged))
        sending.start()
        wait_until(lambda: len(acknowledged) > 10, "some objects are acknowledged")
        assert receiver.process is not None
        os.kill(receiver.process.pid or 0, signal.SIGKILL)
        sending.join(20)

        datasets = {encoded.sop_instance_uid: encoded.dataset for encoded in series}
        kept = {row.sop_instance_uid: receiver.dataset(row) for row in receiver.instances()}
        assert set(acknowledged) <= set(kept)
        assert kept.items() <= datasets.items()


def test_a_port_that_another_program_holds_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        taken = held.getsockname()[1]
        with pytest.raises(OSError, match="in use"), running_receiver(tmp_path, dicom_port=taken):
            pass


def stop(receiver: Running) -> None:
    assert receiver.receiver is not None
    receiver.receiver.stop(seconds=10)


def send_until_the_end(port: int, series, acknowledged: list[str]) -> None:
    with storage_user(port, series) as user:
        for encoded in series:
            try:
                answer = user.store(encoded)
            except AssertionError:  # the association ended
                return
            if answer == STORED:
                acknowledged.append(encoded.sop_instance_uid)
