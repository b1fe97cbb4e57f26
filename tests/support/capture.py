"""Spans in memory: those of a live evaluation, and those of its replayed log."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from inspect_mlflow import tracing
from otel_bridge.pipeline import Destination, tracer_provider
from otel_bridge.replay import replay
from otel_bridge.tracer import SpanTracer


@dataclass(frozen=True)
class Span:
    """A span as a destination receives it, comparable."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str | None
    start_ns: int
    end_ns: int
    status: str
    status_message: str | None
    attributes: dict[str, Any]
    events: list[tuple[str, int, dict[str, Any]]]
    links: list[tuple[str, str]]

    @property
    def inspect_kind(self) -> str:
        return str(self.attributes["inspect.kind"])

    def json(self, key: str) -> Any:
        """An attribute that holds JSON."""
        return json.loads(self.attributes[key])


def as_span(span: ReadableSpan) -> Span:
    context = span.context
    assert context is not None
    assert span.start_time is not None
    assert span.end_time is not None
    return Span(
        name=span.name,
        kind=span.kind.name,
        trace_id=f"{context.trace_id:032x}",
        span_id=f"{context.span_id:016x}",
        parent_id=None if span.parent is None else f"{span.parent.span_id:016x}",
        start_ns=span.start_time,
        end_ns=span.end_time,
        status=span.status.status_code.name,
        status_message=span.status.description,
        attributes=dict(span.attributes or {}),
        events=[(e.name, e.timestamp, dict(e.attributes or {})) for e in span.events],
        links=[(f"{k.context.trace_id:032x}", f"{k.context.span_id:016x}") for k in span.links],
    )


class LiveSpans:
    """Collects what the tracing hook gives its destinations in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._exporter = InMemorySpanExporter()
        monkeypatch.setenv("MLFLOW_INSPECT_TRACING", "true")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setattr(
            tracing._Run,
            "_destinations",
            lambda run: [Destination("memory", lambda: self._exporter)],
        )

    @property
    def spans(self) -> list[Span]:
        """All spans so far, in the order in which they were exported."""
        return [as_span(span) for span in self._exporter.get_finished_spans()]


def replayed_spans(*logs: Any, **options: Any) -> list[Span]:
    """The spans of finished logs, through the same tracer."""
    exporter = InMemorySpanExporter()
    provider = tracer_provider([SimpleSpanProcessor(exporter)])
    SpanTracer(provider).emit(replay(*logs, **options))
    return [as_span(span) for span in exporter.get_finished_spans()]


def tree(spans: Sequence[Span]) -> str:
    """Spans as an indented outline of their names, in the order of their starts."""
    ids = {span.span_id for span in spans}
    children: dict[str | None, list[Span]] = {}
    for span in spans:
        children.setdefault(span.parent_id if span.parent_id in ids else None, []).append(span)

    def lines(parent: str | None, depth: int) -> list[str]:
        result = []
        for span in sorted(children.get(parent, []), key=lambda s: (s.start_ns, -s.end_ns)):
            mark = " !" if span.status == "ERROR" else ""
            result.append(f"{'  ' * depth}{span.name}{mark}")
            result += lines(span.span_id, depth + 1)
        return result

    return "\n".join(lines(None, 0))
