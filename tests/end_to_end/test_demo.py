"""`inspect-mlflow demo` in an empty folder, as the README's first command runs it."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.event import ModelEvent, ToolEvent
from inspect_ai.log import EvalLog, list_eval_logs, read_eval_log
from mlflow import MlflowClient
from mlflow.entities import Span, Trace

from otel_bridge.spans import to_ns
from tests.support.environment import clean_environ


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> "Demo":
    folder = tmp_path_factory.mktemp("demo")
    program = Path(sys.executable).with_name("inspect-mlflow")
    result = subprocess.run(
        [str(program), "demo"],
        cwd=folder,
        env=clean_environ({"COLUMNS": "200", "NO_COLOR": "1"}),
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return Demo(folder, result.stdout, result.stderr)


class Demo:
    """What the demonstration left behind."""

    def __init__(self, folder: Path, stdout: str, stderr: str) -> None:
        self.folder = folder
        self.stdout = stdout
        self.stderr = stderr
        self.client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
        experiment = self.client.get_experiment_by_name("inspect_ai")
        assert experiment is not None
        self.experiment_id = experiment.experiment_id
        self.runs = self.client.search_runs([self.experiment_id])

    def log(self, task: str, model: str | None = None) -> EvalLog:
        logs = [
            read_eval_log(info.name, resolve_attachments=True)
            for info in list_eval_logs(str(self.folder / "logs"))
        ]
        (log,) = (
            log for log in logs if log.eval.task.endswith(task) and model in (None, log.eval.model)
        )
        return log

    def traces(self, **query: Any) -> list[Trace]:
        return list(
            self.client.search_traces(locations=[self.experiment_id], max_results=500, **query)
        )


@pytest.mark.parametrize(
    ("uri", "code", "said"),
    [("http://127.0.0.1:9", 1, "MLflow http://127.0.0.1:9"), ("./mlruns", 2, "accepted are http")],
)
def test_where_there_is_no_mlflow_nothing_is_evaluated(
    uri: str, code: int, said: str, tmp_path: Path
) -> None:
    result = subprocess.run(
        [str(Path(sys.executable).with_name("inspect-mlflow")), "demo", "--tracking-uri", uri],
        cwd=tmp_path,
        env=clean_environ({"COLUMNS": "200", "NO_COLOR": "1"}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == code, result.stdout + result.stderr
    assert said in result.stdout
    assert "Traceback" not in result.stdout + result.stderr
    assert list(tmp_path.iterdir()) == []


def test_says_what_was_written_and_where_to_look(demo: Demo) -> None:
    assert "mlflow ui --backend-store-uri sqlite:///mlflow.db" in demo.stdout
    assert f"/#/experiments/{demo.experiment_id}/traces" in demo.stdout
    assert "mockllm/clerk" in demo.stdout
    assert "WARNING" not in demo.stdout + demo.stderr
    assert "Traceback" not in demo.stdout + demo.stderr


def test_runs_are_finished_and_nested(demo: Demo) -> None:
    assert {run.info.status for run in demo.runs} == {"FINISHED"}
    children = [run for run in demo.runs if "mlflow.parentRunId" in run.data.tags]
    parents = {run.info.run_id: run for run in demo.runs if run not in children}
    assert len(children) == 3
    assert len(parents) == 2
    for child in children:
        parent = parents[child.data.tags["mlflow.parentRunId"]]
        assert parent.data.tags["inspect.run_id"] == child.data.tags["inspect.run_id"]
        log = demo.log(child.data.tags["inspect.task"], child.data.tags["inspect.model"])
        assert log.results is not None
        for score in log.results.scores:
            for name, metric in score.metrics.items():
                assert child.data.metrics[f"{score.name}/{name}"] == metric.value


def test_small_task_is_one_trace_of_the_run(demo: Demo) -> None:
    log = demo.log("warehouse")
    (run,) = (r for r in demo.runs if r.data.tags.get("inspect.eval_id") == log.eval.eval_id)
    (trace,) = demo.traces(run_id=run.info.run_id)
    assert trace.info.state.value == "OK"
    assert outline(trace).splitlines()[:8] == [
        "eval_run inspect_mlflow/warehouse [WORKFLOW]",
        "  task inspect_mlflow/warehouse [TASK]",
        "    sample apples [CHAIN]",
        "      init [CHAIN]",
        "      solvers [CHAIN]",
        "        solver system_message [CHAIN]",
        "        solver use_tools [CHAIN]",
        "        solver generate [CHAIN]",
    ]
    under_generate = {"chat clerk [CHAT_MODEL]", "execute_tool stock [TOOL]"}
    assert {line.strip() for line in outline(trace).splitlines() if line.startswith(" " * 10)} == {
        *under_generate
    }
    assert "        scorer includes [EVALUATOR]" in outline(trace).splitlines()


def test_times_are_those_of_the_log(demo: Demo) -> None:
    log = demo.log("warehouse")
    spans = by_event(demo.traces())
    checked = 0
    for sample in log.samples or ():
        for event in sample.events:
            if isinstance(event, ModelEvent | ToolEvent):
                assert event.completed is not None
                span = spans[str(event.uuid)]
                assert span.start_time_ns == to_ns(event.timestamp)
                assert span.end_time_ns == to_ns(event.completed)
                checked += 1
    assert checked == 4 * 2 + 5


def test_model_and_tool_spans_say_what_went_in_and_out(demo: Demo) -> None:
    log = demo.log("warehouse")
    spans = by_event(demo.traces())
    errors = 0
    for sample in log.samples or ():
        for event in sample.events:
            if isinstance(event, ModelEvent):
                span = spans[str(event.uuid)]
                assert str(sample.input) in str(span.inputs)
                assert event.output.completion in str(span.outputs)
                usage = span.get_attribute("mlflow.chat.tokenUsage") or {}
                assert event.output.usage is not None
                assert usage["input_tokens"] == event.output.usage.input_tokens
                assert usage["output_tokens"] == event.output.usage.output_tokens
            elif isinstance(event, ToolEvent):
                span = spans[str(event.uuid)]
                assert span.inputs == event.arguments
                failed = event.error is not None
                errors += failed
                assert span.status.status_code.value == ("ERROR" if failed else "OK")
                if event.error is not None:
                    (exception,) = (e for e in span.events if e.name == "exception")
                    assert exception.attributes["exception.message"] == event.error.message
                else:
                    assert str(span.outputs) == event.result
    assert errors == 1


def test_large_tasks_have_a_trace_per_sample(demo: Demo) -> None:
    for model in ("mockllm/baseline", "mockllm/candidate"):
        log = demo.log("capitals", model)
        (run,) = (r for r in demo.runs if r.data.tags.get("inspect.eval_id") == log.eval.eval_id)
        traces = demo.traces(run_id=run.info.run_id)
        assert len(traces) == 24
        assert {trace.info.state.value for trace in traces} == {"OK"}
        uuids = {root(trace).get_attribute("inspect.sample.uuid") for trace in traces}
        assert uuids == {sample.uuid for sample in log.samples or ()}


def outline(trace: Trace) -> str:
    children: dict[str | None, list[Span]] = {}
    for span in trace.data.spans:
        children.setdefault(span.parent_id, []).append(span)

    def lines(parent: str | None, depth: int) -> Iterator[str]:
        for span in sorted(children.get(parent, []), key=lambda s: s.start_time_ns):
            yield f"{'  ' * depth}{span.name} [{span.span_type}]"
            yield from lines(span.span_id, depth + 1)

    return "\n".join(lines(None, 0))


def root(trace: Trace) -> Span:
    (span,) = (span for span in trace.data.spans if span.parent_id is None)
    return span


def by_event(traces: list[Trace]) -> Mapping[str, Span]:
    return {
        str(span.get_attribute("inspect.event.uuid")): span
        for trace in traces
        for span in trace.data.spans
    }
