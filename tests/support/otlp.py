"""Spans as they arrived somewhere: one form for OTLP messages, Jaeger's JSON and SDK spans."""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format  # type: ignore[import-untyped]
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, Status, TracesData
from opentelemetry.sdk.trace import ReadableSpan


@dataclass(frozen=True)
class ReceivedEvent:
    """A span event."""

    name: str
    time_ns: int
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class ReceivedLink:
    """A link to another span; ids in hexadecimal."""

    trace_id: str
    span_id: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class ReceivedSpan:
    """A span; ids in lower-case hexadecimal, `parent_id` None for a root."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str
    """INTERNAL, CLIENT, SERVER, PRODUCER, CONSUMER or UNSPECIFIED."""
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Any]
    status: str
    """UNSET, OK or ERROR."""
    status_message: str
    events: Sequence[ReceivedEvent]
    links: Sequence[ReceivedLink]
    resource: Mapping[str, Any] = field(repr=False)
    scope: str = field(repr=False)

    def json(self, attribute: str) -> Any:
        """Parse an attribute that holds JSON."""
        return json.loads(self.attributes[attribute])


def spans_of_message(message: ExportTraceServiceRequest | TracesData) -> list[ReceivedSpan]:
    """Flatten an OTLP message."""
    return list(_flatten(message.resource_spans))


def spans_of_json(data: Mapping[str, Any]) -> list[ReceivedSpan]:
    """Flatten OTLP JSON, `{"resourceSpans": […]}`, in which ids are hexadecimal."""
    message = TracesData()
    json_format.ParseDict(_with_base64_ids(data), message, ignore_unknown_fields=True)
    return spans_of_message(message)


def spans_of_sdk(spans: Sequence[ReadableSpan]) -> list[ReceivedSpan]:
    """Give finished SDK spans, e.g. an in-memory exporter's, in the form they would arrive in."""
    return spans_of_message(encode_spans(spans))


def outline(spans: Iterable[ReceivedSpan], *, with_kind: bool = False) -> str:
    """Draw the spans as indented names, children in order of start; readable in an assertion.

    A span whose parent isn't among `spans` stands at the left margin.
    """
    ordered = sorted(spans, key=lambda span: (span.start_ns, span.end_ns, span.span_id))
    known = {span.span_id for span in ordered}
    children: dict[str | None, list[ReceivedSpan]] = {}
    for span in ordered:
        children.setdefault(span.parent_id if span.parent_id in known else None, []).append(span)

    def lines(parent: str | None, depth: int) -> Iterator[str]:
        for span in children.get(parent, []):
            kind = f" [{span.kind}]" if with_kind else ""
            error = " !ERROR" if span.status == "ERROR" else ""
            yield f"{'  ' * depth}{span.name}{kind}{error}"
            yield from lines(span.span_id, depth + 1)

    return "\n".join(lines(None, 0))


def _flatten(groups: Iterable[ResourceSpans]) -> Iterator[ReceivedSpan]:
    for group in groups:
        resource = _attributes(group.resource.attributes)
        for scoped in group.scope_spans:
            for span in scoped.spans:
                yield _received(span, resource, scoped.scope.name)


def _received(span: Span, resource: Mapping[str, Any], scope: str) -> ReceivedSpan:
    return ReceivedSpan(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex() or None,
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        status=Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
        status_message=span.status.message,
        events=[
            ReceivedEvent(event.name, event.time_unix_nano, _attributes(event.attributes))
            for event in span.events
        ],
        links=[
            ReceivedLink(link.trace_id.hex(), link.span_id.hex(), _attributes(link.attributes))
            for link in span.links
        ],
        resource=resource,
        scope=scope,
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return getattr(value, kind)


def _with_base64_ids(data: Any) -> Any:
    """Write ids as protobuf's JSON has them; OTLP JSON differs from it in just that."""
    if isinstance(data, Mapping):
        return {
            key: base64.b64encode(bytes.fromhex(value)).decode()
            if key in ("traceId", "spanId", "parentSpanId")
            else _with_base64_ids(value)
            for key, value in data.items()
        }
    if isinstance(data, list):
        return [_with_base64_ids(item) for item in data]
    return data
