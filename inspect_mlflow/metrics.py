"""Finished samples and logs → metric points of an MLflow run (pure).

A running evaluation and its finished log give the same points, except those under `live/`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from inspect_mlflow.keys import Keys
from otel_bridge.spans import iso_to_ns, score_items, score_number, to_ns

if TYPE_CHECKING:
    from inspect_ai.event import Event
    from inspect_ai.log import EvalLog, EvalSample, EvalSampleSummary
    from inspect_ai.model import ModelUsage
    from inspect_ai.scorer import Score

_USAGE: Final = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "total_tokens": "total_tokens",
    "cache_read_tokens": "input_tokens_cache_read",
    "cache_write_tokens": "input_tokens_cache_write",
    "reasoning_tokens": "reasoning_tokens",
    "total_cost_usd": "total_cost",
}
"""Metric → field of Inspect's `ModelUsage`."""


class Point(NamedTuple):
    """A value of a metric."""

    key: str
    value: float
    timestamp_ms: int
    step: int


class Calls(NamedTuple):
    """What a sample's last attempt called."""

    model_calls: int = 0
    tool_calls: int = 0
    tool_errors: int = 0
    model_retries: int = 0

    @classmethod
    def of(cls, events: Iterable[Event]) -> Calls:
        """Count the calls in a sample's events, each once.

        Inspect logs each failed attempt of a model call as an event of its own; those that were
        followed by another attempt are retries, not calls.
        """
        model_calls = tool_calls = tool_errors = model_retries = 0
        failed: set[tuple[str | None, str, int]] = set()
        for event in events:
            if event.event == "tool":
                tool_calls += 1
                tool_errors += event.error is not None
            elif event.event == "model":
                call = (event.span_id, event.model, len(event.input))
                if call in failed:
                    failed.discard(call)
                    model_retries += 1
                else:
                    model_calls += 1
                if event.error is not None and event.completed is None:
                    failed.add(call)
        return cls(model_calls, tool_calls, tool_errors, model_retries)


@dataclass(frozen=True, slots=True)
class FinishedSample:
    """What the metrics need of a sample that is over."""

    uuid: str
    id: str
    epoch: int
    ended_ns: int
    total_time: float | None
    scores: tuple[tuple[str, float], ...]
    usage: Counter[str]
    calls: Calls
    retries: int

    @classmethod
    def of(cls, sample: EvalSample) -> FinishedSample:
        """Reduce a sample."""
        usage: Counter[str] = Counter()
        for used in sample.model_usage.values():
            usage.update(dict(usage_values(used)))
        ended = iso_to_ns(sample.completed_at)
        if ended is None:  # logs of old versions don't have it
            ended = max((to_ns(event.timestamp) for event in sample.events), default=0)
        return cls(
            uuid=sample.uuid or "",
            id=str(sample.id),
            epoch=sample.epoch,
            ended_ns=ended,
            total_time=sample.total_time,
            scores=tuple(score_values(sample.scores or {})),
            usage=usage,
            calls=Calls.of(sample.events),
            retries=len(sample.error_retries or ()),
        )

    @property
    def order(self) -> tuple[int, str, int]:
        """Sorts samples as they finished."""
        return self.ended_ns, self.id, self.epoch


@dataclass
class Progress:
    """Step metrics of a task: step n and the time are those of the n-th sample to finish.

    Samples have to come in the order in which they finished.
    """

    step: int = 0
    _totals: Counter[str] = field(default_factory=Counter)
    _keys: Keys = field(default_factory=Keys)

    def add(self, sample: FinishedSample) -> list[Point]:
        """Count a sample, and give its points: its own values and the totals so far."""
        self.step += 1
        self._totals.update({f"event/{name}": value for name, value in sample.usage.items()})
        self._totals.update(
            {
                "event/model_call": sample.calls.model_calls,
                "event/tool_call": sample.calls.tool_calls,
                "event/tool_error": sample.calls.tool_errors,
                "event/model_retry": sample.calls.model_retries,
                "event/sample_retry": sample.retries,
            }
        )
        values: list[tuple[str, str, float]] = [
            ("total", name, value) for name, value in self._totals.items() if value
        ]
        if sample.total_time is not None:
            values.append(("time", "sample/total_time", sample.total_time))
        values += [("score", f"sample/{name}", value) for name, value in sample.scores]
        return [
            Point(self._keys.key(name, kind), float(value), sample.ended_ns // 1_000_000, self.step)
            for kind, name, value in values
            if math.isfinite(value)
        ]


def final_metrics(
    header: EvalLog, samples: Sequence[EvalSample | EvalSampleSummary]
) -> dict[str, float]:
    """Metrics of a finished task: its results, counts, usage, cost and latency.

    NaN and infinities are left out: MLflow would refuse the batch they are in.
    """
    keys = Keys()
    named = [("own", *pair) for pair in (*_counts(header, samples), *_usage(header))]
    named += [("own", *pair) for pair in _latency(header, samples)]
    named += [("score", *pair) for pair in _results(header)]
    return {
        keys.key(name, kind): float(value) for kind, name, value in named if math.isfinite(value)
    }


def run_metrics(tasks: Iterable[tuple[EvalLog, Mapping[str, float]]]) -> dict[str, float]:
    """Metrics of a parent run: its tasks' results, and their counts and costs together.

    `tasks` are the headers of the logs with the final metrics of each. With several, the results
    stand under the name of the task, and its model where a task ran with more than one.
    """
    ended = sorted(tasks, key=lambda task: (task[0].eval.task, task[0].eval.model))
    often = Counter(header.eval.task for header, _ in ended)
    keys = Keys()
    named: list[tuple[str, str, float]] = []
    totals: Counter[str] = Counter()
    for header, metrics in ended:
        spec = header.eval
        label = spec.task if often[spec.task] == 1 else f"{spec.task} {spec.model}"
        prefix = f"{label}/" if len(ended) > 1 else ""
        named += [("score", prefix + name, value) for name, value in _results(header)]
        totals.update({name: metrics[name] for name in _SUMMED if name in metrics})
    named += [("own", name, value) for name, value in totals.items()]
    return {
        keys.key(name, kind): float(value) for kind, name, value in named if math.isfinite(value)
    }


_SUMMED: Final = (
    "total_samples",
    "completed_samples",
    "errored_samples",
    "unscored_samples",
    "cost/total_usd",
)


def has_samples(header: EvalLog) -> bool:
    """Whether a log keeps its samples; one without says little of them."""
    return header.eval.config.log_samples is not False


def call_totals(calls: Iterable[Calls]) -> dict[str, float]:
    """Metrics of what all samples of the log called."""
    model_calls = tool_calls = 0
    for of_sample in calls:
        model_calls += of_sample.model_calls
        tool_calls += of_sample.tool_calls
    return {"total_model_calls": model_calls, "total_tool_calls": tool_calls}


def score_values(scores: Mapping[str, Score]) -> Iterator[tuple[str, float]]:
    """The numbers in a sample's scores: one per scorer, one per key where the value has keys."""
    for name, score in scores.items():
        for label, value in score_items(name, score):
            number = score_number(value)
            if number is not None:
                yield label, number


def usage_values(usage: ModelUsage) -> Iterator[tuple[str, float]]:
    """The parts of a usage that are known."""
    for name, attribute in _USAGE.items():
        value = getattr(usage, attribute)
        if value is not None:
            yield name, value


def _results(header: EvalLog) -> Iterator[tuple[str, float]]:
    """`<score>/<metric>`; the scorer's name in front if another scorer has a score of that name,
    and the reducer's in between for all but the first reducer.
    """
    scorers: dict[str, str] = {}
    reducers: dict[str, str | None] = {}
    for score in header.results.scores if header.results else ():
        base = score.name
        if scorers.setdefault(score.name, score.scorer) != score.scorer:
            base = f"{score.scorer}/{score.name}"
        if reducers.setdefault(base, score.reducer) != score.reducer:
            base = f"{base}/{score.reducer}"
        for name, metric in score.metrics.items():
            yield f"{base}/{name}", metric.value
        if score.unscored_samples:
            yield f"{base}/unscored_samples", score.unscored_samples


def _counts(
    header: EvalLog, samples: Sequence[EvalSample | EvalSampleSummary]
) -> Iterator[tuple[str, float]]:
    errored = sum(sample.error is not None for sample in samples)
    if header.results is not None:
        yield "total_samples", header.results.total_samples
        yield "completed_samples", header.results.completed_samples
    else:
        dataset = header.eval.dataset
        yield "total_samples", (dataset.samples or 0) * (header.eval.config.epochs or 1)
        if has_samples(header):
            yield "completed_samples", len(samples) - errored
    if has_samples(header):
        yield "errored_samples", errored
        yield "unscored_samples", sum(not _is_scored(sample) for sample in samples)


def _is_scored(sample: EvalSample | EvalSampleSummary) -> bool:
    """Whether any scorer has scored it: Inspect's mark for an unscored one is NaN."""
    return any(
        not (isinstance(score.value, float) and math.isnan(score.value))
        for score in (sample.scores or {}).values()
    )


def _usage(header: EvalLog) -> Iterator[tuple[str, float]]:
    costs = []
    for model, usage in header.stats.model_usage.items():
        for name, value in usage_values(usage):
            yield f"usage/{model}/{name}", value
        if usage.total_cost is not None:
            costs.append(usage.total_cost)
    if costs:  # an unknown cost is not a cost of zero
        yield "cost/total_usd", sum(costs)


def _latency(
    header: EvalLog, samples: Sequence[EvalSample | EvalSampleSummary]
) -> Iterator[tuple[str, float]]:
    times = sorted(sample.total_time for sample in samples if sample.total_time is not None)
    if times:
        yield "latency/per_sample_mean_seconds", sum(times) / len(times)
        yield "latency/per_sample_p50_seconds", _quantile(times, 0.5)
        yield "latency/per_sample_p95_seconds", _quantile(times, 0.95)
    started = iso_to_ns(header.stats.started_at)
    ended = iso_to_ns(header.stats.completed_at)
    if started is not None and ended is not None:
        yield "latency/total_seconds", (ended - started) / 1e9


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Quantile with linear interpolation, as NumPy's default."""
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
