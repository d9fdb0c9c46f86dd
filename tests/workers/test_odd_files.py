"""Files of any content in spool and archive: rebuild, sweep and scrub go on past them, and serve no wrong byte.

THINFILM_FUZZ is how many are made up; those in tests/corpus are read in every run.
"""

import datetime as dt
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support.datasets import EncodedDataSet, ct_series, mr_series, structured_report
from support.house import House
from support.mutations import mutated
from thinfilm_gateway.archive.container.format import DamagedContainer
from thinfilm_gateway.archive.objects import IntegrityError, ObjectReader
from thinfilm_gateway.archive.store import new_key
from thinfilm_gateway.dicom import part10
from thinfilm_gateway.index.states import InstanceState
from thinfilm_workers.jobs.reindex import reindex
from thinfilm_workers.jobs.scrub import scrub
from thinfilm_workers.jobs.sweep import tidy

FILES = int(os.environ.get("THINFILM_FUZZ", "60"))
CORPUS = Path(__file__).parents[1] / "corpus"
GOOD = [*ct_series(3, 32), *mr_series(2), structured_report()]
WAITING = ct_series(2, 32, series="waiting")


@pytest.fixture
def house(tmp_path: Path, sqlite_template: Path) -> Iterator[House]:
    """What is good: some objects in containers and in the spool, some in the spool alone."""
    house = _house(tmp_path, sqlite_template, "index")
    house.receive(GOOD)
    house.work()
    house.receive(WAITING)
    yield house
    house.context.database.dispose()


def _house(folder: Path, sqlite_template: Path, name: str) -> House:
    index = folder / f"{name}.sqlite"
    index.write_bytes(sqlite_template.read_bytes())
    return House.build(folder, f"sqlite:///{index}")


def add_container(house: House, content: bytes) -> None:
    path = house.container_path(new_key())
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def add_spool_file(house: House, content: bytes, promised: str | None = None) -> None:
    """Add a file under the SHA-256 that it has, or under another."""
    header = part10.locate(content)
    own = hashlib.sha256(content[header.dataset_offset if header else 0 :]).hexdigest()
    house.context.spool.path(secrets.token_hex(16) + (promised or own)).write_bytes(content)


def make_odd_files(house: House, count: int, seed: int) -> None:
    """Spoil copies of what is there, under other names."""
    random = np.random.default_rng(seed)
    containers = [house.container_path(container.key).read_bytes() for container in house.containers()]
    spooled = [(house.spool_path(row).read_bytes(), row.sha256) for row in house.instances() if row.spool_name]
    for number in range(count):
        other = containers[number % len(containers)]
        if number % 2:
            add_container(house, mutated(containers[random.integers(len(containers))], other, random))
        else:
            content, sha256 = spooled[random.integers(len(spooled))]
            add_spool_file(house, mutated(content, other, random), sha256 if random.random() < 0.5 else None)


def assert_served_right(house: House, objects: list[EncodedDataSet]) -> None:
    """Fail unless every row that may be served gives its own bytes or none, and these objects are among them."""
    reader = ObjectReader(house.context.spool, house.context.store, 1 << 20)
    served: set[tuple[str, str]] = set()
    for row in house.instances():
        if row.state is InstanceState.QUARANTINED:
            continue
        try:
            with reader.fetch(house._location(row)) as fetched:
                assert hashlib.sha256(fetched.dataset).hexdigest() == row.sha256
        except (IntegrityError, DamagedContainer):
            continue
        served.add((row.sop_instance_uid, row.sha256))
    reader.close()
    assert served >= {(one.sop_instance_uid, hashlib.sha256(one.dataset).hexdigest()) for one in objects}


def test_odd_files_keep_no_good_one_from_being_entered_and_served(
    house: House, tmp_path: Path, sqlite_template: Path
) -> None:
    make_odd_files(house, FILES, seed=1)
    for path in sorted((CORPUS / "containers").iterdir()):
        add_container(house, path.read_bytes())
    for path in sorted((CORPUS / "spool_files").iterdir()):
        add_spool_file(house, path.read_bytes())

    rebuilt = _house(tmp_path, sqlite_template, "rebuilt")
    report = reindex(rebuilt.context)

    assert report.damages
    assert all(sentence.endswith(".") for sentence in report.damages)
    assert_served_right(rebuilt, [*GOOD, *WAITING])
    scrub(rebuilt.context)
    tidy(rebuilt.context, dt.timedelta(0))
    rebuilt.work()
    assert_served_right(rebuilt, [*GOOD, *WAITING])
    rebuilt.context.database.dispose()


def test_the_sweep_goes_past_odd_files_and_costs_nothing_that_is_kept(house: House) -> None:
    make_odd_files(house, FILES, seed=2)
    tidy(house.context, dt.timedelta(0))
    house.work()
    scrub(house.context)
    assert_served_right(house, [*GOOD, *WAITING])
