"""What the two hooks share for the time of one evaluation run."""

from __future__ import annotations

import logging
import os
import signal
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from inspect_mlflow.receipt import TAG_PREFIX, Receipt
from otel_bridge import heap
from otel_bridge.errors import short_reason

if TYPE_CHECKING:
    from inspect_ai.log._samples import ActiveSample

    from inspect_mlflow.config import MLflowSettings
    from inspect_mlflow.connection import Connection

logger = logging.getLogger("inspect_mlflow")

TAG_SECONDS = 5
"""How long writing the receipt may take."""
GRACE_SECONDS = 3
"""How long a hook waits although the other has used up the time."""
HURRY_SECONDS = 1
"""How long a hook waits when the evaluation was interrupted twice."""


@dataclass
class Session:
    """The connection, if there is an MLflow, and the receipt."""

    connection: Connection | None
    receipt: Receipt
    users: int = 0
    _deadline: float | None = None
    _on_interrupt: object = field(default_factory=partial(signal.getsignal, signal.SIGINT))

    def time_left(self, timeout: float) -> float:
        """How many seconds a hook may wait at the end of the run: both share `timeout`.

        What one destination used up costs another no span: there are always a few seconds left,
        but to those who have pressed Ctrl-C again.
        """
        on_interrupt = signal.getsignal(signal.SIGINT)
        if on_interrupt is signal.default_int_handler and self._on_interrupt is not on_interrupt:
            return min(timeout, HURRY_SECONDS)  # asyncio has given the signal back: it is leaving
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + timeout
        return max(self._deadline - now, min(timeout, GRACE_SECONDS))


_sessions: dict[str, Session] = {}


def acquire(run_id: str, settings: MLflowSettings) -> Session:
    """The session of an Inspect run; to be released as often as it was acquired."""
    if run_id not in _sessions:
        heap.begin()
        connection, receipt = None, Receipt()
        if settings.tracking_uri is not None:
            from inspect_mlflow.connection import Connection

            connection = Connection.of(settings, receipt.trouble)
        _sessions[run_id] = Session(connection, receipt)
    session = _sessions[run_id]
    session.users += 1
    return session


async def release(run_id: str) -> None:
    """Let go of a session. The last one says what arrived, and writes it to the parent run."""
    from anyio import CancelScope

    from otel_bridge.background import off_loop

    session = _sessions[run_id]
    session.users -= 1
    if session.users:
        return
    del _sessions[run_id]
    heap.end()
    if session.connection is not None:
        with CancelScope(shield=True):
            try:
                reason = await off_loop(partial(_write, session, run_id), TAG_SECONDS)
            except TimeoutError:
                reason = f"no answer within {TAG_SECONDS} seconds"
        session.connection.give_up()
        if reason is not None and session.receipt.is_whole:  # else there is worse to say
            name = session.connection.name
            logger.warning("%s has everything but the tags %s…: %s", name, TAG_PREFIX, reason)
    session.receipt.say()


def _write(session: Session, run_id: str) -> str | None:
    """The receipt as tags of the parent run, if there is one. Returns why it was not taken."""
    from mlflow.entities import RunTag
    from mlflow.exceptions import MlflowException

    from inspect_mlflow.connection import ConnectionFailed

    assert session.connection is not None
    run = session.connection.run(run_id)
    tags = [RunTag(key, value) for key, value in session.receipt.tags().items()]
    if not run.done() or run.exception() is not None or not tags:
        return None
    connection = session.connection
    if not session.receipt.is_whole and (connection.is_troubled or connection.trouble()):
        return None
    try:
        client, _ = connection.open()
        client.log_batch(run.result(), tags=tags, synchronous=True)
    except (ConnectionFailed, MlflowException) as error:
        return short_reason(error)
    return None


def running_sample() -> ActiveSample | None:
    """The sample in whose task this runs: it knows where its log is, as no hook says."""
    from inspect_ai.log import _samples  # there is no public name

    return _samples.sample_active()


class _HasRuns(Protocol):
    _runs: dict[str, Any]


def forget_in_children(hooks: _HasRuns) -> None:
    """Make a forked child know nothing of the runs: their threads stay in the parent.

    What the child holds of them it keeps: to take apart what another process uses is not its
    business. Runs that it starts itself are its own.
    """
    inherited = []

    def forget() -> None:
        inherited.append(hooks._runs)
        hooks._runs = {}

    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=forget)
