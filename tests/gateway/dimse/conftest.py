"""Fixtures of the network tests."""

import pytest

from support.certificates import Certificates, make_certificates


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for a whole run."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))
