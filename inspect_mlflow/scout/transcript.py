"""Samples and stories → transcripts: the fields that Scout knows, and metadata (pure)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from inspect_mlflow.scout.tree import Node, from_ns
from otel_bridge import semconv as sc

if TYPE_CHECKING:
    from inspect_ai.log import EvalSample, EvalSampleSummary
    from inspect_ai.model import ChatMessage
    from inspect_scout import Transcript
    from mlflow.entities import Assessment, Trace

    from inspect_mlflow.scout.events import Story

SOURCE_TYPE: Final = "mlflow"


def transcript_of_sample(
    root: Node, sample: EvalSample, task: Node, trace: Trace, uri: str
) -> Transcript:
    """The transcript of a sample. `task` is the span of its task, `uri` where the trace is."""
    from inspect_scout import Transcript

    summary = sample.summary()
    spec = task_data(task)
    score = _first_score(summary)
    value = None if score is None else score.value
    if isinstance(value, dict) and "value" in value:
        value = value["value"]
    return Transcript(
        transcript_id=str(sample.uuid),
        source_type=SOURCE_TYPE,
        source_id=root.text(sc.INSPECT_EVAL_ID),
        source_uri=uri,
        date=_date(spec.get("created")),
        task_set=_without_namespace(root.text(sc.INSPECT_TASK) or ""),
        task_id=str(sample.id),
        task_repeat=sample.epoch,
        agent=spec.get("agent"),
        agent_args=spec.get("agent_args"),
        model=root.text(sc.INSPECT_MODEL),
        model_options=spec.get("generate_config"),
        score=_number(value),
        score_explanation=None if score is None else score.explanation,
        success=_success(summary),
        message_count=len(sample.messages),
        total_time=sample.total_time,
        total_tokens=sum(usage.total_tokens for usage in sample.model_usage.values()),
        error=summary.error or "",
        limit=summary.limit or "",
        trust_content=spec.get("trust_content"),
        metadata=_metadata(root, sample, summary, task, trace),
        messages=sample.messages,
        events=sample.events,
        timelines=sample.timelines or [],
    )


def transcript_of_trace(roots: list[Node], story: Story, trace: Trace, uri: str) -> Transcript:
    """The transcript of a trace of anyone's."""
    from inspect_scout import Transcript

    root = roots[0] if roots else None
    models = story.models
    assessed = said_in(trace.info.assessments or ())
    scores: dict[str, Any] = assessed.pop("feedback", {})
    score, explanation = next(iter(scores.values()), (None, None))
    agent = next((e for e in story.events if e.event == "span_begin" and e.type == "agent"), None)
    usages = [event.output.usage for event in models if event.output.usage is not None]
    duration = trace.info.execution_duration
    main = story.main
    return Transcript(
        transcript_id=trace.info.trace_id,
        source_type=SOURCE_TYPE,
        source_id=trace.info.experiment_id,
        source_uri=uri,
        date=str(from_ns(trace.info.request_time * 1_000_000)),
        task_set=trace.info.tags.get("mlflow.traceName") or (root.name if root else None),
        task_id=trace.info.client_request_id or trace.info.trace_id,
        agent=None if agent is None or agent.event != "span_begin" else agent.name,
        model=None if main is None else main.model,
        model_options=None if main is None else main.config.model_dump(exclude_none=True),
        score=score,
        score_explanation=explanation,
        success=_above_zero(score),
        message_count=len(story.messages),
        total_time=None if duration is None else duration / 1000,
        total_tokens=sum(usage.total_tokens for usage in usages),
        error=_error(root, trace),
        metadata={
            "mlflow_trace_id": trace.info.trace_id,
            "mlflow_experiment_id": trace.info.experiment_id,
            **_trace_metadata(trace),
            **{f"score_{name}": value for name, (value, _) in scores.items()},
            **assessed,
        },
        messages=story.messages,
        events=story.events,
    )


def _error(root: Node | None, trace: Trace) -> str | None:
    if trace.info.state.value != "ERROR":
        return None
    for node in root.walk() if root is not None else ():
        if node.failed and node.message:
            return node.message
    return "error"


_OWN_TAGS = ("mlflow.artifactLocation", "mlflow.trace.spansLocation", "mlflow.traceName")
_SESSION_AND_USER = {"mlflow.trace.session": "session_id", "mlflow.trace.user": "user_id"}


def _trace_metadata(trace: Trace) -> dict[str, Any]:
    """Tags, session and user, and what the program said of itself."""
    found: dict[str, Any] = {
        name: trace.info.trace_metadata[key]
        for key, name in _SESSION_AND_USER.items()
        if key in trace.info.trace_metadata
    }
    tags = {key: value for key, value in trace.info.tags.items() if key not in _OWN_TAGS}
    said = {k: v for k, v in trace.info.trace_metadata.items() if not k.startswith("mlflow.")}
    for name, values in (("tags", tags), ("trace_metadata", said)):
        if values:
            found[name] = values
    return found


def said_in(assessments: Iterable[Assessment]) -> dict[str, dict[str, Any]]:
    """What was said: by code and judges, by people, and as expected, each by its name.

    The feedback has its rationale beside it. Of what was said again the last counts.
    """
    found: dict[str, dict[str, Any]] = {}
    for assessment in sorted(assessments, key=lambda made: made.create_time_ms or 0):
        if assessment.valid is False:
            continue
        if assessment.expectation is not None:
            found.setdefault("expectations", {})[assessment.name] = assessment.expectation.value
        elif assessment.feedback is not None and assessment.feedback.error is None:
            value = assessment.feedback.value
            if assessment.source.source_type == "HUMAN":
                found.setdefault("human_feedback", {})[assessment.name] = value
            else:
                scores = found.setdefault("feedback", {})
                scores[assessment.name] = (value, assessment.rationale)
    return found


def _added(trace: Trace, root: Node) -> dict[str, Any]:
    """What was said of a sample in MLflow, beside what the evaluation said itself."""
    found = said_in(
        assessment
        for assessment in trace.info.assessments or ()
        if assessment.span_id in (None, root.id) and not _of_evaluation(assessment)
    )
    feedback = found.pop("feedback", {})
    if feedback:
        found["feedback"] = {name: value for name, (value, _) in feedback.items()}
    return found


def _of_evaluation(assessment: Assessment) -> bool:
    """Whether this package wrote it: a score, or the target of the dataset."""
    if assessment.expectation is not None:
        return assessment.name == "target" and assessment.source.source_id == "dataset"
    return "inspect.scorer" in (assessment.metadata or {})


def task_data(task: Node) -> Mapping[str, Any]:
    """What a task's span says of how it was set up."""
    data = task.get(sc.INSPECT_TASK_DATA)
    return data if isinstance(data, Mapping) else {}


def _metadata(
    root: Node, sample: EvalSample, summary: EvalSampleSummary, task: Node, trace: Trace
) -> dict[str, Any]:
    spec = task_data(task)
    metadata: dict[str, Any] = {
        "sample_id": str(sample.uuid),
        "eval_id": root.text(sc.INSPECT_EVAL_ID),
        "mlflow_trace_id": trace.info.trace_id,
        "mlflow_experiment_id": trace.info.experiment_id,
        "eval_status": task.text(sc.INSPECT_TASK_STATUS),
        "eval_tags": ",".join(map(str, task.get(sc.INSPECT_TAGS) or [])),
        "eval_metadata": task.get(sc.INSPECT_METADATA) or {},
        "task_args": spec.get("task_args") or {},
        "generate_config": spec.get("generate_config") or {},
        "model_roles": spec.get("model_roles") or {},
        "id": str(sample.id),
        "epoch": sample.epoch,
        "input": _as_text(summary.input),
        "target": sample.target,
        "sample_metadata": sample.metadata,
        "working_time": sample.working_time,
    }
    for name, score in (summary.scores or {}).items():
        is_plain = isinstance(score.value, str | int | float)
        metadata[f"score_{name}"] = _number(score.value) if is_plain else json.dumps(score.value)
    if sample.scores:
        metadata["scores"] = {
            name: score.model_dump(exclude_none=True) for name, score in sample.scores.items()
        }
    metadata |= _added(trace, root)
    return {key: value for key, value in metadata.items() if value is not None}


def _first_score(summary: EvalSampleSummary) -> Any:
    return next(iter((summary.scores or {}).values()), None)


def _success(summary: EvalSampleSummary) -> bool | None:
    """As Scout has it: what the first score says of itself, else whether it is above 0."""
    score = _first_score(summary)
    if score is None:
        return None
    if score.metadata and "success" in score.metadata:
        said = score.metadata["success"]
        if said is None or isinstance(said, bool):
            return said
    return _above_zero(score.value)


def _above_zero(value: Any) -> bool | None:
    from inspect_ai.scorer import value_to_float

    if isinstance(value, str | int | float | bool):
        return bool(value_to_float()(value) > 0)
    return None


def _number(value: Any) -> Any:
    """A score as it comes out of the database in which Scout indexes logs."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 10)
    return value


def _date(created: Any) -> str | None:
    if not isinstance(created, str):
        return None
    try:
        return str(datetime.fromisoformat(created.replace("Z", "+00:00")))
    except ValueError:
        return created


def _without_namespace(task: str) -> str:
    return task.partition("/")[2] if "/" in task else task


def _as_text(messages: str | list[ChatMessage]) -> str:
    """A sample's input as Inspect's data frames have it."""
    if isinstance(messages, str):
        return f"user:\n{messages.strip()}\n"
    return "\n\n".join(_message_as_text(message) for message in messages)


def _message_as_text(message: ChatMessage) -> str:
    text = f"{message.role}:\n{message.text.strip()}\n"
    if message.role == "assistant" and message.tool_calls:
        for call in message.tool_calls:
            arguments = "\n".join(f"{name}: {value}" for name, value in call.arguments.items())
            text += f"\nTool Call: {call.function}\nArguments:\n{arguments}"
    elif message.role == "tool" and message.error is not None:
        function = message.function or "unknown"
        text += f"\nError in tool call '{function}':\n{message.error.message}\n"
    return text
