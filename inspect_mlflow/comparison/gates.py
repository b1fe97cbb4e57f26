"""Pass or fail: the conditions under which a comparison stops a pipeline (pure)."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal, get_args

from inspect_mlflow.comparison.results import (
    ROUNDING,
    ComparisonResult,
    MetricComparison,
    SampleComparison,
)

__all__ = ["FailOn", "GateResult", "evaluate_gates"]

FailOn = Literal["never", "regression", "significant"]


@dataclass(frozen=True)
class GateResult:
    """Outcome of one gate.

    Parameters
    ----------
    name
        ``regression``, ``significant`` or ``non-inferiority``, with what it was applied to.
    passed
        Whether the comparison passed.
    message
        Why, in one sentence.
    samples
        The regressed samples behind a failure, each with the means over its epochs, worst first.
    """

    name: str
    passed: bool
    message: str
    samples: list[SampleComparison] = field(default_factory=list)


def evaluate_gates(
    result: ComparisonResult, fail_on: FailOn = "never", margin: float | None = None
) -> list[GateResult]:
    """Apply the gates to a comparison.

    Parameters
    ----------
    result
        The comparison.
    fail_on
        ``regression``: no sample's mean over its epochs may be worse by more than the comparison's
        threshold. ``significant``: no tested metric may be significantly worse, by the p-value
        adjusted (Holm) for the number of scores. ``never``: neither is asked.
    margin
        Non-inferiority: every tested metric's interval must lie above ``-margin``, in the metric's
        units, and every score of the baseline must have been compared. At an interval of confidence
        ``1 - a`` this is a one-sided test at level ``a / 2``. Equal differences have no interval:
        they decide themselves where there are enough of them for an exact test to reject at ``a``.

    Returns
    -------
    list of GateResult
        One for ``fail_on``, and for ``margin`` one for each tested metric or uncompared score.

    Raises
    ------
    ValueError
        ``fail_on`` is unknown or ``margin`` negative.
    """
    if fail_on not in get_args(FailOn):
        raise ValueError(f"unknown gate {fail_on!r}; there are {', '.join(get_args(FailOn))}")
    if margin is not None and not margin >= 0:
        raise ValueError(f"the margin is not negative: {margin}")
    gates: list[GateResult] = []
    if fail_on == "regression":
        gates.append(_regression(result))
    elif fail_on == "significant":
        gates.append(_significant(result))
    if margin is not None:
        gates += [
            _non_inferiority(result, metric, margin)
            for metric in result.metrics
            if metric.p_value is not None
        ]
        gates += [
            GateResult(f"non-inferiority {score}", False, f"not compared: {reason}")
            for score, reason in result.uncompared.items()
        ]
    return gates


def _regression(result: ComparisonResult) -> GateResult:
    worse = _regressed(result)
    message = "no sample scored worse"
    if worse:
        message = f"{len(worse)} samples scored worse"
    if result.regression_threshold:
        message += f" by more than {result.regression_threshold:g}"
    if any(sample.epoch == 0 for sample in worse):
        message += ", over their epochs"
    return GateResult("regression", not worse, message + _uncompared(result), worse)


def _significant(result: ComparisonResult) -> GateResult:
    several = len({metric.scorer for metric in result.metrics if metric.p_value is not None}) > 1
    worse = []
    for metric in result.metrics:
        # One by one, a tenth score without any change would fail the gate in every third run.
        p_value = metric.p_value if metric.p_value_holm is None else metric.p_value_holm
        if metric.delta < 0 and p_value is not None and p_value < result.significance:
            worse.append((metric, p_value))
    name = "Holm-adjusted p" if several else "p"
    message = "no metric is significantly worse" + f" ({name})" * several
    if worse:
        message = "significantly worse: " + "; ".join(
            f"{metric.label} {metric.delta:+.4g} ({name} = {p_value:.3g})"
            for metric, p_value in worse
        )
    samples = _regressed(result, {metric.scorer for metric, _ in worse})
    return GateResult("significant", not worse, message + _uncompared(result), samples)


def _uncompared(result: ComparisonResult) -> str:
    """What a gate could not judge."""
    found = ", ".join(f"{score} ({reason})" for score, reason in result.uncompared.items())
    return f"; not compared: {found}" if found else ""


def _non_inferiority(
    result: ComparisonResult, metric: MetricComparison, margin: float
) -> GateResult:
    name = f"non-inferiority {metric.label}"
    level = f"{metric.confidence * 100:.4g} %"
    if metric.ci_lower is not None:
        passed = metric.ci_lower > -margin
        message = (
            f"lower end {metric.ci_lower:+.4g} of the {level} interval is "
            f"{'above' if passed else 'not above'} -{margin:g}"
        )
    else:
        # Without spread there is no interval, and the one difference speaks for itself: as far as
        # chance, which gives n differences the same sign in 2 of 2**n cases, is excluded.
        needed = math.floor(1 - math.log2(result.significance)) + 1
        n = metric.n or 0
        passed = n >= needed and (metric.delta > -margin or metric.delta == 0)
        message = f"every sample changed by {metric.delta:+.4g}, "
        if n < needed:
            message += f"but n = {n} shows nothing (n = {needed} would)"
        else:
            message += f"which is {'above' if passed else 'not above'} -{margin:g}"
    samples = [] if passed else _regressed(result, {metric.scorer})
    return GateResult(name, passed, message, samples)


def _regressed(
    result: ComparisonResult, scorers: Collection[str] | None = None
) -> list[SampleComparison]:
    """The samples that scored worse by more than the threshold, worst first."""
    by_sample: dict[tuple[str, str], list[SampleComparison]] = {}
    for sample in result.samples:
        if scorers is None or sample.scorer in scorers:
            by_sample.setdefault((sample.scorer, str(sample.id)), []).append(sample)
    means = (_mean(epochs, result.regression_threshold) for epochs in by_sample.values())
    worse = [sample for sample in means if sample.direction == "regressed"]
    return sorted(worse, key=lambda sample: sample.delta or 0.0)


def _mean(epochs: Sequence[SampleComparison], threshold: float) -> SampleComparison:
    """One sample over its epochs, which are averaged in each run: they match by chance only."""
    first = [epoch.baseline_score for epoch in epochs if epoch.baseline_score is not None]
    second = [epoch.candidate_score for epoch in epochs if epoch.candidate_score is not None]
    if len(epochs) == 1 or not first or not second:
        return epochs[0]
    baseline, candidate = fmean(first), fmean(second)
    delta = candidate - baseline
    changed = abs(delta) > threshold + ROUNDING * max(abs(baseline), abs(candidate))
    return replace(
        epochs[0],
        epoch=0,
        baseline_score=baseline,
        candidate_score=candidate,
        delta=delta,
        direction="unchanged" if not changed else "improved" if delta > 0 else "regressed",
        content_changed=any(epoch.content_changed for epoch in epochs),
        note=None,
    )
