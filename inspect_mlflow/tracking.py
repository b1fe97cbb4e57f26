"""The tracking hook: an evaluation's life cycle → MLflow runs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from inspect_ai.hooks import Hooks, RunEnd, RunStart, TaskEnd, TaskStart

from inspect_mlflow.activation import activation, is_on

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from inspect_mlflow.config import MLflowSettings
    from inspect_mlflow.connection import Connection
    from inspect_mlflow.writer import RunWriter

logger = logging.getLogger("inspect_mlflow")


class MlflowTrackingHooks(Hooks):
    """A parent run per evaluation and a child run per task, through `MlflowClient` alone.

    Handlers only queue what they are given; one background thread writes.
    """

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}

    def enabled(self) -> bool:
        """Whether there is a tracking URI."""
        return bool(self._runs) or is_on("tracking")

    @property
    def settings(self) -> MLflowSettings:
        """The settings of the environment."""
        return activation().settings

    @property
    def client(self) -> MlflowClient:
        """A client for the tracking URI of the settings."""
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.settings.tracking_uri)

    async def on_run_start(self, data: RunStart) -> None:
        """Create the parent run."""
        run = self._runs[data.run_id] = _Run(data.run_id, self.settings)
        run.writer.begin_run(data.run_id, data.eval_set_id, data.task_names)

    async def on_task_start(self, data: TaskStart) -> None:
        """Create the task's run."""
        if writer := self._writer(data.run_id):
            writer.begin_task(data.spec)

    async def on_task_end(self, data: TaskEnd) -> None:
        """Write the task's metrics and status."""
        if writer := self._writer(data.run_id):
            writer.end_task(data.log)

    async def on_run_end(self, data: RunEnd) -> None:
        """End the parent run, and wait a bounded time until all is written."""
        run = self._runs.pop(data.run_id, None)
        if run is not None:
            run.writer.end_run(list(data.logs), data.exception)
            await run.finish()

    def _writer(self, run_id: str) -> RunWriter | None:
        run = self._runs.get(run_id)
        return run.writer if run is not None else None


class _Run:
    """A run that is tracked."""

    def __init__(self, run_id: str, settings: MLflowSettings) -> None:
        from inspect_mlflow.connection import connections
        from inspect_mlflow.writer import RunWriter

        self._run_id = run_id
        self._settings = settings
        self.connection: Connection = connections.acquire(run_id, settings)
        self.writer = RunWriter(self.connection)

    async def finish(self) -> None:
        """Wait for the writer, off the event loop, and say what was not written."""
        from anyio import CancelScope, to_thread

        from inspect_mlflow.connection import connections

        try:
            with CancelScope(shield=True):
                done = await to_thread.run_sync(
                    self.writer.finish, self._settings.flush_timeout, abandon_on_cancel=True
                )
        finally:
            connections.release(self._run_id)
        if self.writer.failure is not None:
            logger.warning("Runs were not written whole: %s", self.writer.failure)
        elif not done:
            logger.warning(
                "Runs were not written whole: %s did not take them within %g seconds.",
                self.connection.uri,
                self._settings.flush_timeout,
            )
