"""The scores and the target on a sample's span → MLflow's feedback and expectation (pure)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from mlflow.entities import (
    Assessment,
    AssessmentSource,
    AssessmentSourceType,
    Expectation,
    Feedback,
)

from inspect_mlflow.keys import clean, cut
from otel_bridge import semconv as sc
from otel_bridge.ids import hex_span_id, hex_trace_id
from otel_bridge.spans import iso_to_ns, score_number
from otel_bridge.values import from_json

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
    replaces, also after an edit.
    """
    assert span.context is not None
    attributes: Mapping[str, Any] = span.attributes or {}
    trace_id = hex_trace_id(span.context.trace_id)
    span_id = hex_span_id(span.context.span_id)
    made: dict[tuple[str, str], Assessment] = {}
    target = attributes.get(sc.INSPECT_SAMPLE_TARGET)
    if target:
        made["expectation", TARGET] = _expectation(target, (span.start_time or 0) // 1_000_000)
    for event in span.events:
        score: Mapping[str, Any] = event.attributes or {}
        # what is said of an intermediate score, and of a score event, is not the sample's result
        if event.name != sc.EVENT_EVALUATION_RESULT or sc.INSPECT_SCORE_INTERMEDIATE in score:
            continue
        feedback = _feedback(score, event.timestamp // 1_000_000)
        if feedback is not None:
            made["feedback", str(score[sc.GEN_AI_EVALUATION_NAME])] = feedback
    for key, assessment in made.items():
        identity = "\x1f".join((trace_id, span_id, str(attributes[sc.INSPECT_EVAL_ID]), *key))
        assessment.assessment_id = f"a-{blake2b(identity.encode(), digest_size=16).hexdigest()}"
        assessment.trace_id = f"tr-{trace_id}"
        assessment.span_id = span_id if span.parent is not None else None
    return list(made.values())


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


def _feedback(score: Mapping[str, Any], time_ms: int) -> Feedback | None:
    """A score as feedback; where it was edited, as its editor's, with what it was before.

    MLflow can override feedback by feedback, but not where all of a trace comes in one request:
    there both would count.
    """
    value = _value(score)
    if value is None:
        return None
    history = from_json(score.get(sc.INSPECT_SCORE_HISTORY))
    states = [s for s in history if isinstance(s, Mapping)] if isinstance(history, list) else []
    edit: Mapping[str, Any] = states[-1] if states else {}
    author, edited = edit.get("author"), iso_to_ns(edit.get("time"))
    metadata = _metadata(score, value)
    if author:
        metadata["inspect.history"] = cut(_dumped(states), METADATA_CHARS)
    number = score_number(value)
    # an edit's reason is why the value is what it is
    rationale = edit.get("reason") or score.get(sc.GEN_AI_EVALUATION_EXPLANATION)
    return Feedback(
        name=str(score[sc.GEN_AI_EVALUATION_NAME])[:_NAME_CHARS],
        value=value if number is None else number,
        rationale=None if rationale is None else clean(str(rationale)),
        source=_human(author) if author else _scorer(score),
        metadata=metadata,
        create_time_ms=time_ms,
        last_update_time_ms=time_ms if edited is None else edited // 1_000_000,
    )


def _value(score: Mapping[str, Any]) -> Any:
    for key in (
        sc.INSPECT_SCORE_VALUE,
        sc.GEN_AI_EVALUATION_SCORE_LABEL,
        sc.GEN_AI_EVALUATION_SCORE_VALUE,
    ):
        if key in score:
            return score[key]
    return None


def _metadata(score: Mapping[str, Any], value: Any) -> dict[str, str]:
    metadata = {"inspect.scorer": str(score.get(sc.INSPECT_SCORE_SCORER, ""))}
    if isinstance(value, str | bool) and score_number(value) is not None:
        metadata["inspect.value"] = value if isinstance(value, str) else str(value).lower()
    if score.get(sc.INSPECT_SCORE_ANSWER):
        metadata["inspect.answer"] = cut(str(score[sc.INSPECT_SCORE_ANSWER]), METADATA_CHARS)
    own = _json_object(score.get(sc.INSPECT_SCORE_METADATA))
    own.pop("grading", None)  # the grader's whole conversation: it stands in its model span
    if own:
        metadata["inspect.metadata"] = cut(_dumped(own), METADATA_CHARS)
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
    value = from_json(text)
    return value if isinstance(value, dict) else {}


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
