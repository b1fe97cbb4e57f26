"""What the tests of tracking share: an experiment of their own, and what arrived in it."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from inspect_ai.log import EvalSample
from mlflow import MlflowClient
from mlflow.entities import Run

from inspect_mlflow.metrics import FinishedSample, Point, Progress
from otel_bridge.spans import iso_to_ns
from tests.support.servers import MlflowServer


@dataclass(frozen=True)
class Tracked:
    """An experiment that evaluations of this process are tracked in."""

    server: MlflowServer
    client: MlflowClient
    experiment_name: str

    @property
    def environ(self) -> dict[str, str]:
        """What turns tracking on."""
        return {
            "MLFLOW_TRACKING_URI": self.server.uri,
            "MLFLOW_EXPERIMENT_NAME": self.experiment_name,
            "INSPECT_MLFLOW_AUTOLOG_ENABLED": "false",
        }

    @property
    def experiment_id(self) -> str:
        experiment = self.client.get_experiment_by_name(self.experiment_name)
        assert experiment is not None
        return str(experiment.experiment_id)

    def runs(self, kind: str) -> list[Run]:
        """Runs of the experiment, oldest first."""
        found = self.client.search_runs(
            [self.experiment_id],
            f"tags.`inspect.kind` = '{kind}'",
            order_by=["attributes.start_time ASC"],
        )
        return list(found)

    def task(self, name: str) -> Run:
        """The one run of a task."""
        (run,) = [run for run in self.runs("task") if run.data.tags["inspect.task"] == name]
        return run

    def of_run(self, run_id: str) -> list[Run]:
        return list(
            self.client.search_runs([self.experiment_id], f"tags.`inspect.run_id` = '{run_id}'")
        )

    def of_eval(self, eval_id: str) -> Run:
        (run,) = [r for r in self.runs("task") if r.data.tags["inspect.eval_id"] == eval_id]
        return run

    def points(self, run: Run) -> list[Point]:
        """The whole history of a run's metrics; from the database, to have it in one go."""
        with sqlite3.connect(self.server.db_path) as database:
            rows = database.execute(
                "select key, value, timestamp, step from metrics where run_uuid = ?",
                (run.info.run_id,),
            )
            return sorted(Point(*row) for row in rows)


def steps_of(created: str, samples: Iterable[EvalSample]) -> list[Point]:
    """The step metrics of an evaluation, from its samples in any order.

    A retry takes over earlier samples, which began before it was created: they are no steps.
    """
    progress = Progress()
    began = iso_to_ns(created) or 0
    own = [FinishedSample.of(s) for s in samples if (iso_to_ns(s.started_at) or began) >= began]
    return [
        point
        for sample in sorted(own, key=lambda sample: sample.order)
        for point in progress.add(sample)
    ]


@pytest.fixture
def tracked(
    mlflow_server: MlflowServer, experiment_name: str, monkeypatch: pytest.MonkeyPatch
) -> Tracked:
    """Tracking turned on, to a new experiment."""
    tracked = Tracked(mlflow_server, mlflow_server.client(), experiment_name)
    for name, value in tracked.environ.items():
        monkeypatch.setenv(name, value)
    return tracked
