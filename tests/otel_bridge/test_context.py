"""Other instrumentation's spans nest inside the sample."""

from collections.abc import Callable
from pathlib import Path

import pytest
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalSpec
from inspect_ai.solver import Generate, Solver, TaskState, solver
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, get_value
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_bridge.background import BackgroundThread, start_thread
from otel_bridge.live import LiveRun
from tests.support.capture import LiveSpans
from tests.support.process import wait_until


@pytest.fixture
def evaluated(tmp_path: Path) -> Callable[[], dict[str, ReadableSpan]]:
    """Evaluates two samples with a tracer of a user's; gives the spans that this recorded."""
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

    def evaluate() -> dict[str, ReadableSpan]:
        dataset = [Sample(id="a", input="?"), Sample(id="b", input="?")]
        eval(
            Task(dataset=dataset, solver=instrumented()),
            model="mockllm/model",
            log_dir=str(tmp_path),
            display="none",
        )
        return {span.name: span for span in exporter.get_finished_spans()}

    return evaluate


@pytest.mark.parametrize("scope", ["run", "sample"])
def test_a_users_spans_belong_to_the_samples_trace(
    scope: str,
    evaluated: Callable[[], dict[str, ReadableSpan]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INSPECT_MLFLOW_TRACE_SCOPE", scope)
    live = LiveSpans(monkeypatch)
    found = evaluated()
    samples = {
        span.attributes["inspect.sample.id"]: span
        for span in live.spans
        if span.inspect_kind == "sample"
    }
    assert set(found) == {"request of a", "request of b"}
    for name, span in found.items():
        sample = samples[name.removeprefix("request of ")]
        assert span.context is not None
        assert span.parent is not None
        assert f"{span.context.trace_id:032x}" == sample.trace_id
        assert f"{span.parent.span_id:016x}" == sample.span_id
        assert not [own for own in live.spans if own.name == name]


def test_what_is_not_sampled_takes_a_users_spans_along(
    evaluated: Callable[[], dict[str, ReadableSpan]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    begin = LiveRun.begin_task

    def begun(run: LiveRun, spec: EvalSpec) -> None:
        wait_until(lambda: hasattr(run, "_tracer"), what="the tracer")
        begin(run, spec)

    monkeypatch.setattr(LiveRun, "begin_task", begun)
    live = LiveSpans(monkeypatch)
    assert evaluated() == {}
    assert live.spans == []


def test_mlflow_in_the_global_context_keeps_its_own_traces(
    evaluated: Callable[[], dict[str, ReadableSpan]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_USE_DEFAULT_TRACER_PROVIDER", "false")
    live = LiveSpans(monkeypatch)
    assert [span.parent for span in evaluated().values()] == [None, None]
    assert live.spans


def test_own_threads_are_not_instrumented() -> None:
    seen: list[object] = []
    start_thread(lambda: seen.append(get_value(_SUPPRESS_INSTRUMENTATION_KEY)), "inspect-x").join()
    thread = BackgroundThread("inspect-y")
    thread.submit(lambda: seen.append(get_value(_SUPPRESS_INSTRUMENTATION_KEY)))
    assert thread.flush(10)
    thread.close()
    assert seen == [True, True]
    assert get_value(_SUPPRESS_INSTRUMENTATION_KEY) is None
