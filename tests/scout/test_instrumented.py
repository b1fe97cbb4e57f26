"""Traces of Anthropic's streams, which MLflow's autolog does not record: what does."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import pytest
from inspect_ai.event import ModelEvent, ToolEvent
from inspect_ai.tool import ToolCall
from inspect_scout import Transcript

from tests.scout.autologged import QUESTION
from tests.scout.providers import ARGUMENTS
from tests.scout.support import imported
from tests.scout.test_autologged import ANTHROPIC
from tests.support.environment import clean_environ
from tests.support.servers import MlflowServer

CALLS = ("create", "create_stream", "stream", "async_create_stream", "async_stream")


HAS_OPENINFERENCE = find_spec("openinference") is not None

Running = Mapping[str, "subprocess.Popen[bytes]"]


@pytest.fixture(scope="module")
def running(mlflow_server: MlflowServer) -> Iterator[Running]:
    """The program in all its ways at once; each has an experiment of its name."""
    processes: dict[str, subprocess.Popen[bytes]] = {}
    for way in ("otlp", "shared", "sdk") if HAS_OPENINFERENCE else ("sdk",):
        experiment_id = mlflow_server.client().create_experiment(f"instrumented-{way}")
        arguments = [mlflow_server.uri, experiment_id, way]
        processes[way] = subprocess.Popen(
            [sys.executable, "-m", "tests.scout.instrumented", *arguments],
            env=clean_environ({"MLFLOW_MODEL_CATALOG_URI": ""}),
        )
    try:
        yield processes
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def traced(running: Running, server: MlflowServer, way: str) -> dict[str, Transcript]:
    """The transcripts of the program's traces, by the names of these."""
    assert running[way].wait(timeout=180) == 0
    found = imported(experiment_name=f"instrumented-{way}", tracking_uri=server.uri)
    return {str(transcript.task_set): transcript for transcript in found}


@pytest.mark.skipif(not HAS_OPENINFERENCE, reason="openinference-instrumentation-anthropic")
@pytest.mark.parametrize("way", ["otlp", "shared"])
def test_openinference(
    way: str, running: Running, mlflow_server: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything is right, also where the SDK traces its calls itself, beside or inside."""
    transcripts = traced(running, mlflow_server, way)
    assert set(transcripts) == set(CALLS)
    for name, transcript in transcripts.items():
        check(name, transcript)
        asked, *_ = (e for e in transcript.events if isinstance(e, ModelEvent))
        assert [tool.name for tool in asked.tools] == ["add"]
        assert asked.tools[0].parameters.required == ["a", "b"]
        content: Any = transcript.messages[-1].content
        assert (content[0].reasoning, content[0].signature) == ("Adding up.", "c2ln")
    assert not [r for r in caplog.records if r.name == "inspect_mlflow.scout"]


def test_the_sdk_by_itself(
    running: Running, mlflow_server: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    """In its content mode: all but what `create(stream=True)` answers."""
    transcripts = traced(running, mlflow_server, "sdk")
    assert set(transcripts) == set(CALLS)
    for name, transcript in transcripts.items():
        check(name, transcript, with_last_answer=not name.endswith("create_stream"))
    lines = [r.getMessage() for r in caplog.records if r.name == "inspect_mlflow.scout"]
    assert len(lines) == 2
    assert all("could not read what the model call" in line for line in lines)


def check(name: str, transcript: Transcript, *, with_last_answer: bool = True) -> None:
    call = ToolCall(id="toolu_1", function="add", arguments=ARGUMENTS)
    system, user, asked, result, *answers = transcript.messages
    assert (system.role, system.text) == ("system", "You add.")
    assert (user.role, user.text) == ("user", QUESTION)
    assert asked.role == "assistant"
    assert asked.tool_calls == [call]
    assert (result.role, result.text) == ("tool", "5")
    assert [a.text for a in answers] == (["It is 5."] if with_last_answer else [])

    first, second = (event for event in transcript.events if isinstance(event, ModelEvent))
    for event in (first, second):
        assert (event.model, event.output.model) == ("claude-4", "claude-4-2025")
        assert event.output.usage == ANTHROPIC
        assert event.config.max_tokens == 100
    assert [m.id for m in second.input] == [m.id for m in transcript.messages[:4]]
    assert first.output.message.tool_calls == [call]
    assert first.output.stop_reason == "tool_calls"
    assert not with_last_answer or second.output.stop_reason == "stop"
    (tool,) = (event for event in transcript.events if isinstance(event, ToolEvent))
    assert (tool.id, tool.function, tool.arguments) == ("toolu_1", "add", ARGUMENTS)
    assert tool.result == "5"
    assert (transcript.agent, transcript.model) == (name, "claude-4")
    assert transcript.total_tokens == 2 * ANTHROPIC.total_tokens
    assert [event.event for event in transcript.events] == [
        *("span_begin", "model", "span_begin", "tool", "span_end", "model", "span_end")
    ]
