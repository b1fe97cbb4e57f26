"""Messages as providers and frameworks write them → messages of the GenAI conventions (pure).

One reading for all: OpenAI (chat completions and responses), Anthropic, Gemini, Bedrock, LangChain,
and the conventions themselves differ in the keys they use, and these hardly collide. From there
`otel_bridge.messages` goes on to Inspect's messages.
"""

from __future__ import annotations

import ast
import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from inspect_mlflow.scout.tree import loaded

Json = dict[str, Any]

_ROLES = {
    "human": "user",
    "ai": "assistant",
    "aimessagechunk": "assistant",
    "model": "assistant",
    "developer": "system",
}
_TEXT = {"text", "input_text", "output_text", "summary_text"}
_GENAI = {
    "tool_call",
    "tool_call_response",
    "blob",
    "uri",
    "server_tool_call",
    "server_tool_call_response",
}
_BY_USER = {"text", "blob", "uri", "data", "tool_call_response"}
"""Parts that make a message of the user's where no role is given."""
_RUN_BY_OPENAI = {"web_search", "file_search", "code_interpreter", "mcp", "mcp_list_tools"}
_REASONS = {
    "max_output_tokens": "length",
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
    "model_context_window_exceeded": "model_length",
}
_FORMATS = {
    "mp3": "audio/mpeg",
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "html": "text/html",
}
_OBJECT = re.compile(r"<.+ object .*at 0x[0-9a-fA-F]+>|<class '[\w.]+'>")
"""What MLflow records of an object that it knows nothing of, such as a stream."""


def messages(value: Any) -> list[Json]:
    """A conversation: a list of messages or items, one of them, or a text by the user."""
    if isinstance(value, str):
        return [text_message("user", value)] if value else []
    if isinstance(value, Mapping):
        return messages([value])
    if not isinstance(value, Sequence):
        return []
    result: list[Json] = []
    for item in value:
        if isinstance(item, str):
            result.append(text_message("user", item))
        elif isinstance(item, Mapping):
            result += _item(item, result)
        elif isinstance(item, list):  # LangChain's batches
            result += messages(item)
    return result


def system(value: Any) -> list[Json]:
    """System instructions, which some pass beside the conversation."""
    if not value:
        return []
    if isinstance(value, str):
        return [text_message("system", value)]
    if isinstance(value, Mapping) and "parts" in value:
        value = value["parts"]
    parts = [part for item in _list(value) for part in _parts(item)]
    return [{"role": "system", "parts": parts}] if parts else []


def answers(value: Any, reason: Any = None) -> list[Json]:
    """What a model call gave: its choices, with `finish_reason`. Nothing where it can't be told.

    `reason` is why it ended, for a list of messages that doesn't say it.
    """
    value = _first_of_batch(value)
    if isinstance(value, str):
        is_text = value and not _OBJECT.fullmatch(value)
        return [text_message("assistant", value)] if is_text else []
    if isinstance(value, list):
        if value and all(isinstance(item, Mapping) and "finish_reason" in item for item in value):
            return [{**_one(item), "finish_reason": item["finish_reason"]} for item in value]
        found = [m for m in messages(value) if m["role"] == "assistant"]
        return [_finished(m, reason) for m in found[-1:]]
    if not isinstance(value, Mapping):
        return []
    if isinstance(value.get("choices"), list):
        return [_choice(choice) for choice in value["choices"] if isinstance(choice, Mapping)]
    if isinstance(value.get("candidates"), list):
        return [
            _finished(
                _one(candidate.get("content") or {}, "assistant"),
                candidate.get("finish_reason", candidate.get("finishReason")),
            )
            for candidate in value["candidates"]
            if isinstance(candidate, Mapping)
        ]
    if isinstance(value.get("generations"), list):
        generations = value["generations"]
        if generations and isinstance(generations[0], list):
            generations = generations[0]
        return [
            _finished(
                _one(found.get("message") or {"content": found.get("text", "")}, "assistant"),
                _mapping(found.get("generation_info")).get("finish_reason"),
            )
            for found in generations
            if isinstance(found, Mapping)
        ]
    output = value.get("output")
    if isinstance(output, list):  # OpenAI's responses
        found = [m for m in messages(output) if m["role"] == "assistant"]
        cut = _mapping(value.get("incomplete_details")).get("reason")
        return [_finished(m, None if _calls(m) else cut) for m in found[-1:]]
    reason = value.get("stop_reason") or value.get("stopReason") or reason
    for name in ("message", "messages", "output", "outputs", "response", "answer"):
        if value.get(name) and "content" not in value:
            return answers(value[name], reason)
    if "content" in value or "parts" in value or "tool_calls" in value:
        return [_finished(_one(value, "assistant"), reason)]
    return []


def answer_of_chunks(chunks: Iterable[Any]) -> Json | None:
    """The completion that OpenAI streamed. MLflow's own sum of it leaves tool calls out."""
    text: dict[str, list[str]] = {}
    thoughts: dict[str, list[str]] = {}
    calls: dict[str, dict[str, Json]] = {}
    result: Json = {}
    reasons: dict[str, Any] = {}
    for chunk in chunks:
        if not isinstance(chunk, Mapping) or not isinstance(chunk.get("choices"), list):
            return None
        for name in ("id", "model", "usage"):
            if chunk.get(name) is not None:
                result[name] = chunk[name]
        for choice in map(_mapping, chunk["choices"]):
            index, delta = str(choice.get("index", 0)), _mapping(choice.get("delta"))
            said = _list(delta.get("content") or delta.get("refusal"))
            text.setdefault(index, []).extend(t for t in said if isinstance(t, str))
            thought = delta.get("reasoning_content") or delta.get("reasoning")
            thoughts.setdefault(index, []).append(thought if isinstance(thought, str) else "")
            for part in (p for item in said if isinstance(item, Mapping) for p in _parts(item)):
                into = {"text": text, "reasoning": thoughts}.get(part["type"], {})
                into.setdefault(index, []).append(str(part.get("content") or ""))
            reasons[index] = choice.get("finish_reason") or reasons.get(index)
            for call in map(_mapping, _list(delta.get("tool_calls"))):
                known = calls.setdefault(index, {}).setdefault(
                    str(call.get("index", 0)), {"id": "", "function": {"name": "", "arguments": ""}}
                )
                function = _mapping(call.get("function"))
                known["id"] = call.get("id") or known["id"]
                known["function"]["name"] += str(function.get("name") or "")
                known["function"]["arguments"] += str(function.get("arguments") or "")
    if not text:
        return None
    result["choices"] = [
        {
            "message": {
                "role": "assistant",
                "reasoning_content": "".join(thoughts[index]),
                "content": "".join(pieces),
                "tool_calls": list(calls.get(index, {}).values()),
            },
            "finish_reason": reasons.get(index),
        }
        for index, pieces in sorted(text.items())
    ]
    return result


def tools(value: Any) -> Iterator[Json]:
    """Tool definitions, as the conventions have them."""
    for tool in _list(value):
        if not isinstance(tool, Mapping):
            continue
        declared = tool.get("function_declarations", tool.get("functionDeclarations"))
        if declared:
            yield from tools(declared)
            continue
        function = _inner(tool)
        name = function.get("name")
        if name:
            schema = function.get("parameters") or function.get("input_schema")
            yield {
                "name": name,
                "description": function.get("description") or "",
                "parameters": schema or {"type": "object", "properties": {}},
            }


# --- messages and items ---------------------------------------------------------------------------


def _item(item: Mapping[str, Any], before: list[Json]) -> list[Json]:
    """The messages of an item; what an assistant's turn consists of goes to the one before."""
    kind = str(item.get("type") or "")
    if kind == "additional_tools":
        return []
    if kind == "message" and item.get("role") == "assistant":
        return _same_turn(before, [p for c in _list(item.get("content")) for p in _parts(c)])
    is_message = kind != "reasoning" and any(n in item for n in ("content", "parts", "kwargs"))
    if is_message or "role" in item:
        return _message(item)
    if kind.endswith("_output"):
        given = next((item[n] for n in ("output", "result", "tools") if item.get(n)), None)
        given = [given] if isinstance(given, Mapping) else given
        return [_tool_message(item.get("call_id") or item.get("id"), given, False)]
    parts = _item_parts(item, kind) or _parts(item)
    if kind != "image_generation_call" and all(part["type"] in _BY_USER for part in parts):
        return [{"role": "user", "parts": parts}]
    return _same_turn(before, parts)


def _item_parts(item: Mapping[str, Any], kind: str) -> list[Json]:
    """The parts of an item of OpenAI's: a call, a tool that OpenAI ran; none of any other."""
    name = kind.removesuffix("_call")
    if name in _RUN_BY_OPENAI:
        return _run_by_openai(item, name)
    if kind == "image_generation_call" and item.get("result"):
        image = {"data": item["result"], "format": item.get("output_format") or "png"}
        return [_source(image, "image")]
    if name == kind or kind in _GENAI or kind == "image_generation_call":
        return []
    about = ("type", "id", "call_id", "status", "name")
    rest = {key: _set(value) for key, value in item.items() if value and key not in about}
    call = {
        "type": "tool_call",
        "id": str(item.get("call_id") or item.get("id") or name),
        "name": str(item.get("name") or name),
        "arguments": loaded(item["arguments"]) if "arguments" in item else rest,
    }
    return [{**call, "inspect": {"type": "custom"}} if kind == "custom_tool_call" else call]


def _run_by_openai(item: Mapping[str, Any], kind: str) -> list[Json]:
    """As Inspect's own provider has it."""
    name, error = str(item.get("name") or kind), item.get("error")
    arguments, result = item.get("arguments"), item.get("output")
    if kind == "web_search":
        arguments = _set(_mapping(item.get("action")) or {"type": "search", "query": ""})
        name = str(arguments.get("type") or "search")
    elif kind == "file_search":
        arguments, result = item.get("queries"), item.get("results")
    elif kind == "code_interpreter":
        outputs = [output for output in _list(item.get("outputs")) if isinstance(output, Mapping)]
        texts = [output.get("logs") or f"image: {output.get('url')}" for output in outputs]
        arguments, result = item.get("code"), "\n\n".join(texts)
    elif kind == "mcp_list_tools":
        result = _set(item.get("tools"))
    if isinstance(error, Mapping):
        error = error.get("content") or f"{error.get('message')} ({error.get('code')})"
    if error is None and item.get("status") == "failed":
        error = "failed"
    identity = str(item.get("id") or "")
    return [
        {
            "type": "server_tool_call",
            "id": identity,
            "name": name,
            "server_tool_call": {"type": kind, "arguments": arguments},
            "inspect": {"context": item.get("server_label")},
        },
        {
            "type": "server_tool_call_response",
            "id": identity,
            "server_tool_call_response": {"type": kind, "result": result, "error": error},
        },
    ]


def _set(value: Any) -> Any:
    """Without the fields that are null: the SDK's for what is not set."""
    if isinstance(value, Mapping):
        return {name: _set(item) for name, item in value.items() if item is not None}
    return [_set(item) for item in value] if isinstance(value, list) else value


def _same_turn(before: list[Json], parts: list[Json]) -> list[Json]:
    if before and before[-1].get("turn"):
        before[-1]["parts"] += parts
        return []
    return [{"role": "assistant", "parts": parts, "turn": True}]


def _one(message: Any, role: str | None = None) -> Json:
    found = _message(message, role) if isinstance(message, Mapping) else messages(message)
    return found[-1] if found else {"role": role or "assistant", "parts": []}


def _message(message: Mapping[str, Any], role: str | None = None) -> list[Json]:
    if isinstance(message.get("kwargs"), Mapping) and isinstance(message.get("id"), list):
        kind = str(message["id"][-1]).removesuffix("Chunk").removesuffix("Message").lower()
        message = {"type": kind, **message["kwargs"]}  # LangChain's serialization
    role = str(message.get("role") or role or message.get("type") or "user").lower()
    role = _ROLES.get(role, role)
    if role in ("tool", "function") and "parts" not in message:
        call_id = message.get("tool_call_id") or message.get("name")
        failed = message.get("status") == "error" or bool(message.get("is_error"))
        answer = _tool_message(call_id, message.get("content"), failed)
        if message.get("name"):
            answer.setdefault("inspect", {})["function"] = message["name"]
        return [answer]
    extra = message.get("additional_kwargs")
    fields: Mapping[str, Any] = {**(extra if isinstance(extra, Mapping) else {}), **message}
    content = message.get("parts", message.get("content"))
    results: list[Json] = []
    parts: list[Json] = []
    for name in ("reasoning_content", "reasoning"):
        if isinstance(fields.get(name), str) and fields[name]:
            parts.append({"type": "reasoning", "content": fields[name]})
            break
    for item in _list(content):
        if isinstance(item, Mapping) and item.get("type") == "tool_result":
            failed = bool(item.get("is_error"))
            results.append(_tool_message(item.get("tool_use_id"), item.get("content"), failed))
        elif isinstance(item, Mapping) and isinstance(item.get("toolResult"), Mapping):  # Bedrock
            given = item["toolResult"]
            failed = given.get("status") == "error"
            results.append(_tool_message(given.get("toolUseId"), given.get("content"), failed))
        else:
            parts += _parts(item)
    if fields.get("refusal"):
        refusal = str(fields["refusal"])
        parts.append({"type": "text", "content": refusal, "inspect": {"refusal": True}})
    if role == "assistant":
        known = {part.get("id") for part in parts if part["type"] == "tool_call"}
        parts += [c for c in map(_call, _list(fields.get("tool_calls"))) if c["id"] not in known]
        if isinstance(fields.get("function_call"), Mapping) and not fields.get("tool_calls"):
            parts.append(_call({"function": fields["function_call"]}))
    if results and not parts:
        return results
    result: Json = {"role": role, "parts": parts}
    if isinstance(message.get("inspect"), Mapping):
        result["inspect"] = dict(message["inspect"])
    return [*results, result]


def text_message(role: str, text: str) -> Json:
    """A message of one text."""
    return {"role": role, "parts": [{"type": "text", "content": text}]}


def _tool_message(call_id: Any, content: Any, failed: bool) -> Json:
    response: Any = content
    if isinstance(content, list):
        parts = [part for item in content for part in _parts(item)]
        texts = [part.get("content") for part in parts if part["type"] == "text"]
        response = "\n".join(map(str, texts)) if len(texts) == len(parts) else parts
    part: Json = {"type": "tool_call_response", "response": response}
    if call_id is not None:
        part["id"] = str(call_id)
    result: Json = {"role": "tool", "parts": [part]}
    if failed:
        text = response if isinstance(response, str) else json.dumps(response, default=str)
        result["inspect"] = {"error": {"type": "unknown", "message": text}}
    return result


def _choice(choice: Mapping[str, Any]) -> Json:
    message = choice.get("message")
    if message is None:
        message = {"content": choice.get("text", "")}
    return _finished(_one(message, "assistant"), choice.get("finish_reason"))


def _finished(message: Json, reason: Any) -> Json:
    if reason is None:
        reason = "tool_call" if _calls(message) else "stop"
    reason = str(reason).rpartition(".")[2].lower()
    return {**message, "finish_reason": _REASONS.get(reason, reason)}


def _calls(message: Json) -> bool:
    return any(part["type"] == "tool_call" for part in message["parts"])


def _call(call: Any) -> Json:
    if not isinstance(call, Mapping):
        return {"type": "tool_call", "id": "", "name": str(call), "arguments": {}}
    if isinstance(call.get("tool_call"), Mapping):
        call = call["tool_call"]
    function = _inner(call)
    arguments = function.get("arguments", function.get("args", function.get("input")))
    name = str(function.get("name") or "")
    identity = str(call.get("id") or call.get("call_id") or name)
    return {"type": "tool_call", "id": identity, "name": name, "arguments": loaded(arguments)}


# --- parts ----------------------------------------------------------------------------------------


def _parts(part: Any) -> list[Json]:
    if isinstance(part, str):
        return [{"type": "text", "content": part}] if part else []
    if not isinstance(part, Mapping):
        return []
    kind = part.get("type")
    kind = kind if isinstance(kind, str) else None
    if kind in _GENAI or (
        kind in ("text", "reasoning") and "content" in part and "text" not in part
    ):
        content = part.get("content")
        if kind != "reasoning" or isinstance(content, str):
            return [dict(part)]
    if kind in _TEXT or (kind is None and isinstance(part.get("text"), str)):
        text = part.get("text")
        text = text.get("value") if isinstance(text, Mapping) else text
        as_reasoning = bool(part.get("thought"))  # Gemini
        return [{"type": "reasoning" if as_reasoning else "text", "content": str(text or "")}]
    if kind == "refusal":
        refusal = str(part.get("refusal") or "")
        return [{"type": "text", "content": refusal, "inspect": {"refusal": True}}]
    if kind == "redacted_thinking" or (kind == "reasoning" and "data" in part):
        secret = {"reasoning": str(part.get("data") or ""), "redacted": True}
        return [{"type": "reasoning", "content": "", "inspect": secret}]
    if kind in ("thinking", "reasoning"):
        signed = {"inspect": {"signature": part["signature"]}} if part.get("signature") else {}
        text = str(part.get("thinking") or "") if kind == "thinking" else _reasoning(part)
        return [{"type": "reasoning", "content": text, **signed}]
    if kind == "tool_use" and "tool_call" in part:  # OpenInference
        return [_call(part)]
    if kind == "tool_use":
        call = {"id": str(part.get("id") or ""), "name": str(part.get("name") or "")}
        return [{"type": "tool_call", **call, "arguments": loaded(part.get("input"))}]
    if kind in ("server_tool_use", "mcp_tool_use"):  # Anthropic
        name = str(part.get("name") or "")
        called = {"type": "mcp" if kind == "mcp_tool_use" else name, "arguments": part.get("input")}
        identity = str(part.get("id") or "")
        return [
            {"type": "server_tool_call", "id": identity, "name": name, "server_tool_call": called}
        ]
    if kind is not None and kind.endswith("_tool_result") and "tool_use_id" in part:
        content = part.get("content")
        gave = {"type": kind, "result": content, "error": _mapping(content).get("error_code")}
        identity = str(part["tool_use_id"])
        response = {"type": "server_tool_call_response", "id": identity}
        return [{**response, "server_tool_call_response": gave}]
    for name in ("function_call", "functionCall", "toolUse"):  # Gemini, Bedrock
        if isinstance(part.get(name), Mapping):
            called = part[name]
            identity = called.get("id") or called.get("toolUseId") or called.get("name")
            return [_call({**called, "id": identity})]
    for name in ("function_response", "functionResponse"):
        if isinstance(part.get(name), Mapping):
            given = part[name]
            identity = str(given.get("id") or given.get("name") or "")
            response = given.get("response")
            return [{"type": "tool_call_response", "id": identity, "response": response}]
    if isinstance(part.get("reasoningContent"), Mapping):  # Bedrock
        secret = part["reasoningContent"].get("redactedContent")
        said = _mapping(part["reasoningContent"].get("reasoningText"))
        if secret is not None:
            return _parts({"type": "redacted_thinking", "data": _base64(secret)})
        return _parts({"type": "reasoning", **said})
    if kind is None and "json" in part:
        return [{"type": "text", "content": json.dumps(part["json"], ensure_ascii=False)}]
    return _media(part)


def _reasoning(part: Mapping[str, Any]) -> str:
    for name in ("summary", "content"):
        texts = [t.get("text") for t in _list(part.get(name)) if isinstance(t, Mapping)]
        if any(texts):
            return "\n".join(str(text) for text in texts if text)
    return str(part.get("reasoning") or part.get("text") or "")


def _media(part: Mapping[str, Any]) -> list[Json]:
    """An image, audio or document, however it is put; anything else as it is."""
    kind = part.get("type")
    kind = kind if isinstance(kind, str) else ""
    is_image = "image" in kind or "image_url" in part
    modality = "image" if is_image else "audio" if "audio" in kind else "document"
    for name in ("image", "audio", "video", "document"):  # Bedrock
        inner = part.get(name)
        if isinstance(inner, Mapping) and isinstance(inner.get("source"), Mapping):
            part = {"source": {**inner["source"], "format": inner.get("format")}}
            modality = name
            break
    for name in (
        "inline_data",
        "inlineData",
        "file_data",
        "fileData",
        "input_audio",
        "source",
        "file",
    ):
        inner = part.get(name)
        if isinstance(inner, Mapping):
            text = inner.get("text", inner.get("content"))  # a document of text
            if inner.get("type") == "text":
                text = inner.get("data")
            if text is not None:
                return [p for item in _list(text) for p in _parts(item)]
            return [_source(inner, modality)]
    url = part.get("image_url", part.get("url"))
    url = url.get("url") if isinstance(url, Mapping) else url
    if isinstance(url, str):
        return [_source({"url": url}, modality)]
    if "base64" in part or ("data" in part and "mime_type" in part):
        return [_source(part, modality)]
    return [dict(part)] if kind else [{"type": "data", "inspect": {"data": dict(part)}}]


def _source(source: Mapping[str, Any], modality: str) -> Json:
    mime_type = source.get("media_type") or source.get("mime_type") or source.get("mimeType")
    form = source.get("format")
    if mime_type is None and isinstance(form, str):
        mime_type = _FORMATS.get(form) or (None if modality == "document" else f"{modality}/{form}")
    if isinstance(mime_type, str) and mime_type.partition("/")[0] in ("image", "audio", "video"):
        modality = mime_type.partition("/")[0]
    data = source.get("data") or source.get("base64") or source.get("file_data")
    data = _base64(source["bytes"]) if "bytes" in source else data
    stored = _mapping(source.get("s3Location"))
    urls = (source.get(name) for name in ("url", "file_uri", "fileUri", "file_id"))
    url = next((url for url in urls if url), stored.get("uri"))
    if isinstance(data, str) and data.startswith("data:"):
        data, url = None, data
    if isinstance(url, str) and url.startswith("data:"):
        head, _, data = url.partition(",")
        mime_type = head[len("data:") :].partition(";")[0]
    typed = {"mime_type": mime_type} if mime_type else {}
    if isinstance(data, str):
        return {"type": "blob", "modality": modality, **typed, "content": data}
    return {"type": "uri", "modality": modality, **typed, "uri": str(url or "")}


def recorded_bytes(value: Any) -> bytes | None:
    """The bytes that MLflow recorded as Python writes them (`b'…'`); None of anything else."""
    if not isinstance(value, str) or value[:2] not in ("b'", 'b"'):
        return None
    try:
        found = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return None
    return found if isinstance(found, bytes) else None


def _base64(value: Any) -> str:
    found = recorded_bytes(value)
    return str(value) if found is None else b64encode(found).decode()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _inner(outer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The function of a tool or a call, which some keep in an object of its own."""
    function = outer.get("function")
    return function if isinstance(function, Mapping) else outer


def _list(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    return value if isinstance(value, (list, tuple)) else (value,)


def _first_of_batch(value: Any) -> Any:
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    return value
