"""Many traces: memory stays flat, and the time is that of MLflow's own reading."""

import asyncio
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import inspect_scout  # noqa: F401 - not to be timed
import pytest
from mlflow.tracing.client import TracingClient

from inspect_mlflow.connection import Connection
from inspect_mlflow.exporter import MlflowSpanExporter
from inspect_mlflow.scout import import_mlflow_traces
from otel_bridge import semconv as sc
from otel_bridge.pipeline import Destination, tracer_provider
from otel_bridge.replay import replay
from otel_bridge.spans import SpanData
from otel_bridge.tracer import SpanTracer
from tests.support.evals import eval_task
from tests.support.servers import MlflowServer

TRACES = 500
SHARE = 0.8
MEMORY = 40
"""How many MB more there may be at the end than after the first tenth."""


def copies(log: str) -> Iterator[SpanData]:
    """The spans of a log's one sample as those of many, each in a trace of its own."""
    spans = list(replay(log, scope="sample"))
    (sample,) = (s for s in spans if s.attributes[sc.INSPECT_KIND] == "sample")
    yield from (s for s in spans if s.trace_id != sample.trace_id)
    mine = [s for s in spans if s.trace_id == sample.trace_id]
    for number in range(1, TRACES + 1):
        for span in mine:
            attributes = dict(span.attributes)
            if span is sample:
                attributes[sc.INSPECT_SAMPLE_UUID] = f"sample-{number}"
            trace_id = (span.trace_id + number) % (1 << 128)
            yield dataclasses.replace(span, trace_id=trace_id, attributes=attributes)


def test_many_traces(
    mlflow_server: MlflowServer,
    experiment_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = f"sqlite:///{mlflow_server.db_path}"  # writing is quicker without the server
    destination = Destination(
        "MLflow",
        lambda: MlflowSpanExporter(Connection(store, experiment_name), link_runs=False),
        wait_for_room=True,
    )
    tracer = SpanTracer(tracer_provider([destination]))
    tracer.emit(copies(eval_task("minimal", log_dir=tmp_path).location))
    assert destination.force_flush(120_000)
    destination.shutdown()

    spent = 0.0

    def timed(name: str) -> None:
        original = getattr(TracingClient, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal spent
            began = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                spent += time.perf_counter() - began

        monkeypatch.setattr(TracingClient, name, call)

    for name in ("search_traces", "batch_get_traces", "get_trace_info"):
        timed(name)
    memory: list[float] = []

    async def read() -> int:
        count = 0
        async for transcript in import_mlflow_traces(experiment_name, mlflow_server.uri):
            assert transcript.events
            count += 1
            if count % (TRACES // 10) == 0:
                memory.append(resident_mb())
        return count

    began = time.perf_counter()
    assert asyncio.run(read()) == TRACES
    total = time.perf_counter() - began
    figures = f"{total:.1f} s, {spent:.1f} s of it in MLflow; MB: {[round(m) for m in memory]}"
    print(figures)
    assert spent / total >= SHARE, figures
    assert memory[-1] - memory[0] < MEMORY, figures


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6
