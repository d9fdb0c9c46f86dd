"""The house of a gateway over an index of each kind."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.house import House


@pytest.fixture
def build_house(tmp_path: Path, database_url: str) -> Iterator[Callable[..., House]]:
    """Build the house with settings of one's own."""
    houses = []

    def build(**overrides: Any) -> House:
        houses.append(House.build(tmp_path, **{"database_url": database_url, **overrides}))
        return houses[-1]

    yield build
    for house in houses:
        house.context.database.dispose()


@pytest.fixture
def house(build_house: Callable[..., House]) -> House:
    """The house with plain settings."""
    return build_house()
