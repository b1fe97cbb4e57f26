"""The test infrastructure itself: each part takes spans and gives them back."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import httpx
import pytest
from inspect_ai.event import ModelEvent, ToolEvent
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
    OTLPSpanExporter as GrpcSpanExporter,
)
from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
    OTLPSpanExporter as HttpSpanExporter,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, set_span_in_context

from tests.support.evals import TASKS, eval_task, run_inspect, start_inspect
from tests.support.otlp import outline, spans_of_sdk
from tests.support.process import ServerProcess, free_port, loopback_client, wait_until
from tests.support.servers import JAEGER_VARIABLE, Jaeger, MlflowServer, find_jaeger
from tests.support.sink import Behaviour, OtlpSink

START = 1_760_000_000_123_456_789


def some_spans(service: str) -> list[ReadableSpan]:
    """Make a root and a failed child with everything a span can carry."""
    memory = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": service}))
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("tests")
    root = tracer.start_span("root", context=Context(), start_time=START)
    child = tracer.start_span(
        "child",
        context=set_span_in_context(root),
        kind=SpanKind.CLIENT,
        attributes={"text": "ä", "number": 7, "ratio": 0.5, "flag": True, "list": ["a", "b"]},
        links=[Link(SpanContext(1, 2, is_remote=True), {"why": "test"})],
        start_time=START + 1,
    )
    child.add_event("happened", {"key": "value"}, timestamp=START + 2)
    child.set_status(Status(StatusCode.ERROR, "broken"))
    child.end(end_time=START + 3)
    root.end(end_time=START + 5)
    return list(memory.get_finished_spans())


def hex_trace_id(spans: list[ReadableSpan]) -> str:
    return format(spans[0].context.trace_id, "032x")


def exporters(http_endpoint: str, grpc_endpoint: str, protocol: str) -> SpanExporter:
    if protocol == "grpc":
        return GrpcSpanExporter(grpc_endpoint, insecure=True, headers={"x-test": "yes"}, timeout=10)
    return HttpSpanExporter(f"{http_endpoint}/v1/traces", headers={"x-test": "yes"}, timeout=10)


def test_mlflow_gives_back_an_otlp_batch(mlflow_server: MlflowServer, experiment_name: str) -> None:
    client = mlflow_server.client()
    experiment_id = client.create_experiment(experiment_name)
    spans = some_spans("to-mlflow")
    with loopback_client() as http:
        answer = http.post(
            mlflow_server.otlp_traces,
            content=encode_spans(spans).SerializeToString(),
            headers={
                "content-type": "application/x-protobuf",
                "x-mlflow-experiment-id": experiment_id,
            },
        )
    answer.raise_for_status()
    trace = client.get_trace(f"tr-{hex_trace_id(spans)}")
    assert {(span.name, span.start_time_ns, span.end_time_ns) for span in trace.data.spans} == {
        ("root", START, START + 5),
        ("child", START + 1, START + 3),
    }
    assert mlflow_server.db_path.exists()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_jaeger_gives_back_what_it_was_sent(jaeger: Jaeger, protocol: str) -> None:
    service = f"to-jaeger-{protocol}"
    spans = some_spans(service)
    exporter = exporters(jaeger.otlp_http, jaeger.otlp_grpc, protocol)
    assert exporter.export(spans) is SpanExportResult.SUCCESS
    exporter.shutdown()

    found = jaeger.trace(hex_trace_id(spans))
    assert outline(found, with_kind=True) == "root [INTERNAL]\n  child [CLIENT] !ERROR"
    child = next(span for span in found if span.name == "child")
    assert child.attributes == {
        "text": "ä",
        "number": 7,
        "ratio": 0.5,
        "flag": True,
        "list": ["a", "b"],
    }
    assert (child.start_ns, child.end_ns) == (START + 1, START + 3)
    assert [(event.name, event.time_ns) for event in child.events] == [("happened", START + 2)]
    assert [link.span_id for link in child.links] == ["0000000000000002"]
    assert child.status_message == "broken"
    assert set(jaeger.traces_of_service(service)) == {hex_trace_id(spans)}
    assert service in jaeger.services()


def test_jaeger_without_the_trace(jaeger: Jaeger) -> None:
    assert jaeger.trace("f" * 32) == []
    assert jaeger.traces_of_service("nobody") == {}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_sink_keeps_what_it_was_sent(otlp_sink: OtlpSink, protocol: str) -> None:
    spans = some_spans("to-sink")
    exporter = exporters(otlp_sink.http_endpoint, otlp_sink.grpc_endpoint, protocol)
    assert exporter.export(spans) is SpanExportResult.SUCCESS
    exporter.shutdown()
    (request,) = otlp_sink.requests
    assert request.protocol == protocol
    assert request.headers["x-test"] == "yes"
    assert request.message_bytes > 300
    assert otlp_sink.spans() == spans_of_sdk(spans)
    assert otlp_sink.spans()[0].resource == {"service.name": "to-sink"}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_sink_refuses_when_told(otlp_sink: OtlpSink, protocol: str) -> None:
    exporter = exporters(otlp_sink.http_endpoint, otlp_sink.grpc_endpoint, protocol)
    otlp_sink.behave(Behaviour(status=400), times=1)
    assert exporter.export(some_spans("refused")) is SpanExportResult.FAILURE
    assert exporter.export(some_spans("taken")) is SpanExportResult.SUCCESS
    exporter.shutdown()
    assert {span.resource["service.name"] for span in otlp_sink.spans()} == {"taken"}
    assert len(otlp_sink.spans(refused=True)) == 4


def test_sink_misbehaves_in_other_ways(otlp_sink: OtlpSink) -> None:
    body = encode_spans(some_spans("odd")).SerializeToString()
    with loopback_client() as client:
        url = f"{otlp_sink.http_endpoint}/v1/traces"
        otlp_sink.behave(Behaviour(redirect="http://127.0.0.1:9/elsewhere"), times=1)
        answer = client.post(url, content=body)
        assert (answer.status_code, answer.headers["location"]) == (
            302,
            "http://127.0.0.1:9/elsewhere",
        )
        otlp_sink.behave(Behaviour(rejected_spans=1), times=1)
        assert b"as the test wants it" in client.post(url, content=body).content
        otlp_sink.behave(Behaviour(delay=0.3), times=1)
        before = time.monotonic()
        assert client.post(url, content=body).status_code == 200
        assert time.monotonic() - before >= 0.3
        otlp_sink.behave(Behaviour(hang=True), times=1)
        with pytest.raises(httpx.ReadTimeout):
            client.post(url, content=body, timeout=0.3)
        assert client.post(url, content=body).status_code == 200


def test_find_jaeger(tmp_path: Path) -> None:
    assert find_jaeger({"XDG_CACHE_HOME": str(tmp_path)}) is None
    with pytest.raises(FileNotFoundError, match=JAEGER_VARIABLE):
        find_jaeger({JAEGER_VARIABLE: str(tmp_path / "missing")})
    binary = tmp_path / "inspect-mlflow" / "bin" / "jaeger"
    binary.parent.mkdir(parents=True)
    binary.touch(0o755)
    assert find_jaeger({"XDG_CACHE_HOME": str(tmp_path)}) == binary


def serving(port: int) -> list[str]:
    """Command of a server with a child of its own that would outlive it."""
    program = f"""
        import subprocess, sys
        from http.server import HTTPServer, SimpleHTTPRequestHandler
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open("child.pid", "w").write(str(child.pid))
        HTTPServer(("127.0.0.1", {port}), SimpleHTTPRequestHandler).serve_forever()
    """
    return [sys.executable, "-c", textwrap.dedent(program)]


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended but wasn't collected doesn't."""
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True
    ).stdout.strip()
    return bool(state) and not state.startswith("Z")


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_stopped_server_leaves_no_children(tmp_path: Path, end: str) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    server = ServerProcess("files", serving(port), ready_url=url, directory=tmp_path)
    server.start()
    child = int((tmp_path / "child.pid").read_text())
    assert alive(child)
    getattr(server, end)()
    assert not server.running
    wait_until(lambda: not alive(child), what="the end of the server's child", timeout=10)


def test_a_server_ends_with_a_killed_test_process(tmp_path: Path) -> None:
    port = free_port()
    program = f"""
        import os, pathlib, signal
        from tests.support.process import ServerProcess
        url = "http://127.0.0.1:{port}/"
        server = ServerProcess("files", {serving(port)!r}, ready_url=url,
                               directory=pathlib.Path({str(tmp_path)!r}))
        server.start()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    repository = Path(__file__).parents[1]
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
    )
    assert killed.returncode == -9
    child = int((tmp_path / "child.pid").read_text())
    wait_until(lambda: not alive(child), what="the end of the server's child", timeout=20)


def test_a_server_that_ends_while_starting_shows_its_output(tmp_path: Path) -> None:
    server = ServerProcess(
        "broken",
        [sys.executable, "-c", "raise SystemExit('no such option')"],
        ready_url=f"http://127.0.0.1:{free_port()}/",
        directory=tmp_path,
    )
    with pytest.raises(RuntimeError, match="no such option"):
        server.start()


def test_inspect_runs_as_a_subprocess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSPECT_EVAL_MODEL", "none/such")
    run = run_inspect(["eval", TASKS / "minimal.py"], cwd=tmp_path)
    assert run.log().status == "success"
    failed = run_inspect(["eval", f"{TASKS}/minimal.py@nonexistent"], cwd=tmp_path, check=False)
    assert failed.returncode != 0
    assert "nonexistent" in failed.output


def test_inspect_can_be_interrupted(tmp_path: Path) -> None:
    running = start_inspect(["eval", TASKS / "tool_loop.py", "-T", "sleep=60"], cwd=tmp_path)
    wait_until(lambda: len(list(tmp_path.glob("logs/*.eval"))) == 1, what="the log file")
    time.sleep(1)  # the samples start right after the file is there
    running.interrupt()
    assert running.finish(timeout=60).log().status == "cancelled"


def test_a_tool_loop_makes_three_model_and_two_tool_calls(tmp_path: Path) -> None:
    log = eval_task("tool_loop", log_dir=tmp_path, task_args={"samples": 20, "size": 50})
    assert log.samples is not None
    assert len(log.samples) == 20
    for sample in log.samples:
        assert sum(isinstance(event, ModelEvent) for event in sample.events) == 3
        assert sum(isinstance(event, ToolEvent) for event in sample.events) == 2
        assert sample.scores is not None
        assert sample.scores["includes"].value == "C"


def test_parallel_tools_finish_out_of_order(tmp_path: Path) -> None:
    log = eval_task("parallel_tools", log_dir=tmp_path, task_args={"samples": 1})
    assert log.samples is not None
    calls = [event for event in log.samples[0].events if isinstance(event, ToolEvent)]
    assert [call.arguments["label"] for call in calls] == ["slow", "broken", "quick", "middle"]
    ended = sorted(calls, key=lambda call: call.completed or call.timestamp)
    assert [call.arguments["label"] for call in ended] == ["quick", "broken", "middle", "slow"]
    assert [call.error is not None for call in calls] == [False, True, False, False]
