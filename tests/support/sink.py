"""An OTLP destination in this process, over HTTP and gRPC, that can be told to misbehave."""

import gzip
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.support.otlp import ReceivedSpan, spans_of_message
from tests.support.process import wait_until

_GRPC_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.UNIMPLEMENTED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


@dataclass(frozen=True)
class Behaviour:
    """How the sink answers a request. The default takes everything."""

    status: int = 200
    """HTTP status; over gRPC the status code that stands for it."""
    delay: float = 0
    """Seconds before the answer."""
    hang: bool = False
    """Answer only after `OtlpSink.release()` or at the sink's end."""
    rejected_spans: int = 0
    """Answer with a partial success that rejects this many spans."""
    redirect: str | None = None
    """Answer 302 with this Location (HTTP only)."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """More headers of the answer, e.g. Retry-After (HTTP only)."""
    message: str = "as the test wants it"
    """The body of a refusal and the reason of a partial success."""

    @property
    def takes(self) -> bool:
        """Whether the sender is told that (some of) its spans were taken."""
        return self.status < 300 and self.redirect is None


@dataclass(frozen=True)
class SinkRequest:
    """An export request as it came in."""

    protocol: Literal["http", "grpc"]
    path: str
    headers: Mapping[str, str]
    """HTTP headers or gRPC metadata, names in lower case."""
    body_bytes: int
    """Size on the wire (HTTP) or of the decompressed message (gRPC)."""
    message_bytes: int
    """Size of the decompressed message."""
    received_at: float
    """`time.time()` of its arrival."""
    message: ExportTraceServiceRequest = field(repr=False)
    behaviour: Behaviour

    @property
    def spans(self) -> list[ReceivedSpan]:
        return spans_of_message(self.message)


class OtlpSink:
    """Takes ExportTraceServiceRequests on two loopback ports and keeps them.

    `http_endpoint` is a base endpoint: any path is served, `/v1/traces` in practice.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[SinkRequest] = []
        self._behaviour = Behaviour()
        self._remaining: int | None = None
        self._released = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http_thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._grpc = grpc.server(
            ThreadPoolExecutor(16),
            options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)],
        )
        self._grpc.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "opentelemetry.proto.collector.trace.v1.TraceService",
                    {"Export": grpc.unary_unary_rpc_method_handler(self._export)},
                ),
            )
        )
        self._grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")

    @property
    def http_endpoint(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    @property
    def grpc_endpoint(self) -> str:
        return f"http://127.0.0.1:{self._grpc_port}"

    @property
    def requests(self) -> list[SinkRequest]:
        """All requests so far, refused ones too, in order of arrival."""
        with self._lock:
            return list(self._requests)

    def spans(self, *, refused: bool = False) -> list[ReceivedSpan]:
        """Give the spans of the requests that were taken; with `refused`, of the others too."""
        return [
            span
            for request in self.requests
            if refused or request.behaviour.takes
            for span in request.spans
        ]

    def wait_for_requests(self, count: int = 1, timeout: float = 30) -> list[SinkRequest]:
        """Wait until at least `count` requests have arrived."""
        wait_until(
            lambda: len(self.requests) >= count,
            what=f"arrival of {count} requests at the sink",
            timeout=timeout,
        )
        return self.requests

    def behave(self, behaviour: Behaviour | None = None, *, times: int | None = None) -> None:
        """Answer like this from now on, or for the next `times` requests; None: take everything."""
        with self._lock:
            self._behaviour = behaviour or Behaviour()
            self._remaining = times

    def release(self) -> None:
        """Let hanging requests be answered; later ones hang again."""
        self._released.set()
        self._released = threading.Event()

    def clear(self) -> None:
        """Forget the requests so far."""
        with self._lock:
            self._requests.clear()

    def start(self) -> None:
        self._http_thread.start()
        self._grpc.start()

    def stop(self) -> None:
        self.behave()
        self._released.set()
        self._http.shutdown()
        self._http.server_close()
        self._http_thread.join()
        self._grpc.stop(0).wait()

    def _take(
        self,
        protocol: Literal["http", "grpc"],
        path: str,
        headers: Mapping[str, str],
        body_bytes: int,
        payload: bytes,
    ) -> Behaviour:
        """Keep a request, wait as told, and say how to answer."""
        message = ExportTraceServiceRequest.FromString(payload)
        with self._lock:
            behaviour = self._behaviour
            if self._remaining is not None:
                self._remaining -= 1
                if self._remaining <= 0:
                    self._behaviour, self._remaining = Behaviour(), None
            self._requests.append(
                SinkRequest(
                    protocol=protocol,
                    path=path,
                    headers=headers,
                    body_bytes=body_bytes,
                    message_bytes=len(payload),
                    received_at=time.time(),
                    message=message,
                    behaviour=behaviour,
                )
            )
            released = self._released
        time.sleep(behaviour.delay)
        if behaviour.hang:
            released.wait()
        return behaviour

    def _export(self, payload: bytes, context: Any) -> bytes:
        headers = {str(key): str(value) for key, value in context.invocation_metadata()}
        behaviour = self._take("grpc", "", headers, len(payload), payload)
        if not behaviour.takes:
            code = _GRPC_STATUS.get(behaviour.status, grpc.StatusCode.UNKNOWN)
            context.abort(code, behaviour.message)
        return _answer(behaviour)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                payload = _decompress(body, headers.get("content-encoding", "identity"))
                behaviour = sink._take("http", self.path, headers, len(body), payload)
                try:
                    self._respond(behaviour)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the sender gave up waiting

            def _respond(self, behaviour: Behaviour) -> None:
                answer = _answer(behaviour) if behaviour.takes else behaviour.message.encode()
                self.send_response(302 if behaviour.redirect else behaviour.status)
                if behaviour.redirect:
                    self.send_header("Location", behaviour.redirect)
                for name, value in behaviour.headers.items():
                    self.send_header(name, value)
                kind = "application/x-protobuf" if behaviour.takes else "text/plain"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(answer)))
                if self.close_connection:
                    self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                """Keep requests out of the test's output; `OtlpSink.requests` has them."""

        return Handler


@contextmanager
def running_sink() -> Iterator[OtlpSink]:
    """Run a sink and stop it at the end."""
    sink = OtlpSink()
    sink.start()
    try:
        yield sink
    finally:
        sink.stop()


def _answer(behaviour: Behaviour) -> bytes:
    response = ExportTraceServiceResponse()
    if behaviour.rejected_spans:
        response.partial_success.rejected_spans = behaviour.rejected_spans
        response.partial_success.error_message = behaviour.message
    return bytes(response.SerializeToString())


def _decompress(body: bytes, encoding: str) -> bytes:
    if encoding == "gzip":
        return gzip.decompress(body)
    if encoding == "deflate":
        return zlib.decompress(body)
    return body
