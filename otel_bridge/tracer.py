"""SpanData → OpenTelemetry spans: with their own ids, parents, times and links."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from otel_bridge import semconv as sc
from otel_bridge.limits import limited
from otel_bridge.spans import AttributeValue, SpanData

_KINDS = {"internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT}
_STATUS = {"unset": StatusCode.UNSET, "ok": StatusCode.OK, "error": StatusCode.ERROR}


class GivenIds(IdGenerator):
    """An id generator that gives the ids it was told, per thread."""

    def __init__(self) -> None:
        self.next = threading.local()

    def generate_span_id(self) -> int:
        """The span id set for this thread."""
        return int(self.next.span_id)

    def generate_trace_id(self) -> int:
        """The trace id set for this thread."""
        return int(self.next.trace_id)


class SpanTracer:
    """Emits SpanData through a TracerProvider that was made with `GivenIds`. Thread-safe."""

    def __init__(self, provider: TracerProvider, version: str | None = None) -> None:
        generator = provider.id_generator
        if not isinstance(generator, GivenIds):
            raise TypeError(f"the provider's id_generator must be GivenIds, not {generator!r}")
        self._ids = generator
        self._sampler = provider.sampler
        self._limits = span_limits()
        self._tracer = provider.get_tracer(sc.SCOPE_NAME, version, schema_url=sc.SCHEMA_URL)
        self.is_sampled = lru_cache(maxsize=1024)(self._decide)

    def emit(self, spans: Iterable[SpanData]) -> None:
        """Start and end each span, with the ids and times it says, as far as the limits go."""
        for span in spans:
            if self.is_sampled(span.trace_id):
                for part in limited(span, self._limits):
                    self._emit(part)

    def _decide(self, trace_id: int) -> bool:
        """A trace is kept or left out whole: its children often come before its root."""
        decision = self._sampler.should_sample(None, trace_id, "").decision
        return decision is Decision.RECORD_AND_SAMPLE

    def _emit(self, data: SpanData) -> None:
        context = Context()
        if data.parent_id is not None:
            context = set_span_in_context(
                NonRecordingSpan(_span_context(data.trace_id, data.parent_id)), context
            )
        self._ids.next.trace_id = data.trace_id
        self._ids.next.span_id = data.span_id
        span = self._tracer.start_span(
            data.name,
            context=context,
            kind=_KINDS[data.kind],
            attributes=data.attributes,
            links=[
                Link(_span_context(link.trace_id, link.span_id), link.attributes)
                for link in data.links
            ],
            start_time=data.start_ns,
        )
        for event in data.events:
            span.add_event(event.name, event.attributes, event.time_ns)
        if isinstance(span, Span):
            _count_dropped(span, data.attributes)
        if data.status != "unset":
            message = data.status_message if data.status == "error" else None
            span.set_status(Status(_STATUS[data.status], message))
        span.end(data.end_ns)


_LIMITS = {
    "max_span_attributes": ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"),
    "max_events": ("OTEL_SPAN_EVENT_COUNT_LIMIT",),
    "max_links": ("OTEL_SPAN_LINK_COUNT_LIMIT",),
    "max_event_attributes": ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"),
    "max_link_attributes": ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"),
}


def span_limits() -> SpanLimits:
    """The limits that OTEL_* variables set; the SDK's own of 128 are lifted."""
    unset = {
        name: SpanLimits.UNSET
        for name, variables in _LIMITS.items()
        if not any(os.environ.get(variable) for variable in variables)
    }
    return SpanLimits(**unset)


def _count_dropped(span: Span, attributes: Mapping[str, AttributeValue]) -> None:
    """Put what was dropped before the SDK saw it into the SDK's counts: OTLP has fields for it."""
    containers: dict[str, Any] = {
        sc.INSPECT_DROPPED_ATTRIBUTES: span._attributes,
        sc.INSPECT_DROPPED_EVENTS: span._events,
        sc.INSPECT_DROPPED_LINKS: span._links,
    }
    for name, container in containers.items():
        if name in attributes:
            container.dropped += attributes[name]


def _span_context(trace_id: int, span_id: int) -> SpanContext:
    return SpanContext(
        trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )
