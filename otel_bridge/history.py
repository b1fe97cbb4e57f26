"""How model spans carry a growing conversation without repeating it without end.

Inspect gives every model call its whole input. Written out naively, an agent of n turns sends n²
messages. Here a call names the earlier call of its sample whose input and output its own input
begins with, repeats of that prefix only what a budget allows, and carries all that follows it
whole. So each message stands whole at least once, and any call's input can be rebuilt:
the prefix from the named span (the same way), then what stands in the span itself.

Of several earlier calls the first to complete is named. That depends on the calls' own times
alone: a live evaluation, which sees calls in the order they end, and its log, which has them in
the order they began, come to the same answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otel_bridge.messages import digest, message_to_genai, system_instructions
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


class History:
    """The model calls of one sample, and the messages they carried, as a tree of beginnings.

    A node is a beginning of a conversation; it knows the call that first completed with it.
    """

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._by_id: dict[str, _Message] = {}
        self._numbers: dict[str, int] = {}
        self._nodes: dict[tuple[int, int], int] = {}
        """A node's number, by the node before it and the number of the message in between."""
        self._holders: list[tuple[int, int]] = [(0, 0)]
        """By node: when the call that holds it completed, and the call's span id."""
        self._digests: list[str] = []
        """By the number of a message."""
        self._input_ids: dict[str, str] = {}

    def add(self, event: ModelEvent, span_id: int) -> ModelInput:
        """How the span of a call carries its input; the call counts as history from now on.

        Calls must be added in the order in which they completed.
        """
        messages = [self._convert(message) for message in event.input]
        for message in messages:
            if message.source.id:
                self._input_ids.setdefault(self._digests[message.number], message.source.id)
        numbers = [message.number for message in messages]
        prefix, holder = self._prefix(numbers, to_ns(event.timestamp))
        if event.completed is not None and event.error is None:
            outputs = [choice.message for choice in event.output.choices[:1]]
            self._hold(
                [*numbers, *(self._convert(message).number for message in outputs)],
                (to_ns(event.completed), span_id),
            )

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

    def input_ids(self) -> dict[str, str]:
        """The ids of the messages that the calls were given, by the messages' digests."""
        return self._input_ids

    def message(self, message: ChatMessage) -> dict[str, Any]:
        """A message as GenAI; of one that a call's span carries, its digest and its id."""
        known = self._known(message)
        if known is not None:
            number: int | None = known.number
        else:
            json = to_json(self._genai(message), self._capture.max_value_bytes)
            number = self._numbers.get(json)
        if number is None:
            return message_to_genai(message, self._capture)
        return {"digest": self._digests[number], **({"id": message.id} if message.id else {})}

    def _known(self, message: ChatMessage) -> _Message | None:
        known = self._by_id.get(message.id) if message.id else None
        if known is not None and (known.source is message or known.source == message):
            return known
        return None

    def _convert(self, message: ChatMessage) -> _Message:
        known = self._known(message)
        if known is not None:
            return known
        genai = self._genai(message)
        json = to_json(genai, self._capture.max_value_bytes)
        number = self._numbers.setdefault(json, len(self._numbers))
        if number == len(self._digests):
            self._digests.append(digest(genai))
        converted = _Message(message, json, len(json.encode()), number)
        if message.id:
            self._by_id[message.id] = converted
        return converted

    def _prefix(self, numbers: Sequence[int], start_ns: int) -> tuple[int, int | None]:
        """The longest beginning that a call held which was over by then, and its span id."""
        node, span_id = 0, None
        for length, number in enumerate(numbers):
            found = self._nodes.get((node, number))
            if found is None or self._holders[found][0] > start_ns:
                return length, span_id  # what goes on from here was held later still
            node, span_id = found, self._holders[found][1]
        return len(numbers), span_id

    def _hold(self, numbers: Iterable[int], holder: tuple[int, int]) -> None:
        node = 0
        for number in numbers:
            found = self._nodes.setdefault((node, number), len(self._holders))
            if found == len(self._holders):
                self._holders.append(holder)
            else:
                self._holders[found] = min(self._holders[found], holder)
            node = found

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
        return _as_input(message_to_genai(message, self._capture))


def _as_input(message: dict[str, Any]) -> dict[str, Any]:
    """A converted message as it stands in an input, be it an output."""
    own = {key: value for key, value in message.items() if key not in ("finish_reason", "inspect")}
    inspect = {k: v for k, v in message.get("inspect", {}).items() if k not in ("id", "choice")}
    return {**own, "inspect": inspect} if inspect else own


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
            outputs = json.loads(attributes[sc.GEN_AI_OUTPUT_MESSAGES])
            messages = messages + [_as_input(output) for output in outputs[:1]]
    return messages


def _runs(positions: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending positions as [first, last + 1] ranges."""
    runs: list[tuple[int, int]] = []
    for i in positions:
        if runs and runs[-1][1] == i:
            runs[-1] = (runs[-1][0], i + 1)
        else:
            runs.append((i, i + 1))
    return runs
