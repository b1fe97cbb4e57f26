"""A running evaluation → spans: hook calls in, conversion and delivery in the background."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from otel_bridge.background import QUEUE_BYTES, BackgroundThread
from otel_bridge.errors import OVER

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from inspect_ai.event import Event
    from inspect_ai.log import EvalError, EvalLog, EvalRetryError, EvalSample, EvalSpec
    from inspect_ai.model import Content

    from otel_bridge.pipeline import Delivery, Destination
    from otel_bridge.recorder import RunRecorder, SampleRecorder
    from otel_bridge.spans import ScopeSetting, SpanData
    from otel_bridge.tracer import SpanTracer
    from otel_bridge.values import Capture


HOLD_SECONDS: Final = 5.0
"""How long the spans of a sample's calls wait for the sample's end.

Whoever receives a trace whole, as of most samples, has a fraction of the work: MLflow adds up a
trace's tokens and times anew with each part of it.
"""


EVENT_BYTES: Final = 4_000
"""About what an event keeps in memory beside its texts."""
EVENTS_SHARE: Final = 0.5
"""How full the queue may be for an event of a running sample; the rest is for finished ones."""


class LiveRun:
    """One evaluation run on its way to its destinations.

    All methods but `finish` return at once: they put what they are given on a queue, in order,
    for a background thread that converts it. Importing what that takes happens there as well.
    """

    def __init__(
        self,
        run_id: str,
        destinations: Callable[[], Sequence[Destination]],
        scope: ScopeSetting,
        capture: Capture,
        version: str | None = None,
    ) -> None:
        self._run_id = run_id
        self._make_destinations = destinations
        self._scope = scope
        self._capture = capture
        self._version = version
        self._destinations: Sequence[Destination] = ()
        self._samples: dict[str, SampleRecorder] = {}
        self._held: dict[str, tuple[float, list[SpanData]]] = {}
        """By sample: until when its spans may wait, the first to be due first, and the spans."""
        self._locations: dict[str, str] = {}
        self._behind: set[str] = set()
        self._refused_samples = 0
        self._refused_attempts = 0
        # each is written by one thread alone: samples that were to be converted, and that are
        self._taken_samples = 0
        self._done_samples = 0
        self._dropped = 0
        self._over = False
        self._recorder: RunRecorder
        self._tracer: SpanTracer
        self._thread = BackgroundThread("inspect-spans", QUEUE_BYTES, self._emit_due)
        self._events_bytes = QUEUE_BYTES * EVENTS_SHARE
        self._thread.submit(self._open)

    # --- from the hooks ------------------------------------------------------------------------

    def begin_task(self, spec: EvalSpec) -> None:
        """A task starts."""
        self._thread.submit(partial(self._begin_task, spec))

    def begin_sample(
        self,
        eval_id: str,
        uuid: str,
        id: int | str,
        epoch: int,
        location: str | None = None,
        earlier: Sequence[EvalRetryError] = (),
    ) -> None:
        """A sample starts.

        `location` is where its log will be, if that is known, and `earlier` the failed attempts
        that it brings along from an evaluation that is retried.
        """
        if location is not None:
            self._locations.setdefault(eval_id, location)
        self._thread.submit(partial(self._begin_sample, eval_id, uuid, id, epoch, earlier))

    def event(self, uuid: str, event: Event, tool_event: str | None = None) -> None:
        """An event of a sample: see `SampleRecorder.add`."""
        if uuid in self._behind or self._thread.waiting_bytes > self._events_bytes:
            self._behind.add(uuid)  # the end of the sample brings them all, in their order
            return
        # read here: the evaluation goes on changing the event while it waits in the queue
        settled = event.event != "model" or event.completed is not None
        self._thread.submit(partial(self._event, uuid, event, tool_event, settled), EVENT_BYTES)

    def end_attempt(self, uuid: str, error: EvalError | None) -> None:
        """An attempt of a sample failed, and it is tried again."""
        if uuid in self._behind:
            self._behind.remove(uuid)
            self._refused_attempts += 1
        self._thread.submit(partial(self._end_attempt, uuid, error, time.time_ns()))

    def end_sample(self, eval_id: str, uuid: str, sample: EvalSample) -> None:
        """A sample is finished."""
        self._behind.discard(uuid)
        whole = partial(self._end_sample, eval_id, uuid, sample)
        if self._thread.submit(whole, sample_bytes(sample)):
            self._taken_samples += 1
        else:
            self._refused_samples += 1
            self._thread.submit(partial(self._forget_sample, uuid))

    def end_task(self, log: EvalLog) -> None:
        """A task is finished; of its log only the header is used, and the file."""
        self._thread.submit(partial(self._end_task, log))

    def end_run(self, logs: Sequence[EvalLog], error: BaseException | None) -> None:
        """The run is over; whatever is still open is ended."""
        self._thread.submit(partial(self._end_run, logs, error))

    def is_sampled(self, trace_id: int) -> bool:
        """Whether the spans of a trace are sent; taken to be while that is not known yet."""
        tracer: SpanTracer | None = getattr(self, "_tracer", None)
        return tracer is None or tracer.is_sampled(trace_id)

    # --- at the end ----------------------------------------------------------------------------

    def finish(self, timeout: float) -> list[Delivery]:
        """Wait until all is delivered, at most `timeout` seconds, then stop. Blocks.

        What has not become spans by then never does: see `losses`.
        """
        deadline = time.monotonic() + timeout
        self._thread.flush(timeout)
        self._over = True  # before the destinations are looked at: see `_open`
        self._dropped += self._thread.abandon()
        from otel_bridge.pipeline import finish

        return finish(self._destinations, deadline)

    @property
    def losses(self) -> list[tuple[str, int, str]]:
        """What did not become spans, for no destination: of what, how many, and why."""
        late = self._taken_samples - self._done_samples if self._over else 0
        found = [
            ("samples", self._refused_samples, "too much was waiting"),
            ("samples", late, OVER),
            ("events", 0 if late else self._dropped, OVER),
            ("events", self._refused_attempts + self._thread.failed, "they were not converted"),
        ]
        return [loss for loss in found if loss[1]]

    # --- on the background thread --------------------------------------------------------------

    def _open(self) -> None:
        from otel_bridge.pipeline import tracer_provider
        from otel_bridge.recorder import RunRecorder
        from otel_bridge.tracer import SpanTracer

        self._recorder = RunRecorder(self._run_id, self._scope, self._capture)
        self._destinations = self._make_destinations()
        if self._over:  # nobody else will
            for destination in self._destinations:
                destination.shutdown()
        self._tracer = SpanTracer(tracer_provider(self._destinations), self._version)

    def _emit(self, spans: Sequence[SpanData], sample: str | None = None) -> None:
        """Send spans; those of `sample` that were held before them."""
        if sample is not None and sample in self._held:
            _, held = self._held.pop(sample)
            spans = [*held, *spans]
        self._tracer.emit(spans)

    def _hold(self, uuid: str, spans: Sequence[SpanData]) -> None:
        if spans:
            due = time.monotonic() + HOLD_SECONDS
            self._held.setdefault(uuid, (due, []))[1].extend(spans)
        self._emit_due()

    def _emit_due(self) -> None:
        now = time.monotonic()
        while self._held:
            uuid, (due, _) = next(iter(self._held.items()))
            if due > now:
                break
            self._emit((), uuid)

    def _begin_task(self, spec: EvalSpec) -> None:
        self._recorder.begin_task(spec)

    def _begin_sample(
        self,
        eval_id: str,
        uuid: str,
        id: int | str,
        epoch: int,
        earlier: Sequence[EvalRetryError] = (),
    ) -> SampleRecorder | None:
        if uuid not in self._samples:
            recorder = self._recorder.begin_sample(eval_id, uuid, id, epoch, earlier)
            if recorder is not None:
                self._samples[uuid] = recorder
        return self._samples.get(uuid)

    def _event(self, uuid: str, event: Event, tool_event: str | None, settled: bool) -> None:
        recorder = self._samples.get(uuid)
        if recorder is not None:
            self._hold(uuid, recorder.add(event, tool_event, settled=settled))

    def _end_attempt(self, uuid: str, error: EvalError | None, ended_ns: int) -> None:
        recorder = self._samples.get(uuid)
        if recorder is not None:
            self._emit(recorder.end_attempt(error, ended_ns), uuid)

    def _end_sample(self, eval_id: str, uuid: str, sample: EvalSample) -> None:
        from otel_bridge.logs import with_attachments

        try:
            # a sample that failed before it could start comes here without having begun
            recorder = self._begin_sample(eval_id, uuid, sample.id, sample.epoch)
            if recorder is not None:
                self._emit(self._recorder.end_sample(recorder, with_attachments(sample)), uuid)
                del self._samples[uuid]
        finally:
            self._done_samples += 1

    def _forget_sample(self, uuid: str) -> None:
        """Take back what a sample began: what came of it is not known here."""
        self._samples.pop(uuid, None)
        self._held.pop(uuid, None)

    def _end_task(self, log: EvalLog) -> None:
        from otel_bridge.logs import reused_samples

        self._emit(self._recorder.end_task(log, reused_samples(log.location, log.eval)))

    def _end_open_sample(self, uuid: str, recorder: SampleRecorder) -> None:
        self._emit(self._recorder.end_sample(recorder, None), uuid)

    def _end_run(self, logs: Sequence[EvalLog], error: BaseException | None) -> None:
        """End everything that is open: what can't be ended keeps nothing else from it."""
        for uuid, recorder in self._samples.items():
            self._thread.attempt(partial(self._end_open_sample, uuid, recorder))
        self._samples.clear()
        for uuid in list(self._held):
            self._emit((), uuid)
        by_id = {log.eval.eval_id: log for log in logs}
        for spec in self._recorder.open_tasks():
            log = by_id.get(spec.eval_id) or self._unfinished(spec)
            self._thread.attempt(partial(self._end_task, log))
        self._emit(self._recorder.end(error))

    def _unfinished(self, spec: EvalSpec) -> EvalLog:
        """The log of a task that did not end: its header, as far as it was written."""
        from inspect_ai.log import EvalLog

        from otel_bridge.logs import read_header

        location = self._locations.get(spec.eval_id)
        if location is not None:
            try:
                return read_header(location)
            except Exception as error:  # as above; the log may also end in the middle
                logger.warning("The log of a task that did not end can't be read: %s", error)
        return EvalLog(eval=spec, status="cancelled")


def sample_bytes(sample: EvalSample) -> int:
    """About how much memory a finished sample keeps; found out without looking at all of it."""
    size = EVENT_BYTES * len(sample.events)
    for message in sample.messages:
        size += _content_bytes(message.content)
    for event in sample.events:
        if event.event == "model":
            size += sum(_content_bytes(choice.message.content) for choice in event.output.choices)
        elif event.event == "tool" and isinstance(event.result, str):
            size += len(event.result)
        elif event.event == "sandbox":
            size += len(event.output or "") + len(event.input or "")
    return size


def _content_bytes(content: str | Sequence[Content]) -> int:
    if isinstance(content, str):
        return len(content)
    parts = (getattr(part, part.type, None) for part in content)  # each names its payload so
    return sum(len(part) for part in parts if isinstance(part, str))
