"""What kind of work a span stands for, whoever made it (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from inspect_mlflow.scout.tree import Node
from otel_bridge import semconv as sc

Kind = Literal["model", "tool", "agent", "span"]

_KINDS: dict[str, Kind] = {
    # mlflow.spanType
    "CHAT_MODEL": "model",
    "LLM": "model",
    "TOOL": "tool",
    "AGENT": "agent",
    # gen_ai.operation.name
    "chat": "model",
    "text_completion": "model",
    "generate_content": "model",
    "completion": "model",
    "responses": "model",
    "execute_tool": "tool",
    "invoke_agent": "agent",
    "create_agent": "agent",
    # traceloop.span.kind
    "tool": "tool",
    "agent": "agent",
}
_NAMES = (
    "mlflow.spanType",
    sc.GEN_AI_OPERATION_NAME,
    sc.OPENINFERENCE_SPAN_KIND,
    "llm.request.type",
    "traceloop.span.kind",
)
_MODEL_SIGNS = (
    sc.GEN_AI_INPUT_MESSAGES,
    sc.GEN_AI_OUTPUT_MESSAGES,
    "llm.input_messages.0.message.role",
    "gen_ai.prompt.0.role",
)

_MODEL_NAMES = (
    sc.GEN_AI_REQUEST_MODEL,
    sc.GEN_AI_RESPONSE_MODEL,
    "llm.request.model_name",
    "llm.model_name",
    "mlflow.llm.model",
)
_CONTENT = (
    *_MODEL_SIGNS,
    "llm.output_messages.0.message.role",
    "gen_ai.completion.0.role",
    "mlflow.spanInputs",
    "mlflow.spanOutputs",
    "input.value",
    "output.value",
    "traceloop.entity.input",
    "traceloop.entity.output",
)


def without_repeats(nodes: Iterable[Node], around: Node | None = None) -> list[Node]:
    """Sibling nodes without those that repeat a model call in numbers alone.

    An SDK may trace the calls that an instrumentation of it traces too, as Anthropic's does by
    itself. Of such a span, inside the fuller one or begun beside it meanwhile, what the fuller one
    lacks goes there. Below `nodes` the same is done in place; `around` is the call they are in.
    """
    nodes = list(nodes)
    calls = [node for node in nodes if _is_call(node, with_content=True)]
    kept: list[Node] = []
    for node in nodes:
        call = None
        if _is_call(node, with_content=False):
            call = next((c for c in reversed(calls) if _repeats(node, c)), around)
        if call is None:
            kept.append(node)
            inside = node if _is_call(node, with_content=True) else None
            node.children = without_repeats(node.children, inside)
        else:
            call.attributes = {**node.attributes, **call.attributes}
            kept += without_repeats(node.children)
    return kept


def _is_call(node: Node, *, with_content: bool) -> bool:
    has_content = any(name in node.attributes for name in _CONTENT)
    return has_content == with_content and _declared(node) == "model"


def _repeats(node: Node, call: Node) -> bool:
    during = call.start_ns <= node.start_ns <= (call.end_ns or node.start_ns)
    return during and not _models(node).isdisjoint(_models(call))


def _models(node: Node) -> set[str]:
    return {model for model in map(node.text, _MODEL_NAMES) if model is not None}


def kind_of(node: Node) -> Kind:
    """A model call, a tool call, an agent, or any other span.

    A model span with another model call below it is only the frame of that one: frameworks and
    the SDKs they use are often traced both.
    """
    kind = _declared(node)
    if kind == "model" and any(
        _declared(below) == "model" for c in node.children for below in c.walk()
    ):
        return "span"
    return kind


def _declared(node: Node) -> Kind:
    for name in _NAMES:
        found = _KINDS.get(str(node.text(name)))
        if found is not None:
            return found
    return "model" if any(sign in node.attributes for sign in _MODEL_SIGNS) else "span"
