"""A reverse proxy in front of a server that keeps what was asked of it."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx


@dataclass(frozen=True)
class ProxyRequest:
    """A request that went through, and how it was answered."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body_bytes: int
    status: int


@dataclass(frozen=True)
class RecordingProxy:
    """`uri` stands for the server behind it."""

    uri: str
    requests: list[ProxyRequest]


@contextmanager
def recording_proxy(target: str) -> Iterator[RecordingProxy]:
    """Pass requests on to `target` and remember them."""
    requests: list[ProxyRequest] = []
    client = httpx.Client(base_url=target, trust_env=False, timeout=60)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            sent = {k: v for k, v in headers.items() if k not in ("host", "connection")}
            answer = client.request(self.command, self.path, content=body, headers=sent)
            requests.append(
                ProxyRequest(self.command, self.path, headers, len(body), answer.status_code)
            )
            self.send_response(answer.status_code)
            self.send_header("content-type", answer.headers.get("content-type", "text/plain"))
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield RecordingProxy(f"http://127.0.0.1:{server.server_port}", requests)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        client.close()
