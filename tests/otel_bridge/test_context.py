"""Other instrumentation's spans nest inside the sample."""

from pathlib import Path

import pytest
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.solver import Generate, Solver, TaskState, solver
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.capture import LiveSpans


@pytest.mark.parametrize("scope", ["run", "sample"])
def test_a_users_spans_belong_to_the_samples_trace(
    scope: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("a user's")

    @solver
    def instrumented() -> Solver:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            with tracer.start_as_current_span(f"request of {state.sample_id}"):
                pass
            return state

        return solve

    monkeypatch.setenv("INSPECT_MLFLOW_TRACE_SCOPE", scope)
    live = LiveSpans(monkeypatch)
    eval(
        Task(dataset=[Sample(id="a", input="?"), Sample(id="b", input="?")], solver=instrumented()),
        model="mockllm/model",
        log_dir=str(tmp_path),
        display="none",
    )
    samples = {
        span.attributes["inspect.sample.id"]: span
        for span in live.spans
        if span.inspect_kind == "sample"
    }
    found = {span.name: span for span in exporter.get_finished_spans()}
    assert set(found) == {"request of a", "request of b"}
    for name, span in found.items():
        sample = samples[name.removeprefix("request of ")]
        assert span.context is not None
        assert span.parent is not None
        assert f"{span.context.trace_id:032x}" == sample.trace_id
        assert f"{span.parent.span_id:016x}" == sample.span_id
        assert not [own for own in live.spans if own.name == name]
