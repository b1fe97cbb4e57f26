"""Traces that MLflow's autolog made of the real SDKs of OpenAI, Anthropic and Bedrock."""

import os
import subprocess
import sys
from base64 import b64encode
from typing import Any

import pytest
from inspect_ai.event import ModelEvent, ToolEvent
from inspect_ai.model import ModelUsage
from inspect_ai.tool import ToolCall
from inspect_scout import Transcript

from tests.scout.autologged import IMAGE, QUESTION
from tests.scout.providers import ANTHROPIC_USAGE, ARGUMENTS
from tests.scout.support import imported

CHAT = ModelUsage(
    input_tokens=20,
    output_tokens=7,
    total_tokens=37,
    input_tokens_cache_read=10,
    reasoning_tokens=2,
)
RESPONSES = ModelUsage(
    input_tokens=24,
    output_tokens=8,
    total_tokens=48,
    input_tokens_cache_read=16,
    reasoning_tokens=3,
)
ANTHROPIC = ModelUsage(
    input_tokens=ANTHROPIC_USAGE["input_tokens"],
    output_tokens=ANTHROPIC_USAGE["output_tokens"],
    total_tokens=38,
    input_tokens_cache_read=5,
    input_tokens_cache_write=4,
)


@pytest.fixture(scope="module")
def transcripts(store: str) -> dict[str, Transcript]:
    """By the names of the traces."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "OTEL_"))}
    subprocess.run(
        [sys.executable, "-m", "tests.scout.autologged", store, "autologged"],
        check=True,
        env={**environ, "MLFLOW_MODEL_CATALOG_URI": "", "NO_PROXY": "127.0.0.1"},
        timeout=120,
    )
    found = imported(experiment_name="autologged", tracking_uri=store)
    return {str(transcript.task_set): transcript for transcript in found}


@pytest.mark.parametrize(
    ("name", "model", "answered", "call_id", "usage"),
    [
        ("openai.chat", "gpt-4o", "gpt-4o-2024", "call_1", CHAT),
        ("openai.chat.stream", "gpt-4o", "gpt-4o-2024", "call_1", CHAT),
        ("openai.responses", "gpt-5", "gpt-5-2025", "call_2", RESPONSES),
        ("openai.responses.stream", "gpt-5", "gpt-5-2025", "call_2", RESPONSES),
        ("anthropic.messages", "claude-4", "claude-4-2025", "toolu_1", ANTHROPIC),
        # MLflow records neither the answer nor the usage of Anthropic's streams: the answer is
        # taken from the next call, the last one from what the trace says that came out
        ("anthropic.messages.stream", "claude-4", None, "toolu_1", None),
        ("bedrock.converse", "anthropic.claude-4", None, "tooluse_1", ANTHROPIC),
        ("bedrock.invoke", "anthropic.claude-4", "claude-4-2025", "toolu_1", ANTHROPIC),
        ("bedrock.invoke.bytes", "anthropic.claude-4", "claude-4-2025", "toolu_1", ANTHROPIC),
    ],
)
def test_conversations(
    name: str,
    model: str,
    answered: str | None,
    call_id: str,
    usage: ModelUsage | None,
    transcripts: dict[str, Transcript],
) -> None:
    transcript = transcripts[name]
    system, user, asked, result, answer = transcript.messages
    assert (system.role, system.text) == ("system", "You add.")
    assert (user.role, user.text) == ("user", QUESTION)
    call = ToolCall(id=call_id, function="add", arguments=ARGUMENTS)
    assert asked.role == "assistant"
    assert asked.tool_calls == [call]
    assert result.role == "tool"
    said = '{"sum": 5}' if name == "bedrock.converse" else "5"
    assert (result.tool_call_id, result.text) == (call_id, said)
    assert (answer.role, answer.text) == ("assistant", "It is 5.")

    first, second = (event for event in transcript.events if isinstance(event, ModelEvent))
    assert [m.id for m in second.input] == [m.id for m in transcript.messages[:4]]
    assert [tool.name for tool in first.tools] == ["add"]
    assert first.tools[0].parameters.required == ["a", "b"]
    assert first.output.message.tool_calls == [call]
    assert first.output.stop_reason == "tool_calls"
    for event in (first, second):
        assert event.model == model
        assert event.output.usage == usage
        assert answered is None or event.output.model == answered
    (tool,) = (event for event in transcript.events if isinstance(event, ToolEvent))
    assert (tool.id, tool.function, tool.arguments) == (call_id, "add", ARGUMENTS)
    assert tool.result == "5"

    assert transcript.model == model
    assert transcript.agent == name
    assert transcript.total_tokens == (2 * usage.total_tokens if usage else 0)
    assert [event.event for event in transcript.events] == [
        *("span_begin", "model", "span_begin", "tool", "span_end", "model", "span_end")
    ]


def test_bedrock_s_media_and_reasons(transcripts: dict[str, Transcript]) -> None:
    """MLflow records bytes as Python writes them."""
    transcript = transcripts["bedrock.converse"]
    content: Any = transcript.messages[1].content
    assert content[1].image == f"data:image/png;base64,{b64encode(IMAGE).decode()}"
    _, last = (event for event in transcript.events if isinstance(event, ModelEvent))
    assert last.output.stop_reason == "max_tokens"
    answer: Any = transcript.messages[-1].content
    assert [part.type for part in answer] == ["reasoning", "reasoning", "text"]
    assert (answer[0].reasoning, answer[0].signature) == ("Adding up.", "c2ln")
    assert (answer[1].reasoning, answer[1].redacted) == ("QUJD", True)


@pytest.mark.parametrize("name", ["openai.responses", "anthropic.messages", "bedrock.invoke"])
def test_reasoning(name: str, transcripts: dict[str, Transcript]) -> None:
    content: Any = transcripts[name].messages[-1].content
    assert [part.type for part in content] == ["reasoning", "text"]
    assert content[0].reasoning == "Adding up."


def test_options(transcripts: dict[str, Transcript]) -> None:
    options = {"temperature": 0.5, "max_tokens": 100}
    assert transcripts["openai.chat"].model_options == options
    assert transcripts["anthropic.messages"].model_options == {"max_tokens": 100}
    assert transcripts["bedrock.invoke"].model_options == {"max_tokens": 100}
    assert transcripts["bedrock.converse"].model_options == {**options, "stop_seqs": ["END"]}


def test_parallel_calls_and_single_ones(transcripts: dict[str, Transcript]) -> None:
    parallel = transcripts["openai.parallel"]
    models = [event for event in parallel.events if isinstance(event, ModelEvent)]
    assert len(models) == 3
    assert [m.text for m in parallel.messages] == [QUESTION, "It is 5."]
    assert parallel.total_tokens == 3 * CHAT.total_tokens
    single = transcripts["Completions"]
    assert [event.event for event in single.events] == ["model"]
    assert [m.text for m in single.messages] == [QUESTION, "It is 5."]
