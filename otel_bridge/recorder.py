"""Per-sample state: Inspect events in, finished spans out, each exactly once.

A sample is converted when it has ended, from the events of its log: `_convert` is the one place
where events become spans. While it runs, the calls that have ended (models, tools, sandboxes) are
converted by the same code and handed out at once; what was handed out is not handed out again.
Spans that hold others, and the sample's own, come with the end: only then is it known what they
hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otel_bridge import ids
from otel_bridge.history import History
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
    run_span,
    sample_span,
    sandbox_span,
    task_span,
    to_ns,
    tool_definitions,
    tool_span,
)
from otel_bridge.values import Capture

if TYPE_CHECKING:
    from inspect_ai.event import Event, ModelEvent, SandboxEvent, SubtaskEvent, ToolEvent
    from inspect_ai.log import EvalError, EvalLog, EvalRetryError, EvalSample, EvalSpec


@dataclass(slots=True)
class _Node:
    """An Inspect span: what begins, what ends, and what happens in between."""

    key: str
    name: str
    type: str | None
    parent: _Node | None
    begin_ns: int
    end_ns: int | None = None
    instants: list[Event] = field(default_factory=list)
    tool: ToolEvent | None = None
    subtask: SubtaskEvent | None = None
    extent: Extent = field(default_factory=Extent)


@dataclass(slots=True)
class _Call:
    """An event with a duration of its own, and the Inspect span it lies in."""

    key: str
    event: ModelEvent | ToolEvent | SandboxEvent
    node: _Node | None


class _Tree:
    """The Inspect spans of a sample, built from its events in their order."""

    def __init__(self) -> None:
        self.nodes: dict[str, _Node] = {}
        self.instants: list[Event] = []
        self._steps: list[_Node] = []

    def begin(self, key: str, name: str, type: str | None, parent: str | None, ns: int) -> _Node:
        node = self.nodes.get(key)
        if node is None:
            node = _Node(key, name, type, self.node(parent), ns)
            self.nodes[key] = node
        return node

    def node(self, key: str | None) -> _Node | None:
        if key is None:
            return self._steps[-1] if self._steps else None
        return self.nodes.get(key)

    def add(self, event: Event, key: str) -> _Node | None:
        """Take in an event without a duration; returns the span it lies in or opens."""
        if event.event == "span_begin":
            return self.begin(
                event.id, event.name, event.type, event.parent_id, to_ns(event.timestamp)
            )
        if event.event == "span_end":
            node = self.nodes.get(event.id)
            if node is not None and node.end_ns is None:
                node.end_ns = to_ns(event.timestamp)
            return node
        if event.event == "step":
            return self._step(event.action, event.name, event.type, key, to_ns(event.timestamp))
        node = self.node(event.span_id)
        while node is not None and node.end_ns is not None:
            node = node.parent  # the span is closed: what comes late belongs around it
        (self.instants if node is None else node.instants).append(event)
        return node

    def _step(self, action: str, name: str, type: str | None, key: str, ns: int) -> _Node | None:
        """Steps are the spans of older logs: nested by their order alone."""
        if action == "begin":
            node = self.begin(key, name, type, None, ns)
            self._steps.append(node)
            return node
        for node in reversed(self._steps):
            if node.name == name and node.type == type:
                node.end_ns = ns
                del self._steps[self._steps.index(node) :]
                return node
        return None


class SampleRecorder:
    """Turns the events of one sample into spans.

    Feed it live with `add`, or give it the finished sample alone; `finish` ends it either way.
    Not thread-safe.
    """

    def __init__(self, ref: SampleRef, capture: Capture, attempt: int = 1) -> None:
        self.ref = ref
        self.attempt = attempt
        self.extent = Extent()
        self._capture = capture
        self._sent: set[int] = set()
        self._begin_attempt()

    def _begin_attempt(self) -> None:
        self._events: list[Event] = []
        self._tree = _Tree()
        self._history = History(self._capture)
        self._tool_spans: dict[str, str] = {}
        self._tool_order: list[str] = []

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
        if not settled:
            return []
        if event.event == "span_begin" and tool_event is not None:
            self._tool_spans[tool_event] = event.id
        if event.event == "model":
            if event.completed is None or event.error is not None:
                return []
            key, node = event.uuid, self._tree.node(event.span_id)
        elif event.event == "tool":
            span = self._tool_spans.get(event.uuid or "")
            if event.completed is None or span is None or span not in self._tree.nodes:
                return []
            key, node = span, self._tree.nodes[span].parent
        elif event.event == "sandbox":
            if event.completed is None:
                return []
            key, node = event.uuid, self._tree.node(event.span_id)
        elif event.event == "subtask":
            return []
        else:
            self._tree.add(event, event.uuid or "")
            return []
        if key is None:
            return []
        instants = self._tree.nodes[key].instants if event.event == "tool" else []
        span_data = self._call(_Call(key, event, node), to_ns(event.completed), instants)
        return [] if span_data is None else [span_data]

    def end_attempt(
        self, error: EvalError | EvalRetryError | None, started_ns: int | None = None
    ) -> list[SpanData]:
        """End a failed attempt after which the sample is tried again.

        `started_ns` stands in for its time where it left no event.
        """
        attempt_id = self.ref.child_id(f"attempt {self.attempt}")
        spans, extent, instants = self._convert(self._events, attempt_id, None)
        if extent.start_ns is None:
            extent.cover(started_ns, None)
        self.extent.cover(extent.start_ns, extent.end_ns)
        spans += self._once(
            attempt_span(
                self.ref, self.attempt, error, extent, instants=instants, capture=self._capture
            )
        )
        self.attempt += 1
        self._begin_attempt()
        return spans

    def finish(self, sample: EvalSample | None) -> list[SpanData]:
        """All spans not yet returned, the sample's own last.

        `sample` is the finished sample; None if it never finished (its events so far stand in).
        """
        events: Sequence[Event] = self._events
        if sample is not None and (sample.events or not events):
            events = sample.events
        spans: list[SpanData] = []
        if sample is not None and self.attempt == 1:
            for retry in sample.error_retries or ():
                self._events = list(retry.events or ())
                spans += self.end_attempt(retry, started_ns=iso_to_ns(sample.started_at))
        bounds = Extent()
        if sample is not None:
            bounds.cover(iso_to_ns(sample.started_at), iso_to_ns(sample.completed_at))
        rest, extent, instants = self._convert(events, self.ref.span_id, bounds)
        self.extent.cover(extent.start_ns, extent.end_ns)
        spans += rest
        spans += self._once(
            sample_span(
                self.ref,
                sample,
                self.extent,
                attempt=self.attempt,
                instants=instants,
                event_order=[key for key, _ in _keyed(events)],
                capture=self._capture,
            )
        )
        return spans

    # --- the conversion ------------------------------------------------------------------------

    def _convert(
        self, events: Sequence[Event], root_id: int, bounds: Extent | None
    ) -> tuple[list[SpanData], Extent, list[EventData]]:
        """Spans of a sample's events, the time they cover, and what lies in no span."""
        tree, calls = _Tree(), list[_Call]()
        times: list[int] = []
        opened: _Node | None = None
        for key, event in _keyed(events):
            times.append(to_ns(event.timestamp))
            before, opened = opened, None
            if event.event == "model" or event.event == "sandbox":
                calls.append(_Call(key, event, tree.node(event.span_id)))
            elif event.event == "tool":
                if before is not None and before.type == "tool" and before.tool is None:
                    before.tool = event
                    calls.append(_Call(before.key, event, before.parent))
                else:
                    calls.append(_Call(key, event, tree.node(event.span_id)))
            elif event.event == "subtask":
                if before is not None and before.type == "subtask" and before.subtask is None:
                    before.subtask = event
                else:
                    node = tree.begin(
                        key, event.name, "subtask", event.span_id, to_ns(event.timestamp)
                    )
                    node.subtask = event
            else:
                node_or_none = tree.add(event, key)
                if event.event in ("span_begin", "step"):
                    opened = node_or_none

        total = Extent()
        if bounds is not None:
            total.cover(bounds.start_ns, bounds.end_ns)
        last_ns = max(times, default=total.end_ns or 0)
        spans: list[SpanData] = []
        # in the order of completion, which is the order in which live calls arrive
        ends = {id(call): _end_ns(call, calls, last_ns) for call in calls}
        for call in sorted(calls, key=lambda call: (call.event.completed is None, ends[id(call)])):
            end_ns = ends[id(call)]
            own = tree.nodes.get(call.key) if call.event.event == "tool" else None
            enclosing = call.node
            extent = total if enclosing is None else enclosing.extent
            extent.cover(to_ns(call.event.timestamp), end_ns)
            if own is not None:
                own.extent.cover(to_ns(call.event.timestamp), end_ns)
            span = self._call(call, end_ns, own.instants if own else [], root_id)
            if span is not None:
                spans.append(span)
        for node in reversed(list(tree.nodes.values())):
            extent = node.extent
            extent.cover(node.begin_ns, node.end_ns)
            for event in node.instants:
                extent.cover(to_ns(event.timestamp), None)
            if node.subtask is not None and node.subtask.completed is not None:
                extent.cover(to_ns(node.subtask.timestamp), to_ns(node.subtask.completed))
            (total if node.parent is None else node.parent.extent).cover(*extent.ns)
            if node.tool is None:
                spans += self._once(
                    inspect_span(
                        self.ref,
                        key=node.key,
                        name=node.name,
                        type=node.type,
                        parent_id=self._parent_id(node.parent, root_id),
                        extent=extent,
                        instants=self._instants(node.instants),
                        cut_off=node.end_ns is None
                        and (node.subtask is None or node.subtask.completed is None),
                        attempt=self.attempt,
                        subtask=node.subtask,
                        capture=self._capture,
                    )
                )
        for ns in times:
            total.cover(ns, ns)
        return spans, total, self._instants(tree.instants)

    def _call(
        self,
        call: _Call,
        end_ns: int,
        instants: Iterable[Event] = (),
        root_id: int | None = None,
    ) -> SpanData | None:
        """The span of a call, None if it was returned before."""
        span_id = self.ref.child_id(call.key)
        event = call.event
        if span_id in self._sent:
            return None
        self._sent.add(span_id)
        parent_id = self._parent_id(call.node, root_id or self.ref.span_id)
        if event.event == "model":
            return model_span(
                self.ref,
                event,
                key=call.key,
                parent_id=parent_id,
                end_ns=end_ns,
                input=self._history.add(event, span_id),
                tools=tool_definitions(event, self._capture),
                attempt=self.attempt,
                capture=self._capture,
            )
        if event.event == "tool":
            return tool_span(
                self.ref,
                event,
                key=call.key,
                parent_id=parent_id,
                end_ns=end_ns,
                instants=self._instants(instants),
                attempt=self.attempt,
                capture=self._capture,
            )
        return sandbox_span(
            self.ref,
            event,
            key=call.key,
            parent_id=parent_id,
            end_ns=end_ns,
            attempt=self.attempt,
            capture=self._capture,
        )

    def _parent_id(self, node: _Node | None, root_id: int) -> int:
        return root_id if node is None else self.ref.child_id(node.key)

    def _instants(self, events: Iterable[Event]) -> list[EventData]:
        return [data for event in events for data in instant_events(event, self._capture)]

    def _once(self, span: SpanData) -> list[SpanData]:
        if span.span_id in self._sent:
            return []
        self._sent.add(span.span_id)
        return [span]


def _keyed(events: Iterable[Event]) -> Iterator[tuple[str, Event]]:
    """Events with their keys, each event once: its uuid, or its place where it has none.

    Logs from before there were spans nest the events of tools and subtasks inside them.
    """
    seen: set[str] = set()
    for place, event in enumerate(_flat(events)):
        key = event.uuid or f"#{place}"
        if key not in seen:
            seen.add(key)
            yield key, event


def _flat(events: Iterable[Event]) -> Iterator[Event]:
    for event in events:
        yield event
        if event.event in ("tool", "subtask") and event.events:
            yield from _flat(event.events)


def _end_ns(call: _Call, calls: Sequence[_Call], last_ns: int) -> int:
    """When a call ended: its own time, or for one without, where the log says it was over.

    A failed attempt ends where the next call in its span begins; what was cut off ends with its
    span, or with the sample's last event.
    """
    event = call.event
    if event.completed is not None:
        return to_ns(event.completed)
    start_ns = to_ns(event.timestamp)
    if event.event == "model" and event.error is not None:
        later = (
            to_ns(other.event.timestamp)
            for other in calls
            if other.node is call.node and other.event.event == "model"
        )
        following = min((ns for ns in later if ns > start_ns), default=None)
        if following is not None:
            return following
    if call.node is not None and call.node.end_ns is not None:
        return max(start_ns, call.node.end_ns)
    return max(start_ns, last_ns)


class RunRecorder:
    """Turns one evaluation run into spans: keeps its tasks, and the times they cover."""

    def __init__(self, run_id: str, scope: ScopeSetting, capture: Capture) -> None:
        self.run_id = run_id
        self._scope = scope
        self._capture = capture
        self._eval_set_id: str | None = None
        self._tasks: dict[str, _Task] = {}
        self._extent = Extent()
        self._statuses: list[str] = []
        self._names: list[str] = []
        self._ref: TaskRef | None = None

    def begin_task(self, spec: EvalSpec) -> TaskRef:
        """Note a task that runs; returns what its samples need to refer to it."""
        ref = TaskRef.of(spec, self._scope)
        self._tasks[spec.eval_id] = _Task(ref, spec)
        self._eval_set_id = spec.eval_set_id
        self._names.append(spec.task)
        self._ref = self._ref or ref
        return ref

    def begin_sample(
        self, eval_id: str, uuid: str | None, id: int | str, epoch: int
    ) -> SampleRecorder | None:
        """A recorder for a sample of a task that was begun; None for any other task."""
        task = self._tasks.get(eval_id)
        if task is None:
            return None
        key = ids.sample_key(uuid, eval_id, id, epoch)
        return SampleRecorder(SampleRef(task.ref, key, id, epoch), self._capture)

    def end_sample(self, recorder: SampleRecorder, sample: EvalSample | None) -> list[SpanData]:
        """All spans of a sample that were not yet returned."""
        spans = recorder.finish(sample)
        task = self._tasks.get(recorder.ref.task.eval_id)
        if task is not None:
            task.extent.cover(recorder.extent.start_ns, recorder.extent.end_ns)
        return spans

    def end_task(self, log: EvalLog) -> list[SpanData]:
        """The task's span, from the header of its log. Nothing if it was not begun, or ended."""
        task = self._tasks.pop(log.eval.eval_id, None)
        if task is None:
            return []
        span = task_span(task.ref, log, task.extent, self._capture)
        self._extent.cover(span.start_ns, span.end_ns)
        self._statuses.append(log.status)
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
                self._names,
                self._statuses,
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
