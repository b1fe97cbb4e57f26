"""Chat messages and tools as the JSON objects of the GenAI conventions, and back.

A message is ``{"role", "parts", "inspect"}`` as in the conventions' message schemas; what they
have no name for stands under ``"inspect"``, in the message or in the part it belongs to, and only
where it is set. With content and media captured, the way back gives the same message.

Source: https://github.com/open-telemetry/semantic-conventions-genai (docs/gen-ai, the schemas of
``gen_ai.input.messages``, ``gen_ai.output.messages`` and ``gen_ai.system_instructions``).
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from otel_bridge.values import (
    Capture,
    media_bytes,
    media_summary,
    media_text,
    media_type,
    plain,
    strip_media,
    to_json,
)

if TYPE_CHECKING:
    from inspect_ai.model import ChatCompletionChoice, ChatMessage, ChatMessageTool, ModelOutput
    from inspect_ai.tool import Content, ToolCall, ToolInfo

__all__ = [
    "digest",
    "message_from_genai",
    "message_to_genai",
    "messages_from_genai",
    "output_message_from_genai",
    "output_messages_from_genai",
    "output_to_genai",
    "system_instructions",
    "tool_from_genai",
    "tools_to_genai",
]

Json = dict[str, Any]
_Model = TypeVar("_Model", bound=BaseModel)


# --- Inspect to GenAI ---------------------------------------------------------------------------


def message_to_genai(message: ChatMessage, capture: Capture) -> Json:
    """A chat message as an object of the conventions.

    Returns:
        ``{"role": "user", "parts": [{"type": "text", "content": "Hi"}], "inspect": {"id": "…"}}``.
        An assistant's tool calls are ``tool_call`` parts after its content; a tool's message is
        one ``tool_call_response`` part, whose response is the text, or the parts of other content.
    """
    parts = _content_parts(message.content, capture)
    inspect = _fields(message, capture, _MESSAGE_FIELDS, _SAFE_MESSAGE_FIELDS)
    if not isinstance(message.content, str) and _reads_as_text(parts):
        inspect["content"] = "list"
    if message.role == "assistant":
        if message.tool_calls:
            parts.extend(_tool_call_part(call, capture) for call in message.tool_calls)
        elif message.tool_calls is not None:
            inspect["tool_calls"] = []
    elif message.role == "tool":
        parts = [_tool_response_part(message, parts, inspect, capture)]
    result: Json = {"role": message.role, "parts": parts}
    if inspect:
        result["inspect"] = inspect
    return result


def output_to_genai(output: ModelOutput, capture: Capture) -> list[Json]:
    """The choices of a model's output: messages with a ``finish_reason``.

    The reason is the conventions' ``stop``, ``length``, ``content_filter``, ``tool_call`` or
    ``error`` (or ``unknown``); where that says less than Inspect's stop reason, and for what else
    a choice has (stop details, logprobs), there is ``inspect.choice``.
    """
    result = []
    for choice in output.choices:
        message = message_to_genai(choice.message, capture)
        reason = _FINISH_REASONS.get(choice.stop_reason, choice.stop_reason)
        if choice.stop_reason == "unknown" and output.error:
            reason = "error"
        message["finish_reason"] = reason
        extra = _fields(choice, capture, {"message", "stop_reason"}, set())
        if _STOP_REASONS.get(reason) != choice.stop_reason:
            extra["stop_reason"] = choice.stop_reason
        if extra:
            message.setdefault("inspect", {})["choice"] = extra
        result.append(message)
    return result


def system_instructions(messages: Iterable[ChatMessage], capture: Capture) -> list[Json]:
    """The parts of the system messages, one after the other."""
    return [
        part
        for message in messages
        if message.role == "system"
        for part in _content_parts(message.content, capture)
    ]


def tools_to_genai(tools: Sequence[ToolInfo], capture: Capture | None = None) -> list[Json]:
    """Tools as ``{"type": "function", "name", "description", "parameters": JSON Schema}``.

    Without content capture the description is empty and the parameters are left out.
    """
    result = []
    for tool in tools:
        definition: Json = {"type": "function", "name": tool.name, "description": ""}
        if capture is None or capture.content:
            definition["description"] = tool.description
            definition["parameters"] = plain(tool.parameters.model_dump(exclude_none=True))
            if tool.options is not None:
                definition["inspect"] = {"options": plain(tool.options)}
        result.append(definition)
    return result


def digest(obj: Mapping[str, Any]) -> str:
    """16 hex digits that tell a converted message from any other.

    The same for a message and for what is read back from its uncut JSON.
    """
    try:
        text = _SORTED.encode(obj)
    except (TypeError, ValueError, RecursionError):
        text = _SORTED.encode(plain(obj))
    try:
        data = text.encode()
    except UnicodeEncodeError:
        data = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
    return blake2b(data, digest_size=8).hexdigest()


_SORTED = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True, default=plain
)

_FINISH_REASONS: dict[str, str] = {
    "stop": "stop",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_call",
    "content_filter": "content_filter",
}
_STOP_REASONS: dict[str, str] = {
    "stop": "stop",
    "length": "max_tokens",
    "tool_call": "tool_calls",
    "content_filter": "content_filter",
    "unknown": "unknown",
}

_MESSAGE_FIELDS = {"role", "content", "tool_calls", "error"}
_SAFE_MESSAGE_FIELDS = {"id", "source", "model", "function", "tool_call_id"}


def _content_parts(content: str | list[Content], capture: Capture) -> list[Json]:
    if isinstance(content, str):
        return [_text_part(content, capture)] if content else []
    if len(content) == 1:
        return _parts(content[0], capture)
    return [part for item in content for part in _parts(item, capture)]


def _parts(content: Content, capture: Capture) -> list[Json]:
    convert = _CONVERTERS.get(getattr(content, "type", ""), _other)
    return convert(content, capture)


def _text_part(text: str, capture: Capture) -> Json:
    if not capture.content:
        return {"type": "text", "content": "", "inspect": {"bytes": _bytes(text)}}
    return {"type": "text", "content": text if capture.media else strip_media(text)}


def _text(content: Any, capture: Capture) -> list[Json]:
    part = _text_part(content.text, capture)
    return [_with(part, _fields(content, capture, {"type", "text"}, {"refusal"}))]


def _reasoning(content: Any, capture: Capture) -> list[Json]:
    """Its readable text is the part's content: the reasoning, or the summary in its place."""
    inspect = _fields(content, capture, {"type", "reasoning", "summary"}, {"redacted"})
    if not capture.content:
        size = _bytes(content.reasoning) + _bytes(content.summary or "")
        return [_with({"type": "reasoning", "content": ""}, {**inspect, "bytes": size})]
    text = content.reasoning
    if content.summary and (content.redacted or not text):
        inspect["reasoning"] = text
        text = content.summary
    else:
        if content.redacted:
            inspect["reasoning"] = text
            text = ""
        if content.summary is not None:
            inspect["summary"] = content.summary
    return [_with({"type": "reasoning", "content": text}, inspect)]


def _media(content: Any, capture: Capture) -> list[Json]:
    modality = content.type
    source: str = getattr(content, modality)
    skip = {"type", modality, "mime_type"}
    inspect = _fields(content, capture, skip, {"detail", "format"})
    declared = getattr(content, "mime_type", None) or _FORMAT_TYPES.get(
        getattr(content, "format", "")
    )
    inline = media_type(source)
    mime_type = declared or inline
    part: Json = {"type": "uri" if inline is None else "blob", "modality": modality}
    if inline is None and mime_type is None:
        mime_type = _EXTENSIONS.get(source.partition("?")[0].rpartition(".")[2].lower())
    if mime_type is not None:
        part["mime_type"] = mime_type
    if inline is None:
        part["uri"] = source if capture.content else ""
    elif not capture.content:
        part["content"] = ""
        inspect["bytes"] = len(media_bytes(source))
    elif capture.media:
        part["content"], form = _payload(source, str(mime_type))
        inspect |= form
    else:
        summary = {**(media_summary(source) or {}), "mime_type": mime_type}
        part = {"type": "text", "content": media_text(summary)}
        inspect = {"type": modality, **summary, **inspect}
    return [_with(part, inspect)]


def _payload(source: str, mime_type: str) -> tuple[str, Json]:
    """The base64 of inline media, and what it takes to write `source` again."""
    if source.startswith("data:"):
        head, _, payload = source.partition(",")
        if head == f"data:{mime_type};base64":
            return payload, {}
        if head.endswith(";base64"):
            return payload, {"prefix": f"{head},"}
    elif source[:5].lower() != "data:":
        return source, {"prefix": ""}
    return base64.b64encode(media_bytes(source)).decode(), {"uri": source}


def _data(content: Any, capture: Capture) -> list[Json]:
    return [_with({"type": "data"}, _fields(content, capture, {"type"}, set()))]


def _tool_use(content: Any, capture: Capture) -> list[Json]:
    """A tool that the provider ran: its call and its response, as two parts."""
    call: Json = {"type": content.tool_type}
    response: Json = {"type": content.tool_type}
    if capture.content:
        call["arguments"] = _stripped(content.arguments, capture)
        response["result"] = _stripped(content.result, capture)
        if content.error is not None:
            response["error"] = content.error
    skip = {"type", "tool_type", "id", "name", "arguments", "result", "error"}
    return [
        _with(
            {
                "type": "server_tool_call",
                "id": content.id,
                "name": content.name,
                "server_tool_call": call,
            },
            _fields(content, capture, skip, set()),
        ),
        {
            "type": "server_tool_call_response",
            "id": content.id,
            "server_tool_call_response": response,
        },
    ]


def _tool_response_part(
    message: ChatMessageTool, parts: list[Json], inspect: Json, capture: Capture
) -> Json:
    """The response is the text, or the parts of other content, or an error's message.

    An error goes to the message's `inspect`; its text too, unless it is the response.
    """
    part: Json = {"type": "tool_call_response"}
    if message.tool_call_id is not None:
        part["id"] = inspect.pop("tool_call_id")
    text = message.content if isinstance(message.content, str) else None
    if text is not None and not capture.content:
        part["response"] = ""
        part["inspect"] = {"bytes": _bytes(text)}
    elif text is not None:
        part["response"] = parts[0]["content"] if parts else ""
    elif _is_text(parts) and parts[0]["content"]:
        part["response"] = parts[0]["content"]
    else:
        part["response"] = parts
    if message.error is not None:
        inspect["error"] = {"type": message.error.type}
        if capture.content and text == "":
            part["response"] = message.error.message
        elif capture.content:
            inspect["error"]["message"] = message.error.message
    return part


def _other(content: Any, capture: Capture) -> list[Json]:
    """Content of a type that is unknown here: its type and, captured, its JSON."""
    part: Json = {"type": str(getattr(content, "type", type(content).__name__))}
    if capture.content:
        part["inspect"] = {"content": _stripped(plain(content), capture)}
    return [part]


def _tool_call_part(call: ToolCall, capture: Capture) -> Json:
    part: Json = {"type": "tool_call", "id": call.id, "name": call.function}
    if capture.content:
        part["arguments"] = _stripped(plain(call.arguments), capture)
    return _with(part, _fields(call, capture, {"id", "function", "arguments"}, {"type"}))


_CONVERTERS: dict[str, Callable[[Any, Capture], list[Json]]] = {
    "text": _text,
    "reasoning": _reasoning,
    "image": _media,
    "audio": _media,
    "video": _media,
    "document": _media,
    "data": _data,
    "tool_use": _tool_use,
}

_FORMAT_TYPES = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "mpeg": "video/mpeg",
    "mov": "video/quicktime",
}
"""The mime types of Inspect's audio and video formats."""

_EXTENSIONS = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "svg": "image/svg+xml",
}
"""The mime types of images by name (not the system's table: it differs between machines)."""


def _with(part: Json, inspect: Json) -> Json:
    if inspect:
        part["inspect"] = {**part.get("inspect", {}), **inspect}
    return part


def _is_text(parts: Sequence[Any]) -> bool:
    return len(parts) == 1 and _type(parts[0]) == "text" and "inspect" not in parts[0]


def _is_part(value: Any) -> bool:
    """Whether an element of a tool's response is a part of a message, not data of the tool's."""
    return _type(value) in _RESPONSE_PARTS or (bool(_type(value)) and "inspect" in value)


_RESPONSE_PARTS = {
    "text",
    "reasoning",
    "blob",
    "uri",
    "file",
    "server_tool_call",
    "server_tool_call_response",
}


def _reads_as_text(parts: Sequence[Any]) -> bool:
    """Whether the way back takes `parts` for a plain string."""
    return not parts or _is_text(parts)


def _stripped(value: Any, capture: Capture) -> Any:
    return value if capture.media else strip_media(value)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def _fields(value: Any, capture: Capture, skip: set[str], safe: set[str]) -> Json:
    """The fields of a model or dataclass that are set and not in `skip`, as plain values.

    Without content capture only those in `safe`. Fields that a newer Inspect adds come along.
    """
    result: Json = {}
    cls: Any = type(value)
    for name, default in _defaults(cls):
        if name in skip or not (capture.content or name in safe):
            continue
        item = getattr(value, name, default)
        if item is None or item is default:
            continue
        if isinstance(item, (str, bool, int)):
            if item != default:
                result[name] = item
        else:
            result[name] = _stripped(_dumped(item), capture)
    return result


def _dumped(value: Any) -> Any:
    """A plain value, with models' unset fields left out."""
    if isinstance(value, (list, tuple)):
        return [_dumped(item) for item in value]
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(exclude_none=True, warnings=False))
    return plain(value)


@cache
def _defaults(cls: Any) -> tuple[tuple[str, Any], ...]:
    """The fields of a pydantic model or dataclass with their defaults (_REQUIRED without)."""
    if dataclasses.is_dataclass(cls):
        return tuple(
            (field.name, _REQUIRED if field.default is dataclasses.MISSING else field.default)
            for field in dataclasses.fields(cls)
        )
    return tuple(
        (name, _REQUIRED if field.is_required() else field.get_default(call_default_factory=True))
        for name, field in cls.model_fields.items()
    )


_REQUIRED = object()


# --- GenAI to Inspect ---------------------------------------------------------------------------


def message_from_genai(obj: Mapping[str, Any]) -> ChatMessage:
    """The chat message of an object of the conventions.

    Exact for what `message_to_genai` wrote with content and media captured. A message by other
    instrumentation has no id. Of an object with several tool responses this is the first:
    `messages_from_genai` gives all.
    """
    return _messages(obj)[0]


def messages_from_genai(objs: Iterable[Mapping[str, Any]]) -> list[ChatMessage]:
    """The chat messages of objects of the conventions: several for several tool responses."""
    return [message for obj in objs for message in _messages(obj)]


def output_message_from_genai(obj: Mapping[str, Any]) -> ChatCompletionChoice:
    """The choice (message, stop reason, details) of an output message of the conventions."""
    from inspect_ai.model import ChatCompletionChoice, ChatMessageAssistant

    message = message_from_genai({**obj, "role": "assistant"})
    if not isinstance(message, ChatMessageAssistant):
        message = ChatMessageAssistant(content=message.content, id=message.id)
    reason = str(obj.get("finish_reason"))
    stop_reason = _STOP_REASONS.get(reason) or _OTHER_STOP_REASONS.get(reason, "unknown")
    extra = _mapping(_mapping(obj.get("inspect")).get("choice"))
    data = {"message": message, "stop_reason": stop_reason}
    return _validated(ChatCompletionChoice, data, extra)


def output_messages_from_genai(objs: Iterable[Mapping[str, Any]]) -> list[ChatCompletionChoice]:
    """The choices of output messages of the conventions."""
    return [output_message_from_genai(obj) for obj in objs]


def tool_from_genai(obj: Mapping[str, Any]) -> ToolInfo:
    """The tool of a tool definition of the conventions; a schema it cannot hold is left empty."""
    from inspect_ai.tool import ToolInfo

    function = _mapping(obj.get("function")) or obj  # some write OpenAI's nested form
    data = {
        "name": _string(function.get("name")),
        "description": _string(function.get("description")),
    }
    extra = {"parameters": function.get("parameters"), **_mapping(obj.get("inspect"))}
    return _validated(ToolInfo, data, {k: v for k, v in extra.items() if v is not None})


_OTHER_STOP_REASONS = {
    "max_tokens": "max_tokens",
    "model_length": "model_length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "eos": "stop",
    "refusal": "content_filter",
    "safety": "content_filter",
}
"""Finish reasons that instrumentation passes on as the provider gave them."""

_ROLES: dict[str, Literal["system", "user", "assistant", "tool"]] = {
    "system": "system",
    "developer": "system",
    "assistant": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "tool": "tool",
    "function": "tool",
}


def _messages(obj: Mapping[str, Any]) -> list[ChatMessage]:
    from inspect_ai.model import (
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageTool,
        ChatMessageUser,
    )

    role = _ROLES.get(str(obj.get("role")).lower(), "user")
    inspect = _mapping(obj.get("inspect"))
    parts = _part_list(obj)
    responses = [part for part in parts if _type(part) == "tool_call_response"]
    rest = [part for part in parts if _type(part) != "tool_call_response"]
    messages: list[ChatMessage] = [
        _with_id(_tool_message(part, inspect), inspect) for part in responses
    ]
    if messages and not rest:
        return messages
    as_list = inspect.get("content") == "list"
    fields = {k: v for k, v in inspect.items() if k not in _NOT_FIELDS} | _NO_ID
    if role == "assistant":
        calls = [part for part in rest if _type(part) == "tool_call"]
        rest = [part for part in rest if _type(part) != "tool_call"]
        data: Json = {"content": _content(rest, as_list)}
        if calls or inspect.get("tool_calls") == []:
            data["tool_calls"] = [_tool_call(part) for part in calls]
        message: ChatMessage = _validated(ChatMessageAssistant, data, fields)
    else:
        data = {"content": _content(rest, as_list)}
        if role == "system":
            message = _validated(ChatMessageSystem, data, fields)
        elif role == "tool":
            message = _validated(ChatMessageTool, data, fields)
        else:
            message = _validated(ChatMessageUser, data, fields)
    return [*messages, _with_id(message, inspect)]


_NO_ID = {"id": ""}
"""Until `_with_id`: Inspect would take its time to make one up."""
_NOT_FIELDS = {"id", "role", "content", "choice", "tool_calls", "error"}


def _with_id(message: ChatMessage, inspect: Mapping[str, Any]) -> ChatMessage:
    identity = inspect.get("id")
    message.id = identity if isinstance(identity, str) else None  # Inspect makes one up
    return message


def _tool_message(part: Mapping[str, Any], inspect: Mapping[str, Any]) -> ChatMessage:
    from inspect_ai.model import ChatMessageTool

    response = part.get("response", part.get("result"))
    as_list = inspect.get("content") == "list"
    content: Any
    if isinstance(response, list) and (as_list or (response and all(map(_is_part, response)))):
        content = _content(response, as_list)
    elif as_list and isinstance(response, str):
        content = _content([{"type": "text", "content": response}] if response else [], as_list)
    else:
        content = _string(response)
    fields = {k: v for k, v in inspect.items() if k not in _NOT_FIELDS} | _NO_ID
    error = _mapping(inspect.get("error"))
    if "message" in error:
        fields["error"] = error
    elif error:
        fields["error"] = {**error, "message": _string(response)}
        content = ""
    if isinstance(part.get("id"), str):
        fields["tool_call_id"] = part["id"]
    return _validated(ChatMessageTool, {"content": content}, fields)


def _content(parts: Sequence[Any], as_list: bool) -> str | list[Any]:
    if not as_list:
        if not parts:
            return ""
        if len(parts) == 1 and isinstance(parts[0], str):
            return _string(parts[0])
        if _is_text(parts):
            return _part_text(parts[0])
    responses: dict[str, list[Any]] = {}
    for part in parts:
        if _type(part) == "server_tool_call_response":
            responses.setdefault(_string(part.get("id")), []).append(part)
    result = []
    for part in parts:
        if _type(part) == "server_tool_call":
            answers = responses.get(_string(part.get("id")))
            result.append(_tool_use_content(part, answers.pop(0) if answers else {}))
        elif _type(part) != "server_tool_call_response":
            result.append(_part_content(part))
    result.extend(_data_content(part) for answers in responses.values() for part in answers)
    return result


def _part_content(part: Any) -> Any:
    from inspect_ai.model import ContentReasoning, ContentText

    if not isinstance(part, Mapping):
        return ContentText(text=_string(part))
    inspect = _mapping(part.get("inspect"))
    kind = _type(part)
    if kind == "text":
        if "type" in inspect:  # stands in for media that was not captured
            return ContentText(text=_part_text(part))
        return _validated(ContentText, {"text": _part_text(part)}, inspect)
    if kind == "reasoning":
        text = _part_text(part)
        data: Json = {"reasoning": text}
        if "reasoning" in inspect and "summary" not in inspect and text:
            data["summary"] = text
        return _validated(ContentReasoning, data, inspect)
    if kind in ("blob", "uri"):
        return _media_content(part, inspect) or _data_content(part)
    if isinstance(inspect.get("content"), Mapping):
        try:
            return _content_adapter().validate_python(inspect["content"])
        except ValidationError:
            return _data_content(part)
    return _data_content(part)


def _media_content(part: Mapping[str, Any], inspect: Mapping[str, Any]) -> Any:
    from inspect_ai.model import ContentAudio, ContentDocument, ContentImage, ContentVideo

    mime_type = part.get("mime_type")
    mime_type = mime_type if isinstance(mime_type, str) else ""
    modality = str(part.get("modality") or mime_type.partition("/")[0])
    if part.get("type") == "uri":
        source = _string(part.get("uri"))
    elif "uri" in inspect:
        source = _string(inspect["uri"])
    else:
        prefix = inspect.get("prefix", f"data:{mime_type or 'application/octet-stream'};base64,")
        source = f"{prefix}{_string(part.get('content'))}"
    if modality == "image":
        return _validated(ContentImage, {"image": source}, inspect)
    if modality in ("audio", "video"):
        cls: Any = ContentAudio if modality == "audio" else ContentVideo
        form = inspect.get("format") or _MIME_FORMATS.get(mime_type.lower())
        try:
            return cls.model_validate({**inspect, modality: source, "format": form})
        except ValidationError:
            pass  # a format that Inspect has no name for: a document can be of any type
    data = {"document": source}
    if mime_type:
        data["mime_type"] = mime_type
    return _validated(ContentDocument, data, inspect)


_MIME_FORMATS = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "video/mp4": "mp4",
    "video/mpeg": "mpeg",
    "video/quicktime": "mov",
}


def _tool_use_content(part: Mapping[str, Any], response_part: Mapping[str, Any]) -> Any:
    from inspect_ai.model import ContentToolUse

    call = _mapping(part.get("server_tool_call"))
    response = _mapping(response_part.get("server_tool_call_response"))
    name = _string(part.get("name"))
    kind = str(call.get("type") or name)
    fields = _mapping(part.get("inspect"))
    arguments = call.get("arguments") if "arguments" in call else _without_type(call)
    result = response.get("result") if "result" in response else _without_type(response)
    data = {
        "tool_type": next((to for key, to in _TOOL_TYPES.items() if key in kind), kind),
        "id": _string(part.get("id")),
        "name": name,
        "arguments": _string(arguments),
        "result": _string(result),
    }
    if isinstance(response.get("error"), str):
        data["error"] = response["error"]
    try:
        return ContentToolUse.model_validate({**fields, **data})
    except ValidationError:
        return _data_content({**part, **response_part, "type": "server_tool_call"})


_TOOL_TYPES = {
    "web_search": "web_search",
    "search": "web_search",
    "mcp": "mcp_call",
    "code": "code_execution",
}


def _without_type(value: Mapping[str, Any]) -> Any:
    return {key: item for key, item in value.items() if key != "type"} or None


def _data_content(part: Mapping[str, Any]) -> Any:
    """A part that Inspect has no content type for, kept as data."""
    from inspect_ai.model import ContentData

    inspect = part.get("inspect")
    if _type(part) == "data" and isinstance(inspect, Mapping) and "data" in inspect:
        return _validated(ContentData, {"data": plain(inspect["data"])}, inspect)
    return ContentData(data=plain(dict(part)))


def _tool_call(part: Mapping[str, Any]) -> ToolCall:
    from inspect_ai.tool import ToolCall

    arguments = part.get("arguments")
    if isinstance(arguments, str):
        with suppress(ValueError):
            arguments = json.loads(arguments)
    if not isinstance(arguments, Mapping):
        arguments = {} if arguments is None else {"input": arguments}
    call = ToolCall(
        id=_string(part.get("id")),
        function=_string(part.get("name")),
        arguments={_string(key): value for key, value in arguments.items()},
    )
    inspect = _mapping(part.get("inspect"))
    if not inspect:
        return call
    data = {**inspect, "id": call.id, "function": call.function, "arguments": call.arguments}
    try:
        validated: ToolCall = _adapter(ToolCall).validate_python(data)
    except ValidationError:
        return call
    return validated


def _part_list(obj: Mapping[str, Any]) -> list[Any]:
    parts = obj.get("parts")
    if parts is None:
        parts = obj.get("content")  # as the conventions had it before parts
    if parts is None or parts == "":
        return []
    return list(parts) if isinstance(parts, (list, tuple)) else [_string(parts)]


def _validated(cls: type[_Model], data: Json, extra: Mapping[str, Any]) -> _Model:
    """`cls` from `data` and what of `extra` it accepts (cut or foreign values may not fit)."""
    try:
        return cls.model_validate({**data, **extra})
    except ValidationError as error:
        wrong = {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
    try:
        return cls.model_validate({**data, **{k: v for k, v in extra.items() if k not in wrong}})
    except ValidationError:
        return cls.model_validate(data)


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


@cache
def _content_adapter() -> TypeAdapter[Any]:
    from inspect_ai.model import Content

    return TypeAdapter(Content)


_NO_LIMIT = 1 << 62


def _type(part: Any) -> str:
    return str(part.get("type") or "") if isinstance(part, Mapping) else ""


def _part_text(part: Mapping[str, Any]) -> str:
    """The text of a part; some write it as providers do, under "text"."""
    return _string(part["content"] if "content" in part else part.get("text"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _string(value: Any) -> str:
    if isinstance(value, str):
        return str(plain(value))
    return "" if value is None else to_json(value, _NO_LIMIT)
