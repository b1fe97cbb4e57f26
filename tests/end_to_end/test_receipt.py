"""What an evaluation says at its end of what was delivered."""

import re
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner

from inspect_mlflow import session
from inspect_mlflow.cli import main
from inspect_mlflow.config import load_settings
from otel_bridge.replay import replay
from tests.end_to_end.test_import import run_import
from tests.support.evals import TASKS, run_inspect
from tests.support.sink import Behaviour, OtlpSink
from tests.support.state import state_of


def test_one_line_says_what_reached_which_destination(otlp_sink: OtlpSink, tmp_path: Path) -> None:
    run = run_inspect(
        ["eval", TASKS / "minimal.py"],
        cwd=tmp_path,
        env={
            "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db",
            "MLFLOW_INSPECT_TRACING": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_sink.http_endpoint,
        },
    )
    (line,) = re.findall(r"MLflow sqlite.*", run.output)
    assert re.fullmatch(
        r"MLflow sqlite:///mlflow.db: 2 runs, \d+ artifacts, 9 spans, 1 trace, 2 assessments"
        rf" · OTLP {otlp_sink.http_endpoint}/v1/traces: 9 spans",
        line,
    )
    state = state_of(f"sqlite:///{tmp_path}/mlflow.db", "inspect_ai")
    (parent,) = (run for key, run in state["runs"].items() if key.startswith("run "))
    assert parent["tags"]["inspect.receipt.mlflow.spans"] == "9"
    assert parent["tags"]["inspect.receipt.otlp.spans"] == "9"


def test_an_unreachable_server_costs_two_warnings_and_an_import_repairs_it(tmp_path: Path) -> None:
    run = run_inspect(
        ["eval", TASKS / "tool_loop.py"],
        cwd=tmp_path,
        env={"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_INSPECT_TRACING": "true"},
    )
    assert run.log().status == "success"
    said = " ".join(run.output.split())
    assert said.count("WARNING") == 2, run.output
    assert "Connection refused" in said
    assert "inspect-mlflow import" in said

    lived = f"sqlite:///{tmp_path}/lived.db"
    run_import("logs", "--tracking-uri", lived, cwd=tmp_path)
    state = state_of(lived, "inspect_ai")
    assert len(state["runs"]) == 2
    assert {run["status"] for run in state["runs"].values()} == {"FINISHED"}
    assert len(state["traces"]) == 1


def test_a_receipt_that_is_not_taken_in_time_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(session, "TAG_SECONDS", 0.2)
    settings, _ = load_settings(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    begun = session.acquire("some run", settings)
    assert begun.connection is not None
    begun.connection.run("some run").set_result("its run in MLflow")
    begun.receipt.delivered(begun.connection.name, "spans", 3)
    with begun.connection._lock:  # somebody else opens the connection, and takes long
        anyio.run(session.release, "some run")
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{begun.connection.name} has everything but the tags inspect.receipt.…: "
        "no answer within 0.2 seconds"
    )


def test_without_mlflow_the_command_sends_the_spans_alone(
    otlp_sink: OtlpSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {
        "MLFLOW_INSPECT_TRACING": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_sink.http_endpoint,
    }
    otlp_sink.behave(Behaviour(status=401, message="no key"))
    run = run_inspect(["eval", TASKS / "tool_loop.py"], cwd=tmp_path, env=environ)
    (command,) = re.findall(r"^inspect-mlflow (import --otlp .*)$", run.output, re.MULTILINE)

    otlp_sink.behave()
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, command.split(), env={**environ, "COLUMNS": "300"})
    assert result.exit_code == 0, result.output
    expected = {
        f"{span.span_id:016x}": (span.start_ns, span.end_ns) for span in replay(run.log().location)
    }
    sent = {span.span_id: (span.start_ns, span.end_ns) for span in otlp_sink.spans()}
    assert sent == expected
    assert "1 logs with 3 samples sent." in result.output
    assert f"{len(expected)} spans to OTLP {otlp_sink.http_endpoint}/v1/traces" in result.output
