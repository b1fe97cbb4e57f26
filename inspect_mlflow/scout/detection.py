"""What kind of work a span stands for, whoever made it (pure)."""

from __future__ import annotations

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
