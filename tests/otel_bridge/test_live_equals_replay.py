"""The spans of a live evaluation are those of the log it wrote."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.capture import LiveSpans, Span, replayed_spans
from tests.support.evals import eval_task

CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("minimal", {}, {}),
    ("tool_loop", {"epochs": 2}, {}),
    ("tool_loop", {"samples": 12}, {}),
    ("parallel_tools", {}, {}),
    ("agents.py@react_agent", {}, {}),
    ("agents.py@handed_off", {}, {}),
    ("agents.py@nested", {}, {}),
    ("agents.py@parallel", {}, {}),
    ("content.py@media", {}, {}),
    ("content.py@reasoning", {}, {}),
    ("content.py@tool_errors", {}, {}),
    ("content.py@settings", {}, {}),
    ("events.py@busy_events", {}, {}),
    ("events.py@silent", {}, {}),
    ("sandbox", {}, {}),
    ("scorers.py@many_scorers", {}, {}),
    ("scorers.py@repeated", {}, {}),
    ("scorers.py@graded", {}, {}),
    ("scorers.py@unscored", {}, {}),
    ("endings.py@sample_error", {"fail_on_error": False}, {}),
    ("endings.py@sample_error", {"fail_on_error": True}, {}),
    ("endings.py@sample_error", {"place": "scorer"}, {}),
    ("endings.py@limited", {"kind": "token"}, {}),
    ("endings.py@limited", {"kind": "token", "in_tool": True}, {}),
    ("endings.py@limited", {"kind": "message"}, {}),
    ("endings.py@limited", {"kind": "turn"}, {}),
    ("endings.py@limited", {"kind": "time", "in_tool": True}, {}),
    ("endings.py@limited", {"kind": "working", "in_tool": True}, {}),
    ("endings.py@agent_limited", {}, {}),
    ("endings.py@agent_limited", {"own": False}, {}),
    ("endings.py@cached", {}, {}),
    ("endings.py@http_retries", {}, {}),
]


@pytest.mark.parametrize(
    ("name", "task_args", "options"),
    CASES,
    ids=[f"{name} {args}" if args else name for name, args, _ in CASES],
)
def test_live_equals_replay(
    name: str,
    task_args: dict[str, Any],
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live = LiveSpans(monkeypatch)
    log = eval_task(name, log_dir=tmp_path, task_args=task_args, **options)
    replayed = replayed_spans(log.location)
    check_whole(live.spans)
    assert_equal(live.spans, replayed)


@pytest.mark.parametrize("scope", ["run", "sample", "auto"])
def test_scopes(scope: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSPECT_MLFLOW_TRACE_SCOPE", scope)
    live = LiveSpans(monkeypatch)
    log = eval_task("tool_loop", log_dir=tmp_path, task_args={"samples": 12})
    check_whole(live.spans)
    assert_equal(live.spans, replayed_spans(log.location, scope=scope))
    assert len({span.trace_id for span in live.spans}) == (1 if scope == "run" else 13)
    samples = [span for span in live.spans if span.inspect_kind == "sample"]
    (task,) = (span for span in live.spans if span.inspect_kind == "task")
    for sample in samples:
        if scope == "run":
            assert sample.parent_id == task.span_id
            assert sample.links == []
        else:
            assert sample.parent_id is None
            assert sample.links == [(task.trace_id, task.span_id)]


def test_failed_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one difference there is: of a failed attempt the log keeps only its end.

    That is what came from the last model call on, without the spans around it.
    """
    live = LiveSpans(monkeypatch)
    log = eval_task(
        "endings.py@retried", log_dir=tmp_path, task_args={"failures": 2}, retry_on_error=3
    )
    check_whole(live.spans)
    replayed = replayed_spans(log.location)
    check_whole(replayed)

    attempts = [span for span in live.spans if span.inspect_kind == "attempt"]
    assert sorted(span.name for span in attempts) == ["attempt 1", "attempt 2"]
    for attempt in attempts:
        assert attempt.status == "ERROR"
        assert attempt.attributes["error.type"] == "RuntimeError"
        assert "exception" in [name for name, _, _ in attempt.events]
    failed = _below(live.spans, attempts)
    for span in failed:
        number = span.attributes.get("inspect.sample.attempt", 1)
        assert number in (1, 2)

    kept = {span.span_id for span in replayed}
    assert {span.span_id for span in attempts} <= kept
    lost = [span for span in live.spans if span.span_id not in kept]
    assert sorted(s.name for s in lost) == ["solver flaky"] * 2 + ["solvers"] * 2
    excused = {span.span_id for span in [*failed, *attempts]}
    assert_equal(
        [span for span in live.spans if span.span_id not in excused],
        [span for span in replayed if span.span_id not in excused],
    )


def _below(spans: list[Span], roots: list[Span]) -> list[Span]:
    found = {root.span_id for root in roots}
    below: list[Span] = []
    while new := [s for s in spans if s.parent_id in found and s.span_id not in found]:
        found |= {span.span_id for span in new}
        below += new
    return below


def check_whole(spans: list[Span]) -> None:
    """Each span once, ended, inside the time of its parent, which is there."""
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    for span in spans:
        assert 0 < span.start_ns <= span.end_ns
        if span.parent_id is None:
            continue
        parent = by_id[span.parent_id]
        assert parent.trace_id == span.trace_id
        assert parent.start_ns <= span.start_ns, (parent.name, span.name)
        assert span.end_ns <= parent.end_ns, (parent.name, span.name)


def assert_equal(live: list[Span], replayed: list[Span]) -> None:
    def by_id(spans: list[Span]) -> list[Span]:
        return sorted(spans, key=lambda span: span.span_id)

    assert [s.name for s in by_id(live)] == [s.name for s in by_id(replayed)]
    for one, other in zip(by_id(live), by_id(replayed), strict=True):
        assert one == other
