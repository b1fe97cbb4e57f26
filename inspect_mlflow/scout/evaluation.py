"""The spans of an Inspect sample → the sample of the log they were made from (pure).

`otel_bridge` writes the spans; `otel_bridge.remainder` adds what it takes to come back. See
`inspect_mlflow.scout.differences` for what does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from inspect_mlflow.scout.extraction import config_of
from inspect_mlflow.scout.tree import Happening, Node, from_ns, loaded
from otel_bridge import semconv as sc
from otel_bridge.messages import (
    digest,
    message_from_genai,
    output_message_from_genai,
    tool_from_genai,
)

if TYPE_CHECKING:
    from inspect_ai.event import Event
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatCompletionChoice, ChatMessage
    from inspect_ai.tool import ToolInfo

Json = dict[str, Any]


def samples(root: Node) -> Iterator[Node]:
    """The sample spans in the tree of a trace."""
    for node in root.walk():
        if node.get(sc.INSPECT_KIND) == "sample":
            yield node


def tasks(root: Node) -> Iterator[Node]:
    """The task spans in the tree of a trace."""
    for node in [root, *root.children]:
        if node.get(sc.INSPECT_KIND) == "task":
            yield node


def sample_of(root: Node, problems: list[str]) -> EvalSample:
    """The sample of a sample span and what is below it. `problems` gets what couldn't be read."""
    from inspect_ai.log import EvalSample

    spans = {node.id: node for node in _of_last_attempt(root)}
    conversation = _Conversation(spans, root.get(sc.INSPECT_SAMPLE_MESSAGE_IDS) or {})
    events = _Events(root, spans, conversation, problems)
    data: Json = {
        "id": root.text(sc.INSPECT_SAMPLE_ID) or "",
        "epoch": root.get(sc.INSPECT_SAMPLE_EPOCH, 1),
        "uuid": root.text(sc.INSPECT_SAMPLE_UUID),
        "input": _text_or_list(root, sc.INSPECT_SAMPLE_INPUT, _is_message),
        "choices": root.get(sc.INSPECT_SAMPLE_CHOICES),
        "target": _text_or_list(root, sc.INSPECT_SAMPLE_TARGET, _is_text),
        "metadata": _object(root.get(sc.INSPECT_SAMPLE_METADATA)),
        "messages": list(conversation.final(root.get(sc.INSPECT_SAMPLE_MESSAGES) or [], problems)),
        "scores": _scores(root.events),
        "model_usage": _object(root.get(sc.INSPECT_SAMPLE_MODEL_USAGE)),
        "total_time": root.get(sc.INSPECT_SAMPLE_TOTAL_TIME),
        "working_time": root.get(sc.INSPECT_SAMPLE_WORKING_TIME),
        "error": _error(root),
        "limit": _limit(root),
    }
    sample = EvalSample.model_validate(data)
    sample.events = events.ordered()
    dumped = root.get(sc.INSPECT_SAMPLE_TIMELINES)
    if dumped:
        from inspect_ai.event import timeline_load

        sample.timelines = [timeline_load(timeline, sample.events) for timeline in dumped]
    return sample


def _of_last_attempt(root: Node) -> Iterator[Node]:
    """The spans of a sample; earlier attempts at it are not in its log."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(
            c for c in node.children if c.get(sc.INSPECT_KIND) not in ("attempt", "sample")
        )


# --- messages -------------------------------------------------------------------------------------


class _Conversation:
    """The messages of a sample's model calls: each once, with the id that the log gives it."""

    def __init__(self, spans: Mapping[str, Node], ids: Mapping[str, str]) -> None:
        self._spans = spans
        self._ids = ids
        self._known: dict[str, Json] = {}
        """GenAI messages without ids, by digest."""
        self._given: dict[str, ChatMessage] = {}
        self._carried: dict[str, list[str]] = {}
        self._answers: dict[str, str] = {}
        self._inputs: dict[str, list[str]] = {}
        self._tools: dict[str, list[ToolInfo]] = {}
        for node in spans.values():
            if node.get(sc.INSPECT_KIND) == "model":
                inputs = node.get(sc.GEN_AI_INPUT_MESSAGES) or []
                self._carried[node.id] = [self._know(message) for message in _messages(inputs)]
                for message in _messages(node.get(sc.GEN_AI_OUTPUT_MESSAGES) or [])[:1]:
                    self._answers[node.id] = self._know(_without_choice(message))

    def input_of(self, node: Node) -> list[ChatMessage]:
        """What a model call was given."""
        return [self._message(key) for key in self._input(node.id)]

    def tools_of(self, node: Node) -> list[ToolInfo]:
        """The tools that a model call was offered."""
        raw = node.attributes.get(sc.GEN_AI_TOOL_DEFINITIONS)
        if raw is None:
            return []
        if raw not in self._tools:
            definitions = node.get(sc.GEN_AI_TOOL_DEFINITIONS)
            self._tools[raw] = [tool_from_genai(tool) for tool in _messages(definitions)]
        return self._tools[raw]

    def final(self, entries: Iterable[Any], problems: list[str]) -> Iterator[ChatMessage]:
        """The sample's own messages: named by their digests, or whole."""
        for entry in entries:
            key = entry.get("digest") if isinstance(entry, Mapping) else None
            if key is None:
                yield _whole(entry if isinstance(entry, Mapping) else _note(entry))
            elif key in self._known:
                yield self._message(key).model_copy(update={"id": entry.get("id") or key})
            else:
                problems.append("a message of the sample stands in no model span")

    def _know(self, message: Mapping[str, Any]) -> str:
        bare = _without_id(message)
        key = digest(bare)
        self._known.setdefault(key, bare)
        return key

    def _message(self, key: str) -> ChatMessage:
        if key not in self._given:
            message = message_from_genai(self._known[key])
            message.id = self._ids.get(key) or key
            self._given[key] = message
        return self._given[key]

    def _input(self, span_id: str) -> list[str]:
        """Digests of a call's input: see `otel_bridge.history`."""
        chain: list[str] = []
        at: str | None = span_id
        while at is not None and at in self._carried and at not in self._inputs:
            chain.append(at)
            at = self._spans[at].get(sc.INSPECT_INPUT_PREFIX_SPAN)
        for name in reversed(chain):
            node = self._spans[name]
            holder = node.get(sc.INSPECT_INPUT_PREFIX_SPAN)
            earlier = list(self._inputs.get(holder, ()))
            if holder in self._answers:
                earlier.append(self._answers[holder])
            omitted = {
                i
                for first, end in node.get(sc.INSPECT_INPUT_OMITTED) or ()
                for i in range(first, end)
            }
            carried = iter(self._carried[name])
            count = int(node.get(sc.INSPECT_INPUT_COUNT) or 0)
            whole = (
                (earlier[i] if i < len(earlier) else None) if i in omitted else next(carried, None)
                for i in range(count)
            )
            self._inputs[name] = [key for key in whole if key is not None]
        return self._inputs.get(span_id, [])


def _without_id(message: Mapping[str, Any]) -> Json:
    inspect = {k: v for k, v in (message.get("inspect") or {}).items() if k != "id"}
    bare = {k: v for k, v in message.items() if k != "inspect"}
    return {**bare, "inspect": inspect} if inspect else bare


def _without_choice(message: Mapping[str, Any]) -> Json:
    inspect = {k: v for k, v in (message.get("inspect") or {}).items() if k != "choice"}
    bare = {k: v for k, v in message.items() if k not in ("inspect", "finish_reason")}
    return {**bare, "inspect": inspect} if inspect else bare


def _whole(message: Mapping[str, Any]) -> ChatMessage:
    """A message with its own id; where it has none, its digest tells it from others."""
    found = message_from_genai(message)
    found.id = found.id or digest(_without_id(message))
    return found


def _choice(message: Mapping[str, Any]) -> ChatCompletionChoice:
    choice = output_message_from_genai(message)
    choice.message.id = choice.message.id or digest(_without_id(_without_choice(message)))
    return choice


def _messages(value: Any) -> list[Mapping[str, Any]]:
    """GenAI messages; a note of what was cut becomes one."""
    if not isinstance(value, list):
        return []
    return [item if isinstance(item, Mapping) else _note(item) for item in value]


def _note(item: Any) -> Json:
    return {"role": "user", "parts": [{"type": "text", "content": str(item)}]}


# --- events ---------------------------------------------------------------------------------------


class _Events:
    """The events of a sample, from its spans and the events on them."""

    def __init__(
        self,
        root: Node,
        spans: Mapping[str, Node],
        conversation: _Conversation,
        problems: list[str],
    ) -> None:
        self._order = root.get(sc.INSPECT_SAMPLE_EVENT_ORDER) or []
        self._conversation = conversation
        self._problems = problems
        self._events: dict[str, Event] = {}
        self._nested: dict[str, int] = {}
        """Of events that hold others, how many."""
        for node in spans.values():
            self._of_span(node)
            self._of_happenings(node.events)

    def ordered(self) -> list[Event]:
        """All events in the order of the log; in each that holds others, those."""
        order = [key for key in self._order if key in self._events]
        known = set(order)
        late = [key for key in self._events if key not in known]
        keys = iter(order + sorted(late, key=lambda key: self._events[key].timestamp))
        return [self._whole(key, keys) for key in keys]

    def _whole(self, key: str, keys: Iterator[str]) -> Event:
        event = self._events[key]
        inner = self._nested.get(key, 0)
        held = []
        while inner > 0:
            nested_key = next(keys, None)
            if nested_key is None:
                break
            inner -= 1 + self._nested.get(nested_key, 0)
            held.append(self._whole(nested_key, keys))
        if held and (event.event == "tool" or event.event == "subtask"):
            event.events = held
        return event

    def _add(self, key: str | None, event: str, data: Json) -> None:
        """An event from its data; one that Inspect does not take is left out, and told."""
        from pydantic import ValidationError

        if not key:
            return
        if not key.startswith("#"):
            data["uuid"] = key
        try:
            self._events[key] = _event({**data, "event": event})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            self._problems.append(f"a {event} event ({where}: {first['msg']})")

    def _of_span(self, node: Node) -> None:
        kind = node.get(sc.INSPECT_KIND)
        if kind == "sample":
            return
        self._begin_and_end(node)
        key = node.text(sc.INSPECT_EVENT_UUID)
        if key is None:
            return
        data = {**_place(node.attributes, node.get), "timestamp": from_ns(node.start_ns)}
        rest = _object(node.get(sc.INSPECT_EVENT_DATA))
        self._nested[key] = rest.pop("events", 0)
        if kind == "model":
            self._add(key, "model", {**data, **self._model(node, rest)})
        elif kind == "tool":
            self._add(key, "tool", {**data, **_tool(node, rest)})
        elif kind == "sandbox":
            self._add(key, "sandbox", {**data, **_sandbox(node, rest)})
        else:
            self._add(key, "subtask", {**data, **_subtask(node, rest)})

    def _begin_and_end(self, node: Node) -> None:
        data = _object(node.get(sc.INSPECT_SPAN_DATA))
        sides = (("begin", sc.INSPECT_SPAN_BEGIN), ("end", sc.INSPECT_SPAN_END))
        for side, name in sides:
            fields = data.get(side)
            if not isinstance(fields, Mapping):
                continue
            event = dict(fields)
            kind = event.pop("event", f"span_{side}")
            if kind != "step":
                event.setdefault("id", node.text(sc.INSPECT_SPAN_ID))
                event.setdefault("span_id", event["id"])
            if side == "begin" and sc.INSPECT_SPAN_METADATA in node.attributes:
                event["metadata"] = node.get(sc.INSPECT_SPAN_METADATA)
            self._add(node.text(name), kind, event)

    def _model(self, node: Node, rest: Json) -> Json:
        output = {"model": "", **rest.pop("output", {})}
        choices = output.get("choices") or [
            _choice(message) for message in _messages(node.get(sc.GEN_AI_OUTPUT_MESSAGES))
        ]
        return {
            "model": node.text(sc.INSPECT_MODEL),
            "role": node.text(sc.INSPECT_MODEL_ROLE),
            "requested_model": node.text(sc.INSPECT_MODEL_REQUESTED),
            "input": self._conversation.input_of(node),
            "tools": self._conversation.tools_of(node),
            "tool_choice": "auto",
            "config": config_of(node),
            "cache": node.get(sc.INSPECT_MODEL_CACHE),
            "retries": node.get(sc.INSPECT_MODEL_RETRIES),
            "request_ids": node.get(sc.INSPECT_MODEL_REQUEST_IDS),
            "working_time": node.get(sc.INSPECT_WORKING_TIME),
            "traceback": _own_exception(node).get(sc.EXCEPTION_STACKTRACE),
            **rest,
            "output": {**output, "choices": choices},
        }

    def _of_happenings(self, happenings: Iterable[Happening]) -> None:
        scored: dict[str, list[Happening]] = {}
        for happening in happenings:
            key = happening.attributes.get(sc.INSPECT_EVENT_UUID)
            if key is None:
                continue
            data = {
                **_place(happening.attributes, happening.attributes.get),
                "timestamp": from_ns(happening.time_ns),
            }
            rest = _object(loaded(happening.attributes.get(sc.INSPECT_EVENT_DATA)))
            if happening.name == sc.EVENT_EVALUATION_RESULT:
                scored.setdefault(key, []).append(happening)
            elif happening.name == sc.EVENT_EXCEPTION:
                self._add(key, "error", {**data, "error": _exception(happening.attributes, rest)})
            elif happening.name.startswith(sc.EVENT_PREFIX):
                kind = happening.name[len(sc.EVENT_PREFIX) :]
                if kind == "input":
                    rest.setdefault("input_ansi", rest.get("input", ""))
                self._add(key, kind, {**data, **rest})
        for key, parts in scored.items():
            first = parts[0].attributes
            rest = _object(loaded(first.get(sc.INSPECT_EVENT_DATA)))
            target = first.get(sc.INSPECT_SCORE_TARGET)
            if rest.get("target") == "json":
                target = loaded(target)
            data = {
                **_place(first, first.get),
                "timestamp": from_ns(parts[0].time_ns),
                "intermediate": bool(first.get(sc.INSPECT_SCORE_INTERMEDIATE)),
                **rest,
                "target": target,
                "score": _score(parts),
            }
            self._add(key, "score", data)


def _event(data: Json) -> Event:
    """The event of its fields, whatever its type."""
    from inspect_ai import event as events

    cls: Any = _CLASSES.get(data["event"])
    if cls is None:
        cls = next(
            c
            for c in vars(events).values()
            if isinstance(c, type)
            and getattr(getattr(c, "model_fields", {}).get("event"), "default", None)
            == data["event"]
        )
        _CLASSES[data["event"]] = cls
    event: Event = cls.model_validate(data)
    return event


_CLASSES: dict[str, Any] = {}


def _place(attributes: Mapping[str, Any], get: Any) -> Json:
    """What `spans._event_place` says of every event."""
    data: Json = {}
    if sc.INSPECT_EVENT_SPAN in attributes:
        data["span_id"] = str(get(sc.INSPECT_EVENT_SPAN))
    if sc.INSPECT_WORKING_START in attributes:
        data["working_start"] = get(sc.INSPECT_WORKING_START)
    if sc.INSPECT_EVENT_METADATA in attributes:
        data["metadata"] = loaded(get(sc.INSPECT_EVENT_METADATA))
    return data


def _tool(node: Node, rest: Json) -> Json:
    as_json = rest.pop("result", None) == "json"
    read = node.get if as_json else node.text
    return {
        "id": node.text(sc.GEN_AI_TOOL_CALL_ID),
        "function": node.text(sc.GEN_AI_TOOL_NAME),
        "arguments": _object(node.get(sc.GEN_AI_TOOL_CALL_ARGUMENTS)),
        "view": node.get(sc.INSPECT_TOOL_VIEW),
        "result": read(sc.GEN_AI_TOOL_CALL_RESULT) if _result_in(node) else "",
        "truncated": node.get(sc.INSPECT_TOOL_TRUNCATED),
        "working_time": node.get(sc.INSPECT_WORKING_TIME),
        "agent": node.text(sc.INSPECT_TOOL_AGENT),
        "agent_span_id": node.text(sc.INSPECT_TOOL_AGENT_SPAN),
        "failed": node.get(sc.INSPECT_TOOL_FAILED),
        "message_id": node.text(sc.INSPECT_TOOL_MESSAGE_ID),
        **rest,
    }


def _result_in(node: Node) -> bool:
    return sc.GEN_AI_TOOL_CALL_RESULT in node.attributes


def _sandbox(node: Node, rest: Json) -> Json:
    return {
        "action": node.text(sc.INSPECT_SANDBOX_ACTION),
        "cmd": node.text(sc.INSPECT_SANDBOX_COMMAND),
        "file": node.text(sc.INSPECT_SANDBOX_FILE),
        "input": node.text(sc.INSPECT_INPUT),
        "output": node.text(sc.INSPECT_OUTPUT),
        "result": node.get(sc.INSPECT_SANDBOX_EXIT_CODE),
        "options": node.get(sc.INSPECT_SANDBOX_OPTIONS),
        **rest,
    }


def _subtask(node: Node, rest: Json) -> Json:
    return {
        "name": node.text(sc.INSPECT_SPAN_NAME),
        "input": _object(node.get(sc.INSPECT_INPUT)),
        "result": node.get(sc.INSPECT_OUTPUT),
        "working_time": node.get(sc.INSPECT_WORKING_TIME),
        **rest,
    }


def _exception(attributes: Mapping[str, Any], rest: Mapping[str, Any]) -> Json:
    traceback = attributes.get(sc.EXCEPTION_STACKTRACE, "")
    return {
        "message": attributes.get(sc.EXCEPTION_MESSAGE, ""),
        "traceback": traceback,
        "traceback_ansi": rest.get("traceback_ansi", traceback),
    }


def _own_exception(node: Node) -> Mapping[str, Any]:
    """The exception that ended a span, as opposed to an error event inside it."""
    for happening in reversed(node.events):
        attributes = happening.attributes
        if happening.name == sc.EVENT_EXCEPTION and sc.INSPECT_EVENT_UUID not in attributes:
            return attributes
    return {}


# --- scores and what else the sample has ----------------------------------------------------------


def _scores(happenings: Iterable[Happening]) -> dict[str, Json] | None:
    """The scores of a sample, in their order; None where there are none."""
    parts: dict[str, list[Happening]] = {}
    for happening in happenings:
        attributes = happening.attributes
        if happening.name != sc.EVENT_EVALUATION_RESULT or sc.INSPECT_EVENT_UUID in attributes:
            continue
        parts.setdefault(str(attributes.get(sc.INSPECT_SCORE_SCORER)), []).append(happening)
    return {name: _score(found) for name, found in parts.items()} or None


def _score(parts: list[Happening]) -> Json:
    first = parts[0].attributes
    rest = _object(loaded(first.get(sc.INSPECT_EVENT_DATA)))
    score = _object(rest.get("score"))
    if "value" not in score:  # content was not captured
        score["value"] = _value_of(parts)
    elif sc.GEN_AI_EVALUATION_SCORE_LABEL not in first or not isinstance(score["value"], str):
        score["value"] = _with_nan(score["value"])
    for name, key in (
        ("answer", sc.INSPECT_SCORE_ANSWER),
        ("explanation", sc.GEN_AI_EVALUATION_EXPLANATION),
    ):
        if key in first:
            score[name] = first[key]
    if sc.INSPECT_SCORE_METADATA in first:
        score["metadata"] = loaded(first[sc.INSPECT_SCORE_METADATA])
    return score


def _value_of(parts: list[Happening]) -> Any:
    values: Json = {}
    scorer = parts[0].attributes.get(sc.INSPECT_SCORE_SCORER)
    for part in parts:
        shown = part.attributes
        value = shown.get(sc.INSPECT_SCORE_VALUE, shown.get(sc.GEN_AI_EVALUATION_SCORE_LABEL))
        if value is None:
            value = shown.get(sc.GEN_AI_EVALUATION_SCORE_VALUE, math.nan)
        name = str(shown.get(sc.GEN_AI_EVALUATION_NAME))
        if name == scorer:
            return value
        values[name.removeprefix(f"{scorer}/")] = value
    return values


def _with_nan(value: Any) -> Any:
    """Numbers that JSON has no word for, from the words that stand for them."""
    if isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    if isinstance(value, list):
        return [_with_nan(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_nan(item) for key, item in value.items()}
    return value


def _text_or_list(root: Node, key: str, is_item: Callable[[Any], bool]) -> Any:
    """An attribute that is text, or JSON of a list of such items."""
    value = root.get(key)
    as_text = key in (root.get(sc.INSPECT_SAMPLE_TEXT) or ())
    if isinstance(value, list) and not as_text and all(map(is_item, value)):
        return value
    return root.text(key) or ""


def _is_message(item: Any) -> bool:
    return isinstance(item, Mapping) and "role" in item


def _is_text(item: Any) -> bool:
    return isinstance(item, str)


def _error(root: Node) -> Json | None:
    """The error that ended a sample, which Inspect's last error event may say already."""
    if not root.failed:
        return None
    exceptions = [e.attributes for e in root.events if e.name == sc.EVENT_EXCEPTION]
    exception = _own_exception(root) or (exceptions[-1] if exceptions else {})
    return _exception(exception, {}) if exception else None


def _limit(root: Node) -> Json | None:
    kind = root.text(sc.INSPECT_SAMPLE_LIMIT)
    return None if kind is None else {"type": kind, "limit": 0}


def _object(value: Any) -> Json:
    return dict(value) if isinstance(value, Mapping) else {}
