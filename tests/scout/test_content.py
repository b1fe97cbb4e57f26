"""Content of every kind, as instrumentation, providers and MLflow's autolog record it."""

import json
import logging
from typing import Any, cast

import pytest
from anthropic.types import Message
from inspect_ai.event import ModelEvent, ToolEvent
from inspect_scout import Transcript
from mlflow.tracing.utils import TraceJSONEncoder
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import Response

from tests.scout.handmade import Given, log_trace
from tests.scout.support import imported
from tests.scout.test_anyone import mlflow, openai_answer, the_one

TEXTS = [
    "[]",
    "[1, 2]",
    '{"city": "Paris"}',
    '{"text": "hidden", "id": 3}',
    "42",
    "null",
    "<b>4</b>",
]


FLAT = {
    "openinference": ("llm.input_messages", "llm.output_messages", "message."),
    "openllmetry": ("gen_ai.prompt", "gen_ai.completion", ""),
}


@pytest.mark.parametrize("way", FLAT)
def test_text_that_reads_as_json(way: str, store: str, experiment_name: str) -> None:
    """Is text in a conversation; a list of typed parts is not."""
    given, gave, inner = FLAT[way]
    typed = json.dumps([{"type": "text", "text": "Look."}, {"type": "text", "text": "There."}])

    def call(text: str) -> Given:
        said: dict[str, Any] = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
        for place, role in (
            (f"{given}.0", "user"),
            (f"{given}.1", "tool"),
            (f"{gave}.0", "assistant"),
        ):
            said |= {f"{place}.{inner}role": role, f"{place}.{inner}content": text}
        return Given("call", said)

    log_trace(store, experiment_name, Given("calls", children=[*map(call, [*TEXTS, typed])]))
    models = calls_of(the_one(store, experiment_name))
    said = [[*event.input, event.output.message] for event in models]
    assert [[m.role for m in turn] for turn in said] == [["user", "tool", "assistant"]] * len(said)
    assert [[m.content for m in turn] for turn in said[:-1]] == [[text] * 3 for text in TEXTS]
    assert [m.text for m in said[-1]] == ["Look.\nThere."] * 3


@pytest.mark.parametrize("place", ["mlflow.spanOutputs", "output.value"])
@pytest.mark.parametrize("kind", ["LLM", "CHAIN"])
def test_answers_that_are_json(place: str, kind: str, store: str, experiment_name: str) -> None:
    """Text that a function returned: MLflow keeps JSON in it as it keeps an object."""
    calls = [
        Given(f"call {i}", {"mlflow.spanType": kind, "mlflow.spanInputs": "Where?", place: text})
        for i, text in enumerate(TEXTS)
    ]
    for call in calls:
        log_trace(store, experiment_name, call)
    found = imported(experiment_name=experiment_name, tracking_uri=store)
    assert [[m.content for m in t.messages] for t in found] == [["Where?", t] for t in TEXTS]


def test_results_that_are_json(store: str, experiment_name: str) -> None:
    """As the tool wrote them, which is how they stand in the conversation."""
    kind = {"mlflow.spanType": "TOOL"}
    given = [Given("tool", {**kind, "gen_ai.tool.call.result": text}) for text in TEXTS]
    given += [Given("tool", {**kind, "output.value": text}) for text in TEXTS]
    log_trace(store, experiment_name, Given("tools", children=given))
    events = the_one(store, experiment_name).events
    assert [e.result for e in events if isinstance(e, ToolEvent)] == [*TEXTS, *TEXTS]


def test_streams_have_no_text(store: str, experiment_name: str) -> None:
    """MLflow records the object of a stream that it does not read."""
    outputs = "<anthropic.Stream object at 0x7fb1c8f7d0a0>"
    log_trace(store, experiment_name, Given("call", mlflow("LLM", "Where?", outputs)))
    assert [m.text for m in the_one(store, experiment_name).messages] == ["Where?"]


# --- OpenAI ---------------------------------------------------------------------------------------


def response(*output: Any, **more: Any) -> Any:
    """As autolog writes the SDK's object."""
    made = Response.model_validate(
        {
            "id": "resp_1",
            "object": "response",
            "created_at": 1700000000,
            "model": "gpt-5-2025",
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "output": output,
            **more,
        }
    )
    return json.loads(json.dumps(made, cls=TraceJSONEncoder))


REASONING = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "Hm."}],
}
MESSAGE = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Found.", "annotations": []}],
}
SEARCH = {"type": "search", "query": "news"}
MCP_TOOL = {"name": "ask", "input_schema": {}}
SERVER_TOOLS: list[tuple[dict[str, Any], tuple[str, str, str, str, str | None]]] = [
    (
        {"type": "web_search_call", "status": "completed", "action": SEARCH},
        ("web_search", "search", '{"type":"search","query":"news"}', "", None),
    ),
    (
        {"type": "file_search_call", "status": "failed", "queries": ["q"], "results": None},
        ("web_search", "file_search", '["q"]', "", "failed"),
    ),
    (
        {
            "type": "code_interpreter_call",
            "status": "completed",
            "container_id": "c",
            "code": "print(1)",
            "outputs": [{"type": "logs", "logs": "1"}, {"type": "image", "url": "https://x/i.png"}],
        },
        ("code_execution", "code_interpreter", "print(1)", "1\n\nimage: https://x/i.png", None),
    ),
    (
        {
            "type": "mcp_call",
            "name": "ask",
            "server_label": "wiki",
            "arguments": '{"q": 1}',
            "output": "yes",
        },
        ("mcp_call", "ask", '{"q": 1}', "yes", None),
    ),
    (
        {
            "type": "mcp_call",
            "name": "ask",
            "server_label": "wiki",
            "arguments": "{}",
            "error": {"type": "http_error", "code": 500, "message": "down"},
        },
        ("mcp_call", "ask", "{}", "", "down (500)"),
    ),
    (
        {"type": "mcp_list_tools", "server_label": "wiki", "tools": [MCP_TOOL]},
        ("mcp_call", "mcp_list_tools", "", '[{"input_schema":{},"name":"ask"}]', None),
    ),
]


@pytest.mark.parametrize(
    ("item", "expected"), SERVER_TOOLS, ids=[item["type"] for item, _ in SERVER_TOOLS]
)
def test_tools_that_openai_runs(
    item: dict[str, Any], expected: tuple[Any, ...], store: str, experiment_name: str
) -> None:
    """Stand in the assistant's turn, in what a call gave and in what the next one was given."""
    output = response(REASONING, {"id": "i_1", **item}, MESSAGE)
    turns = [{"role": "user", "content": "News?"}, *output["output"]]
    inputs = {"model": "gpt-5", "input": turns}
    log_trace(store, experiment_name, Given("call", mlflow("CHAT_MODEL", inputs, output)))
    user, given, answer = the_one(store, experiment_name).messages
    assert user.text == "News?"
    for message in (given, answer):
        content: Any = message.content
        assert message.role == "assistant"
        assert [part.type for part in content] == ["reasoning", "tool_use", "text"]
        use = content[1]
        found = (use.tool_type, use.name, use.arguments, use.result, use.error)
        assert found == expected
        assert use.context == item.get("server_label")


SHELL = {"type": "exec", "command": ["ls"], "env": {}}
CLICK = {"type": "click", "button": "left", "x": 1, "y": 2}
PATCH = {"type": "update_file", "path": "a", "diff": "+"}
CLIENT_TOOLS: list[tuple[dict[str, Any], str, Any, dict[str, Any], str]] = [
    (
        {"type": "custom_tool_call", "name": "apply_patch", "input": "*** Begin Patch"},
        "apply_patch",
        {"input": "*** Begin Patch"},
        {"type": "custom_tool_call_output", "output": "done"},
        "done",
    ),
    (
        {"type": "local_shell_call", "status": "completed", "action": SHELL},
        "local_shell",
        {"action": SHELL},
        {"type": "local_shell_call_output", "output": "a.txt"},
        "a.txt",
    ),
    (
        {
            "type": "computer_call",
            "status": "completed",
            "pending_safety_checks": [],
            "action": CLICK,
        },
        "computer",
        {"action": CLICK},
        {
            "type": "computer_call_output",
            "output": {"type": "computer_screenshot", "image_url": "data:image/png;base64,QUJD"},
        },
        "",
    ),
    (
        {"type": "apply_patch_call", "status": "completed", "operation": PATCH},
        "apply_patch",
        {"operation": PATCH},
        {"type": "apply_patch_call_output", "status": "completed", "output": "done"},
        "done",
    ),
]


@pytest.mark.parametrize(
    ("call", "name", "arguments", "output", "result"),
    CLIENT_TOOLS,
    ids=[call["type"] for call, *_ in CLIENT_TOOLS],
)
def test_tools_that_openai_asks_for(
    call: dict[str, Any],
    name: str,
    arguments: Any,
    output: dict[str, Any],
    result: str,
    store: str,
    experiment_name: str,
) -> None:
    call = {"id": "i_1", "call_id": "c1", **call}
    given = response(REASONING, call)
    turns = [
        {"role": "user", "content": "Do it."},
        *({k: v for k, v in item.items() if v is not None} for item in given["output"]),
        {"id" if "shell" in name else "call_id": "c1", **output},
    ]
    first = Given("first", mlflow("CHAT_MODEL", {"model": "gpt-5", "input": "Do it."}, given))
    second = Given("second", mlflow("CHAT_MODEL", {"model": "gpt-5", "input": turns}, ""))
    log_trace(store, experiment_name, Given("run", children=[first, second]))
    transcript = the_one(store, experiment_name)
    choice = calls_of(transcript)[0].output.choices[0]
    assert choice.stop_reason == "tool_calls"
    _, asked, answered = transcript.messages
    for message in (choice.message, asked):
        assert message.role == "assistant"
        (made,) = message.tool_calls or []
        assert (made.id, made.function, made.arguments) == ("c1", name, arguments)
        assert made.type == ("custom" if "input" in call else "function")
        content: Any = message.content
        assert [part.type for part in content] == ["reasoning"]
    assert answered.role == "tool"
    assert (answered.tool_call_id, answered.text) == ("c1", result)
    screenshot: Any = answered.content
    assert result or [part.type for part in screenshot] == ["image"]


def test_items_of_other_kinds(store: str, experiment_name: str) -> None:
    """An image is one; what nobody knows is kept as data in the assistant's turn."""
    image = {"type": "image_generation_call", "id": "i", "status": "completed", "result": "QUJD"}
    program = {"type": "program", "id": "p", "call_id": "c", "code": "1", "fingerprint": "f"}
    output = response(image, program, MESSAGE)
    log_trace(store, experiment_name, Given("call", mlflow("LLM", "Draw.", output)))
    _, answer = the_one(store, experiment_name).messages
    content: Any = answer.content
    assert [part.type for part in content] == ["image", "data", "text"]
    assert content[0].image == "data:image/png;base64,QUJD"
    assert content[1].data["code"] == "1"


@pytest.mark.parametrize(
    ("reason", "stop"), [("max_output_tokens", "max_tokens"), ("content_filter", "content_filter")]
)
def test_incomplete_responses(reason: str, stop: str, store: str, experiment_name: str) -> None:
    output = response(MESSAGE, status="incomplete", incomplete_details={"reason": reason})
    log_trace(store, experiment_name, Given("call", mlflow("LLM", "Go on.", output)))
    (event,) = calls_of(the_one(store, experiment_name))
    assert event.output.stop_reason == stop


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_streamed_reasoning(name: str, store: str, experiment_name: str) -> None:
    """As DeepSeek, vLLM and LiteLLM stream it."""
    base = {"id": "1", "created": 1, "model": "m", "object": "chat.completion.chunk"}
    deltas: list[dict[str, Any]] = [{name: "Let me "}, {name: "think."}, {"content": "42"}]
    chunks = [
        ChatCompletionChunk.model_validate(
            {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        )
        for delta in deltas
    ]
    events = [
        (f"mlflow.chunk.item.{i}", {"mlflow.chunk.value": json.dumps(chunk, cls=TraceJSONEncoder)})
        for i, chunk in enumerate(chunks)
    ]
    summed = openai_answer({"role": "assistant", "content": "42"})
    call = Given("call", mlflow("CHAT_MODEL", "Why?", summed), events=events)
    log_trace(store, experiment_name, call)
    content: Any = the_one(store, experiment_name).messages[-1].content
    assert [part.type for part in content] == ["reasoning", "text"]
    assert content[0].reasoning == "Let me think."


def test_streamed_parts(store: str, experiment_name: str) -> None:
    """As Databricks streams content; and what else a generator may give is no reason to fail."""
    parts = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"type": "text", "text": "42"},
    ]
    for choices in ([{"index": 0, "delta": {"content": parts}}], ["odd", {"delta": "odd"}]):
        event = ("mlflow.chunk.item.0", {"mlflow.chunk.value": json.dumps({"choices": choices})})
        call = Given("call", mlflow("CHAT_MODEL", "Why?", "42"), events=[event])
        log_trace(store, experiment_name, call)
    found, _ = imported(experiment_name=experiment_name, tracking_uri=store)
    content: Any = found.messages[-1].content
    assert [part.type for part in content] == ["reasoning", "text"]


# --- others ---------------------------------------------------------------------------------------


def test_tools_that_anthropic_runs(store: str, experiment_name: str) -> None:
    error = {"type": "web_search_tool_result_error", "error_code": "unavailable"}
    message = Message.model_validate(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-4",
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 1, "output_tokens": 1},
            "content": [
                {
                    "type": "server_tool_use",
                    "id": "s1",
                    "name": "web_search",
                    "input": {"query": "q"},
                },
                {"type": "web_search_tool_result", "tool_use_id": "s1", "content": error},
                {"type": "text", "text": "Nothing."},
            ],
        }
    )
    outputs = json.loads(json.dumps(message, cls=TraceJSONEncoder))
    log_trace(store, experiment_name, Given("call", mlflow("CHAT_MODEL", "News?", outputs)))
    use, text = (cast(Any, part) for part in the_one(store, experiment_name).messages[-1].content)
    assert (use.tool_type, use.id, use.name) == ("web_search", "s1", "web_search")
    assert (use.arguments, use.error, text.text) == ('{"query":"q"}', "unavailable", "Nothing.")


def test_anthropic_s_text_documents(store: str, experiment_name: str) -> None:
    text = {"type": "text", "media_type": "text/plain", "data": "Hello"}
    parts = {"type": "content", "content": [{"type": "text", "text": "World"}]}
    content = [{"type": "document", "source": source} for source in (text, parts)]
    inputs = {"model": "m", "messages": [{"role": "user", "content": content}]}
    log_trace(store, experiment_name, Given("call", mlflow("CHAT_MODEL", inputs, "Seen.")))
    found: Any = the_one(store, experiment_name).messages[0].content
    assert [(part.type, part.text) for part in found] == [("text", "Hello"), ("text", "World")]


def test_langchain_s_batches(
    store: str, experiment_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Prompts that were sent together, which MLflow keeps as LangChain has them."""
    prompts = [[{"type": "human", "content": text}] for text in ("One?", "Two?")]
    generations = [
        [
            {
                "text": text,
                "generation_info": {"finish_reason": "length"},
                "type": "ChatGeneration",
                "message": {"type": "ai", "content": text},
            }
        ]
        for text in ("1", "2")
    ]
    outputs = {"generations": generations, "llm_output": None, "run": None, "type": "LLMResult"}
    log_trace(store, experiment_name, Given("call", mlflow("CHAT_MODEL", prompts, outputs)))
    with caplog.at_level(logging.WARNING, "inspect_mlflow.scout"):
        transcript = the_one(store, experiment_name)
    assert [m.text for m in transcript.messages] == ["One?", "1"]
    assert calls_of(transcript)[0].output.stop_reason == "max_tokens"
    assert "could not read 1 of the 2 prompts that the model call 'call' was given" in caplog.text


def calls_of(transcript: Transcript) -> list[ModelEvent]:
    return [event for event in transcript.events if isinstance(event, ModelEvent)]
