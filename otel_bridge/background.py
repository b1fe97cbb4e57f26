"""A background thread that does things in order, bounded in number, with a bounded wait."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

logger = logging.getLogger(__name__)


class BackgroundThread:
    """Runs what is submitted, one after the other, on one daemon thread.

    `submit` never waits. Beyond `limit` waiting items it refuses, and counts what it refused. An
    exception that an item raises is logged (once per kind) and counted, and the next item goes on.
    """

    def __init__(self, name: str, limit: int = 200_000) -> None:
        self.refused = 0
        self.failed = 0
        self._name = name
        self._limit = limit
        self._items: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._closed = False
        self._seen: set[type[Exception]] = set()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, item: Callable[[], object]) -> bool:
        """Queue an item. False if it was refused."""
        if self._closed or self._items.qsize() >= self._limit:
            self.refused += 1
            return False
        self._items.put(item)
        return True

    def flush(self, timeout: float) -> bool:
        """Wait until all that was submitted is done, at most `timeout` seconds."""
        if self._closed:
            return not self._thread.is_alive()
        done = threading.Event()
        self._items.put(done.set)
        return done.wait(timeout)

    def close(self) -> None:
        """Refuse what comes from now on; the thread ends when the queue is empty."""
        if not self._closed:
            self._closed = True
            self._items.put(None)

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            try:
                item()
            except Exception as error:  # the boundary of the thread: what fails is reported
                self.failed += 1
                if type(error) not in self._seen:
                    self._seen.add(type(error))
                    logger.warning("%s: %s", self._name, error, exc_info=error)
            finally:
                del item
