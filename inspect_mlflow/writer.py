"""The one background writer to MLflow of an evaluation run: in order, with a bounded flush."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from inspect_mlflow import runs
from inspect_mlflow.connection import Connection, ConnectionFailed
from otel_bridge.background import BackgroundThread
from otel_bridge.spans import iso_to_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from inspect_ai.log import EvalLog, EvalSpec

BATCH_METRICS = 1000
BATCH_PARAMS = 100
"""MLflow's limits for one request."""


class RunWriter:
    """Writes the runs of one evaluation run. All methods but `finish` return at once.

    After the first failure it stops writing, so that a dead server costs one wait and not one per
    call; `failure` says what happened.
    """

    def __init__(self, connection: Connection) -> None:
        self.failure: str | None = None
        self._connection = connection
        self._thread = BackgroundThread("inspect-runs")
        self._tasks: dict[str, EvalSpec] = {}
        self._statuses: list[str] = []
        self._run_id: str | None = None

    def begin_run(self, run_id: str, eval_set_id: str | None, task_names: list[str]) -> None:
        """Create the parent run."""
        self._submit(
            run_id, partial(self._begin_run, run_id, eval_set_id, task_names, time.time_ns())
        )

    def begin_task(self, spec: EvalSpec) -> None:
        """Create a task's run under it."""
        self._submit(spec.eval_id, partial(self._begin_task, spec))

    def end_task(self, log: EvalLog) -> None:
        """Write a finished task's metrics and status; only the header of its log is used."""
        self._submit(None, partial(self._end_task, log))

    def end_run(self, logs: Sequence[EvalLog], error: BaseException | None) -> None:
        """End the parent run, and whatever task is still open."""
        self._submit(None, partial(self._end_run, logs, error))

    def finish(self, timeout: float) -> bool:
        """Wait until all is written, at most `timeout` seconds, then stop. Blocks."""
        done = self._thread.flush(timeout)
        self._thread.close()
        return done

    def _submit(self, creates: str | None, item: Callable[[], None]) -> None:
        self._thread.submit(partial(self._guarded, creates, item))

    def _guarded(self, creates: str | None, item: Callable[[], None]) -> None:
        """Run an item; the boundary where failures of MLflow end."""
        import requests
        from mlflow.exceptions import MlflowException

        failure: Exception | None = None
        if self.failure is None:
            try:
                item()
                return
            except (ConnectionFailed, MlflowException, requests.RequestException) as error:
                failure = error
                self.failure = " ".join(str(error).split())[:300]
        if creates is not None:
            run = self._connection.run(creates)
            if not run.done():
                run.set_exception(failure or ConnectionFailed(self.failure))

    # --- on the background thread --------------------------------------------------------------

    def _begin_run(
        self, run_id: str, eval_set_id: str | None, task_names: list[str], start_ns: int
    ) -> None:
        client, experiment_id = self._connection.open()
        run = client.create_run(
            experiment_id,
            start_time=start_ns // 1_000_000,
            tags=runs.run_tags(run_id, eval_set_id),
            run_name=runs.run_name(task_names),
        )
        self._run_id = run.info.run_id
        self._connection.run(run_id).set_result(run.info.run_id)

    def _begin_task(self, spec: EvalSpec) -> None:
        from mlflow.entities import Param

        client, experiment_id = self._connection.open()
        started = iso_to_ns(spec.created) or time.time_ns()
        run = client.create_run(
            experiment_id,
            start_time=started // 1_000_000,
            tags={**runs.task_tags(spec), "mlflow.parentRunId": self._run_id or ""},
            run_name=runs.task_name(spec),
        )
        self._tasks[spec.eval_id] = spec
        self._connection.run(spec.eval_id).set_result(run.info.run_id)
        params = [Param(key, value) for key, value in runs.task_params(spec).items()]
        for start in range(0, len(params), BATCH_PARAMS):
            client.log_batch(run.info.run_id, params=params[start : start + BATCH_PARAMS])

    def _end_task(self, log: EvalLog) -> None:
        from mlflow.entities import Metric

        if self._tasks.pop(log.eval.eval_id, None) is None:
            return
        client, _ = self._connection.open()
        run_id = self._connection.run(log.eval.eval_id).result(timeout=0)
        ended_ns = iso_to_ns(log.stats.completed_at) or time.time_ns()
        metrics = [
            Metric(key, value, ended_ns // 1_000_000, 0)
            for key, value in runs.final_metrics(log).items()
        ]
        for start in range(0, len(metrics), BATCH_METRICS):
            client.log_batch(run_id, metrics=metrics[start : start + BATCH_METRICS])
        status = runs.run_status(log.status)
        self._statuses.append(status)
        client.set_terminated(run_id, status=status, end_time=ended_ns // 1_000_000)

    def _end_run(self, logs: Sequence[EvalLog], error: BaseException | None) -> None:
        from inspect_ai.log import EvalLog

        by_id = {log.eval.eval_id: log for log in logs}
        for spec in list(self._tasks.values()):
            log = by_id.get(spec.eval_id) or EvalLog(eval=spec, status="cancelled")
            self._end_task(log)
        client, _ = self._connection.open()
        status = "FAILED" if error is not None else runs.parent_status(self._statuses)
        if self._run_id is not None:
            client.set_terminated(self._run_id, status=status)
