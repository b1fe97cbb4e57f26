"""An OTLP endpoint beside a healthy MLflow misbehaves: nothing is lost, and nothing waits for it.

The evaluation and its log are as without a recording, MLflow has everything, one warning says
that there is trouble and one at the end what did not arrive; the command in it sends that.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.evals import TASKS, InspectRun, run_inspect
from tests.support.process import free_port
from tests.support.recovery import (
    PLAIN_LOG,
    RECEIPT,
    Stores,
    outcome_of,
    recorded,
    repair_command,
    run_cli,
    span_ids,
    warnings_of,
)
from tests.support.sink import Behaviour, OtlpSink, running_sink
from tests.support.state import differences, state_of

FLUSH = 15
"""Seconds. Much less than the endpoint would take, and enough for MLflow on a busy machine."""
OPTIONS = ["-T", "samples=12", "-T", "sleep=1"]
ARGUMENTS: Sequence[str | Path] = ["eval", TASKS / "tool_loop.py", *OPTIONS]
ELSEWHERE = "http://127.0.0.1:9/v1/traces"
OVER = "the time to wait for it was over"
SOME = Behaviour(rejected_spans=5, message="too old")


@dataclass(frozen=True)
class Case:
    """How an endpoint behaves, and what is said of it. Without a behaviour nobody listens."""

    protocol: str
    behaviour: Behaviour | None
    reason: str
    timeout: int = 10
    """OTEL_EXPORTER_OTLP_TIMEOUT, in seconds."""


CASES: Mapping[str, Case] = {
    "http-refuses": Case("http/protobuf", None, "refused", 1),
    "http-hangs": Case("http/protobuf", Behaviour(hang=True), OVER, 120),
    "http-redirects": Case("http/protobuf", Behaviour(redirect=ELSEWHERE), ELSEWHERE),
    "http-takes-some": Case("http/protobuf", SOME, "too old"),
    "grpc-refuses": Case("grpc", None, "refused", 1),
    "grpc-hangs": Case("grpc", Behaviour(hang=True), "DEADLINE_EXCEEDED", 1),
    "grpc-takes-some": Case("grpc", SOME, "too old"),
}


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation, and what it was recorded to."""

    run: InspectRun
    waited: float
    """Seconds from the end of the log to the end of the process."""
    cwd: Path
    mlflow: str
    endpoint: str
    refused: int
    """How many spans the endpoint said it did not take."""


def evaluate(case: Case, sink: OtlpSink, mlflow: str, cwd: Path) -> Evaluation:
    """Run the evaluation into MLflow and an endpoint that misbehaves."""
    sink.behave(case.behaviour)
    endpoint = endpoint_of(sink, case) if case.behaviour else f"http://127.0.0.1:{free_port()}"
    run = run_inspect(
        ARGUMENTS,
        cwd=cwd,
        env={
            **PLAIN_LOG,
            "MLFLOW_TRACKING_URI": mlflow,
            "MLFLOW_INSPECT_TRACING": "true",
            "INSPECT_MLFLOW_AUTOLOG_ENABLED": "false",
            "INSPECT_MLFLOW_FLUSH_TIMEOUT": str(FLUSH),
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": case.protocol,
            "OTEL_EXPORTER_OTLP_TIMEOUT": str(case.timeout),
        },
    )
    over = time.time()
    waited = over - datetime.fromisoformat(run.log().stats.completed_at).timestamp()
    refused = sum(
        min(request.behaviour.rejected_spans, len(request.spans)) for request in sink.requests
    )
    sink.behave()
    sink.clear()
    return Evaluation(run, waited, cwd, mlflow, endpoint, refused)


def endpoint_of(sink: OtlpSink, case: Case) -> str:
    return sink.grpc_endpoint if case.protocol == "grpc" else sink.http_endpoint


@pytest.fixture(scope="module")
def sinks() -> Iterator[Mapping[str, OtlpSink]]:
    """An endpoint for each case."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(running_sink()) for name in CASES}


@pytest.fixture(scope="module")
def evaluations(
    sinks: Mapping[str, OtlpSink], stores: Stores, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Future[Evaluation]]]:
    """The evaluation of each case, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        futures = {}
        for name, case in CASES.items():
            cwd = tmp_path_factory.mktemp(name)
            mlflow = stores.new(cwd / "mlflow.db")
            futures[name] = pool.submit(evaluate, case, sinks[name], mlflow, cwd)
        yield futures
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> object:
    """The outcome of the evaluation without any recording."""
    return outcome_of(run_inspect(ARGUMENTS, cwd=tmp_path_factory.mktemp("undisturbed")).log())


@pytest.mark.parametrize("name", CASES)
def test_mlflow_has_everything_and_the_command_sends_the_rest(
    name: str,
    evaluations: Mapping[str, Future[Evaluation]],
    sinks: Mapping[str, OtlpSink],
    undisturbed: object,
    stores: Stores,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case, sink, evaluation = CASES[name], sinks[name], evaluations[name].result()
    assert outcome_of(evaluation.run.log()) == undisturbed
    assert evaluation.waited < FLUSH + 30  # a few seconds, on a machine that has much to do

    *trouble, summary = warnings_of(evaluation.run)
    assert case.reason in summary
    assert len(trouble) == (case.reason != OVER)  # else it turns out at the end only
    assert all(f"OTLP {evaluation.endpoint}" in said and case.reason in said for said in trouble)

    imported = stores.new(tmp_path / "imported.db")
    run_cli(
        *repair_command(evaluation.run.output),
        cwd=evaluation.cwd,
        monkeypatch=monkeypatch,
        MLFLOW_TRACKING_URI=imported,
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint_of(sink, case),
        OTEL_EXPORTER_OTLP_PROTOCOL=case.protocol,
    )
    state = recorded(imported)
    assert {span.span_id for span in sink.spans()} == span_ids(state)
    found = differences(recorded(evaluation.mlflow), state)
    assert found == [], "\n".join(found)

    lost = evaluation.refused if case.behaviour is SOME else len(span_ids(state))
    assert re.search(rf"\b{lost} spans did not reach OTLP {evaluation.endpoint}", summary), summary
    runs = state_of(evaluation.mlflow, "inspect_ai")["runs"]
    (tags,) = (run["tags"] for key, run in runs.items() if key.startswith("run "))
    assert tags[f"{RECEIPT}otlp.spans.lost"] == str(lost)
    assert tags[f"{RECEIPT}mlflow.spans"] == str(len(span_ids(state)))
