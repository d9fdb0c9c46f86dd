from collections.abc import Iterator

import pytest

from support.sites import Site, embedded_site, full_site


@pytest.fixture(scope="module", params=[embedded_site, full_site], ids=["embedded", "postgres-redis-celery"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A running site, one of each shape; the tests of a module share it."""
    with request.param() as running:
        yield running


@pytest.fixture(scope="module")
def embedded() -> Iterator[Site]:
    """A running embedded site, shared by the tests of a module."""
    with embedded_site() as running:
        yield running
