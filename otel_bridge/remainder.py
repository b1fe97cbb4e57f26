"""What an Inspect log says beyond what spans show, as JSON beside it.

Spans are made to be looked at. With this, they are also enough to make the log's events, messages
and scores from them again (`inspect_mlflow.scout` does). Nothing that stands elsewhere on the span
is repeated; fields that a newer Inspect adds come along. All of it is content: without content
capture none of it is written, but for what names and times a span.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any

from otel_bridge import semconv as sc
from otel_bridge.values import Capture, captured_json, plain, to_json

if TYPE_CHECKING:
    from inspect_ai.event import Event
    from inspect_ai.log import EvalLog, EvalSample
    from inspect_ai.scorer import Score

    from otel_bridge.history import History

_BASE = {"uuid", "span_id", "timestamp", "working_start", "metadata", "event", "working_time"}
_ON_SPAN: dict[str, dict[str, Any]] = {
    "model": dict.fromkeys(
        {
            *{"model", "role", "requested_model", "input", "input_refs", "tools", "config"},
            *{"retries", "request_ids", "cache", "call", "traceback"},
        },
        True,
    )
    | {"output": {"choices", "completion"}},
    "tool": dict.fromkeys(
        {
            *{"id", "type", "function", "arguments", "view", "result", "truncated", "events"},
            *{"agent", "agent_span_id", "failed", "message_id"},
        },
        True,
    ),
    "sandbox": dict.fromkeys(
        {"action", "cmd", "options", "file", "input", "result", "output"}, True
    ),
    "subtask": dict.fromkeys({"name", "input", "result", "events"}, True),
}
"""Of the events that have a span: the fields that stand in its other attributes."""


def event_remainder(event: Event, capture: Capture, shows_output: bool = True) -> dict[str, str]:
    """The rest of an event that has a span. `shows_output`: its model output is on the span."""
    if not capture.content:
        return {}
    kind = str(event.event)
    exclude: dict[str, Any] = {**dict.fromkeys(_BASE, True), **_ON_SPAN[kind]}
    if kind == "subtask":  # its span begins before it does
        del exclude["timestamp"]
    if kind == "model" and not shows_output:
        exclude["output"] = {"completion"}
    rest = event.model_dump(mode="json", exclude=exclude, exclude_none=True, warnings=False)
    if kind == "model" and rest.get("tool_choice") == "auto":
        del rest["tool_choice"]
    if event.event == "sandbox" and event.options == {}:
        rest["options"] = {}
    if event.event == "tool" and not isinstance(event.result, str):
        rest["result"] = "json"  # how to read the attribute
    if (event.event == "tool" or event.event == "subtask") and event.events:
        rest["events"] = _nested(event.events)
    return {sc.INSPECT_EVENT_DATA: captured_json(rest, capture)} if rest else {}


def span_remainder(begin: Event | None, end: Event | None, capture: Capture) -> dict[str, str]:
    """The rest of the events that begin and end an Inspect span."""
    rest: dict[str, Any] = {}
    for side, event in (("begin", begin), ("end", end)):
        if event is None:
            continue
        fields = event_fields(event, without=("uuid", "metadata"))
        if fields.get("span_id") == fields.get("id"):
            fields.pop("span_id", None)
        if event.event == f"span_{side}":
            del fields["event"], fields["id"]
        if side == "end" and capture.content and event.metadata:
            fields["metadata"] = event.metadata
        rest[side] = fields
    return {sc.INSPECT_SPAN_DATA: captured_json(rest, capture)} if rest else {}


def event_fields(event: Event, without: Container[str]) -> dict[str, Any]:
    """The fields of an event that are set, as they are, its own and those it has beyond them."""
    fields = {name: getattr(event, name) for name in type(event).model_fields}
    fields |= event.model_extra or {}
    return {k: value for k, value in fields.items() if value is not None and k not in without}


def score_remainder(event: Event | None, score: Score, capture: Capture) -> dict[str, str]:
    """The rest of a score, and of the event that reports it."""
    if not capture.content:
        return {}
    rest: dict[str, Any] = {}
    if event is not None:
        on_event = _BASE | {"score", "intermediate", "target"}
        rest = event.model_dump(exclude=on_event, exclude_none=True, warnings=False)
        if isinstance(getattr(event, "target", None), list):
            rest["target"] = "json"  # how to read the attribute
    on_event = {"answer", "explanation", "metadata"}
    rest["score"] = score.model_dump(exclude=on_event, exclude_none=True, warnings=False)
    return {sc.INSPECT_EVENT_DATA: captured_json(rest, capture)}


def sample_remainder(sample: EvalSample, history: History, capture: Capture) -> dict[str, str]:
    """The rest of a sample: what is text, its messages and calls' with their ids, timelines.

    A message that stands in a model span is named there by its digest; others stand here.
    """
    if not capture.content:
        return {}
    rest: dict[str, str] = {}
    values = ((sc.INSPECT_SAMPLE_INPUT, sample.input), (sc.INSPECT_SAMPLE_TARGET, sample.target))
    texts = [key for key, value in values if isinstance(value, str) and value.lstrip()[:1] == "["]
    if texts:
        rest[sc.INSPECT_SAMPLE_TEXT] = to_json(texts, capture.max_value_bytes)
    if sample.messages:
        messages = [history.message(message) for message in sample.messages]
        rest[sc.INSPECT_SAMPLE_MESSAGES] = to_json(messages, capture.max_value_bytes)
    input_ids = history.input_ids()
    if input_ids:
        rest[sc.INSPECT_SAMPLE_MESSAGE_IDS] = to_json(input_ids, capture.max_value_bytes)
    if sample.timelines:
        from inspect_ai.event import timeline_dump

        timelines = [timeline_dump(timeline) for timeline in sample.timelines]
        rest[sc.INSPECT_SAMPLE_TIMELINES] = captured_json(timelines, capture)
    return rest


def task_remainder(log: EvalLog, capture: Capture) -> dict[str, str]:
    """The rest of a task: when it was created, its agent, and how its models were set up."""
    spec = log.eval
    steps = log.plan.steps
    rest: dict[str, Any] = {"created": spec.created}
    if spec.solver is not None:
        rest["agent"] = spec.solver
    elif steps:
        rest["agent"] = steps[-1].solver
    if capture.content:
        arguments = spec.solver_args if spec.solver is not None else None
        if spec.solver is None and steps:
            arguments = steps[-1].params
        rest["agent_args"] = arguments or {}
        rest["task_args"] = spec.task_args
        rest["generate_config"] = _config(plain(spec.model_generate_config))
        rest["model_roles"] = {
            role: _config(plain(config)) for role, config in (spec.model_roles or {}).items()
        }
    if spec.viewer is not None and spec.viewer.trust_content is not None:
        rest["trust_content"] = spec.viewer.trust_content
    return {sc.INSPECT_TASK_DATA: captured_json(rest, capture)}


def _config(config: dict[str, Any]) -> dict[str, Any]:
    """A model's set-up without what can hold secrets."""
    result = {}
    for name, value in config.items():
        if name != "extra_headers":
            result[name] = _config(value) if isinstance(value, dict) else value
    return result


def _nested(events: list[Any]) -> int:
    """How many events of the log's order lie inside an event."""
    inner = [
        event.get("events") if isinstance(event, Mapping) else getattr(event, "events", None)
        for event in events
    ]
    return len(events) + sum(_nested(more) for more in inner if more)
