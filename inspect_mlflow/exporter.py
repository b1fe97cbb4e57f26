"""Span exporters to MLflow: over HTTP to its OTLP endpoint, or straight into its database."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from functools import lru_cache
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from inspect_mlflow.connection import Connection, ConnectionFailed
from inspect_mlflow.overlay import overlay
from otel_bridge import semconv as sc
from otel_bridge.ids import hex_trace_id

logger = logging.getLogger(__name__)

LINKS_PER_REQUEST = 100
"""MLflow links at most so many traces to a run in one request."""
REQUEST_TIMEOUT = 30
"""Seconds."""
_REFUSED_FOR_ITS_CONTENT = (400, 413, 422)


class SpansNotAccepted(Exception):
    """MLflow answered that it does not take a batch, or the request failed."""


class MlflowSpanExporter(SpanExporter):
    """Sends spans with MLflow's overlay, and links each sample's trace to its task's run.

    Raises
    ------
    ConnectionFailed
        If there is no MLflow, or no experiment to write to.
    """

    def __init__(self, connection: Connection, *, link_runs: bool) -> None:
        self._connection = connection
        self._client, self._experiment_id = connection.open()
        self._links = _TraceLinks(connection) if link_runs else None
        if not connection.is_http:
            self._store = _sql_store(connection.uri)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch. Raises SpansNotAccepted where MLflow takes none of it."""
        request = encode_spans([_with_overlay(span) for span in spans])
        if self._connection.is_http:
            refused = self._post(request, spans)
        else:
            refused = self._store_spans(request)
        if refused == len(spans):
            raise SpansNotAccepted(self._last_refusal)
        if refused:
            logger.warning("MLflow refused %d spans: %s", refused, self._last_refusal)
        if self._links is not None:
            self._links.note(spans)
            self._links.send(wait=0)
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Link what is not linked yet."""
        return self._links is None or self._links.send(wait=timeout_millis / 1000)

    def shutdown(self) -> None:
        """Nothing is kept open."""

    _last_refusal = ""

    def _post(self, request: ExportTraceServiceRequest, spans: Sequence[ReadableSpan]) -> int:
        """Send spans; returns how many were refused. One bad span costs a batch: halve it."""
        response = self._connection.request(
            "/v1/traces",
            "POST",
            data=request.SerializeToString(),
            extra_headers={
                "Content-Type": "application/x-protobuf",
                "x-mlflow-experiment-id": self._experiment_id,
            },
            max_retries=2,
            timeout=REQUEST_TIMEOUT,
        )
        if response.status_code == 200:
            return 0
        self._last_refusal = f"HTTP {response.status_code}: {' '.join(response.text.split())[:300]}"
        if response.status_code in _REFUSED_FOR_ITS_CONTENT:
            if len(spans) == 1:
                return 1
            middle = len(spans) // 2
            return sum(
                self._post(encode_spans([_with_overlay(span) for span in half]), half)
                for half in (spans[:middle], spans[middle:])
            )
        raise SpansNotAccepted(self._last_refusal)

    def _store_spans(self, request: ExportTraceServiceRequest) -> int:
        """Store spans the way the server does on receiving them."""
        from mlflow.entities.span import Span

        self._store.log_spans(
            self._experiment_id,
            [
                Span.from_otel_proto(span, resource=resource_spans.resource)
                for resource_spans in request.resource_spans
                for scope_spans in resource_spans.scope_spans
                for span in scope_spans.spans
            ],
        )
        return 0


class _TraceLinks:
    """Which traces belong to which run, until MLflow knows."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: dict[str, dict[str, None]] = {}
        self._linked: set[tuple[str, str]] = set()

    def note(self, spans: Sequence[ReadableSpan]) -> None:
        """A sample's trace belongs to its task's run, the run's trace to the parent run."""
        for span in spans:
            attributes: Mapping[str, Any] = span.attributes or {}
            kind = attributes.get(sc.INSPECT_KIND)
            key = {"sample": sc.INSPECT_EVAL_ID, "run": sc.INSPECT_RUN_ID}.get(str(kind))
            if key is None or span.context is None:
                continue
            owner = str(attributes[key])
            trace_id = f"tr-{hex_trace_id(span.context.trace_id)}"
            if (owner, trace_id) not in self._linked:
                self._linked.add((owner, trace_id))
                self._waiting.setdefault(owner, {})[trace_id] = None

    def send(self, wait: float) -> bool:
        """Link what can be linked; waits so many seconds for runs still being created."""
        from mlflow.exceptions import MlflowException

        client, _ = self._connection.open()
        for owner in list(self._waiting):
            run: Future[str] = self._connection.run(owner)
            try:
                run_id = run.result(timeout=wait)
            except FutureTimeout:
                continue
            except (ConnectionFailed, MlflowException):
                del self._waiting[owner]  # there is no such run: its writer has said why
                continue
            traces = list(self._waiting.pop(owner))
            for start in range(0, len(traces), LINKS_PER_REQUEST):
                client.link_traces_to_run(traces[start : start + LINKS_PER_REQUEST], run_id)
        return not self._waiting


def _with_overlay(span: ReadableSpan) -> ReadableSpan:
    attributes = span.attributes or {}
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes={**attributes, **overlay(span.name, span.parent is None, attributes)},
        events=span.events,
        links=span.links,
        kind=span.kind,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


@lru_cache(maxsize=8)
def _steady(resource: Resource) -> Resource:
    """The resource without what differs between processes: MLflow makes trace tags of it."""
    kept = {k: v for k, v in resource.attributes.items() if k != "service.instance.id"}
    return Resource(kept, resource.schema_url)


def _sql_store(uri: str) -> Any:
    """The store that the server would use. MLflow has no public way to give it spans."""
    from mlflow.tracking._tracking_service import utils

    get_store: Any = utils._get_store
    return get_store(uri)
