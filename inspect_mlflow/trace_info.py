"""Finished spans → what MLflow's tables show of their trace (pure).

A sample's span says it for the sample's own trace. A run's trace is put together from the spans
of its tasks and samples, as they come by, and is complete with the run's span, the last one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mlflow.entities import Assessment, TraceInfo, TraceLocation, TraceState

from inspect_mlflow.assessments import assessments, belongs_to_run
from inspect_mlflow.keys import cut
from inspect_mlflow.overlay import sample_messages, trace_name
from otel_bridge import semconv as sc
from otel_bridge.ids import hex_trace_id
from otel_bridge.values import from_json

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

PREVIEW_CHARS: Final = 1000
"""MLflow's limit; the databases behind it may refuse more."""
_TAG_CHARS: Final = 4000
_COUNTS: Final = {"input_tokens", "output_tokens", "total_tokens"}
_COSTS: Final = ("input_cost", "output_cost", "total_cost")


@dataclass(slots=True)
class TraceSummary:
    """A trace as it is to be shown, and the Inspect ids of the runs that it belongs to."""

    info: TraceInfo
    owners: tuple[str, ...]
    """The run of the first one is the trace's source; the trace is linked to the others'."""
    scores: list[tuple[str, Assessment]]
    """Assessments, each with the eval id of its task."""
    size: int
    """About how many bytes it takes."""

    def with_runs(self, run_ids: Mapping[str, str]) -> TraceInfo:
        """The trace with the MLflow runs of its owners, as far as there are any."""
        if (run_id := run_ids.get(self.owners[0])) is not None:
            self.info.trace_metadata["mlflow.sourceRun"] = run_id
        for eval_id, assessment in self.scores:
            if (run_id := run_ids.get(eval_id)) is not None:
                belongs_to_run(assessment, run_id)
        self.info.assessments = [assessment for _, assessment in self.scores]
        return self.info


@dataclass(slots=True)
class Usage:
    """Tokens and cost, as Inspect counts them: without cached calls and repeated attempts."""

    tokens: dict[str, int] = field(default_factory=dict)
    cost: float | None = None
    whole: bool = True
    """False where some of it was cut: then MLflow's own sum of the spans says more."""

    def add(self, model_usage: Any) -> None:
        """Add the JSON of a sample's `model_usage`."""
        by_model = from_json(model_usage) if model_usage else {}
        entries: list[Any] = list(by_model.values()) if isinstance(by_model, dict) else [None]
        if not all(isinstance(usage, dict) and usage.keys() >= _COUNTS for usage in entries):
            self.whole = False
            return
        for usage in entries:
            read = usage.get("input_tokens_cache_read") or 0
            write = usage.get("input_tokens_cache_write") or 0
            for key, count in (
                ("input_tokens", usage["input_tokens"] + read + write),
                ("output_tokens", usage["output_tokens"]),
                ("total_tokens", usage["total_tokens"]),
                ("cache_read_input_tokens", read),
                ("cache_creation_input_tokens", write),
            ):
                if count or not key.startswith("cache"):
                    self.tokens[key] = self.tokens.get(key, 0) + count
            if usage.get("total_cost") is not None:
                self.cost = (self.cost or 0.0) + usage["total_cost"]

    def metadata(self) -> dict[str, str]:
        """Metadata of a trace that makes these its totals, whatever its spans add up to."""
        # Inspect knows no more than the sum, and MLflow shows a cost only with its parts. A part
        # also keeps MLflow from adding up spans of unknown cost to a total of 0.0.
        known = dict.fromkeys(_COSTS, 0.0) | {"total_cost": self.cost if self.whole else None}
        metadata = {"mlflow.trace.cost": json.dumps(known)}
        if self.tokens and self.whole:
            metadata["mlflow.trace.tokenUsage"] = json.dumps(self.tokens)
        return metadata


class TraceSummaries:
    """Makes summaries of the traces that finished spans complete. Not thread-safe."""

    def __init__(self, experiment_id: str) -> None:
        self._experiment_id = experiment_id
        self._runs: dict[int, _RunTrace] = {}

    def add(self, span: ReadableSpan) -> Iterator[TraceSummary]:
        """Take in a span that MLflow has; gives the summary of a trace when it was its last."""
        attributes: Mapping[str, Any] = span.attributes or {}
        kind = attributes.get(sc.INSPECT_KIND)
        if span.context is None or kind not in ("sample", "task", "run"):
            return
        if kind == "sample" and span.parent is None:
            yield self._of_sample(span, attributes)
            return
        run = self._runs.setdefault(span.context.trace_id, _RunTrace())
        if kind == "sample":
            run.add_sample(span, attributes)
        elif kind == "task":
            run.add_task(attributes)
        else:
            del self._runs[span.context.trace_id]
            yield self._of_run(span, attributes, run)

    def _of_sample(self, span: ReadableSpan, attributes: Mapping[str, Any]) -> TraceSummary:
        usage = Usage()
        usage.add(attributes.get(sc.INSPECT_SAMPLE_MODEL_USAGE))
        sample_id, epoch = attributes[sc.INSPECT_SAMPLE_ID], attributes[sc.INSPECT_SAMPLE_EPOCH]
        eval_id = str(attributes[sc.INSPECT_EVAL_ID])
        name = trace_name(span.name, attributes)
        request = " ".join(
            message["content"] if isinstance(message["content"], str) else "[media]"
            for message in sample_messages(attributes)[-1:]
        )
        info = self._info(
            span,
            name,
            request=f"{name} | {request}" if request else name,
            response=attributes.get(sc.INSPECT_SAMPLE_OUTPUT),
            metadata=usage.metadata(),
            tags={
                # what MLflow pairs the rows of two runs by
                "mlflow.eval.requestId": f"{attributes[sc.INSPECT_TASK]}/{sample_id}/{epoch}",
                "inspect.task": attributes[sc.INSPECT_TASK],
                "inspect.model": attributes[sc.INSPECT_MODEL],
                "inspect.sample_id": sample_id,
                "inspect.epoch": epoch,
                "inspect.eval_id": eval_id,
                "inspect.run_id": attributes[sc.INSPECT_RUN_ID],
            },
        )
        scores = [(eval_id, assessment) for assessment in assessments(span)]
        return _summary(info, (eval_id,), scores)

    def _of_run(
        self, span: ReadableSpan, attributes: Mapping[str, Any], run: _RunTrace
    ) -> TraceSummary:
        run_id = str(attributes[sc.INSPECT_RUN_ID])
        info = self._info(
            span,
            trace_name(span.name, attributes),
            request="; ".join(sorted(run.tasks)) or ", ".join(attributes[sc.INSPECT_RUN_TASKS]),
            response=", ".join(sorted(run.metrics)) or None,
            metadata=run.usage.metadata(),
            tags={
                "inspect.run_id": run_id,
                "inspect.task": ", ".join(dict.fromkeys(attributes[sc.INSPECT_RUN_TASKS])),
                "inspect.model": ", ".join(sorted(run.models)),
            },
        )
        # the trace of a single task is that of its run; the parent run has it as well
        evals = list(run.evals)
        owners = (*evals, run_id) if len(evals) == 1 else (run_id, *evals)
        return _summary(info, owners, run.scores)

    def _info(
        self,
        span: ReadableSpan,
        name: str,
        *,
        request: str,
        response: Any,
        metadata: dict[str, str],
        tags: Mapping[str, Any],
    ) -> TraceInfo:
        assert span.context is not None
        start, end = span.start_time or 0, span.end_time or 0
        shown = {"mlflow.traceName": name, **tags}
        return TraceInfo(
            trace_id=f"tr-{hex_trace_id(span.context.trace_id)}",
            trace_location=TraceLocation.from_experiment_id(self._experiment_id),
            request_time=start // 1_000_000,
            execution_duration=end // 1_000_000 - start // 1_000_000,  # as MLflow reckons it
            state=TraceState.OK if span.status.is_ok else TraceState.ERROR,
            request_preview=cut(request, PREVIEW_CHARS),
            response_preview=None if response is None else cut(str(response), PREVIEW_CHARS),
            trace_metadata=metadata,
            tags={key: cut(str(value), _TAG_CHARS) for key, value in shown.items() if value != ""},
        )


@dataclass(slots=True)
class _RunTrace:
    """What the spans of a run's trace have said so far."""

    evals: dict[str, None] = field(default_factory=dict)
    """Of the tasks whose samples stand in this trace."""
    models: dict[str, None] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    scores: list[tuple[str, Assessment]] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)

    def add_sample(self, span: ReadableSpan, attributes: Mapping[str, Any]) -> None:
        eval_id = str(attributes[sc.INSPECT_EVAL_ID])
        self.evals[eval_id] = None
        self.scores += [(eval_id, assessment) for assessment in assessments(span)]
        self.usage.add(attributes.get(sc.INSPECT_SAMPLE_MODEL_USAGE))

    def add_task(self, attributes: Mapping[str, Any]) -> None:
        task, model = attributes[sc.INSPECT_TASK], attributes[sc.INSPECT_MODEL]
        self.models[str(model)] = None
        samples = attributes.get(sc.INSPECT_SAMPLES_TOTAL)
        count = "" if samples is None else f" · {samples} samples"
        self.tasks.append(f"{task} · {model}{count}")
        for key, value in attributes.items():
            if key.startswith(sc.INSPECT_METRIC_PREFIX):
                self.metrics.append(f"{key.removeprefix(sc.INSPECT_METRIC_PREFIX)} {value:.3g}")


def _summary(
    info: TraceInfo, owners: tuple[str, ...], scores: list[tuple[str, Assessment]]
) -> TraceSummary:
    size = 2000 + len(info.request_preview or "") + len(info.response_preview or "")
    for _, assessment in scores:
        size += 1000 + len(assessment.rationale or "")
        size += sum(map(len, (assessment.metadata or {}).values()))
    return TraceSummary(info, owners, scores, size)


def reused_traces(span: ReadableSpan) -> tuple[str, list[str]] | None:
    """The eval id of a retried task, and the traces of the samples that it took over.

    Its span links to them; None for a span that took over none.
    """
    attributes = span.attributes or {}
    if attributes.get(sc.INSPECT_KIND) != "task":
        return None
    traces = dict.fromkeys(
        f"tr-{hex_trace_id(link.context.trace_id)}"
        for link in span.links
        if (link.attributes or {}).get(sc.INSPECT_KIND) == "sample"
    )
    return (str(attributes[sc.INSPECT_EVAL_ID]), list(traces)) if traces else None
