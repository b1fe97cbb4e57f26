"""What a span says in its attributes → Inspect's messages, tools, options and usage (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from inspect_mlflow.scout import dialects
from inspect_mlflow.scout.tree import Node, loaded
from otel_bridge import semconv as sc
from otel_bridge.messages import (
    messages_from_genai,
    output_message_from_genai,
    tool_from_genai,
)

if TYPE_CHECKING:
    from inspect_ai.model import ChatMessage, GenerateConfig, ModelOutput, ModelUsage
    from inspect_ai.tool import ToolInfo

_INPUTS = ("mlflow.spanInputs", "input.value", "traceloop.entity.input")
_SENT = {"ResponseMetadata", "contentType"}
"""What Bedrock's answers have around them."""
_OUTPUTS = ("mlflow.spanOutputs", "output.value", "traceloop.entity.output")
_CHUNK = "mlflow.chunk.item."
_CHUNK_VALUE = "mlflow.chunk.value"

Json = dict[str, Any]


def inputs_of(node: Node) -> Any:
    """What went into a span, as its maker wrote it."""
    found = node.get(_name(node, _INPUTS))
    return _with_body(found) if isinstance(found, Mapping) and "modelId" in found else found


def outputs_of(node: Node) -> Any:
    """What came out of a span, as its maker wrote it."""
    found = node.get(_name(node, _OUTPUTS))
    is_sent = isinstance(found, Mapping) and not _SENT.isdisjoint(found)
    return _with_body(found) if is_sent else found


def result_of(node: Node) -> str:
    """What a tool gave, as text."""
    name = _name(node, (sc.GEN_AI_TOOL_CALL_RESULT, *_OUTPUTS))
    return "" if node.get(name) is None else str(node.text(name))


def json_answer(node: Node) -> Json | None:
    """What came out of a span in no shape that is known, as an assistant's message of its JSON.

    It may have been text: MLflow keeps text that reads as JSON as it keeps an object.
    """
    found = outputs_of(node)
    if found is None or isinstance(found, str):
        return None
    text = str(node.text(_name(node, _OUTPUTS)))
    return {**dialects.text_message("assistant", text), "finish_reason": "stop"}


def prompts_of(node: Node) -> int:
    """How many prompts a model call was given at once, each to be answered by itself."""
    outputs = outputs_of(node)
    found = outputs.get("generations") if isinstance(outputs, Mapping) else None
    is_batch = isinstance(found, list) and all(isinstance(item, list) for item in found)
    return len(found) if found and is_batch else 1


def _name(node: Node, names: Iterable[str]) -> str:
    return next((name for name in names if name in node.attributes), "")


def _with_body(sent: Mapping[str, Any]) -> Any:
    """What Bedrock's `invoke_model` was sent or gave, with what its body says; None of a stream."""
    if "body" not in sent:
        return sent
    data = dialects.recorded_bytes(sent["body"])
    body = loaded(sent["body"] if data is None else data.decode(errors="replace"))
    return {**sent, **body} if isinstance(body, Mapping) else None


# --- messages -------------------------------------------------------------------------------------


def input_messages(node: Node) -> list[ChatMessage]:
    """The conversation that a span was given; empty where there is none that can be read."""
    return messages_from_genai(_input_messages(node))


def _input_messages(node: Node) -> list[Json]:
    given = node.get(sc.GEN_AI_INPUT_MESSAGES)
    if given:
        found = dialects.messages(given)
        if all(message["role"] != "system" for message in found):
            found = dialects.system(node.get(sc.GEN_AI_SYSTEM_INSTRUCTIONS)) + found
        return found
    flat = _flat(node, "llm.input_messages.", "message.") or _flat(node, "gen_ai.prompt.", "")
    if flat:
        return dialects.messages(flat)
    given = inputs_of(node)
    if prompts_of(node) > 1 and isinstance(given, list):
        given = given[:1]
    return _conversation(given)


def _conversation(value: Any) -> list[Json]:
    if not isinstance(value, Mapping):
        return dialects.messages(value)
    config = value.get("config")
    config = config if isinstance(config, Mapping) else {}
    system: list[Json] = []
    for holder, names in (
        (value, ("system", "instructions", "system_instruction", "systemInstruction")),
        (config, ("system_instruction", "systemInstruction")),
    ):
        for name in names:
            system = system or dialects.system(holder.get(name))
    for name in ("messages", "contents", "input", "prompt", "prompts", "question", "query", "text"):
        if value.get(name):
            found = value[name]
            if isinstance(found, Mapping) and "messages" in found:
                found = found["messages"]
            return system + dialects.messages(found)
    if "role" in value or "content" in value:
        return system + dialects.messages([value])
    return system


def _flat(node: Node, prefix: str, inner: str) -> list[Json]:
    """Messages that are spread over attributes: `llm.input_messages.0.message.role`, …"""
    found: Json = {}
    for key in node.attributes:
        index, _, path = key.removeprefix(prefix).partition(".")
        if key.startswith(prefix) and index.isdecimal():
            path = path.removeprefix(inner)
            _put(found.setdefault(index, {}), path.split("."), node.content(key))
    return [_unflattened(found[index]) for index in sorted(found, key=int)]


def _put(into: Json, path: list[str], value: Any) -> None:
    for name in path[:-1]:
        inner = into.get(name)
        into[name] = into = inner if isinstance(inner, dict) else {}
    into[path[-1]] = value


def _unflattened(message: Json) -> Json:
    """A message with the lists that were numbered, and without OpenInference's extra names."""
    result: Json = {}
    for name, value in message.items():
        if isinstance(value, dict) and value and all(key.isdecimal() for key in value):
            value = [_image(_content(value[key])) for key in sorted(value, key=int)]
        result[{"contents": "content"}.get(name, name)] = value
    return result


def _content(item: Any) -> Any:
    """A part of a message; a tool's call stands beside the rest of it."""
    if not isinstance(item, dict) or not isinstance(item.get("message_content"), dict):
        return item
    return {**{k: v for k, v in item.items() if k != "message_content"}, **item["message_content"]}


def _image(item: Any) -> Any:
    image = item.get("image") if isinstance(item, dict) else None
    url = image.get("image", image) if isinstance(image, dict) else None
    url = url.get("url") if isinstance(url, dict) else None
    return {"type": "image_url", "image_url": {"url": url}} if isinstance(url, str) else item


def output_of(node: Node) -> ModelOutput:
    """What a model call gave; without choices where its answer can't be read."""
    from inspect_ai.model import ModelOutput

    streamed = dialects.answer_of_chunks(
        loaded(event.attributes.get(_CHUNK_VALUE))
        for event in node.events
        if event.name.startswith(_CHUNK)
    )
    given = node.get(sc.GEN_AI_OUTPUT_MESSAGES)
    flat = _flat(node, "llm.output_messages.", "message.") or _flat(node, "gen_ai.completion.", "")
    raw = streamed or outputs_of(node)
    reason = node.text("llm.finish_reason") or node.text("anthropic.message.stop_reason")
    if given:
        answers = dialects.answers(given, reason)
    elif flat:
        choices_of = ({"choices": [{"finish_reason": reason, "message": m, **m}]} for m in flat)
        answers = [dialects.answers(choices)[0] for choices in choices_of]
    else:
        answers = dialects.answers(raw)
    choices = [output_message_from_genai(answer) for answer in answers]
    model = model_of(node)
    answered = raw.get("model") or raw.get("modelVersion") if isinstance(raw, Mapping) else None
    answered = node.text(sc.GEN_AI_RESPONSE_MODEL) or answered or node.text("mlflow.llm.model")
    for choice in choices:
        choice.message.model = choice.message.model or str(answered or model)
        choice.message.source = choice.message.source or "generate"
    return ModelOutput(model=str(answered or model), choices=choices, usage=usage_of(node, raw))


# --- model, tools, options ------------------------------------------------------------------------


def model_of(node: Node) -> str:
    """The model that was asked; "unknown" where the span doesn't say."""
    inputs = inputs_of(node)
    asked = inputs.get("model") if isinstance(inputs, Mapping) else None
    for name in (
        sc.GEN_AI_REQUEST_MODEL,
        "llm.request.model_name",
        "llm.model_name",
        "llm.request.model",
        sc.GEN_AI_RESPONSE_MODEL,
    ):
        asked = asked or node.text(name)
    return str(asked or node.text("mlflow.llm.model") or "unknown")


def tools_of(node: Node) -> list[ToolInfo]:
    """The tools that a model was offered."""
    inputs = inputs_of(node)
    found: Any = node.get(sc.GEN_AI_TOOL_DEFINITIONS) or node.get("mlflow.chat.tools")
    if not found and isinstance(inputs, Mapping):
        config = inputs.get("config")
        found = inputs.get("tools") or (
            config.get("tools") if isinstance(config, Mapping) else None
        )
    if not found:
        names = (name for name in node.attributes if name.startswith("llm.tools."))
        found = [node.get(name) for name in names if name.endswith("json_schema")]
    return [tool_from_genai(tool) for tool in dialects.tools(found)]


_REQUEST = {
    "seed": sc.GEN_AI_REQUEST_SEED,
    "top_k": sc.GEN_AI_REQUEST_TOP_K,
    "max_tokens": sc.GEN_AI_REQUEST_MAX_TOKENS,
    "num_choices": sc.GEN_AI_REQUEST_CHOICE_COUNT,
    "temperature": sc.GEN_AI_REQUEST_TEMPERATURE,
    "top_p": sc.GEN_AI_REQUEST_TOP_P,
    "frequency_penalty": sc.GEN_AI_REQUEST_FREQUENCY_PENALTY,
    "presence_penalty": sc.GEN_AI_REQUEST_PRESENCE_PENALTY,
    "reasoning_effort": sc.GEN_AI_REQUEST_REASONING_LEVEL,
    "stop_seqs": sc.GEN_AI_REQUEST_STOP_SEQUENCES,
}
_PROVIDERS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "seed": "seed",
    "n": "num_choices",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "reasoning_effort": "reasoning_effort",
    "stop": "stop_seqs",
    "stop_sequences": "stop_seqs",
}
"""How providers call the options of a request."""


def config_of(node: Node) -> GenerateConfig:
    """The options of a model call."""
    from inspect_ai.model import GenerateConfig
    from pydantic import ValidationError

    data = {name: node.get(key) for name, key in _REQUEST.items() if key in node.attributes}
    if sc.INSPECT_KIND in node.attributes:
        rest = node.get(sc.INSPECT_MODEL_CONFIG)
        data |= rest if isinstance(rest, dict) else {}
    else:
        inputs = inputs_of(node)
        inputs = inputs if isinstance(inputs, Mapping) else {}
        for holder in (
            inputs,
            inputs.get("config"),
            inputs.get("inferenceConfig"),
            inputs.get("additionalModelRequestFields"),
            node.get("llm.invocation_parameters"),
            node.get("invocation_params"),
        ):
            for name, value in holder.items() if isinstance(holder, Mapping) else ():
                if _snake(name) in _PROVIDERS and value is not None:
                    data.setdefault(_PROVIDERS[_snake(name)], value)
        if isinstance(data.get("stop_seqs"), str):
            data["stop_seqs"] = [data["stop_seqs"]]
    try:
        return GenerateConfig.model_validate(data)
    except ValidationError as error:
        wrong = {detail["loc"][0] for detail in error.errors() if detail["loc"]}
        return GenerateConfig.model_validate({k: v for k, v in data.items() if k not in wrong})


# --- usage ----------------------------------------------------------------------------------------


def usage_of(node: Node, raw: Any) -> ModelUsage | None:
    """The tokens of a model call. Inspect counts what came from a cache apart from the input."""
    found = _provider_usage(raw) or _counted(node)
    if not found:
        return None
    from inspect_ai.model import ModelUsage

    read, write = found.get("cache_read"), found.get("cache_write")
    input_tokens = max(0, found.get("input", 0) - (read or 0) - (write or 0))
    output_tokens = found.get("output", 0)
    total = found.get("total") or found.get("input", 0) + output_tokens
    return ModelUsage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        total_tokens=total,
        input_tokens_cache_read=read,
        input_tokens_cache_write=write,
        reasoning_tokens=found.get("reasoning"),
    )


def _provider_usage(raw: Any) -> dict[str, int]:
    """From a provider's own answer; `input` includes the cache."""
    if not isinstance(raw, Mapping):
        return {}
    usage = raw.get("usage") or raw.get("usage_metadata") or raw.get("usageMetadata")
    if usage is None and isinstance(raw.get("llm_output"), Mapping):
        usage = raw["llm_output"].get("token_usage") or raw["llm_output"].get("usage")
    if not isinstance(usage, Mapping):
        return {}
    names = {_snake(key): value for key, value in usage.items()}
    found = _first(
        names,
        input=("prompt_tokens", "input_tokens", "prompt_token_count"),
        output=("completion_tokens", "output_tokens", "candidates_token_count"),
        total=("total_tokens", "total_token_count"),
        cache_read=("cache_read_input_tokens", "cached_content_token_count"),
        cache_write=("cache_creation_input_tokens", "cache_write_input_tokens"),
        reasoning=("thoughts_token_count",),
    )
    for name in ("prompt_tokens_details", "input_tokens_details", "input_token_details"):
        found |= _first(names.get(name), cache_read=("cached_tokens", "cache_read"))
    for name in ("completion_tokens_details", "output_tokens_details", "output_token_details"):
        found |= _first(names.get(name), reasoning=("reasoning_tokens", "reasoning"))
    apart = {"cache_creation_input_tokens", "cache_read_input_tokens"} & names.keys()
    if apart and "prompt_tokens" not in names:  # as Anthropic counts
        for name in ("cache_read", "cache_write"):
            found["input"] = found.get("input", 0) + found.get(name, 0)
    if "thoughts_token_count" in names:  # Gemini counts thoughts apart
        found["output"] = found.get("output", 0) + found.get("reasoning", 0)
    return found if "input" in found or "output" in found else {}


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _counted(node: Node) -> dict[str, int]:
    """From the attributes of a span, which all count the cache as input."""
    conventions = {name: node.get(f"gen_ai.usage.{name}") for name in _USAGE}
    found = _first(
        conventions,
        input=("input_tokens", "prompt_tokens"),
        output=("output_tokens", "completion_tokens"),
        cache_read=("cache_read.input_tokens", "cache_read_input_tokens"),
        cache_write=(
            "cache_write.input_tokens",
            "cache_creation.input_tokens",
            "cache_creation_input_tokens",
        ),
        reasoning=("reasoning.output_tokens",),
    )
    if not found:
        found = _first(
            node.get("mlflow.chat.tokenUsage"),
            input=("input_tokens",),
            output=("output_tokens",),
            total=("total_tokens",),
            cache_read=("cache_read_input_tokens",),
            cache_write=("cache_creation_input_tokens",),
        )
    if not found:
        found = _first(
            {name: node.get(f"llm.token_count.{name}") for name in _OPENINFERENCE},
            input=("prompt",),
            output=("completion",),
            total=("total",),
            cache_read=("prompt_details.cache_read",),
            cache_write=("prompt_details.cache_write",),
            reasoning=("completion_details.reasoning",),
        )
    return found


_USAGE = (
    "input_tokens",
    "prompt_tokens",
    "output_tokens",
    "completion_tokens",
    "cache_read.input_tokens",
    "cache_read_input_tokens",
    "cache_write.input_tokens",
    "cache_creation.input_tokens",
    "cache_creation_input_tokens",
    "reasoning.output_tokens",
)
_OPENINFERENCE = (
    "prompt",
    "completion",
    "total",
    "prompt_details.cache_read",
    "prompt_details.cache_write",
    "completion_details.reasoning",
)


def _first(source: Any, **names: tuple[str, ...]) -> dict[str, int]:
    """Of each group of names the first that has a number."""
    found: dict[str, int] = {}
    for wanted, candidates in names.items():
        for name in candidates:
            value = source.get(name) if isinstance(source, Mapping) else None
            if isinstance(value, int | float) and not isinstance(value, bool):
                found[wanted] = int(value)
                break
    return found
