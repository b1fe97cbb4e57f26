"""Real destinations: an MLflow server on SQLite and a Jaeger v2."""

import json
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.otlp import ReceivedSpan, spans_of_json
from tests.support.process import ServerProcess, free_port, loopback_client

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

JAEGER_VARIABLE = "INSPECT_MLFLOW_JAEGER"


@dataclass(frozen=True)
class MlflowServer:
    """A `mlflow server` on SQLite that also serves the artifacts."""

    uri: str
    db_path: Path
    artifacts_path: Path
    process: ServerProcess
    """Can be stopped, killed and started again on the same port and database."""

    @property
    def otlp_traces(self) -> str:
        """The address OTLP over HTTP goes to."""
        return f"{self.uri}/v1/traces"

    def client(self) -> "MlflowClient":
        """Give a client of this server; MLflow's global tracking URI stays as it is."""
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=self.uri)


@contextmanager
def running_mlflow(
    directory: Path,
    *,
    workers: int = 2,
    environ: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
) -> Iterator[MlflowServer]:
    """Run an MLflow server on `directory/mlflow.db` and stop it at the end."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    db_path, artifacts_path = directory / "mlflow.db", directory / "artifacts"
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", str(workers), "--backend-store-uri", f"sqlite:///{db_path}"),
        *("--artifacts-destination", str(artifacts_path), *arguments),
    ]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_MODEL_CATALOG_URI": ""}
    process = ServerProcess(
        "mlflow",
        command,
        ready_url=f"{uri}/health",
        directory=directory,
        environ={**quiet, **(environ or {})},
    )
    process.start()
    try:
        yield MlflowServer(uri, db_path, artifacts_path, process)
    finally:
        process.stop()


@dataclass(frozen=True)
class Jaeger:
    """A Jaeger v2 with its traces in memory."""

    otlp_http: str
    """Base endpoint, for OTEL_EXPORTER_OTLP_ENDPOINT with http/protobuf."""
    otlp_grpc: str
    """Endpoint for OTEL_EXPORTER_OTLP_ENDPOINT with grpc."""
    query: str
    process: ServerProcess

    def trace(self, trace_id: str) -> list[ReceivedSpan]:
        """Give the spans of a trace (32 hexadecimal digits); none when Jaeger doesn't have it."""
        return self._spans(f"/api/v3/traces/{trace_id}", {})

    def traces_of_service(self, service: str) -> dict[str, list[ReceivedSpan]]:
        """Give the service's traces, up to 10,000, by trace id."""
        query = {
            "query.service_name": service,
            "query.start_time_min": "1971-01-01T00:00:00Z",
            "query.start_time_max": "2200-01-01T00:00:00Z",
            "query.num_traces": "10000",
        }
        traces: defaultdict[str, list[ReceivedSpan]] = defaultdict(list)
        for span in self._spans("/api/v3/traces", query):
            traces[span.trace_id].append(span)
        return dict(traces)

    def services(self) -> list[str]:
        """Name the services Jaeger has spans of."""
        return list(self._get("/api/v3/services", {}).get("services", []))

    def _spans(self, path: str, query: Mapping[str, str]) -> list[ReceivedSpan]:
        return spans_of_json(self._get(path, query).get("result", {}))

    def _get(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        with loopback_client() as client:
            response = client.get(self.query + path, params=query)
        if response.status_code == 404:
            return {}
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        if "error" in answer:
            raise RuntimeError(f"Jaeger refused {path} {dict(query)}: {answer['error']}")
        return answer


def find_jaeger(environ: Mapping[str, str] | None = None) -> Path | None:
    """Find the Jaeger binary: $INSPECT_MLFLOW_JAEGER, or where `.ci/install-jaeger` puts it.

    Raises:
        FileNotFoundError: The variable names something that isn't an executable file.
    """
    environ = os.environ if environ is None else environ
    if named := environ.get(JAEGER_VARIABLE):
        if shutil.which(named) is None:
            raise FileNotFoundError(f"{JAEGER_VARIABLE}={named} is not an executable file")
        return Path(named)
    cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    installed = cache / "inspect-mlflow" / "bin" / "jaeger"
    return installed if os.access(installed, os.X_OK) else None


@contextmanager
def running_jaeger(binary: Path, directory: Path) -> Iterator[Jaeger]:
    """Run a Jaeger on free loopback ports and stop it at the end."""
    health, query, query_grpc, otlp_http, otlp_grpc = (f"127.0.0.1:{free_port()}" for _ in range(5))
    config = {
        "service": {
            "extensions": ["jaeger_storage", "jaeger_query", "healthcheckv2"],
            "pipelines": {
                # No batch processor: what an export call has handed over can be read at once.
                "traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}
            },
            "telemetry": {"metrics": {"level": "none"}, "traces": {"level": "none"}},
        },
        "extensions": {
            "healthcheckv2": {"use_v2": True, "http": {"endpoint": health}},
            "jaeger_query": {
                "storage": {"traces": "memory"},
                "http": {"endpoint": query},
                "grpc": {"endpoint": query_grpc},
            },
            "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": 100_000}}}},
        },
        "receivers": {
            "otlp": {
                "protocols": {
                    "grpc": {"endpoint": otlp_grpc, "max_recv_msg_size_mib": 64},
                    "http": {"endpoint": otlp_http},
                }
            }
        },
        "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
    }
    config_path = directory / "jaeger.yaml"
    config_path.write_text(json.dumps(config, indent=2))  # JSON is YAML
    process = ServerProcess(
        "jaeger",
        [str(binary), "--config", f"file:{config_path}"],
        ready_url=f"http://{health}/status",
        directory=directory,
    )
    process.start()
    try:
        yield Jaeger(f"http://{otlp_http}", f"http://{otlp_grpc}", f"http://{query}", process)
    finally:
        process.stop()


@contextmanager
def running_collector(
    binary: Path, config: Path, directory: Path, environ: Mapping[str, str]
) -> Iterator[str]:
    """Run a Collector (Jaeger is one) on a configuration; gives its address for OTLP over HTTP."""
    health, http, grpc = (f"127.0.0.1:{free_port()}" for _ in range(3))
    more = {
        "extensions": {"healthcheckv2": {"use_v2": True, "http": {"endpoint": health}}},
        "service": {"extensions": ["healthcheckv2"]},
    }
    more_path = directory / "health.yaml"
    more_path.write_text(json.dumps(more))
    process = ServerProcess(
        "collector",
        [str(binary), "--config", f"file:{config}", "--config", f"file:{more_path}"],
        ready_url=f"http://{health}/status",
        directory=directory,
        environ={"COLLECTOR_HTTP": http, "COLLECTOR_GRPC": grpc, **environ},
    )
    process.start()
    try:
        yield f"http://{http}"
    finally:
        process.stop()
