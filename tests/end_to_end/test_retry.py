"""A retried evaluation: the samples it took over are found in both runs, and sent once."""

import logging
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import inspect_ai
import pytest
from inspect_ai.log import EvalLog
from mlflow import MlflowClient

from tests.support.evals import eval_task
from tests.support.importing import import_logs


@pytest.mark.parametrize("scope", ["run", "sample"])
def test_reused_samples_are_linked_to_the_new_run(
    scope: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_INSPECT_TRACING", "true")
    monkeypatch.setenv("INSPECT_MLFLOW_TRACE_SCOPE", scope)
    logs = tmp_path / "logs"
    failed = eval_task(
        "endings.py@sample_error", log_dir=logs, task_args={"fail_on_error": True}, max_samples=1
    )
    assert failed.status == "error"
    (retried,) = inspect_ai.eval_retry(failed, log_dir=str(logs), display="none")
    first = {s.uuid for s in failed.samples or () if s.error is None}
    reused = {s.uuid for s in retried.samples or ()} & first
    assert reused

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("inspect_ai")
    assert experiment is not None
    found = {}
    for log in (failed, retried):
        (run,) = client.search_runs(
            [experiment.experiment_id], f"tags.`inspect.eval_id` = '{log.eval.eval_id}'"
        )
        traces = client.search_traces(
            locations=[experiment.experiment_id], run_id=run.info.run_id, max_results=100
        )
        found[log.eval.eval_id] = {
            str(span.get_attribute("inspect.sample.uuid"))
            for trace in traces
            for span in trace.data.spans
            if span.get_attribute("inspect.kind") == "sample"
        }
    assert reused <= found[failed.eval.eval_id]
    assert reused <= found[retried.eval.eval_id]
    every = client.search_traces(locations=[experiment.experiment_id], max_results=100)
    spans = [span.span_id for trace in every for span in trace.data.spans]
    assert len(spans) == len(set(spans))


class Unlisted(BaseHTTPRequestHandler):
    """Gives parts of one file, but lists no folder."""

    def __init__(self, file: Path, *arguments: Any) -> None:
        self._file = file
        super().__init__(*arguments)

    def do_GET(self) -> None:
        if self.path != f"/{self._file.name}":
            self.send_error(403)
            return
        data = self._file.read_bytes()
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last or len(data)) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(part)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture(scope="module")
def retried(tmp_path_factory: pytest.TempPathFactory) -> tuple[EvalLog, EvalLog]:
    """A log that failed, cut off afterwards, and the one of its retry beside it."""
    logs = tmp_path_factory.mktemp("retried")
    failed = eval_task(
        "endings.py@sample_error", log_dir=logs, task_args={"fail_on_error": True}, max_samples=1
    )
    (again,) = inspect_ai.eval_retry(failed, log_dir=str(logs), display="none")
    path = Path(failed.location)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return failed, again


@pytest.fixture(params=["cut off", "not listed"])
def location(
    request: pytest.FixtureRequest, retried: tuple[EvalLog, EvalLog]
) -> Iterator[tuple[str, str]]:
    """Where the log of a retry is, and what of the earlier ones can't be read."""
    failed, again = retried
    if request.param == "cut off":
        yield again.location, Path(failed.location).name
        return
    path = Path(again.location)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Unlisted, path)) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        url = f"http://127.0.0.1:{server.server_port}/{path.name}"
        yield url, url
        server.shutdown()


def test_earlier_logs_that_can_not_be_read(
    location: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They cost the retry nothing: its samples count as its own."""
    log, unread = location
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with caplog.at_level(logging.WARNING, "otel_bridge"):
        imported = import_logs(log, uri=uri)
    assert imported.code == 0, imported.text
    (warning,) = [r.getMessage() for r in caplog.records if r.name.startswith("otel_bridge")]
    assert unread in warning
    found = MlflowClient(uri).search_runs(["1"])
    assert {run.info.status for run in found} == {"FAILED"}
    task = next(run for run in found if run.data.tags["inspect.kind"] == "task")
    assert task.data.metrics["total_model_calls"] > 0
