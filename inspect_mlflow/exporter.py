"""Span exporters to MLflow: over HTTP to its OTLP endpoint, or straight into its database."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import wait
from functools import lru_cache, partial
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from inspect_mlflow.connection import Connection, available
from inspect_mlflow.conversations import Conversations, Exchange
from inspect_mlflow.http import said
from inspect_mlflow.overlay import overlay
from inspect_mlflow.trace_info import TraceSummaries, TraceSummary, reused_traces
from inspect_mlflow.trace_writer import SummaryDelivery, TraceWriter
from otel_bridge.pipeline import SpansRefused

logger = logging.getLogger("inspect_mlflow")

REQUEST_TIMEOUT = 30
"""Seconds."""
_REFUSED_FOR_ITS_CONTENT = (400, 413, 422)


class MlflowSpans(SpanExporter):
    """Makes of spans what MLflow is to hold: spans with its overlay, and summaries of traces."""

    def __init__(self, experiment_id: str) -> None:
        self._conversations = Conversations()
        self._summaries = TraceSummaries(experiment_id)
        self._mistakes: set[type[Exception]] = set()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Deal with a batch."""
        self.deal_with(
            map(self._shown, spans),
            [summary for span in spans for summary in self._summarized(span)],
            [traces for span in spans if (traces := reused_traces(span))],
        )
        return SpanExportResult.SUCCESS

    def _shown(self, span: ReadableSpan) -> ReadableSpan:
        """A span with its overlay. What is only there to be looked at never costs the span."""
        try:
            return with_overlay(span, self._conversations.of(span))
        except Exception as error:  # a mistake of ours: said once per kind, like a thread's
            if type(error) not in self._mistakes:
                self._mistakes.add(type(error))
                logger.warning("%s: MLflow shows it without details", span.name, exc_info=error)
            return span  # as it is

    def _summarized(self, span: ReadableSpan) -> list[TraceSummary]:
        try:
            return list(self._summaries.add(span))
        except Exception as error:  # likewise; counted, for it holds the scores
            logger.debug("%s: no summary of its trace", span.name, exc_info=error)
            self.lose_summary(f"{type(error).__name__}: {error}")
            return []

    @abstractmethod
    def deal_with(
        self,
        spans: Iterable[ReadableSpan],
        summaries: Sequence[TraceSummary],
        reused: Sequence[tuple[str, list[str]]],
    ) -> None:
        """Deal with a batch: its spans, the traces that it completes, and reused ones.

        Spans are made as they are taken. The reused are traces that belong to the run of an eval
        id as well.
        """

    @abstractmethod
    def lose_summary(self, reason: str) -> None:
        """The summary of a trace could not be made."""

    @abstractmethod
    def summaries(self) -> SummaryDelivery:
        """What became of the summaries of the traces so far."""


class MlflowSpanExporter(MlflowSpans):
    """Sends spans with MLflow's overlay, and what its tables show of their trace.

    For a trace that a batch completes, the latter comes first: MLflow needs half the time for it
    where there is no such trace yet. Never at the same time: SQLite lets only one of them write,
    and MLflow could put the spans' preview over the summary's.

    Raises
    ------
    ConnectionFailed
        If there is no MLflow, or no experiment to write to.
    """

    def __init__(self, connection: Connection, *, link_runs: bool) -> None:
        self._connection = connection
        _, self._experiment_id = connection.open()
        super().__init__(self._experiment_id)
        self._writer = TraceWriter(connection, link_runs=link_runs)
        if not connection.is_http:
            self._store = _sql_store(connection.uri)

    def deal_with(
        self,
        spans: Iterable[ReadableSpan],
        summaries: Sequence[TraceSummary],
        reused: Sequence[tuple[str, list[str]]],
    ) -> None:
        """Send a batch. Raises SpansRefused where MLflow does not take all of it."""
        summarized = [self._writer.put(summary) for summary in summaries]
        spans = list(spans)  # made and encoded while the summaries are under way
        encoded = encode_spans(spans)
        wait(summarized)
        if self._connection.is_http:
            refused = self._post(spans, encoded)
        else:
            refused = self._store_spans(encoded)
        if len(refused) == len(spans):
            raise SpansRefused(refused[0])
        for traces in reused:
            self._writer.link(*traces)
        if refused:
            raise SpansRefused(refused[0], len(refused))

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Wait for the summaries of traces."""
        return self._writer.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Stop at once."""
        self._writer.close()

    def lose_summary(self, reason: str) -> None:
        """The summary of a trace could not be made."""
        self._writer.lose(reason)

    def summaries(self) -> SummaryDelivery:
        """What became of the summaries of the traces so far."""
        return self._writer.delivery()

    def _post(self, spans: Sequence[ReadableSpan], encoded: ExportTraceServiceRequest) -> list[str]:
        """Send spans; returns a reason for each that was refused.

        One bad span costs a batch: it is halved.
        """
        body = encoded.SerializeToString()
        response = self._connection.persist(partial(self._request, body))
        if response.status_code == 200:
            return []
        if response.status_code in _REFUSED_FOR_ITS_CONTENT and len(spans) > 1:
            middle = len(spans) // 2
            halves = spans[:middle], spans[middle:]
            return [why for half in halves for why in self._post(half, encode_spans(half))]
        return [said(response)] * len(spans)

    def _request(self, body: bytes) -> Any:
        return self._connection.request(
            "/v1/traces",
            "POST",
            data=body,
            headers={
                "Content-Type": "application/x-protobuf",
                "x-mlflow-experiment-id": self._experiment_id,
            },
            timeout=REQUEST_TIMEOUT,
        )

    def _store_spans(self, encoded: ExportTraceServiceRequest) -> list[str]:
        """Store spans the way the server does on receiving them."""
        from mlflow.entities.span import Span
        from mlflow.tracing.otel import translation

        stored = [
            Span.from_otel_proto(span, resource=resource_spans.resource)
            for resource_spans in encoded.resource_spans
            for scope_spans in resource_spans.scope_spans
            for span in scope_spans.spans
        ]
        # the stores of MLflow before 3.18 do it themselves
        if (strip := getattr(translation, "strip_otlp_double_encoding", None)) is not None:
            for span in stored:
                span._span._attributes = strip(span._span._attributes)
        store = partial(self._store.log_spans, self._experiment_id, stored)
        self._connection.persist(partial(available, store))
        return []


def with_overlay(span: ReadableSpan, exchange: Exchange | None) -> ReadableSpan:
    """A span as MLflow gets it; `exchange` is what was said inside it."""
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=_steady(span.resource),
        attributes={**(span.attributes or {}), **overlay(span, exchange)},
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
