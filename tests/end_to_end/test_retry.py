"""A retried evaluation: the samples it took over are found in both runs, and sent once."""

from pathlib import Path

import inspect_ai
import pytest
from mlflow import MlflowClient

from tests.support.evals import eval_task


@pytest.mark.parametrize("scope", ["run", "sample"])
def test_reused_samples_are_linked_to_the_new_run(
    scope: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_INSPECT_TRACING", "true")
    monkeypatch.setenv("INSPECT_MLFLOW_TRACE_SCOPE", scope)
    logs = tmp_path / "logs"
    failed = eval_task(
        "endings.py@sample_error", log_dir=logs, task_args={"fail_on_error": True}, max_samples=1
    )
    assert failed.status == "error"
    (retried,) = inspect_ai.eval_retry(failed, log_dir=str(logs), display="none")
    first = {s.uuid for s in failed.samples or () if s.error is None}
    reused = {s.uuid for s in retried.samples or ()} & first
    assert reused

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("inspect_ai")
    assert experiment is not None
    found = {}
    for log in (failed, retried):
        (run,) = client.search_runs(
            [experiment.experiment_id], f"tags.`inspect.eval_id` = '{log.eval.eval_id}'"
        )
        traces = client.search_traces(
            locations=[experiment.experiment_id], run_id=run.info.run_id, max_results=100
        )
        found[log.eval.eval_id] = {
            str(span.get_attribute("inspect.sample.uuid"))
            for trace in traces
            for span in trace.data.spans
            if span.get_attribute("inspect.kind") == "sample"
        }
    assert reused <= found[failed.eval.eval_id]
    assert reused <= found[retried.eval.eval_id]
    every = client.search_traces(locations=[experiment.experiment_id], max_results=100)
    spans = [span.span_id for trace in every for span in trace.data.spans]
    assert len(spans) == len(set(spans))
