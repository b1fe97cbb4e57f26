"""Traces of runs, totals, edits, privacy, sizes and failures, in a real MLflow."""

import json
import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog, ProvenanceData, edit_score
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import Score, ScoreEdit, Scorer, Target, mean, scorer
from inspect_ai.solver import TaskState

from inspect_mlflow import trace_writer
from inspect_mlflow.connection import Connection
from inspect_mlflow.demo.atlas import atlas
from inspect_mlflow.trace_writer import TraceWriter
from otel_bridge import ids
from tests.support.evals import TASKS
from tests.support.servers import MlflowServer
from tests.views.sending import (
    Experiment,
    comparable,
    evaluated,
    expectations,
    feedback,
    mlflow_trace_id,
    send,
)


def evaluate(
    server: MlflowServer, name: str, task: Any, tmp_path: Path, **variables: str
) -> tuple[Experiment, EvalLog]:
    target = f"{TASKS}/{task}" if isinstance(task, str) else task
    experiment = evaluated(server.uri, name, target, tmp_path, **variables)
    (log,) = experiment.logs
    return experiment, log


def test_scores_of_a_small_task_lie_on_its_samples(
    mlflow_server: MlflowServer, experiment_name: str, tmp_path: Path
) -> None:
    experiment, log = evaluate(mlflow_server, experiment_name, "scorers.py@graded", tmp_path)
    trace_id = mlflow_trace_id(log.eval.run_id)
    task_run = experiment.task_run(log)
    assert set(experiment.traces(task_run)) == {trace_id}
    assert set(experiment.traces(experiment.parent_run(log))) == {trace_id}
    trace = experiment.traces(task_run, spans=True)[trace_id]
    by_span = {
        span.span_id: span.get_attribute("inspect.sample.id")
        for span in trace.data.spans
        if span.get_attribute("inspect.kind") == "sample"
    }
    samples = {str(sample.id): sample for sample in log.samples or ()}
    scored = {}
    for assessment in trace.info.assessments:
        assert assessment.span_id is not None
        assert assessment.run_id == task_run
        sample = samples[by_span[assessment.span_id]]
        assert assessment.span_id == ids.hex_span_id(ids.span_id(str(sample.uuid), "sample"))
        if assessment.name == "target":
            assert assessment.value == sample.target
        else:
            assert sample.scores is not None
            score = sample.scores[assessment.name]
            assert assessment.value == (1.0 if score.value == "C" else 0.0)
            assert assessment.rationale == score.explanation
            assert assessment.source.source_type == "LLM_JUDGE"
            scored[sample.id] = assessment
    assert set(scored) == set("abcd")
    assert len(expectations(trace)) == 4
    assert trace.info.request_preview == "graded · mockllm/model · 4 samples"
    assert trace.info.response_preview.startswith("model_graded_qa.accuracy 0.75")
    usage = [u for sample in samples.values() for u in sample.model_usage.values()]
    assert trace.info.token_usage["total_tokens"] == sum(u.total_tokens for u in usage)
    assert "total_cost" not in (trace.info.cost or {})

    before = comparable([trace])
    send(experiment, log)
    assert comparable(experiment.traces(task_run, spans=True).values()) == before


@pytest.mark.parametrize("task", ["endings.py@cached", "endings.py@http_retries"])
def test_cached_calls_and_retries_are_not_counted(
    task: str, mlflow_server: MlflowServer, experiment_name: str, tmp_path: Path
) -> None:
    experiment, log = evaluate(
        mlflow_server, experiment_name, task, tmp_path, INSPECT_MLFLOW_TRACE_SCOPE="sample"
    )
    (sample,) = list(log.samples or ())
    (trace,) = experiment.traces(experiment.task_run(log)).values()
    assert trace.info.token_usage == {
        "input_tokens": 100,
        "output_tokens": 20,
        "total_tokens": 120,
    }
    (usage,) = list(sample.model_usage.values())
    assert usage.total_tokens == 120


def test_cost_and_cache_tokens(
    mlflow_server: MlflowServer, experiment_name: str, tmp_path: Path
) -> None:
    experiment, log = evaluate(
        mlflow_server,
        experiment_name,
        "content.py@reasoning",
        tmp_path,
        INSPECT_MLFLOW_TRACE_SCOPE="sample",
    )
    (trace,) = experiment.traces(experiment.task_run(log)).values()
    assert trace.info.token_usage == {
        "input_tokens": 1300,
        "output_tokens": 50,
        "total_tokens": 1350,
        "cache_read_input_tokens": 1000,
        "cache_creation_input_tokens": 200,
    }
    assert trace.info.cost["total_cost"] == 0.0125


def test_edits_are_feedback_of_their_author(
    mlflow_server: MlflowServer, experiment_name: str, tmp_path: Path
) -> None:
    task = atlas(samples=7)
    experiment, log = evaluate(mlflow_server, experiment_name, task, tmp_path)
    first = next(s for s in log.samples or () if s.id == "Australia" and s.epoch == 1)
    provenance = ProvenanceData(author="Ada", reason="Sydney was said in jest.")
    edit = ScoreEdit(value="C", provenance=provenance)
    edit_score(log, first.id, "includes", edit, epoch=1)
    other = ScoreEdit(value={"sentence": 0.5, "calm": 0.25}, provenance=provenance)
    edit_score(log, first.id, "style", other, epoch=1)
    for _ in range(2):
        send(experiment, log)
        trace = experiment.traces(experiment.task_run(log))[mlflow_trace_id(first.uuid)]
        found = feedback(trace)
        edited = found["includes"]
        assert edited.value == 1.0
        assert (edited.source.source_type, edited.source.source_id) == ("HUMAN", "Ada")
        assert edited.rationale == "Sydney was said in jest."
        assert found["style/calm"].value == 0.25
        assert found["brevity"].source.source_type == "CODE"
        states = json.loads(edited.metadata["inspect.history"])
        assert [state["value"] for state in states] == ["I", "C"]
        assert len(trace.info.assessments) == 5 + 1


def test_without_content_no_text_goes_along(
    mlflow_server: MlflowServer, experiment_name: str, tmp_path: Path
) -> None:
    experiment, log = evaluate(
        mlflow_server,
        experiment_name,
        atlas(samples=6),
        tmp_path,
        OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT="NO_CONTENT",
    )
    traces = experiment.traces(experiment.task_run(log), spans=True)
    assert len(traces) == 12
    for trace in traces.values():
        text = trace.to_json()
        for secret in ("capital of", "beautiful", "Vienna", "on no map", "submission", "letters"):
            assert secret not in text
        if trace.info.state.value == "OK":
            assert len(feedback(trace)) == 5
            assert not any(f.rationale for f in feedback(trace).values())
            assert trace.info.request_preview == trace.info.tags["mlflow.traceName"]
        assert expectations(trace) == []


def test_no_text_has_a_nul_in_it(tmp_path: Path, experiment_name: str) -> None:
    """PostgreSQL refuses the whole request for one; SQLite takes it, and shows where it is."""

    @scorer(metrics=[mean()])
    def says() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            return Score(value=1, answer="a\0", explanation="e\0", metadata={"m": "\0"})

        return score

    output = ModelOutput(completion="o\0", usage=ModelUsage(total_tokens=2))
    output.choices = ModelOutput.from_content("mockllm/model", "o\0").choices
    task = Task(
        dataset=[Sample(input="i\0", target="t\0", metadata={"m": "\0"})],
        scorer=says(),
        model=get_model("mockllm/model", custom_outputs=[output]),
        metadata={"m": "m\0"},
    )
    database = tmp_path / "mlflow.db"
    uri, each = f"sqlite:///{database}", {"INSPECT_MLFLOW_TRACE_SCOPE": "sample"}
    evaluated(uri, experiment_name, task, tmp_path, **each)
    with sqlite3.connect(database) as connection:
        tables = connection.execute("select name from sqlite_master where type = 'table'")
        rows = [
            row for (t,) in tables.fetchall() for row in connection.execute(f"select * from {t}")
        ]
    stored = {value for row in rows for value in row if isinstance(value, str)}
    assert [value for value in stored if "\0" in value] == []
    assert stored >= {"o\ufffd", "e\ufffd", "m\ufffd"}


def test_250_samples_are_linked_and_scored(
    mlflow_server: MlflowServer, experiment_name: str, tmp_path: Path
) -> None:
    experiment, log = evaluate(mlflow_server, experiment_name, "many.py@many", tmp_path)
    traces = experiment.traces(experiment.task_run(log))
    assert set(traces) == {mlflow_trace_id(sample.uuid) for sample in log.samples or ()}
    assert len(traces) == 250
    for trace in traces.values():
        assert set(feedback(trace)) == {"includes", "match"}
        assert len(expectations(trace)) == 1


def test_refused_summaries_are_counted_and_cost_no_span(
    mlflow_server: MlflowServer,
    experiment_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(trace_writer, "_TRACES_PATH", "/api/3.0/mlflow/elsewhere")
    with caplog.at_level(logging.WARNING, "inspect_mlflow"):
        experiment, log = evaluate(mlflow_server, experiment_name, atlas(samples=6), tmp_path)
    assert log.status == "success"
    (warning,) = (r.getMessage() for r in caplog.records if "did not reach" in r.getMessage())
    assert "13 traces did not reach MLflow" in warning
    assert "HTTP 404" in warning
    traces = experiment.traces(spans=True)
    assert len(traces) == 13
    spans = sum(len(trace.data.spans) for trace in traces.values())
    assert spans == len({s.span_id for trace in traces.values() for s in trace.data.spans})
    assert {trace.info.state.value for trace in traces.values()} == {"OK", "ERROR"}


def test_a_dead_server_holds_up_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_writer, "WAIT_FOR_ROOM", 0.2)
    writer = TraceWriter(
        Connection("http://127.0.0.1:9", "nowhere"), link_runs=True, queue_bytes=5000
    )

    class Summary:
        size = 2000
        owners = ("nobody",)
        scores: tuple[Any, ...] = ()

    for _ in range(40):
        writer.put(Summary())  # type: ignore[arg-type]
    assert writer.delivery().waiting <= 8 + 2
    assert not writer.flush(0.1)
    writer.close()
    delivery = writer.delivery()
    assert (delivery.delivered, delivery.lost, delivery.waiting) == (0, 40, 0)
    assert delivery.reason is not None
