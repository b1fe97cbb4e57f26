"""OpenTelemetry's exporter for http/protobuf, which also sees what it takes for success.

An endpoint may answer that it took a batch but for some of its spans, or that it is elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

import requests
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_bridge.errors import short_reason
from otel_bridge.pipeline import SpansRefused

_SESSION_PROVIDERS = (
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
)
"""They name the entry point of a `requests.Session` with credentials, as the SDK defines it."""


class NoticesRefusals(SpanExporter):
    """For an exporter that puts what an answer says of refused spans into `refusal`."""

    refusal: SpansRefused | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch."""
        self.refusal = None
        result = super().export(spans)
        if self.refusal is not None:
            raise self.refusal
        return result


class HttpExporter(NoticesRefusals, OTLPSpanExporter):
    """Over http/protobuf. Raises SpansRefused, where the SDK's would say less or nothing."""

    def __init__(self) -> None:
        session: Any = _session()
        request = session.request

        def judged(**arguments: Any) -> requests.Response:
            try:
                response: requests.Response = request(**arguments)
            except requests.RequestException as error:
                self.refusal = SpansRefused(short_reason(error))
                raise
            self.refusal = _refusal(response)
            return response

        session.request = judged
        super().__init__(session=session)


def _refusal(response: requests.Response) -> SpansRefused | None:
    status = response.status_code
    if response.is_redirect:
        location = response.headers["location"].partition("?")[0]
        return SpansRefused(f"HTTP {status}: it redirects to {location}; name that")
    if not 200 <= status < 300:
        text = " ".join(response.text.split())[:300]
        return SpansRefused(f"HTTP {status}: {text or response.reason}")
    try:
        return partial_refusal(ExportTraceServiceResponse.FromString(response.content))
    except DecodeError:
        return None  # some answer 200 with a word of their own


def _session() -> requests.Session:
    for variable in _SESSION_PROVIDERS:
        if name := os.environ.get(variable):
            (provider,) = entry_points(group="opentelemetry_otlp_credential_provider", name=name)
            session: requests.Session = provider.load()()
            return session
    return requests.Session()


def partial_refusal(answer: ExportTraceServiceResponse) -> SpansRefused | None:
    """What an answer says of refused spans, None if it took them all."""
    refused = answer.partial_success
    if not refused.rejected_spans:
        return None
    reason = refused.error_message or "the endpoint did not say why"
    return SpansRefused(" ".join(reason.split())[:300], refused.rejected_spans)
