"""GenAI attributes → the `mlflow.*` attributes that MLflow's views read.

Only spans on their way to MLflow carry these. MLflow translates GenAI attributes itself; what
stands here is where its own attributes show more: the chat view with reasoning and media, tool
definitions, icons, and a trace's name and preview.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from otel_bridge import semconv as sc
from otel_bridge.values import from_json

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Event, ReadableSpan

    from inspect_mlflow.conversations import Exchange

SPAN_TYPE = "mlflow.spanType"
SPAN_INPUTS = "mlflow.spanInputs"
SPAN_OUTPUTS = "mlflow.spanOutputs"
CHAT_TOOLS = "mlflow.chat.tools"
LLM_COST = "mlflow.llm.cost"
TRACE_NAME = "mlflow.traceTag.mlflow.traceName"
NAME_CHARS: Final = 250
"""The longest name of a trace."""

_SPAN_TYPES = {
    "run": "WORKFLOW",
    "task": "TASK",
    "model": "CHAT_MODEL",
    "tool": "TOOL",
    "agent": "AGENT",
    "handoff": "AGENT",
    "scorer": "EVALUATOR",
}

_SHOWS_EXCHANGE = frozenset({"solver", "agent", "handoff", "subtask", "solvers"})

Attributes = Mapping[str, Any]


def overlay(span: ReadableSpan, exchange: Exchange | None = None) -> dict[str, Any]:
    """The MLflow attributes of a span. `exchange` is what was said in the model calls inside it."""
    attributes: Attributes = span.attributes or {}
    kind = str(attributes.get(sc.INSPECT_KIND, ""))
    extra: dict[str, Any] = {SPAN_TYPE: _SPAN_TYPES.get(kind, "CHAIN")}
    if kind == "model":
        extra |= _model(attributes)
    elif kind == "sample":
        extra |= _sample(attributes)
    elif kind in ("run", "task"):
        extra |= _summary(attributes)
    elif kind == "sandbox":
        extra |= _sandbox(attributes)
    elif kind == "scorer":
        extra |= _scorer(span.events)
    elif kind != "tool":
        for key, source in ((SPAN_INPUTS, sc.INSPECT_INPUT), (SPAN_OUTPUTS, sc.INSPECT_OUTPUT)):
            if source in attributes:
                extra[key] = attributes[source]
        if kind in _SHOWS_EXCHANGE:
            extra = {**_exchange(exchange), **extra}
        if SPAN_OUTPUTS not in extra:
            extra |= _changes(span.events)
    if span.parent is None:
        extra[TRACE_NAME] = trace_name(span.name, attributes)
    return extra


def trace_name(name: str, attributes: Attributes) -> str:
    """The name of a trace whose root has this name and these attributes."""
    sample_id, epoch = (attributes.get(k) for k in (sc.INSPECT_SAMPLE_ID, sc.INSPECT_SAMPLE_EPOCH))
    if attributes.get(sc.INSPECT_KIND) == "sample" and None not in (sample_id, epoch):
        name = f"{sample_id} · epoch {epoch}"
    return name[:NAME_CHARS]


def _exchange(exchange: Exchange | None) -> dict[str, Any]:
    if exchange is None:
        return {}
    sides = ((SPAN_INPUTS, exchange.asked), (SPAN_OUTPUTS, exchange.answered))
    return {key: text for key, text in sides if text}


def _changes(events: Sequence[Event]) -> dict[str, Any]:
    """What a solver without model calls did: the places of the state that it changed."""
    shown: dict[str, Any] = {}
    for event in events:
        if event.name == sc.EVENT_PREFIX + "state":
            data = from_json((event.attributes or {}).get(sc.INSPECT_EVENT_DATA))
            for change in data.get("changes") or () if isinstance(data, Mapping) else ():
                if isinstance(change, Mapping) and change.get("op") in ("add", "replace"):
                    shown[str(change.get("path"))] = change.get("value")
    return {SPAN_OUTPUTS: _dumped(shown)} if shown else {}


def _scorer(events: Sequence[Event]) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    scores: dict[str, Any] = {}
    explanation: Any = None
    for event in events:
        if event.name != sc.EVENT_EVALUATION_RESULT:
            continue
        score: Attributes = event.attributes or {}
        for name, key in (("answer", sc.INSPECT_SCORE_ANSWER), ("target", sc.INSPECT_SCORE_TARGET)):
            if key in score:
                inputs[name] = score[key]
        value = score.get(
            sc.GEN_AI_EVALUATION_SCORE_LABEL, score.get(sc.GEN_AI_EVALUATION_SCORE_VALUE)
        )
        scores[str(score.get(sc.GEN_AI_EVALUATION_NAME))] = score.get(sc.INSPECT_SCORE_VALUE, value)
        explanation = score.get(sc.GEN_AI_EVALUATION_EXPLANATION, explanation)
    extra = {}
    if inputs:
        extra[SPAN_INPUTS] = _dumped(inputs)
    if scores:
        said = {} if explanation is None else {"explanation": explanation}
        extra[SPAN_OUTPUTS] = _dumped({**scores, **said})
    return extra


def _sandbox(attributes: Attributes) -> dict[str, Any]:
    options = from_json(attributes.get(sc.INSPECT_SANDBOX_OPTIONS))
    inputs = {
        name: attributes[key]
        for name, key in (
            ("command", sc.INSPECT_SANDBOX_COMMAND),
            ("file", sc.INSPECT_SANDBOX_FILE),
            ("input", sc.INSPECT_INPUT),
        )
        if key in attributes
    }
    outputs = {
        name: attributes[key]
        for name, key in (
            ("exit_code", sc.INSPECT_SANDBOX_EXIT_CODE),
            ("output", sc.INSPECT_OUTPUT),
        )
        if key in attributes
    }
    extra = {}
    if inputs:
        extra[SPAN_INPUTS] = _dumped({**inputs, **({"options": options} if options else {})})
    if outputs:
        extra[SPAN_OUTPUTS] = _dumped(outputs)
    return extra


def _model(attributes: Attributes) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    outputs = gen_ai_messages(attributes.get(sc.GEN_AI_OUTPUT_MESSAGES))
    choices = [message for output in outputs for message in openai_messages([output])]
    inputs = _with_gaps(gen_ai_messages(attributes.get(sc.GEN_AI_INPUT_MESSAGES)), attributes)
    messages = list(openai_messages(inputs))
    if messages:
        extra[SPAN_INPUTS] = _dumped({"messages": messages})
    if choices:
        # in this form the chat view shows everything, and nothing twice
        extra[SPAN_OUTPUTS] = _dumped(
            {"choices": [{"index": i, "message": choice} for i, choice in enumerate(choices)]}
        )
    tools = gen_ai_messages(attributes.get(sc.GEN_AI_TOOL_DEFINITIONS))
    if tools:
        extra[CHAT_TOOLS] = _dumped(
            [
                {
                    "type": "function",
                    "function": {k: v for k, v in tool.items() if k not in ("type", "inspect")},
                }
                for tool in tools
                if "name" in tool
            ]
        )
    # Without this attribute the server looks for prices on the internet, inside the request. MLflow
    # shows a cost only with its parts, and counts a part that is not known as 0 itself.
    cost = attributes.get(sc.INSPECT_MODEL_COST)
    parts = {} if cost is None else {"input_cost": 0.0, "output_cost": 0.0, "total_cost": cost}
    extra[LLM_COST] = _dumped(parts)
    return extra


def _with_gaps(
    messages: list[Mapping[str, Any]], attributes: Attributes
) -> list[Mapping[str, Any]]:
    """The messages, with a note where earlier ones stand in another span."""
    shown = list(messages)
    omitted = from_json(attributes.get(sc.INSPECT_INPUT_OMITTED))
    holder = attributes.get(sc.INSPECT_INPUT_PREFIX_SPAN)
    gone = 0
    ranges = [r for r in omitted if isinstance(r, list)] if isinstance(omitted, list) else []
    for place, (first, end) in enumerate(ranges):
        note = f"[{end - first} earlier messages: see the model call in span {holder}]"
        part = {"type": "text", "content": note}
        shown.insert(first - gone + place, {"role": "system", "parts": [part]})
        gone += end - first
    return shown


def _sample(attributes: Attributes) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    messages = sample_messages(attributes)
    if messages:
        extra[SPAN_INPUTS] = _dumped({"messages": messages})
    output = attributes.get(sc.INSPECT_SAMPLE_OUTPUT)
    if output is not None:
        message = {"role": "assistant", "content": output}
        extra[SPAN_OUTPUTS] = _dumped({"choices": [{"index": 0, "message": message}]})
    return extra


def sample_messages(attributes: Attributes) -> list[dict[str, Any]]:
    """A sample's input as chat messages; where it has choices, they stand below the question."""
    text = attributes.get(sc.INSPECT_SAMPLE_INPUT)
    if text is None:
        return []
    given = from_json(text) if text.startswith("[{") else None
    messages = [{"role": "user", "content": text}]
    if isinstance(given, list) and all(isinstance(m, Mapping) and "role" in m for m in given):
        messages = [{"role": str(m["role"]), "content": _plain(m.get("content"))} for m in given]
    choices = from_json(attributes.get(sc.INSPECT_SAMPLE_CHOICES))
    if isinstance(choices, list) and messages:
        lettered = [f"{chr(ord('A') + i % 26)}) {choice}" for i, choice in enumerate(choices)]
        messages[-1]["content"] = "\n".join([messages[-1]["content"], "", *lettered])
    return messages


def _plain(content: Any) -> str:
    """The text of an Inspect message's content, with a word for what is not text."""
    if isinstance(content, str) or content is None:
        return content or ""
    parts = [part for part in content if isinstance(part, Mapping)]
    return "\n".join(
        str(part.get("text") or part.get("reasoning") or f"[{part.get('type')}]") for part in parts
    )


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
        for part in parts_of(message):
            kind = part.get("type")
            if kind == "reasoning":
                reasoning.append(str(part.get("content") or ""))
            elif kind == "tool_call":
                calls.append(_call(part, _dumped(part.get("arguments") or {})))
            elif kind == "server_tool_call":
                arguments = _of(part, "server_tool_call").get("arguments")
                text = arguments if isinstance(arguments, str) else _dumped(arguments)
                calls.append(_call(part, text))
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


def parts_of(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The parts of a GenAI message; a note of what was cut stands as text."""
    parts = message.get("parts")
    return [
        part if isinstance(part, Mapping) else {"type": "text", "content": str(part)}
        for part in (parts if isinstance(parts, list) else [])
    ]


def _call(part: Mapping[str, Any], arguments: str) -> dict[str, Any]:
    function = {"name": str(part.get("name") or ""), "arguments": arguments}
    return {"id": str(part.get("id") or ""), "type": "function", "function": function}


def _content(part: Mapping[str, Any]) -> dict[str, Any]:
    kind, modality = part.get("type"), part.get("modality")
    if kind == "text":
        return _text(part.get("content") or "")
    if kind == "uri" and modality == "image":
        return {"type": "image_url", "image_url": {"url": part.get("uri")}}
    if kind == "blob" and modality == "image":
        url = f"data:{part.get('mime_type', 'image/png')};base64,{part.get('content')}"
        return {"type": "image_url", "image_url": {"url": url}}
    if kind == "blob" and modality == "audio":
        form = str(part.get("mime_type", "audio/wav")).rpartition("/")[2]
        audio = {"data": part.get("content"), "format": form}
        return {"type": "input_audio", "input_audio": audio}
    if kind in ("uri", "blob", "file"):
        where = part.get("uri") or part.get("file_id")
        named = [str(word) for word in (part.get("mime_type") or modality, where) if word]
        return _text(f"[{', '.join(named)}]")
    if kind == "server_tool_call_response":
        response = _of(part, "server_tool_call_response")
        result = response.get("error") or response.get("result")
        return _text(f"[{response.get('type')}] {result if isinstance(result, str) else ''}")
    if kind == "data":
        return _text(_dumped(_of(part, "inspect").get("data")))
    return _text(_dumped({k: v for k, v in part.items() if k != "inspect"}))


def _text(text: Any) -> dict[str, Any]:
    return {"type": "text", "text": str(text)}


def _of(part: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = part.get(key)
    return value if isinstance(value, Mapping) else {}


def _joined(content: Sequence[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Text alone as a string: every view of MLflow shows that."""
    if all(part["type"] == "text" for part in content):
        return "\n\n".join(part["text"] for part in content)
    return list(content)


def gen_ai_messages(text: Any) -> list[Mapping[str, Any]]:
    """Messages or tools from their JSON; a note of what was cut stands as a message."""
    value = from_json(text)
    if not isinstance(value, list):
        return []
    return [
        item
        if isinstance(item, Mapping)
        else {"role": "system", "parts": [{"type": "text", "content": str(item)}]}
        for item in value
    ]


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
