"""Ctrl-C in the middle of `inspect eval`: it ends soon, and every span is sent, closed."""

import time
from pathlib import Path

from inspect_ai.log import read_eval_log

from tests.otel_bridge.test_live_equals_replay import assert_equal, check_whole
from tests.support.capture import replayed_spans
from tests.support.evals import TASKS, start_inspect
from tests.support.otlp import outline
from tests.support.process import wait_until
from tests.support.servers import MlflowServer
from tests.support.sink import OtlpSink


def test_ctrl_c(
    tmp_path: Path, otlp_sink: OtlpSink, mlflow_server: MlflowServer, experiment_name: str
) -> None:
    env = {
        "MLFLOW_TRACKING_URI": mlflow_server.uri,
        "MLFLOW_EXPERIMENT_NAME": experiment_name,
        "MLFLOW_INSPECT_TRACING": "true",
        "INSPECT_MLFLOW_TRACE_SCOPE": "sample",
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_sink.http_endpoint,
    }
    running = start_inspect(["eval", f"{TASKS}/rare.py@waiting"], cwd=tmp_path, env=env)
    try:
        # the first sample is done, the two others wait inside their tool calls
        wait_until(
            lambda: sum(span.name.startswith("chat") for span in otlp_sink.spans()) >= 3,
            what="model calls at the sink",
            timeout=90,
        )
        time.sleep(0.5)
        running.interrupt()
        interrupted = time.monotonic()
        run = running.finish(timeout=60)
    finally:
        running.kill()
    (path,) = run.logs
    log = read_eval_log(str(path))
    assert log.status == "cancelled"
    assert log.location
    written = path.stat().st_mtime
    assert time.time() - written < 8, "it ends within a few seconds of Inspect's own end"
    assert time.monotonic() - interrupted < 15

    spans = otlp_sink.spans()
    status = {span.name: span.status for span in spans}
    assert status["eval_run waiting"] == status["task waiting"] == "ERROR"
    assert status["sample sample-1"] == "OK"
    assert status["sample sample-2"] == status["sample sample-3"] == "ERROR"
    assert status["execute_tool wait"] == "ERROR"
    (task,) = (span for span in spans if span.name == "task waiting")
    assert task.attributes["test.suite.run.status"] == "aborted"
    assert task.attributes["inspect.task.status"] == "cancelled"
    assert task.attributes["inspect.samples.completed"] == 1, "as the log's header says"
    replayed = replayed_spans(path, scope="sample")
    check_whole(replayed)
    assert {(s.span_id, s.name, s.start_ns, s.end_ns, s.status) for s in spans} == {
        (s.span_id, s.name, s.start_ns, s.end_ns, s.status) for s in replayed
    }, outline(spans)
    for received in spans:
        (one,) = (s for s in replayed if s.span_id == received.span_id)
        assert dict(received.attributes) == {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in one.attributes.items()
        }
    assert_equal(replayed, replayed_spans(path, scope="sample"))

    client = mlflow_server.client()
    experiment = client.get_experiment_by_name(experiment_name)
    assert experiment is not None
    traces = client.search_traces(experiment_ids=[experiment.experiment_id])
    assert {trace.info.trace_id.removeprefix("tr-") for trace in traces} == {
        span.trace_id for span in spans
    }
    states = sorted(str(trace.info.state.value) for trace in traces)
    assert states == ["ERROR", "ERROR", "ERROR", "OK"]
