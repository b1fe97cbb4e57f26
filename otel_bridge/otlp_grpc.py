"""OpenTelemetry's exporter for gRPC, which also sees that a batch was taken in part."""

from __future__ import annotations

from typing import Any

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

from otel_bridge.otlp_http import NoticesRefusals, partial_refusal


class GrpcExporter(NoticesRefusals, OTLPSpanExporter):
    """Over gRPC. Raises SpansRefused for partial successes."""

    def _initialize_channel_and_stub(self) -> None:
        """The SDK calls this whenever it connects."""
        super()._initialize_channel_and_stub()  # type: ignore[no-untyped-call]
        client: Any = self._client
        send = client.Export

        def judged(**arguments: Any) -> Any:
            answer = send(**arguments)
            self.refusal = partial_refusal(answer)
            return answer

        client.Export = judged
