"""Health that tells the truth: each thing that is wrong is a warning with its mend, in all places that tell of it."""

import datetime as dt
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from support.certificates import make_certificates
from support.datasets import ct_series
from support.gateway import running_gateway
from support.receiver import wait_until
from support.scu import store_all
from thinfilm_codecs.lossless.neural import compiled
from thinfilm_gateway import certificates, data_folder, health, installation
from thinfilm_gateway.commands import status as command
from thinfilm_gateway.config import Settings
from thinfilm_gateway.health_warning import HealthWarning
from thinfilm_gateway.heart import Heart, process_name
from thinfilm_gateway.index import heartbeats, jobs, volumes
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.heartbeats import Beat
from thinfilm_gateway.index.models import Instance, Job
from thinfilm_gateway.index.states import InstanceState, JobState
from thinfilm_gateway.lasting_thread import LastingThread

NOW = dt.datetime(2026, 12, 1, 12, tzinfo=dt.UTC)
QUEUES = (jobs.COMPRESS_CPU, jobs.MAINTENANCE)
BROKEN = HealthWarning("kernel_wrong avx2", "The kernel avx2 computes wrongly and is not used; replace the processor.")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Database]:
    """An index without a gateway."""
    database = Database(f"sqlite:///{tmp_path / 'index.sqlite'}")
    database.upgrade()
    yield database
    database.dispose()


def _warnings(database: Database, now: dt.datetime = NOW, **overrides: Any) -> dict[str, str]:
    folder = Path(str(database.url.database)).parent
    values = {"data_dir": folder, "minimum_free_bytes": 0, "warning_free_bytes": 0, **overrides}
    settings = Settings(**values)
    with database.reading() as session:
        room = data_folder.room(settings, volumes.known(session))
        found = health.warnings(settings, session, room, now)
    return {warning.name: warning.sentence for warning in found}


def _beat(database: Database, name: str = "ct1:17", at: dt.datetime = NOW, **values: Any) -> None:
    beat = Beat(name, heartbeats.CELERY_WORKER, values.get("queues", QUEUES), at, values.get("warnings", ()))
    with database.session() as session:
        heartbeats.record(session, beat, at)


def _job(database: Database, **values: Any) -> None:
    row = {
        "kind": jobs.COMPRESS,
        "queue": jobs.COMPRESS_CPU,
        "state": JobState.WAITING,
        "not_before": NOW - dt.timedelta(minutes=1),
        "created_at": NOW - dt.timedelta(minutes=1),
        "attempts": 0,
    }
    with database.session() as session:
        session.add(Job(**(row | values)))


def test_nothing_is_wrong_with_an_idle_gateway_that_has_no_worker(index: Database) -> None:
    assert _warnings(index) == {}


def test_jobs_that_are_due_while_no_worker_lives_are_a_warning_until_one_does(database: Database) -> None:
    _job(database)
    settings = {"data_dir": Path.cwd(), "broker_url": "redis://nobody.example.org/0"}
    with database.reading() as session:
        (warning,) = health._of_workers(Settings(**settings), session, (), NOW)
    assert warning == HealthWarning(
        "no_worker compress.cpu",
        "No worker of the queue compress.cpu lives, and 1 jobs are due; look at the Celery workers.",
    )
    _beat(database)
    with database.reading() as session:
        beats = heartbeats.living(session, NOW)
        assert health._of_workers(Settings(**settings), session, beats, NOW) == []


def test_a_worker_of_other_queues_takes_no_job_of_this_one(index: Database) -> None:
    _job(index)
    _beat(index)
    assert _warnings(index) == {}
    assert set(_warnings(index, gpu_workers=True, broker_url="redis://x/0")) == {"no_worker compress.gpu"}
    _beat(index, "gpu1:3", queues=(jobs.COMPRESS_GPU,))
    assert _warnings(index, gpu_workers=True, broker_url="redis://x/0") == {}


@pytest.mark.parametrize("silence", [heartbeats.ALIVE, -heartbeats.ALIVE, dt.timedelta(hours=3)])
def test_a_worker_that_has_been_silent_or_beats_in_the_future_does_not_live(
    index: Database, silence: dt.timedelta
) -> None:
    _job(index)
    _beat(index, at=NOW - silence * 1.1)
    assert set(_warnings(index)) == {"no_worker compress.cpu"}


def test_a_process_that_takes_leave_or_is_silent_for_a_day_is_forgotten(database: Database) -> None:
    _beat(database, "old:1", NOW - dt.timedelta(days=2))
    _beat(database, "left:2")
    _beat(database, "stays:3")
    with database.session() as session:
        heartbeats.leave(session, "left:2")
    with database.reading() as session:
        assert session.query(heartbeats.Heartbeat.name).all() == [("stays:3",)]


def test_a_process_that_beats_again_keeps_its_one_row(database: Database) -> None:
    for seconds in range(3):
        _beat(database, at=NOW + dt.timedelta(seconds=seconds), warnings=(BROKEN,) * (seconds == 2))
    with database.reading() as session:
        (beat,) = heartbeats.living(session, NOW)
    assert (beat.name, beat.host, beat.queues, beat.warnings) == ("ct1:17", "ct1", QUEUES, (BROKEN,))


def test_what_processes_find_wrong_with_themselves_is_said_once_a_host(index: Database) -> None:
    for name in ("a:1", "a:2", "b:1"):
        _beat(index, name, warnings=(BROKEN,))
    assert _warnings(index) == {
        "kernel_wrong avx2 on a": f"On a: {BROKEN.sentence}",
        "kernel_wrong avx2 on b": f"On b: {BROKEN.sentence}",
    }


def test_a_heart_beats_and_takes_leave(database: Database) -> None:
    heart = Heart(database, heartbeats.LOCAL_WORKER, QUEUES, lambda: [BROKEN])
    heart.start()

    def living() -> list[Beat]:
        with database.reading() as session:
            return heartbeats.living(session, dt.datetime.now(dt.UTC))

    wait_until(lambda: bool(living()), "it has beaten")
    assert [(beat.name, beat.kind, beat.warnings) for beat in living()] == [
        (process_name(), heartbeats.LOCAL_WORKER, (BROKEN,))
    ]
    heart.stop()
    assert living() == []


@pytest.mark.parametrize(
    ("values", "name", "words"),
    [
        ({"not_before": NOW - dt.timedelta(hours=2)}, "old_jobs", "1 jobs wait for more than an hour"),
        (
            {
                "not_before": NOW + dt.timedelta(minutes=1),
                "created_at": NOW - dt.timedelta(hours=5),
                "error": "The archive is full.",
            },
            "old_jobs",
            "the oldest since 2026-12-01 07:00 UTC (The archive is full); mend that",
        ),
        (
            {"state": JobState.RUNNING, "lease_until": NOW - dt.timedelta(minutes=6), "lease_owner": "gone:1"},
            "jobs_not_freed",
            "1 jobs whose worker is gone",
        ),
        ({"state": JobState.FAILED}, "jobs_failed", "then `thinfilm retry`"),
    ],
)
def test_jobs_that_do_not_move_are_a_warning(index: Database, values: dict[str, Any], name: str, words: str) -> None:
    _beat(index)
    _job(index, **values)
    found = _warnings(index)
    assert list(found) == [name]
    assert words in found[name]


@pytest.mark.parametrize(
    "values",
    [
        {"not_before": NOW - dt.timedelta(minutes=59)},
        {"not_before": NOW + dt.timedelta(minutes=1), "created_at": NOW - dt.timedelta(hours=5)},  # still arriving
        {"state": JobState.RUNNING, "lease_until": NOW + dt.timedelta(minutes=6), "created_at": NOW},
        {"state": JobState.DONE, "not_before": NOW - dt.timedelta(days=9)},
    ],
)
def test_jobs_that_move_are_none(index: Database, values: dict[str, Any]) -> None:
    _beat(index)
    _job(index, **values)
    assert _warnings(index) == {}


@pytest.mark.parametrize(
    ("left", "name", "words"),
    [
        (dt.timedelta(days=31), None, ""),
        (dt.timedelta(days=29), "certificate_ends tls_certificate", "ends on "),
        (dt.timedelta(0), "certificate_ended tls_certificate", "and TLS is refused"),
        (dt.timedelta(days=61), "certificate_begins tls_certificate", "set the clock of this host right"),
    ],
)
def test_certificates_that_end_soon_or_have_ended_are_a_warning(
    index: Database, tmp_path: Path, left: dt.timedelta, name: str | None, words: str
) -> None:
    pair = make_certificates(tmp_path, days=60).gateway
    (validity,) = certificates.validities(pair.certificate)
    assert validity.ends - validity.begins == dt.timedelta(days=60)
    settings = {"dicom_tls_port": 2762, "tls_certificate": pair.certificate, "tls_key": pair.key}
    found = _warnings(index, validity.ends - left, **settings)
    assert set(found) == {name} - {None}
    assert words in "".join(found.values())
    assert _warnings(index, validity.ends - left, **(settings | {"dicom_tls_port": None})) == {}, "TLS is not used"


def test_an_authority_and_a_chain_are_looked_at_too(index: Database, tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    chain = tmp_path / "chain.pem"
    chain.write_bytes(b"".join(pair.certificate.read_bytes() for pair in (made.gateway, made.expired, made.authority)))
    found = _warnings(
        index,
        dt.datetime.now(dt.UTC),
        dicom_tls_port=2762,
        tls_certificate=chain,
        tls_key=made.gateway.key,
        tls_ca=made.authority.certificate,
    )
    assert set(found) == {"certificate_ended tls_certificate", "certificate_ends tls_ca"}


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nMAAwADAA\n-----END CERTIFICATE-----\n"])
def test_a_certificate_that_is_gone_or_none_is_a_warning_not_an_end(
    index: Database, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "gateway.pem"
    if content is not None:
        file.write_bytes(content)
    found = _warnings(index, dicom_tls_port=2762, tls_certificate=file, tls_key=file)
    assert set(found) == {"certificate_unreadable tls_certificate"}


def test_a_kernel_that_was_not_built_is_a_warning_where_its_codec_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installation.warnings(Settings()) == []
    monkeypatch.setattr(compiled, "_kernel", None)
    (warning,) = installation.warnings(Settings())
    assert (warning.name, "was not built" in warning.sentence) == ("codec_unusable neural", True)
    assert installation.warnings(Settings(lossless_codecs=("jpegls",))) == []


def test_status_health_page_and_log_say_the_same_and_the_log_once(tmp_path: Path) -> None:
    with running_gateway(tmp_path, receivers=1, local_workers=0, series_quiet_seconds=0) as gateway:
        database = Database(gateway.settings.index_url)
        assert gateway.health()["warnings"] == []
        assert [answer.status for answer in store_all(gateway.settings.dicom_port, ct_series(1))] == [0]
        with database.session() as session:  # by the clock that its sender has
            session.execute(update(Job).values(not_before=dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)))
            session.execute(update(Instance).values(state=InstanceState.QUARANTINED))
        names = ["no_worker compress.cpu", "quarantined"]
        told = gateway.health()
        assert ([warning["name"] for warning in told["warnings"]], told["status"]) == (names, "degraded")
        assert told["reason"] == told["warnings"][0]["sentence"]
        result = command.status(gateway.settings)
        assert result.to_json()["warnings"] == told["warnings"]
        assert told["reason"] in str(command.render(result).renderables[2])  # type: ignore[attr-defined]

        def lines(event: str) -> list[str]:
            found = [json.loads(line) for line in gateway.log.read_text().splitlines() if f'"{event}"' in line]
            return sorted(line["name"] for line in found)

        wait_until(lambda: lines("health_warning") == names, "the log tells of both")
        with database.session() as session:
            heartbeats.record(session, Beat("w:1", heartbeats.LOCAL_WORKER, QUEUES, NOW), dt.datetime.now(dt.UTC))
        wait_until(lambda: lines("health_warning_over") == names[:1], "the log tells that one is over")
        assert lines("health_warning") == names, "once"
        database.dispose()


def test_workers_are_counted_by_their_beats_and_a_killed_one_at_once_no_more(tmp_path: Path) -> None:
    with running_gateway(tmp_path, receivers=1, local_workers=2) as gateway:

        def workers() -> dict[str, Any]:
            return {one["name"]: one for one in command.status(gateway.settings).to_json()["workers"]}

        wait_until(lambda: len(workers()) == 2, "both live")
        killed = sorted(workers())[0]
        os.kill(int(killed.rpartition(":")[2]), signal.SIGKILL)
        wait_until(lambda: killed not in workers() and len(workers()) == 2, "another one lives in its place")
    assert workers() == {}, "they took leave"


def test_a_thread_that_fails_is_a_warning_of_its_process(index: Database) -> None:
    def fail() -> None:
        raise RuntimeError("no such thing")

    thread = LastingThread("dispatcher", fail)
    heart = Heart(index, heartbeats.GATEWAY, (), list, [thread])
    heart.start()
    thread.start()
    name = f"thread_fails dispatcher on {process_name().rpartition(':')[0]}"
    wait_until(lambda: name in _warnings(index, dt.datetime.now(dt.UTC)), "it is told of")
    assert "no such thing" in _warnings(index, dt.datetime.now(dt.UTC))[name]
    thread.stop()
    wait_until(lambda: _warnings(index, dt.datetime.now(dt.UTC)) == {}, "it is over")
    heart.stop()


def test_a_process_that_keeps_dying_is_a_warning(tmp_path: Path) -> None:
    with running_gateway(tmp_path, receivers=2, local_workers=0) as gateway:

        def pids() -> list[int]:
            lines = gateway.log.read_text().splitlines()
            return [json.loads(line)["pid"] for line in lines if '"process_started"' in line and '"receiver 2"' in line]

        for deaths in (1, 2):
            wait_until(lambda deaths=deaths: len(pids()) == deaths, "it is started")
            os.kill(pids()[-1], signal.SIGKILL)
        name = f"process_died receiver 2 on {process_name().rpartition(':')[0]}"
        wait_until(lambda: name in {warning["name"] for warning in gateway.health()["warnings"]}, "it is told of")
