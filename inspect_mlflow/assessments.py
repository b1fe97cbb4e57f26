"""The scores and the target on a sample's span → MLflow's feedback and expectation (pure)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from mlflow.entities import (
    Assessment,
    AssessmentSource,
    AssessmentSourceType,
    Expectation,
    Feedback,
)

from otel_bridge import semconv as sc
from otel_bridge.ids import hex_span_id, hex_trace_id
from otel_bridge.spans import score_number

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

TARGET: Final = "target"
"""The name of the expectation."""
SOURCE_RUN: Final = "mlflow.assessment.sourceRunId"
METADATA_CHARS: Final = 4000
"""How much of an answer or of a scorer's metadata goes along as metadata of the feedback."""
_NAME_CHARS: Final = 250
"""MLflow's limit for names and sources."""


def assessments(span: ReadableSpan) -> list[Assessment]:
    """What the span of a finished sample says of its scores and its target.

    One feedback per score, or per key of a score that is a dict; one expectation. They lie on the
    sample's span where that is not the root of its trace. A score without a value (an unscored
    sample, NaN) gives none. Ids depend on the sample and the score alone, so that sending again
    replaces. An edited score gives one per state: the newest is valid, each overrides the one
    before.
    """
    assert span.context is not None
    attributes: Mapping[str, Any] = span.attributes or {}
    trace_id = hex_trace_id(span.context.trace_id)
    span_id = hex_span_id(span.context.span_id)
    eval_id = str(attributes[sc.INSPECT_EVAL_ID])
    made: list[tuple[str, Assessment]] = []
    target = attributes.get(sc.INSPECT_SAMPLE_TARGET)
    if target:
        made.append((TARGET, _expectation(target, (span.start_time or 0) // 1_000_000)))
    for event in span.events:
        found: Mapping[str, Any] = event.attributes or {}
        # what is said of an intermediate score, and of a score event, is not the sample's result
        if event.name == sc.EVENT_EVALUATION_RESULT and sc.INSPECT_SCORE_INTERMEDIATE not in found:
            made += _feedback(found, event.timestamp // 1_000_000)
    states: dict[tuple[str, str], str] = {}
    for name, assessment in made:
        kind = type(assessment).__name__
        earlier = states.get((kind, name))
        key = "\x1f".join((trace_id, span_id, eval_id, kind, name, earlier or ""))
        assessment.assessment_id = f"a-{blake2b(key.encode(), digest_size=16).hexdigest()}"
        assessment.overrides = earlier
        assessment.trace_id = f"tr-{trace_id}"
        assessment.span_id = span_id if span.parent is not None else None
        states[kind, name] = assessment.assessment_id
    return [assessment for _, assessment in made]


def belongs_to_run(assessment: Assessment, run_id: str) -> None:
    """Say which MLflow run an assessment was made in: its Traces tab shows no others."""
    assessment.metadata = {**(assessment.metadata or {}), SOURCE_RUN: run_id}
    assessment.run_id = run_id


def _expectation(target: Any, time_ms: int) -> Expectation:
    return Expectation(
        name=TARGET,
        value=str(target),
        source=AssessmentSource(AssessmentSourceType.HUMAN, "dataset"),
        create_time_ms=time_ms,
        last_update_time_ms=time_ms,
    )


def _feedback(score: Mapping[str, Any], time_ms: int) -> Iterator[tuple[str, Feedback]]:
    """The feedback of one score, or of each state of it where it was edited."""
    name = str(score[sc.GEN_AI_EVALUATION_NAME])
    history = json.loads(score.get(sc.INSPECT_SCORE_HISTORY, "[]"))
    current = {
        "value": _current_value(score),
        "answer": score.get(sc.INSPECT_SCORE_ANSWER),
        "explanation": score.get(sc.GEN_AI_EVALUATION_EXPLANATION),
    }
    states: list[Mapping[str, Any]] = history if isinstance(history, list) and history else []
    states = [state for state in states if state.get("value") is not None] or [current]
    for state in states:
        value = state["value"]
        if value is None:
            continue
        number = score_number(value)
        author, edited = state.get("author"), state.get("time")
        made_ms = int(datetime.fromisoformat(edited).timestamp() * 1000) if edited else time_ms
        yield (
            name,
            Feedback(
                name=name[:_NAME_CHARS],
                value=value if number is None else number,
                rationale=_rationale(state),
                source=_human(author) if author else _scorer(score),
                metadata=_metadata(score, state),
                create_time_ms=made_ms,
                last_update_time_ms=made_ms,
                valid=state is states[-1],
            ),
        )


def _current_value(score: Mapping[str, Any]) -> Any:
    for key in (
        sc.INSPECT_SCORE_VALUE,
        sc.GEN_AI_EVALUATION_SCORE_LABEL,
        sc.GEN_AI_EVALUATION_SCORE_VALUE,
    ):
        if key in score:
            return score[key]
    return None


def _rationale(state: Mapping[str, Any]) -> str | None:
    """An edit's reason is why the value is what it is; else the scorer's explanation is."""
    text = state.get("reason") or state.get("explanation")
    return str(text) if text else None


def _metadata(score: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, str]:
    metadata = {"inspect.scorer": str(score.get(sc.INSPECT_SCORE_SCORER, ""))}
    value = state["value"]
    if isinstance(value, str | bool) and score_number(value) is not None:
        metadata["inspect.value"] = value if isinstance(value, str) else str(value).lower()
    if state.get("answer"):
        metadata["inspect.answer"] = _cut(str(state["answer"]))
    own = _json_object(score.get(sc.INSPECT_SCORE_METADATA))
    own.pop("grading", None)  # the grader's whole conversation: it stands in its model span
    if own:
        metadata["inspect.metadata"] = _cut(json.dumps(own, ensure_ascii=False))
    return metadata


def _human(author: str) -> AssessmentSource:
    return AssessmentSource(AssessmentSourceType.HUMAN, author[:_NAME_CHARS])


def _scorer(score: Mapping[str, Any]) -> AssessmentSource:
    """A judge where models were asked for the score, else the scorer's code."""
    graders = list(score.get(sc.INSPECT_SCORE_GRADERS, ())) or _grader_of_conversation(score)
    if graders:
        return AssessmentSource(AssessmentSourceType.LLM_JUDGE, ", ".join(graders)[:_NAME_CHARS])
    name = str(score.get(sc.INSPECT_SCORE_SCORER, score[sc.GEN_AI_EVALUATION_NAME]))
    return AssessmentSource(AssessmentSourceType.CODE, name[:_NAME_CHARS])


def _grader_of_conversation(score: Mapping[str, Any]) -> list[str]:
    """The model in the conversation that Inspect's graders leave in a score's metadata."""
    grading = _json_object(score.get(sc.INSPECT_SCORE_METADATA)).get("grading")
    if not isinstance(grading, list):
        return []
    models = [message.get("model") for message in grading if isinstance(message, Mapping)]
    return list(dict.fromkeys(str(model) for model in models if model))


def _json_object(text: Any) -> dict[str, Any]:
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _cut(text: str) -> str:
    return text if len(text) <= METADATA_CHARS else f"{text[: METADATA_CHARS - 1]}…"
