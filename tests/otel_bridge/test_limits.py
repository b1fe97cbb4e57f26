"""Spans within the OTEL_* limits and the size of a request, with what was cut counted on them."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_bridge.limits import SPAN_BYTES, limited
from otel_bridge.pipeline import BATCH_BYTES, Destination, span_bytes, tracer_provider
from otel_bridge.spans import EventData, LinkData, SpanData
from otel_bridge.tracer import SpanTracer, span_limits
from tests.support.sink import OtlpSink

GRPC_RECEIVER = 4 * 1024 * 1024
"""What a Collector's gRPC receiver takes."""


def span(
    attributes: Mapping[str, Any] | None = None,
    events: Sequence[EventData] = (),
    links: Sequence[LinkData] = (),
) -> SpanData:
    return SpanData(
        name="solver x",
        trace_id=7,
        span_id=8,
        parent_id=9,
        start_ns=1_000,
        end_ns=1_000_000,
        attributes={"inspect.kind": "solver", **(attributes or {})},
        events=events,
        links=links,
    )


def sent(*spans: SpanData) -> list[ReadableSpan]:
    """Spans as an exporter gets them."""
    exporter = InMemorySpanExporter()
    SpanTracer(tracer_provider([SimpleSpanProcessor(exporter)])).emit(spans)
    return list(exporter.get_finished_spans())


def encoded(spans: Sequence[ReadableSpan]) -> int:
    return len(encode_spans(spans).SerializeToString())


def test_without_limits_nothing_is_cut() -> None:
    events = [EventData("e", n + 2_000, {f"k{k}": k for k in range(200)}) for n in range(300)]
    (one,) = sent(span({f"a{n}": n for n in range(300)}, events))
    assert one.attributes is not None
    assert len(one.attributes) == 301
    assert len(one.events) == 300
    assert all(len(event.attributes or {}) == 200 for event in one.events)


def test_counts_are_limited_and_what_was_cut_is_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "10")
    monkeypatch.setenv("OTEL_SPAN_EVENT_COUNT_LIMIT", "3")
    monkeypatch.setenv("OTEL_SPAN_LINK_COUNT_LIMIT", "2")
    monkeypatch.setenv("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "4")
    whole = span(
        {f"a{n}": n for n in range(29)},
        [EventData(f"e{n}", n + 2_000, {f"k{k}": k for k in range(5)}) for n in range(7)],
        [LinkData(1, n + 1) for n in range(5)],
    )
    with caplog.at_level(logging.WARNING):
        (one,) = sent(whole)
    assert caplog.records == []
    attributes = dict(one.attributes or {})
    assert len(attributes) == 10
    assert attributes["inspect.kind"] == "solver"
    assert attributes["inspect.dropped.events"] == 4
    assert attributes["inspect.dropped.links"] == 3
    kept = 10 - 3
    assert attributes["inspect.dropped.attributes"] == 30 - kept + 3
    assert [event.name for event in one.events] == ["e4", "e5", "e6"]
    assert [len(event.attributes or {}) for event in one.events] == [4, 4, 4]
    assert [link.context.span_id for link in one.links] == [4, 5]
    assert (one.dropped_events, one.dropped_links) == (4, 3)
    assert one.dropped_attributes == 26


def test_a_value_longer_than_the_limit_stays_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "200")
    messages = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "x" * 5_000}]}])
    (one,) = sent(span({"messages": messages, "text": "y" * 500, "short": "z"}))
    attributes = dict(one.attributes or {})
    assert len(str(attributes["messages"])) <= 200
    (message,) = json.loads(str(attributes["messages"]))
    assert "bytes cut]" in message["parts"][0]["content"]
    assert len(str(attributes["text"])) <= 200
    assert str(attributes["text"]).endswith("bytes cut]")
    assert attributes["short"] == "z"
    assert attributes["inspect.shortened.values"] == 2


def test_every_value_can_be_encoded() -> None:
    odd: dict[str, Any] = {
        "surrogate": "a\ud800b",
        "big": 2**80,
        "small": -(2**63),
        "nan": float("nan"),
        "infinite": float("-inf"),
        "flag": True,
        "list": ["\udfff", "ü"],
        "key \ud800": "x",
    }
    (one,) = sent(span(odd, [EventData("e\ud800", 2_000, odd)]))
    attributes = dict(one.attributes or {})
    assert attributes["surrogate"] == "a\ufffdb"
    assert attributes["big"] == str(2**80)
    assert attributes["small"] == -(2**63)
    assert (attributes["nan"], attributes["infinite"]) == ("NaN", "-Infinity")
    assert attributes["flag"] is True
    assert attributes["list"] == ("\ufffd", "ü")
    assert attributes["key \ufffd"] == "x"
    assert one.events[0].name == "e\ufffd"
    assert encoded([one]) > 0


def test_a_span_larger_than_a_request_is_shortened() -> None:
    big = {f"big{n}": json.dumps({"text": "x" * 999_000, "n": n}) for n in range(8)}
    (one,) = sent(span({**big, "small": "s" * 5_000}))
    assert encoded([one]) < GRPC_RECEIVER
    attributes = dict(one.attributes or {})
    assert attributes["small"] == "s" * 5_000
    assert attributes["inspect.shortened.values"] == 8
    for n in range(8):
        assert json.loads(str(attributes[f"big{n}"]))["n"] == n
    assert encoded([one]) > 2_900_000, "no more was cut than has to be"


def test_events_that_do_not_fit_go_on_in_spans_below() -> None:
    text = json.dumps({"text": "ü" * 20_000}, ensure_ascii=False)
    events = [EventData("inspect.info", 2_000 + n, {"n": n, "data": text}) for n in range(400)]
    spans = sent(span({"a": "b" * 900_000}, events))
    *more, own = spans
    assert own.name == "solver x"
    assert [s.name for s in more] == [f"solver x (events {n + 2})" for n in range(len(more))]
    assert len(more) == 5
    numbers = [(e.attributes or {})["n"] for s in [own, *more] for e in s.events]
    assert numbers == list(range(400))
    assert all((e.attributes or {})["data"] == text for s in spans for e in s.events)
    assert "inspect.shortened.values" not in dict(own.attributes or {})
    for one in spans:
        assert encoded([one]) < GRPC_RECEIVER
        assert span_bytes(one) <= SPAN_BYTES + 1_000
    for one in more:
        assert one.parent is not None
        assert one.parent.span_id == own.context.span_id
        assert 2_000 <= (one.start_time or 0) <= (one.end_time or 0) < 2_400
    assert len({s.context.span_id for s in spans}) == len(spans)
    assert [s.context.span_id for s in sent(span({"a": "b" * 900_000}, events))] == [
        s.context.span_id for s in spans
    ]


def test_one_huge_event() -> None:
    attributes = {f"k{n}": "\N{GRINNING FACE}" * 240_000 for n in range(6)}
    spans = sent(span({}, [EventData("inspect.store", 2_000, attributes)]))
    assert all(encoded([one]) < GRPC_RECEIVER for one in spans)
    ((event,),) = ([e for one in spans for e in one.events],)
    assert list(event.attributes or {}) == list(attributes)


def test_many_links_and_attributes() -> None:
    links = [LinkData(n + 1, n + 1, {"inspect.kind": "sample"}) for n in range(20_000)]
    (one,) = sent(span({f"key {n}": "v" * 100 for n in range(40_000)}, links=links))
    assert encoded([one]) < GRPC_RECEIVER
    attributes = dict(one.attributes or {})
    assert int(str(attributes["inspect.dropped.links"])) + len(one.links) == 20_000
    assert int(str(attributes["inspect.dropped.attributes"])) + len(attributes) == 40_001 + 2


def test_requests_stay_below_what_a_collector_takes(otlp_sink: OtlpSink) -> None:
    """Over gRPC, whose receivers refuse a message of more than 4 MiB."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    destination = Destination(
        "collector", lambda: OTLPSpanExporter(otlp_sink.grpc_endpoint, insecure=True)
    )
    tracer = SpanTracer(tracer_provider([destination]))
    value = json.dumps(["ü" * 450_000])
    for _ in range(8):
        tracer.emit([span({"value": value}), span({f"v{n}": value for n in range(5)})])
    assert destination.force_flush(30_000)
    destination.shutdown()
    assert destination.delivery().lost == 0
    sizes = [request.message_bytes for request in otlp_sink.requests]
    assert len(otlp_sink.spans()) == 16
    assert max(sizes) < GRPC_RECEIVER
    assert len(sizes) >= sum(sizes) / BATCH_BYTES


def test_limited_says_nothing_of_spans_that_fit() -> None:
    data = span({"a": "x", "b": 1}, [EventData("e", 2_000, {"c": 1.5})], [LinkData(1, 2)])
    assert list(limited(data, span_limits())) == [data]
