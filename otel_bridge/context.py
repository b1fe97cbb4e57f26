"""Attaches a sample's OpenTelemetry context, so that other instrumentation nests inside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_bridge.spans import SampleRef


def attach_sample(ref: SampleRef) -> None:
    """Make the sample's span the current one of the running asyncio task and what it starts.

    Spans of instrumented HTTP clients, databases and the like then belong to the sample's trace,
    and requests carry its `traceparent`. It is never detached: the context ends with the task.
    """
    from opentelemetry.context import attach
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context

    from otel_bridge.tracer import span_context

    attach(set_span_in_context(NonRecordingSpan(span_context(ref.trace_id, ref.span_id))))
