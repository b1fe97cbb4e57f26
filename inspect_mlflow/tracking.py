"""The tracking hook: an evaluation's life cycle → MLflow runs."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from inspect_ai.hooks import (
    Hooks,
    ModelUsageData,
    RunEnd,
    RunStart,
    SampleEnd,
    SampleEvent,
    SampleStart,
    TaskEnd,
    TaskStart,
)

from inspect_mlflow.activation import activation, is_on
from inspect_mlflow.session import forget_in_children, running_sample

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from inspect_mlflow.artifacts import ArtifactManager
    from inspect_mlflow.autolog import Autolog
    from inspect_mlflow.config import MLflowSettings
    from inspect_mlflow.connection import Connection
    from inspect_mlflow.writer import RunWriter


class MlflowTrackingHooks(Hooks):
    """A parent run per evaluation and a child run per task, through `MlflowClient` alone.

    Handlers only count and queue what they are given; one background thread writes.
    """

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}
        forget_in_children(self)

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

    @property
    def artifact_manager(self) -> ArtifactManager:
        """What writes a log's artifacts to a run, with that client."""
        from inspect_mlflow.artifacts import ArtifactManager

        return ArtifactManager(self.client)

    async def on_run_start(self, data: RunStart) -> None:
        """Create the parent run, and let MLflow log the model providers' own calls."""
        run = self._runs[data.run_id] = _Run(data.run_id, self.settings)
        run.writer.begin_run(data.run_id, data.eval_set_id, data.task_names)
        await run.enable_autolog()

    async def on_task_start(self, data: TaskStart) -> None:
        """Create the task's run."""
        if writer := self._writer(data.run_id):
            writer.begin_task(data.spec, data.plan)

    async def on_sample_start(self, data: SampleStart) -> None:
        """Note where the log is: an interrupted run doesn't say."""
        if (writer := self._writer(data.run_id)) and (sample := running_sample()):
            writer.locate(data.eval_id, sample.log_location)

    async def on_model_usage(self, data: ModelUsageData) -> None:
        """Count a model call, for those who watch."""
        writer = self._writer(data.run_id)
        live = writer.live(data.eval_id) if writer is not None else None
        if live is not None:
            live.model_calls += 1
            live.total_tokens += data.usage.total_tokens

    async def on_sample_event(self, data: SampleEvent) -> None:
        """Count a tool call, for those who watch."""
        if data.event.event == "tool":
            writer = self._writer(data.run_id)
            live = writer.live(data.eval_id) if writer is not None else None
            if live is not None:
                live.tool_calls += 1

    async def on_sample_end(self, data: SampleEnd) -> None:
        """Write the sample's metrics."""
        if writer := self._writer(data.run_id):
            writer.end_sample(data.eval_id, data.sample)

    async def on_task_end(self, data: TaskEnd) -> None:
        """Write the task's metrics, status and artifacts."""
        if writer := self._writer(data.run_id):
            writer.end_task(data.log)

    async def on_run_end(self, data: RunEnd) -> None:
        """End the parent run, and wait a bounded time until all is written."""
        run = self._runs.pop(data.run_id, None)
        if run is not None:
            run.writer.end_run(list(data.logs), data.exception)
            await run.finish()

    def _writer(self, run_id: str | None) -> RunWriter | None:
        run = self._runs.get(run_id) if run_id is not None else None
        return run.writer if run is not None else None


class _Run:
    """A run that is tracked."""

    def __init__(self, run_id: str, settings: MLflowSettings) -> None:
        from inspect_mlflow import session
        from inspect_mlflow.writer import RunWriter

        self._run_id = run_id
        self._settings = settings
        self._autolog: Autolog | None = None
        self._session = session.acquire(run_id, settings)
        assert self._session.connection is not None
        self.connection: Connection = self._session.connection
        self._receipt = self._session.receipt
        self.writer = RunWriter(
            self.connection,
            log_artifacts=settings.log_artifacts,
            content=settings.capture_content,
        )

    async def enable_autolog(self) -> None:
        """Enable the providers that are there, off the event loop; no call may come before.

        Autologging records whole prompts and answers.
        """
        from inspect_mlflow.autolog import Autolog, installed_providers
        from otel_bridge.background import off_loop

        if not (self._settings.autolog_enabled and self._settings.capture_content):
            return
        providers = installed_providers(self._settings.autolog_models)
        if providers:
            autolog = Autolog(self.connection)
            if await off_loop(partial(autolog.enable, providers)):
                autolog.enter()
                self._autolog = autolog

    async def finish(self) -> None:
        """Wait for the writer, off the event loop, and note what was written."""
        from anyio import CancelScope

        from inspect_mlflow import session
        from otel_bridge.background import off_loop

        for location in self.writer.locations:
            self._receipt.log(location)
        timeout = self._session.time_left(self._settings.flush_timeout)
        try:
            if self._autolog is not None:
                self._autolog.leave()
            with CancelScope(shield=True):
                await off_loop(partial(self._finish, timeout))
        finally:  # a second Ctrl-C comes through: what was written until then is noted
            name = self.connection.name
            for what, count in self.writer.written.items():
                self._receipt.delivered(name, what, count)
            self.writer.give_up()
            if failures := self.writer.failures:
                self._receipt.lost(name, "run updates", len(failures), failures[0])
            await session.release(self._run_id)

    def _finish(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self.writer.finish(timeout)
        if self._autolog is not None:
            self._autolog.disable(max(0.0, deadline - time.monotonic()))
