"""What solvers and agents were asked and answered, from the model calls inside them."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from inspect_mlflow.overlay import gen_ai_messages, parts_of
from otel_bridge import semconv as sc

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

TEXT_CHARS: Final = 4000
"""How much of a text is kept: the model spans have it whole."""
_OPEN_SPANS: Final = 20_000
_OUTERMOST: Final = frozenset({"sample", "scorer", "scorers"})
"""Kinds of spans that say themselves what they hold."""


@dataclass(slots=True)
class Exchange:
    """The newest user message of the first model call in a span, and the last call's answer."""

    asked: str
    answered: str


class Conversations:
    """Carries the exchanges of model calls up to the spans around them.

    Feed it spans in the order in which they are sent, each after those inside it. Keeps two short
    texts per span that is still to come.
    """

    def __init__(self) -> None:
        self._inside: OrderedDict[int, Exchange] = OrderedDict()

    def of(self, span: ReadableSpan) -> Exchange | None:
        """What was said inside a span, if models were asked in it; for a model call, by it."""
        attributes: Mapping[str, Any] = span.attributes or {}
        if span.context is None:
            return None
        kind, span_id = attributes.get(sc.INSPECT_KIND), span.context.span_id
        exchange: Exchange | None = None
        if kind == "model":
            exchange = _exchange(attributes)
        elif span_id in self._inside:
            exchange = self._inside.pop(span_id)
        if exchange is not None and span.parent is not None and kind not in _OUTERMOST:
            around = self._inside.get(span.parent.span_id)
            if around is None:
                self._inside[span.parent.span_id] = Exchange(exchange.asked, exchange.answered)
                if len(self._inside) > _OPEN_SPANS:
                    self._inside.popitem(last=False)
            else:
                around.answered = exchange.answered or around.answered
        return exchange


def _exchange(attributes: Mapping[str, Any]) -> Exchange:
    inputs = gen_ai_messages(attributes.get(sc.GEN_AI_INPUT_MESSAGES))
    asked = [message for message in inputs if message.get("role") == "user"]
    answers = gen_ai_messages(attributes.get(sc.GEN_AI_OUTPUT_MESSAGES))
    return Exchange(_text(asked[-1]) if asked else "", _text(answers[0]) if answers else "")


def _text(message: Mapping[str, Any]) -> str:
    """A message's text; where it has none, the calls it makes."""
    parts = parts_of(message)
    text = "\n".join(str(part.get("content", "")) for part in parts if part.get("type") == "text")
    if not text.strip():
        calls = (part for part in parts if part.get("type") == "tool_call")
        text = "\n".join(
            f"{part.get('name')}({json.dumps(part.get('arguments'), ensure_ascii=False)})"
            for part in calls
        )
    return text if len(text) <= TEXT_CHARS else f"{text[: TEXT_CHARS - 1]}…"
