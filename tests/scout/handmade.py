"""Spans written by hand, as any program's exporter would send them to MLflow."""

import itertools
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import SpanContext, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from inspect_mlflow.connection import Connection

START = 1_700_000_000_000_000_000
_traces = itertools.count()


@dataclass
class Given:
    """A span; what is below it begins a second later each."""

    name: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    children: Sequence["Given"] = ()
    error: str | None = None
    events: Sequence[tuple[str, Mapping[str, Any]]] = ()


def log_trace(uri: str, experiment: str, root: Given, *, without_root: bool = False) -> str:
    """Store a trace the way MLflow's server does on receiving it; gives its id."""
    from mlflow.entities.span import Span
    from mlflow.tracking._tracking_service import utils
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    _, experiment_id = Connection(uri, experiment).open()
    trace_id = secrets.randbits(128)
    spans = list(_spans(root, trace_id, None, [100 * next(_traces)]))
    encoded = encode_spans(spans[1:] if without_root else spans)
    store: Any = utils._get_store(uri)  # type: ignore[no-untyped-call, unused-ignore]
    store.log_spans(
        experiment_id,
        [
            Span.from_otel_proto(span, resource=resource.resource)
            for resource in encoded.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ],
    )
    return f"tr-{trace_id:032x}"


def _spans(given: Given, trace_id: int, parent: SpanContext | None, clock: list[int]) -> Any:
    def tick() -> int:
        clock[0] += 1
        return START + clock[0] * 1_000_000_000

    context = SpanContext(trace_id, secrets.randbits(64), False, TraceFlags(1))
    start = tick()
    below = [span for child in given.children for span in _spans(child, trace_id, context, clock)]
    attributes = {
        key: value if isinstance(value, str | int | float | bool) else json.dumps(value)
        for key, value in given.attributes.items()
    }
    status = Status(StatusCode.OK) if given.error is None else Status(StatusCode.ERROR, given.error)
    yield ReadableSpan(
        name=given.name,
        context=context,
        parent=parent,
        resource=Resource({"service.name": "handmade"}),
        attributes=attributes,
        events=[Event(name, dict(values), start) for name, values in given.events],
        status=status,
        start_time=start,
        end_time=tick(),
    )
    yield from below
