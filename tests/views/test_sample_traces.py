"""Two evaluations of the same 30 samples, twice each: what MLflow's views have of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.log import EvalLog, EvalSample
from inspect_ai.model import ModelUsage
from mlflow.entities import SpanStatusCode

from inspect_mlflow.demo.atlas import LOST, atlas
from otel_bridge.spans import score_items, score_number
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


@pytest.fixture(scope="module")
def atlas_runs(mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    tasks = [atlas(candidate=False), atlas(candidate=True)]
    return evaluated(mlflow_server.uri, "atlas", tasks, tmp_path_factory.mktemp("atlas"))


def samples(log: EvalLog) -> list[EvalSample]:
    assert log.samples is not None
    assert len(log.samples) == 60
    return log.samples


def traces_of(experiment: Experiment, log: EvalLog, *, spans: bool = False) -> dict[str, Any]:
    return experiment.traces(experiment.task_run(log), spans=spans)


def test_each_run_finds_its_own_traces(atlas_runs: Experiment) -> None:
    for log in atlas_runs.logs:
        expected = {mlflow_trace_id(sample.uuid) for sample in samples(log)}
        assert set(traces_of(atlas_runs, log)) == expected
        run_trace = {mlflow_trace_id(log.eval.run_id)}
        assert set(atlas_runs.traces(atlas_runs.parent_run(log))) == run_trace


def test_every_score_is_one_feedback_and_the_target_one_expectation(
    atlas_runs: Experiment,
) -> None:
    checked = 0
    for log in atlas_runs.logs:
        run_id = atlas_runs.task_run(log)
        traces = traces_of(atlas_runs, log)
        for sample in samples(log):
            trace = traces[mlflow_trace_id(sample.uuid)]
            (target,) = expectations(trace)
            assert (target.name, target.value) == ("target", sample.target)
            found = feedback(trace)
            expected = {
                label: (value, score)
                for name, score in (sample.scores or {}).items()
                for label, value in score_items(name, score)
            }
            assert set(found) == set(expected)
            for label, (value, score) in expected.items():
                given = found[label]
                assert given.value == score_number(value)
                assert given.rationale == score.explanation
                assert given.metadata.get("inspect.answer") == score.answer
                assert given.metadata["inspect.scorer"] == label.partition("/")[0]
                if isinstance(value, str):
                    assert given.metadata["inspect.value"] == value
                judged = label == "model_graded_qa"
                assert given.source.source_type == ("LLM_JUDGE" if judged else "CODE")
                if judged:
                    assert given.source.source_id == "mockllm/grader"
                checked += 1
            for assessment in trace.info.assessments:
                assert assessment.metadata["mlflow.assessment.sourceRunId"] == run_id
                assert assessment.run_id == run_id
                assert assessment.span_id is None
    assert checked == 2 * 58 * 5


def test_a_failed_sample_is_an_error_without_scores(atlas_runs: Experiment) -> None:
    (log, _) = atlas_runs.logs
    traces = traces_of(atlas_runs, log, spans=True)
    failed = [sample for sample in samples(log) if sample.error is not None]
    assert {sample.id for sample in failed} == {LOST}
    errors = {id for id, trace in traces.items() if trace.info.state.value == "ERROR"}
    assert errors == {mlflow_trace_id(sample.uuid) for sample in failed}
    for sample in failed:
        trace = traces[mlflow_trace_id(sample.uuid)]
        assert feedback(trace) == {}
        (root,) = (span for span in trace.data.spans if span.parent_id is None)
        assert root.status.status_code == SpanStatusCode.ERROR
        (exception,) = (event for event in root.events if event.name == "exception")
        assert exception.attributes["exception.type"] == "LookupError"
        assert "is on no map" in str(exception.attributes["exception.message"])
        assert "Traceback" in str(exception.attributes["exception.stacktrace"])


def test_names_previews_and_tags(atlas_runs: Experiment) -> None:
    (log, _) = atlas_runs.logs
    traces = traces_of(atlas_runs, log)
    for sample in samples(log):
        info = traces[mlflow_trace_id(sample.uuid)].info
        name = f"{sample.id} · epoch {sample.epoch}"
        assert info.tags["mlflow.traceName"] == name
        assert info.request_preview == f"{name} | {sample.input}"
        if sample.error is None:
            assert info.response_preview == sample.output.completion
        assert info.tags["inspect.task"] == log.eval.task
        assert info.tags["inspect.model"] == "mockllm/baseline"
        assert info.tags["inspect.sample_id"] == str(sample.id)
        assert info.tags["inspect.epoch"] == str(sample.epoch)
        assert info.tags["inspect.run_id"] == log.eval.run_id
        assert "service.instance.id" not in info.tags
        assert info.execution_duration is not None
        assert info.execution_duration > 0


def test_rows_of_two_runs_pair(atlas_runs: Experiment) -> None:
    both = [list(traces_of(atlas_runs, log).values()) for log in atlas_runs.logs]
    keys: list[Callable[[Any], str]] = [
        lambda trace: str(trace.info.request_preview),
        lambda trace: str(trace.info.tags["mlflow.eval.requestId"]),
    ]
    for key in keys:
        baseline, candidate = ({key(trace) for trace in traces} for traces in both)
        assert baseline == candidate
        assert len(baseline) == 60


def test_totals_are_those_of_the_log(atlas_runs: Experiment) -> None:
    for log in atlas_runs.logs:
        traces = traces_of(atlas_runs, log)
        for sample in samples(log):
            info = traces[mlflow_trace_id(sample.uuid)].info
            usages: list[ModelUsage] = list(sample.model_usage.values())
            if not usages:
                assert info.token_usage is None
                assert "total_cost" not in (info.cost or {})
                continue
            assert info.token_usage == {
                "input_tokens": sum(usage.input_tokens for usage in usages),
                "output_tokens": sum(usage.output_tokens for usage in usages),
                "total_tokens": sum(usage.total_tokens for usage in usages),
            }
            assert info.cost is not None
            assert info.cost["total_cost"] == pytest.approx(
                sum(usage.total_cost or 0 for usage in usages)
            )


def test_spans_have_types_inputs_and_outputs(atlas_runs: Experiment) -> None:
    (_, log) = atlas_runs.logs
    sample = next(s for s in samples(log) if s.id == "Japan")
    trace = traces_of(atlas_runs, log, spans=True)[mlflow_trace_id(sample.uuid)]
    # where the package is installed, Inspect puts its name before its solvers'
    spans = {span.name.replace("inspect_mlflow/", ""): span for span in trace.data.spans}
    types = {name: span.span_type for name, span in spans.items()}
    assert types == {
        "sample Japan": "CHAIN",
        "init": "CHAIN",
        "solvers": "CHAIN",
        "solver system_message": "CHAIN",
        "solver on_the_map": "CHAIN",
        "solver react": "CHAIN",
        "invoke_agent geographer": "AGENT",
        "chat candidate": "CHAT_MODEL",
        "execute_tool gazetteer": "TOOL",
        "scorers": "CHAIN",
        "scorer includes": "EVALUATOR",
        "scorer brevity": "EVALUATOR",
        "scorer style": "EVALUATOR",
        "scorer model_graded_qa": "EVALUATOR",
        "chat grader": "CHAT_MODEL",
    }
    question, answer = "What is the capital of Japan?", "It is Tokyo."
    assert spans["sample Japan"].inputs == {"messages": [{"role": "user", "content": question}]}
    assert spans["sample Japan"].outputs["choices"][0]["message"]["content"] == answer
    assert spans["solver react"].inputs == spans["invoke_agent geographer"].inputs == question
    assert spans["solver react"].outputs == spans["invoke_agent geographer"].outputs == answer
    assert "You are a geographer" in str(spans["solver system_message"].outputs)
    assert spans["execute_tool gazetteer"].inputs == {"country": "Japan"}
    assert spans["execute_tool gazetteer"].outputs == "Japan. Capital: Tokyo."
    assert spans["scorer includes"].inputs == {"answer": answer.lower(), "target": "Tokyo"}
    assert spans["scorer includes"].outputs["includes"] == "C"
    assert spans["scorer style"].outputs["style/calm"] == 1
    first = min(
        (span for span in trace.data.spans if span.name == "chat candidate"),
        key=lambda span: span.start_time_ns,
    )
    assert [m["role"] for m in first.inputs["messages"]] == ["system", "system", "user"]
    (choice,) = first.outputs["choices"]
    assert choice["message"]["content"] == "Let me look that up."
    assert choice["message"]["reasoning"] == "Japan: the largest city need not be it."
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "gazetteer"
    (tool,) = first.get_attribute("mlflow.chat.tools")
    assert tool["function"]["name"] == "gazetteer"
    assert tool["function"]["parameters"]["properties"]["country"]


def test_sending_the_log_again_changes_nothing(atlas_runs: Experiment, tmp_path: Path) -> None:
    before = comparable(atlas_runs.traces().values())
    assert len(before) == 2 * (60 + 1)
    for log in atlas_runs.logs:
        delivery = send(atlas_runs, log)
        assert (delivery.delivered, delivery.lost) == (61, 0)
        assert delivery.assessments == 58 * 6 + 2
    assert comparable(atlas_runs.traces().values()) == before
