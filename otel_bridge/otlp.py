"""The OTLP endpoint that the OTEL_EXPORTER_OTLP_* variables name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter


@dataclass(frozen=True, slots=True)
class OtlpTarget:
    """An OTLP endpoint that the OTEL_EXPORTER_OTLP_* variables name."""

    protocol: str
    traces_url: str
    """The address for http/protobuf, with its path; for grpc, the endpoint as given."""

    def open(self) -> SpanExporter:
        """Make the exporter. It reads headers, timeout, TLS and compression from OTEL_* itself."""
        if self.protocol == "grpc":
            from otel_bridge.otlp_grpc import GrpcExporter

            return GrpcExporter()
        from otel_bridge.otlp_http import HttpExporter

        return HttpExporter()


def otlp_target(environ: Mapping[str, str] = os.environ) -> OtlpTarget | None:
    """The OTLP endpoint of the environment; None if there is none.

    Raises ValueError for a protocol that is not http/protobuf or grpc.
    """
    if sdk_disabled(environ):
        return None
    if environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return None
    traces = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip()
    base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    if not traces and not base:
        return None
    protocol, variable = "http/protobuf", ""
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if environ.get(variable, "").strip():
            protocol = environ[variable].strip().lower()
            break
    if protocol not in ("http/protobuf", "grpc"):
        raise ValueError(f"{variable}={protocol!r}: accepted are 'http/protobuf' and 'grpc'")
    if protocol == "grpc" or traces:
        return OtlpTarget(protocol, traces or base)
    return OtlpTarget(protocol, base.rstrip("/") + "/v1/traces")


def sdk_disabled(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether OTEL_SDK_DISABLED turns all tracing off."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
