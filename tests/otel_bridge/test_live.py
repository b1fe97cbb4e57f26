"""Live runs, whatever goes wrong: what is open is ended, and an error's type is told."""

import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from traceback import format_exception
from typing import Any

import pytest
from inspect_ai.event import InfoEvent, SandboxEvent
from inspect_ai.log import EvalConfig, EvalDataset, EvalError, EvalSample, EvalSpec
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_bridge import live
from otel_bridge.errors import OVER
from otel_bridge.live import LiveRun
from otel_bridge.pipeline import Destination
from otel_bridge.recorder import SampleRecorder
from otel_bridge.spans import Extent, SampleRef, TaskRef, attempt_span
from otel_bridge.values import Capture
from tests.support.process import wait_until

SPEC = EvalSpec(
    eval_id="eval",
    run_id="run",
    created="2026-01-01T00:00:00+00:00",
    task="task",
    task_id="task-id",
    dataset=EvalDataset(samples=2),
    model="mockllm/model",
    config=EvalConfig(),
)


def live_run() -> tuple[LiveRun, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    run = LiveRun("run", lambda: [Destination("m", lambda: exporter)], "sample", Capture())
    run.begin_task(SPEC)
    return run, exporter


def statuses(exporter: InMemorySpanExporter) -> dict[str, str]:
    return {span.name: span.status.status_code.name for span in exporter.get_finished_spans()}


def test_a_run_that_only_began_is_closed(tmp_path: Path) -> None:
    run, exporter = live_run()
    run.begin_sample("eval", "uuid-1", 1, 1, str(tmp_path / "not-there.eval"))
    run.event("uuid-1", InfoEvent(data="x"))
    run.end_run([], KeyboardInterrupt())
    (delivery,) = run.finish(timeout=10)
    assert (delivery.delivered, delivery.lost) == (3, 0)
    assert statuses(exporter) == {
        "sample 1": "ERROR",
        "task task": "ERROR",
        "eval_run task": "ERROR",
    }
    (task,) = (span for span in exporter.get_finished_spans() if span.name == "task task")
    assert dict(task.attributes or {})["test.suite.run.status"] == "aborted"
    assert run.losses == []


def test_what_can_not_be_ended_keeps_nothing_else_open(monkeypatch: pytest.MonkeyPatch) -> None:
    finish = SampleRecorder.finish

    def failing(recorder: SampleRecorder, sample: EvalSample | None) -> Any:
        if recorder.ref.id == 1:
            raise RuntimeError("a mistake of ours")
        return finish(recorder, sample)

    monkeypatch.setattr(SampleRecorder, "finish", failing)
    run, exporter = live_run()
    for number in (1, 2):
        run.begin_sample("eval", f"uuid-{number}", number, 1)
    run.end_run([], None)
    run.finish(timeout=10)
    assert set(statuses(exporter)) == {"sample 2", "task task", "eval_run task"}
    assert run.losses == [("events", 1, "they were not converted")]


def test_what_is_not_converted_in_time_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    finish = SampleRecorder.finish
    asked, going_on = threading.Event(), threading.Event()

    def slow(recorder: SampleRecorder, sample: EvalSample | None) -> Any:
        if recorder.ref.id == 3:
            asked.set()
            going_on.wait(10)
        return finish(recorder, sample)

    monkeypatch.setattr(SampleRecorder, "finish", slow)
    run, exporter = live_run()
    for number in range(1, 11):
        run.begin_sample("eval", f"uuid-{number}", number, 1)
        sample = EvalSample(id=number, epoch=1, input="", target="", uuid=f"uuid-{number}")
        run.end_sample("eval", f"uuid-{number}", sample)
    run.end_run([], None)
    assert asked.wait(10)
    (delivery,) = run.finish(timeout=0.2)
    assert delivery.delivered + delivery.lost == 2
    assert run.losses == [("samples", 8, OVER)]
    going_on.set()
    wait_until(lambda: not run._thread._thread.is_alive(), what="the thread to end", timeout=10)
    assert set(statuses(exporter)) <= {"sample 1", "sample 2"}


def test_without_time_to_open_nothing_stays_open() -> None:
    opened: list[Destination] = []
    asked, going_on = threading.Event(), threading.Event()

    def destinations() -> list[Destination]:
        asked.set()
        going_on.wait(10)
        opened.append(Destination("m", InMemorySpanExporter))
        return opened

    run = LiveRun("run", destinations, "sample", Capture())
    run.begin_task(SPEC)
    run.end_run([], None)
    assert asked.wait(10)
    assert run.finish(timeout=0) == []
    assert run.losses == [("events", 2, OVER)]
    going_on.set()
    wait_until(
        lambda: bool(opened) and not opened[0]._thread.is_alive(),
        what="the thread to end",
        timeout=10,
    )


@pytest.mark.parametrize("hold", [0.1, 60.0])
def test_a_sample_s_calls_wait_for_its_end_but_not_for_long(
    hold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "HOLD_SECONDS", hold)
    exporter = InMemorySpanExporter()
    destination = Destination("m", lambda: exporter, batch_delay=0.0)
    run = LiveRun("run", lambda: [destination], "sample", Capture())
    run.begin_task(SPEC)
    run.begin_sample("eval", "uuid-1", 1, 1)
    now = datetime.now(timezone.utc)
    run.event("uuid-1", SandboxEvent(action="exec", cmd="ls", timestamp=now, completed=now))
    if hold < 1:
        wait_until(lambda: "sandbox exec" in statuses(exporter), what="the call", timeout=10)
    else:
        time.sleep(1.0)
        assert statuses(exporter) == {}
    run.end_run([], None)
    run.finish(timeout=10)
    assert [span.name for span in exporter.get_finished_spans()] == [
        *("sandbox exec", "sample 1", "task task", "eval_run task")
    ]


class Odd(Exception):
    message = "canary(1) is what it says"


def raised(error: BaseException) -> EvalError:
    """An error as Inspect keeps it."""
    try:
        raise error
    except BaseException as caught:
        text = "".join(format_exception(caught))
    return EvalError(
        message=getattr(error, "message", repr(error)), traceback=text, traceback_ansi=""
    )


def chained() -> EvalError:
    try:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error
    except ValueError as caught:
        text = "".join(format_exception(caught))
        return EvalError(message=repr(caught), traceback=text, traceback_ansi="")


REMOTE = """x

Traceback (most recent call last):
  File "a", line 1, in b
    c
canary: y
canary"""
GROUP = """  + Exception Group Traceback (most recent call last):
  |   File "a", line 1, in b
  |     c
  | ExceptionGroup: g (1 sub-exception)
  +-+---------------- 1 ----------------
    | ValueError: canary: 1
    +------------------------------------
"""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (lambda: raised(RuntimeError("canary")), "RuntimeError"),
        (lambda: raised(RuntimeError("one\ncanary: two\ncanary")), "RuntimeError"),
        (lambda: raised(RuntimeError(REMOTE)), "RuntimeError"),
        (lambda: raised(Odd()), "Odd"),
        (lambda: EvalError(message="g", traceback=GROUP, traceback_ansi=""), "ExceptionGroup"),
        (chained, "ValueError"),
        (lambda: EvalError(message="canary(1)", traceback="", traceback_ansi=""), "_OTHER"),
        (
            lambda: EvalError(message="TimeoutError()", traceback="", traceback_ansi=""),
            "TimeoutError",
        ),
        (
            lambda: EvalError(message="model call cancelled", traceback="", traceback_ansi=""),
            "cancelled",
        ),
    ],
)
def test_error_types(error: Callable[[], EvalError], expected: str) -> None:
    ref = SampleRef(TaskRef("run", "eval", "task", "m", "run"), "uuid", 1, 1)
    capture = Capture(content=False)
    span = attempt_span(ref, 1, error(), Extent(1, 2), instants=[], capture=capture)
    assert span.attributes["error.type"] == expected
    assert "canary" not in repr(span)
