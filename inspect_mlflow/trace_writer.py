"""Sends trace summaries to MLflow: several at once, on background threads, bounded in memory."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from inspect_mlflow.connection import Connection, available
from inspect_mlflow.http import said
from otel_bridge.background import start_thread
from otel_bridge.errors import OVER, short_reason

if TYPE_CHECKING:
    from mlflow.entities import TraceInfo

    from inspect_mlflow.trace_info import TraceSummary

logger = logging.getLogger(__name__)

SENDERS = 4
"""How many requests are under way at most. Over HTTP, MLflow takes about three times as many from
four threads as from one; from more, those on SQLite wait for each other, and burn time at it."""
QUEUE_BYTES = 64 * 1024 * 1024
WAIT_FOR_ROOM = 30.0
WAIT_FOR_RUN = 30.0
"""Seconds: for room in the queue, and for a run that is still being created."""
REQUEST_TIMEOUT = 30
LINKS_PER_REQUEST = 100
"""MLflow links at most so many traces to a run in one request."""
_TRACES_PATH = "/api/3.0/mlflow/traces"


class SummaryRefused(Exception):
    """MLflow did not take a trace's summary."""


@dataclass(frozen=True, slots=True)
class SummaryDelivery:
    """What became of the summaries of traces: their names, previews, totals and scores."""

    delivered: int
    lost: int
    waiting: int
    assessments: int = 0
    """How many scores and targets the delivered ones carried."""
    reason: str | None = None
    """Why the first of the lost ones was lost."""


class TraceWriter:
    """Sends summaries in the background; one request each.

    `put` waits for room at most `WAIT_FOR_ROOM` seconds, then the summary counts as lost. Threads
    are started as they are needed, and never keep a process from ending.
    """

    def __init__(
        self, connection: Connection, *, link_runs: bool, queue_bytes: int = QUEUE_BYTES
    ) -> None:
        self._connection = connection
        self._link_runs = link_runs
        self._queue_bytes = queue_bytes
        self._most = 1 if connection.uri.startswith("sqlite") else SENDERS
        self._lock = threading.Lock()
        self._queued = threading.Condition(self._lock)
        self._sent = threading.Condition(self._lock)
        self._queue: deque[tuple[TraceSummary, Future[None]]] = deque()
        self._queued_bytes = 0
        self._in_flight = 0
        self._threads = 0
        self._closed = False
        self._delivered = 0
        self._assessments = 0
        self._lost = 0
        self._reason: str | None = None

    def put(self, summary: TraceSummary) -> Future[None]:
        """Queue a summary. What is returned is done when the summary has arrived, or is lost."""
        over: Future[None] = Future()
        deadline = time.monotonic() + WAIT_FOR_ROOM
        with self._lock:
            while self._queue and self._queued_bytes + summary.size > self._queue_bytes:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or self._closed:
                    break
                self._sent.wait(remaining)
            else:
                if not self._closed:
                    self._queue.append((summary, over))
                    self._queued_bytes += summary.size
                    if self._threads < min(self._most, len(self._queue) + self._in_flight):
                        self._threads += 1
                        name = f"inspect-traces-{self._threads}"
                        start_thread(self._run, name)
                    self._queued.notify()
                    return over
            over.set_result(None)
            self._lose(f"more than {self._queue_bytes // 1024 // 1024} MB were waiting")
        return over

    def lose(self, reason: str) -> None:
        """Count a summary that can't be sent."""
        with self._lock:
            self._lose(reason)

    def link(self, owner: str, trace_ids: Sequence[str]) -> None:
        """Find traces that are in MLflow already under an Inspect id's run as well. Blocks."""
        from mlflow.exceptions import MlflowException

        run_id = self._run_id(owner) if self._link_runs else None
        if run_id is None:
            return
        client, _ = self._connection.open()
        try:
            for start in range(0, len(trace_ids), LINKS_PER_REQUEST):
                client.link_traces_to_run(
                    list(trace_ids[start : start + LINKS_PER_REQUEST]), run_id
                )
        except MlflowException as error:
            with self._lock:
                self._lose(f"earlier traces were not linked to {run_id}: {error}")

    def flush(self, timeout: float) -> bool:
        """Wait until nothing is waiting or under way, at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with self._lock:
            while self._queue or self._in_flight:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                self._sent.wait(remaining)
            return True

    def close(self) -> None:
        """Stop; what is still waiting or under way counts as lost. Use `flush` before."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for _ in range(len(self._queue) + self._in_flight):
                self._lose(OVER)
            for _, over in self._queue:
                over.set_result(None)
            self._queue.clear()
            self._queued.notify_all()
            self._sent.notify_all()

    def delivery(self) -> SummaryDelivery:
        """The counts so far."""
        with self._lock:
            waiting = 0 if self._closed else len(self._queue) + self._in_flight
            return SummaryDelivery(
                self._delivered, self._lost, waiting, self._assessments, self._reason
            )

    # --- on the threads ------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._queue and not self._closed:
                    self._queued.wait()
                if self._closed:
                    return
                summary, over = self._queue.popleft()
                self._queued_bytes -= summary.size
                self._in_flight += 1
                self._sent.notify_all()
            reason: str | None = None
            try:
                self._send(summary)
            except Exception as error:  # the boundary of the thread: counted and reported
                reason = short_reason(error)
                self._connection.on_trouble(self._connection.name, reason)
            with self._lock:
                self._in_flight -= 1
                if not self._closed:
                    if reason is None:
                        self._delivered += 1
                        self._assessments += len(summary.scores)
                    else:
                        self._lose(reason)
                self._sent.notify_all()
            over.set_result(None)

    def _lose(self, reason: str) -> None:
        self._lost += 1
        self._reason = self._reason or reason

    def _send(self, summary: TraceSummary) -> None:
        run_ids = {}
        if self._link_runs:
            owners = dict.fromkeys([*summary.owners, *(eval_id for eval_id, _ in summary.scores)])
            run_ids = {
                owner: run_id for owner in owners if (run_id := self._run_id(owner)) is not None
            }
        info = summary.with_runs(run_ids)
        if self._connection.is_http:
            self._post(info)
        else:
            from mlflow.tracing.client import TracingClient

            start = partial(TracingClient(self._connection.uri).start_trace, info)
            self._connection.persist(partial(available, start))
        client, _ = self._connection.open()
        for owner in summary.owners[1:]:
            if owner in run_ids:
                client.link_traces_to_run([info.trace_id], run_ids[owner])

    def _run_id(self, owner: str) -> str | None:
        return self._connection.run_id(owner, WAIT_FOR_RUN)

    def _post(self, info: TraceInfo) -> None:
        """What MLflow's client does to record a trace, with a bounded wait."""
        from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
        from mlflow.entities import Trace, TraceData
        from mlflow.protos.service_pb2 import StartTraceV3

        message = StartTraceV3(trace=Trace(info, TraceData([])).to_proto())  # type: ignore[no-untyped-call]
        request = partial(
            self._connection.request,
            _TRACES_PATH,
            "POST",
            json=MessageToDict(message, preserving_proto_field_name=True),
            timeout=REQUEST_TIMEOUT,
        )
        response = self._connection.persist(request)
        if response.status_code != 200:
            raise SummaryRefused(said(response))
