"""A user's own use of MLflow, inside and around an evaluation, is as if we were not there."""

import os
from pathlib import Path
from typing import Any

import pytest

from inspect_mlflow.config import load_settings
from inspect_mlflow.connection import Connection
from tests.support.evals import eval_task, read_log
from tests.tracking.conftest import Tracked


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow pointed to a database of the user's, and as it was afterwards."""
    import mlflow

    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mine.db")
    mlflow.set_experiment("mine")
    yield mlflow
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(before)
    # set_experiment also leaves these behind
    for name in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACKING_URI"):
        os.environ.pop(name, None)
    mlflow.tracking.fluent._active_experiment_id = None


def test_a_relative_database_is_where_the_evaluation_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inspect changes the working directory while it prepares tasks."""
    (tmp_path / "tasks").mkdir()
    monkeypatch.chdir(tmp_path)
    settings, problems = load_settings(tracking_uri="sqlite:///mlflow.db")
    assert not problems
    connection = Connection.of(settings)
    monkeypatch.chdir(tmp_path / "tasks")
    connection.open()
    assert (tmp_path / "mlflow.db").exists()
    assert not (tmp_path / "tasks" / "mlflow.db").exists()
    assert connection.name == "MLflow sqlite:///mlflow.db"


@pytest.mark.parametrize("autolog", ["false", "true"])
def test_a_solver_that_uses_mlflow(
    tracked: Tracked,
    elsewhere: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    autolog: str,
) -> None:
    mlflow = elsewhere
    monkeypatch.setenv("INSPECT_MLFLOW_TRACKING_URI", tracked.server.uri)
    monkeypatch.setenv("INSPECT_MLFLOW_EXPERIMENT_NAME", tracked.experiment_name)
    monkeypatch.setenv("INSPECT_MLFLOW_AUTOLOG_ENABLED", autolog)
    mine = mlflow.get_experiment_by_name("mine")
    uri = mlflow.get_tracking_uri()
    variables = {k: v for k, v in os.environ.items() if k.startswith("MLFLOW_")}
    with mlflow.start_run(run_name="around") as around:
        mlflow.log_metric("before", 1.0)
        log = eval_task("tracked@meddling", log_dir=tmp_path)
        mlflow.log_metric("after", 2.0)
        assert mlflow.active_run().info.run_id == around.info.run_id
    assert mlflow.active_run() is None
    assert mlflow.get_tracking_uri() == uri
    assert {k: v for k, v in os.environ.items() if k.startswith("MLFLOW_")} == variables

    samples = read_log(log.location).samples
    assert samples is not None
    seen = samples[0].store["seen"]
    assert seen["uri"] == uri
    assert seen["active"] == around.info.run_id
    assert seen["of"] == mine.experiment_id

    theirs = mlflow.MlflowClient(tracking_uri=uri)
    runs = {run.info.run_id: run for run in theirs.search_runs([mine.experiment_id])}
    assert runs.keys() == {around.info.run_id, seen["run"]}
    assert runs[around.info.run_id].data.metrics == {"before": 1.0, "after": 2.0}
    assert runs[seen["run"]].data.metrics == {"inside": 1.0}
    assert runs[seen["run"]].data.params == {"where": "solver"}

    (task,) = tracked.runs("task")
    assert task.info.status == "FINISHED"
    assert "inside" not in task.data.metrics
    assert "where" not in task.data.params
