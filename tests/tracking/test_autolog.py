"""Provider autolog: where the traces arrive, and that all is as before afterwards."""

import importlib
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.log import EvalLog

from inspect_mlflow.autolog import Autolog, installed_providers
from inspect_mlflow.connection import Connection
from tests.support.evals import TASKS, eval_task, read_log, run_inspect
from tests.support.process import free_port, wait_until
from tests.tracking.conftest import Tracked

SDKS = ("openai", "anthropic")

needs_sdks = pytest.mark.skipif(
    installed_providers(SDKS) != list(SDKS),
    reason="needs the SDKs: pip install openai anthropic",
)


class Providers(BaseHTTPRequestHandler):
    """Answers as OpenAI's chat completions and Anthropic's messages do."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if self.path.endswith("/chat/completions"):
            answer: dict[str, Any] = {
                "id": "c1",
                "object": "chat.completion",
                "created": 1,
                "model": "gpt-test",
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": "from openai"},
                    }
                ],
                "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
            }
        else:
            answer = {
                "id": "m1",
                "type": "message",
                "role": "assistant",
                "model": "claude-test",
                "content": [{"type": "text", "text": "from anthropic"}],
                "stop_reason": "end_turn",
                "stop_sequence": None,
                "usage": {"input_tokens": 3, "output_tokens": 2},
            }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def providers() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Providers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def trace_outputs(tracked: Tracked) -> list[str]:
    traces = tracked.client.search_traces(locations=[tracked.experiment_id])
    texts = [json.dumps(trace.data.spans[0].outputs) for trace in traces]
    found = ("from openai", "from anthropic")
    return sorted(name for text in texts for name in found if name in text)


BOTH_TWICE = ["from anthropic"] * 2 + ["from openai"] * 2


@needs_sdks
def test_traces_arrive_here(tracked: Tracked, providers: str, tmp_path: Path) -> None:
    run = run_inspect(
        ["eval", f"{TASKS}/tracked.py@providers", "-T", f"url={providers}"],
        cwd=tmp_path,
        env={
            "INSPECT_MLFLOW_TRACKING_URI": tracked.server.uri,
            "INSPECT_MLFLOW_EXPERIMENT_NAME": tracked.experiment_name,
            # where MLflow would send them, of which there is none
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}",
        },
    )
    assert trace_outputs(tracked) == BOTH_TWICE, run.output
    assert run.seconds < 60


@needs_sdks
def test_without_content_nothing_is_recorded(
    tracked: Tracked, providers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSPECT_MLFLOW_AUTOLOG_ENABLED", "true")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "NO_CONTENT")
    log = eval_task("tracked@providers", log_dir=tmp_path, task_args={"url": providers})
    assert log.status == "success"
    assert tracked.of_eval(log.eval.eval_id).info.status == "FINISHED"
    assert tracked.client.search_traces(locations=[tracked.experiment_id]) == []


@needs_sdks
def test_what_was_enabled_is_disabled_again(
    tracked: Tracked, providers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    from mlflow.tracing import provider

    utils: Any = importlib.import_module("mlflow.utils.autologging_utils")
    monkeypatch.setenv("INSPECT_MLFLOW_AUTOLOG_ENABLED", "true")
    monkeypatch.setenv("INSPECT_MLFLOW_AUTOLOG_MODELS", '["openai", "anthropic", "groq"]')
    anthropic: Any = importlib.import_module("mlflow.anthropic")
    anthropic.autolog(silent=True)  # the user's own choice, which is left as it is
    before = mlflow.get_tracking_uri(), provider.provider.get()
    try:
        eval_task("tracked@providers", log_dir=tmp_path, task_args={"url": providers})
        assert utils.autologging_is_disabled("openai")
        assert not utils.autologging_is_disabled("anthropic")
    finally:
        anthropic.autolog(disable=True, silent=True)
    assert (mlflow.get_tracking_uri(), provider.provider.get()) == before
    assert trace_outputs(tracked) == BOTH_TWICE


@needs_sdks
def test_traces_outside_go_where_they_went(
    tracked: Tracked, providers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("INSPECT_MLFLOW_AUTOLOG_ENABLED", "true")
    mine = tracked.client.create_experiment(f"{tracked.experiment_name}-mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", f"{tracked.experiment_name}-mine")
    monkeypatch.setenv("INSPECT_MLFLOW_EXPERIMENT_NAME", tracked.experiment_name)
    done: list[EvalLog] = []
    over = threading.Event()

    def trace_beside() -> None:
        while not over.wait(0.2):
            with mlflow.start_span("beside"):
                pass

    beside = threading.Thread(target=trace_beside)
    beside.start()
    try:
        done.append(eval_task("tracked@providers", log_dir=tmp_path, task_args={"url": providers}))
    finally:
        over.set()
        beside.join()
    with mlflow.start_span("after"):
        pass
    mlflow.flush_trace_async_logging()

    def names() -> set[str]:
        traces = tracked.client.search_traces(locations=[mine], max_results=500)
        return {trace.data.spans[0].name for trace in traces if trace.data.spans}

    wait_until(lambda: "after" in names(), what="the last trace", timeout=20, every=0.5)
    assert names() == {"beside", "after"}
    assert read_log(done[0].location).status == "success"


def test_one_that_cannot_be_disabled_is_named_and_the_others_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    disabled: list[bool] = []

    def breaks(*, disable: bool, silent: bool) -> None:
        raise RuntimeError("it was patched again")

    autolog = Autolog(Connection("sqlite:///:memory:", "unused"))
    autolog._enabled = [breaks, lambda *, disable, silent: disabled.append(disable)]
    autolog.disable(1)
    assert disabled == [True]
    assert [r.getMessage() for r in caplog.records] == [
        "MLflow's autologging can't be disabled: it was patched again"
    ]


def test_unknown_names_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "inspect_mlflow"):
        assert installed_providers(["opnai", "cohere", "mistral", "Claude"]) == []
    (record,) = caplog.records
    assert "'opnai' or 'cohere' or 'claude'" in record.getMessage()
