"""Trouble while samples run is not told inside them: Inspect would make events of it."""

import logging
import os
from datetime import datetime
from pathlib import Path

import pytest
from inspect_ai.hooks import SampleStart
from inspect_ai.log import EvalLog

from inspect_mlflow.tracing import MlflowTracingHooks
from tests.support.evals import TASKS, eval_task, read_log, start_inspect
from tests.support.process import free_port, wait_until
from tests.support.proxy import recording_proxy
from tests.support.recovery import PLAIN_LOG, warnings_of
from tests.support.servers import MlflowServer


def warned_inside(log: EvalLog) -> list[str]:
    """What was logged inside the log's samples at WARNING and above."""
    return [
        event.message.message
        for sample in log.samples or ()
        for event in sample.events
        if event.event == "logger" and event.message.level in ("warning", "error", "critical")
    ]


def test_both_destinations_die_while_samples_run(
    mlflow_server: MlflowServer, experiment_name: str, tmp_path: Path
) -> None:
    with recording_proxy(mlflow_server.uri) as proxy:
        running = start_inspect(
            ["eval", f"{TASKS}/tracked.py@busy", "-T", "samples=4", "-T", "sleep=8"],
            cwd=tmp_path,
            env={
                **PLAIN_LOG,
                "MLFLOW_TRACKING_URI": proxy.uri,
                "MLFLOW_EXPERIMENT_NAME": experiment_name,
                "MLFLOW_INSPECT_TRACING": "true",
                "INSPECT_MLFLOW_AUTOLOG_ENABLED": "false",
                "INSPECT_MLFLOW_FLUSH_TIMEOUT": "10",
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
                "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            },
        )
        wait_until(
            lambda: any(request.path.endswith("/runs/log-batch") for request in proxy.requests),
            what="the task's run",
            timeout=60,
        )
    run = running.finish()
    log = run.log()
    assert log.status == "success"
    ended = datetime.fromisoformat(log.stats.completed_at).timestamp()
    lines = [line for line in run.output.splitlines() if " - WARNING - inspect_mlflow - " in line]
    times = [datetime.strptime(line[:19], "%Y-%m-%d %H:%M:%S").timestamp() for line in lines]
    assert min(times) < ended, run.output  # there was trouble while samples ran
    assert warned_inside(log) == []
    *_, summary = warnings_of(run)
    assert "did not reach MLflow" in summary
    assert "did not reach OTLP" in summary


def test_a_setting_that_is_spoilt_inside_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = MlflowTracingHooks.on_sample_start

    async def spoil(hooks: MlflowTracingHooks, data: SampleStart) -> None:
        await begin(hooks, data)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere")

    monkeypatch.setattr(MlflowTracingHooks, "on_sample_start", spoil)
    monkeypatch.setenv("MLFLOW_INSPECT_TRACING", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    log = eval_task("minimal", log_dir=tmp_path)
    assert os.environ["MLFLOW_TRACKING_URI"] == "nowhere"
    assert warned_inside(read_log(log.location)) == []


def test_a_warning_inside_a_sample_would_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = MlflowTracingHooks.on_sample_start

    async def warn(hooks: MlflowTracingHooks, data: SampleStart) -> None:
        logging.getLogger("inspect_mlflow").warning("trouble")
        await begin(hooks, data)

    monkeypatch.setattr(MlflowTracingHooks, "on_sample_start", warn)
    monkeypatch.setenv("MLFLOW_INSPECT_TRACING", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    log = eval_task("minimal", log_dir=tmp_path)
    assert "trouble" in " ".join(warned_inside(read_log(log.location)))
