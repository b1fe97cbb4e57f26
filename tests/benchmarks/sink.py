"""An OTLP receiver that discards what it gets: `python -m tests.benchmarks.sink PORT [--hang]`.

GET answers with the number of bytes received so far. With `--hang`, no POST is ever answered.
"""

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Reads a request and answers 200."""

    protocol_version = "HTTP/1.1"
    received = 0
    hang = False

    def do_GET(self) -> None:
        self._answer(str(Handler.received).encode())

    def do_POST(self) -> None:
        Handler.received += len(self.rfile.read(int(self.headers.get("content-length") or 0)))
        if Handler.hang:
            threading.Event().wait()
        self._answer(b"")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: it would cost the time that is measured."""


if __name__ == "__main__":
    Handler.hang = "--hang" in sys.argv
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    server.daemon_threads = True
    server.serve_forever()
