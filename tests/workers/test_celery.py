import datetime as dt
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import update

from support.datasets import ct_series, mr_series, structured_report
from support.house import House
from support.receiver import wait_until
from support.servers import free_port, redis, stoppable_redis
from thinfilm_gateway.config import ENVIRONMENT_PREFIX, Settings
from thinfilm_gateway.dispatch import Broker, BrokerAway, Dispatcher, send_due
from thinfilm_gateway.index import heartbeats
from thinfilm_gateway.index.heartbeats import Beat
from thinfilm_gateway.index.jobs import COMPRESS_CPU, COMPRESS_GPU, MAINTENANCE
from thinfilm_gateway.index.models import Job
from thinfilm_gateway.policy.lossless import Treatment
from thinfilm_workers.celery_app import create_app
from thinfilm_workers.context import Context
from thinfilm_workers.jobs.sweep import sweep

THINFILM = (sys.executable, "-m", "thinfilm_gateway")


@pytest.fixture(scope="module")
def broker_url() -> Iterator[str]:
    """A Redis server of our own."""
    with redis() as url:
        yield url


@pytest.fixture
def house(build_house: Callable[..., House], broker_url: str) -> Iterator[House]:
    """A house whose jobs go through an empty broker."""
    with Redis.from_url(broker_url) as client:
        client.flushall()
    return build_house(broker_url=broker_url, log_level="warning")


@contextmanager
def _celery_worker(house: House, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker as the operations guide has it."""
    with _celery("worker", *(options or ("--concurrency", "1")), settings=house.context.settings) as process:
        yield process


@contextmanager
def _celery(*arguments: str, settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program of Celery with these settings in its environment."""
    process = subprocess.Popen(
        [*THINFILM, "celery", *arguments],
        env=_without_settings() | settings.to_environment(),
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _without_settings() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(ENVIRONMENT_PREFIX)}


def _children(process: subprocess.Popen[bytes]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def _flush(url: str) -> None:
    with Redis.from_url(url) as client:
        client.flushall()


def _make_sent_long_ago(house: House) -> None:
    with house.context.database.session() as session:
        session.execute(update(Job).values(sent_at=dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)))


def _await_archived(house: House) -> None:
    wait_until(lambda: set(house.states()) == {"archived"}, "everything is archived")


def test_celery_workers_do_the_jobs_and_a_wiped_broker_loses_none(house: House, broker_url: str) -> None:
    lost, sent_later, dispatched = ct_series(3), mr_series(3), [structured_report()]
    database = house.context.database
    broker = Broker(broker_url)
    house.receive(lost)
    assert send_due(database, broker) == 1
    _flush(broker_url)
    with _celery_worker(house) as process:
        assert send_due(database, broker) == 0, "it counts as sent"
        _make_sent_long_ago(house)
        sweep(house.context)
        _await_archived(house)

        _flush(broker_url)  # under the eyes of the worker, and of a sender that has declared its queues before
        house.receive(sent_later)
        assert send_due(database, broker) == 1
        _await_archived(house)

        dispatcher = Dispatcher(database, Broker(broker_url))
        dispatcher.start()
        house.receive(dispatched)
        _await_archived(house)
        dispatcher.stop()
        assert not dispatcher.is_alive()

        process.terminate()
        assert process.wait(30) == 0
    broker.close()
    house.assert_archived([*lost, *sent_later, *dispatched])
    assert {job.state for job in house.jobs()} == {"done"}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_broker_that_is_stopped_and_started_empty_delays_jobs_and_loses_none(
    build_house: Callable[..., House],
) -> None:
    first, second = ct_series(2), mr_series(2)
    with stoppable_redis() as (url, server):
        house = build_house(broker_url=url, log_level="warning")
        dispatcher = Dispatcher(house.context.database, Broker(url))
        with _celery_worker(house):
            dispatcher.start()
            house.receive(first)
            _await_archived(house)
            server.stop()
            house.receive(second)
            with pytest.raises(BrokerAway):
                sweep(house.context)
            server.start()
            _await_archived(house)
        dispatcher.stop()
    house.assert_archived([*first, *second])


def test_a_job_is_sent_once_until_it_may_have_been_lost(house: House, broker_url: str) -> None:
    broker = Broker(broker_url)
    house.receive(ct_series(2))
    assert send_due(house.context.database, broker) == 1
    assert send_due(house.context.database, broker) == 0
    assert send_due(house.context.database, broker, resend_after=dt.timedelta(0)) == 1
    with Redis.from_url(broker_url) as client:
        assert client.llen("compress.cpu") == 2
    broker.close()


def test_with_gpu_workers_compression_goes_to_their_queue_and_maintenance_does_not(
    house: House, broker_url: str
) -> None:
    broker = Broker(broker_url, gpu_workers=True)
    house.receive(ct_series(2))
    assert send_due(house.context.database, broker) == 1
    broker.send(7, MAINTENANCE)
    broker.close()
    with Redis.from_url(broker_url) as client:
        assert [client.llen(queue) for queue in (COMPRESS_CPU, COMPRESS_GPU, MAINTENANCE)] == [0, 1, 1]


def test_a_worker_tries_as_hard_as_the_settings_say_and_one_with_a_gpu_as_hard_as_it_can(
    build_house: Callable[..., House],
) -> None:
    opened = build_house(lossless_codecs=("neural", "jpegls"), lossless_preset="fast").context
    on_cpu = Context.over(opened.settings, opened.database).treatment
    on_gpu = Context.over(opened.settings, opened.database, on_gpu=True).treatment
    assert on_cpu == Treatment(("neural", "jpegls"), "fast", "cpu")
    assert on_gpu == Treatment(("neural", "jpegls"), "max", "cuda")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_comes_through_the_queue_of_the_gpu_workers_is_for_the_gpu(
    build_house: Callable[..., House], broker_url: str
) -> None:
    """On a machine without a GPU the job says so; nothing is coded otherwise behind the back of who set it up."""
    house = build_house(broker_url=broker_url, max_attempts=1, lossless_codecs=("neural",), log_level="error")
    _flush(broker_url)
    series = ct_series(1)
    house.receive(series)
    broker = Broker(broker_url, gpu_workers=True)
    send_due(house.context.database, broker)
    broker.close()
    with _celery_worker(house, "--queues", "compress.gpu", "--pool", "solo"):
        wait_until(lambda: house.jobs()[0].state in ("done", "failed"), "the job has ended")
    (job,) = house.jobs()
    if job.state == "failed":
        assert "'cuda'" in str(job.error)
        assert house.states() == ["as_received"]
    house.assert_retrievable(series)


def test_a_job_that_is_not_due_is_not_sent(house: House, broker_url: str) -> None:
    broker = Broker(broker_url)
    house.receive(ct_series(1), quiet=dt.timedelta(hours=1))
    assert send_due(house.context.database, broker) == 0
    broker.close()


def test_without_a_broker_jobs_wait_in_the_table_and_the_dispatcher_waits_for_it(house: House) -> None:
    away = f"redis://127.0.0.1:{free_port()}/0"
    house.receive(ct_series(1))
    broker = Broker(away)
    with pytest.raises(BrokerAway):
        send_due(house.context.database, broker)
    broker.close()
    assert house.jobs()[0].sent_at is None
    dispatcher = Dispatcher(house.context.database, Broker(away))
    dispatcher.start()
    dispatcher.join(0.2)
    assert dispatcher.is_alive()
    dispatcher.stop()


def test_messages_carry_ids_only_and_outlive_the_longest_job() -> None:
    app = create_app(Settings(broker_url="redis://127.0.0.1:1/0"))
    assert app.conf.task_acks_late
    assert app.conf.task_reject_on_worker_lost
    assert not app.conf.worker_cancel_long_running_tasks_on_connection_loss
    assert app.conf.worker_prefetch_multiplier == 1
    assert app.conf.broker_transport_options["visibility_timeout"] > app.conf.task_time_limit
    assert app.conf.accept_content == ["json"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_worker_and_beat_take_everything_from_one_settings_file(house: House, tmp_path: Path) -> None:
    """No dispatcher runs: it is the sweep, which beat sends at its start, that sends the job."""
    kept = house.context.settings
    file = tmp_path / "site.toml"
    file.write_text(
        f'data_dir = "{kept.data_dir}"\ndatabase_url = "{kept.database_url}"\nbroker_url = "{kept.broker_url}"\n'
        'lossless_codecs = ["jpegls"]\nminimum_free_bytes = 0\nlog_level = "warning"\n'
    )
    by_option = [*THINFILM, "celery", "worker", "--config", str(file), "--concurrency", "1"]
    by_variable = [*THINFILM, "celery", "beat"]
    series = ct_series(2)
    house.receive(series)
    with (
        subprocess.Popen(by_option, env=_without_settings(), cwd=tmp_path, stdout=subprocess.DEVNULL) as worker,
        subprocess.Popen(
            by_variable, env=_without_settings() | {"THINFILM_CONFIG": str(file)}, cwd=tmp_path,
            stdout=subprocess.DEVNULL,
        ) as beat,
    ):  # fmt: skip
        try:
            _await_archived(house)
        finally:
            for process in (beat, worker):
                process.terminate()
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir()} == {"site.toml", "data", "index.sqlite"}
    house.assert_archived(series)


@pytest.mark.parametrize("program", ["worker", "beat"])
@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["--config", "none.toml"], {}, "The configuration file none.toml cannot be read: No such file or directory."),
        ([], {"THINFILM_CONFIG": "none.toml"}, "The configuration file none.toml cannot be read: No such file or"),
        ([], {"THINFILM_CONFIG": ""}, "THINFILM_CONFIG is empty; let it name the settings file, or unset it."),
        (["--data-dir", "."], {}, "Celery needs a broker_url, redis://HOST:6379/0, in the settings file"),
        ([], {"THINFILM_BROKER_URL": "redis://127.0.0.1:1/0"}, "The data folder thinfilm-data does not exist;"),
    ],
)
def test_what_a_celery_program_lacks_is_said_in_a_sentence_at_once(
    tmp_path: Path, program: str, arguments: list[str], environment: dict[str, str], sentence: str
) -> None:
    command = [*THINFILM, "celery", program, *arguments]
    ended = subprocess.run(
        command, env=_without_settings() | environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"thinfilm: {sentence}")
    assert len(ended.stderr.splitlines()) == 1


def test_celery_itself_refuses_our_application_without_a_broker_in_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "celery", "--app", "thinfilm_workers.app", "worker"]
    ended = subprocess.run(command, env=_without_settings(), cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.startswith("thinfilm: Celery needs a broker_url")


def test_a_wrong_option_of_celery_is_explained_with_exit_status_2(tmp_path: Path) -> None:
    command = [*THINFILM, "celery", "worker", "--data-dir", ".", "--concurency", "1"]
    environment = _without_settings() | {"THINFILM_BROKER_URL": "redis://127.0.0.1:1/0"}
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "No such option" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_processes_of_a_celery_worker_that_die_at_its_start_are_replaced(build_house: Callable[..., House]) -> None:
    series = ct_series(2)
    with stoppable_redis() as (url, server):
        server.stop()  # so that the worker is still starting
        house = build_house(broker_url=url, log_level="error")
        house.receive(series)
        with _celery_worker(house) as worker:
            wait_until(lambda: bool(_children(worker)), "the pool has a process")
            (child,) = _children(worker)
            os.kill(child, signal.SIGKILL)
            server.start()
            broker = Broker(url)
            assert send_due(house.context.database, broker) == 1
            broker.close()
            _await_archived(house)
            assert worker.poll() is None
            worker.terminate()
            assert worker.wait(30) == 0
    house.assert_archived(series)


def test_numpy_is_told_to_compute_on_one_thread_before_it_is_loaded() -> None:
    program = """
import os, sys
os.environ.pop("OPENBLAS_NUM_THREADS", None)
import thinfilm_workers.app
sys.exit("numpy" in sys.modules or os.environ["OPENBLAS_NUM_THREADS"] != "1")
"""
    subprocess.run([sys.executable, "-c", program], env=_with_broker(), check=True)


def test_no_module_of_the_workers_loads_torch() -> None:
    program = "import sys, thinfilm_workers.tasks, thinfilm_workers.local; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], env=_with_broker(), check=True)


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_celery_workers_are_counted_by_the_beats_of_the_processes_of_their_pool(house: House, pool: str) -> None:
    def living() -> list[Beat]:
        with house.context.database.reading() as session:
            return heartbeats.living(session, dt.datetime.now(dt.UTC))

    options = ("--queues", "compress.gpu,maintenance", "--concurrency", "2", "--pool", pool)
    with _celery_worker(house, *options):
        wait_until(lambda: len(living()) == (1 if pool == "solo" else 2), "they have beaten")
        assert {(beat.kind, beat.queues) for beat in living()} == {
            (heartbeats.CELERY_WORKER, (COMPRESS_GPU, MAINTENANCE))
        }


def _with_broker() -> dict[str, str]:
    return {**os.environ, "THINFILM_BROKER_URL": "redis://127.0.0.1:1/0"}
