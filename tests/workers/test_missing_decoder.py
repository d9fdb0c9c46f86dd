"""What decodes a container is not installed: it is named, and nothing is called damaged."""

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import pytest

from support.datasets import ct_series
from support.house import House
from support.installations import without_codec, without_neural_models
from thinfilm_codecs.lossless import model_files
from thinfilm_gateway import installation
from thinfilm_gateway.archive.store import StorageAway
from thinfilm_gateway.commands.expand import expand
from thinfilm_gateway.commands.inspect import inspect
from thinfilm_gateway.index.database import Database
from thinfilm_workers.jobs.reindex import reindex
from thinfilm_workers.jobs.scrub import scrub
from thinfilm_workers.jobs.sweep import tidy

SENTENCES = {
    "codec": "need the codec jpegls, which this version of Thinfilm does not have; install the version that wrote them",
    "model": "codec needs its model 4fce77a71bbb3ca7bdc3bf08153ae317, which is not installed; install Thinfilm again",
    "damaged model": "The file of the neural codec's model 4fce77a71bbb3ca7bdc3bf08153ae317 is damaged",
}
SERIES = ct_series(2, size=48)


@pytest.fixture(params=SENTENCES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def house(build_house: Callable[..., House], kind: str) -> House:
    """Return a house whose images lie in a container alone."""
    house = build_house(lossless_codecs=("jpegls",) if kind == "codec" else ("neural",))
    house.receive(SERIES)
    house.work()
    for instance in house.instances():
        house.spool_path(instance).unlink()
    with house.context.database.session() as session:
        for instance in house.instances():
            session.merge(instance).spool_name = None
    assert house.containers()[0].codecs == ("jpegls" if kind == "codec" else "neural")
    return house


@contextmanager
def lacking(kind: str, folder: Path) -> Iterator[None]:
    with without_codec("jpegls") if kind == "codec" else without_neural_models(folder, damaged=kind == "damaged model"):
        yield


def test_scrub_names_it_and_quarantines_nothing(house: House, kind: str, tmp_path: Path) -> None:
    with lacking(kind, tmp_path):
        report = scrub(house.context)
    assert report.damages == ()
    assert len(report.missing) == 1
    assert SENTENCES[kind] in report.missing[0]
    assert report.quarantined == 0
    assert house.states() == ["archived", "archived"]
    assert scrub(house.context).missing == ()
    house.assert_archived(SERIES)


def test_every_process_says_so_from_its_start(house: House, kind: str, tmp_path: Path) -> None:
    settings, database = house.context.settings, house.context.database
    assert installation.examination(settings, database)() == []
    with lacking(kind, tmp_path):
        found = installation.examination(settings, database)()
    assert [warning.sentence for warning in found if SENTENCES[kind] in warning.sentence]


def test_a_retrieval_fails_with_the_sentence_and_calls_nothing_damaged(house: House, kind: str, tmp_path: Path) -> None:
    with lacking(kind, tmp_path), pytest.raises(StorageAway, match=SENTENCES[kind]):
        house.assert_retrievable(SERIES)
    house.assert_retrievable(SERIES)


def test_expand_leaves_the_files_out_and_says_why(house: House, kind: str, tmp_path: Path) -> None:
    archive = house.container_path(house.containers()[0].key)
    with lacking(kind, tmp_path):
        found = expand(archive, tmp_path / "out")
        inspection = inspect(archive)
    assert (found.verified, found.damages) == (0, ())
    assert len(found.missing) == 1
    assert SENTENCES[kind] in found.missing[0]
    if kind != "codec":
        assert inspection.model_hashes == ("4fce77a71bbb3ca7bdc3bf08153ae317",)


def test_reindex_leaves_the_container_out_and_the_sweep_attaches_it_once_it_can_be_read(
    house: House, kind: str, tmp_path: Path, build_house: Callable[..., House]
) -> None:
    url = f"sqlite:///{tmp_path / 'rebuilt.sqlite'}"
    database = Database(url)
    database.upgrade()
    database.dispose()
    again = build_house(database_url=url)
    with lacking(kind, tmp_path):
        report = reindex(again.context)
        tidy(again.context, dt.timedelta(0), attach_after=dt.timedelta(0))
    assert (report.damages, report.instances) == ((), 0)
    assert SENTENCES[kind] in report.missing[0]
    assert house.container_path(house.containers()[0].key).exists()
    tidy(again.context, dt.timedelta(0), attach_after=dt.timedelta(0))
    again.assert_archived(SERIES)


def test_all_models_that_were_ever_shipped_are_known_and_there() -> None:
    assert model_files.lacking() == ()
    for package, identities in model_files.SHIPPED.items():
        files = resources.files(package).joinpath("models").iterdir()
        assert sorted(file.name.removesuffix(".npz") for file in files if file.name.endswith(".npz")) == [*identities]
