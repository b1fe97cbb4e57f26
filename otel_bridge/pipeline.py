"""Where spans go: a TracerProvider of our own, and destinations that can't hurt each other.

OpenTelemetry's BatchSpanProcessor drops the oldest spans of a full queue, ignores the timeout of
a flush, reports no failure, and makes a process wait for a dead collector at exit. A
`Destination` keeps to what an evaluation needs instead: its own thread, a queue bounded by bytes,
batches bounded by bytes, a flush that ends when it was told to, and a count of what arrived.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_bridge import heap
from otel_bridge.background import start_thread
from otel_bridge.errors import OVER, short_reason
from otel_bridge.limits import attributes_bytes
from otel_bridge.tracer import GivenIds, span_limits

QUEUE_BYTES = 64 * 1024 * 1024
BATCH_BYTES = 3 * 1024 * 1024
"""Below the 4 MiB that a Collector's gRPC receiver takes."""
BATCH_SPANS = 512
BATCH_DELAY = 1.0
"""Seconds that a span waits for others at the most."""

_EXPORTER_LOGGERS = (
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http._common",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of the spans for one destination, in numbers of spans."""

    destination: str
    delivered: int
    lost: int
    reason: str | None = None
    """Why the first of the lost ones was lost."""


class SpansRefused(Exception):
    """What an exporter raises when its destination did not take all of a batch."""

    def __init__(self, reason: str, count: int | None = None) -> None:
        """`count` spans of the batch were refused; None: all of them."""
        super().__init__(reason)
        self.count = count


class Destination(SpanProcessor):
    """Delivers ended spans to one exporter, on a thread of its own.

    `open` makes the exporter; it is called on that thread and may take its time. `on_trouble` is
    called once, on that thread, when the first batch is lost. With `wait_for_room`, ending a span
    waits while the queue is full (for senders that can wait); else the span is counted as lost.
    """

    def __init__(
        self,
        name: str,
        open: Callable[[], SpanExporter],
        *,
        on_trouble: Callable[[str, str], None] | None = None,
        wait_for_room: bool = False,
        queue_bytes: int = QUEUE_BYTES,
        batch_bytes: int = BATCH_BYTES,
        batch_spans: int = BATCH_SPANS,
        batch_delay: float = BATCH_DELAY,
    ) -> None:
        self.name = name
        self._open = open
        self._on_trouble = on_trouble
        self._wait_for_room = wait_for_room
        self._queue_bytes = queue_bytes
        self._batch_bytes = batch_bytes
        self._batch_spans = batch_spans
        self._batch_delay = batch_delay
        self._changed = threading.Condition()
        self._queue: deque[tuple[ReadableSpan, int]] = deque()
        self._queued_bytes = 0
        self._in_flight = 0
        self._flush_by: float | None = None
        self._flushed = True
        self._closed = False
        self._dead = False
        self._delivered = 0
        self._lost = 0
        self._reason: str | None = None
        self._errors = _ExporterErrors()
        self._exporter: SpanExporter | None = None
        self._thread = start_thread(self._run, f"inspect-spans {name}")

    # --- SpanProcessor -------------------------------------------------------------------------

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing: spans are started and ended in one go."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue an ended span."""
        size = span_bytes(span)
        with self._changed:
            if self._wait_for_room:
                while self._full(size) and not self._dead and not self._closed:
                    self._changed.wait(0.5)
            if self._dead or self._closed:
                self._lose(1, self._reason or "the destination is closed")
                return
            if self._full(size):
                self._lose(1, f"more than {self._queue_bytes // 1024 // 1024} MB were waiting")
                return
            self._queue.append((span, size))
            self._queued_bytes += size
            if len(self._queue) == 1 or self._batch_ready():
                self._changed.notify_all()

    def request_flush(self, deadline: float) -> None:
        """Send without waiting for full batches until `deadline` (of `time.monotonic`)."""
        with self._changed:
            self._flush_by = max(deadline, self._flush_by or 0)
            self._flushed = False
            self._changed.notify_all()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Send what is queued now. True if nothing is left after at most `timeout_millis`."""
        deadline = time.monotonic() + timeout_millis / 1000
        self.request_flush(deadline)
        with self._changed:
            while not self._dead and (self._queue or self._in_flight or not self._flushed):
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                self._changed.wait(remaining)
            return True

    def shutdown(self) -> None:
        """Stop at once; what is still queued counts as lost. Use `force_flush` before."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            left = len(self._queue) + self._in_flight
            self._queue.clear()
            self._queued_bytes = 0
            if left:
                why = f": {self._errors.last}" if self._errors.last else ""
                self._lose(left, f"{OVER}{why}")
                self._in_flight = 0
            self._changed.notify_all()
        self._thread.join(timeout=1.0)

    # --- what became of it ---------------------------------------------------------------------

    def delivery(self) -> Delivery:
        """The counts so far."""
        with self._changed:
            return Delivery(self.name, self._delivered, self._lost, self._reason)

    # --- the thread ----------------------------------------------------------------------------

    def _full(self, size: int) -> bool:
        return bool(self._queue) and self._queued_bytes + size > self._queue_bytes

    def _batch_ready(self) -> bool:
        return len(self._queue) >= self._batch_spans or self._queued_bytes >= self._batch_bytes

    def _lose(self, count: int, reason: str) -> None:
        self._lost += count
        if self._reason is None:
            self._reason = reason

    def _run(self) -> None:
        with self._errors:
            try:
                self._exporter = self._open()
                heap.spare()
            except Exception as error:  # the boundary of the thread: reported, spans counted
                self._die(_reason(error))
                return
            pause = 0.0
            while True:
                batch = self._next_batch(pause)
                if batch is None:
                    break
                if not batch:
                    self._flush_exporter()
                    continue
                lost, reason = self._export(batch)
                with self._changed:
                    if not self._closed:
                        self._delivered += len(batch) - lost
                        if lost:
                            self._lose(lost, reason)
                    self._in_flight = 0
                    self._changed.notify_all()
                pause = 0.0 if lost < len(batch) else min(max(1.0, pause * 2), 30.0)
                if lost:
                    self._tell(reason)
            self._exporter.shutdown()

    def _next_batch(self, pause: float) -> list[ReadableSpan] | None:
        """The next spans to send; none of them to flush the exporter; None to stop."""
        with self._changed:
            waited_from = time.monotonic()
            while True:
                if self._closed:
                    return None
                flushing = self._flush_by is not None and time.monotonic() < self._flush_by
                waited = time.monotonic() - waited_from
                if self._queue:
                    full = self._batch_ready() or waited >= self._batch_delay
                    if flushing or (full and waited >= pause):
                        break
                    self._changed.wait(max(0.01, max(self._batch_delay, pause) - waited))
                elif not self._flushed:
                    return []
                else:
                    self._changed.wait()
                    waited_from = time.monotonic()
            batch: list[ReadableSpan] = []
            size = 0
            while self._queue and len(batch) < self._batch_spans:
                span, span_size = self._queue[0]
                if batch and size + span_size > self._batch_bytes:
                    break
                self._queue.popleft()
                batch.append(span)
                size += span_size
            self._queued_bytes -= size
            self._in_flight = len(batch)
            self._changed.notify_all()
            return batch

    def _export(self, batch: Sequence[ReadableSpan]) -> tuple[int, str]:
        """Send a batch. Returns how many of its spans were lost, and why."""
        assert self._exporter is not None
        self._errors.last = None
        try:
            result = self._exporter.export(batch)
        except SpansRefused as refused:
            count = len(batch) if refused.count is None else min(refused.count, len(batch))
            return count, str(refused)
        except Exception as error:  # the boundary of the thread: reported, spans counted
            return len(batch), _reason(error)
        if result is SpanExportResult.SUCCESS:
            return 0, ""
        return len(batch), self._errors.last or "the exporter failed without saying why"

    def _flush_exporter(self) -> None:
        assert self._exporter is not None
        left = max(0.0, (self._flush_by or 0.0) - time.monotonic())
        try:
            self._exporter.force_flush(int(left * 1000))
        except Exception as error:  # the boundary of the thread: reported
            self._tell(_reason(error))
        with self._changed:
            self._flushed = True
            self._changed.notify_all()

    def _die(self, reason: str) -> None:
        with self._changed:
            self._dead = True
            self._reason = reason
            self._lost += len(self._queue)
            self._queue.clear()
            self._queued_bytes = 0
            self._changed.notify_all()
        self._tell(reason)

    def _tell(self, reason: str) -> None:
        tell, self._on_trouble = self._on_trouble, None
        if tell is not None:
            tell(self.name, reason)


def _reason(error: Exception) -> str:
    """What an error says; with its kind, where it was not made to be read by people."""
    kind, text = type(error), " ".join(str(error).split())
    return f"{kind.__name__}: {text}" if kind.__module__ == "builtins" or not text else text


def finish(destinations: Sequence[Destination], deadline: float) -> list[Delivery]:
    """Send what is queued everywhere at once until `deadline` (of `time.monotonic`), then stop."""
    for destination in destinations:
        destination.request_flush(deadline)
    for destination in destinations:
        remaining = max(0.0, deadline - time.monotonic())
        destination.force_flush(int(remaining * 1000))
    for destination in destinations:
        destination.shutdown()
    return [destination.delivery() for destination in destinations]


class _ExporterErrors(logging.Filter):
    """Keeps what an exporter logs on the thread that enters this, and keeps it from the log.

    The exporters say what went wrong only there, once per attempt; it is reported once, by us.
    """

    def __init__(self) -> None:
        super().__init__()
        self.last: str | None = None
        self._thread: int | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        if record.thread != self._thread:
            return True
        if record.levelno >= logging.ERROR or self.last is None:
            args = record.args if isinstance(record.args, tuple) else ()
            causes = [short_reason(arg) for arg in args if isinstance(arg, Exception)]
            self.last = causes[0] if causes else record.getMessage()
        return False

    def __enter__(self) -> None:
        self._thread = threading.get_ident()
        for name in _EXPORTER_LOGGERS:
            logging.getLogger(name).addFilter(self)

    def __exit__(self, *_: object) -> None:
        for name in _EXPORTER_LOGGERS:
            logging.getLogger(name).removeFilter(self)


def span_bytes(span: ReadableSpan) -> int:
    """About how many bytes a span takes when encoded."""
    parts = [span.attributes]
    parts += [event.attributes for event in span.events]
    parts += [link.attributes for link in span.links]
    return 200 + len(span.name) + sum(64 + attributes_bytes(part or {}) for part in parts)


# --- the provider, as the OTEL_* variables say -------------------------------------------------


def tracer_provider(destinations: Sequence[SpanProcessor]) -> TracerProvider:
    """A provider of our own: resource, sampler and limits from OTEL_*, ids as they are given."""
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "inspect_ai"}))
    provider = TracerProvider(
        resource=resource,
        id_generator=GivenIds(),
        span_limits=span_limits(),
        shutdown_on_exit=False,
    )
    for destination in destinations:
        provider.add_span_processor(destination)
    return provider
