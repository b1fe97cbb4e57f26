"""Any sequence of events, however odd, becomes spans that stand: whole, once each, and ended."""

import json
import math
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

from hypothesis import given, settings
from hypothesis import strategies as st
from inspect_ai.event import (
    CompactionEvent,
    ErrorEvent,
    Event,
    InfoEvent,
    ModelEvent,
    SampleLimitEvent,
    SandboxEvent,
    ScoreEvent,
    SpanBeginEvent,
    SpanEndEvent,
    StepEvent,
    StoreEvent,
    SubtaskEvent,
    ToolEvent,
)
from inspect_ai.log import EvalError, EvalRetryError, EvalSample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    GenerateConfig,
    ModelOutput,
)
from inspect_ai.scorer import Score
from inspect_ai.tool import ToolCallError
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import ConfigDict

from otel_bridge.pipeline import tracer_provider
from otel_bridge.recorder import SampleRecorder
from otel_bridge.spans import SampleRef, SpanData, TaskRef
from otel_bridge.tracer import SpanTracer
from otel_bridge.values import Capture

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
REF = SampleRef(TaskRef("run", "eval", "task", "mockllm/model", "run"), "sample-uuid", 1, 1)


class NovelEvent(InfoEvent):
    """An event of a type that no Inspect has yet."""

    model_config = ConfigDict(extra="allow")
    event: Literal["novel"] = "novel"  # type: ignore[assignment]


# --- odd values ---------------------------------------------------------------------------------

texts = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=8),
    st.sampled_from(
        ["", "\ud800", "\x00", "data:image/png;base64,iVBORw0KGgo=", "[1, 2", "é" * 400]
    ),
    st.integers(1_000, 30_000).map(lambda n: "x" * n),
)
numbers = st.one_of(
    st.integers(-(2**80), 2**80), st.floats(), st.sampled_from([math.nan, math.inf, 2**63, -1])
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
times = st.one_of(
    st.integers(0, 20).map(lambda n: START + timedelta(milliseconds=n)),
    st.sampled_from([datetime(1, 1, 1), datetime(9999, 12, 31), datetime(1969, 1, 1)]),
)
span_ids = st.sampled_from(["s0", "s1", "s2", "s3", "unknown"])
uuids = st.one_of(st.none(), st.integers(0, 12).map(lambda n: f"event-{n}"))
messages: st.SearchStrategy[ChatMessage] = st.builds(
    lambda cls, text, id: cls(content=text, id=id),
    st.sampled_from([ChatMessageUser, ChatMessageSystem, ChatMessageAssistant]),
    texts,
    st.one_of(st.none(), st.sampled_from(["m0", "m1", "m2"])),
)
errors = st.builds(lambda text: EvalError(message=text, traceback=text, traceback_ansi=text), texts)


@st.composite
def events(draw: st.DrawFn) -> Event:
    place: dict[str, Any] = {"timestamp": draw(times), "metadata": draw(st.none() | maps)}
    maybe_done = draw(st.one_of(st.none(), times))
    kind = draw(st.sampled_from(sorted(MAKERS)))
    event: Event = MAKERS[kind](draw, place, maybe_done)
    event.uuid = draw(uuids)
    if event.event not in ("span_begin", "span_end"):
        event.span_id = draw(st.none() | span_ids)
    event.pending = draw(st.sampled_from([None, True]))
    event.working_start = draw(st.sampled_from([0.0, math.nan]))
    return event


maps = st.dictionaries(texts, values, max_size=2)


def _model(draw: st.DrawFn, place: dict[str, Any], done: datetime | None) -> Event:
    output = ModelOutput.from_content("mock", draw(texts))
    return ModelEvent(
        model=draw(st.sampled_from(["mockllm/model", "a/b/c", "\ud800", ""])),
        input=draw(st.lists(messages, max_size=4)),
        tools=[],
        tool_choice="auto",
        config=GenerateConfig(seed=2**70, temperature=0.5),
        output=draw(st.sampled_from([output, ModelOutput()])),
        error=draw(st.none() | texts),
        cache=draw(st.sampled_from([None, "read"])),
        retries=draw(st.none() | st.just(2**65)),
        completed=done,
        **place,
    )


def _tool(draw: st.DrawFn, place: dict[str, Any], done: datetime | None) -> Event:
    return ToolEvent(
        id=draw(texts),
        function=draw(texts),
        arguments=draw(maps),
        result=draw(texts),
        error=draw(st.none() | st.just(ToolCallError("timeout", "\ud800 too late"))),
        events=draw(st.lists(nested, max_size=2)),
        completed=done,
        **place,
    )


nested = st.sampled_from(
    [
        {"event": "info", "data": "old", "timestamp": "2024-01-01T00:00:00+00:00"},
        {"event": "step", "action": "begin", "name": "x", "timestamp": "2024-01-01T00:00:00"},
        {"event": "never heard of", "odd": math.nan},
        {},
    ]
)
MAKERS: dict[str, Any] = {
    "model": _model,
    "tool": _tool,
    "span_begin": lambda draw, place, done: SpanBeginEvent(
        id=draw(span_ids),
        parent_id=draw(st.none() | span_ids),
        type=draw(st.sampled_from([None, "tool", "subtask", "agent", "solver", "\udfff"])),
        name=draw(texts),
        **place,
    ),
    "span_end": lambda draw, place, done: SpanEndEvent(id=draw(span_ids), **place),
    "step": lambda draw, place, done: StepEvent(
        action=draw(st.sampled_from(["begin", "end"])),
        name=draw(st.sampled_from(["a", "b"])),
        type=draw(st.sampled_from([None, "solver"])),
        **place,
    ),
    "subtask": lambda draw, place, done: SubtaskEvent(
        name=draw(texts),
        input=draw(maps),
        result=draw(values),
        events=draw(st.lists(nested, max_size=1)),
        completed=done,
        **place,
    ),
    "sandbox": lambda draw, place, done: SandboxEvent(
        action="exec",
        cmd=draw(texts),
        result=draw(st.none() | st.just(2**64)),
        completed=done,
        **place,
    ),
    "score": lambda draw, place, done: ScoreEvent(
        score=Score(
            value=draw(st.sampled_from([math.nan, 2**70, "\ud800", {"a": None, "\ud800": 1}, [1]])),
            explanation=draw(texts),
            metadata=draw(maps),
        ),
        target=draw(st.sampled_from([None, "t", ["t", "\ud800"]])),
        **place,
    ),
    "info": lambda draw, place, done: InfoEvent(data=draw(st.just(None) | texts), **place),
    "store": lambda draw, place, done: StoreEvent(changes=[], **place),
    "error": lambda draw, place, done: ErrorEvent(error=draw(errors), **place),
    "limit": lambda draw, place, done: SampleLimitEvent(
        type="token", message=draw(texts), limit=math.inf, **place
    ),
    "compaction": lambda draw, place, done: CompactionEvent(tokens_before=2**70, **place),
    "novel": lambda draw, place, done: NovelEvent(
        **{"data": None, "odd": draw(values), "deep": {"x": [draw(texts)]}, **place}
    ),
}


@st.composite
def samples(draw: st.DrawFn, its_events: Sequence[Event]) -> EvalSample:
    sample = EvalSample(
        id=draw(texts | st.integers(-(2**70), 2**70)),
        epoch=1,
        input=draw(texts),
        target=draw(texts),
        metadata=draw(maps),
        uuid="sample-uuid",
        started_at=draw(st.sampled_from([None, "2026-01-01T00:00:00+00:00"])),
        error=draw(st.none() | errors),
        scores=draw(st.none() | st.just({"s \ud800": Score(value=math.nan)})),
    )
    sample.events = list(its_events)
    if draw(st.booleans()):
        retry = EvalRetryError(message="x", traceback="", traceback_ansi="")
        retry.events = draw(st.none() | st.lists(events(), max_size=3))
        sample.error_retries = [retry]
    return sample


def sent(spans: Sequence[SpanData]) -> list[ReadableSpan]:
    """Spans through tracer and SDK, and encoded as they would be sent."""
    exporter = InMemorySpanExporter()
    SpanTracer(tracer_provider([SimpleSpanProcessor(exporter)])).emit(spans)
    finished = list(exporter.get_finished_spans())
    encode_spans(finished).SerializeToString()
    return finished


def check(spans: Sequence[SpanData]) -> None:
    """Each span once, ended, with a parent that is there, all the way up to the sample."""
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    for span in spans:
        assert 0 <= span.start_ns <= span.end_ns < 2**63
        above, steps = span, 0
        while above.span_id != REF.span_id:
            assert above.parent_id is not None
            above = by_id[above.parent_id]
            steps += 1
            assert steps <= len(spans), "a parent inside its child"
    assert spans[-1].span_id == REF.span_id
    for one in sent(spans):
        for part in (one.attributes, *(event.attributes for event in one.events)):
            for key, value in (part or {}).items():
                assert not isinstance(value, float) or math.isfinite(value), key
                if isinstance(value, str) and key.endswith((".messages", ".data", ".metadata")):
                    json.loads(value, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


captures = st.sampled_from(
    [
        Capture(),
        Capture(content=False),
        Capture(media=True, max_value_bytes=1_000, history_bytes=100),
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.data(), captures)
def test_any_log(data: st.DataObject, capture: Capture) -> None:
    its_events = data.draw(st.lists(events(), max_size=14))
    sample = data.draw(samples(its_events))
    first = SampleRecorder(REF, capture).finish(sample)
    check(first)
    assert SampleRecorder(REF, capture).finish(sample) == first


@settings(max_examples=150, deadline=None)
@given(st.data(), captures)
def test_any_delivery(data: st.DataObject, capture: Capture) -> None:
    """Live events in any order, more than once, with attempts that end, then any sample or none."""
    pool = data.draw(st.lists(events(), max_size=12))
    recorder = SampleRecorder(REF, capture)
    spans: list[SpanData] = []
    if pool:
        for event in data.draw(st.lists(st.sampled_from(pool), max_size=20)):
            tool_event = data.draw(uuids) if event.event == "span_begin" else None
            spans += recorder.add(event, tool_event, settled=data.draw(st.booleans()))
            if data.draw(st.integers(0, 9)) == 0:
                spans += recorder.end_attempt(data.draw(st.none() | errors), 1)
    kept = data.draw(st.lists(st.sampled_from(pool), max_size=12)) if pool else []
    spans += recorder.finish(data.draw(st.none() | samples(kept)))
    check(spans)


# --- what can really happen ---------------------------------------------------------------------


@st.composite
def transcripts(draw: st.DrawFn) -> tuple[list[Event], list[tuple[datetime, Event, str | None]]]:
    """A sample's events in the log's order, and when each was delivered, with its tool event."""
    log: list[Event] = []
    delivered: list[tuple[datetime, Event, str | None]] = []
    clock = latest = START
    count = 0
    history: list[ChatMessage] = [ChatMessageUser(content="Begin.", id="m")]

    def tick() -> datetime:
        nonlocal clock, count
        clock += timedelta(milliseconds=1)
        count += 1
        return clock

    def record(event: Event, at: datetime, tool_event: str | None = None) -> None:
        event.uuid = f"e{len(log)}"
        log.append(event)
        delivered.append((at, event, tool_event))

    def block(span: str | None, depth: int) -> None:
        nonlocal clock, latest
        for _ in range(draw(st.integers(0, 3))):
            choice = draw(st.sampled_from(["info", "model", "sandbox", "span", "tool", "subtask"]))
            at = tick()
            if choice == "info":
                record(_at(InfoEvent(data=count), at, span), at)
            elif choice in ("model", "sandbox"):
                end = at + timedelta(milliseconds=draw(st.integers(1, 5)))
                latest = max(latest, end)  # siblings run at the same time
                done = end if draw(st.integers(0, 4)) else None
                record(_at(call(choice, done), at, span), end)
            elif depth < 3:
                inner(choice, at, span, depth)
        clock = max(clock, latest)

    def call(kind: str, done: datetime | None) -> Event:
        if kind == "sandbox":
            return SandboxEvent(action="exec", cmd="ls", completed=done)
        output = ModelOutput.from_content("mock", f"answer {count}")
        event = ModelEvent(
            model="mockllm/model",
            input=list(history),
            tools=[],
            tool_choice="auto",
            config=GenerateConfig(),
            output=output if done else ModelOutput(),
            error=None if done else "ConnectionError('503')",
            completed=done,
        )
        if done and draw(st.booleans()):
            history.extend([output.choices[0].message, ChatMessageUser(content=f"Go on {count}.")])
        return event

    def inner(kind: str, at: datetime, span: str | None, depth: int) -> None:
        key = f"span-{len(log)}"
        begin = SpanBeginEvent(id=key, parent_id=span, type=kind, name=kind)
        begin.span_id = key
        finished = draw(st.integers(0, 5)) > 0
        owner: Event | None = None
        if kind == "tool":
            owner = ToolEvent(id=key, function="f", arguments={"n": count}, pending=True)
        elif kind == "subtask":
            owner = SubtaskEvent(name="sub", input={}, pending=True)
        record(_at(begin, at, key), at, f"e{len(log) + 1}" if kind == "tool" else None)
        if owner is not None:
            owner.uuid = f"e{len(log)}"
            log.append(_at(owner, at, span))
        block(key, depth + 1)
        end = tick()
        if finished:
            record(_at(SpanEndEvent(id=key), end, key), end)
            if isinstance(owner, ToolEvent | SubtaskEvent):
                owner.pending, owner.completed = None, tick()
                delivered.append((owner.completed, owner, None))

    block(None, 0)
    order = draw(st.permutations(range(len(delivered))))
    ranked = sorted(zip(delivered, order, strict=True), key=lambda item: (item[0][0], item[1]))
    return log, [item for item, _ in ranked]


def _at(event: Event, at: datetime, span: str | None) -> Event:
    event.timestamp, event.span_id, event.working_start = at, span, 0.0
    return event


@settings(max_examples=150, deadline=None)
@given(transcripts())
def test_live_equals_replay(
    transcript: tuple[list[Event], list[tuple[datetime, Event, str | None]]],
) -> None:
    log, delivered = transcript
    sample = EvalSample(id=1, epoch=1, input="x", target="y", uuid="sample-uuid")
    sample.events = log
    recorder = SampleRecorder(REF, Capture())
    live: list[SpanData] = []
    for _, event, tool_event in delivered:
        live += recorder.add(event, tool_event)
    early = len(live)
    live += recorder.finish(sample)
    replayed = SampleRecorder(REF, Capture()).finish(sample)
    check(live)
    check(replayed)
    assert {s.span_id: s for s in live} == {s.span_id: s for s in replayed}
    done = [e for _, e, _ in delivered if getattr(e, "completed", None) and e.event != "subtask"]
    assert early == len(done), "what has ended is given at once"
    by_id = {span.span_id: span for span in live}
    for span in live[:-1]:
        parent = by_id[span.parent_id or 0]
        assert parent.start_ns <= span.start_ns <= span.end_ns <= parent.end_ns
