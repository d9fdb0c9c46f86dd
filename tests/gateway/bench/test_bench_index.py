import json

import pytest
from rich.console import Console
from sqlalchemy import func, select

from thinfilm_gateway.bench import index
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.models import Instance, Patient

QUIET = Console(quiet=True)


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(index, "SMALL", 200)
    monkeypatch.setattr(index, "BATCHES", 3)
    monkeypatch.setattr(index, "QUERIES", 3)


def test_a_small_and_a_large_index_are_filled_and_asked(short, database_url):
    figures = index.run(QUIET, database_url, 1000)
    document = json.loads(json.dumps(figures.to_json()))
    assert [row["instances"] for row in document["rows"]] == [200] * 4 + [1000] * 4
    assert all(0 < row["median_ms"] <= row["longest_ms"] for row in document["rows"])
    assert document["ingest_ratio"] > 0
    database = Database(database_url)
    with database.reading() as session:
        entered = 2 * 3 * index.BATCH
        assert session.scalar(select(func.count()).select_from(Instance)) == 1000 + entered
        assert session.scalar(select(func.count()).select_from(Patient)) == 1000 // 50 // 2 + 2
    database.dispose()


def test_a_database_with_objects_is_not_touched(short, database_url):
    index.run(QUIET, database_url, 1000)
    with pytest.raises(index.NotEmpty, match="name an empty one"):
        index.run(QUIET, database_url, 1000)
