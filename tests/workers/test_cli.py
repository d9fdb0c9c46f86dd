import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from support.datasets import ct_series
from support.house import House, flip_byte
from support.servers import stoppable_postgres
from thinfilm_gateway.data_folder import held, receiving
from thinfilm_gateway.index.database import Database

EMBEDDED = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def _thinfilm(house: House, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, **house.context.settings.to_environment()}
    command = [sys.executable, "-m", "thinfilm_gateway", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@EMBEDDED
def test_scrub_tells_what_is_damaged_and_fails(house: House) -> None:
    house.receive(ct_series(2))
    house.work()
    result = _thinfilm(house, "scrub", "--json")
    assert (result.returncode, json.loads(result.stdout)["damages"]) == (0, [])

    flip_byte(house.spool_path(house.instances()[0]), -1)
    result = _thinfilm(house, "scrub", "--json")
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert (report["dropped"], len(report["damages"])) == (1, 1)
    assert report["damages"][0] in result.stderr
    assert "Traceback" not in result.stderr


@EMBEDDED
def test_retry_brings_back_what_was_left_as_received(
    build_house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    house = build_house(max_attempts=1)
    series = ct_series(2)
    house.receive(series)

    def closed(key: str, source: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as disk:
        disk.setattr(house.context.store, "put", closed)
        house.work()
    assert house.states() == ["as_received"] * 2

    result = _thinfilm(house, "retry")
    assert (result.returncode, result.stdout) == (0, "2 instances wait for compression again\n")
    house.work()
    house.assert_archived(series)


@EMBEDDED
def test_reindex_refuses_an_index_that_is_not_empty_and_rebuilds_one_that_was_moved_aside(
    build_house: Callable[..., House], tmp_path: Path
) -> None:
    shutil.move(tmp_path / "index.sqlite", tmp_path / "data.sqlite")
    house = build_house(database_url=f"sqlite:///{tmp_path / 'data.sqlite'}")
    series = ct_series(3)
    house.receive(series)
    house.work()
    result = _thinfilm(house, "reindex")
    assert result.returncode == 1
    assert "not empty" in result.stderr
    assert "Traceback" not in result.stderr

    house.context.database.dispose()
    (tmp_path / "data.sqlite").rename(tmp_path / "aside.sqlite")
    result = _thinfilm(house, "reindex", "--json")
    assert result.returncode == 0, result.stderr
    counts = {"containers": 1, "instances": 3, "spool_copies": 3}
    assert json.loads(result.stdout) == counts | {"damages": [], "missing": []}
    house.assert_archived(series)


@pytest.mark.parametrize("command", ["reindex", "tidy"])
@pytest.mark.parametrize(
    ("holder", "said"),
    [(held, "uses the data folder"), (receiving, "still end what they receive into")],
)
def test_what_must_be_alone_is_refused_while_a_gateway_or_what_it_left_is_at_work(
    tmp_path: Path, command: str, holder: Callable[[Path], AbstractContextManager[None]], said: str
) -> None:
    environment = {**os.environ, "THINFILM_DATA_DIR": str(tmp_path), "THINFILM_DATABASE_URL": ""}
    called = [sys.executable, "-m", "thinfilm_gateway", command]
    with holder(tmp_path):
        result = subprocess.run(called, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    (sentence,) = result.stderr.splitlines()
    assert f"{said} {tmp_path}" in sentence


@EMBEDDED
def test_a_command_without_a_data_folder_says_so_and_makes_no_folders(house: House, tmp_path: Path) -> None:
    for command in ("worker", "scrub", "retry"):
        environment = {**os.environ, "THINFILM_DATA_DIR": str(tmp_path / "nowhere")}
        result = subprocess.run(
            [sys.executable, "-m", "thinfilm_gateway", command], env=environment, capture_output=True, text=True
        )
        assert result.returncode == 1
        assert result.stderr.startswith("thinfilm: The data folder ")
        assert "does not exist" in result.stderr
        assert "Traceback" not in result.stderr
    assert not (tmp_path / "nowhere").exists()


def test_db_check_fails_with_the_mend_where_the_database_would_not_outlive_a_power_cut(tmp_path: Path) -> None:
    with stoppable_postgres(fsync="off") as (server, _):
        database = Database(server.url())
        database.upgrade()
        database.dispose()
        environment = {**os.environ, "THINFILM_DATABASE_URL": server.url(), "THINFILM_DATA_DIR": str(tmp_path)}
        command = [sys.executable, "-m", "thinfilm_gateway", "db", "check"]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        retried = subprocess.run([*command[:-2], "retry"], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("thinfilm: PostgreSQL runs with fsync = off: after a power cut")
    assert retried.returncode == 0
    assert "index_not_durable" in retried.stderr, "whoever only works with the index is warned"
