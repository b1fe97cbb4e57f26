"""The evaluation's process is killed, interrupted or forked; an import of its log repairs it."""

import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.log import read_eval_log, read_eval_log_sample_summaries

from tests.support.evals import TASKS, InspectProcess, run_inspect, start_inspect
from tests.support.process import wait_until
from tests.support.recovery import (
    PLAIN_LOG,
    Stores,
    outcome_of,
    recorded,
    repair_command,
    run_cli,
    span_ids,
    warnings_of,
)
from tests.support.sink import Behaviour, OtlpSink
from tests.support.state import differences

BOTH = {
    **PLAIN_LOG,
    "MLFLOW_INSPECT_TRACING": "true",
    "INSPECT_MLFLOW_AUTOLOG_ENABLED": "false",
}
STUCK = ["eval", f"{TASKS}/tracked.py@stuck", "--log-buffer", "1"]
"""Its first sample is finished at once, and in the log; its second only after a while."""


def first_sample_logged(running: InspectProcess) -> Path:
    """Wait until the log has a sample. Gives the log."""

    def there() -> bool:
        for path in running.log_dir.glob("*.eval"):
            try:
                return len(read_eval_log_sample_summaries(str(path))) == 1
            except ValueError:  # it is being written
                return False
        return False

    wait_until(there, what="the first sample in the log", timeout=90, every=0.3)
    (log,) = running.log_dir.glob("*.eval")
    return log


def first_sample_recorded(uri: str) -> None:
    """Wait until MLflow has metrics of the first sample and the model span of the second."""

    def there() -> bool:
        try:
            state = recorded(uri)
        except AssertionError:  # no experiment yet
            return False
        metrics = [run["metrics"] for run in state["runs"].values()]
        return any("sample/includes" in keys for keys in metrics) and len(span_ids(state)) >= 8

    wait_until(there, what="the first sample in MLflow", timeout=90, every=1)


def without_unlogged(state: dict[str, Any], imported: Mapping[str, Any]) -> dict[str, Any]:
    """Take away the spans of a sample that the log doesn't have: only MLflow knows of them."""
    for trace_id, trace in state["traces"].items():
        known = imported["traces"][trace_id]["spans"]
        trace["spans"] = {
            span_id: span
            for span_id, span in trace["spans"].items()
            if span_id in known or span["parent"] in trace["spans"]
        }
    return state


def assert_same(one: Any, other: Any) -> None:
    found = differences(one, other)
    assert found == [], "\n".join(found)


def test_killed_and_retried(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lived = stores.new(tmp_path / "lived.db")
    env = BOTH | {"MLFLOW_TRACKING_URI": lived}
    running = start_inspect([*STUCK, "-T", "seconds=20"], cwd=tmp_path, env=env)
    log = first_sample_logged(running)
    first_sample_recorded(lived)
    running.kill()
    assert read_eval_log(str(log), header_only=True).status == "started"

    def import_into(uri: str) -> dict[str, Any]:
        run_cli("import", "logs", "--tracking-uri", uri, cwd=tmp_path, monkeypatch=monkeypatch)
        return recorded(uri)

    imported = import_into(stores.new(tmp_path / "imported.db"))
    assert_same(without_unlogged(import_into(lived), imported), imported)
    assert {run["status"] for run in imported["runs"].values()} == {"KILLED"}
    (trace,) = imported["traces"].values()
    statuses = {span["name"]: span["status"][0] for span in trace["spans"].values()}
    assert trace["state"] == "ERROR"
    assert statuses["eval_run stuck"] == statuses["task stuck"] == "ERROR"
    assert statuses["sample 1"] == "OK"
    assert_same(import_into(tmp_uri := f"sqlite:///{tmp_path}/imported.db"), recorded(tmp_uri))

    retry = ["eval-retry", str(log), "--log-buffer", "1"]
    run_inspect(retry, cwd=tmp_path, env=env)
    both = import_into(stores.new(tmp_path / "both.db"))
    assert_same(without_unlogged(import_into(lived), both), both)
    assert (
        sorted(run["status"] for run in both["runs"].values()) == ["FINISHED"] * 2 + ["KILLED"] * 2
    )


@pytest.mark.parametrize("scope", ["run", "sample"])
def test_imported_while_it_is_written_and_again_when_finished(
    scope: str, stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = start_inspect([*STUCK, "-T", "seconds=5"], cwd=tmp_path)
    log = first_sample_logged(running)
    unfinished = tmp_path / "unfinished" / log.name
    unfinished.parent.mkdir()
    shutil.copy(log, unfinished)
    assert read_eval_log(str(unfinished), header_only=True).status == "started"
    running.finish()

    monkeypatch.setenv("INSPECT_MLFLOW_TRACE_SCOPE", scope)
    twice, once = stores.new(tmp_path / "twice.db"), stores.new(tmp_path / "once.db")
    for path, uri in ((unfinished, twice), (log, twice), (log, once)):
        run_cli("import", str(path), "--tracking-uri", uri, cwd=tmp_path, monkeypatch=monkeypatch)
    state = recorded(once)
    assert_same(recorded(twice), state)
    assert {run["status"] for run in state["runs"].values()} == {"FINISHED"}
    assert {trace["state"] for trace in state["traces"].values()} == {"OK"}


@pytest.mark.parametrize("pause", [6.0, 0.2], ids=["while-it-waits", "at-once"])
def test_ctrl_c_twice(
    pause: float,
    stores: Stores,
    otlp_sink: OtlpSink,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    otlp_sink.behave(Behaviour(hang=True))
    lived = stores.new(tmp_path / "lived.db")
    running = start_inspect(
        STUCK,
        cwd=tmp_path,
        env=BOTH
        | {
            "MLFLOW_TRACKING_URI": lived,
            "INSPECT_MLFLOW_FLUSH_TIMEOUT": "100",
            "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_sink.http_endpoint,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "100",
        },
    )
    first_sample_logged(running)
    otlp_sink.wait_for_requests(timeout=60)
    running.interrupt()
    time.sleep(pause)
    running.interrupt()
    began = time.monotonic()
    run = running.finish(timeout=90)
    assert time.monotonic() - began < 40, "it waited for the endpoint"
    assert run.returncode not in (0, -signal.SIGKILL)
    assert "Traceback" not in run.output, run.output
    assert run.log().status == "cancelled"
    *_, summary = warnings_of(run)
    assert f"did not reach OTLP {otlp_sink.http_endpoint}" in summary

    otlp_sink.release()
    otlp_sink.behave()
    otlp_sink.clear()
    imported = stores.new(tmp_path / "imported.db")
    for uri in (lived, imported):
        run_cli(
            *repair_command(run.output),
            cwd=tmp_path,
            monkeypatch=monkeypatch,
            MLFLOW_TRACKING_URI=uri,
            OTEL_EXPORTER_OTLP_ENDPOINT=otlp_sink.http_endpoint,
        )
    state = recorded(imported)
    assert_same(recorded(lived), state)
    assert {span.span_id for span in otlp_sink.spans()} == span_ids(state)
    assert {run["status"] for run in state["runs"].values()} == {"KILLED"}


def test_children(
    stores: Stores, otlp_sink: OtlpSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = run_inspect(["eval", TASKS / "forks.py"], cwd=tmp_path)
    (tmp_path / "hooks").mkdir()
    lived = stores.new(tmp_path / "lived.db")
    run = run_inspect(
        ["eval", TASKS / "forks.py"],
        cwd=tmp_path / "hooks",
        env=BOTH
        | {
            "MLFLOW_TRACKING_URI": lived,
            "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_sink.grpc_endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        },
    )
    assert outcome_of(run.log()) == outcome_of(alone.log())
    assert [sample.store["code"] for sample in run.log().samples or ()] == [0, 0, 0]
    assert {sample.store["runs"] for sample in run.log().samples or ()} == {2}  # one of each hook
    assert warnings_of(run) == []
    assert run.output.count("MLflow sqlite") == 1  # the receipt

    imported = stores.new(tmp_path / "imported.db")
    run_cli(
        "import",
        str(run.logs[0]),
        "--tracking-uri",
        imported,
        cwd=tmp_path,
        monkeypatch=monkeypatch,
    )
    state = recorded(imported)
    assert_same(recorded(lived), state)
    sent = [span.span_id for span in otlp_sink.spans()]
    assert sorted(sent) == sorted(span_ids(state))
