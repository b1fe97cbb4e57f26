"""What the two hooks share for the time of one evaluation run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from inspect_mlflow.receipt import Receipt

if TYPE_CHECKING:
    from inspect_mlflow.config import MLflowSettings
    from inspect_mlflow.connection import Connection

TAG_SECONDS = 5
"""How long writing the receipt may take."""


@dataclass
class Session:
    """The connection, if there is an MLflow, and the receipt."""

    connection: Connection | None
    receipt: Receipt = field(default_factory=Receipt)
    users: int = 0


_sessions: dict[str, Session] = {}


def acquire(run_id: str, settings: MLflowSettings) -> Session:
    """The session of an Inspect run; to be released as often as it was acquired."""
    if run_id not in _sessions:
        connection = None
        if settings.tracking_uri is not None:
            from inspect_mlflow.connection import Connection

            connection = Connection.of(settings)
        _sessions[run_id] = Session(connection)
    session = _sessions[run_id]
    session.users += 1
    return session


async def release(run_id: str) -> None:
    """Let go of a session. The last one says what arrived, and writes it to the parent run."""
    from anyio import CancelScope, move_on_after, to_thread

    session = _sessions[run_id]
    session.users -= 1
    if session.users:
        return
    del _sessions[run_id]
    if session.connection is not None:
        with CancelScope(shield=True), move_on_after(TAG_SECONDS):
            await to_thread.run_sync(_write, session, run_id, abandon_on_cancel=True)
    session.receipt.say()


def _write(session: Session, run_id: str) -> None:
    """The receipt as tags of the parent run, if there is one."""
    from mlflow.entities import RunTag
    from mlflow.exceptions import MlflowException

    from inspect_mlflow.connection import ConnectionFailed

    assert session.connection is not None
    run = session.connection.run(run_id)
    tags = [RunTag(key, value) for key, value in session.receipt.tags().items()]
    if not run.done() or run.exception() is not None or not tags:
        return
    try:
        client, _ = session.connection.open()
        client.log_batch(run.result(), tags=tags)
    except (ConnectionFailed, MlflowException) as error:
        session.receipt.lost("MLflow", "receipts", 1, " ".join(str(error).split())[:300])
