"""The tracing hook: an evaluation's life cycle → spans for MLflow and any OTLP endpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from inspect_ai.hooks import (
    Hooks,
    RunEnd,
    RunStart,
    SampleAttemptEnd,
    SampleAttemptStart,
    SampleEnd,
    SampleEvent,
    SampleStart,
    TaskEnd,
    TaskStart,
)

from inspect_mlflow.activation import activation, is_on
from inspect_mlflow.session import forget_in_children, running_sample
from otel_bridge.errors import OVER

if TYPE_CHECKING:
    from inspect_ai.event import SpanBeginEvent
    from inspect_ai.log import EvalSpec

    from inspect_mlflow.config import MLflowSettings
    from inspect_mlflow.connection import Connection
    from inspect_mlflow.exporter import MlflowSpanExporter
    from otel_bridge.live import LiveRun
    from otel_bridge.pipeline import Delivery, Destination
    from otel_bridge.spans import TaskRef

_MOMENT = 2.0
"""Seconds that the end of an evaluation is waited for without a word."""
_BATCH_SPANS = 192
"""To MLflow at once. The fewer, the less is left to do when the last sample has ended; each batch
is a request."""
_LOOK_BACK = 200
"""How many of the newest transcript events are searched for the event of a tool span."""


class MlflowTracingHooks(Hooks):
    """Spans of every run, task, sample, solver, model call, tool call and score.

    Handlers only queue what they are given; conversion and delivery happen on other threads.
    """

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}
        forget_in_children(self)

    def enabled(self) -> bool:
        """Whether tracing is on, and there is somewhere to send spans."""
        return bool(self._runs) or is_on("tracing")

    async def on_run_start(self, data: RunStart) -> None:
        """Open the destinations, in the background."""
        self._runs[data.run_id] = _Run(data.run_id, activation().settings)

    async def on_task_start(self, data: TaskStart) -> None:
        """Note the task."""
        run = self._runs.get(data.run_id)
        if run is not None:
            run.live.begin_task(data.spec)
            run.note_task(data.spec)

    async def on_sample_start(self, data: SampleStart) -> None:
        """Begin to record the sample."""
        if run := self._runs.get(data.run_id):
            sample = running_sample()
            if sample is not None:
                run.receipt.log(sample.log_location)
            run.live.begin_sample(
                data.eval_id,
                data.sample_id,
                data.summary.id,
                data.summary.epoch,
                location=None if sample is None else sample.log_location,
                earlier=() if sample is None else list(sample.error_retries),
            )

    async def on_sample_attempt_start(self, data: SampleAttemptStart) -> None:
        """Let other instrumentation nest inside the sample; this is called in its own task."""
        run = self._runs.get(data.run_id)
        if run is not None:
            run.attach(data.eval_id, data.sample_id, data.summary.id, data.summary.epoch)

    async def on_sample_event(self, data: SampleEvent) -> None:
        """Record an event."""
        if run := self._live(data.run_id):
            event = data.event
            tool_event = None
            if event.event == "span_begin" and event.type == "tool":
                tool_event = _tool_event_of(event)
            run.event(data.sample_id, event, tool_event)

    async def on_sample_attempt_end(self, data: SampleAttemptEnd) -> None:
        """End a failed attempt that is followed by another."""
        if data.will_retry and (run := self._live(data.run_id)):
            run.end_attempt(data.sample_id, data.error)

    async def on_sample_end(self, data: SampleEnd) -> None:
        """End the sample, with what only the finished sample knows."""
        if run := self._live(data.run_id):
            run.end_sample(data.eval_id, data.sample_id, data.sample)

    async def on_task_end(self, data: TaskEnd) -> None:
        """End the task."""
        if run := self._runs.get(data.run_id):
            run.receipt.log(data.log.location)
            run.live.end_task(data.log)

    async def on_run_end(self, data: RunEnd) -> None:
        """End whatever is open, and wait a bounded time for the delivery."""
        run = self._runs.pop(data.run_id, None)
        if run is not None:
            run.live.end_run(list(data.logs), data.exception)
            await run.finish()

    def _live(self, run_id: str) -> LiveRun | None:
        run = self._runs.get(run_id)
        return run.live if run is not None else None


class _Run:
    """A run that is traced: its settings, destinations, and what was reported about them."""

    def __init__(self, run_id: str, settings: MLflowSettings) -> None:
        from inspect_mlflow import session
        from otel_bridge.context import is_instrumented
        from otel_bridge.live import LiveRun

        self._attaches = is_instrumented() and not _is_context_mlflows()
        self._tasks: dict[str, TaskRef] = {}
        self._run_id = run_id
        self._settings = settings
        self._session = session.acquire(run_id, settings)
        self._connection = self._session.connection
        self.receipt = self._session.receipt
        self._mlflow: MlflowSpanExporter | None = None
        self.live = LiveRun(
            run_id,
            self._destinations,
            settings.trace_scope,
            settings.capture,
            version("inspect-mlflow"),
        )

    def note_task(self, spec: EvalSpec) -> None:
        """Remember what the samples of a task need to refer to it."""
        if self._attaches:
            from otel_bridge.spans import TaskRef

            self._tasks[spec.eval_id] = TaskRef.of(spec, self._settings.trace_scope)

    def attach(self, eval_id: str, uuid: str, id: int | str, epoch: int) -> None:
        """Make a sample's span the current one of the running task."""
        task = self._tasks.get(eval_id)
        if task is not None:
            from otel_bridge.context import attach_sample
            from otel_bridge.spans import SampleRef

            ref = SampleRef(task, uuid, id, epoch)
            attach_sample(ref, sampled=self.live.is_sampled(ref.trace_id))

    async def finish(self) -> None:
        """Wait for the delivery, off the event loop, and say what did not arrive."""
        from anyio import CancelScope, create_task_group

        from inspect_mlflow import session
        from otel_bridge.background import off_loop

        deliveries: list[Delivery] | None = None
        try:
            with CancelScope(shield=True):
                async with create_task_group() as tasks:
                    tasks.start_soon(self._show_progress)
                    timeout = self._session.time_left(self._settings.flush_timeout)
                    deliveries = await off_loop(partial(self.live.finish, timeout))
                    tasks.cancel_scope.cancel()
        finally:  # a second Ctrl-C comes through: nothing is waited for any more
            self._note(self.live.finish(0) if deliveries is None else deliveries)
            await session.release(self._run_id)

    def _note(self, deliveries: Sequence[Delivery]) -> None:
        """Put what arrived, and what did not, on the receipt."""
        for sent in deliveries:
            self.receipt.delivered(sent.destination, "spans", sent.delivered)
            self.receipt.lost(sent.destination, "spans", sent.lost, sent.reason)
        # without deliveries there was no time, or a mistake, before there were destinations
        somewhere = "OTLP" if self._connection is None else self._connection.name
        for destination in [sent.destination for sent in deliveries] or [somewhere]:
            for what, count, reason in self.live.losses:
                self.receipt.lost(destination, what, count, reason)
        if self._mlflow is not None:
            traces = self._mlflow.summaries()
            self.receipt.delivered(self._mlflow_name, "traces", traces.delivered)
            self.receipt.delivered(self._mlflow_name, "assessments", traces.assessments)
            self.receipt.lost(
                self._mlflow_name, "traces", traces.lost + traces.waiting, traces.reason or OVER
            )

    @property
    def _mlflow_name(self) -> str:
        assert self._connection is not None
        return self._connection.name

    async def _show_progress(self) -> None:
        """Say what is being waited for, where it takes longer than a moment."""
        from anyio import sleep
        from rich.console import Console

        await sleep(_MOMENT)
        with Console(stderr=True).status("Sending spans") as status:
            while True:
                if self._mlflow is not None:
                    summaries = self._mlflow.summaries()
                    total = summaries.delivered + summaries.lost + summaries.waiting
                    status.update(f"Sending traces to MLflow: {summaries.delivered} of {total}")
                await sleep(0.5)

    def _open_mlflow(self, connection: Connection) -> MlflowSpanExporter:
        connection.open()
        from inspect_mlflow.exporter import MlflowSpanExporter  # only now: see Connection.open

        self._mlflow = MlflowSpanExporter(connection, link_runs=is_on("tracking"))
        return self._mlflow

    def _destinations(self) -> list[Destination]:
        """Called on the background thread: this imports the SDK and MLflow."""
        from otel_bridge.otlp import otlp_target
        from otel_bridge.pipeline import Destination

        destinations = []
        target = otlp_target()
        connection = self._connection
        if connection is not None and connection.takes_spans:
            destinations.append(
                Destination(
                    connection.name,
                    lambda: self._open_mlflow(connection),
                    on_trouble=self.receipt.trouble,
                    batch_spans=_BATCH_SPANS,
                )
            )
            if target is not None and same_endpoint(target.traces_url, connection.uri):
                target = None  # the collector is this MLflow: spans are sent once
        if target is not None:
            name = f"OTLP {target.traces_url}"
            destinations.append(Destination(name, target.open, on_trouble=self.receipt.trouble))
        return destinations


def _is_context_mlflows() -> bool:
    """Whether MLflow's own tracing uses OpenTelemetry's context, as that variable has it do.

    It drops spans below one that it does not know.
    """
    return os.environ.get("MLFLOW_USE_DEFAULT_TRACER_PROVIDER", "").lower() in ("false", "0")


def same_endpoint(traces_url: str, tracking_uri: str) -> bool:
    """Whether an OTLP traces address is the MLflow server's own."""
    if not tracking_uri.startswith(("http://", "https://")):
        return False
    return _address(traces_url) == _address(tracking_uri.rstrip("/") + "/v1/traces")


def _address(url: str) -> tuple[str, ...]:
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:  # its destination will say so
        return (url,)
    host = parts.hostname or ""
    if host in ("localhost", "::1", "0.0.0.0"):
        host = "127.0.0.1"
    return parts.scheme, host, str(port), parts.path.rstrip("/")


def _tool_event_of(begin: SpanBeginEvent) -> str | None:
    """The uuid of the ToolEvent that follows the beginning of its span in the transcript.

    It is delivered only when the call is over, and says nothing of its span. None if it can't be
    seen: then the tool's span waits for the end of the sample, whose log has the order.
    """
    from inspect_ai.log import transcript

    following = None
    for distance, event in enumerate(reversed(transcript().history.resident_events)):
        if event is begin:
            if following is not None and following.event == "tool":
                return following.uuid
            return None
        if distance > _LOOK_BACK:
            return None
        following = event
    return None
