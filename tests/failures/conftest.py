"""What the tests of failures share."""

import pytest

from tests.support.recovery import Stores


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    """Makes empty MLflow stores."""
    return Stores(tmp_path_factory.mktemp("stores") / "empty.db")
