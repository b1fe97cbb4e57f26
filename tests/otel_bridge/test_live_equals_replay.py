"""The spans of a live evaluation are those of the log it wrote."""

from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import inspect_ai
import pytest
from inspect_ai import Task
from inspect_ai.dataset import Sample
from inspect_ai.log import read_eval_log, transcript
from inspect_ai.scorer import includes
from inspect_ai.solver import Generate, Solver, TaskState, solver

from otel_bridge.values import Capture
from tests.support.capture import LiveSpans, Span, replayed_spans, tree
from tests.support.evals import TASKS, eval_task

CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"

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
    ("rare.py@rare_events", {}, {}),
    ("rare.py@cut_off_subtask", {}, {}),
    ("rare.py@costly", {}, {}),
    ("rare.py@early_stopping", {}, {"max_samples": 1}),
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
    check_whole(live.spans)
    check_complete(log.location, live.spans)
    assert_equal(live.spans, replayed_spans(log.location))


def test_a_bounded_transcript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inspect then puts long texts of early events aside, and keeps the events in a file."""

    @solver
    def talkative() -> Solver:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            for number in range(150):
                transcript().info({"text": f"{number} " * 100})
            return state

        return solve

    monkeypatch.setenv("INSPECT_TRANSCRIPT_BOUNDED", "1")
    live = LiveSpans(monkeypatch)
    (log,) = inspect_ai.eval(
        Task(dataset=[Sample(input="?")], solver=talkative()),
        model="mockllm/model",
        log_dir=str(tmp_path),
        display="none",
    )
    assert "attachment://" not in str(live.spans)
    assert_equal(live.spans, replayed_spans(log.location))


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


def test_json_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = LiveSpans(monkeypatch)
    log = eval_task("agents.py@nested", log_dir=tmp_path, log_format="json")
    check_whole(live.spans)
    check_complete(log.location, live.spans)
    for source in (log.location, Path(log.location), read_eval_log(log.location)):
        assert_equal(live.spans, replayed_spans(source))


def test_failed_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = LiveSpans(monkeypatch)
    log = eval_task(
        "endings.py@retried", log_dir=tmp_path, task_args={"failures": 2}, retry_on_error=3
    )
    replayed = replayed_spans(log.location)
    check_whole(live.spans)
    check_whole(replayed)
    check_complete(log.location, live.spans)

    attempts = [span for span in live.spans if span.inspect_kind == "attempt"]
    assert sorted(span.name for span in attempts) == ["attempt 1", "attempt 2"]
    for attempt in attempts:
        assert attempt.status == "ERROR"
        assert attempt.attributes["error.type"] == "RuntimeError"
        assert "exception" in [name for name, _, _ in attempt.events]
        number = attempt.attributes["inspect.sample.attempt"]
        inside = below(live.spans, attempt)
        assert [span.name for span in inside if span.inspect_kind == "model"] == ["chat model"]
        assert {span.attributes.get("inspect.sample.attempt", 1) for span in inside} == {number}
    (retried,) = {span.parent_id for span in attempts}
    (sample,) = (span for span in live.spans if span.span_id == retried)
    assert sample.status == "OK"
    assert sample.attributes["inspect.sample.attempt"] == 3
    assert_equal(live.spans, replayed)


@pytest.mark.parametrize("scope", ["run", "sample"])
def test_retried_tasks(scope: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry takes finished samples over: their spans stay where they are, and are linked."""
    monkeypatch.setenv("INSPECT_MLFLOW_TRACE_SCOPE", scope)
    first = LiveSpans(monkeypatch)
    name = f"{TASKS}/rare.py@fails_at_first"
    arguments = {"record": str(tmp_path / "record")}
    options: dict[str, Any] = {"display": "none", "log_dir": str(tmp_path / "logs")}
    (failed,) = inspect_ai.eval(name, task_args=arguments, **options)
    assert failed.status == "error"
    second = LiveSpans(monkeypatch)
    (retried,) = inspect_ai.eval_retry(failed, **options)
    assert retried.status == "success"
    for live, log, status in ((first, failed, "ERROR"), (second, retried, "OK")):
        check_whole(live.spans)
        assert_equal(live.spans, replayed_spans(log.location, scope=scope))
        assert {kind: s for kind, s in statuses(live.spans) if kind in ("run", "task")} == {
            "run": status,
            "task": status,
        }
    by_sample = {span.name: span for span in first.spans if span.inspect_kind == "sample"}
    assert sorted(by_sample) == ["sample sample-1", "sample sample-2", "sample sample-3"]
    again = [span.name for span in second.spans if span.inspect_kind == "sample"]
    assert again == ["sample sample-3"]
    (task,) = (span for span in second.spans if span.inspect_kind == "task")
    assert task.attributes["inspect.samples.reused"] == 2
    assert sorted(task.links) == sorted(
        (span.trace_id, span.span_id) for name, span in by_sample.items() if name not in again
    )


def test_eval_set_with_task_retry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failed task never ends for the hooks: its span comes from its log, with the run."""
    live = LiveSpans(monkeypatch)
    success, _ = inspect_ai.eval_set(
        f"{TASKS}/rare.py@fails_at_first",
        task_args={"record": str(tmp_path / "record")},
        log_dir=str(tmp_path / "logs"),
        log_dir_allow_dirty=True,
        retry_attempts=2,
        retry_wait=0.1,
        display="none",
    )
    assert success
    check_whole(live.spans)
    tasks = sorted(
        (span for span in live.spans if span.inspect_kind == "task"), key=lambda s: s.status
    )
    assert [span.status for span in tasks] == ["ERROR", "OK"]
    assert [span.attributes["test.suite.run.status"] for span in tasks] == ["failure", "success"]
    samples = [span for span in live.spans if span.inspect_kind == "sample"]
    assert len(samples) == 4
    reused = {(s.trace_id, s.span_id) for s in samples if s.parent_id == tasks[0].span_id}
    assert len(set(tasks[1].links)) == 2
    assert set(tasks[1].links) < reused
    runs = {span.trace_id: span for span in live.spans if span.inspect_kind == "run"}
    assert [span.status for span in runs.values()][-1] == "OK"
    assert all(span.attributes["inspect.eval_set.id"] for span in runs.values())


def test_scored_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`score()` calls no hooks; the log has the new scores, and gives the same spans and more."""
    live = LiveSpans(monkeypatch)
    log = eval_task("scorers.py@unscored", log_dir=tmp_path)
    scored = inspect_ai.score(read_eval_log(log.location), includes(), display="none")
    assert {span.trace_id for span in live.spans} == {
        span.trace_id for span in replayed_spans(scored)
    }
    before = {span.span_id: span for span in live.spans}
    after = {span.span_id: span for span in replayed_spans(scored)}
    assert set(before) < set(after)
    check_whole(list(after.values()))
    new = [span for key, span in after.items() if key not in before]
    assert {span.inspect_kind for span in new} == {"scorer"}
    for span in after.values():
        if span.inspect_kind == "sample":
            assert span.attributes["inspect.score.includes"] in ("C", "I")


def test_content_stays_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same holds without content capture, and with media."""
    for variable, value, capture in (
        (
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
            "NO_CONTENT",
            Capture(content=False),
        ),
        ("INSPECT_MLFLOW_CAPTURE_MEDIA", "true", Capture(media=True)),
        ("INSPECT_MLFLOW_MAX_VALUE_BYTES", "1000", Capture(max_value_bytes=1_000)),
    ):
        with monkeypatch.context() as context:
            context.setenv(variable, value)
            live = LiveSpans(context)
            log = eval_task("content.py@media", log_dir=tmp_path)
            assert_equal(live.spans, replayed_spans(log.location, capture=capture))


OUTLINES = {
    "agents.py@nested": """
      solver generate
        chat model
        execute_tool researcher
          invoke_agent researcher
            chat model
            execute_tool calculator
              invoke_agent calculator
                chat model
                execute_tool add
                chat model
            chat model
        chat model
    """,
    "agents.py@handed_off": """
      solver generate
        chat model
        handoff calculator
          execute_tool transfer_to_calculator
            invoke_agent calculator
              chat model
              execute_tool add
              chat model
        chat model
    """,
    "agents.py@parallel": """
      solver in_parallel
        plan planning
          chat model
          reflection
        fan out
          task task-1
            invoke_agent calculator-0
              chat model
              execute_tool add
              chat model
          task task-2
            invoke_agent calculator-1
              chat model
              execute_tool add
              chat model
          task task-3
            invoke_agent calculator-2
              chat model
              execute_tool add
              chat model
    """,
    "events.py@busy_events": """
      solver busy
        check checking
        subtask summarise
        subtask broken step !
    """,
    "rare.py@cut_off_subtask": """
      solver never_ending
        outer
          subtask endless !
            chat model
            chat model
            chat model
    """,
    "endings.py@http_retries": """
      solver generate
        chat model
        chat model !
    """,
}


@pytest.mark.parametrize("name", OUTLINES)
def test_what_stands_where(name: str, tmp_path: Path) -> None:
    spans = replayed_spans(eval_task(name, log_dir=tmp_path).location)
    expected = dedent(OUTLINES[name]).strip()
    (root,) = (span for span in spans if span.name == expected.partition("\n")[0])
    assert tree([root, *below(spans, root)]) == expected


# --- what is allowed to differ ------------------------------------------------------------------


def assert_equal(live: list[Span], replayed: list[Span]) -> None:
    """Live spans are the replayed ones, in all they have.

    Allowed to differ, all of it around failed attempts of a sample, of which a log keeps only
    what came from the last model call on, without the spans around it:

    - spans inside a failed attempt: replay has fewer, directly below the attempt;
    - the start of the attempt, and so of the spans around it (the sample, task and run): for
      replay it is that of the first event that was kept.
    """
    attempts = {span.span_id for span in live if span.inspect_kind == "attempt"}
    lost = {span.span_id for key in attempts for span in below(live, key)}
    around: set[str | None] = set()
    by_key = {span.span_id: span for span in live}
    for key in attempts:
        parent: str | None = key
        while parent is not None:
            around.add(parent)
            parent = by_key[parent].parent_id

    def comparable(spans: list[Span]) -> list[Span]:
        return [
            replace(span, start_ns=0) if span.span_id in around else span
            for span in sorted(spans, key=lambda span: span.span_id)
            if span.span_id not in lost
        ]

    assert {span.span_id for span in replayed} <= set(by_key)
    one, other = comparable(live), comparable(replayed)
    assert [span.name for span in one] == [span.name for span in other]
    for left, right in zip(one, other, strict=True):
        assert left == right


# --- what holds for any spans -------------------------------------------------------------------


def statuses(spans: list[Span]) -> list[tuple[str, str]]:
    return [(span.inspect_kind, span.status) for span in spans]


def below(spans: list[Span], root: Span | str) -> list[Span]:
    """All spans inside a span."""
    found = {root if isinstance(root, str) else root.span_id}
    inside: list[Span] = []
    while new := [s for s in spans if s.parent_id in found and s.span_id not in found]:
        found |= {span.span_id for span in new}
        inside += new
    return inside


def check_complete(log: str, spans: list[Span]) -> None:
    """Every event of the log is in the spans, by its uuid, and the sample has their order."""
    named: set[Any] = set()
    for span in spans:
        named |= {span.attributes.get(key) for key in EVENT_KEYS}
        named |= {attributes.get("inspect.event.uuid") for _, _, attributes in span.events}
    samples = {s.attributes["inspect.sample.uuid"]: s for s in spans if s.inspect_kind == "sample"}
    for sample in read_eval_log(log).samples or ():
        events = [event.uuid for event in sample.events]
        kept = [event.uuid for retry in sample.error_retries or () for event in retry.events or ()]
        assert None not in events
        assert [uuid for uuid in [*events, *kept] if uuid not in named] == []
        assert samples[sample.uuid].json("inspect.sample.event_order") == events


EVENT_KEYS = ("inspect.event.uuid", "inspect.span.begin_uuid", "inspect.span.end_uuid")


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
