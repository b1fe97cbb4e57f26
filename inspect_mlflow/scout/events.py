"""A trace of anyone's → events in the shape of Inspect's own, and its conversation (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inspect_mlflow.scout import dialects
from inspect_mlflow.scout.detection import Kind, kind_of, without_repeats
from inspect_mlflow.scout.extraction import (
    config_of,
    input_messages,
    inputs_of,
    json_answer,
    model_of,
    output_of,
    outputs_of,
    prompts_of,
    result_of,
    tools_of,
)
from inspect_mlflow.scout.tree import Node, from_ns
from otel_bridge import semconv as sc
from otel_bridge.messages import output_message_from_genai

if TYPE_CHECKING:
    from inspect_ai.event import Event, ModelEvent, ToolEvent
    from inspect_ai.model import ChatMessage, ChatMessageAssistant, StopReason
    from inspect_ai.tool import ToolCall


@dataclass
class Story:
    """What happened in a trace."""

    events: list[Event] = field(default_factory=list)
    messages: list[ChatMessage] = field(default_factory=list)
    main: ModelEvent | None = None
    """The model call whose conversation the messages are."""
    problems: list[str] = field(default_factory=list)
    """What couldn't be read, in a few words each."""

    @property
    def models(self) -> list[ModelEvent]:
        """Its model calls."""
        return [event for event in self.events if event.event == "model"]


def story_of(roots: Iterable[Node]) -> Story:
    """Events and messages of a trace.

    A span around others begins and ends; a model call or a tool call is an event, a tool's inside
    a span of its own, as Inspect has it. The messages are those of the longest conversation, of
    the outermost agent, with its answer.
    """
    from inspect_ai.model import stable_message_ids

    story = Story()
    depths: dict[str, int] = {}
    roots = without_repeats(roots)
    nodes = {node.id: node for root in roots for node in root.walk()}
    for root in roots:
        story.events += _events(root, None, 0, depths, story.problems)
    _fill_in_answers(story)
    for event in story.models:
        if not event.output.choices and not event.error:
            node = nodes[str(event.uuid)]
            said = json_answer(node)
            if said is not None:
                _answer(event, output_message_from_genai(said).message)
            shape = "" if said is None else ", whose JSON is taken for text"
            story.problems.append(f"what the model call {node.name!r} answered{shape}")
    _match_calls(story.events)
    apply_ids = stable_message_ids()
    for event in story.models:
        apply_ids(event)
    story.main = _main(story.models, depths)
    story.messages = _conversation(story.main, roots)
    apply_ids(story.messages)
    return story


def _events(
    node: Node,
    around: str | None,
    agents: int,
    depths: dict[str, int],
    problems: list[str],
) -> Iterator[Event]:
    """A node's events; `agents` is how many agents and tools it is inside of."""
    from inspect_ai.event import SpanBeginEvent, SpanEndEvent

    kind = kind_of(node)
    if kind == "model":
        model = _model_event(node, around, problems)
        depths[str(model.uuid)] = agents
        yield model
        for child in node.children:
            yield from _events(child, around, agents, depths, problems)
        return
    if kind == "span" and not node.children and node.parent_id is None:
        problems.append(f"the span {node.name!r}, which is no call of a model or tool")
    yield SpanBeginEvent(
        uuid=f"{node.id}-begin",
        id=node.id,
        span_id=node.id,
        parent_id=around,
        type=_span_type(kind),
        name=_name(node, kind),
        timestamp=from_ns(node.start_ns),
        working_start=0,
    )
    if kind == "tool":
        yield _tool_event(node, around)
    inside = agents + (kind in ("agent", "tool"))
    for child in node.children:
        yield from _events(child, node.id, inside, depths, problems)
    yield SpanEndEvent(
        uuid=f"{node.id}-end",
        id=node.id,
        span_id=node.id,
        timestamp=from_ns(node.end_ns or node.start_ns),
        working_start=0,
    )


def _span_type(kind: Kind) -> str | None:
    return kind if kind in ("agent", "tool") else None


def _name(node: Node, kind: Kind) -> str:
    if kind == "agent":
        return node.text(sc.GEN_AI_AGENT_NAME) or node.text("agent.name") or node.name
    if kind == "tool":
        return _tool_name(node)
    return node.name


def _tool_name(node: Node) -> str:
    for key in (sc.GEN_AI_TOOL_NAME, "tool.name", "traceloop.entity.name"):
        name = node.text(key)
        if name:
            return name
    return node.name.removeprefix(f"{sc.OPERATION_EXECUTE_TOOL} ")


def _model_event(node: Node, around: str | None, problems: list[str]) -> ModelEvent:
    from inspect_ai.event import ModelEvent

    messages = input_messages(node)
    output = output_of(node)
    error = _error(node)
    if not messages:
        problems.append(f"what the model call {node.name!r} was given")
    prompts = prompts_of(node)
    if prompts > 1:
        of_which = f"{prompts - 1} of the {prompts} prompts"
        problems.append(f"{of_which} that the model call {node.name!r} was given")
    if not output.choices:
        output.error = error
    return ModelEvent(
        uuid=node.id,
        span_id=around,
        model=model_of(node),
        input=messages,
        tools=tools_of(node),
        tool_choice="auto",
        config=config_of(node),
        output=output,
        error=error,
        timestamp=from_ns(node.start_ns),
        completed=from_ns(node.end_ns or node.start_ns),
        working_start=0,
    )


def _tool_event(node: Node, around: str | None) -> ToolEvent:
    from inspect_ai.event import ToolEvent
    from inspect_ai.tool import ToolCallError

    name = _tool_name(node)
    given = node.get(sc.GEN_AI_TOOL_CALL_ARGUMENTS, inputs_of(node))
    arguments = (
        dict(given) if isinstance(given, dict) else {} if given is None else {"input": given}
    )
    call_id = node.text(sc.GEN_AI_TOOL_CALL_ID) or node.text("tool_call.id")
    error = _error(node)
    return ToolEvent(
        uuid=node.id,
        span_id=around,
        id=call_id or node.id,
        function=name,
        arguments=arguments,
        result=result_of(node),
        error=None if error is None else ToolCallError(type="unknown", message=error),
        failed=True if error is not None else None,
        timestamp=from_ns(node.start_ns),
        completed=from_ns(node.end_ns or node.start_ns),
        working_start=0,
    )


def _match_calls(events: Iterable[Event]) -> None:
    """Give a tool's event the id of the model's call that it answers, which few spans say."""
    calls: list[ToolCall] = []
    for event in events:
        if event.event == "model":
            for choice in event.output.choices:
                calls += choice.message.tool_calls or ()
        elif event.event == "tool" and event.id == event.uuid:
            for call in calls:
                if (call.function, call.arguments) == (event.function, event.arguments):
                    event.id = call.id
                    calls.remove(call)
                    break


def _error(node: Node) -> str | None:
    if not node.failed:
        return None
    for event in reversed(node.events):
        if event.name == sc.EVENT_EXCEPTION and event.attributes.get(sc.EXCEPTION_MESSAGE):
            return str(event.attributes[sc.EXCEPTION_MESSAGE])
    return node.message or "error"


# --- the conversation -----------------------------------------------------------------------------


def _fill_in_answers(story: Story) -> None:
    """Some streams leave no answer on their span; the next call has it in what it was given."""
    models = story.models
    for place, event in enumerate(models):
        if event.output.choices or event.error:
            continue
        length = len(event.input)
        for later in models[place + 1 :]:
            if len(later.input) <= length:
                continue
            answer = later.input[length]
            if answer.role != "assistant":
                continue
            if [_said(m) for m in later.input[:length]] == [_said(m) for m in event.input]:
                _answer(event, answer)
                break


def _answer(event: ModelEvent, answer: ChatMessageAssistant) -> None:
    from inspect_ai.model import ChatCompletionChoice

    message = answer.model_copy(update={"source": "generate"})
    reason: StopReason = "tool_calls" if message.tool_calls else "stop"
    event.output.choices = [ChatCompletionChoice(message=message, stop_reason=reason)]
    event.output.completion = message.text


def _said(message: ChatMessage) -> dict[str, Any]:
    return message.model_dump(exclude={"id", "source", "model", "metadata"})


def _main(models: list[ModelEvent], depths: dict[str, int]) -> ModelEvent | None:
    """Of the calls by the outermost agent the one with the longest conversation, the last of it."""
    models = [event for event in models if event.input] or models
    outermost = min((depths[str(event.uuid)] for event in models), default=0)
    candidates = [event for event in models if depths[str(event.uuid)] == outermost]
    return max(reversed(candidates), key=lambda event: len(event.input), default=None)


def _conversation(main: ModelEvent | None, roots: list[Node]) -> list[ChatMessage]:
    if main is None or not main.input:
        return _outer_messages(roots)
    messages = list(main.input)
    if main.output.choices:
        messages.append(main.output.choices[0].message)
    elif main.error is None and roots:
        messages += [m for m in _outer_messages(roots) if m.role == "assistant"][-1:]
    return messages


def _outer_messages(roots: list[Node]) -> list[ChatMessage]:
    """What the whole trace was given and gave."""
    messages: list[ChatMessage] = []
    for root in roots[:1]:
        messages += input_messages(root)
        found = next(iter(dialects.answers(outputs_of(root))), None) or json_answer(root)
        messages += [output_message_from_genai(found).message] if found is not None else []
    return messages
