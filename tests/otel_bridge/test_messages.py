"""Messages become the conventions' JSON, and the same messages come out of it again."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspect_ai.log import EvalSample, read_eval_log
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    Content,
    ContentAudio,
    ContentCitation,
    ContentData,
    ContentDocument,
    ContentImage,
    ContentReasoning,
    ContentText,
    ContentToolUse,
    ContentVideo,
    DocumentCitation,
    Logprob,
    Logprobs,
    ModelOutput,
    StopCategory,
    StopDetails,
    UrlCitation,
)
from inspect_ai.tool import (
    ToolCall,
    ToolCallContent,
    ToolCallError,
    ToolInfo,
    ToolParam,
    ToolParams,
)
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from otel_bridge.messages import (
    digest,
    message_from_genai,
    message_to_genai,
    messages_from_genai,
    output_message_from_genai,
    output_messages_from_genai,
    output_to_genai,
    system_instructions,
    tool_from_genai,
    tools_to_genai,
)
from otel_bridge.values import Capture, to_json

LOGS = Path(__file__).parent.parent / "logs"
SCHEMA = Draft202012Validator(
    json.loads((Path(__file__).parent / "schemas" / "gen_ai.json").read_text())
)
ALL = Capture(media=True)
DEFAULT = Capture()
OFF = Capture(content=False)
ANY = 1 << 40

PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452") + bytes(range(200))
PNG_64 = base64.b64encode(PNG).decode()
PNG_URI = f"data:image/png;base64,{PNG_64}"


def valid(attribute: str, value: Any) -> None:
    SCHEMA.validate({attribute: value})


def through_json(value: Any) -> Any:
    return json.loads(to_json(value, ANY))


def there_and_back(message: ChatMessage) -> ChatMessage:
    obj = message_to_genai(message, ALL)
    sent = through_json(obj)
    valid("gen_ai.input.messages", [sent])
    assert sent == obj
    assert digest(sent) == digest(obj)
    return message_from_genai(sent)


# --- the JSON shapes ----------------------------------------------------------------------------


def test_a_plain_message_is_a_plain_object() -> None:
    assert message_to_genai(ChatMessageUser(id="m1", content="Hi"), DEFAULT) == {
        "role": "user",
        "parts": [{"type": "text", "content": "Hi"}],
        "inspect": {"id": "m1"},
    }


def test_an_assistant_with_reasoning_and_tool_calls() -> None:
    message = ChatMessageAssistant(
        id="m2",
        model="gpt",
        source="generate",
        content=[ContentReasoning(reasoning="hm", signature="sig"), ContentText(text="I look.")],
        tool_calls=[
            ToolCall(id="c1", function="bash", arguments={"cmd": "ls"}),
            ToolCall(id="c2", function="bash", arguments={}, parse_error="bad JSON"),
        ],
    )
    assert message_to_genai(message, DEFAULT) == {
        "role": "assistant",
        "parts": [
            {"type": "reasoning", "content": "hm", "inspect": {"signature": "sig"}},
            {"type": "text", "content": "I look."},
            {"type": "tool_call", "id": "c1", "name": "bash", "arguments": {"cmd": "ls"}},
            {
                "type": "tool_call",
                "id": "c2",
                "name": "bash",
                "arguments": {},
                "inspect": {"parse_error": "bad JSON"},
            },
        ],
        "inspect": {"id": "m2", "source": "generate", "model": "gpt"},
    }


def test_a_tool_result() -> None:
    message = ChatMessageTool(id="m3", content="ok", tool_call_id="c1", function="bash")
    assert message_to_genai(message, DEFAULT) == {
        "role": "tool",
        "parts": [{"type": "tool_call_response", "id": "c1", "response": "ok"}],
        "inspect": {"id": "m3", "function": "bash"},
    }


def test_a_tool_error_is_the_response_where_there_is_no_other() -> None:
    error = ToolCallError("timeout", "too slow")
    failed = ChatMessageTool(id="m", content="", tool_call_id="c", error=error)
    obj = message_to_genai(failed, DEFAULT)
    assert obj["parts"][0]["response"] == "too slow"
    assert obj["inspect"]["error"] == {"type": "timeout"}
    partial = ChatMessageTool(id="m", content="half", tool_call_id="c", error=error)
    obj = message_to_genai(partial, DEFAULT)
    assert obj["parts"][0]["response"] == "half"
    assert obj["inspect"]["error"] == {"type": "timeout", "message": "too slow"}


def test_redacted_reasoning_shows_its_summary() -> None:
    content = ContentReasoning(reasoning="ENCRYPTED", summary="thought about it", redacted=True)
    message = ChatMessageAssistant(content=[content])
    assert message_to_genai(message, DEFAULT)["parts"] == [
        {
            "type": "reasoning",
            "content": "thought about it",
            "inspect": {"redacted": True, "reasoning": "ENCRYPTED"},
        }
    ]


def test_a_tool_run_by_the_provider_is_call_and_response() -> None:
    content = ContentToolUse(
        tool_type="web_search", id="s1", name="search", arguments='{"q":"cats"}', result="[]"
    )
    assert message_to_genai(ChatMessageAssistant(content=[content]), DEFAULT)["parts"] == [
        {
            "type": "server_tool_call",
            "id": "s1",
            "name": "search",
            "server_tool_call": {"type": "web_search", "arguments": '{"q":"cats"}'},
        },
        {
            "type": "server_tool_call_response",
            "id": "s1",
            "server_tool_call_response": {"type": "web_search", "result": "[]"},
        },
    ]


def test_inline_media_is_a_blob_only_when_captured() -> None:
    message = ChatMessageUser(content=[ContentImage(image=PNG_URI, detail="high")])
    assert message_to_genai(message, ALL)["parts"] == [
        {
            "type": "blob",
            "modality": "image",
            "mime_type": "image/png",
            "content": PNG_64,
            "inspect": {"detail": "high"},
        }
    ]
    (part,) = message_to_genai(message, DEFAULT)["parts"]
    about = part["inspect"]
    assert (about["type"], about["mime_type"], about["bytes"]) == ("image", "image/png", len(PNG))
    assert part["type"] == "text"
    assert part["content"] == f"[image/png, {len(PNG)} bytes, sha256 {about['sha256']}]"
    back = message_from_genai(message_to_genai(message, DEFAULT))
    assert back.content == [ContentText(text=part["content"])]


def test_urls_and_paths_are_uri_parts() -> None:
    message = ChatMessageUser(
        content=[
            ContentImage(image="https://example.com/cat.png?size=2"),
            ContentAudio(audio="speech.mp3", format="mp3"),
            ContentDocument(document="https://example.com/a.pdf"),
        ]
    )
    parts = message_to_genai(message, DEFAULT)["parts"]
    assert [(p["type"], p["modality"], p["mime_type"], p["uri"]) for p in parts] == [
        ("uri", "image", "image/png", "https://example.com/cat.png?size=2"),
        ("uri", "audio", "audio/mpeg", "speech.mp3"),
        ("uri", "document", "application/pdf", "https://example.com/a.pdf"),
    ]


def test_media_hidden_in_text_arguments_and_results_is_left_out() -> None:
    messages: list[ChatMessage] = [
        ChatMessageUser(content=f"![x]({PNG_URI})", metadata={"shot": PNG_URI}),
        ChatMessageAssistant(
            content="",
            tool_calls=[ToolCall(id="c", function="f", arguments={"png": [PNG_URI]})],
        ),
        ChatMessageTool(content=PNG_URI),
        ChatMessageTool(content=[ContentText(text="shot"), ContentImage(image=PNG_64)]),
        ChatMessageAssistant(
            content=[
                ContentData(data={"image": PNG_URI}),
                ContentToolUse(
                    tool_type="mcp_call", id="", name="", arguments=PNG_URI, result=PNG_URI
                ),
            ]
        ),
    ]
    for message in messages:
        assert PNG_64[:50] not in to_json(message_to_genai(message, DEFAULT), ANY)
        assert there_and_back(message) == message


def test_system_instructions_are_the_parts_of_system_messages() -> None:
    messages: list[ChatMessage] = [
        ChatMessageSystem(content="Be brief."),
        ChatMessageUser(content="Hi"),
        ChatMessageSystem(content=[ContentText(text="Be kind."), ContentText(text="Be exact.")]),
    ]
    parts = system_instructions(messages, DEFAULT)
    valid("gen_ai.system_instructions", parts)
    assert [part["content"] for part in parts] == ["Be brief.", "Be kind.", "Be exact."]


# --- output -------------------------------------------------------------------------------------

StopReason = Literal[
    "stop", "max_tokens", "model_length", "tool_calls", "content_filter", "unknown"
]


@pytest.mark.parametrize(
    ("stop_reason", "error", "finish_reason", "extra"),
    [
        ("stop", None, "stop", None),
        ("max_tokens", None, "length", None),
        ("model_length", None, "length", "model_length"),
        ("tool_calls", None, "tool_call", None),
        ("content_filter", "refused", "content_filter", None),
        ("unknown", None, "unknown", None),
        ("unknown", "broken", "error", "unknown"),
    ],
)
def test_finish_reasons(
    stop_reason: StopReason, error: str | None, finish_reason: str, extra: str | None
) -> None:
    message = ChatMessageAssistant(content="x")
    choice = ChatCompletionChoice(message=message, stop_reason=stop_reason)
    (obj,) = output_to_genai(ModelOutput(choices=[choice], error=error), DEFAULT)
    valid("gen_ai.output.messages", [obj])
    assert obj["finish_reason"] == finish_reason
    assert obj["inspect"].get("choice", {}).get("stop_reason") == extra
    assert output_message_from_genai(through_json(obj)) == choice


def test_choices_keep_stop_details_and_logprobs() -> None:
    details = StopDetails(category="cyber", categories=[StopCategory(category="cyber", level="2")])
    logprobs = Logprobs(content=[Logprob(token="a", logprob=float("-inf"), bytes=[97])])
    choices = [
        ChatCompletionChoice(
            message=ChatMessageAssistant(content="a"),
            stop_reason="content_filter",
            stop_details=details,
            logprobs=logprobs,
        ),
        ChatCompletionChoice(message=ChatMessageAssistant(content="b"), stop_reason="stop"),
    ]
    objs = output_to_genai(ModelOutput(choices=choices), ALL)
    valid("gen_ai.output.messages", through_json(objs))
    assert output_messages_from_genai(through_json(objs)) == choices
    assert output_to_genai(ModelOutput(), ALL) == []


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("end_turn", "stop"),
        ("tool_use", "tool_calls"),
        ("max_tokens", "max_tokens"),
        ("error", "unknown"),
        ("whatever", "unknown"),
        (None, "unknown"),
    ],
)
def test_finish_reasons_of_others(reason: str | None, expected: str) -> None:
    obj: dict[str, Any] = {"role": "assistant", "parts": [], "finish_reason": reason}
    assert output_message_from_genai(obj).stop_reason == expected


# --- tools --------------------------------------------------------------------------------------


def test_tools_are_functions_with_a_json_schema() -> None:
    tools = [
        ToolInfo(
            name="bash",
            description="Run a command.",
            parameters=ToolParams(
                properties={
                    "cmd": ToolParam(type="string", description="The command."),
                    "env": ToolParam(
                        anyOf=[ToolParam(type="null"), ToolParam(type="object")],
                        default={"PATH": None},
                    ),
                    "mode": ToolParam(enum=["a", None], default="a"),
                    "args": ToolParam(type="array", items=ToolParam(type=["string", "integer"])),
                },
                required=["cmd"],
                additionalProperties=ToolParam(type="string"),
            ),
            options={"timeout": 3, "nothing": None},
        ),
        ToolInfo(name="submit", description=""),
    ]
    objs = through_json(tools_to_genai(tools))
    valid("gen_ai.tool.definitions", objs)
    assert objs[0]["type"] == "function"
    assert objs[0]["parameters"]["properties"]["cmd"] == {
        "type": "string",
        "description": "The command.",
    }
    assert "inspect" not in objs[1]
    assert [tool_from_genai(obj) for obj in objs] == tools


def test_tools_without_content_are_names() -> None:
    tools = tools_to_genai([ToolInfo(name="f", description="secret")], OFF)
    valid("gen_ai.tool.definitions", tools)
    assert tools == [{"type": "function", "name": "f", "description": ""}]


@pytest.mark.parametrize(
    "obj",
    [
        {"type": "function", "name": "f"},
        {"type": "function", "name": "f", "description": None, "parameters": None},
        {"type": "function", "function": {"name": "f", "parameters": {"properties": {}}}},
        {"name": "f", "parameters": {"properties": {"x": {"type": ["odd"]}}}},
        {"name": "f", "parameters": "a string"},
    ],
)
def test_tools_of_others(obj: dict[str, Any]) -> None:
    tool = tool_from_genai(obj)
    assert (tool.name, tool.description) == ("f", "")


# --- exactly back -------------------------------------------------------------------------------

EXACT: list[ChatMessage] = [
    ChatMessageUser(content=""),
    ChatMessageUser(content=[]),
    ChatMessageUser(content=[ContentText(text="")]),
    ChatMessageUser(content=[ContentText(text="one")]),
    ChatMessageUser(content=[ContentText(text="one"), ContentText(text="two")]),
    ChatMessageUser(content="x", tool_call_id=["c1", "c2"], source="operator", metadata={}),
    ChatMessageSystem(content="s", metadata={"nested": {"none": None, "list": [1, [2.5]]}}),
    ChatMessageAssistant(content="", tool_calls=[]),
    ChatMessageAssistant(content="a", model=""),
    ChatMessageAssistant(
        content=[
            ContentText(
                text="t",
                refusal=False,
                citations=[
                    UrlCitation(url="https://example.com", title="T", cited_text=(3, 9)),
                    DocumentCitation.model_validate(
                        {
                            "cited_text": "c",
                            "range": {"type": "page", "start_index": 0, "end_index": 2},
                        }
                    ),
                    ContentCitation(internal={"k": None}),
                ],
                internal={"id": "x", "none": None},
                cache_breakpoint=True,
            ),
            ContentText(text="u", refusal=True, citations=[]),
            ContentReasoning(reasoning="", summary="s"),
            ContentReasoning(reasoning="r", summary="s", signature="g", internal=[1]),
            ContentReasoning(reasoning="e", summary="s", redacted=True),
            ContentReasoning(reasoning="e", summary="", redacted=True),
            ContentReasoning(reasoning="e", redacted=True),
            ContentReasoning(reasoning=""),
            ContentData(data={"a": None, "b": [1, {"c": "d"}]}, internal="i"),
            ContentToolUse(
                tool_type="code_execution",
                id="s1",
                name="python",
                context="ctx",
                arguments="not json",
                result="r",
                error="e",
                internal={"x": 1},
            ),
            ContentToolUse(tool_type="mcp_call", id="s1", name="m", arguments="", result="again"),
        ],
        tool_calls=[
            ToolCall(id="", function="f", arguments={"n": 2**70, "deep": {"a": [None]}}),
            ToolCall(
                id="c",
                function="patch",
                arguments={"input": "text"},
                type="custom",
                parse_error="",
                view=ToolCallContent(title="t", format="markdown", content="c"),
            ),
        ],
    ),
    ChatMessageUser(
        content=[
            ContentImage(image=PNG_URI),
            ContentImage(image=PNG_64, detail="original"),
            ContentImage(image=f"data:Image/PNG;charset=x;base64,{PNG_64}"),
            ContentImage(image="data:image/svg+xml,%3Csvg/%3e", internal={"a": 1}),
            ContentImage(image="data:;base64,AAAA"),
            ContentImage(image=""),
            ContentImage(image="attachment://0123"),
            ContentAudio(audio=f"data:audio/x-wav;base64,{PNG_64}", format="wav"),
            ContentAudio(audio=PNG_64, format="mp3"),
            ContentVideo(video="https://example.com/v", format="mov"),
            ContentVideo(video=f"data:video/mp4;base64,{PNG_64}", format="mpeg"),
            ContentDocument(document=f"data:application/pdf;base64,{PNG_64}"),
            ContentDocument(
                document=f"data:text/plain;base64,{PNG_64}",
                filename="notes.md",
                mime_type="text/markdown",
                citations=True,
            ),
            ContentDocument(document="/data/report.pdf"),
        ]
    ),
    ChatMessageTool(content="plain"),
    ChatMessageTool(content="", tool_call_id="", function=""),
    ChatMessageTool(content=[], tool_call_id="c", error=ToolCallError("limit", "m")),
    ChatMessageTool(content=[ContentText(text="")], tool_call_id="c"),
    ChatMessageTool(content=[ContentText(text="one")], tool_call_id="c"),
    ChatMessageTool(content=[ContentText(text="one"), ContentImage(image=PNG_URI)]),
    ChatMessageTool(content=[ContentImage(image=PNG_URI)]),
    ChatMessageTool(content="", error=ToolCallError("parsing", "m")),
    ChatMessageTool(content="", error=ToolCallError("parsing", "")),
    ChatMessageTool(content="out", error=ToolCallError("output_limit", "m"), metadata={"a": 1}),
]


@pytest.mark.parametrize("message", EXACT, ids=lambda message: message.role)
def test_messages_come_back_exactly(message: ChatMessage) -> None:
    back = there_and_back(message)
    assert type(back) is type(message)
    assert back == message


def test_a_message_without_id_stays_without() -> None:
    message = ChatMessageUser(content="x")
    message.id = None
    obj = message_to_genai(message, ALL)
    assert "inspect" not in obj
    assert message_from_genai(obj).id is None


json_value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10),
    lambda items: (
        st.lists(items, max_size=3) | st.dictionaries(st.text(max_size=5), items, max_size=3)
    ),
    max_leaves=6,
)
json_object = st.dictionaries(st.text(max_size=5), json_value, max_size=3)
words = st.text(max_size=20)
maybe = st.none() | words
sources = st.one_of(
    st.binary(max_size=60).map(lambda d: f"data:image/png;base64,{base64.b64encode(d).decode()}"),
    st.binary(min_size=100, max_size=120).map(lambda d: base64.b64encode(d).decode()),
    st.sampled_from(["https://example.com/a.png", "a.gif", "data:text/plain,a%20b"]),
    words,
)
citations = st.one_of(
    st.builds(ContentCitation, cited_text=maybe, title=maybe, internal=st.none() | json_object),
    st.builds(UrlCitation, url=words, cited_text=st.tuples(st.integers(), st.integers())),
)
contents: st.SearchStrategy[Content] = st.one_of(
    st.builds(
        ContentText,
        text=words,
        refusal=st.none() | st.booleans(),
        citations=st.none() | st.lists(citations, max_size=2),
        internal=json_value,
    ),
    st.builds(
        ContentReasoning,
        reasoning=words,
        summary=maybe,
        signature=maybe,
        redacted=st.booleans(),
        internal=json_value,
    ),
    st.builds(
        ContentImage, image=sources, detail=st.sampled_from(["auto", "low", "high", "original"])
    ),
    st.builds(ContentAudio, audio=sources, format=st.sampled_from(["wav", "mp3"])),
    st.builds(ContentVideo, video=sources, format=st.sampled_from(["mp4", "mpeg", "mov"])),
    st.builds(
        ContentDocument,
        document=sources.filter(bool),
        filename=st.sampled_from(["a.txt", ""]),
        mime_type=st.sampled_from(["text/plain", "application/pdf"]),
        citations=st.booleans(),
    ),
    st.builds(ContentData, data=json_object, internal=json_value),
    st.builds(
        ContentToolUse,
        tool_type=st.sampled_from(["web_search", "mcp_call", "code_execution"]),
        id=words,
        name=words,
        context=maybe,
        arguments=words,
        result=words,
        error=maybe,
    ),
)
tool_calls = st.builds(
    ToolCall,
    id=words,
    function=words,
    arguments=json_object,
    parse_error=maybe,
    view=st.none() | st.builds(ToolCallContent, title=maybe, format=st.just("text"), content=words),
    type=st.sampled_from(["function", "custom"]),
)
content = words | st.lists(contents, max_size=4)
base = {
    "content": content,
    "source": st.sampled_from([None, "input", "generate", "operator"]),
    "metadata": st.none() | json_object,
}
errors = st.builds(
    ToolCallError, type=st.sampled_from(["parsing", "timeout", "unknown"]), message=words
)
messages: st.SearchStrategy[ChatMessage] = st.one_of(
    st.builds(ChatMessageSystem, **base),
    st.builds(ChatMessageUser, tool_call_id=st.none() | st.lists(words, max_size=2), **base),
    st.builds(
        ChatMessageAssistant,
        tool_calls=st.none() | st.lists(tool_calls, max_size=3),
        model=maybe,
        **base,
    ),
    st.builds(
        ChatMessageTool, tool_call_id=maybe, function=maybe, error=st.none() | errors, **base
    ),
)


@settings(max_examples=250, deadline=None)
@given(messages)
def test_any_message_comes_back_exactly(message: ChatMessage) -> None:
    assert there_and_back(message) == message


@settings(max_examples=150, deadline=None)
@given(messages, st.sampled_from([DEFAULT, OFF]), st.integers(min_value=100, max_value=600))
def test_any_message_is_valid_and_readable_in_part(
    message: ChatMessage, capture: Capture, max_bytes: int
) -> None:
    obj = message_to_genai(message, capture)
    valid("gen_ai.input.messages", [through_json(obj)])
    assert message_from_genai(through_json(obj)).role == message.role
    message_from_genai(json.loads(to_json(obj, max_bytes)))


PART_TYPES = [
    "text",
    "reasoning",
    "tool_call",
    "tool_call_response",
    "server_tool_call",
    "server_tool_call_response",
    "blob",
    "uri",
    "file",
    "data",
    "tool_use",
    "other",
]
anything = st.recursive(
    json_value | st.text(st.characters(codec=None, categories=None), max_size=5),
    lambda items: (
        st.lists(items, max_size=4)
        | st.fixed_dictionaries(
            {},
            optional={
                "type": st.sampled_from(PART_TYPES) | items,
                "content": items,
                "id": items,
                "name": items,
                "arguments": items,
                "response": items,
                "inspect": items,
                "modality": st.sampled_from(["image", "audio", "video", "document"]) | items,
                "mime_type": items,
                "uri": items,
                "server_tool_call": items,
                "server_tool_call_response": items,
                "error": items,
                "metadata": items,
            },
        )
    ),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["system", "user", "assistant", "tool", "developer", "model"])
            | anything,
            "parts": st.lists(anything, max_size=4) | anything,
            "content": anything,
            "inspect": anything,
            "finish_reason": anything,
        },
    )
)
def test_anything_reads_as_some_message(obj: dict[str, Any]) -> None:
    message = message_from_genai(obj)
    message_to_genai(message, DEFAULT)
    assert messages_from_genai([obj])[0] == message
    output_message_from_genai(obj)
    tool_from_genai(obj)
    assert len(digest(obj)) == 16


def samples() -> Iterator[EvalSample]:
    for path in sorted(LOGS.iterdir()):
        if path.suffix in (".eval", ".json"):
            yield from read_eval_log(path, resolve_attachments=True).samples or []


def test_real_logs_come_back_exactly() -> None:
    seen = 0
    for sample in samples():
        found: list[ChatMessage] = list(sample.messages)
        for event in sample.events:
            if event.event == "model":
                found += event.input
                outputs = through_json(output_to_genai(event.output, ALL))
                valid("gen_ai.output.messages", outputs)
                assert output_messages_from_genai(outputs) == event.output.choices
                tools = through_json(tools_to_genai(event.tools))
                valid("gen_ai.tool.definitions", tools)
                assert [tool_from_genai(tool) for tool in tools] == event.tools
        for message in found:
            assert there_and_back(message) == message
            assert "base64," not in to_json(message_to_genai(message, DEFAULT), ANY)
        seen += len(found)
    assert seen > 50


# --- what Inspect does not know yet -------------------------------------------------------------


class Hologram(BaseModel):
    type: Literal["hologram"] = "hologram"
    frames: list[int]


def test_unknown_content_is_a_part_of_its_type() -> None:
    message = ChatMessageUser.model_construct(
        id="m", role="user", content=[Hologram(frames=[1]), {"type": "text", "text": "loose"}]
    )
    obj = message_to_genai(message, DEFAULT)
    valid("gen_ai.input.messages", [obj])
    assert obj["parts"][0] == {
        "type": "hologram",
        "inspect": {"content": {"type": "hologram", "frames": [1]}},
    }
    back = message_from_genai(obj)
    assert back.content == [ContentData(data=obj["parts"][0]), ContentText(text="loose")]
    assert message_to_genai(message, OFF)["parts"][0] == {"type": "hologram"}


def test_new_fields_come_along() -> None:
    class Newer(ContentText):
        mood: str | None = None

    message = ChatMessageUser(content=[Newer.model_construct(type="text", text="t", mood="calm")])
    assert message_to_genai(message, DEFAULT)["parts"][0]["inspect"] == {"mood": "calm"}
    assert message_to_genai(message, OFF)["parts"][0]["inspect"] == {"bytes": 1}


# --- messages by other instrumentation ----------------------------------------------------------


def test_a_conversation_without_inspect_fields() -> None:
    objs: list[dict[str, Any]] = [
        {"role": "developer", "parts": [{"type": "text", "content": "Be brief."}]},
        {
            "role": "user",
            "parts": [
                {"type": "text", "content": "What is this?"},
                {"type": "blob", "modality": "image", "mime_type": "image/png", "content": "AAAA"},
                {"type": "uri", "modality": "audio", "mime_type": "audio/mpeg", "uri": "gs://b/a"},
                {"type": "uri", "modality": "audio", "mime_type": "audio/ogg", "uri": "gs://b/o"},
                {"type": "file", "modality": "document", "file_id": "file-1"},
            ],
        },
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "hm"},
                {"type": "tool_call", "id": "c1", "name": "look", "arguments": '{"at": "it"}'},
                {"type": "tool_call", "id": "c2", "name": "look", "arguments": "[1"},
                {"type": "tool_call", "name": "look"},
            ],
            "finish_reason": "tool_call",
        },
        {
            "role": "tool",
            "parts": [
                {"type": "tool_call_response", "id": "c1", "response": {"seen": "cat"}},
                {"type": "tool_call_response", "id": "c2", "result": "dog"},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"type": "tool_call_response", "id": "c3", "response": "late"},
                {"type": "text", "content": "and?"},
            ],
        },
        {
            "role": "assistant",
            "parts": [
                {
                    "type": "server_tool_call",
                    "id": "s",
                    "name": "code_interpreter",
                    "server_tool_call": {"type": "code_interpreter", "code": "1+1"},
                },
                {"type": "text", "content": "A cat."},
                {
                    "type": "server_tool_call_response",
                    "id": "s",
                    "server_tool_call_response": {"type": "code_interpreter", "outputs": [2]},
                },
            ],
        },
    ]
    got = messages_from_genai(objs)
    assert [m.role for m in got] == [
        "system", "user", "assistant", "tool", "tool", "tool", "user", "assistant",
    ]  # fmt: skip
    system, question, asked, cat, dog, late, more, answer = got
    assert system.content == "Be brief."
    assert question.content == [
        ContentText(text="What is this?"),
        ContentImage(image="data:image/png;base64,AAAA"),
        ContentAudio(audio="gs://b/a", format="mp3"),
        ContentDocument(document="gs://b/o", mime_type="audio/ogg", filename="o"),
        ContentData(data={"type": "file", "modality": "document", "file_id": "file-1"}),
    ]
    assert isinstance(asked, ChatMessageAssistant)
    assert asked.content == [ContentReasoning(reasoning="hm")]
    assert [(c.id, c.function, c.arguments) for c in asked.tool_calls or []] == [
        ("c1", "look", {"at": "it"}),
        ("c2", "look", {"input": "[1"}),
        ("", "look", {}),
    ]
    assert isinstance(cat, ChatMessageTool)
    assert (cat.tool_call_id, cat.content) == ("c1", '{"seen":"cat"}')
    assert isinstance(dog, ChatMessageTool)
    assert (dog.tool_call_id, dog.content) == ("c2", "dog")
    assert late.content == "late"
    assert more.content == "and?"
    assert answer.content == [
        ContentToolUse(
            tool_type="code_execution",
            id="s",
            name="code_interpreter",
            arguments='{"code":"1+1"}',
            result='{"outputs":[2]}',
        ),
        ContentText(text="A cat."),
    ]
    assert all(message.id is None for message in got)


def test_tool_results_of_others() -> None:
    def result(response: Any) -> Any:
        part = {"type": "tool_call_response", "response": response}
        return message_from_genai({"role": "tool", "parts": [part]}).content

    assert result(None) == ""
    assert result([]) == "[]"
    assert result([{"type": "dir", "name": "a"}]) == '[{"type":"dir","name":"a"}]'
    assert result([{"type": "text", "text": "Hi"}]) == "Hi"
    assert result([{"type": "text", "content": "a"}, {"type": "text", "content": "b"}]) == [
        ContentText(text="a"),
        ContentText(text="b"),
    ]


def test_messages_of_the_older_form() -> None:
    assert message_from_genai({"role": "user", "content": "Hi"}).content == "Hi"
    assert message_from_genai({"role": "model", "parts": ["Hi"]}).role == "assistant"
    assert message_from_genai({}).content == ""


# --- privacy ------------------------------------------------------------------------------------

CANARY = "canary-7f3a"


def test_without_content_nothing_of_it_goes_along() -> None:
    secret_uri = "data:text/plain;base64," + base64.b64encode(CANARY.encode()).decode()
    everything: list[Content] = [
        ContentText(
            text=CANARY,
            refusal=True,
            citations=[UrlCitation(url=CANARY, title=CANARY)],
            internal=CANARY,
        ),
        ContentReasoning(reasoning=CANARY, summary=CANARY, signature=CANARY, internal=CANARY),
        ContentReasoning(reasoning=CANARY, redacted=True),
        ContentImage(image=f"https://example.com/{CANARY}.png", internal=CANARY),
        ContentImage(image=secret_uri),
        ContentAudio(audio=CANARY, format="wav"),
        ContentVideo(video=secret_uri, format="mp4"),
        ContentDocument(document=f"/{CANARY}.pdf"),
        ContentData(data={CANARY: CANARY}),
        ContentToolUse(
            tool_type="web_search",
            id="s1",
            name="search",
            context=CANARY,
            arguments=CANARY,
            result=CANARY,
            error=CANARY,
        ),
    ]
    secret: list[ChatMessage] = [
        ChatMessageSystem(content=CANARY),
        ChatMessageUser(content=everything, metadata={CANARY: CANARY}),
        ChatMessageAssistant(
            content=everything,
            tool_calls=[
                ToolCall(
                    id="c1",
                    function="bash",
                    arguments={CANARY: CANARY},
                    parse_error=CANARY,
                    view=ToolCallContent(title=CANARY, format="text", content=CANARY),
                )
            ],
        ),
        ChatMessageTool(
            content=CANARY,
            tool_call_id="c1",
            function="bash",
            error=ToolCallError("timeout", CANARY),
        ),
        ChatMessageTool(content="", error=ToolCallError("timeout", CANARY)),
        ChatMessageTool(content=everything),
    ]
    choice = ChatCompletionChoice(
        message=ChatMessageAssistant(content=CANARY),
        stop_details=StopDetails(explanation=CANARY),
        logprobs=Logprobs(content=[Logprob(token=CANARY, logprob=0.0)]),
    )
    objs = [message_to_genai(message, OFF) for message in secret]
    valid("gen_ai.input.messages", objs)
    output = output_to_genai(ModelOutput(choices=[choice], error=CANARY), OFF)
    valid("gen_ai.output.messages", output)
    system = system_instructions(secret, OFF)
    valid("gen_ai.system_instructions", system)
    sent = to_json([objs, output, system], ANY)
    assert CANARY not in sent
    assert base64.b64encode(CANARY.encode()).decode() not in sent
    # what stays: roles, kinds, sizes, names, ids
    assert objs[0]["parts"] == [{"type": "text", "content": "", "inspect": {"bytes": len(CANARY)}}]
    assert [part["type"] for part in objs[2]["parts"]] == [
        "text", "reasoning", "reasoning", "uri", "blob", "uri", "blob", "uri", "data",
        "server_tool_call", "server_tool_call_response", "tool_call",
    ]  # fmt: skip
    assert objs[2]["parts"][-1] == {"type": "tool_call", "id": "c1", "name": "bash"}
    assert objs[3]["parts"] == [
        {
            "type": "tool_call_response",
            "id": "c1",
            "response": "",
            "inspect": {"bytes": len(CANARY)},
        }
    ]
    assert objs[3]["inspect"]["error"] == {"type": "timeout"}


# --- digest -------------------------------------------------------------------------------------


def test_digests_tell_messages_apart() -> None:
    message = ChatMessageUser(id="m", content="Hi")
    one = digest(message_to_genai(message, ALL))
    assert one == digest(message_to_genai(message.model_copy(deep=True), ALL))
    assert one != digest(message_to_genai(ChatMessageUser(id="n", content="Hi"), ALL))
    assert one != digest(message_to_genai(ChatMessageUser(id="m", content="Ho"), ALL))
    assert one == digest(dict(reversed(message_to_genai(message, ALL).items())))
    odd = message_to_genai(
        ChatMessageUser.model_construct(
            id="m", role="user", content="\ud800", metadata={"n": float("nan")}
        ),
        ALL,
    )
    assert digest(odd) == digest(through_json(odd))
