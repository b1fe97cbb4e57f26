"""Evaluations into a real MLflow, live and from their logs, and what it then has of them."""

from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.log import EvalLog
from mlflow import MlflowClient
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from inspect_mlflow.connection import Connection
from inspect_mlflow.exporter import MlflowSpanExporter
from inspect_mlflow.trace_writer import SummaryDelivery
from otel_bridge.ids import hex_trace_id, trace_id
from otel_bridge.pipeline import tracer_provider
from otel_bridge.replay import replay
from otel_bridge.tracer import SpanTracer
from tests.support.evals import eval_tasks, read_log


@dataclass(frozen=True)
class Experiment:
    """An experiment of a server, and the logs of what was evaluated into it."""

    uri: str
    name: str
    logs: list[EvalLog]

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    @property
    def id(self) -> str:
        experiment = self.client.get_experiment_by_name(self.name)
        assert experiment is not None
        return str(experiment.experiment_id)

    def task_run(self, log: EvalLog) -> str:
        runs = self.client.search_runs([self.id], f"tags.`inspect.eval_id` = '{log.eval.eval_id}'")
        return str(runs[0].info.run_id)

    def parent_run(self, log: EvalLog) -> str:
        runs = self.client.search_runs(
            [self.id],
            f"tags.`inspect.run_id` = '{log.eval.run_id}' and tags.`inspect.kind` = 'run'",
        )
        return str(runs[0].info.run_id)

    def traces(self, run_id: str | None = None, *, spans: bool = False) -> dict[str, Any]:
        """Traces by their id, of a run or all."""
        found: dict[str, Any] = {}
        token = None
        while True:
            page = self.client.search_traces(
                locations=[self.id],
                run_id=run_id,
                max_results=500,
                page_token=token,
                include_spans=spans,
            )
            found |= {trace.info.trace_id: trace for trace in page}
            token = page.token
            if not token:
                return found


@contextmanager
def recording(uri: str, name: str, **variables: str) -> Any:
    """Both hooks on, into an experiment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("MLFLOW_EXPERIMENT_NAME", name)
        patch.setenv("MLFLOW_INSPECT_TRACING", "true")
        patch.setenv("MLFLOW_INSPECT_LOG_ARTIFACTS", "false")
        for variable, value in variables.items():
            patch.setenv(variable, value)
        yield


def evaluated(uri: str, name: str, tasks: Any, log_dir: Path, **variables: str) -> Experiment:
    """Evaluate tasks with both hooks on; one run each where it is a list."""
    with recording(uri, name, **variables):
        logs = [
            read_log(log.location)
            for task in (tasks if isinstance(tasks, list) else [tasks])
            for log in eval_tasks(task, log_dir=log_dir)
        ]
    return Experiment(uri, name, logs)


def send(experiment: Experiment, log: EvalLog, **options: Any) -> SummaryDelivery:
    """Send a finished log again, to the runs that are there."""
    connection = Connection(experiment.uri, experiment.name)
    for key, run_id in (
        (log.eval.eval_id, experiment.task_run(log)),
        (log.eval.run_id, experiment.parent_run(log)),
    ):
        future: Future[str] = connection.run(key)
        future.set_result(run_id)
    exporter = MlflowSpanExporter(connection, link_runs=True)
    exporter.export(spans_of(log, **options))
    assert exporter.force_flush(60_000)
    exporter.shutdown()
    return exporter.summaries()


def spans_of(log: EvalLog, **options: Any) -> list[ReadableSpan]:
    """The spans of a finished log."""
    memory = InMemorySpanExporter()
    provider = tracer_provider([SimpleSpanProcessor(memory)])
    SpanTracer(provider).emit(replay(log, **options))
    return list(memory.get_finished_spans())


def mlflow_trace_id(uuid: str | None) -> str:
    """The trace of a sample, or of a run by its id."""
    assert uuid is not None
    return f"tr-{hex_trace_id(trace_id(uuid))}"


def feedback(trace: Any) -> dict[str, Any]:
    """The feedback of a trace by name; fails where two have the same."""
    found: dict[str, Any] = {}
    for assessment in trace.info.assessments:
        if assessment.feedback is not None:
            assert assessment.name not in found
            found[assessment.name] = assessment
    return found


def expectations(trace: Any) -> list[Any]:
    return [a for a in trace.info.assessments if a.expectation is not None]


def comparable(traces: Iterable[Any]) -> dict[str, Any]:
    """All that MLflow's tables show of traces."""
    return {
        trace.info.trace_id: {
            **trace.info.to_dict(),
            "assessments": sorted((_assessment(a) for a in trace.info.assessments), key=str),
        }
        for trace in traces
    }


def _assessment(assessment: Any) -> dict[str, Any]:
    return {**assessment.to_dictionary(), "run_id": assessment.run_id}
