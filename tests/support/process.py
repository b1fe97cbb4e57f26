"""Starts a server as a process, waits until it answers, and stops it with all its children."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx

from tests.support import guard
from tests.support.environment import clean_environ

_given_ports: set[int] = set()


def free_port() -> int:
    """Find a loopback port nobody listens on, below those the system gives to outgoing calls."""
    for port in random.SystemRandom().sample(range(20000, 32000), 200):
        if port in _given_ports:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given_ports.add(port)
        return port
    raise RuntimeError("no free loopback port among 200 between 20000 and 32000")


def loopback_client(timeout: float = 60) -> httpx.Client:
    """Give an HTTP client that ignores proxies."""
    return httpx.Client(trust_env=False, timeout=timeout)


class ServerProcess:
    """A server that runs as a process group of its own and ends with this process at the latest.

    Its output goes to `log_path`, which can be stopped and started again.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        ready_url: str,
        directory: Path,
        environ: Mapping[str, str] | None = None,
        boot_timeout: float = 120,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.ready_url = ready_url
        self.directory = directory
        self.environ = clean_environ(environ)
        self.boot_timeout = boot_timeout
        self.log_path = directory / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server and wait until it answers at `ready_url`.

        Raises:
            RuntimeError: It ended, or didn't answer in time; the message holds its output.
        """
        if self.running:
            raise RuntimeError(f"{self.name} is already running")
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, guard.__file__, *self.command],
                cwd=self.directory,
                env=self.environ,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.boot_timeout
        with loopback_client(timeout=5) as client:
            while time.monotonic() < deadline:
                if not self.running:
                    raise RuntimeError(f"{self.name} ended while starting:\n{self.log_tail()}")
                try:
                    if client.get(self.ready_url).is_success:
                        return
                except httpx.TransportError:
                    pass  # not listening yet
                time.sleep(0.1)
        raise RuntimeError(
            f"{self.name} didn't answer at {self.ready_url} within {self.boot_timeout:.0f} s:\n"
            f"{self.log_tail()}"
        )

    def stop(self) -> None:
        """End the server as an operator would (SIGTERM), and its children with it."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(guard.GRACE + 10)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End the server and its children at once (SIGKILL), as a crash would."""
        if self._process is None:
            return
        _kill_group(self._process.pid)
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process = None

    def pids(self) -> list[int]:
        """The processes of the server."""
        if self._process is None:
            return []
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and os.getpgid(int(entry.name)) == self._process.pid:
                    found.append(int(entry.name))
            except ProcessLookupError:
                pass  # it has ended meanwhile
        return found

    def log_tail(self, characters: int = 4000) -> str:
        if not self.log_path.exists():
            return ""
        return self.log_path.read_text(errors="replace")[-characters:]


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return  # all of it has ended already


def wait_until(
    condition: Callable[[], bool], *, what: str, timeout: float = 30, every: float = 0.05
) -> None:
    """Wait until `condition()` is true.

    Raises:
        TimeoutError: It didn't become true within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} didn't happen within {timeout:.0f} s")
        time.sleep(every)
