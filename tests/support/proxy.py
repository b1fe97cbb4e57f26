"""A reverse proxy in front of a server: keeps what was asked of it, and misbehaves when told to."""

import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx


@dataclass(frozen=True)
class ProxyRequest:
    """A request, and how it was answered."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body_bytes: int
    status: int


@dataclass(frozen=True)
class Fault:
    """How the proxy misbehaves."""

    status: int | None = None
    """Answer this instead of asking the server."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """More headers of that answer, e.g. Retry-After."""
    delay: float = 0
    """Seconds before the answer; what is passed on is passed on at once."""
    hang: bool = False
    """Never answer."""
    above_bytes: int = -1
    """Only where the request's body is larger."""
    path: str = ""
    """Only where the request's path has this in it."""


@dataclass
class RecordingProxy:
    """`uri` stands for the server behind it."""

    uri: str
    requests: list[ProxyRequest] = field(default_factory=list)
    fault: Fault | None = None
    """How requests from now on are treated; None: passed on."""


@contextmanager
def recording_proxy(
    target: str,
    *,
    port: int = 0,
    certificate: Path | None = None,
    fault: Fault | None = None,
) -> Iterator[RecordingProxy]:
    """Pass requests on to `target` and remember them.

    `certificate` is a PEM file with certificate and key: then the proxy speaks HTTPS.
    """
    fresh = httpx.Limits(max_keepalive_connections=0)  # the server may just be closing an idle one
    client = httpx.Client(base_url=target, trust_env=False, timeout=60, limits=fresh)
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            fault = proxy.fault
            if fault is None or len(body) <= fault.above_bytes or fault.path not in self.path:
                fault = Fault()
            if fault.hang:
                over.wait()
                self.close_connection = True
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            if fault.status is None:
                sent = {k: v for k, v in headers.items() if k not in ("host", "connection")}
                answer = client.request(self.command, self.path, content=body, headers=sent)
                kind = answer.headers.get("content-type", "text/plain")
                status, content, more = answer.status_code, answer.content, {"content-type": kind}
            else:
                status, content, more = fault.status, b"as the test wants it", dict(fault.headers)
            time.sleep(fault.delay)
            proxy.requests.append(ProxyRequest(self.command, self.path, headers, len(body), status))
            try:
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the sender gave up waiting

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Senders that are killed or don't trust the certificate are expected."""

    server = Server(("127.0.0.1", port), Handler)
    scheme = "http"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        scheme = "https"
    proxy = RecordingProxy(f"{scheme}://127.0.0.1:{server.server_port}", fault=fault)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield proxy
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()
        client.close()
