"""Per-sample state: Inspect events in, finished spans out, each exactly once.

A sample is converted when it has ended, from the events of its log: `_convert` is the one place
where events become spans. While it runs, the calls that have ended (models, tools, sandboxes) are
converted by the same code and handed out at once; what was handed out is not handed out again.
Spans that hold others, and the sample's own, come with the end: only then is it known what they
hold.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otel_bridge import ids
from otel_bridge.history import History
from otel_bridge.remainder import sample_remainder
from otel_bridge.spans import (
    EventData,
    Extent,
    SampleRef,
    ScopeSetting,
    SpanData,
    TaskRef,
    attempt_span,
    inspect_span,
    instant_events,
    iso_to_ns,
    model_span,
    nested_events,
    run_span,
    sample_link,
    sample_span,
    sandbox_span,
    task_span,
    to_ns,
    tool_definitions,
    tool_span,
)
from otel_bridge.values import Capture

if TYPE_CHECKING:
    from inspect_ai.event import (
        Event,
        ModelEvent,
        SandboxEvent,
        StepEvent,
        SubtaskEvent,
        ToolEvent,
    )
    from inspect_ai.log import EvalError, EvalLog, EvalRetryError, EvalSample, EvalSpec
    from inspect_ai.tool import ToolInfo


@dataclass(slots=True)
class _Node:
    """An Inspect span: what begins it, what ends it, and what happens in between."""

    key: str
    name: str
    type: str | None
    parent: _Node | None
    begin_ns: int
    begin: Event | None = None
    end: Event | None = None
    event: ToolEvent | SubtaskEvent | None = None
    """The tool call or subtask that the span is all about."""
    instants: list[Event] = field(default_factory=list)
    extent: Extent = field(default_factory=Extent)

    @property
    def end_ns(self) -> int | None:
        """When it ended, None where the log does not say."""
        if self.end is not None:
            return to_ns(self.end.timestamp)
        completed = None if self.event is None else self.event.completed
        return None if completed is None else to_ns(completed)


@dataclass(slots=True)
class _Call:
    """An event with a span of its own, and the Inspect span around it. `key` names its span."""

    key: str
    event: ModelEvent | ToolEvent | SandboxEvent
    around: _Node | None
    node: _Node | None = None
    """A tool call's own Inspect span."""


class _Tree:
    """The Inspect spans of a sample, what lies in them and in none, built in the log's order."""

    def __init__(self) -> None:
        self.nodes: dict[str, _Node] = {}
        self.calls: list[_Call] = []
        self.instants: list[Event] = []
        self.events: dict[str, Event] = {}
        """Every event once, by its uuid, or its place where it has none."""
        self._steps: list[_Node] = []

    def node(self, key: str | None) -> _Node | None:
        """The span of that id; without one, the innermost step that is open."""
        if key is None:
            return self._steps[-1] if self._steps else None
        return self.nodes.get(key)

    def take(self, events: Iterable[Event]) -> None:
        """Take in the events of a log: a tool's or subtask's follows the beginning of its span."""
        opened: _Node | None = None
        for event in events:
            opened = self.add(event, opened)

    def add(self, event: Event, opened: _Node | None = None) -> _Node | None:
        """Take in an event. `opened` is the span that the event before it in the log has begun.

        Returns the span that this one begins.
        """
        key = event.uuid or f"#{len(self.events)}"
        if key in self.events:
            return opened
        if event.uuid is None:  # a log from before there were any; reading it makes times up
            own = {} if "working_start" in event.model_fields_set else {"working_start": 0.0}
            event = event.model_copy(update={"uuid": key, **own})
        self.events[key] = event
        if event.event == "span_begin":
            return self._begin(event.id, event.name, event.type, event.parent_id, event)
        if event.event == "span_end":
            node = self.nodes.get(event.id)
            if node is not None and node.end is None:
                node.end = event
        elif event.event == "step":
            return self._step(event, key)
        elif event.event == "model" or event.event == "sandbox":
            self.calls.append(_Call(key, event, self.node(event.span_id)))
        elif event.event == "tool" or event.event == "subtask":
            if opened is not None and opened.type == event.event and opened.event is None:
                node = opened
            else:
                name = event.function if event.event == "tool" else event.name
                node = self._begin(key, name, event.event, event.span_id, event)
            self._own(event, node)
        else:
            node = self.node(event.span_id)
            while node is not None and node.end is not None:
                node = node.parent  # the span is closed: what comes late belongs around it
            (self.instants if node is None else node.instants).append(event)
        return None

    def _own(self, event: ToolEvent | SubtaskEvent, node: _Node) -> None:
        node.event = event
        if event.event == "tool":
            self.calls.append(_Call(node.key, event, node.parent, node))
        if event.events:  # as logs had it before there were spans
            self._steps.append(node)
            self.take(nested_events(event))
            del self._steps[self._steps.index(node) :]

    def _begin(
        self, key: str, name: str, type: str | None, parent: str | None, event: Event
    ) -> _Node:
        node = self.nodes.get(key)
        if node is None:
            node = _Node(key, name, type, self.node(parent), to_ns(event.timestamp))
            self.nodes[key] = node
            if event.event in ("span_begin", "step"):
                node.begin = event
        return node

    def _step(self, event: StepEvent, key: str) -> _Node | None:
        """Steps are the spans of older logs: nested by their order alone."""
        if event.action == "begin":
            node = self._begin(key, event.name, event.type, None, event)
            self._steps.append(node)
            return node
        for node in reversed(self._steps):
            if node.name == event.name and node.type == event.type:
                node.end = event
                del self._steps[self._steps.index(node) :]
                break
        return None


class SampleRecorder:
    """Turns the events of one sample into spans.

    Feed it live with `add`, or give it the finished sample alone; `finish` ends it either way.
    `since_ns` is when the evaluation was created: failed attempts from before, which a retried
    evaluation's samples bring along, belong to another one. `earlier` are the failed attempts
    that a live sample starts with. Not thread-safe.
    """

    def __init__(
        self,
        ref: SampleRef,
        capture: Capture,
        since_ns: int = 0,
        earlier: Sequence[EvalRetryError] = (),
    ) -> None:
        self.ref = ref
        self.extent = Extent()
        self._capture = capture
        self._since_ns = since_ns
        self._earlier = len(self._own(earlier))
        self.attempt = 1 + self._earlier
        self._sent: set[int] = set()
        self._begin_attempt()

    def _begin_attempt(self) -> None:
        self._events: list[Event] = []
        self._tree = _Tree()
        self._history = History(self._capture)
        self._tool_spans: dict[str, str] = {}
        self._tools: tuple[Sequence[ToolInfo], str | None] = ((), None)

    def add(
        self, event: Event, tool_event: str | None = None, *, settled: bool = True
    ) -> list[SpanData]:
        """Take in a live event and return the spans that it completes.

        `tool_event` is, for the beginning of a tool span, the uuid of the ToolEvent that follows
        it in the transcript. `settled` is False for an event that is still being changed. A call
        is complete when it has `completed`; what fails, or never ends, waits for the end of the
        sample.
        """
        self._events.append(event)
        if not settled or event.uuid is None:
            return []
        if event.event == "model":
            if event.completed is None or event.error is not None:
                return []
            call = _Call(event.uuid, event, self._tree.node(event.span_id))
        elif event.event == "sandbox":
            call = _Call(event.uuid, event, self._tree.node(event.span_id))
        elif event.event == "tool":
            node = self._tree.nodes.get(self._tool_spans.get(event.uuid, ""))
            if node is None or node.end is None:
                return []
            call = _Call(node.key, event, node.parent, node)
        else:
            if event.event == "span_begin" and tool_event is not None:
                self._tool_spans[tool_event] = event.id
            if event.event != "subtask":
                self._tree.add(event)
            return []
        if call.event.completed is None:
            return []
        return self._once(self._call(call, to_ns(call.event.completed), self.ref.span_id))

    def end_attempt(
        self, error: EvalError | EvalRetryError | None, started_ns: int | None = None
    ) -> list[SpanData]:
        """End a failed attempt after which the sample is tried again.

        `started_ns` stands in for its time where it left no event.
        """
        spans = self._failed_attempt(error, started_ns)
        self.attempt += 1
        self._begin_attempt()
        return spans

    def _failed_attempt(
        self, error: EvalError | EvalRetryError | None, started_ns: int | None
    ) -> list[SpanData]:
        tree = _Tree()
        tree.take(self._events)
        attempt_id = self.ref.child_id(f"attempt {self.attempt}")
        spans, extent = self._convert(tree, attempt_id, Extent())
        if extent.start_ns is None:
            extent.cover(started_ns, None)
        self.extent.cover(extent.start_ns, extent.end_ns)
        spans += self._once(
            attempt_span(
                self.ref,
                self.attempt,
                error,
                extent,
                instants=self._instants(tree.instants),
                capture=self._capture,
            )
        )
        return spans

    def finish(self, sample: EvalSample | None) -> list[SpanData]:
        """All spans not yet returned, the sample's own last.

        `sample` is the finished sample; None if it never finished. Live events that it does not
        have (Inspect strips a sample that can't be written) are kept.
        """
        spans: list[SpanData] = []
        extent = Extent()
        if sample is not None:
            retries = self._own(sample.error_retries or ())
            unseen = len(retries) - (self.attempt - 1 - self._earlier)
            for number, retry in enumerate(retries[:unseen], 1):
                seen = SampleRecorder(self.ref, self._capture)
                seen.attempt, seen._events, seen._sent = (
                    number,
                    list(retry.events or ()),
                    self._sent,
                )
                spans += seen._failed_attempt(retry, iso_to_ns(sample.started_at))
                self.extent.cover(seen.extent.start_ns, seen.extent.end_ns)
            self.attempt = len(retries) + 1
            extent.cover(iso_to_ns(sample.started_at), iso_to_ns(sample.completed_at))
        tree = _Tree()
        tree.take(() if sample is None else sample.events)
        tree.take(self._events)
        rest, extent = self._convert(tree, self.ref.span_id, extent)
        if extent.start_ns is None:  # neither events nor times
            extent.cover(self._since_ns, None)
        self.extent.cover(extent.start_ns, extent.end_ns)
        spans += rest
        spans += self._once(
            sample_span(
                self.ref,
                sample,
                self.extent,
                attempt=self.attempt,
                instants=self._instants(tree.instants),
                event_order=list(tree.events),
                remainder={}
                if sample is None
                else sample_remainder(sample, self._history, self._capture),
                capture=self._capture,
            )
        )
        return spans

    def _own(self, retries: Sequence[EvalRetryError]) -> list[EvalRetryError]:
        """The failed attempts that this evaluation made, as far as their events tell."""
        return [
            retry
            for retry in retries
            if not retry.events
            or any(to_ns(event.timestamp) >= self._since_ns for event in retry.events)
        ]

    # --- the conversion ------------------------------------------------------------------------

    def _convert(self, tree: _Tree, root_id: int, total: Extent) -> tuple[list[SpanData], Extent]:
        """Spans not yet returned of what happened below a root, and the time it covers."""
        times = [to_ns(event.timestamp) for event in tree.events.values()]
        if times:
            total.cover(min(times), max(times))
        ends = _ends(tree.calls, max(times, default=0))
        for call, end_ns in ends:
            around = total if call.around is None else call.around.extent
            around.cover(to_ns(call.event.timestamp), end_ns)
        for node in reversed(tree.nodes.values()):
            node.extent.cover(node.begin_ns, node.end_ns)
            for event in node.instants:
                node.extent.cover(to_ns(event.timestamp), None)
            (total if node.parent is None else node.parent.extent).cover(*node.extent.ns)
        spans: list[SpanData] = []
        # in the order of completion, which is the order in which live calls arrive
        for call, end_ns in sorted(ends, key=lambda end: (end[0].event.completed is None, end[1])):
            if call.event.completed is None and call.node is not None:
                end_ns = max(end_ns, call.node.extent.ns[1])
            spans += self._once(self._call(call, end_ns, root_id))
        for node in reversed(tree.nodes.values()):
            if node.event is None or node.event.event == "subtask":
                span = inspect_span(
                    self.ref,
                    key=node.key,
                    name=node.name,
                    type=node.type,
                    parent_id=self._parent_id(node.parent, root_id),
                    extent=node.extent,
                    instants=self._instants(node.instants),
                    begin=node.begin,
                    end=node.end,
                    cut_off=node.end_ns is None
                    or (node.event is not None and node.event.completed is None),
                    attempt=self.attempt,
                    subtask=node.event,
                    capture=self._capture,
                )
                spans += self._once(span)
        return spans, total

    def _call(self, call: _Call, end_ns: int, root_id: int) -> SpanData | None:
        """The span of a call, None if it was returned before."""
        span_id = self.ref.child_id(call.key)
        if span_id in self._sent:
            return None
        event = call.event
        parent_id = self._parent_id(call.around, root_id)
        if event.event == "model":
            return model_span(
                self.ref,
                event,
                key=call.key,
                parent_id=parent_id,
                end_ns=end_ns,
                input=self._history.add(event, span_id),
                tools=self._tool_definitions(event),
                attempt=self.attempt,
                capture=self._capture,
            )
        if event.event == "sandbox":
            return sandbox_span(
                self.ref,
                event,
                key=call.key,
                parent_id=parent_id,
                end_ns=end_ns,
                attempt=self.attempt,
                capture=self._capture,
            )
        node = call.node
        return tool_span(
            self.ref,
            event,
            key=call.key,
            parent_id=parent_id,
            end_ns=end_ns,
            instants=[] if node is None else self._instants(node.instants),
            begin=None if node is None else node.begin,
            end=None if node is None else node.end,
            attempt=self.attempt,
            capture=self._capture,
        )

    def _tool_definitions(self, event: ModelEvent) -> str | None:
        """The tools offered to the model: mostly those of the call before."""
        if self._tools[0] != event.tools:
            self._tools = (event.tools, tool_definitions(event, self._capture))
        return self._tools[1]

    def _parent_id(self, node: _Node | None, root_id: int) -> int:
        return root_id if node is None else self.ref.child_id(node.key)

    def _instants(self, events: Iterable[Event]) -> list[EventData]:
        return [data for event in events for data in instant_events(event, self._capture)]

    def _once(self, span: SpanData | None) -> list[SpanData]:
        if span is None or span.span_id in self._sent:
            return []
        self._sent.add(span.span_id)
        return [span]


def _ends(calls: Sequence[_Call], last_ns: int) -> list[tuple[_Call, int]]:
    """When calls ended: their own time, or for one without, when the log says that it was over.

    A failed attempt at a model call ends where another one in its span begins or ends; what was
    cut off ends with the first span around it that ended, or with the sample's last event.
    """
    moments: defaultdict[int, set[int]] = defaultdict(set)
    for call in calls:
        if call.event.event == "model":
            for time in (call.event.timestamp, call.event.completed):
                if time is not None:
                    moments[id(call.around)].add(to_ns(time))
    ordered = {around: sorted(times) for around, times in moments.items()}
    ends: list[tuple[_Call, int]] = []
    for call in calls:
        event, start_ns = call.event, to_ns(call.event.timestamp)
        end_ns = None if event.completed is None else to_ns(event.completed)
        if end_ns is None and event.event == "model" and event.error:
            times = ordered[id(call.around)]
            later = bisect_right(times, start_ns)
            end_ns = times[later] if later < len(times) else None
        if end_ns is None:
            end_ns = _closing_ns(call.around)
        ends.append((call, max(start_ns, last_ns if end_ns is None else end_ns)))
    return ends


def _closing_ns(node: _Node | None) -> int | None:
    """When the innermost span around that ended did so."""
    while node is not None and node.end_ns is None:
        node = node.parent
    return None if node is None else node.end_ns


_NONE: Mapping[str, EvalSpec] = {}


class RunRecorder:
    """Turns one evaluation run into spans: keeps its tasks, and the times they cover."""

    def __init__(self, run_id: str, scope: ScopeSetting, capture: Capture) -> None:
        self.run_id = run_id
        self._scope = scope
        self._capture = capture
        self._eval_set_id: str | None = None
        self._tasks: dict[str, _Task] = {}
        self._extent = Extent()
        self._names: list[str] = []
        self._statuses: dict[str, str] = {}
        self._current: dict[str, str] = {}
        """The last evaluation of each task: the others were tried again."""
        self._ref: TaskRef | None = None

    def begin_task(self, spec: EvalSpec) -> TaskRef:
        """Note a task that runs; returns what its samples need to refer to it."""
        ref = TaskRef.of(spec, self._scope)
        self._tasks[spec.eval_id] = _Task(ref, spec)
        self._eval_set_id = spec.eval_set_id
        self._names.append(spec.task)
        self._current[spec.task_id or spec.eval_id] = spec.eval_id
        self._ref = self._ref or ref
        return ref

    def begin_sample(
        self,
        eval_id: str,
        uuid: str | None,
        id: int | str,
        epoch: int,
        earlier: Sequence[EvalRetryError] = (),
    ) -> SampleRecorder | None:
        """A recorder for a sample of a task that was begun; None for any other task."""
        task = self._tasks.get(eval_id)
        if task is None:
            return None
        key = ids.sample_key(uuid, eval_id, id, epoch)
        ref = SampleRef(task.ref, key, id, epoch)
        return SampleRecorder(ref, self._capture, iso_to_ns(task.spec.created) or 0, earlier)

    def end_sample(self, recorder: SampleRecorder, sample: EvalSample | None) -> list[SpanData]:
        """All spans of a sample that were not yet returned."""
        spans = recorder.finish(sample)
        task = self._tasks.get(recorder.ref.task.eval_id)
        if task is not None:
            task.extent.cover(recorder.extent.start_ns, recorder.extent.end_ns)
        return spans

    def end_task(self, log: EvalLog, reused: Mapping[str, EvalSpec] = _NONE) -> list[SpanData]:
        """The task's span, from the header of its log. Nothing if it was not begun, or ended.

        `reused` are the samples, by uuid, that it took over from earlier evaluations.
        """
        task = self._tasks.pop(log.eval.eval_id, None)
        if task is None:
            return []
        links = [
            sample_link(SampleRef(TaskRef.of(spec, self._scope), uuid, "", 0))
            for uuid, spec in reused.items()
        ]
        span = task_span(task.ref, log, task.extent, links, self._capture)
        self._extent.cover(span.start_ns, span.end_ns)
        self._statuses[log.eval.eval_id] = log.status
        return [span]

    def open_tasks(self) -> list[EvalSpec]:
        """Tasks that were begun and not ended."""
        return [task.spec for task in self._tasks.values()]

    def end(self, error: BaseException | None = None) -> list[SpanData]:
        """The run's span. Nothing if no task was begun: there is nothing to show."""
        if self._ref is None:
            return []
        return [
            run_span(
                self._ref,
                sorted(self._names),  # finished logs don't tell in which order they were given
                [self._statuses.get(eval_id, "started") for eval_id in self._current.values()],
                self._extent,
                eval_set_id=self._eval_set_id,
                error=error,
                capture=self._capture,
            )
        ]


@dataclass(slots=True)
class _Task:
    ref: TaskRef
    spec: EvalSpec
    extent: Extent = field(default_factory=Extent)
