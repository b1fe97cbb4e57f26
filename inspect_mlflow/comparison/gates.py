"""Pass or fail: the conditions under which a comparison stops a pipeline (pure)."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

from inspect_mlflow.comparison.results import (
    ComparisonResult,
    MetricComparison,
    SampleComparison,
    worst_first,
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
        The regressed samples behind a failure, worst first.
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
        ``regression``: no sample may score worse by more than the comparison's threshold.
        ``significant``: no tested metric may be significantly worse. ``never``: neither is asked.
    margin
        Non-inferiority: every tested metric's interval must lie above ``-margin``, in the metric's
        units. At an interval of confidence ``1 - a`` this is a one-sided test at level ``a / 2``.

    Returns
    -------
    list of GateResult
        One for ``fail_on``, and one for each tested metric and ``margin``.

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
    return gates


def _regression(result: ComparisonResult) -> GateResult:
    worse = result.regressions
    threshold = f" by more than {result.regression_threshold:g}" * bool(result.regression_threshold)
    message = f"{len(worse)} samples scored worse{threshold}" if worse else "no sample scored worse"
    return GateResult("regression", not worse, message, worse)


def _significant(result: ComparisonResult) -> GateResult:
    worse = [metric for metric in result.metrics if metric.significant and metric.delta < 0]
    if not worse:
        return GateResult("significant", True, "no metric is significantly worse")
    described = "; ".join(
        f"{metric.label} {metric.delta:+.4g} (p = {metric.p_value:.3g})" for metric in worse
    )
    return GateResult(
        "significant",
        False,
        f"significantly worse: {described}",
        _regressed(result, {metric.scorer for metric in worse}),
    )


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
    elif metric.n is not None and metric.n > 1:
        # Without spread there is no interval, and the one difference speaks for itself.
        passed = metric.delta > -margin or (metric.delta == 0 and margin == 0)
        message = (
            f"every sample changed by {metric.delta:+.4g}, which is "
            f"{'above' if passed else 'not above'} -{margin:g}"
        )
    else:
        passed = False
        message = "one sample gives no interval, so nothing is shown"
    samples = [] if passed else _regressed(result, {metric.scorer})
    return GateResult(name, passed, message, samples)


def _regressed(result: ComparisonResult, scorers: Iterable[str]) -> list[SampleComparison]:
    wanted = set(scorers)
    return worst_first([sample for sample in result.regressions if sample.scorer in wanted])
