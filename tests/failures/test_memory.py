"""What waits is bounded in bytes; the evaluation goes on, and what is refused is told."""

import logging
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from inspect_ai.event import InfoEvent
from inspect_ai.log import EvalSample
from inspect_ai.model import ChatMessageUser, ModelOutput

from otel_bridge import live
from otel_bridge.live import LiveRun
from otel_bridge.pipeline import Destination
from otel_bridge.values import Capture
from tests.otel_bridge.test_live import SPEC
from tests.support.evals import eval_task
from tests.support.process import wait_until
from tests.support.recovery import Stores, recorded, repair_command, run_cli, span_ids
from tests.support.sink import Behaviour, OtlpSink

MB = 1024 * 1024


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / MB


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Conversion waits until the event is set."""
    go_on = threading.Event()
    open_run = LiveRun._open

    def wait_and_open(run: LiveRun) -> None:
        go_on.wait()
        open_run(run)

    monkeypatch.setattr(LiveRun, "_open", wait_and_open)
    yield go_on
    go_on.set()


def big_sample(number: int) -> EvalSample:
    text = chr(65 + number % 26) * MB
    return EvalSample(
        id=number,
        epoch=1,
        input="question",
        target="answer",
        uuid=f"uuid-{number}",
        messages=[ChatMessageUser(content=text)],
        output=ModelOutput.from_content("mockllm/model", text),
        events=[InfoEvent(data="x", uuid=f"event-{number}")],
        started_at=datetime.now(timezone.utc).isoformat(),
    )


def test_a_conversion_that_is_behind(
    blocked: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "QUEUE_BYTES", 20 * MB)
    run = LiveRun("run", list, "sample", Capture())
    run.begin_task(SPEC)
    before = resident_mb()
    for number in range(300):
        run.begin_sample("eval", f"uuid-{number}", number, 1)
        for _ in range(20):
            run.event(f"uuid-{number}", InfoEvent(data="x"))
        run.end_sample("eval", f"uuid-{number}", big_sample(number))
    assert resident_mb() - before < 100  # of 300 MB
    ((what, refused, reason),) = run.losses
    assert (what, reason) == ("samples", "too much was waiting")
    assert 270 < refused < 300
    blocked.set()
    run.end_run([], None)
    run.finish(timeout=60)
    assert run.losses == [(what, refused, reason)]


def test_an_evaluation_with_a_conversion_that_is_behind(
    blocked: threading.Event,
    otlp_sink: OtlpSink,
    stores: Stores,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    samples = 40
    monkeypatch.setattr(live, "QUEUE_BYTES", MB)
    monkeypatch.setenv("MLFLOW_INSPECT_TRACING", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", otlp_sink.http_endpoint)
    finish = LiveRun.finish

    def unblock_and_finish(run: LiveRun, timeout: float) -> object:
        blocked.set()
        return finish(run, timeout)

    monkeypatch.setattr(LiveRun, "finish", unblock_and_finish)
    with caplog.at_level(logging.WARNING, "inspect_mlflow"):
        log = eval_task(
            "tool_loop", log_dir=tmp_path, task_args={"samples": samples, "size": 20_000}
        )
    assert log.status == "success"
    names = {span.name for span in otlp_sink.spans()}
    arrived = sum(name.startswith("sample ") for name in names)
    assert 0 < arrived < samples
    (summary,) = (record.getMessage() for record in caplog.records)
    assert f"{samples - arrived} samples did not reach OTLP" in summary
    assert "too much was waiting" in summary

    imported = stores.new(tmp_path / "imported.db")
    run_cli(
        *repair_command(summary),
        cwd=Path.cwd(),
        monkeypatch=monkeypatch,
        MLFLOW_TRACKING_URI=imported,
    )
    assert {span.span_id for span in otlp_sink.spans()} == span_ids(recorded(imported))


def test_a_destination_that_hangs(otlp_sink: OtlpSink, monkeypatch: pytest.MonkeyPatch) -> None:
    from otel_bridge.otlp import otlp_target

    otlp_sink.behave(Behaviour(hang=True))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", otlp_sink.http_endpoint)
    target = otlp_target()
    assert target is not None
    destination = Destination("OTLP", target.open, queue_bytes=20 * MB)
    capture = Capture(max_value_bytes=2 * MB)
    run = LiveRun("run", lambda: [destination], "sample", capture)
    run.begin_task(SPEC)
    before = resident_mb()
    for number in range(300):
        run.end_sample("eval", f"uuid-{number}", big_sample(number))
        wait_until(lambda: run._thread.waiting_bytes < 10 * MB, what="conversion", every=0.01)
    wait_until(lambda: destination.delivery().lost > 250, what="a full queue", timeout=60)
    assert resident_mb() - before < 150  # of 300 MB
    run.end_run([], None)
    (delivery,) = run.finish(timeout=5)
    assert delivery.delivered == 0
    assert delivery.lost > 300
    assert delivery.reason is not None
