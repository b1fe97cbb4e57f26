"""One MLflow database for all tests of the import."""

import pytest


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of an MLflow database."""
    return f"sqlite:///{tmp_path_factory.mktemp('scout')}/mlflow.db"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow, which runs in this process, looks for no prices on the internet."""
    monkeypatch.setenv("MLFLOW_MODEL_CATALOG_URI", "")
