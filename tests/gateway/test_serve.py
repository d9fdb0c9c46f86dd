import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from support.certificates import make_certificates
from support.datasets import one_of_each
from support.dcmtk import echoscu
from support.gateway import running_gateway
from support.objects import write_files
from support.servers import free_port, postgres
from thinfilm_gateway import data_folder
from thinfilm_gateway.archive.spool import Spool
from thinfilm_gateway.client.gateway import DidNotRun
from thinfilm_gateway.client.network import Node, echo, store
from thinfilm_gateway.commands import status as command
from thinfilm_gateway.config import ENVIRONMENT_PREFIX, Settings
from thinfilm_gateway.index.database import Database

WAIT_SECONDS = 30.0
SMALL = {"receivers": 1, "local_workers": 0}


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "It did not come about in time."
        time.sleep(0.02)


def refused_serve(settings: Settings) -> str:
    """Run `thinfilm serve`, which must refuse to start; return what it says."""
    others = {key: value for key, value in os.environ.items() if not key.startswith(ENVIRONMENT_PREFIX)}
    done = subprocess.run(
        [sys.executable, "-m", "thinfilm_gateway", "serve"],
        env=others | settings.to_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def children(process_id: int, name: str) -> list[int]:
    """Return the ids of the child processes that were started as `name`, in the order of their start."""
    listed = Path(f"/proc/{process_id}/task/{process_id}/children").read_text(encoding="utf-8").split()
    return [int(child) for child in listed if name in Path(f"/proc/{child}/cmdline").read_text(encoding="utf-8")]


def is_running(process_id: int) -> bool:
    """Tell whether a process is there and not dead already."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def named(process_id: int, name: str) -> list[int]:
    """Return the ids of the child processes that call themselves so."""
    found = children(process_id, "spawn_main")
    return [child for child in found if Path(f"/proc/{child}/comm").read_text(encoding="utf-8").startswith(name)]


def receivers(process_id: int) -> list[int]:
    return named(process_id, "receiver")


def test_it_answers_echo_and_health_and_stops_with_status_0(tmp_path):
    with running_gateway(tmp_path) as gateway:
        assert echo(gateway.node)
        health = gateway.health()
        assert health["status"] == "ok"
        assert health["instances"] == 0
        assert health["processes"].items() >= {"receivers": 2, "receivers_alive": 2}.items()
        wait_until(lambda: gateway.health()["processes"]["workers_alive"] == 2)
    assert gateway.process.returncode == 0


def test_it_answers_over_tls_beside_the_plain_port(tmp_path):
    certificates = make_certificates(tmp_path)
    with running_gateway(tmp_path, **SMALL, **certificates.settings) as gateway:
        options = certificates.options(certificates.scanner)
        echoscu(gateway.settings.dicom_tls_port, *options).check()
        assert not echoscu(gateway.settings.dicom_tls_port, *certificates.options(None)).ok
        assert not echoscu(gateway.node.port, called="OTHER").ok


def test_tls_without_a_certificate_is_refused_in_one_sentence(tmp_path):
    settings = Settings(data_dir=tmp_path / "data", dicom_port=0, http_port=0, dicom_tls_port=0)
    expected = "thinfilm: dicom_tls_port needs tls_certificate and tls_key, the gateway's own."
    assert refused_serve(settings) == expected
    assert not (tmp_path / "data").exists()


def test_the_data_folder_is_readable_by_its_owner_alone(tmp_path):
    with running_gateway(tmp_path, **SMALL) as gateway:
        assert stat.S_IMODE(gateway.settings.data_dir.stat().st_mode) == 0o700


def test_interrupt_stops_it_in_order_too(tmp_path):
    with running_gateway(tmp_path, **SMALL) as gateway:
        gateway.process.send_signal(signal.SIGINT)
        assert gateway.process.wait(WAIT_SECONDS) == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_receiver_that_dies_or_is_asked_to_is_started_again(tmp_path, number):
    with running_gateway(tmp_path, **SMALL) as gateway:
        (first,) = receivers(gateway.process.pid)
        os.kill(first, number)
        wait_until(lambda: receivers(gateway.process.pid) not in ([], [first]) and echoscu(gateway.node.port).ok)
        wait_until(lambda: gateway.health()["status"] == "ok")


def test_a_receiver_that_hangs_holds_up_no_further_connection(tmp_path):
    with running_gateway(tmp_path, receivers=2, local_workers=0) as gateway:
        hanging, _ = receivers(gateway.process.pid)
        os.kill(hanging, signal.SIGSTOP)
        try:
            assert all(echo(gateway.node) for _ in range(10))
        finally:
            os.kill(hanging, signal.SIGCONT)


def test_connections_wait_while_a_receiver_is_started_again(tmp_path):
    with running_gateway(tmp_path, **SMALL) as gateway:
        (only,) = receivers(gateway.process.pid)
        os.kill(only, signal.SIGKILL)
        wait_until(lambda: not is_running(only))
        assert echo(gateway.node)


def test_without_a_living_receiver_health_is_503(tmp_path):
    with running_gateway(tmp_path, **SMALL) as gateway:
        url = f"http://127.0.0.1:{gateway.settings.http_port}/health"

        def is_down() -> bool:
            for receiver in receivers(gateway.process.pid):  # dying young again and again, it gets longer pauses
                os.kill(receiver, signal.SIGKILL)
            try:
                with urllib.request.urlopen(url, timeout=10):
                    return False
            except urllib.error.HTTPError as error:
                with error as answer:
                    return answer.code == 503 and json.load(answer)["status"] == "down"

        wait_until(is_down)


def test_children_end_when_the_parent_is_killed_and_a_new_one_takes_over(tmp_path):
    with pytest.raises(DidNotRun), running_gateway(tmp_path, local_workers=1) as gateway:  # noqa: PT012
        left = children(gateway.process.pid, "spawn_main")
        assert len(left) == 4  # two receivers, HTTP and the local worker
        gateway.process.kill()
        gateway.process.wait()
        wait_until(lambda: not any(is_running(child) for child in left))
    with running_gateway(tmp_path, dicom_port=gateway.settings.dicom_port, **SMALL) as second:
        assert echo(second.node)


def test_a_receiver_that_hangs_when_the_parent_is_killed_does_not_keep_the_ports(tmp_path):
    with pytest.raises(DidNotRun), running_gateway(tmp_path, receivers=2, local_workers=0) as gateway:  # noqa: PT012
        hanging, other = receivers(gateway.process.pid)
        os.kill(hanging, signal.SIGSTOP)
        gateway.process.kill()
        gateway.process.wait()
        wait_until(lambda: not is_running(other))
    try:
        with running_gateway(tmp_path, dicom_port=gateway.settings.dicom_port, **SMALL) as second:
            assert echo(second.node)
    finally:
        os.kill(hanging, signal.SIGKILL)


def test_what_was_stored_is_there_after_a_restart(tmp_path):
    files = write_files(tmp_path / "files", one_of_each().values())
    with running_gateway(tmp_path, **SMALL) as gateway:
        assert {sent.status for sent in store(gateway.node, files)} == {0x0000}
    with running_gateway(tmp_path, **SMALL) as gateway:
        assert gateway.health()["instances"] == len(files)


def leave_half_an_object(settings: Settings) -> Path:
    """Leave in the spool what a killed receiver leaves of an object that was being received."""
    half = Spool(settings.spool_dir).create()
    half.write(bytes(2**20))
    (path,) = half.folder.iterdir()
    return path


def test_what_a_killed_receiver_left_of_an_object_is_gone_after_a_restart(tmp_path):
    with running_gateway(tmp_path, **SMALL) as gateway:
        pass
    half = leave_half_an_object(gateway.settings)
    with running_gateway(tmp_path, **SMALL):
        assert not half.exists()


def test_what_a_receiver_that_outlives_its_parent_still_receives_is_left_alone(tmp_path):
    with running_gateway(tmp_path, **SMALL) as gateway:
        pass
    half = leave_half_an_object(gateway.settings)
    with data_folder.receiving(gateway.settings.data_dir), running_gateway(tmp_path, **SMALL):
        assert half.exists()


def test_its_receivers_tell_that_they_receive(tmp_path):
    with (
        running_gateway(tmp_path, **SMALL) as gateway,
        data_folder.is_received_into(gateway.settings.data_dir) as received,
    ):
        assert received
    with data_folder.is_received_into(gateway.settings.data_dir) as received:
        assert not received


def test_a_second_one_on_the_same_folder_is_refused_in_one_sentence(tmp_path):
    with running_gateway(tmp_path, **SMALL) as gateway:
        said = refused_serve(gateway.settings.model_copy(update={"dicom_port": 0, "http_port": 0}))
        assert f"process {gateway.process.pid}" in said
        assert "another --data-dir" in said


@pytest.mark.parametrize("key", ["dicom_port", "http_port"])
def test_a_port_that_is_taken_is_refused_in_one_sentence(tmp_path, key):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"dicom_port": 0, "http_port": 0, key: port}
        said = refused_serve(Settings(data_dir=tmp_path / "data", dicom_host="127.0.0.1", **ports))
    assert said == f"thinfilm: The gateway cannot listen on 127.0.0.1 port {port}: Address already in use."


@pytest.mark.parametrize("key", ["dicom_host", "http_host"])
def test_a_host_that_can_be_none_is_refused_in_one_sentence(tmp_path, key):
    hosts = {"dicom_host": "127.0.0.1", key: "a..b"}
    said = refused_serve(Settings(data_dir=tmp_path / "data", dicom_port=0, http_port=0, **hosts))
    assert said == "thinfilm: The gateway cannot listen on a..b port 0: this can be no name of a host."


def test_the_health_page_may_have_an_ipv6_address(tmp_path):
    with (
        running_gateway(tmp_path, http_host="::1", **SMALL) as gateway,
        urllib.request.urlopen(f"http://[::1]:{gateway.settings.http_port}/health", timeout=10) as answer,
    ):
        assert json.load(answer)["status"] == "ok"


def test_a_port_that_another_gateway_listens_on_is_refused(tmp_path):
    with running_gateway(tmp_path, **SMALL) as gateway:
        places = {"data_dir": tmp_path / "other", "http_port": 0}
        assert "Address already in use" in refused_serve(gateway.settings.model_copy(update=places))


def test_a_data_folder_that_cannot_be_made_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    said = refused_serve(Settings(data_dir=tmp_path / "file" / "data", dicom_port=0, http_port=0))
    assert "cannot be made" in said


def test_an_unknown_codec_is_refused_in_one_sentence(tmp_path):
    settings = Settings(data_dir=tmp_path, dicom_port=0, http_port=0, lossless_codecs=("jpegxxl",))
    assert "No codec is called 'jpegxxl'" in refused_serve(settings)


def test_tables_that_are_missing_in_postgresql_are_refused_with_the_command_that_makes_them(tmp_path):
    with postgres() as server:
        settings = Settings(data_dir=tmp_path, dicom_port=0, http_port=0, database_url=server.url())
        assert "run `thinfilm db upgrade`" in refused_serve(settings)


def test_health_is_503_while_the_index_is_away_and_200_when_it_is_back(tmp_path):
    with postgres() as server:
        url = server.url()
        database = Database(url)
        database.upgrade()
        database.dispose()
        with running_gateway(tmp_path, database_url=url, **SMALL) as gateway:
            assert gateway.health()["status"] == "ok"
            with psycopg.connect(host="127.0.0.1", port=server.port, user="thinfilm", dbname="template1") as admin:
                admin.autocommit = True
                admin.execute("ALTER DATABASE postgres ALLOW_CONNECTIONS false")
                admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'postgres'")
                assert gateway.health()["status"] == "down"
                admin.execute("ALTER DATABASE postgres ALLOW_CONNECTIONS true")
            assert gateway.health()["status"] == "ok"


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_a_log_that_cannot_be_written_keeps_nobody_from_working(tmp_path, redirection):
    settings = Settings(
        data_dir=tmp_path / "data",
        dicom_port=free_port(),
        http_port=free_port(),
        minimum_free_bytes=0,
        log_level="debug",
        **SMALL,
    )
    others = {key: value for key, value in os.environ.items() if not key.startswith(ENVIRONMENT_PREFIX)}
    process = subprocess.Popen(
        ["/bin/sh", "-c", f'exec "$0" -m thinfilm_gateway serve {redirection}', sys.executable],
        env=others | settings.to_environment(),
    )
    node = Node("127.0.0.1", settings.dicom_port, settings.ae_title)
    try:
        wait_until(lambda: process.poll() is not None or listens(settings.http_port))
        with urllib.request.urlopen(f"http://127.0.0.1:{settings.http_port}/health", timeout=60) as answer:
            assert json.load(answer)["status"] == "ok"
        assert echo(node)
        (sent,) = store(node, write_files(tmp_path / "files", [next(iter(one_of_each().values()))]))
        assert sent.status == 0x0000
    finally:
        process.terminate()
        ended = process.wait(WAIT_SECONDS)
    assert ended == 0


def test_health_tells_that_objects_are_refused_for_want_of_space(tmp_path):
    files = write_files(tmp_path / "files", [next(iter(one_of_each().values()))])
    with running_gateway(tmp_path, minimum_free_bytes=2**60, **SMALL) as gateway:
        assert [sent.status for sent in store(gateway.node, files)] == [0xA700]
        health = gateway.health()
        assert health["status"] == "degraded"
        assert 0 < health["free_bytes"] < 2**60
        assert "C-STORE is refused" in health["reason"]
        assert "minimum_free_bytes" in health["reason"]
        shown = command.status(gateway.settings).to_json()
        assert shown["refusal"].startswith("C-STORE is refused")


def test_health_tells_that_a_folder_is_gone_and_that_it_is_back(tmp_path):
    with running_gateway(tmp_path, **SMALL) as gateway:
        incoming = gateway.settings.spool_dir / "incoming"
        incoming.rename(tmp_path / "aside")
        health = gateway.health()
        assert health["status"] == "degraded"
        assert health["reason"] == f"C-STORE is refused: {incoming} cannot be written; let this user write it."
        (tmp_path / "aside").rename(incoming)
        assert gateway.health()["status"] == "ok"


def test_the_page_for_people_shows_the_same_counts(tmp_path):
    with running_gateway(tmp_path, **SMALL) as gateway:
        url = f"http://127.0.0.1:{gateway.settings.http_port}"
        with urllib.request.urlopen(f"{url}/", timeout=10) as answer:
            page = answer.read().decode()
        assert answer.headers["Content-Type"].startswith("text/html")
        assert "<th>instances</th><td>0</td>" in page
        with pytest.raises(urllib.error.HTTPError, match="404") as caught:
            urllib.request.urlopen(f"{url}/other", timeout=10)
        caught.value.close()
