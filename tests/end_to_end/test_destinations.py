"""`inspect eval` with nothing but environment variables, into real MLflow servers and Jaegers."""

import base64
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from mlflow.entities import Trace

from otel_bridge import ids
from tests.support.environment import clean_environ
from tests.support.evals import TASKS, InspectRun, run_inspect
from tests.support.otlp import ReceivedSpan
from tests.support.process import wait_until
from tests.support.proxy import recording_proxy
from tests.support.servers import Jaeger, MlflowServer, running_collector
from tests.support.sink import Behaviour, OtlpSink

EXAMPLES = Path(__file__).parents[2] / "examples"


def traces_in(server: MlflowServer, experiment_name: str) -> list[Trace]:
    client = server.client()
    experiment = client.get_experiment_by_name(experiment_name)
    assert experiment is not None
    return list(client.search_traces(locations=[experiment.experiment_id], max_results=500))


def assert_clean(run: InspectRun) -> None:
    assert "WARNING" not in run.output, run.output
    assert "Exception" not in run.output, run.output


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_mlflow_and_jaeger_get_the_same_spans(
    protocol: str,
    mlflow_server: MlflowServer,
    jaeger: Jaeger,
    experiment_name: str,
    tmp_path: Path,
) -> None:
    run = run_inspect(
        ["eval", TASKS / "tool_loop.py", "-T", "samples=12"],
        cwd=tmp_path,
        env={
            "MLFLOW_TRACKING_URI": mlflow_server.uri,
            "MLFLOW_EXPERIMENT_NAME": experiment_name,
            "MLFLOW_INSPECT_TRACING": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.otlp_grpc
            if protocol == "grpc"
            else jaeger.otlp_http,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_SERVICE_NAME": experiment_name,
        },
    )
    assert_clean(run)
    in_mlflow = {
        trace.info.trace_id.removeprefix("tr-"): {
            span.span_id: (span.name, span.start_time_ns, span.end_time_ns)
            for span in trace.data.spans
        }
        for trace in traces_in(mlflow_server, experiment_name)
    }
    in_jaeger = {
        trace_id: {span.span_id: (span.name, span.start_ns, span.end_ns) for span in spans}
        for trace_id, spans in jaeger.traces_of_service(experiment_name).items()
    }
    assert len(in_mlflow) == 13
    assert in_mlflow == in_jaeger


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_jaeger_alone(protocol: str, jaeger: Jaeger, experiment_name: str, tmp_path: Path) -> None:
    run = run_inspect(
        ["eval", TASKS / "minimal.py"],
        cwd=tmp_path,
        env={
            "MLFLOW_INSPECT_TRACING": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.otlp_grpc
            if protocol == "grpc"
            else jaeger.otlp_http,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_SERVICE_NAME": experiment_name,
        },
    )
    assert_clean(run)
    (spans,) = jaeger.traces_of_service(experiment_name).values()
    assert "eval_run minimal" in {span.name for span in spans}
    (model,) = (span for span in spans if span.attributes.get("inspect.kind") == "model")
    assert model.kind == "CLIENT"
    assert model.attributes["gen_ai.operation.name"] == "chat"
    assert not [key for span in spans for key in span.attributes if key.startswith("mlflow.")]


@pytest.mark.parametrize(("scope", "traces"), [("run", 1), ("sample", 101), ("auto", 101)])
def test_a_hundred_samples(
    scope: str,
    traces: int,
    mlflow_server: MlflowServer,
    otlp_sink: OtlpSink,
    experiment_name: str,
    tmp_path: Path,
) -> None:
    run = run_inspect(
        ["eval", TASKS / "tool_loop.py", "-T", "samples=100"],
        cwd=tmp_path,
        env={
            "MLFLOW_TRACKING_URI": mlflow_server.uri,
            "MLFLOW_EXPERIMENT_NAME": experiment_name,
            "MLFLOW_INSPECT_TRACING": "true",
            "INSPECT_MLFLOW_TRACE_SCOPE": scope,
            "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_sink.http_endpoint,
        },
    )
    assert_clean(run)
    expected = {"model": 300, "tool": 200, "sample": 100, "task": 1, "run": 1}

    sent = otlp_sink.spans()
    assert len({span.span_id for span in sent}) == len(sent)
    kinds = Counter(str(span.attributes["inspect.kind"]) for span in sent)
    assert {kind: kinds[kind] for kind in expected} == expected
    assert_no_parent_missing(sent)

    stored = traces_in(mlflow_server, experiment_name)
    assert len(stored) == traces
    assert {trace.info.state.value for trace in stored} == {"OK"}
    types = Counter(span.span_type for trace in stored for span in trace.data.spans)
    assert types["CHAT_MODEL"] == 300
    assert types["TOOL"] == 200
    assert sum(types.values()) == len(sent)
    tokens = sum(
        int(trace.info.token_usage["total_tokens"]) for trace in stored if trace.info.token_usage
    )
    assert tokens == 300 * 120

    client = mlflow_server.client()
    (task_run,) = client.search_runs(
        [str(stored[0].info.experiment_id)], "tags.`inspect.kind` = 'task'"
    )
    linked = client.search_traces(
        locations=[stored[0].info.experiment_id],
        run_id=task_run.info.run_id,
        max_results=500,
        include_spans=False,
    )
    assert len(linked) == (1 if scope == "run" else 100)


def assert_no_parent_missing(spans: list[ReceivedSpan]) -> None:
    ids = {(span.trace_id, span.span_id) for span in spans}
    for span in spans:
        assert span.parent_id is None or (span.trace_id, span.parent_id) in ids


def test_the_servers_own_endpoint_gets_spans_once(
    mlflow_server: MlflowServer, experiment_name: str, tmp_path: Path
) -> None:
    with recording_proxy(mlflow_server.uri) as proxy:
        run = run_inspect(
            ["eval", TASKS / "minimal.py"],
            cwd=tmp_path,
            env={
                "MLFLOW_TRACKING_URI": proxy.uri,
                "MLFLOW_EXPERIMENT_NAME": experiment_name,
                "MLFLOW_INSPECT_TRACING": "true",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{proxy.uri}/v1/traces".replace(
                    "127.0.0.1", "localhost"
                ),
            },
        )
        assert_clean(run)
        posts = [request for request in proxy.requests if request.path == "/v1/traces"]
        assert posts
        for post in posts:
            assert "x-mlflow-experiment-id" in post.headers
    (trace,) = traces_in(mlflow_server, experiment_name)
    assert len(trace.data.spans) == 9


def test_an_impossible_address_costs_the_other_destination_nothing(
    mlflow_server: MlflowServer, experiment_name: str, tmp_path: Path
) -> None:
    endpoint = "http://localhost:${PORT}"
    run = run_inspect(
        ["eval", TASKS / "minimal.py"],
        cwd=tmp_path,
        env={
            "MLFLOW_TRACKING_URI": mlflow_server.uri,
            "MLFLOW_EXPERIMENT_NAME": experiment_name,
            "MLFLOW_INSPECT_TRACING": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        },
    )
    assert run.log().status == "success"
    assert "Traceback" not in run.output
    assert f"9 spans did not reach OTLP {endpoint}/v1/traces" in " ".join(run.output.split())
    (trace,) = traces_in(mlflow_server, experiment_name)
    assert len(trace.data.spans) == 9


def test_credentials_stay_where_they_belong(
    mlflow_server: MlflowServer, otlp_sink: OtlpSink, experiment_name: str, tmp_path: Path
) -> None:
    with recording_proxy(mlflow_server.uri) as proxy:
        run = run_inspect(
            ["eval", TASKS / "minimal.py"],
            cwd=tmp_path,
            env={
                "MLFLOW_TRACKING_URI": proxy.uri,
                "MLFLOW_EXPERIMENT_NAME": experiment_name,
                "MLFLOW_TRACKING_USERNAME": "alice",
                "MLFLOW_TRACKING_PASSWORD": "mlflow-secret",
                "MLFLOW_INSPECT_TRACING": "true",
                "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_sink.http_endpoint,
                "OTEL_EXPORTER_OTLP_HEADERS": "x-api-key=otlp-secret",
            },
        )
        assert_clean(run)
        basic = "Basic " + base64.b64encode(b"alice:mlflow-secret").decode()
        posts = [request for request in proxy.requests if request.path == "/v1/traces"]
        assert posts
        for request in proxy.requests:
            assert "otlp-secret" not in str(request.headers)
        for post in posts:
            assert post.headers["authorization"] == basic
    assert otlp_sink.requests
    for received in otlp_sink.requests:
        assert received.headers["x-api-key"] == "otlp-secret"
        assert "authorization" not in received.headers
        assert not [name for name in received.headers if name.startswith("x-mlflow")]


def test_a_deleted_experiment_is_named(
    mlflow_server: MlflowServer, experiment_name: str, tmp_path: Path
) -> None:
    client = mlflow_server.client()
    client.delete_experiment(client.create_experiment(experiment_name))
    run = run_inspect(
        ["eval", TASKS / "minimal.py"],
        cwd=tmp_path,
        env={
            "MLFLOW_TRACKING_URI": mlflow_server.uri,
            "MLFLOW_EXPERIMENT_NAME": experiment_name,
            "MLFLOW_INSPECT_TRACING": "true",
        },
    )
    assert run.log().status == "success"
    assert f"the experiment {experiment_name!r} is deleted" in " ".join(run.output.split())


@pytest.mark.parametrize(
    ("variable", "value", "accepted"),
    [
        ("MLFLOW_INSPECT_TRACING", "maybe", "true or false"),
        ("INSPECT_MLFLOW_TRACE_SCOPE", "tree", "'auto', 'run' or 'sample'"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "'http/protobuf' and 'grpc'"),
    ],
)
def test_a_bad_value_turns_off_its_hook_alone(
    variable: str, value: str, accepted: str, otlp_sink: OtlpSink, tmp_path: Path
) -> None:
    run = run_inspect(
        ["eval", TASKS / "minimal.py"],
        cwd=tmp_path,
        env={
            "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
            "MLFLOW_INSPECT_TRACING": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_sink.http_endpoint,
            variable: value,
        },
    )
    assert run.log().status == "success"
    said = " ".join(run.output.split())
    assert said.count(f"{variable}={value!r}") == 1, run.output
    assert accepted in said
    assert otlp_sink.requests == []
    assert (tmp_path / "mlflow.db").exists()  # the tracking hook is not concerned


def test_the_example_exports_to_both(
    mlflow_server: MlflowServer, jaeger: Jaeger, experiment_name: str, tmp_path: Path
) -> None:
    environment = {
        "MLFLOW_TRACKING_URI": mlflow_server.uri,
        "MLFLOW_EXPERIMENT_NAME": experiment_name,
        "OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.otlp_http,
        "OTEL_SERVICE_NAME": experiment_name,
        "INSPECT_LOG_DIR": str(tmp_path / "logs"),
        "INSPECT_DISPLAY": "plain",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    result = subprocess.run(
        ["sh", str(EXAMPLES / "dual_export.sh")],
        cwd=tmp_path,
        env=clean_environ(environment),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (trace,) = traces_in(mlflow_server, experiment_name)
    (spans,) = jaeger.traces_of_service(experiment_name).values()
    assert {span.span_id for span in spans} == {span.span_id for span in trace.data.spans}
    assert {span.trace_id for span in spans} == {trace.info.trace_id.removeprefix("tr-")}


def test_the_example_collector_fans_out_and_waits_for_who_is_away(
    jaeger_binary: Path, jaeger: Jaeger, otlp_sink: OtlpSink, tmp_path: Path
) -> None:
    otlp_sink.behave(Behaviour(status=503))
    backends = {"FIRST_BACKEND": jaeger.otlp_http, "SECOND_BACKEND": otlp_sink.http_endpoint}
    config = EXAMPLES / "collector.yaml"
    with running_collector(jaeger_binary, config, tmp_path, backends) as endpoint:
        run = run_inspect(
            ["eval", TASKS / "tool_loop.py"],
            cwd=tmp_path,
            env={
                "MLFLOW_INSPECT_TRACING": "true",
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "OTEL_SERVICE_NAME": "behind-a-collector",
            },
        )
        assert_clean(run)
        wait_until(lambda: bool(otlp_sink.requests), what="the first attempt")
        assert otlp_sink.spans() == []
        otlp_sink.behave()
        trace_id = f"{ids.trace_id(run.log().eval.run_id):032x}"
        wait_until(lambda: bool(otlp_sink.spans()), what="another attempt")
        spans = {span.span_id: span for span in jaeger.trace(trace_id)}
        assert spans == {span.span_id: span for span in otlp_sink.spans()}
        assert "eval_run tool_loop" in {span.name for span in spans.values()}
