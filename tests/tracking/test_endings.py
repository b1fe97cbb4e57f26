"""However a task ends, its run ends, and its metrics describe the log that is left."""

import logging
import time
from pathlib import Path

import pytest
from inspect_ai import eval_retry, eval_set
from inspect_ai.log import EvalLog
from mlflow import MlflowClient
from mlflow.entities import Run

from inspect_mlflow.config import load_settings
from inspect_mlflow.connection import Connection
from inspect_mlflow.writer import RunWriter
from tests.support.evals import TASKS, eval_task, eval_tasks, read_log, start_inspect
from tests.support.importing import import_logs
from tests.support.process import free_port, wait_until
from tests.support.proxy import Fault, recording_proxy
from tests.tracking.conftest import Tracked, steps_of


def describes(run: Run, log: EvalLog) -> None:
    """The run's final metrics are those of the log."""
    assert log.samples is not None
    metrics = run.data.metrics
    assert metrics["errored_samples"] == sum(sample.error is not None for sample in log.samples)
    events = [event.event for sample in log.samples for event in sample.events]
    assert metrics["total_model_calls"] == events.count("model")
    assert metrics["total_tool_calls"] == events.count("tool")
    assert metrics["latency/per_sample_mean_seconds"] == pytest.approx(
        sum(sample.total_time or 0 for sample in log.samples) / len(log.samples)
    )
    for model, usage in log.stats.model_usage.items():
        assert metrics[f"usage/{model}/total_tokens"] == usage.total_tokens
    for score in log.results.scores if log.results else ():
        for name, metric in score.metrics.items():
            assert metrics[f"{score.name}/{name}"] == metric.value


def test_a_task_that_fails(tracked: Tracked, tmp_path: Path) -> None:
    log = eval_task("endings@sample_error", log_dir=tmp_path, task_args={"fail_on_error": True})
    assert log.status == "error"
    run = tracked.task("sample_error")
    assert run.info.status == "FAILED"
    assert run.data.tags["inspect.status"] == "error"
    describes(run, read_log(log.location))
    assert {item.path for item in tracked.client.list_artifacts(run.info.run_id)} == {
        "eval_logs",
        "inspect",
        "sample_results",
    }
    assert [run.info.status for run in tracked.runs("run")] == ["FAILED"]


def test_ctrl_c(tracked: Tracked, tmp_path: Path) -> None:
    running = start_inspect(
        ["eval", f"{TASKS}/tracked.py@stuck"], cwd=tmp_path, env=tracked.environ
    )
    exists = tracked.client.get_experiment_by_name

    def first_sample_is_there() -> bool:
        if exists(tracked.experiment_name) is None:
            return False
        found = tracked.runs("task")
        return bool(found) and "sample/includes" in found[0].data.metrics

    wait_until(first_sample_is_there, what="the metrics of a running task", timeout=90, every=0.5)
    assert tracked.task("stuck").info.status == "RUNNING"
    running.interrupt()
    log = running.finish(timeout=90).log()
    assert log.status == "cancelled"
    run = tracked.task("stuck")
    assert run.info.status == "KILLED"
    assert [run.info.status for run in tracked.runs("run")] == ["KILLED"]
    describes(run, log)
    assert Path(run.data.tags["inspect.log"]).name == Path(log.location).name
    names = [item.path for item in tracked.client.list_artifacts(run.info.run_id, "eval_logs")]
    assert f"eval_logs/{Path(log.location).name}" in names


def test_a_retried_task_of_an_eval_set(tracked: Tracked, tmp_path: Path) -> None:
    success, logs = eval_set(
        f"{TASKS}/tracked.py@second_time",
        log_dir=str(tmp_path / "logs"),
        task_args={"marker": str(tmp_path / "marker")},
        retry_wait=0.1,
        display="none",
        log_dir_allow_dirty=True,
    )
    assert success
    (log,) = logs
    first, second = tracked.runs("task")
    if second.data.tags["inspect.eval_id"] != log.eval.eval_id:
        first, second = second, first  # both were created in the same second
    assert (first.info.status, second.info.status) == ("FAILED", "FINISHED")
    assert first.data.tags["inspect.task_id"] == second.data.tags["inspect.task_id"]
    assert second.data.tags["inspect.retry_of"] == first.info.run_id
    assert log.eval.eval_set_id is not None
    for run in (first, second, *tracked.runs("run")):
        assert run.data.tags["inspect.eval_set_id"] == log.eval.eval_set_id
        assert run.info.status != "RUNNING"
    finished = read_log(log.location)
    assert finished.samples is not None
    assert len(finished.samples) == 2
    describes(second, finished)


def test_eval_retry(tracked: Tracked, tmp_path: Path) -> None:
    failed = eval_task(
        "tracked@second_time", log_dir=tmp_path, task_args={"marker": str(tmp_path / "marker")}
    )
    assert failed.status == "error"
    time.sleep(1.1)  # logs know the second in which they were created
    (retried,) = eval_retry(failed, log_dir=str(tmp_path), display="none")
    assert retried.status == "success"
    first, second = (tracked.of_eval(log.eval.eval_id) for log in (failed, retried))
    assert (first.info.status, second.info.status) == ("FAILED", "FINISHED")
    assert second.data.tags["inspect.retry_of"] == first.info.run_id
    assert "inspect.retry_of" not in first.data.tags
    log = read_log(retried.location)
    assert log.samples is not None
    describes(second, log)
    # one sample is taken over from the first log: final metrics count it, steps don't
    assert second.data.metrics["total_model_calls"] == 2
    steps = [point for point in tracked.points(second) if point.step]
    assert {point.step for point in steps} == {1}
    assert sorted(steps) == sorted(steps_of(log.eval.created, log.samples))
    names = [i.path for i in tracked.client.list_artifacts(second.info.run_id, "inspect")]
    assert len(names) == 6


def test_a_server_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    uri = f"http://user:secret@127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with caplog.at_level(logging.WARNING, "inspect_mlflow"):
        began = time.monotonic()
        log = eval_task("tool_loop", log_dir=tmp_path)
        seconds = time.monotonic() - began
    assert log.status == "success"
    warnings = [r.getMessage() for r in caplog.records if r.name.startswith("inspect_mlflow")]
    assert 1 <= len(warnings) <= 2  # at the start why, at the end what it takes
    assert all("127.0.0.1" in warning and "secret" not in warning for warning in warnings)
    assert seconds < 30


def test_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSPECT_MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("INSPECT_MLFLOW_AUTOLOG_ENABLED", "false")
    eval_task("minimal", log_dir=tmp_path)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("inspect_ai")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in found] == ["FINISHED", "FINISHED"]
    task = next(run for run in found if run.data.tags["inspect.kind"] == "task")
    assert len(client.list_artifacts(task.info.run_id, "inspect")) == 6


OF_SAMPLES = ("errored_samples", "unscored_samples", "total_model_calls", "total_tool_calls")
"""What only the samples of a log tell."""


def test_a_log_without_samples(tracked: Tracked, tmp_path: Path) -> None:
    """What is not known is not said to be 0."""
    log = eval_task("tracked@busy", log_dir=tmp_path, task_args=FEW, log_samples=False)
    metrics = tracked.task("busy").data.metrics
    assert metrics["completed_samples"] == metrics["total_samples"] == 2
    assert metrics["event/model_call"] == 6
    assert not metrics.keys() & set(OF_SAMPLES)
    options = {"experiment_name": tracked.experiment_name, "traces": False}
    assert import_logs(log.location, uri=tracked.server.uri, **options).code == 0
    assert tracked.task("busy").data.metrics == metrics


FEW = {"samples": 2, "sleep": 0}


def test_a_log_that_can_not_be_read(tracked: Tracked, tmp_path: Path) -> None:
    """Its run ends as it did, and nothing is made up of it."""
    log = eval_task("minimal", log_dir=tmp_path / "before")
    spec = log.eval.model_copy(update={"eval_id": "e", "run_id": "r", "task_id": "t"})
    unreadable = tmp_path / "log.eval"
    unreadable.write_text("no log at all")
    settings, _ = load_settings()
    writer = RunWriter(Connection.of(settings), log_artifacts=True)
    writer.begin_run("r", None, [spec.task])
    writer.begin_task(spec, log.plan)
    writer.locate("e", str(unreadable))
    writer.end_run([])
    assert writer.finish(60)
    (failure,) = writer.failures
    assert failure.startswith(f"{unreadable} can't be read: ")
    run = tracked.of_eval("e")
    assert run.info.status == "KILLED"
    assert run.data.tags["inspect.status"] == "cancelled"
    assert run.data.metrics == {}


def test_more_tags_than_mlflow_takes_at_once(tracked: Tracked, tmp_path: Path) -> None:
    """The second request fails: the run that the first one made ends all the same."""
    with recording_proxy(
        tracked.server.uri, fault=Fault(status=400, path="runs/log-batch", above_bytes=8_000)
    ) as proxy:
        settings, _ = load_settings(tracking_uri=proxy.uri)
        eval_tags = {f"key {n}": "x" * 100 for n in range(200)}
        log = eval_task("minimal", log_dir=tmp_path / "before", metadata=eval_tags)
        spec = log.eval.model_copy(update={"eval_id": "e", "run_id": "r", "task_id": "t"})
        writer = RunWriter(Connection.of(settings))
        writer.begin_run("r", None, [spec.task])
        writer.begin_task(spec, log.plan)
        writer.end_task(log.model_copy(update={"eval": spec}))
        writer.end_run([])
        assert writer.finish(60)
    assert writer.failures
    assert {run.info.status for run in tracked.of_run("r")} == {"FINISHED"}


def test_slow_files_keep_no_run_open(
    tracked: Tracked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Fault(delay=3, path="mlflow-artifacts/artifacts")
    with recording_proxy(tracked.server.uri, fault=slow) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
        monkeypatch.setenv("INSPECT_MLFLOW_FLUSH_TIMEOUT", "8")
        logs = eval_tasks(
            [f"{TASKS}/tracked.py@priced", f"{TASKS}/tracked.py@busy"],
            log_dir=tmp_path,
            task_args={"samples": 2},
            max_tasks=1,
        )
        assert [log.status for log in logs] == ["success"] * 2
        (parent,) = tracked.runs("run")
        runs = [parent, *tracked.runs("task")]
        assert [run.info.status for run in runs] == ["FINISHED"] * 3
        assert all("inspect.status" in run.data.tags for run in runs[1:])
        assert any(tag.endswith(".lost") for tag in parent.data.tags)
        proxy.fault = None  # what is under way need not take its time
