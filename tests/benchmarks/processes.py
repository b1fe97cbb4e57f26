"""The processes of a benchmark: workers that measure, and receivers that they send to."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from tests.support.environment import clean_environ
from tests.support.process import free_port, loopback_client, wait_until

TESTS = Path(__file__).parents[1]


def work(job: str, python: str | None = None, **arguments: Any) -> Any:
    """Run a job of the worker in a process of its own and return its result.

    With another environment's `python`, out of a folder from which this package is not found.
    """
    with TemporaryDirectory() as elsewhere:
        if python is not None:
            (Path(elsewhere) / "tests").symlink_to(TESTS)
        result = subprocess.run(
            [
                python or sys.executable,
                *("-m", "tests.benchmarks.worker", json.dumps({"job": job, **arguments})),
            ],
            cwd=elsewhere if python is not None else TESTS.parent,
            env=clean_environ(),
            capture_output=True,
            text=True,
        )
    if result.returncode:
        raise SystemExit(result.stdout + result.stderr)
    return json.loads(result.stdout.strip().splitlines()[-1])


@contextmanager
def sink(*options: str) -> Iterator[str]:
    """An OTLP receiver in a process of its own, which discards what it gets."""
    port = free_port()
    command = [sys.executable, "-m", "tests.benchmarks.sink", str(port), *options]
    process = subprocess.Popen(command, cwd=TESTS.parent)
    uri = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            received_bytes(uri)
        except httpx.TransportError:
            return False
        return True

    try:
        wait_until(answers, what="the sink", timeout=20, every=0.1)
        yield uri
    finally:
        process.terminate()
        process.wait()


def received_bytes(sink: str) -> int:
    """How many bytes a sink has been sent so far."""
    with loopback_client() as client:
        return int(client.get(sink).text)
