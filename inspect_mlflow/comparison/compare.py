"""Compares two evaluations: loads, aligns, tests, and puts the findings together."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from inspect_ai.log import EvalMetric, EvalScore

from inspect_mlflow.comparison.alignment import (
    Alignment,
    Column,
    Floats,
    ScoreName,
    ToFloat,
    align,
    column,
    group_means,
    number,
    score_columns,
)
from inspect_mlflow.comparison.differences import difference_notes
from inspect_mlflow.comparison.loading import (
    EvalSource,
    LoadedEval,
    SampleFilter,
    SampleRecord,
    load_eval,
)
from inspect_mlflow.comparison.results import (
    AlignmentCounts,
    ComparisonResult,
    Direction,
    MetricComparison,
    SampleComparison,
    UsageComparison,
)
from inspect_mlflow.comparison.statistics import (
    PairedResult,
    compare_paired,
    holm_adjust,
    mean_interval,
    minimum_detectable_difference,
    paired_differences,
    rounding_noise,
)

__all__ = ["ChangedContentError", "compare_evals", "compare_loaded"]

_MEANS = ("accuracy", "mean")
_USAGE = (
    ("input_tokens", "tokens"),
    ("output_tokens", "tokens"),
    ("total_tokens", "tokens"),
    ("cost", "USD"),
    ("total_time", "s"),
    ("working_time", "s"),
)


class ChangedContentError(ValueError):
    """Samples share ids but not inputs, targets or choices, and the comparison was to be strict.

    ``result`` holds the comparison itself.
    """

    def __init__(self, message: str, result: ComparisonResult) -> None:
        super().__init__(message)
        self.result = result


def compare_evals(
    baseline: EvalSource,
    candidate: EvalSource,
    scorers: Sequence[str] | None = None,
    significance: float = 0.05,
    regression_threshold: float = 0.0,
    sample_filter: SampleFilter | None = None,
    *,
    strict: bool = False,
    to_float: ToFloat | None = None,
    power: float = 0.8,
    tracking_uri: str | None = None,
    log_to_mlflow: bool = False,
    experiment_name: str | None = None,
) -> ComparisonResult:
    """Compare two evaluations of the same samples.

    Samples are paired by ``(str(id), epoch)``. A metric that is the mean of its scores (accuracy,
    mean) is computed over the ids scored in both runs, with a sample's epochs averaged first, and
    tested: by an exact McNemar test for scores of 0 and 1, else by an exact sign-flip test for few
    changed samples and a paired t-test for many. Other metrics are reported without a test.

    Parameters
    ----------
    baseline, candidate
        A path or URL that Inspect reads, an `EvalLog`, or ``runs:/<run_id>`` for the log among an
        MLflow run's artifacts. Positive deltas mean that the candidate's scores are higher.
    scorers
        Compare only these: names of scorers, keys of dict scores, or ``scorer/key``.
    significance
        Level of the tests; intervals have the confidence ``1 - significance``.
    regression_threshold
        Change of a sample's score, in the scorer's units, up to which it counts as unchanged.
    sample_filter
        Called with every `EvalSample` of both runs; those for which it returns false are left out.
    strict
        Read the full samples to compare inputs, targets and choices to their end, and raise when
        any differ.
    to_float
        Converts a score's value to a number, or to None for unscored; by default the letters,
        words and numbers that Inspect knows.
    power
        Power for which the smallest detectable difference is given.
    tracking_uri
        MLflow tracking URI for ``runs:/`` sources and ``log_to_mlflow``; that of the environment
        (``INSPECT_MLFLOW_TRACKING_URI``, else ``MLFLOW_TRACKING_URI``) when None.
    log_to_mlflow
        Log the comparison as an MLflow run of its own.
    experiment_name
        Experiment of that run; by default the candidate's own, where it came from MLflow.

    Returns
    -------
    ComparisonResult
        Metrics, samples, usage and notes.

    Raises
    ------
    ValueError
        A log cannot be read, has no samples, no scores or a sample twice; the logs have no sample,
        no scorer or no scored sample in common; a scorer in ``scorers`` is not there; a parameter
        is outside its range; MLflow is asked for and there is none.
    ChangedContentError
        ``strict`` is set and samples with the same id ask or expect something else (a ValueError
        that carries the comparison).

    References
    ----------
    Miller 2024, Adding Error Bars to Evals, arXiv:2411.00640.
    Bowyer et al. 2025, Don't use the CLT in LLM evals with fewer than a few hundred datapoints.

    Examples
    --------
    >>> result = compare_evals("logs/old.eval", "logs/new.eval")  # doctest: +SKIP
    >>> print(result.summary())  # doctest: +SKIP
    """
    _check_parameters(significance, regression_threshold, power)
    runs = [
        load_eval(source, sample_filter, strict, tracking_uri) for source in (baseline, candidate)
    ]
    result = compare_loaded(
        runs[0], runs[1], scorers, significance, regression_threshold, to_float, power
    )
    if log_to_mlflow:
        from inspect_mlflow.comparison.mlflow_run import log_comparison

        run_id = log_comparison(result, tracking_uri=tracking_uri, experiment_name=experiment_name)
        result = replace(result, mlflow_run_id=run_id)
    if strict and result.changed_content:
        names = [f"{name!r} (epoch {epoch})" for name, epoch in result.changed_content[:5]]
        more = len(result.changed_content) - len(names)
        tail = f" and {more} more" if more else ""
        raise ChangedContentError(
            f"{len(result.changed_content)} samples have the same id but another input, target or "
            f"choices: {', '.join(names)}{tail}",
            result,
        )
    return result


def compare_loaded(
    baseline: LoadedEval,
    candidate: LoadedEval,
    scorers: Sequence[str] | None = None,
    significance: float = 0.05,
    regression_threshold: float = 0.0,
    to_float: ToFloat | None = None,
    power: float = 0.8,
) -> ComparisonResult:
    """Compare two loaded evaluations; `compare_evals` without reading or logging.

    Parameters
    ----------
    baseline, candidate
        Loaded evaluations.
    scorers, significance, regression_threshold, to_float, power
        As for `compare_evals`.

    Returns
    -------
    ComparisonResult
        Metrics, samples, usage and notes.

    Raises
    ------
    ValueError
        As for `compare_evals`.
    """
    _check_parameters(significance, regression_threshold, power)
    alignment = align(baseline, candidate)
    columns = _columns(baseline), _columns(candidate)
    shared, *alone = _choose(baseline, candidate, columns, scorers)
    notes = difference_notes(baseline, candidate)
    for side, scores in zip(("baseline", "candidate"), alone, strict=True):
        if scores:
            notes.append(f"scored in the {side} only, so not compared: {_listed(scores)}")
    uncompared = {score.label: "only the baseline has it" for score in sorted(alone[0])}

    samples: list[SampleComparison] = []
    tested: list[_Tested] = []
    illegible: list[str] = []
    changed, unverified = _changed_content(alignment)
    changed_rows = set(changed)
    for score in shared:
        unmapped: Counter[str] = Counter()
        first = column(alignment.baseline, score, to_float, unmapped)
        second = column(alignment.candidate, score, to_float, unmapped)
        if unmapped:
            illegible.append(_unmapped_note(score, unmapped))
        samples += _sample_rows(
            alignment, score, first.values, second.values, regression_threshold, changed_rows
        )
        found = _test(alignment, score, first, second, significance, power)
        if found is None:
            uncompared[score.label] = "no sample is scored in both runs"
            notes.append(f"{score.label}: no sample is scored in both runs")
        else:
            tested.append(found)
    if not tested:
        hint = "; to_float can say what they are worth" if illegible and to_float is None else ""
        raise ValueError(
            "no sample is scored in both runs: nothing can be compared for "
            + "; ".join([", ".join(score.label for score in shared), *illegible])
            + hint
        )

    notes += illegible
    holm = holm_adjust([entry.paired.p_value for entry in tested])
    metrics: list[MetricComparison] = []
    for entry, adjusted in zip(tested, holm, strict=True):
        found_metrics, found_notes = _metrics(
            entry, baseline, candidate, adjusted, significance, to_float is None
        )
        metrics += found_metrics
        notes += found_notes
    metrics += _whole_score_metrics(baseline, candidate, shared)

    pairs = [
        (alignment.keys[row], alignment.baseline[row], alignment.candidate[row]) for row in changed
    ]
    return ComparisonResult(
        baseline_log=baseline.name,
        candidate_log=candidate.name,
        baseline_task=baseline.header.eval.task,
        candidate_task=candidate.header.eval.task,
        baseline_model=baseline.header.eval.model,
        candidate_model=candidate.header.eval.model,
        metrics=metrics,
        samples=samples,
        notes=_content_notes(len(changed), unverified) + notes,
        usage=_usage(alignment, significance),
        counts=AlignmentCounts(
            aligned=alignment.aligned,
            missing=alignment.missing,
            new=alignment.new,
            baseline_errored=sum(record.errored for record in baseline.samples),
            candidate_errored=sum(record.errored for record in candidate.samples),
            baseline_invalidated=baseline.invalidated,
            candidate_invalidated=candidate.invalidated,
        ),
        changed_content=[(one.id if one else key[0], key[1]) for key, one, _ in pairs],
        unverified_content=unverified,
        significance=significance,
        regression_threshold=regression_threshold,
        baseline_run_id=baseline.run_id,
        candidate_run_id=candidate.run_id,
        baseline_eval_id=baseline.header.eval.eval_id,
        candidate_eval_id=candidate.header.eval.eval_id,
        uncompared=uncompared,
    )


@dataclass(frozen=True)
class _Tested:
    """One score compared: the test, and what the metrics of that score share."""

    score: ScoreName
    paired: PairedResult
    baseline: Column
    candidate: Column
    means: tuple[Floats, Floats]
    """Per-id means of the ids scored in both runs."""
    complete: bool
    """Both runs scored exactly these ids, so that logged values are about the same samples."""
    run_means: tuple[float, float]
    intervals: tuple[tuple[float, float] | None, tuple[float, float] | None]
    detectable: float | None
    power: float


def _test(
    alignment: Alignment,
    score: ScoreName,
    first: Column,
    second: Column,
    significance: float,
    power: float,
) -> _Tested | None:
    groups, count = alignment.groups, alignment.group_count
    left = group_means(first.values, groups, count)
    right = group_means(second.values, groups, count)
    scored = np.isfinite(left), np.isfinite(right)
    both = scored[0] & scored[1]
    if not both.any():
        return None
    means = left[both], right[both]
    paired = compare_paired(means[0], means[1], significance)
    detectable = None
    if paired.standard_deviation:
        detectable = minimum_detectable_difference(
            paired.n, paired.standard_deviation**2, significance=significance, power=power
        )
    return _Tested(
        score=score,
        paired=paired,
        baseline=first,
        candidate=second,
        means=means,
        complete=bool((scored[0] == scored[1]).all()),
        run_means=(float(left[scored[0]].mean()), float(right[scored[1]].mean())),
        intervals=(
            mean_interval(means[0], significance),
            mean_interval(means[1], significance),
        ),
        detectable=detectable,
        power=power,
    )


def _sample_rows(
    alignment: Alignment,
    score: ScoreName,
    first: Floats,
    second: Floats,
    threshold: float,
    changed: set[int],
) -> list[SampleComparison]:
    label = score.label
    differences = paired_differences(first, second)
    # A difference of exactly the threshold is unchanged, whatever rounding says.
    beyond = np.abs(differences) > threshold + rounding_noise(first, second)
    verdict = np.where(beyond, np.sign(differences), 0).astype(int)
    words: tuple[Direction, ...] = ("unchanged", "improved", "regressed")
    rows: list[SampleComparison] = []
    for row, (key, one, other, a, b, delta, sign) in enumerate(
        zip(
            alignment.keys,
            alignment.baseline,
            alignment.candidate,
            first.tolist(),
            second.tolist(),
            differences.tolist(),
            verdict.tolist(),
            strict=True,
        )
    ):
        content_changed = None if one is None or other is None else row in changed
        scores: tuple[float | None, float | None, float | None, Direction]
        if a == a and b == b:
            scores, note = (a, b, delta, words[sign]), None
        elif a == a:
            scores, note = (a, None, None, "missing"), _why(other)
        elif b == b:
            scores, note = (None, b, None, "new"), _why(one)
        else:
            continue
        record = one or other
        assert record is not None
        rows.append(SampleComparison(record.id, key[1], label, *scores, content_changed, note))
    return rows


def _why(record: SampleRecord | None) -> str:
    if record is None:
        return "absent"
    return "errored" if record.errored else "unscored"


# --- which scores, and which metrics -----------------------------------------------------------


def _columns(run: LoadedEval) -> list[ScoreName]:
    found = score_columns(record for record in run.samples if not record.errored)
    if not found:
        errored = sum(record.errored for record in run.samples)
        detail = f"; {errored} of its {len(run.samples)} samples errored" if errored else ""
        raise ValueError(f"{run.name!r} has no scores to compare{detail}")
    return found


def _choose(
    baseline: LoadedEval,
    candidate: LoadedEval,
    columns: tuple[list[ScoreName], list[ScoreName]],
    scorers: Sequence[str] | None,
) -> tuple[list[ScoreName], set[ScoreName], set[ScoreName]]:
    """The scores in both runs, and those in the baseline and in the candidate alone."""
    if isinstance(scorers, str):
        scorers = [scorers]
    first, second = columns
    if scorers is not None:
        for name in scorers:
            present = [any(_named(score, name) for score in side) for side in columns]
            if not all(present):
                where = "either log"
                if any(present):
                    where = repr(candidate.name if present[0] else baseline.name)
                raise ValueError(
                    f"scorer {name!r} is not in {where}; the baseline has "
                    f"{_listed(first)}, the candidate has {_listed(second)}"
                )
        first = [score for score in first if any(_named(score, name) for name in scorers)]
        second = [score for score in second if any(_named(score, name) for name in scorers)]
    known = set(second)
    shared = [score for score in first if score in known]
    if not shared:
        raise ValueError(
            f"no scorer in common: the baseline has {_listed(first)}, "
            f"the candidate has {_listed(second)}"
        )
    return sorted(shared), set(first) - known, known - set(first)


def _named(score: ScoreName, name: str) -> bool:
    return name in (score.scorer, score.key, score.label)


def _listed(scores: Iterable[ScoreName]) -> str:
    return ", ".join(sorted({score.label for score in scores}))


def _logged(run: LoadedEval) -> dict[tuple[str, str], list[EvalScore]]:
    """Results of a log by (scorer, name); several reducers repeat a name."""
    found: dict[tuple[str, str], list[EvalScore]] = {}
    for entry in run.header.results.scores if run.header.results else []:
        found.setdefault((entry.scorer, entry.name), []).append(entry)
    return found


Reported = dict[tuple[str | None, str], EvalMetric]
"""Metrics of one score by reducer and name."""


def _reported(run: LoadedEval, score: ScoreName) -> Reported:
    """What a log reports for a score: metrics by reducer and name."""
    entries = _logged(run).get((score.scorer, score.key or score.scorer), [])
    return {
        (entry.reducer, name): metric for entry in entries for name, metric in entry.metrics.items()
    }


def _same_reducers(first: Reported, second: Reported) -> tuple[Reported, Reported]:
    """Name the default reducer `mean` where only the other log does so."""

    def named(own: Reported, other: Reported) -> Reported:
        own_reducers = {reducer for reducer, _ in own}
        if "mean" in own_reducers or "mean" not in {reducer for reducer, _ in other}:
            return own
        return {(reducer or "mean", name): metric for (reducer, name), metric in own.items()}

    return named(first, second), named(second, first)


def _is_mean(reducer: str | None, metric: EvalMetric) -> bool:
    name = metric.name.rpartition("/")[2]
    return name in _MEANS and metric.group is None and reducer in (None, "mean")


def _metrics(
    entry: _Tested,
    baseline: LoadedEval,
    candidate: LoadedEval,
    adjusted: float,
    significance: float,
    standard_values: bool,
) -> tuple[list[MetricComparison], list[str]]:
    """Comparisons of all metrics of one score, and what to say about them."""
    label = entry.score.label
    reported = _same_reducers(_reported(baseline, entry.score), _reported(candidate, entry.score))
    names = list(dict.fromkeys([*reported[0], *reported[1]]))
    metrics: list[MetricComparison] = []
    notes: list[str] = []
    for reducer, name in names:
        sides = reported[0].get((reducer, name)), reported[1].get((reducer, name))
        metric = sides[0] or sides[1]
        assert metric is not None
        if _is_mean(reducer, metric):
            odd = [
                f"the {side} reports {logged.value:.6g} where its scores give {mean:.6g}"
                for side, run, logged, mean in zip(
                    ("baseline", "candidate"),
                    (baseline, candidate),
                    sides,
                    entry.run_means,
                    strict=True,
                )
                if logged is not None
                and standard_values
                and not _explained(run, entry.score, logged.value, mean)
            ]
            if odd:
                notes.append(
                    f"{label} {name}: {'; '.join(odd)}. The comparison uses the scores themselves "
                    "(C, P, I, N and numbers at face value)"
                )
            metrics.append(_mean_comparison(entry, name, reducer, sides, adjusted, significance))
            continue
        if sides[0] is None or sides[1] is None:
            side = "candidate" if sides[0] is None else "baseline"
            notes.append(f"{label} {name}: reported by the {side} only, so not compared")
            continue
        values, note = _untested(entry, name, reducer, metric, sides[0], sides[1])
        if values is None or baseline.filtered:
            notes.append(f"{label} {name}: cannot be computed for the samples compared")
            continue
        metrics.append(
            replace(
                _untested_comparison(label, name, *values),
                reducer=reducer,
                key=entry.score.key,
                n=entry.paired.n,
                baseline_unscored=entry.baseline.unscored,
                candidate_unscored=entry.candidate.unscored,
                baseline_logged=sides[0].value,
                candidate_logged=sides[1].value,
                confidence=1 - significance,
                note=note,
            )
        )
    if not any(metric.p_value is not None for metric in metrics):
        # Every score gets its test, whichever metrics the task declared.
        derived = _mean_comparison(entry, "mean", None, (None, None), adjusted, significance)
        note = "not among the logged metrics" if names else None
        metrics.insert(0, replace(derived, note=note))
    return metrics, notes


def _mean_comparison(
    entry: _Tested,
    name: str,
    reducer: str | None,
    logged: tuple[EvalMetric | None, EvalMetric | None],
    adjusted: float,
    significance: float,
) -> MetricComparison:
    paired = entry.paired
    lower, upper = paired.interval or (None, None)
    return MetricComparison(
        name=name,
        scorer=entry.score.label,
        baseline_value=paired.baseline_mean,
        candidate_value=paired.candidate_mean,
        delta=paired.delta,
        relative_delta=_relative(paired.delta, paired.baseline_mean),
        significant=paired.p_value < significance,
        p_value=paired.p_value,
        ci_lower=lower,
        ci_upper=upper,
        effect_size=paired.effect_size,
        method=paired.method,
        standard_error=paired.standard_error,
        p_value_holm=adjusted,
        hedges_g=paired.hedges_g,
        odds_ratio=paired.odds_ratio,
        cohens_h=paired.cohens_h,
        n=paired.n,
        gained=paired.gained,
        lost=paired.lost,
        baseline_unscored=entry.baseline.unscored,
        candidate_unscored=entry.candidate.unscored,
        baseline_interval=entry.intervals[0],
        candidate_interval=entry.intervals[1],
        baseline_logged=logged[0].value if logged[0] else None,
        candidate_logged=logged[1].value if logged[1] else None,
        confidence=1 - significance,
        power=entry.power,
        detectable_delta=entry.detectable,
        reducer=reducer,
        key=entry.score.key,
    )


def _untested_comparison(
    label: str, name: str, baseline: float, candidate: float
) -> MetricComparison:
    delta = candidate - baseline
    return MetricComparison(
        name=name,
        scorer=label,
        baseline_value=baseline,
        candidate_value=candidate,
        delta=delta,
        relative_delta=_relative(delta, baseline),
        significant=False,
        p_value=None,
        ci_lower=None,
        ci_upper=None,
    )


def _untested(
    entry: _Tested,
    name: str,
    reducer: str | None,
    metric: EvalMetric,
    first: EvalMetric,
    second: EvalMetric,
) -> tuple[tuple[float, float] | None, str | None]:
    """Values of a metric that is no mean: the logged ones where they are about these samples."""
    if entry.complete:
        if not (np.isfinite(first.value) and np.isfinite(second.value)):
            return None, None
        return (float(first.value), float(second.value)), None
    spread = metric.name.rpartition("/")[2]
    if spread in ("std", "var", "stderr") and reducer in (None, "mean") and entry.paired.n > 1:
        if metric.params.get("cluster") is not None:
            return None, None
        deviations = [float(means.std(ddof=1)) for means in entry.means]
        power = {"std": 1.0, "var": 2.0, "stderr": 1.0}[spread]
        scale = entry.paired.n**-0.5 if spread == "stderr" else 1.0
        return (deviations[0] ** power * scale, deviations[1] ** power * scale), None
    if not (np.isfinite(first.value) and np.isfinite(second.value)):
        return None, None
    return (
        (float(first.value), float(second.value)),
        "as logged, over each run's own samples, which are not the same",
    )


def _whole_score_metrics(
    baseline: LoadedEval, candidate: LoadedEval, shared: Sequence[ScoreName]
) -> list[MetricComparison]:
    """Metrics that a log reports for a dict score as a whole: values only."""
    metrics = []
    for scorer in dict.fromkeys(score.scorer for score in shared if score.key is not None):
        if ScoreName(scorer, scorer) in shared or baseline.filtered:
            continue
        whole = ScoreName(scorer)
        first, second = _reported(baseline, whole), _reported(candidate, whole)
        for reducer, name in first.keys() & second.keys():
            one, other = first[reducer, name], second[reducer, name]
            if _is_mean(reducer, one):
                # value_to_float() makes every dict 0.0, so this mean says nothing.
                continue
            if np.isfinite(one.value) and np.isfinite(other.value):
                metrics.append(
                    replace(
                        _untested_comparison(scorer, name, one.value, other.value),
                        reducer=reducer,
                        baseline_logged=one.value,
                        candidate_logged=other.value,
                        note="as logged, over each run's own samples",
                    )
                )
    return sorted(metrics, key=lambda metric: metric.label)


def _explained(run: LoadedEval, score: ScoreName, logged: float, mean: float) -> bool:
    """Whether a logged mean follows from the scores, so that both speak of the same thing."""
    if run.filtered or run.invalidated or not np.isfinite(logged):
        return True

    def close(value: float) -> bool:
        return bool(np.isclose(value, logged, rtol=1e-6, atol=1e-9))

    if close(mean):
        return True
    # Inspect counts scores of errored samples, takes unknown texts for 0, and without an epoch
    # reducer it pools all epochs. None of that is a surprise: it is noted elsewhere or plain.
    by_id: dict[str, list[float]] = {}
    for record in run.samples:
        found = record.scores.get(score.scorer)
        value: Any = None if found is None else found.value
        if score.key is not None:
            value = value.get(score.key) if isinstance(value, dict) else None
        if value is None or (isinstance(value, float) and np.isnan(value)):
            continue
        by_id.setdefault(str(record.id), []).append(number(value) or 0.0)
    if not by_id:
        return True
    pooled = [value for values in by_id.values() for value in values]
    return close(float(np.mean([np.mean(values) for values in by_id.values()]))) or close(
        float(np.mean(pooled))
    )


def _relative(delta: float, baseline: float) -> float | None:
    return delta / abs(baseline) if baseline else None


# --- usage, content and notes ------------------------------------------------------------------


def _usage_row(record: SampleRecord | None) -> tuple[float | None, ...]:
    """What one sample execution took, in the order of `_USAGE`."""
    if record is None or record.errored:
        return (None,) * len(_USAGE)
    times = (record.total_time, record.working_time)
    if not record.model_usage:
        return (None, None, None, None, *times)
    read = written = total = 0
    cost: float | None = None
    for usage in record.model_usage.values():
        # Inspect's input_tokens leaves out what was read from or written to a cache.
        read += usage.input_tokens
        read += (usage.input_tokens_cache_read or 0) + (usage.input_tokens_cache_write or 0)
        written += usage.output_tokens
        total += usage.total_tokens
        if usage.total_cost is not None:
            cost = (cost or 0.0) + usage.total_cost
    return (read, written, total, cost, *times)


def _usage(alignment: Alignment, significance: float) -> list[UsageComparison]:
    first, second = (
        np.array([_usage_row(record) for record in records], dtype=np.float64)
        for records in (alignment.baseline, alignment.candidate)
    )
    found = []
    for position, (name, unit) in enumerate(_USAGE):
        one, other = first[:, position], second[:, position]
        left = group_means(one, alignment.groups, alignment.group_count)
        right = group_means(other, alignment.groups, alignment.group_count)
        both = np.isfinite(left) & np.isfinite(right)
        if not both.any():
            continue
        paired = compare_paired(left[both], right[both], significance)
        lower, upper = paired.interval or (None, None)
        found.append(
            UsageComparison(
                name=name,
                unit=unit,
                baseline_total=float(np.nansum(one)),
                candidate_total=float(np.nansum(other)),
                baseline_mean=paired.baseline_mean,
                candidate_mean=paired.candidate_mean,
                delta=paired.delta,
                p_value=paired.p_value,
                ci_lower=lower,
                ci_upper=upper,
                n=paired.n,
            )
        )
    return found


def _changed_content(alignment: Alignment) -> tuple[list[int], int]:
    """Rows whose content differs between the runs, and how many were compared only in part."""
    changed: list[int] = []
    partial = 0
    for row, (one, other) in enumerate(zip(alignment.baseline, alignment.candidate, strict=True)):
        if one is None or other is None:
            continue
        options = one.choices != other.choices
        if one.digest != other.digest or (
            options and one.choices is not None and other.choices is not None
        ):
            changed.append(row)
        elif one.shortened or other.shortened or (options and (one.choices or other.choices)):
            partial += 1
    return changed, partial


def _content_notes(changed: int, unverified: int) -> list[str]:
    notes = []
    if changed:
        notes.append(
            f"CHANGED DATASET: {changed} samples have the same id but another input, target or "
            "choices; their scores do not compare like with like"
        )
    if unverified:
        notes.append(
            f"{unverified} samples have inputs, targets or choices that a summary does not keep "
            "whole (long texts, images), compared only in part; strict reads them whole"
        )
    return notes


def _unmapped_note(score: ScoreName, unmapped: Counter[str]) -> str:
    examples = ", ".join(f"{value} ({count})" for value, count in unmapped.most_common(3))
    return (
        f"{score.label}: {unmapped.total()} scores are no numbers and count as unscored, "
        f"such as {examples}"
    )


def _check_parameters(significance: float, threshold: float, power: float) -> None:
    if not 0 < significance < 1:
        raise ValueError(f"significance is between 0 and 1, not {significance}")
    if not threshold >= 0:
        raise ValueError(f"regression_threshold is not negative: {threshold}")
    if not 0 < power < 1:
        raise ValueError(f"power is between 0 and 1, not {power}")
