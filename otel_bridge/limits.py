"""SpanData as any exporter can encode it and any receiver takes it.

Values become what OTLP has a place for. The OTEL_* limits apply, and what they cut is counted on
the span. A span too large for one request is shortened, and its events go on in spans below it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from otel_bridge import ids
from otel_bridge import semconv as sc
from otel_bridge.spans import AttributeValue, EventData, SpanData
from otel_bridge.values import clean_text, shared_level, to_json

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanLimits

SPAN_BYTES: Final = 3 * 1024 * 1024
"""The most bytes of one span: below the 4 MiB that a Collector's gRPC receiver takes."""

_NAME_BYTES: Final = 1000
_LINK_BYTES: Final = 300
_LEAST: Final = 64
"""Bytes in which any value can be stood in for by a note that says what was cut."""
_NO_LIMIT: Final = 1 << 62

Attributes = Mapping[str, AttributeValue]
_Item = TypeVar("_Item")


def limited(span: SpanData, limits: SpanLimits, max_bytes: int = SPAN_BYTES) -> Iterator[SpanData]:
    """`span` within the limits; before it, where it is too large, spans with more of its events.

    Of attributes the first stay, of events and links the last ones, as in the SDK.
    """
    cut = Counter[str]()
    events = _last(span.events, limits.max_events, sc.INSPECT_DROPPED_EVENTS, cut)
    links = _last(span.links, limits.max_links, sc.INSPECT_DROPPED_LINKS, cut)
    attributes = _clean(span.attributes, limits.max_span_attribute_length, cut)
    events = [
        EventData(
            clean_text(event.name, _NAME_BYTES),
            event.time_ns,
            _first(
                _clean(event.attributes, limits.max_attribute_length, cut),
                limits.max_event_attributes,
                cut,
            ),
        )
        for event in events
    ]
    size = attributes_bytes(attributes) + sum(map(event_bytes, events)) + _LINK_BYTES * len(links)
    if size > max_bytes:
        links = _last(links, max_bytes // 4 // _LINK_BYTES, sc.INSPECT_DROPPED_LINKS, cut)
        room = max_bytes - _LINK_BYTES * len(links)
        events = [
            replace(event, attributes=_shortened(event.attributes, max_bytes // 2, cut))
            for event in events
        ]
        wanted = sum(map(event_bytes, events))
        attributes = _shortened(attributes, max(room // 2, room - wanted), cut)
        first, *more = _chunks(events, room - attributes_bytes(attributes), max_bytes)
        events = first
        for number, chunk in enumerate(more, 2):
            yield _continuation(span, number, chunk)
    yield replace(
        span,
        name=clean_text(span.name, _NAME_BYTES),
        attributes=_counted(attributes, limits.max_span_attributes, cut),
        events=events,
        links=links,
    )


def attributes_bytes(attributes: Mapping[str, Any]) -> int:
    """About how many bytes attributes take when encoded, and never much less."""
    return sum(len(key) + 16 + _value_bytes(value) for key, value in attributes.items())


def event_bytes(event: EventData) -> int:
    """About how many bytes a span event takes when encoded."""
    return 64 + len(event.name) + attributes_bytes(event.attributes)


def _value_bytes(value: Any) -> int:
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode(errors="replace"))
    if isinstance(value, Sequence):
        return sum(8 + _value_bytes(item) for item in value)
    return 0


# --- values -------------------------------------------------------------------------------------


def _clean(attributes: Attributes, length: int | None, cut: Counter[str]) -> Attributes:
    """Attributes with values that can be encoded, none longer than `length`."""
    return {
        key if key.isascii() else clean_text(key, _NAME_BYTES): _clean_value(value, length, cut)
        for key, value in attributes.items()
    }


def _clean_value(value: AttributeValue, length: int | None, cut: Counter[str]) -> AttributeValue:
    if isinstance(value, str):
        if length is not None and len(value) > length:
            return _short(value, length, cut)
        return value if value.isascii() else clean_text(value, _NO_LIMIT)
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else to_json(value, 1000)
    if isinstance(value, float):
        return value if math.isfinite(value) else json.loads(to_json(value, 1000))
    return [str(_clean_value(item, length, cut)) for item in value]


def _short(text: str, max_bytes: int, cut: Counter[str]) -> str:
    """`text` in `max_bytes`: inside the JSON where it is JSON. Exact for 64 bytes and more."""
    cut[sc.INSPECT_SHORTENED_VALUES] += 1
    if text[:1] in ("{", "["):
        try:
            return to_json(json.loads(text), max_bytes)
        except ValueError:
            pass  # text that only begins like JSON
    return clean_text(text, max_bytes)


def _shortened(attributes: Attributes, room: int, cut: Counter[str]) -> Attributes:
    """Attributes in at most `room` bytes: the longest values give way first."""
    if attributes_bytes(attributes) <= room:
        return attributes
    attributes = _first(attributes, max(1, room // (2 * _NAME_BYTES)), cut)
    sizes = [_value_bytes(value) for value in attributes.values()]
    level = max(_LEAST, shared_level(sizes, room - attributes_bytes(dict.fromkeys(attributes, 0))))
    result: dict[str, AttributeValue] = {}
    for (key, value), size in zip(attributes.items(), sizes, strict=True):
        if size > level:
            text = value if isinstance(value, str) else to_json(value, _NO_LIMIT)
            value = _short(text, level, cut)
        result[key] = value
    return result


# --- counts -------------------------------------------------------------------------------------


def _first(attributes: Attributes, limit: int | None, cut: Counter[str]) -> Attributes:
    if limit is None or len(attributes) <= limit:
        return attributes
    cut[sc.INSPECT_DROPPED_ATTRIBUTES] += len(attributes) - limit
    return dict(list(attributes.items())[:limit])


def _last(
    items: Sequence[_Item], limit: int | None, name: str, cut: Counter[str]
) -> Sequence[_Item]:
    if limit is None or len(items) <= limit:
        return items
    cut[name] += len(items) - limit
    return items[len(items) - limit :]


def _counted(attributes: Attributes, limit: int | None, cut: Counter[str]) -> Attributes:
    """At most `limit` attributes, those that say what was cut among them."""
    if limit is not None and len(attributes) + len(cut) > limit:
        cut[sc.INSPECT_DROPPED_ATTRIBUTES] += 0  # takes a place of its own
        attributes = _first(attributes, max(0, limit - len(cut)), cut)
    return {**attributes, **cut}


# --- events that don't fit ----------------------------------------------------------------------


def _chunks(events: Sequence[EventData], first: int, later: int) -> Iterator[Sequence[EventData]]:
    """Events in groups of at most so many bytes; the first group may be empty."""
    chunk: list[EventData] = []
    room = first
    for event in events:
        size = event_bytes(event)
        if size > room:
            yield chunk
            chunk, room = [], later
        chunk.append(event)
        room -= size
    yield chunk


def _continuation(span: SpanData, number: int, events: Sequence[EventData]) -> SpanData:
    times = [event.time_ns for event in events]
    return SpanData(
        name=f"{clean_text(span.name, _NAME_BYTES)} (events {number})",
        trace_id=span.trace_id,
        span_id=ids.span_id(ids.hex_span_id(span.span_id), f"events {number}"),
        parent_id=span.span_id,
        start_ns=min(times),
        end_ns=max(times),
        attributes={sc.INSPECT_KIND: "events", sc.OPENINFERENCE_SPAN_KIND: "CHAIN"},
        events=events,
    )
