"""Content of every kind, tool calls that go wrong, and a model call with every setting."""

import base64
import struct
import zlib

from _mock import Turn, call, mock_model, says, script
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
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
    GenerateConfig,
    ModelOutput,
    ModelUsage,
    UrlCitation,
)
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import Tool, ToolCall, ToolError, ToolResult, tool


def _data_uri(mime_type: str, data: bytes) -> str:
    return f"data:{mime_type};base64,{base64.b64encode(data).decode()}"


def png(width: int = 2, height: int = 2) -> bytes:
    """Draw a red rectangle."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = (b"\0" + b"\xff\0\0" * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@tool
def screenshot() -> Tool:
    async def execute() -> ToolResult:
        """Take a screenshot."""
        return [
            ContentText(text="Here it is:"),
            ContentImage(image=_data_uri("image/png", png(3, 3))),
        ]

    return execute


@task
def media(size: int = 1000) -> Task:
    """Send image, audio, video, document and data of about `size` bytes; a tool gives an image."""
    padding = b"\0" * size
    message = ChatMessageUser(
        content=[
            ContentText(text="What is all this?"),
            ContentImage(image=_data_uri("image/png", png() + padding), detail="low"),
            ContentAudio(audio=_data_uri("audio/wav", b"RIFF" + padding), format="wav"),
            ContentVideo(video=_data_uri("video/mp4", b"ftyp" + padding), format="mp4"),
            ContentDocument(document=_data_uri("application/pdf", b"%PDF-" + padding)),
            ContentData(data={"provider": "mock", "payload": {"a": [1, None]}}),
        ]
    )
    drawn: list[Content] = [
        ContentText(text="All red. I drew it for you."),
        ContentImage(image="https://example.com/drawn.jpg"),
    ]
    return Task(
        dataset=[
            Sample(
                id="media",
                input=[ChatMessageSystem(content="You see everything."), message],
                target="red",
            )
        ],
        solver=[use_tools(screenshot()), generate()],
        scorer=includes(),
        model=mock_model(
            script(
                [
                    says("Let me look.", call("screenshot", "call-shot")),
                    says(drawn),
                ]
            )
        ),
    )


@task
def reasoning() -> Task:
    """Answer with reasoning, redacted reasoning, server tools, citations, data and a refusal."""
    search = ContentToolUse(
        tool_type="web_search",
        id="server-1",
        name="web_search",
        arguments='{"query": "capital of France"}',
        result='[{"title": "Paris"}]',
    )
    broken = ContentToolUse(
        tool_type="mcp_call",
        id="server-2",
        name="lookup",
        context="atlas",
        arguments="{}",
        result="",
        error="no such city",
    )
    citations: list[UrlCitation | ContentCitation] = [
        UrlCitation(url="https://example.com/paris", title="Paris", cited_text="Paris is …"),
        ContentCitation(cited_text="The capital"),
    ]
    content: list[Content] = [
        ContentReasoning(reasoning="France … Paris.", signature="c2lnbmVk"),
        ContentReasoning(reasoning="ZW5jcnlwdGVk", redacted=True, summary="Thought of Paris."),
        search,
        broken,
        ContentText(text="The capital is Paris.", citations=citations),
        ContentData(data={"safety": "ok"}),
        ContentText(text="I won't say more.", refusal=True),
    ]
    usage = ModelUsage(
        input_tokens=100,
        output_tokens=50,
        total_tokens=1350,
        input_tokens_cache_read=1000,
        input_tokens_cache_write=200,
        reasoning_tokens=30,
        total_cost=0.0125,
    )
    return Task(
        dataset=[Sample(id="reasoning", input="What is the capital of France?", target="Paris")],
        scorer=includes(),
        model=mock_model(lambda turn: says(content, usage=usage)),
    )


@tool
def troubled() -> Tool:
    async def execute(kind: str) -> str:
        """Fail in the way wanted.

        Args:
            kind: The kind of failure.
        """
        failures: dict[str, Exception] = {
            "tool": ToolError("that won't do"),
            "timeout": TimeoutError("took too long"),
            "permission": PermissionError(13, "not yours", "/etc/shadow"),
            "missing": FileNotFoundError(2, "not there", "/nowhere"),
            "unicode": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad byte"),
        }
        if kind in failures:
            raise failures[kind]
        return "fine " * 10_000

    return execute


@task
def tool_errors() -> Task:
    """Call tools in ways that go wrong, all at once; the last call's result is cut by Inspect."""
    unparsed = ToolCall(
        id="call-unparsed", function="troubled", arguments={}, parse_error="not JSON: {kind"
    )
    kinds = ["tool", "timeout", "permission", "missing", "unicode", "fine"]
    calls = [call("troubled", f"call-{kind}", kind=kind) for kind in kinds]
    wrong = [
        call("nonexistent", "call-nonexistent", x=1),
        call("troubled", "call-arguments", colour="blue"),
        unparsed,
    ]
    return Task(
        dataset=[Sample(id="tool-errors", input="Try everything.", target="done")],
        solver=[use_tools(troubled()), generate()],
        scorer=includes(),
        model=mock_model(script([says("Trying.", *wrong, *calls), says("All done.")])),
    )


@task
def settings() -> Task:
    """Make a model call with every setting set, two choices, and an odd stop reason."""

    def respond(turn: Turn) -> ModelOutput:
        texts = {"done": "max_tokens", "done too": "content_filter"}
        return ModelOutput.model_validate(
            {
                "model": "mock-1-2025-01-01",
                "choices": [
                    ChatCompletionChoice.model_validate(
                        {"message": ChatMessageAssistant(content=text), "stop_reason": reason}
                    )
                    for text, reason in texts.items()
                ],
                "usage": ModelUsage(input_tokens=10, output_tokens=5, total_tokens=15),
                "metadata": {"response": "abc"},
            }
        )

    config = GenerateConfig(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        max_tokens=512,
        seed=42,
        stop_seqs=["END", "STOP"],
        frequency_penalty=0.1,
        presence_penalty=0.2,
        num_choices=2,
        reasoning_effort="low",
        system_message="You are brief.",
        max_retries=1,
        timeout=30,
    )
    history: list[ChatMessage] = [
        ChatMessageUser(content="Hi"),
        ChatMessageAssistant(
            content="Hello",
            tool_calls=[ToolCall(id="old-1", function="clock", arguments={"zone": "UTC"})],
        ),
        ChatMessageTool(content="12:00", tool_call_id="old-1", function="clock"),
        ChatMessageUser(content="Thanks. Are you done?"),
    ]
    return Task(
        dataset=[Sample(id="settings", input=history, target=["done", "finished"])],
        scorer=includes(),
        config=config,
        model=mock_model(respond),
    )
