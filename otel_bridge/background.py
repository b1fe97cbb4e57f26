"""A background thread that does things in order, bounded in memory, with a bounded wait."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

logger = logging.getLogger(__name__)


class _OwnThreads(logging.Filter):
    """Keeps what libraries log of single requests on this package's threads from the log.

    They announce each retry; what comes of them is reported once, at the end.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.threadName or "").startswith(THREAD_PREFIX)


THREAD_PREFIX = "inspect-"
"""The names of this package's threads begin so."""

_OWN_THREADS = _OwnThreads()
QUEUE_BYTES = 256 * 1024 * 1024
_CHATTY_LOGGERS = ("urllib3.connectionpool", "mlflow.store.db.utils")


def start_thread(work: Callable[[], object], name: str) -> threading.Thread:
    """A daemon thread at work on this package's own: nothing that traces requests traces its."""

    def run() -> None:
        if "opentelemetry.context" in sys.modules:  # else nothing traces anything
            # the SDK sets it for its own exporters; there is no public name
            from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, set_value

            attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        work()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


class BackgroundThread:
    """Runs what is submitted, one after the other, on one daemon thread.

    `submit` never waits, and wakes nobody: the thread looks for new items some 20 times a second.
    Waking it for each would cost an event loop that submits thousands more than all else here.
    It refuses what would make more than `limit` bytes wait, as those who submit estimate them. An
    exception that an item raises is logged (once per kind) and counted, and the next item goes on.
    """

    def __init__(
        self,
        name: str,
        limit: int = QUEUE_BYTES,
        when_idle: Callable[[], object] | None = None,
    ) -> None:
        """`when_idle` is called on the thread whenever it has looked and found nothing to do."""
        self.failed = 0
        self._name = name
        self._limit = limit
        self._when_idle = when_idle
        self._items: deque[tuple[Callable[[], object], int]] = deque()
        # each is written by one thread alone: those who submit with a size are one
        self._taken_bytes = 0
        self._done_bytes = 0
        self._hurry = threading.Event()
        self._busy = False
        self._closed = False
        self._seen: set[type[Exception]] = set()
        for chatty in _CHATTY_LOGGERS:
            logging.getLogger(chatty).addFilter(_OWN_THREADS)  # adding it again changes nothing
        self._thread = start_thread(self._run, name)

    @property
    def waiting_bytes(self) -> int:
        """How much memory what is not yet done keeps, as estimated."""
        return self._taken_bytes - self._done_bytes

    def submit(self, item: Callable[[], object], size: int = 0) -> bool:
        """Queue an item that keeps about `size` bytes. False if it was refused."""
        waiting = self.waiting_bytes
        if self._closed or (size and waiting and waiting + size > self._limit):
            return False
        if size:
            self._taken_bytes += size
        self._items.append((item, size))
        return True

    def flush(self, timeout: float) -> bool:
        """Wait until all that was submitted is done, at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        self._hurry.set()
        while self._items or self._busy:  # in this order: what is taken off is busy before
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def abandon(self) -> int:
        """Drop what is waiting and end; returns how many items that were."""
        self.close()
        dropped = 0
        with suppress(IndexError):  # the thread may take the last one
            while True:
                self._items.popleft()
                dropped += 1
        return dropped

    def close(self) -> None:
        """Refuse what comes from now on; the thread ends when the queue is empty."""
        self._closed = True
        self._hurry.set()

    def attempt(self, item: Callable[[], object]) -> None:
        """Do an item now, on the calling thread; what it raises is logged and counted."""
        try:
            item()
        except Exception as error:  # the boundary of the thread: what fails is reported
            self.failed += 1
            if type(error) not in self._seen:
                self._seen.add(type(error))
                logger.warning("%s: %s", self._name, error, exc_info=error)

    def _run(self) -> None:
        while self._items or not self._closed:
            self._busy = True
            try:
                item, size = self._items.popleft()
            except IndexError:
                if self._when_idle is not None:
                    self.attempt(self._when_idle)
                self._busy = False
                self._hurry.wait(_LOOK_SECONDS)
                self._hurry.clear()
            else:
                self.attempt(item)
                del item
                self._done_bytes += size


_LOOK_SECONDS = 0.05


T = TypeVar("T")


async def off_loop(call: Callable[[], T], timeout: float | None = None) -> T:
    """Run a blocking call on a daemon thread and wait for it without blocking the event loop.

    Other than with a thread pool's threads, a call that hangs does not keep the process from
    ending.

    Raises
    ------
    TimeoutError
        If it takes longer than `timeout` seconds; it goes on, and its result is dropped.
    """
    from anyio import sleep

    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:  # handed to whoever waits
            result.set_exception(error)

    start_thread(run, "inspect-wait")
    deadline = None if timeout is None else time.monotonic() + timeout
    while not result.done():
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError
        await sleep(_POLL_SECONDS)
    return result.result()


_POLL_SECONDS = 0.01
