"""Recorded logs, old and new, give whole spans without a word, the same at every replay."""

import gc
import json
import logging
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.event import Event, ModelEvent
from inspect_ai.log import EvalLog, read_eval_log, write_eval_log

from otel_bridge.logs import LogSource
from otel_bridge.replay import replay
from tests.otel_bridge.test_live_equals_replay import assert_equal, check_whole
from tests.support.capture import Span, replayed_spans
from tests.support.evals import LOGS, eval_task

RECORDED = sorted(path for path in LOGS.iterdir() if path.suffix in (".eval", ".json"))


@pytest.fixture(autouse=True)
def no_word(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Neither a warning nor a log line of one."""
    gc.collect()  # what tests before left behind is not this one's
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        yield
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize("path", RECORDED, ids=[path.name for path in RECORDED])
def test_recorded_logs(path: Path) -> None:
    spans = replayed_spans(path)
    check_whole(spans)
    assert replayed_spans(path) == spans
    by_sample = {s.attributes["inspect.sample.uuid"]: s for s in spans if is_sample(s)}
    log = read_eval_log(str(path))
    assert len(by_sample) == len(log.samples or ())
    for sample in LogSource.of(path).samples():
        (span,) = (
            span
            for span in by_sample.values()
            if span.attributes["inspect.sample.id"] == str(sample.id)
            and span.attributes["inspect.sample.epoch"] == sample.epoch
        )
        inside = within(spans, span)
        keys = [event.uuid or f"#{place}" for place, event in enumerate(sample.events)]
        assert span.json("inspect.sample.event_order") == keys
        for key, event in zip(keys, sample.events, strict=True):
            check_event(key, event, inside)


def is_sample(span: Span) -> bool:
    return span.inspect_kind == "sample"


def within(spans: list[Span], root: Span) -> list[Span]:
    found, inside = {root.span_id}, [root]
    while new := [s for s in spans if s.parent_id in found and s.span_id not in found]:
        found |= {span.span_id for span in new}
        inside += new
    return inside


def check_event(key: str, event: Event, spans: list[Span]) -> None:
    """The event is in the spans: by its uuid or place, as the kind of span it should be."""
    kinds = {"model": "model", "tool": "tool", "sandbox": "sandbox"}
    if event.event in ("span_begin", "span_end", "step"):
        marks = ("inspect.span.begin_uuid", "inspect.span.end_uuid")
        assert any(key in (span.attributes.get(mark) for mark in marks) for span in spans), event
    elif event.event in (*kinds, "subtask"):
        (span,) = (span for span in spans if span.attributes.get("inspect.event.uuid") == key)
        assert span.inspect_kind == kinds.get(event.event, span.inspect_kind)
        if event.event == "model" and event.output.choices and not event.error:
            (message, *_) = span.json("gen_ai.output.messages")
            texts = [part.get("content") for part in message["parts"] if part["type"] == "text"]
            assert "".join(filter(None, texts)) == event.output.choices[0].message.text
    else:
        names = [n for s in spans for n, _, a in s.events if a.get("inspect.event.uuid") == key]
        assert names, event
        if event.event not in ("score", "error"):
            assert names == [f"inspect.{event.event}"]


def test_messages_in_a_pool() -> None:
    """A log of a version that kept messages in a pool which today's Inspect does not look for."""
    spans = replayed_spans(LOGS / "guess-number-tools.eval")
    counts = [s.attributes["inspect.input.count"] for s in spans if s.inspect_kind == "model"]
    assert counts == [1, 3, 5, 7, 9, 11]


def test_steps_are_spans() -> None:
    spans = replayed_spans(LOGS / "input-task-legacy-steps.eval")
    by_name = {span.name: span for span in spans}
    model = next(span for span in spans if span.inspect_kind == "model")
    solver = next(span for span in spans if span.span_id == model.parent_id)
    assert solver.inspect_kind == "solver"
    assert any(span.inspect_kind == "scorer" for span in spans), by_name


def test_a_cancelled_run_is_closed() -> None:
    spans = replayed_spans(LOGS / "popularity-cancelled.json")
    (task,) = (span for span in spans if span.inspect_kind == "task")
    (run,) = (span for span in spans if span.inspect_kind == "run")
    assert task.attributes["test.suite.run.status"] == "aborted"
    assert (task.status, run.status) == ("ERROR", "ERROR")


def test_a_log_that_was_never_finished(tmp_path: Path) -> None:
    """As it is left behind by a process that was killed."""
    log = read_eval_log(str(LOGS / "security-guide-gpt-4o-mini.json"))
    log.status, log.results = "started", None
    log.stats.completed_at = ""
    path = tmp_path / "started.json"
    write_eval_log(log, str(path))
    spans = replayed_spans(path)
    check_whole(spans)
    by_kind = {span.inspect_kind: span for span in spans}
    assert by_kind["task"].attributes["test.suite.run.status"] == "aborted"
    assert (by_kind["task"].status, by_kind["run"].status) == ("ERROR", "ERROR")


def log_with(events: list[dict[str, Any]], path: Path) -> Path:
    """A log as an older Inspect wrote it."""
    data = json.loads((LOGS / "images-gpt-4o.json").read_text())
    data["samples"][0] |= {"events": events, "attachments": {}}
    path.write_text(json.dumps(data))
    return path


def test_events_nested_in_a_tool_call(tmp_path: Path) -> None:
    """Logs from before there were spans kept a tool's events, and a subtask's, inside it."""
    at = "2024-10-22T07:07:1{}.000000+00:00"
    model = json.loads((LOGS / "images-gpt-4o.json").read_text())["samples"][0]["events"]
    (call,) = (event for event in model if event["event"] == "model")
    inner: list[dict[str, Any]] = [
        {"event": "info", "timestamp": at.format(5), "data": "inside"},
        {"event": "model", **call, "timestamp": at.format(5)},
        {"event": "novel", "timestamp": at.format(6), "colour": "blue"},
    ]
    subtask: dict[str, Any] = {"event": "subtask", "name": "sub", "input": {}}
    subtask["timestamp"] = at.format(5)
    tool: dict[str, Any] = {
        "event": "tool",
        "id": "c",
        "function": "deep",
        "arguments": {},
        "result": "ok",
    }
    outer: list[dict[str, Any]] = [
        {"event": "step", "action": "begin", "name": "s", "type": "solver"},
        tool | {"events": [subtask | {"events": inner}, *inner[:1]]},
        {"event": "step", "action": "end", "name": "s", "type": "solver"},
        {"event": "info", "data": "after"},
    ]
    for second, event in enumerate(outer, 4):
        event["timestamp"] = at.format(second)
    path = log_with(outer, tmp_path / "nested.json")
    spans = replayed_spans(path)
    check_whole(spans)
    assert replayed_spans(path) == spans
    by_id = {span.span_id: span for span in spans}
    (chat,) = (span for span in spans if span.inspect_kind == "model")
    chain = [chat]
    while chain[-1].parent_id is not None:
        chain.append(by_id[chain[-1].parent_id])
    assert [span.inspect_kind for span in chain] == [
        *("model", "subtask", "tool", "solver", "sample", "task", "run")
    ]
    assert [name for name, _, _ in chain[1].events] == ["inspect.info", "inspect.info"]
    assert '"colour":"blue"' in str(chain[1].events[1][2]["inspect.event.data"])
    assert [name for name, _, _ in chain[2].events] == ["inspect.info"]
    assert len(chain[4].json("inspect.sample.event_order")) == 4 + 2 + 3


def test_events_in_a_transcript(tmp_path: Path) -> None:
    """Before they were the sample's own, events stood in its transcript."""
    data = json.loads((LOGS / "images-gpt-4o.json").read_text())
    for sample in data["samples"]:
        content = sample.pop("attachments")
        sample["transcript"] = {"events": sample.pop("events"), "content": content}
    path = tmp_path / "transcript.json"
    path.write_text(json.dumps(data))
    assert_equal(replayed_spans(path), replayed_spans(LOGS / "images-gpt-4o.json"))


def test_numbers_that_json_does_not_have(tmp_path: Path) -> None:
    """Inspect writes NaN into .json logs, which a streaming reader refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log = eval_task("scorers.py@many_scorers", log_dir=tmp_path / "eval")
    path = tmp_path / "copy.json"
    write_eval_log(read_eval_log(log.location), str(path))
    assert "NaN" in path.read_text()
    assert_equal(replayed_spans(log.location), replayed_spans(path))


@pytest.mark.parametrize("suffix", ["eval", "json"])
def test_memory_stays_flat(suffix: str, tmp_path: Path) -> None:
    """A log of six times the samples takes no more memory to replay."""
    log = read_eval_log(str(LOGS / "guess-number-tools.eval"))
    assert log.samples is not None
    (sample,) = log.samples
    peaks = []
    for count in (4, 24):
        path = tmp_path / f"{count}.{suffix}"
        write_eval_log(long_log(log, sample, count), str(path))
        replayed(path)
        gc.collect()
        tracemalloc.start()
        assert replayed(path) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0] + 500_000, peaks


def long_log(log: EvalLog, sample: Any, count: int) -> EvalLog:
    samples = []
    for n in range(count):
        copy = sample.model_copy(deep=True, update={"id": n, "uuid": f"uuid-{n}"})
        for event in copy.events:
            if isinstance(event, ModelEvent):
                event.output.choices[0].message.content = f"{n} " * 20_000
        samples.append(copy)
    return log.model_copy(update={"samples": samples, "version": 2})


def replayed(path: Path) -> int:
    return sum(span.attributes["inspect.kind"] == "sample" for span in replay(path))
