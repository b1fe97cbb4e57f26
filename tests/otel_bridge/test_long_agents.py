"""A long agent's spans grow with its conversation, not with its square, and lose none of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inspect_ai.event import ModelEvent
from inspect_ai.log import EvalSample
from inspect_ai.model import ChatMessage
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_bridge.history import rebuild_input
from otel_bridge.logs import LogSource
from otel_bridge.messages import message_to_genai
from otel_bridge.pipeline import tracer_provider
from otel_bridge.replay import replay
from otel_bridge.tracer import SpanTracer
from otel_bridge.values import Capture
from tests.support.evals import TASKS, eval_task, run_inspect
from tests.support.proxy import recording_proxy
from tests.support.servers import MlflowServer
from tests.support.sink import OtlpSink


def test_300_turns(
    tmp_path: Path, otlp_sink: OtlpSink, mlflow_server: MlflowServer, experiment_name: str
) -> None:
    with recording_proxy(mlflow_server.uri) as mlflow:
        run = run_inspect(
            ["eval", f"{TASKS}/long.py@long_agent"],
            cwd=tmp_path,
            env={
                "MLFLOW_TRACKING_URI": mlflow.uri,
                "MLFLOW_EXPERIMENT_NAME": experiment_name,
                "MLFLOW_INSPECT_TRACING": "true",
                "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_sink.http_endpoint,
            },
        )
        (path,) = run.logs
        (sample,) = LogSource.of(path).samples()
        once = size(sample.messages)
        assert once > 300 * 5_000
        to_otlp = sum(request.message_bytes for request in otlp_sink.requests)
        to_mlflow = sum(request.body_bytes for request in mlflow.requests)
    assert 5 * once < to_otlp < 20 * once
    assert 10 * once < to_mlflow < 35 * once
    assert max(request.message_bytes for request in otlp_sink.requests) < 4 * 1024 * 1024

    spans = {span.span_id: span.attributes for span in otlp_sink.spans()}
    assert check_inputs(sample, spans) == 300
    repeated = [
        len(str(attributes["gen_ai.input.messages"]))
        for attributes in spans.values()
        if attributes["inspect.kind"] == "model"
    ]
    assert max(repeated) < 64_000 + 3 * 5_500, "the budget, and what is new"


def test_bytes_grow_linearly(tmp_path: Path) -> None:
    sizes = {}
    for turns in (40, 80, 160):
        log = eval_task("long.py@long_agent", log_dir=tmp_path, task_args={"turns": turns})
        exporter = InMemorySpanExporter()
        SpanTracer(tracer_provider([SimpleSpanProcessor(exporter)])).emit(replay(log.location))
        sent = exporter.get_finished_spans()
        sizes[turns] = len(encode_spans(sent).SerializeToString())
    first, second = sizes[80] - sizes[40], (sizes[160] - sizes[80]) / 2
    assert second < 1.1 * first, sizes


def test_every_input_can_be_rebuilt_whatever_the_conversation(tmp_path: Path) -> None:
    """Parallel agents, handoffs and inputs that change; with little or no history repeated."""
    for name in ("agents.py@parallel", "agents.py@handed_off", "agents.py@nested", "content.py"):
        log = eval_task(f"{name}@media" if "@" not in name else name, log_dir=tmp_path)
        for budget in (0, 200, 64_000):
            capture = Capture(history_bytes=budget)
            spans = {
                f"{s.span_id:016x}": s.attributes for s in replay(log.location, capture=capture)
            }
            assert (
                sum(check_inputs(sample, spans) for sample in LogSource.of(log.location).samples())
                > 0
            )


def check_inputs(sample: EvalSample, spans: dict[str, Any]) -> int:
    """Each model call's input, rebuilt from the spans, is the log's; returns how many there are."""
    by_uuid = {
        attributes["inspect.event.uuid"]: span_id
        for span_id, attributes in spans.items()
        if attributes["inspect.kind"] == "model"
    }
    calls = [event for event in sample.events if isinstance(event, ModelEvent)]
    for event in calls:
        rebuilt = rebuild_input(by_uuid[event.uuid], spans)
        assert rebuilt == [as_input(message) for message in event.input]
    return len(calls)


def as_input(message: ChatMessage) -> dict[str, Any]:
    """A message as it stands in an input: without its id."""
    genai = message_to_genai(message.model_copy(update={"id": None}), Capture())
    if not genai.get("inspect", {"x": 1}):
        del genai["inspect"]
    return genai


def size(messages: Sequence[ChatMessage]) -> int:
    return sum(len(message.model_dump_json(exclude_none=True).encode()) for message in messages)
