"""A local HTTP server that speaks OpenAI's, Anthropic's and Bedrock's protocols.

OpenAI and Anthropic can be streamed.

It answers any conversation that has no tool result yet with a call of the tool `add`, and any
other with text; Anthropic's answers begin with thinking. Usage is fixed.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ARGUMENTS = {"a": 2, "b": 3}
OPENAI_USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 7,
    "total_tokens": 37,
    "prompt_tokens_details": {"cached_tokens": 10},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
RESPONSES_USAGE = {
    "input_tokens": 40,
    "output_tokens": 8,
    "total_tokens": 48,
    "input_tokens_details": {"cached_tokens": 16},
    "output_tokens_details": {"reasoning_tokens": 3},
}
BEDROCK_USAGE = {
    "inputTokens": 20,
    "outputTokens": 9,
    "totalTokens": 38,
    "cacheReadInputTokens": 5,
    "cacheWriteInputTokens": 4,
}
ANTHROPIC_USAGE = {
    "input_tokens": 20,
    "output_tokens": 9,
    "cache_read_input_tokens": 5,
    "cache_creation_input_tokens": 4,
}


@contextmanager
def running_providers() -> Iterator[str]:
    """Run the server; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/chat/completions"):
            answer, chunks = _chat(request), _chat_chunks
        elif self.path.endswith("/responses"):
            answer, chunks = _response(request), _response_events
        elif self.path.endswith("/converse"):
            answer, chunks = _converse(request), _no_stream
        else:
            answer, chunks = _message(request), _message_events
        if request.get("stream"):
            body = "".join(
                (f"event: {name}\n" if name else "")
                + f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n"
                for name, data in chunks(answer)
            ).encode()
            self._send("text/event-stream", body)
        else:
            self._send("application/json", json.dumps(answer).encode())

    def _send(self, content_type: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


# --- OpenAI: chat completions ---------------------------------------------------------------------


def _chat(request: dict[str, Any]) -> dict[str, Any]:
    done = any(message["role"] == "tool" for message in request["messages"])
    message: dict[str, Any] = {"role": "assistant", "content": "It is 5."}
    if not done and request.get("tools"):
        call = {"name": "add", "arguments": json.dumps(ARGUMENTS)}
        calls = [{"id": "call_1", "type": "function", "function": call}]
        message = {"role": "assistant", "content": None, "tool_calls": calls}
    reason = "tool_calls" if "tool_calls" in message else "stop"
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "gpt-4o-2024",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": OPENAI_USAGE,
    }


def _chat_chunks(answer: dict[str, Any]) -> Iterator[tuple[str | None, Any]]:
    (choice,) = answer["choices"]
    base = {key: answer[key] for key in ("id", "created", "model")}
    base["object"] = "chat.completion.chunk"

    def chunk(delta: dict[str, Any], reason: str | None = None) -> tuple[str | None, Any]:
        choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
        return None, {**base, "choices": choices}

    yield chunk({"role": "assistant", "content": ""})
    for call in choice["message"].get("tool_calls", ()):
        text = call["function"]["arguments"]
        head = {**call, "index": 0, "function": {"name": "add", "arguments": ""}}
        yield chunk({"tool_calls": [head]})
        for piece in (text[:4], text[4:]):
            yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    for word in (choice["message"]["content"] or "").split(" "):
        if word:
            yield chunk({"content": word if word == "It" else f" {word}"})
    yield chunk({}, choice["finish_reason"])
    yield None, {**base, "choices": [], "usage": answer["usage"]}
    yield None, "[DONE]"


# --- OpenAI: responses ----------------------------------------------------------------------------


def _response(request: dict[str, Any]) -> dict[str, Any]:
    given = request["input"]
    items = given if isinstance(given, list) else []
    done = any(item.get("type") == "function_call_output" for item in items)
    output: list[dict[str, Any]] = [
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "Adding up."}],
        }
    ]
    if done or not request.get("tools"):
        text = {"type": "output_text", "text": "It is 5.", "annotations": []}
        output.append(
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [text],
            }
        )
    else:
        output.append(
            {
                "type": "function_call",
                "id": "fc_1",
                "call_id": "call_2",
                "name": "add",
                "arguments": json.dumps(ARGUMENTS),
                "status": "completed",
            }
        )
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1700000000,
        "model": "gpt-5-2025",
        "status": "completed",
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": request.get("tools", []),
        "usage": RESPONSES_USAGE,
    }


def _response_events(answer: dict[str, Any]) -> Iterator[tuple[str | None, Any]]:
    def event(number: int, name: str, **data: Any) -> tuple[str, Any]:
        return name, {"type": name, "sequence_number": number, **data}

    yield event(0, "response.created", response={**answer, "output": [], "usage": None})
    number = 1
    for index, item in enumerate(answer["output"]):
        for name in ("response.output_item.added", "response.output_item.done"):
            yield event(number, name, output_index=index, item=item)
            number += 1
    yield event(number, "response.completed", response=answer)


# --- Anthropic ------------------------------------------------------------------------------------


def _message(request: dict[str, Any]) -> dict[str, Any]:
    blocks = [
        block
        for message in request["messages"]
        if isinstance(message["content"], list)
        for block in message["content"]
    ]
    done = any(block["type"] == "tool_result" for block in blocks)
    content: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": "Adding up.", "signature": "c2ln"}
    ]
    if done or not request.get("tools"):
        content.append({"type": "text", "text": "It is 5."})
    else:
        content.append({"type": "tool_use", "id": "toolu_1", "name": "add", "input": ARGUMENTS})
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-4-2025",
        "content": content,
        "stop_reason": "tool_use" if content[-1]["type"] == "tool_use" else "end_turn",
        "stop_sequence": None,
        "usage": ANTHROPIC_USAGE,
    }


def _message_events(answer: dict[str, Any]) -> Iterator[tuple[str | None, Any]]:
    start = {**answer, "content": [], "stop_reason": None}
    start["usage"] = {**answer["usage"], "output_tokens": 1}
    yield "message_start", {"type": "message_start", "message": start}
    for index, block in enumerate(answer["content"]):
        at = {"index": index}
        if block["type"] == "thinking":
            empty: dict[str, Any] = {"type": "thinking", "thinking": "", "signature": ""}
            deltas = [
                {"type": "thinking_delta", "thinking": block["thinking"]},
                {"type": "signature_delta", "signature": block["signature"]},
            ]
        elif block["type"] == "text":
            empty = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": t} for t in ("It ", "is 5.")]
        else:
            empty = {**block, "input": {}}
            text = json.dumps(block["input"])
            deltas = [{"type": "input_json_delta", "partial_json": t} for t in (text[:5], text[5:])]
        start_event = {"type": "content_block_start", **at, "content_block": empty}
        yield "content_block_start", start_event
        for delta in deltas:
            yield "content_block_delta", {"type": "content_block_delta", **at, "delta": delta}
        yield "content_block_stop", {"type": "content_block_stop", **at}
    delta = {"stop_reason": answer["stop_reason"], "stop_sequence": None}
    usage = {"output_tokens": answer["usage"]["output_tokens"]}
    yield "message_delta", {"type": "message_delta", "delta": delta, "usage": usage}
    yield "message_stop", {"type": "message_stop"}


# --- Bedrock: converse (its `invoke_model` takes and gives Anthropic's own messages) --------------


def _converse(request: dict[str, Any]) -> dict[str, Any]:
    done = any("toolResult" in part for m in request["messages"] for part in m["content"])
    content: list[dict[str, Any]] = [
        {"reasoningContent": {"reasoningText": {"text": "Adding up.", "signature": "c2ln"}}},
        {"reasoningContent": {"redactedContent": "QUJD"}},
    ]
    if done:
        content.append({"text": "It is 5."})
    else:
        call = {"toolUseId": "tooluse_1", "name": "add", "input": ARGUMENTS}
        content.append({"toolUse": call})
    return {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": "max_tokens" if done else "tool_use",
        "usage": BEDROCK_USAGE,
        "metrics": {"latencyMs": 1},
    }


def _no_stream(answer: dict[str, Any]) -> Iterator[tuple[str | None, Any]]:
    raise NotImplementedError
