"""SpanData, and one pure function per kind of Inspect event that describes it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from otel_bridge import ids
from otel_bridge import semconv as sc
from otel_bridge.messages import output_to_genai, tools_to_genai
from otel_bridge.remainder import (
    event_fields,
    event_remainder,
    score_remainder,
    span_remainder,
    task_remainder,
)
from otel_bridge.values import Capture, captured_json, clean_text, plain, strip_media, to_json

if TYPE_CHECKING:
    from inspect_ai.event import Event, ModelEvent, SandboxEvent, SubtaskEvent, ToolEvent
    from inspect_ai.log import EvalError, EvalLog, EvalRetryError, EvalSample, EvalSpec
    from inspect_ai.model import GenerateConfig, ModelUsage
    from inspect_ai.scorer import Score

AttributeValue = str | bool | int | float | Sequence[str]
Scope = Literal["run", "sample"]
ScopeSetting = Literal["run", "sample", "auto"]

AUTO_SCOPE_LIMIT: Final = 10
"""In scope `auto`, tasks of at most this many sample executions stay in the run's trace."""


@dataclass(frozen=True, slots=True)
class EventData:
    """Something that happened at one moment inside a span. `time_ns` is Unix time."""

    name: str
    time_ns: int
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True, slots=True)
class LinkData:
    """A reference to a span of another trace."""

    trace_id: int
    span_id: int
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SpanData:
    """A finished span, described. `start_ns` and `end_ns` are Unix times in nanoseconds."""

    name: str
    trace_id: int
    span_id: int
    parent_id: int | None
    start_ns: int
    end_ns: int
    attributes: Mapping[str, AttributeValue]
    kind: Literal["internal", "client"] = "internal"
    status: Literal["unset", "ok", "error"] = "unset"
    status_message: str | None = None
    events: Sequence[EventData] = ()
    links: Sequence[LinkData] = ()


@dataclass(frozen=True, slots=True)
class TaskRef:
    """Which run and task a span belongs to, and in which trace the task's samples stand."""

    run_id: str
    eval_id: str
    task: str
    model: str
    scope: Scope

    @classmethod
    def of(cls, spec: EvalSpec, scope: ScopeSetting) -> TaskRef:
        """The reference for a task, with scope `auto` resolved from its sample count."""
        if scope == "auto":
            # a SampleSource may begin without any, and bring as many as it likes
            few = 0 < sample_executions(spec) <= AUTO_SCOPE_LIMIT
            scope = "run" if few else "sample"
        return cls(
            run_id=spec.run_id or spec.eval_id or spec.created,
            eval_id=spec.eval_id or spec.created,
            task=spec.task,
            model=spec.model,
            scope=scope,
        )

    @property
    def run_trace_id(self) -> int:
        """Trace of the run; its samples stand in it in scope `run`."""
        return ids.trace_id(self.run_id)

    @property
    def run_span_id(self) -> int:
        """Root span of the run's trace."""
        return ids.span_id(self.run_id, "run")

    @property
    def span_id(self) -> int:
        """The task's span."""
        return ids.span_id(self.run_id, "task", self.eval_id)


@dataclass(frozen=True, slots=True)
class SampleRef:
    """Which sample a span belongs to. `key` is the sample's uuid, or what stands in for it."""

    task: TaskRef
    key: str
    id: int | str
    epoch: int

    @property
    def trace_id(self) -> int:
        """The trace in which the sample stands."""
        if self.task.scope == "run":
            return self.task.run_trace_id
        return ids.trace_id(self.key)

    @property
    def span_id(self) -> int:
        """The sample's span."""
        return ids.span_id(self.key, "sample")

    def child_id(self, key: str) -> int:
        """Span id of an Inspect span or event inside this sample."""
        return ids.span_id(self.key, key)


def sample_executions(spec: EvalSpec) -> int:
    """How many times a task runs a sample: samples x epochs."""
    samples = len(spec.dataset.sample_ids or ()) or spec.dataset.samples or 0
    return samples * (spec.config.epochs or 1)


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def to_ns(time: datetime) -> int:
    """Unix time in nanoseconds, exact to the microsecond, as far as 63 bits go."""
    if time.tzinfo is None:
        time = time.replace(tzinfo=timezone.utc)
    since = time - _EPOCH
    ns = (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000
    return min(max(0, ns), 2**63 - 1)


def iso_to_ns(text: str | None) -> int | None:
    """Unix time in nanoseconds of an ISO 8601 text, None for an empty or unreadable one."""
    if not text:
        return None
    try:
        return to_ns(datetime.fromisoformat(text.replace("Z", "+00:00")))
    except ValueError:
        return None


# --- run, task, sample ------------------------------------------------------------------------


@dataclass(slots=True)
class Extent:
    """The time that something covers: widened by all that lies inside it."""

    start_ns: int | None = None
    end_ns: int | None = None

    def cover(self, start_ns: int | None, end_ns: int | None) -> None:
        """Widen so that the given moments lie inside; None says nothing."""
        for ns in (start_ns, end_ns):
            if ns is not None:
                self.start_ns = ns if self.start_ns is None else min(self.start_ns, ns)
                self.end_ns = ns if self.end_ns is None else max(self.end_ns, ns)

    @property
    def ns(self) -> tuple[int, int]:
        """Start and end; the epoch where nothing was covered."""
        return self.start_ns or 0, self.end_ns or self.start_ns or 0


RUN_FAILED: Final = ("error", "cancelled", "started")
"""A log that says `started` was never finished: its process ended before."""


def run_span(
    task: TaskRef,
    tasks: Sequence[str],
    statuses: Sequence[str],
    extent: Extent,
    *,
    eval_set_id: str | None = None,
    error: BaseException | None = None,
    capture: Capture,
) -> SpanData:
    """The root of a run's trace. `statuses` are the final statuses of its tasks."""
    start, end = extent.ns
    attributes: dict[str, AttributeValue] = {
        sc.INSPECT_KIND: "run",
        sc.OPENINFERENCE_SPAN_KIND: "CHAIN",
        sc.INSPECT_RUN_ID: task.run_id,
        sc.INSPECT_RUN_TASKS: list(tasks),
    }
    if eval_set_id:
        attributes[sc.INSPECT_EVAL_SET_ID] = eval_set_id
    failed = next((s for s in statuses if s in RUN_FAILED), None)
    failed = "cancelled" if failed == "started" else failed
    if error is not None:
        failed = "cancelled" if _is_cancellation(type(error).__name__) else "error"
    events: list[EventData] = []
    message = None
    if failed:
        message = "a task failed" if failed == "error" else "cancelled"
        attributes[sc.ERROR_TYPE] = type(error).__name__ if error is not None else failed
    if error is not None:
        events.append(_exception(type(error).__name__, str(error), None, end, capture))
    return SpanData(
        name=f"eval_run {', '.join(dict.fromkeys(tasks))}".strip(),
        trace_id=task.run_trace_id,
        span_id=task.run_span_id,
        parent_id=None,
        start_ns=start,
        end_ns=end,
        attributes=attributes,
        status="error" if failed else "ok",
        status_message=message,
        events=events,
    )


_SUITE_STATUS = {"success": "success", "error": "failure"}


def task_span(
    task: TaskRef, log: EvalLog, extent: Extent, reused: Sequence[LinkData], capture: Capture
) -> SpanData:
    """The span of a task, from the header of its log; `reused` are its earlier samples."""
    spec = log.eval
    extent.cover(iso_to_ns(log.stats.started_at), iso_to_ns(log.stats.completed_at))
    if extent.start_ns is None:  # it ended before anything began
        extent.cover(iso_to_ns(spec.created), None)
    start, end = extent.ns
    attributes: dict[str, AttributeValue] = {
        sc.INSPECT_KIND: "task",
        sc.OPENINFERENCE_SPAN_KIND: "CHAIN",
        sc.TEST_SUITE_NAME: spec.task,
        sc.TEST_SUITE_RUN_STATUS: _SUITE_STATUS.get(log.status, "aborted"),
        sc.INSPECT_RUN_ID: task.run_id,
        sc.INSPECT_EVAL_ID: task.eval_id,
        sc.INSPECT_TASK_ID: spec.task_id,
        sc.INSPECT_TASK: spec.task,
        sc.INSPECT_TASK_VERSION: str(spec.task_version),
        sc.INSPECT_TASK_STATUS: log.status,
        sc.INSPECT_MODEL: spec.model,
        sc.INSPECT_EPOCHS: spec.config.epochs or 1,
    }
    optional = {
        sc.INSPECT_EVAL_SET_ID: spec.eval_set_id,
        sc.INSPECT_TASK_FILE: spec.task_file,
        sc.INSPECT_DATASET_NAME: spec.dataset.name,
        sc.INSPECT_DATASET_SAMPLES: spec.dataset.samples,
        sc.INSPECT_SOLVER: spec.solver or ", ".join(s.solver for s in log.plan.steps),
        sc.INSPECT_TAGS: spec.tags,
        sc.INSPECT_VERSION: spec.packages.get("inspect_ai"),
        sc.INSPECT_SAMPLES_REUSED: len(reused),
    }
    attributes |= {key: value for key, value in optional.items() if value}
    if capture.content:
        for key, value in (
            (sc.INSPECT_TASK_ARGS, spec.task_args_passed),
            (sc.INSPECT_METADATA, spec.metadata),
        ):
            if value:
                attributes[key] = captured_json(value, capture)
    attributes |= task_remainder(log, capture)
    if log.results:
        attributes[sc.INSPECT_SAMPLES_TOTAL] = log.results.total_samples
        attributes[sc.INSPECT_SAMPLES_COMPLETED] = log.results.completed_samples
        stopping = log.results.early_stopping
        if stopping is not None:
            attributes[sc.INSPECT_EARLY_STOPS] = len(stopping.early_stops)
            if capture.content:
                attributes[sc.INSPECT_EARLY_STOPPING] = captured_json(stopping, capture)
        for score in log.results.scores:
            for name, metric in score.metrics.items():
                key = f"{sc.INSPECT_METRIC_PREFIX}{score.name}.{name}"
                if key in attributes and score.reducer:
                    key = f"{sc.INSPECT_METRIC_PREFIX}{score.name}.{score.reducer}.{name}"
                if math.isfinite(metric.value):
                    attributes[key] = float(metric.value)
    events: list[EventData] = []
    message = None
    if log.error is not None:
        kind, event = _eval_error(log.error, end, capture)
        attributes[sc.ERROR_TYPE] = kind
        events.append(event)
        message = _first_line(log.error.message, capture)
    elif log.status in RUN_FAILED:
        attributes[sc.ERROR_TYPE] = message = "cancelled"
    return SpanData(
        name=f"task {spec.task}",
        trace_id=task.run_trace_id,
        span_id=task.span_id,
        parent_id=task.run_span_id,
        start_ns=start,
        end_ns=end,
        attributes=attributes,
        status="error" if log.status in RUN_FAILED else "ok",
        status_message=message,
        events=events,
        links=reused,
    )


def sample_link(ref: SampleRef) -> LinkData:
    """A link to the span of a sample."""
    attributes = {sc.INSPECT_KIND: "sample", sc.INSPECT_SAMPLE_UUID: ref.key}
    return LinkData(ref.trace_id, ref.span_id, attributes)


def sample_span(
    ref: SampleRef,
    sample: EvalSample | None,
    extent: Extent,
    *,
    attempt: int,
    instants: Sequence[EventData],
    event_order: Sequence[str],
    remainder: Mapping[str, AttributeValue],
    capture: Capture,
) -> SpanData:
    """The span of a sample, from the finished sample (None: it never finished)."""
    start, end = extent.ns
    attributes: dict[str, AttributeValue] = {
        sc.INSPECT_KIND: "sample",
        sc.OPENINFERENCE_SPAN_KIND: "CHAIN",
        sc.TEST_CASE_NAME: clean_text(str(ref.id), capture.max_value_bytes),
        sc.INSPECT_RUN_ID: ref.task.run_id,
        sc.INSPECT_EVAL_ID: ref.task.eval_id,
        sc.INSPECT_TASK: ref.task.task,
        sc.INSPECT_MODEL: ref.task.model,
        sc.INSPECT_SAMPLE_ID: clean_text(str(ref.id), capture.max_value_bytes),
        sc.INSPECT_SAMPLE_UUID: ref.key,
        sc.INSPECT_SAMPLE_EPOCH: ref.epoch,
        sc.INSPECT_SAMPLE_ATTEMPT: attempt,
        sc.INSPECT_SAMPLE_EVENT_ORDER: to_json(list(event_order), capture.max_value_bytes),
        **remainder,
    }
    events = list(instants)
    status: Literal["ok", "error"] = "ok"
    message = None
    if sample is None:
        status, message = "error", "the sample did not finish"
        attributes[sc.INSPECT_CUT_OFF] = True
        attributes[sc.ERROR_TYPE] = "cancelled"
    else:
        attributes |= _sample_content(sample, capture)
        for key, seconds in (
            (sc.INSPECT_SAMPLE_TOTAL_TIME, sample.total_time),
            (sc.INSPECT_SAMPLE_WORKING_TIME, sample.working_time),
        ):
            if seconds is not None:
                attributes[key] = float(seconds)
        if sample.model_usage:
            attributes[sc.INSPECT_SAMPLE_MODEL_USAGE] = captured_json(sample.model_usage, capture)
        if sample.limit is not None:
            attributes[sc.INSPECT_SAMPLE_LIMIT] = sample.limit.type
        graders = _graders(sample.events)
        for name, score in (sample.scores or {}).items():
            for label, value in score_items(name, score):
                shown = score_value(value, capture)
                if shown is not None:
                    attributes[sc.INSPECT_SCORE_PREFIX + label] = shown
            extra = {sc.INSPECT_SCORE_GRADERS: graders[name]} if name in graders else {}
            events += score_events(name, score, end, capture, **extra)
        if sample.error is not None:
            status = "error"
            kind, event = _eval_error(sample.error, end, capture)
            attributes[sc.ERROR_TYPE] = kind
            # Inspect's own error event may stand here already, and says the same
            if not any(event.attributes.items() <= other.attributes.items() for other in instants):
                events.append(event)
            message = _first_line(sample.error.message, capture)
    attributes[sc.TEST_CASE_RESULT_STATUS] = _case_status(sample)
    links: Sequence[LinkData] = ()
    if ref.task.scope == "sample":
        links = (LinkData(ref.task.run_trace_id, ref.task.span_id, {sc.INSPECT_KIND: "task"}),)
    return SpanData(
        name=f"sample {clean_text(str(ref.id), 250)}",
        trace_id=ref.trace_id,
        span_id=ref.span_id,
        parent_id=ref.task.span_id if ref.task.scope == "run" else None,
        start_ns=start,
        end_ns=end,
        attributes=attributes,
        status=status,
        status_message=message,
        events=events,
        links=links,
    )


def attempt_span(
    ref: SampleRef,
    attempt: int,
    error: EvalError | EvalRetryError | None,
    extent: Extent,
    *,
    instants: Sequence[EventData],
    capture: Capture,
) -> SpanData:
    """A failed attempt of a sample that was tried again."""
    start, end = extent.ns
    attributes: dict[str, AttributeValue] = {
        sc.INSPECT_KIND: "attempt",
        sc.OPENINFERENCE_SPAN_KIND: "CHAIN",
        sc.INSPECT_SAMPLE_ATTEMPT: attempt,
    }
    events = list(instants)
    if error is not None:
        kind, event = _eval_error(error, end, capture)
        attributes[sc.ERROR_TYPE] = kind
        events.append(event)
    return SpanData(
        name=f"attempt {attempt}",
        trace_id=ref.trace_id,
        span_id=ref.child_id(f"attempt {attempt}"),
        parent_id=ref.span_id,
        start_ns=start,
        end_ns=end,
        attributes=attributes,
        status="error",
        status_message=_first_line(error.message, capture) if error is not None else None,
        events=events,
    )


def _sample_content(sample: EvalSample, capture: Capture) -> dict[str, AttributeValue]:
    if not capture.content:
        return {}
    text = sample.input if isinstance(sample.input, str) else captured_json(sample.input, capture)
    attributes: dict[str, AttributeValue] = {
        sc.INSPECT_SAMPLE_INPUT: clean_text(text, capture.max_value_bytes),
        sc.INSPECT_SAMPLE_TARGET: (
            clean_text(sample.target, capture.max_value_bytes)
            if isinstance(sample.target, str)
            else captured_json(sample.target, capture)
        ),
    }
    if sample.output.choices:
        attributes[sc.INSPECT_SAMPLE_OUTPUT] = clean_text(
            sample.output.completion, capture.max_value_bytes
        )
    if sample.choices:
        attributes[sc.INSPECT_SAMPLE_CHOICES] = captured_json(sample.choices, capture)
    if sample.metadata:
        attributes[sc.INSPECT_SAMPLE_METADATA] = captured_json(sample.metadata, capture)
    return attributes


def _case_status(sample: EvalSample | None) -> str:
    """Pass where every score that can be read as a number is full marks or better, else fail.

    The convention knows pass and fail alone; the scores themselves stand beside it.
    """
    if sample is None or sample.error is not None or not sample.scores:
        return "fail"
    values = [
        number
        for name, score in sample.scores.items()
        for _, value in score_items(name, score)
        if (number := score_number(value)) is not None
    ]
    return "pass" if values and all(value >= 1 for value in values) else "fail"


# --- scores -----------------------------------------------------------------------------------

_LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
_WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}


def score_items(name: str, score: Score) -> Iterator[tuple[str, Any]]:
    """The parts of a score: itself under its name, or one `name/key` per key of a dict score."""
    if isinstance(score.value, Mapping):
        for key, value in score.value.items():
            yield f"{name}/{key}", value
    else:
        yield name, score.value


def score_number(value: Any) -> float | None:
    """A score's value as Inspect's `value_to_float()` reads it; None where that isn't defined."""
    if isinstance(value, str):
        if value in _LETTERS:
            return _LETTERS[value]
        if value.lower() in _WORDS:
            return _WORDS[value.lower()]
    elif not isinstance(value, bool | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def score_value(value: Any, capture: Capture) -> AttributeValue | None:
    """A score's value as an attribute, as the scorer gave it; None where there is nothing."""
    if isinstance(value, str):
        if not capture.content and value not in _LETTERS:
            return None
        return clean_text(value, capture.max_value_bytes)
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return score_number(value)
    if not capture.content or value is None:
        return None
    return captured_json(value, capture)


def score_events(
    name: str,
    score: Score,
    time_ns: int,
    capture: Capture,
    event: Event | None = None,
    /,
    **extra: AttributeValue,
) -> list[EventData]:
    """One `gen_ai.evaluation.result` per part of a score."""
    events: list[EventData] = []
    for label, value in score_items(name, score):
        attributes: dict[str, AttributeValue] = {
            sc.GEN_AI_EVALUATION_NAME: label,
            sc.INSPECT_SCORE_SCORER: name,
            **extra,
        }
        if isinstance(value, bool):
            attributes[sc.INSPECT_SCORE_VALUE] = value
        if score.history:
            history = list(_score_history(label.removeprefix(f"{name}/"), score, capture))
            attributes[sc.INSPECT_SCORE_HISTORY] = captured_json(history, capture)
        number = score_number(value)
        if number is not None:
            attributes[sc.GEN_AI_EVALUATION_SCORE_VALUE] = number
        shown = score_value(value, capture)
        if isinstance(shown, str):
            attributes[sc.GEN_AI_EVALUATION_SCORE_LABEL] = shown
        if capture.content:
            if score.explanation:
                attributes[sc.GEN_AI_EVALUATION_EXPLANATION] = clean_text(
                    score.explanation, capture.max_value_bytes
                )
            if score.answer is not None:
                attributes[sc.INSPECT_SCORE_ANSWER] = clean_text(
                    str(score.answer), capture.max_value_bytes
                )
            if score.metadata:
                attributes[sc.INSPECT_SCORE_METADATA] = captured_json(score.metadata, capture)
        if not events:
            attributes |= score_remainder(event, score, capture)
        events.append(EventData(sc.EVENT_EVALUATION_RESULT, time_ns, attributes))
    return events


def _score_history(key: str, score: Score, capture: Capture) -> Iterator[dict[str, Any]]:
    """The states of an edited score, or of its part `key`; an edit keeps what it does not name."""
    state: dict[str, Any] = {}
    for edit in score.history:
        for name in ("value", "answer", "explanation"):
            given = getattr(edit, name)
            if given != "UNCHANGED":
                state[name] = given
        value = state.get("value")
        if isinstance(value, Mapping):
            value = value.get(key)
        shown: dict[str, Any] = {"value": score_value(value, capture)}
        if capture.content:
            shown |= {k: state[k] for k in ("answer", "explanation") if state.get(k)}
        if edit.provenance is not None:
            shown["author"] = edit.provenance.author
            shown["time"] = edit.provenance.timestamp.isoformat()
            if edit.provenance.reason and capture.content:
                shown["reason"] = edit.provenance.reason
        yield shown


def _graders(events: Iterable[Event]) -> dict[str, list[str]]:
    """The models that each scorer asked, by the name of the scorer."""
    scorers: dict[str, str] = {}
    graders: dict[str, dict[str, None]] = {}
    for event in events:
        if event.event == "span_begin":
            scorer = event.name if event.type == "scorer" else scorers.get(event.parent_id or "")
            if scorer is not None:
                scorers[event.id] = scorer
        elif event.event == "model" and (scorer := scorers.get(event.span_id or "")) is not None:
            graders.setdefault(scorer, {})[event.model] = None
    return {scorer: list(models) for scorer, models in graders.items()}


# --- Inspect spans ----------------------------------------------------------------------------


_OWN_KINDS: Final = frozenset({"run", "task", "sample", "attempt", "model", "tool", "sandbox"})
"""Kinds of spans that no Inspect span is, whatever type it was given: `collect()` says `task`."""


def inspect_span(
    ref: SampleRef,
    *,
    key: str,
    name: str,
    type: str | None,
    parent_id: int,
    extent: Extent,
    instants: Sequence[EventData],
    begin: Event | None,
    end: Event | None,
    cut_off: bool,
    attempt: int,
    subtask: SubtaskEvent | None,
    capture: Capture,
) -> SpanData:
    """A solver, scorer, agent, handoff, subtask, custom span, or a phase of the sample."""
    start_ns, end_ns = extent.ns
    attributes: dict[str, AttributeValue] = {
        sc.INSPECT_KIND: "span" if type is None or type in _OWN_KINDS else type,
        sc.INSPECT_SPAN_ID: key,
        sc.INSPECT_SPAN_NAME: name,
    }
    if type:
        attributes[sc.INSPECT_SPAN_TYPE] = type
    title = name if type in (None, name) else f"{type} {name}"
    if type == "agent":
        title = f"{sc.OPERATION_INVOKE_AGENT} {name}"
        attributes[sc.GEN_AI_OPERATION_NAME] = sc.OPERATION_INVOKE_AGENT
        attributes[sc.GEN_AI_AGENT_NAME] = name
    elif type == "scorer":
        attributes[sc.OPENINFERENCE_SPAN_KIND] = "EVALUATOR"
    elif type != "tool":
        attributes[sc.OPENINFERENCE_SPAN_KIND] = "CHAIN"
    if attempt > 1:
        attributes[sc.INSPECT_SAMPLE_ATTEMPT] = attempt
    attributes |= _span_place(begin, end, capture)
    if subtask is not None:
        attributes |= _event_place(subtask, attempt, capture)
        attributes |= event_remainder(subtask, capture)
        if subtask.type:
            attributes[sc.INSPECT_SPAN_TYPE] = subtask.type
        if capture.content:
            attributes[sc.INSPECT_INPUT] = captured_json(subtask.input, capture)
            if subtask.result is not None:
                attributes[sc.INSPECT_OUTPUT] = captured_json(subtask.result, capture)
    if cut_off:
        attributes[sc.INSPECT_CUT_OFF] = True
    return SpanData(
        name=title,
        trace_id=ref.trace_id,
        span_id=ref.child_id(key),
        parent_id=parent_id,
        start_ns=start_ns,
        end_ns=end_ns,
        attributes=attributes,
        status="error" if cut_off else "unset",
        status_message="did not finish" if cut_off else None,
        events=instants,
    )


# --- model calls ------------------------------------------------------------------------------

_PROVIDERS = {
    "openai": "openai",
    "openai-api": "openai",
    "anthropic": "anthropic",
    "google": "gcp.gemini",
    "vertex": "gcp.vertex_ai",
    "bedrock": "aws.bedrock",
    "grok": "x_ai",
    "mistral": "mistral_ai",
    "azureai": "azure.ai.inference",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "groq": "groq",
    "perplexity": "perplexity",
}


_HOSTS = {
    "azure": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "vertex": "gcp.vertex_ai",
}
_HOSTED = frozenset({"openai", "anthropic", "google", "mistral"})
"""Providers whose models Inspect reaches through others: `anthropic/bedrock/name`."""


def model_provider(model: str) -> tuple[str, str]:
    """The convention's provider and model names for Inspect's `provider/name`."""
    provider, slash, name = model.partition("/")
    if not slash:
        return "_OTHER", model
    host, slash, rest = name.partition("/")
    if slash and host in _HOSTS and provider in _HOSTED:
        if (provider, host) == ("openai", "azure"):
            return "azure.ai.openai", rest
        return _HOSTS[host], rest
    if slash and provider == "openai-api":  # Inspect's way to name any service with that API
        return _PROVIDERS.get(host, host), rest
    return _PROVIDERS.get(provider, provider), name


@dataclass(frozen=True, slots=True)
class ModelInput:
    """How a model span carries its input: see `otel_bridge.history`."""

    messages: str
    count: int
    prefix: int = 0
    prefix_span: int | None = None
    omitted: Sequence[tuple[int, int]] = ()
    system: str | None = None


def model_span(
    ref: SampleRef,
    event: ModelEvent,
    *,
    key: str,
    parent_id: int,
    end_ns: int,
    input: ModelInput,
    tools: str | None,
    attempt: int,
    capture: Capture,
) -> SpanData:
    """A call to a language model. `tools` is the JSON of its tool definitions."""
    provider, model = model_provider(event.model)
    attributes: dict[str, AttributeValue] = {
        sc.INSPECT_KIND: "model",
        sc.GEN_AI_OPERATION_NAME: sc.OPERATION_CHAT,
        sc.GEN_AI_PROVIDER_NAME: provider,
        sc.GEN_AI_REQUEST_MODEL: model,
        sc.INSPECT_MODEL: event.model,
        sc.INSPECT_INPUT_COUNT: input.count,
        sc.GEN_AI_INPUT_MESSAGES: input.messages,
    }
    if input.system:
        attributes[sc.GEN_AI_SYSTEM_INSTRUCTIONS] = input.system
    if input.prefix_span is not None:
        attributes[sc.INSPECT_INPUT_PREFIX] = input.prefix
        attributes[sc.INSPECT_INPUT_PREFIX_SPAN] = ids.hex_span_id(input.prefix_span)
        attributes[sc.INSPECT_INPUT_OMITTED] = to_json(input.omitted, capture.max_value_bytes)
    if tools:
        attributes[sc.GEN_AI_TOOL_DEFINITIONS] = tools
    attributes |= _event_place(event, attempt, capture)
    attributes |= _request(event.config, capture)
    tool_choice = event.tool_choice
    if event.tools:
        attributes[sc.INSPECT_MODEL_TOOL_CHOICE] = (
            tool_choice if isinstance(tool_choice, str) else f"function:{tool_choice.name}"
        )
    if event.role:
        attributes[sc.INSPECT_MODEL_ROLE] = event.role
    if event.requested_model:
        attributes[sc.INSPECT_MODEL_REQUESTED] = event.requested_model
    if event.cache:
        attributes[sc.INSPECT_MODEL_CACHE] = event.cache
    if event.retries:
        attributes[sc.INSPECT_MODEL_RETRIES] = event.retries
    if event.request_ids:
        attributes[sc.INSPECT_MODEL_REQUEST_IDS] = captured_json(event.request_ids, capture)
    response = event.call.response if event.call is not None else None
    response_id = response.get("id") if isinstance(response, Mapping) else None
    if isinstance(response_id, str):
        attributes[sc.GEN_AI_RESPONSE_ID] = response_id

    output = event.output
    cut_off = bool(event.pending) and event.error is None
    shows_output = not cut_off and event.error is None
    attributes |= event_remainder(event, capture, shows_output)
    if shows_output:
        if output.model:
            attributes[sc.GEN_AI_RESPONSE_MODEL] = output.model
        if output.choices:
            messages = output_to_genai(output, capture)
            attributes[sc.GEN_AI_OUTPUT_MESSAGES] = captured_json(messages, capture)
            attributes[sc.GEN_AI_RESPONSE_FINISH_REASONS] = [
                str(message.get("finish_reason") or "") for message in messages
            ]
    if output.usage is not None:
        if event.cache == "read":
            attributes[sc.INSPECT_MODEL_CACHED_USAGE] = captured_json(output.usage, capture)
        else:
            attributes |= _usage(output.usage)

    events: list[EventData] = []
    status: Literal["ok", "error"] = "ok"
    message = None
    start_ns = to_ns(event.timestamp)
    if event.error is not None:
        status = "error"
        kind = _error_type(event.error, event.traceback)
        attributes[sc.ERROR_TYPE] = kind
        message = _first_line(event.error, capture)
        events.append(_exception(kind, event.error, event.traceback, end_ns, capture))
    elif cut_off:
        status, message = "error", "did not finish"
        attributes[sc.ERROR_TYPE] = "cancelled"
        attributes[sc.INSPECT_CUT_OFF] = True
    return SpanData(
        name=f"{sc.OPERATION_CHAT} {model}",
        trace_id=ref.trace_id,
        span_id=ref.child_id(key),
        parent_id=parent_id,
        start_ns=start_ns,
        end_ns=max(start_ns, end_ns),
        attributes=attributes,
        kind="client",
        status=status,
        status_message=message,
        events=events,
    )


def tool_definitions(event: ModelEvent, capture: Capture) -> str | None:
    """The tools offered to the model, as JSON; None without tools."""
    return captured_json(tools_to_genai(event.tools, capture), capture) if event.tools else None


_REQUEST_FIELDS = {
    "seed": (sc.GEN_AI_REQUEST_SEED, int),
    "top_k": (sc.GEN_AI_REQUEST_TOP_K, int),
    "max_tokens": (sc.GEN_AI_REQUEST_MAX_TOKENS, int),
    "num_choices": (sc.GEN_AI_REQUEST_CHOICE_COUNT, int),
    "temperature": (sc.GEN_AI_REQUEST_TEMPERATURE, float),
    "top_p": (sc.GEN_AI_REQUEST_TOP_P, float),
    "frequency_penalty": (sc.GEN_AI_REQUEST_FREQUENCY_PENALTY, float),
    "presence_penalty": (sc.GEN_AI_REQUEST_PRESENCE_PENALTY, float),
    "reasoning_effort": (sc.GEN_AI_REQUEST_REASONING_LEVEL, str),
}
_CONFIG_WORDS = frozenset(
    {
        "cache_prompt",
        "effort",
        "modalities",
        "reasoning_history",
        "reasoning_mode",
        "reasoning_summary",
        "verbosity",
    }
)
"""Config fields whose text is one of a few words. Others may hold the user's own, or secrets."""


def safe_setting(name: str, value: Any) -> bool:
    """Whether a field of the generate config can be told when content is not captured."""
    return isinstance(value, int | float) or name in (*_CONFIG_WORDS, "reasoning_effort")


def _request(config: GenerateConfig, capture: Capture) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {}
    rest: dict[str, Any] = {}
    for name in config.model_fields_set:
        value = getattr(config, name)
        if value is None:
            continue
        if name in _REQUEST_FIELDS:
            key, convert = _REQUEST_FIELDS[name]
            attributes[key] = convert(value)
        elif name == "stop_seqs" and capture.content:
            attributes[sc.GEN_AI_REQUEST_STOP_SEQUENCES] = [
                clean_text(str(text), 1000) for text in value
            ]
        elif name == "response_schema":
            attributes[sc.GEN_AI_OUTPUT_TYPE] = "json"
            if capture.content:
                rest[name] = value
        elif name == "extra_headers":
            continue
        elif capture.content or safe_setting(name, value):
            rest[name] = value
    if rest:
        attributes[sc.INSPECT_MODEL_CONFIG] = captured_json(dict(sorted(rest.items())), capture)
    return attributes


def _usage(usage: ModelUsage) -> dict[str, AttributeValue]:
    """Token counts as the conventions count them: input includes what came from a cache."""
    read = usage.input_tokens_cache_read or 0
    write = usage.input_tokens_cache_write or 0
    attributes: dict[str, AttributeValue] = {
        sc.GEN_AI_USAGE_INPUT_TOKENS: usage.input_tokens + read + write,
        sc.GEN_AI_USAGE_OUTPUT_TOKENS: usage.output_tokens,
    }
    if usage.input_tokens_cache_read is not None:
        attributes[sc.GEN_AI_USAGE_CACHE_READ] = read
    if usage.input_tokens_cache_write is not None:
        attributes[sc.GEN_AI_USAGE_CACHE_WRITE] = write
        attributes[sc.GEN_AI_USAGE_CACHE_CREATION] = write
    if usage.reasoning_tokens is not None:
        attributes[sc.GEN_AI_USAGE_REASONING] = usage.reasoning_tokens
    if usage.total_cost is not None:
        attributes[sc.INSPECT_MODEL_COST] = float(usage.total_cost)
    return attributes


# --- tools and sandboxes ----------------------------------------------------------------------


def tool_span(
    ref: SampleRef,
    event: ToolEvent,
    *,
    key: str,
    parent_id: int,
    end_ns: int,
    instants: Sequence[EventData],
    begin: Event | None,
    end: Event | None,
    attempt: int,
    capture: Capture,
) -> SpanData:
    """A tool call: Inspect's tool span (`key` is its id) and its ToolEvent in one."""
    start_ns = to_ns(event.timestamp)
    attributes: dict[str, AttributeValue] = {
        sc.INSPECT_KIND: "tool",
        sc.GEN_AI_OPERATION_NAME: sc.OPERATION_EXECUTE_TOOL,
        sc.GEN_AI_TOOL_NAME: event.function,
        sc.GEN_AI_TOOL_TYPE: "function",
        sc.GEN_AI_TOOL_CALL_ID: event.id,
    }
    if begin is not None:
        attributes[sc.INSPECT_SPAN_ID] = key
    attributes |= _span_place(begin, end, capture)
    attributes |= _event_place(event, attempt, capture)
    optional = {
        sc.INSPECT_TOOL_AGENT: event.agent,
        sc.INSPECT_TOOL_AGENT_SPAN: event.agent_span_id,
        sc.INSPECT_TOOL_MESSAGE_ID: event.message_id,
    }
    attributes |= {name: value for name, value in optional.items() if value}
    attributes |= event_remainder(event, capture)
    if event.truncated:
        attributes[sc.INSPECT_TOOL_TRUNCATED] = to_json(event.truncated, 1000)
    if event.failed is not None:
        attributes[sc.INSPECT_TOOL_FAILED] = event.failed
    if capture.content:
        attributes[sc.GEN_AI_TOOL_CALL_ARGUMENTS] = captured_json(event.arguments, capture)
        if not event.pending:
            attributes[sc.GEN_AI_TOOL_CALL_RESULT] = (
                clean_text(_media_free(event.result, capture), capture.max_value_bytes)
                if isinstance(event.result, str)
                else captured_json(event.result, capture)
            )
        if event.view is not None:
            attributes[sc.INSPECT_TOOL_VIEW] = captured_json(event.view, capture)
    events = list(instants)
    status: Literal["ok", "error"] = "ok"
    message = None
    if event.error is not None:
        status = "error"
        attributes[sc.ERROR_TYPE] = attributes[sc.INSPECT_TOOL_ERROR] = event.error.type
        message = _first_line(event.error.message, capture)
        events.append(_exception(event.error.type, event.error.message, None, end_ns, capture))
    elif event.pending:
        status, message = "error", "did not finish"
        attributes[sc.ERROR_TYPE] = "cancelled"
        attributes[sc.INSPECT_CUT_OFF] = True
    elif event.failed:
        status, message = "error", "the tool raised an exception"
        attributes[sc.ERROR_TYPE] = "_OTHER"
    return SpanData(
        name=f"{sc.OPERATION_EXECUTE_TOOL} {event.function}",
        trace_id=ref.trace_id,
        span_id=ref.child_id(key),
        parent_id=parent_id,
        start_ns=start_ns,
        end_ns=max(start_ns, end_ns),
        attributes=attributes,
        status=status,
        status_message=message,
        events=events,
    )


def sandbox_span(
    ref: SampleRef,
    event: SandboxEvent,
    *,
    key: str,
    parent_id: int,
    end_ns: int,
    attempt: int,
    capture: Capture,
) -> SpanData:
    """A command run, or a file read or written, in the sample's sandbox."""
    start_ns = to_ns(event.timestamp)
    attributes: dict[str, AttributeValue] = {
        sc.INSPECT_KIND: "sandbox",
        sc.OPENINFERENCE_SPAN_KIND: "CHAIN",
        sc.INSPECT_SANDBOX_ACTION: event.action,
    }
    attributes |= _event_place(event, attempt, capture)
    attributes |= event_remainder(event, capture)
    if event.result is not None:
        attributes[sc.INSPECT_SANDBOX_EXIT_CODE] = event.result
    if capture.content:
        for name, text in (
            (sc.INSPECT_SANDBOX_COMMAND, event.cmd),
            (sc.INSPECT_SANDBOX_FILE, event.file),
            (sc.INSPECT_INPUT, event.input),
            (sc.INSPECT_OUTPUT, event.output),
        ):
            if text is not None:
                attributes[name] = clean_text(_media_free(text, capture), capture.max_value_bytes)
        if event.options:
            attributes[sc.INSPECT_SANDBOX_OPTIONS] = captured_json(event.options, capture)
    cut_off = bool(event.pending)
    if cut_off:
        attributes[sc.INSPECT_CUT_OFF] = True
    return SpanData(
        name=f"sandbox {event.action}",
        trace_id=ref.trace_id,
        span_id=ref.child_id(key),
        parent_id=parent_id,
        start_ns=start_ns,
        end_ns=max(start_ns, end_ns),
        attributes=attributes,
        status="error" if cut_off else "ok",
        status_message="did not finish" if cut_off else None,
    )


# --- everything that has no duration ----------------------------------------------------------

_BASE_FIELDS = frozenset(
    {"uuid", "span_id", "timestamp", "working_start", "metadata", "pending", "event"}
)
"""What is said elsewhere of an event."""
_SAFE_FIELDS = {
    "sample_limit": ("type", "limit"),
    "approval": ("approver", "decision"),
    "interrupt": ("source", "interrupted"),
    "compaction": ("type", "tokens_before", "tokens_after"),
    "step": ("action", "type", "name"),
    "info": ("source",),
    "input": ("outcome",),
}
"""What may be said of an event when content is not captured."""


def instant_events(event: Event, capture: Capture) -> list[EventData]:
    """An Inspect event without a duration as span events: whatever its type, known or not."""
    time_ns = to_ns(event.timestamp)
    place = _event_place(event, 1, capture)
    if event.event == "score":
        extra = dict(place)
        extra[sc.INSPECT_SCORE_INTERMEDIATE] = bool(event.intermediate)
        if event.target is not None and capture.content:
            extra[sc.INSPECT_SCORE_TARGET] = (
                clean_text(event.target, capture.max_value_bytes)
                if isinstance(event.target, str)
                else captured_json(event.target, capture)
            )
        name = event.scorer or "score"
        return score_events(name, event.score, time_ns, capture, event, **extra)
    if event.event == "error":
        _, data = _eval_error(event.error, time_ns, capture)
        if capture.content:
            place[sc.INSPECT_EVENT_DATA] = captured_json(
                {"traceback_ansi": event.error.traceback_ansi}, capture
            )
        return [EventData(data.name, time_ns, {**place, **data.attributes})]
    if capture.content:
        fields = event_fields(event, without=_BASE_FIELDS)
        if event.event == "sample_init" and not _has_uuid(event):
            # reading such a log makes up ids for the messages
            fields["sample"] = _without_message_ids(plain(event.sample))
    else:
        wanted = _SAFE_FIELDS.get(event.event, ())
        fields = {name: getattr(event, name, None) for name in wanted}
        if event.event == "logger":
            fields = {"level": event.message.level}
    attributes: dict[str, AttributeValue] = dict(place)
    if fields:
        attributes[sc.INSPECT_EVENT_DATA] = captured_json(fields, capture)
    return [EventData(sc.EVENT_PREFIX + str(event.event), time_ns, attributes)]


def _without_message_ids(sample: dict[str, Any]) -> dict[str, Any]:
    if isinstance(sample.get("input"), list):
        for message in sample["input"]:
            message.pop("id", None)
    return sample


def _has_uuid(event: Event) -> bool:
    """Whether the log gives the event a uuid; its place in the log, "#3", is none."""
    return bool(event.uuid) and not str(event.uuid).startswith("#")


def _event_place(event: Event, attempt: int, capture: Capture) -> dict[str, AttributeValue]:
    """What every span or span event made from one Inspect event says of it."""
    attributes: dict[str, AttributeValue] = {}
    if event.uuid:
        attributes[sc.INSPECT_EVENT_UUID] = event.uuid
    if event.span_id:
        attributes[sc.INSPECT_EVENT_SPAN] = event.span_id
    attributes[sc.INSPECT_WORKING_START] = event.working_start
    if event.metadata and capture.content:
        attributes[sc.INSPECT_EVENT_METADATA] = captured_json(event.metadata, capture)
    working_time = event.__dict__.get("working_time")  # getattr() is slow where there is none
    if working_time is not None:
        attributes[sc.INSPECT_WORKING_TIME] = float(working_time)
    if attempt > 1:
        attributes[sc.INSPECT_SAMPLE_ATTEMPT] = attempt
    return attributes


def _span_place(begin: Event | None, end: Event | None, capture: Capture) -> dict[str, Any]:
    """What the events that begin and end an Inspect span say beside its name and times."""
    attributes: dict[str, Any] = {}
    if begin is not None:
        place = _event_place(begin, 1, capture)
        attributes = {_BEGIN_NAMES[k]: value for k, value in place.items() if k in _BEGIN_NAMES}
    if end is not None:
        place = _event_place(end, 1, capture)
        attributes |= {_END_NAMES[k]: value for k, value in place.items() if k in _END_NAMES}
    return attributes | span_remainder(begin, end, capture)


_BEGIN_NAMES = {
    sc.INSPECT_EVENT_UUID: sc.INSPECT_SPAN_BEGIN,
    sc.INSPECT_EVENT_METADATA: sc.INSPECT_SPAN_METADATA,
    sc.INSPECT_WORKING_START: sc.INSPECT_WORKING_START,
}
_END_NAMES = {
    sc.INSPECT_EVENT_UUID: sc.INSPECT_SPAN_END,
    sc.INSPECT_WORKING_START: sc.INSPECT_WORKING_END,
}


def nested_events(event: ToolEvent | SubtaskEvent) -> list[Event]:
    """The events that logs from before there were spans keep inside a tool call or subtask."""
    from inspect_ai.event import Event
    from pydantic import Field, TypeAdapter, ValidationError

    adapter: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])

    events: list[Event] = []
    for item in event.events:
        if not isinstance(item, Mapping):
            events.append(item)
            continue
        try:
            nested = adapter.validate_python(item, context={"deserializing": True})
        except ValidationError:
            nested = _unknown_event(item, event)
        if "timestamp" not in item:
            nested.timestamp = event.timestamp
        events.append(nested)
    return events


def _unknown_event(item: Mapping[str, Any], around: Event) -> Event:
    from inspect_ai.event import InfoEvent

    timestamp = iso_to_ns(str(item.get("timestamp")))
    return InfoEvent(
        source=str(item.get("event")),
        data=plain(item),
        timestamp=around.timestamp
        if timestamp is None
        else datetime.fromtimestamp(timestamp / 1e9, timezone.utc),
        working_start=around.working_start,
    ).model_copy(update={"uuid": item.get("uuid"), "span_id": item.get("span_id")})


# --- helpers ----------------------------------------------------------------------------------


def _media_free(text: str, capture: Capture) -> str:
    return text if capture.media else str(strip_media(text))


def _eval_error(
    error: EvalError | EvalRetryError, time_ns: int, capture: Capture
) -> tuple[str, EventData]:
    kind = _error_type(error.message, error.traceback)
    return kind, _exception(kind, error.message, error.traceback, time_ns, capture)


def _exception(
    kind: str, message: str, stacktrace: str | None, time_ns: int, capture: Capture
) -> EventData:
    attributes: dict[str, AttributeValue] = {sc.EXCEPTION_TYPE: kind}
    if capture.content:
        attributes[sc.EXCEPTION_MESSAGE] = clean_text(message, capture.max_value_bytes)
        if stacktrace:
            attributes[sc.EXCEPTION_STACKTRACE] = clean_text(stacktrace, capture.max_value_bytes)
    return EventData(sc.EVENT_EXCEPTION, time_ns, attributes)


_CHAINED = re.compile(
    r"\n\n(?:During handling of the above exception, another exception occurred"
    r"|The above exception was the direct cause of the following exception):\n\n"
)
_GROUP = re.compile(r"^  [|+] ", re.MULTILINE)
_RAISED = re.compile(r"^(?:  \S.*\n(?:    .*\n)*)+([A-Za-z_][\w.]*)(?::|$)", re.MULTILINE)
_REPR = re.compile(r"(?:\w+\.)*(\w*(?:Error|Exception|Exit|Interrupt|Group))\(")


def _error_type(message: str, traceback: str | None) -> str:
    """The exception's class name, from its traceback or its repr.

    The first line after the last exception's frames: what comes later is the message's text.
    """
    last = _GROUP.sub("", _CHAINED.split(traceback or "")[-1])
    found = _RAISED.search(last) or _REPR.match(message)
    if found:
        return found.group(1).rpartition(".")[2]
    return "cancelled" if _is_cancellation(message) else "_OTHER"


def _is_cancellation(text: str) -> bool:
    return "cancel" in text.lower() or "KeyboardInterrupt" in text


def _first_line(message: str, capture: Capture) -> str | None:
    """A status description: one line, or nothing when content is not captured."""
    if not capture.content:
        return None
    return clean_text(message.strip().partition("\n")[0], 1000)
