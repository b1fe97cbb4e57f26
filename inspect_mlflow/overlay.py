"""GenAI attributes → the `mlflow.*` attributes that MLflow's views read.

Only spans on their way to MLflow carry these. MLflow translates GenAI attributes itself; what
stands here is where its own attributes show more: the chat view with reasoning and media, tool
definitions, icons, and a trace's name and preview.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from otel_bridge import semconv as sc

SPAN_TYPE = "mlflow.spanType"
SPAN_INPUTS = "mlflow.spanInputs"
SPAN_OUTPUTS = "mlflow.spanOutputs"
CHAT_MESSAGES = "mlflow.chat.messages"
CHAT_TOOLS = "mlflow.chat.tools"
LLM_COST = "mlflow.llm.cost"
TRACE_NAME = "mlflow.traceTag.mlflow.traceName"

_SPAN_TYPES = {
    "run": "WORKFLOW",
    "task": "TASK",
    "model": "CHAT_MODEL",
    "tool": "TOOL",
    "agent": "AGENT",
    "handoff": "AGENT",
    "scorer": "EVALUATOR",
}

Attributes = Mapping[str, Any]


def overlay(name: str, is_root: bool, attributes: Attributes) -> dict[str, Any]:
    """The MLflow attributes of a span with these GenAI attributes."""
    kind = str(attributes.get(sc.INSPECT_KIND, ""))
    extra: dict[str, Any] = {SPAN_TYPE: _SPAN_TYPES.get(kind, "CHAIN")}
    if kind == "model":
        extra |= _model(attributes)
    elif kind == "sample":
        extra |= _sample(attributes)
    elif kind in ("run", "task"):
        extra |= _summary(attributes)
    elif kind not in ("tool",):
        for key, source in ((SPAN_INPUTS, sc.INSPECT_INPUT), (SPAN_OUTPUTS, sc.INSPECT_OUTPUT)):
            if source in attributes:
                extra[key] = attributes[source]
        if kind == "sandbox" and SPAN_INPUTS not in extra:
            command = attributes.get(sc.INSPECT_SANDBOX_COMMAND)
            file = attributes.get(sc.INSPECT_SANDBOX_FILE)
            if command or file:
                extra[SPAN_INPUTS] = command or file
    if is_root:
        extra[TRACE_NAME] = _trace_name(name, kind, attributes)
    return extra


def _trace_name(name: str, kind: str, attributes: Attributes) -> str:
    if kind == "sample":
        name = f"{attributes[sc.INSPECT_SAMPLE_ID]} · epoch {attributes[sc.INSPECT_SAMPLE_EPOCH]}"
    return name[:250]


def _model(attributes: Attributes) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    messages = [
        *_loaded(attributes.get(sc.GEN_AI_INPUT_MESSAGES)),
        *_loaded(attributes.get(sc.GEN_AI_OUTPUT_MESSAGES))[:1],
    ]
    if messages:
        extra[CHAT_MESSAGES] = _dumped(list(openai_messages(messages)))
    tools = _loaded(attributes.get(sc.GEN_AI_TOOL_DEFINITIONS))
    if tools:
        extra[CHAT_TOOLS] = _dumped(
            [
                {
                    "type": "function",
                    "function": {k: v for k, v in tool.items() if k not in ("type", "inspect")},
                }
                for tool in tools
                if isinstance(tool, Mapping)
            ]
        )
    # without this attribute the server looks for prices on the internet, inside the request
    cost = attributes.get(sc.INSPECT_MODEL_COST)
    extra[LLM_COST] = _dumped({} if cost is None else {"total_cost": cost})
    return extra


def _sample(attributes: Attributes) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    text = attributes.get(sc.INSPECT_SAMPLE_INPUT)
    if text is not None:
        extra[SPAN_INPUTS] = _dumped({"messages": [{"role": "user", "content": text}]})
    output = attributes.get(sc.INSPECT_SAMPLE_OUTPUT)
    if output is not None:
        message = {"role": "assistant", "content": output}
        extra[SPAN_OUTPUTS] = _dumped({"choices": [{"index": 0, "message": message}]})
    return extra


def _summary(attributes: Attributes) -> dict[str, Any]:
    """What a run or task span shows: what was evaluated, and the metrics."""
    inputs = {
        name: attributes[key]
        for name, key in (
            ("tasks", sc.INSPECT_RUN_TASKS),
            ("task", sc.INSPECT_TASK),
            ("model", sc.INSPECT_MODEL),
            ("dataset", sc.INSPECT_DATASET_NAME),
            ("solver", sc.INSPECT_SOLVER),
            ("epochs", sc.INSPECT_EPOCHS),
        )
        if key in attributes
    }
    outputs = {
        key.removeprefix(sc.INSPECT_METRIC_PREFIX): value
        for key, value in attributes.items()
        if key.startswith(sc.INSPECT_METRIC_PREFIX)
    }
    extra = {SPAN_INPUTS: _dumped(inputs)}
    if outputs:
        extra[SPAN_OUTPUTS] = _dumped(outputs)
    return extra


def openai_messages(messages: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """GenAI messages as OpenAI chat messages, with `reasoning` beside the content."""
    for message in messages:
        role = str(message.get("role", "user"))
        content: list[dict[str, Any]] = []
        reasoning: list[str] = []
        calls: list[dict[str, Any]] = []
        for part in message.get("parts") or ():
            kind = part.get("type")
            if kind == "reasoning":
                reasoning.append(str(part.get("content") or ""))
            elif kind == "tool_call":
                calls.append(
                    {
                        "id": str(part.get("id") or ""),
                        "type": "function",
                        "function": {
                            "name": str(part.get("name") or ""),
                            "arguments": _dumped(part.get("arguments") or {}),
                        },
                    }
                )
            elif kind == "tool_call_response":
                response = part.get("response")
                yield {
                    "role": "tool",
                    "tool_call_id": str(part.get("id") or ""),
                    "content": response if isinstance(response, str) else _dumped(response),
                }
            else:
                content.append(_content(part))
        if role == "tool" and not content:
            continue
        shown: dict[str, Any] = {"role": role, "content": _joined(content)}
        if reasoning:
            shown["reasoning"] = "\n\n".join(reasoning)
        if calls:
            shown["tool_calls"] = calls
        yield shown


def _content(part: Mapping[str, Any]) -> dict[str, Any]:
    kind = part.get("type")
    if kind == "text":
        return {"type": "text", "text": str(part.get("content") or "")}
    if kind in ("uri", "blob") and part.get("modality") == "image":
        uri = part.get("uri")
        if kind == "blob":
            uri = f"data:{part.get('mime_type', 'image/png')};base64,{part.get('content')}"
        return {"type": "image_url", "image_url": {"url": uri}}
    return {"type": "text", "text": _dumped({k: v for k, v in part.items() if k != "inspect"})}


def _joined(content: Sequence[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Text alone as a string: every view of MLflow shows that."""
    if all(part["type"] == "text" for part in content):
        return "\n".join(part["text"] for part in content)
    return list(content)


def _loaded(text: Any) -> list[Any]:
    value = json.loads(text) if isinstance(text, str) else None
    return value if isinstance(value, list) else []


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
