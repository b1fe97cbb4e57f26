"""Attaches a sample's OpenTelemetry context, so that other instrumentation nests inside it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_bridge.spans import SampleRef


def is_instrumented() -> bool:
    """Whether anything in this process uses OpenTelemetry's API, as instrumentation does.

    Ask before this package imports it.
    """
    return "opentelemetry.trace" in sys.modules


def attach_sample(ref: SampleRef, *, sampled: bool = True) -> None:
    """Make the sample's span the current one of the running task and of what it starts.

    `sampled` says whether that span is sent: what nests in it then is, or is not, as well.

    Spans of instrumented HTTP clients, databases and the like then belong to the sample's trace,
    and their requests carry its `traceparent`. It is never detached: it ends with the task.
    """
    from opentelemetry.context import attach
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    context = SpanContext(
        ref.trace_id,
        ref.span_id,
        is_remote=False,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT),
    )
    attach(set_span_in_context(NonRecordingSpan(context)))
