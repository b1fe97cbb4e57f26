"""Without content capture, nothing of an evaluation's content leaves it."""

from pathlib import Path

import pytest

from tests.support.capture import LiveSpans
from tests.support.evals import TASKS, eval_task, run_inspect
from tests.support.otlp import ReceivedSpan
from tests.support.servers import MlflowServer
from tests.support.sink import OtlpSink

CANARY = b"canary7f3a"
OFF = {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "NO_CONTENT"}


def sent_to(sink: OtlpSink, mlflow: MlflowServer, experiment: str) -> dict[str, str]:
    return {
        "MLFLOW_TRACKING_URI": mlflow.uri,
        "MLFLOW_EXPERIMENT_NAME": experiment,
        "MLFLOW_INSPECT_TRACING": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink.http_endpoint,
    }


def stored(mlflow: MlflowServer) -> bytes:
    """Everything in the server's database, and what it has not written into it yet."""
    folder = mlflow.db_path.parent
    return b"".join(path.read_bytes() for path in folder.glob(f"{mlflow.db_path.name}*"))


def test_no_content_leaves(
    tmp_path: Path, otlp_sink: OtlpSink, mlflow_server: MlflowServer, experiment_name: str
) -> None:
    where = sent_to(otlp_sink, mlflow_server, experiment_name)
    arguments = ["-T", f"word={CANARY.decode()}", "-T", "number=3"]
    run = run_inspect(
        ["eval", f"{TASKS}/secret.py@secrets", *arguments], cwd=tmp_path, env={**where, **OFF}
    )
    text = run.log().model_dump_json()
    assert text.count(CANARY.decode()) > 100, "the log has it everywhere"

    spans = otlp_sink.spans()
    assert {span.attributes["inspect.kind"] for span in spans} >= {
        *("run", "task", "sample", "model", "tool", "sandbox", "scorer", "subtask"),
    }
    for request in otlp_sink.requests:
        payload = request.message.SerializeToString()
        assert CANARY not in payload, around(payload)
    check_what_is_left(spans)

    database = stored(mlflow_server)
    for span in spans:
        assert span.trace_id.encode() in database
    assert CANARY not in database, around(database)
    assert b"task_args.number" in database


def check_what_is_left(spans: list[ReceivedSpan]) -> None:
    """Names, sizes, times, types and statuses stay."""
    by_name = {span.name: span for span in spans}
    assert by_name["sample breaks"].status == "ERROR"
    assert by_name["sample breaks"].attributes["error.type"] == "RuntimeError"
    assert by_name["sample fails"].attributes["error.type"] == "ValueError"
    tool = by_name["execute_tool whisper"]
    assert tool.attributes["gen_ai.tool.call.id"].startswith("call-")
    assert "gen_ai.tool.call.arguments" not in tool.attributes
    model = next(span for span in spans if "gen_ai.usage.input_tokens" in span.attributes)
    messages = model.json("gen_ai.input.messages")
    assert [message["role"] for message in messages][:3] == ["system", "system", "user"]
    assert model.attributes["gen_ai.usage.input_tokens"] == 100
    events = {event.name: event for span in spans for event in span.events}
    assert dict(events["inspect.review"].attributes).keys() <= {
        *("inspect.event.uuid", "inspect.event.span_id", "inspect.working_start"),
    }
    assert dict(events["exception"].attributes).keys() >= {"exception.type"}


def test_the_canary_is_found_with_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the test above can fail: with content captured the same evaluation is full of it."""
    live = LiveSpans(monkeypatch)
    eval_task("secret.py@secrets", log_dir=tmp_path)
    for kind in ("sample", "model", "tool", "sandbox", "scorer", "subtask", "solver"):
        found = [span for span in live.spans if span.inspect_kind == kind]
        assert CANARY.decode() in repr(found), kind


def around(data: bytes) -> str:
    """Where the canary was found."""
    place = data.index(CANARY)
    return data[max(0, place - 300) : place + 100].decode(errors="replace")
