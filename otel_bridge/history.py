"""How model spans carry a growing conversation without repeating it without end.

Inspect gives every model call its whole input. Written out naively, an agent of n turns sends n²
messages. Here a call names the earlier call of its sample whose input and output its own input
begins with, repeats of that prefix only what a budget allows, and carries all that follows it
whole. So each message stands whole at least once, and any call's input can be rebuilt:
the prefix from the named span (the same way), then what stands in the span itself.

Which earlier call is named depends on the calls' own times alone, so that a live evaluation,
which sees calls in the order they end, and its log, which has them in the order they began,
come to the same answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otel_bridge.messages import message_to_genai, system_instructions
from otel_bridge.spans import ModelInput, to_ns
from otel_bridge.values import Capture, to_json

if TYPE_CHECKING:
    from inspect_ai.event import ModelEvent
    from inspect_ai.model import ChatMessage


@dataclass(frozen=True, slots=True)
class _Message:
    """A converted message: its JSON, UTF-8 size, and a number equal for equal JSON."""

    source: ChatMessage
    json: str
    size: int
    number: int


@dataclass(frozen=True, slots=True)
class _Call:
    completed_ns: int
    span_id: int
    messages: tuple[int, ...]


class History:
    """The model calls of one sample, and the messages they carried."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._calls: list[_Call] = []
        self._by_id: dict[str, _Message] = {}
        self._numbers: dict[str, int] = {}

    def add(self, event: ModelEvent, span_id: int) -> ModelInput:
        """How the span of a call carries its input; the call counts as history from now on.

        Calls must be added in the order in which they completed.
        """
        messages = [self._convert(message) for message in event.input]
        numbers = tuple(message.number for message in messages)
        prefix, holder = self._prefix(numbers, to_ns(event.timestamp))
        if event.completed is not None:
            full = numbers
            if event.output.choices:
                full += (self._convert(event.output.choices[0].message).number,)
            self._calls.append(_Call(to_ns(event.completed), span_id, full))

        carried = self._within_budget(messages, prefix) if holder is not None else set()
        omitted = [] if holder is None else _runs(i for i in range(prefix) if i not in carried)
        whole = [m for i, m in enumerate(messages) if i >= prefix or i in carried]
        system = [m.source for m in whole if m.source.role == "system"]
        return ModelInput(
            messages=self._array(whole),
            count=len(messages),
            prefix=prefix,
            prefix_span=holder,
            omitted=omitted,
            system=to_json(
                system_instructions(system, self._capture), self._capture.max_value_bytes
            )
            if system
            else None,
        )

    def _convert(self, message: ChatMessage) -> _Message:
        known = self._by_id.get(message.id) if message.id else None
        if known is not None and (known.source is message or known.source == message):
            return known
        json = to_json(self._genai(message), self._capture.max_value_bytes)
        number = self._numbers.setdefault(json, len(self._numbers))
        converted = _Message(message, json, len(json.encode()), number)
        if message.id:
            self._by_id[message.id] = converted
        return converted

    def _prefix(self, numbers: tuple[int, ...], start_ns: int) -> tuple[int, int | None]:
        """The longest beginning that an earlier call held, and that call's span id.

        Of several, the one that completed last (then the greatest span id).
        """
        best: tuple[int, int, int] | None = None
        for call in reversed(self._calls):
            if call.completed_ns > start_ns or (best and len(call.messages) < best[0]):
                continue
            length = _common(call.messages, numbers)
            candidate = (length, call.completed_ns, call.span_id)
            if length and (best is None or candidate > best):
                best = candidate
        return (best[0], best[2]) if best else (0, None)

    def _within_budget(self, messages: Sequence[_Message], prefix: int) -> set[int]:
        """Positions of the prefix to repeat: system and first user message, then the newest."""
        first_user = next((i for i in range(prefix) if messages[i].source.role == "user"), None)
        system = [i for i in range(prefix) if messages[i].source.role == "system"]
        order = dict.fromkeys(
            [*system, *([first_user] if first_user is not None else []), *range(prefix)[::-1]]
        )
        budget = self._capture.history_bytes
        carried: set[int] = set()
        for i in order:
            if messages[i].size > budget:
                break
            budget -= messages[i].size
            carried.add(i)
        return carried

    def _array(self, messages: Sequence[_Message]) -> str:
        limit = self._capture.max_value_bytes
        if sum(m.size + 1 for m in messages) + 1 <= limit:
            return f"[{','.join(m.json for m in messages)}]"
        return to_json([self._genai(m.source) for m in messages], limit)

    def _genai(self, message: ChatMessage) -> dict[str, Any]:
        """A message without its id: logs give equal messages of a sample one id, live has two."""
        converted = message_to_genai(message, self._capture)
        inspect = {k: v for k, v in converted.pop("inspect", {}).items() if k != "id"}
        return {**converted, "inspect": inspect} if inspect else converted


def rebuild_input(span_id: str, spans: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The whole input of a model span, as GenAI messages.

    `spans` maps hex span ids to the spans' attributes. Raises KeyError where a span that holds a
    part of the history is not there.
    """
    import json

    from otel_bridge import semconv as sc

    chain: list[str] = []
    at: str | None = span_id
    while at is not None:
        chain.append(at)
        at = spans[at].get(sc.INSPECT_INPUT_PREFIX_SPAN)
    messages: list[dict[str, Any]] = []
    for step, name in enumerate(reversed(chain)):
        attributes = spans[name]
        carried = iter(json.loads(attributes[sc.GEN_AI_INPUT_MESSAGES]))
        prefix = int(attributes.get(sc.INSPECT_INPUT_PREFIX, 0))
        omitted = {
            i
            for first, end in json.loads(attributes.get(sc.INSPECT_INPUT_OMITTED, "[]"))
            for i in range(first, end)
        }
        whole = [
            messages[i] if i in omitted else next(carried)
            for i in range(int(attributes[sc.INSPECT_INPUT_COUNT]))
        ]
        assert prefix <= len(whole)
        messages = whole
        if step < len(chain) - 1 and sc.GEN_AI_OUTPUT_MESSAGES in attributes:
            messages = messages + json.loads(attributes[sc.GEN_AI_OUTPUT_MESSAGES])[:1]
    return messages


def _common(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """Length of the common beginning."""
    length = min(len(left), len(right))
    if left[:length] == right[:length]:
        return length
    return next(i for i in range(length) if left[i] != right[i])


def _runs(positions: Any) -> list[tuple[int, int]]:
    """Ascending positions as [first, last + 1] ranges."""
    runs: list[tuple[int, int]] = []
    for i in positions:
        if runs and runs[-1][1] == i:
            runs[-1] = (runs[-1][0], i + 1)
        else:
            runs.append((i, i + 1))
    return runs
