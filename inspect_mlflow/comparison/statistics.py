"""Paired statistics for two evaluations of the same samples: pure functions over numbers.

Conventions: ``delta`` is candidate - baseline; ``lost`` counts samples only the baseline got right
and ``gained`` those only the candidate got right; intervals are two-sided at ``1 - significance``.
Every function takes one value per sample id (epochs already averaged), because epochs of one sample
are not independent observations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from inspect_mlflow.comparison.results import ROUNDING

__all__ = [
    "EXACT_LIMIT",
    "PairedResult",
    "cohens_h",
    "compare_paired",
    "conditional_exact_interval",
    "hedges_correction",
    "holm_adjust",
    "mcnemar_interval",
    "mcnemar_pvalue",
    "mean_interval",
    "minimum_detectable_difference",
    "paired_differences",
    "paired_t_interval",
    "required_samples",
    "rounding_noise",
    "sign_flip_interval",
    "sign_flip_pvalue",
    "tango_interval",
    "wilson_interval",
]

EXACT_LIMIT = 13
"""Largest number of nonzero differences whose sign flips (2**13) are enumerated."""

Interval = tuple[float, float]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PairedResult:
    """What a paired comparison of two lists of per-sample means found.

    ``method`` is ``mcnemar-exact``, ``sign-flip-exact`` or ``paired-t``. ``interval`` is in the
    units of the scores and is None where no interval can be given (one sample, or all differences
    equal). ``interval`` excludes 0 exactly when ``p_value`` is below the significance level.
    """

    n: int
    changed: int
    gained: int
    lost: int
    baseline_mean: float
    candidate_mean: float
    delta: float
    p_value: float
    interval: Interval | None
    method: str
    standard_error: float | None
    standard_deviation: float | None
    effect_size: float | None
    hedges_g: float | None
    odds_ratio: float | None
    cohens_h: float | None


def mcnemar_pvalue(lost: int, gained: int) -> float:
    """Exact two-sided McNemar p-value.

    Parameters
    ----------
    lost, gained
        Samples that only the baseline, and only the candidate, got right.

    Returns
    -------
    float
        Two-sided binomial p-value of ``min(lost, gained)`` in ``lost + gained`` at one half; 1 when
        nothing changed.

    Raises
    ------
    ValueError
        A count is negative.

    References
    ----------
    McNemar 1947, Psychometrika 12, 153-157.

    Examples
    --------
    >>> mcnemar_pvalue(1, 8)
    0.0390625
    """
    _check_counts(lost, gained)
    changed = lost + gained
    if changed == 0:
        return 1.0
    return float(stats.binomtest(min(lost, gained), changed, 0.5).pvalue)


def tango_interval(lost: int, gained: int, n: int, significance: float = 0.05) -> Interval:
    """Tango's score interval for the difference of two paired proportions.

    Parameters
    ----------
    lost, gained
        Discordant counts.
    n
        Number of pairs, at least ``lost + gained`` and at least 1.
    significance
        One minus the confidence level.

    Returns
    -------
    tuple of float
        Lower and upper end for candidate - baseline, in [-1, 1].

    Raises
    ------
    ValueError
        The counts do not fit together, or ``significance`` is not in (0, 1).

    References
    ----------
    Tango 1998, Statistics in Medicine 17, 891-908.

    Examples
    --------
    >>> [round(end, 6) for end in tango_interval(5, 15, 100)]
    [0.013447, 0.192397]
    """
    _check_counts(lost, gained, n)
    z = _critical_value(significance)

    def spread(difference: float) -> float:
        linear = -(gained + lost) + (2 * n - gained + lost) * difference
        constant = -lost * difference * (1 - difference)
        root = math.sqrt(max(linear * linear - 8 * n * constant, 0.0))
        nuisance = (root - linear) / (4 * n)
        return z * math.sqrt(max(n * (2 * nuisance + difference * (1 - difference)), 0.0))

    estimate = (gained - lost) / n

    def solve(end: float, sign: float) -> float:
        def score(difference: float) -> float:
            return gained - lost - n * difference - sign * spread(difference)

        # At ±1 the variance vanishes, so an estimate of ±1 is its own limit.
        if score(end) * sign <= 0:
            return end
        # The score is 0 at the estimate too when nothing varies there: stop short of it.
        near = estimate - sign * 1e-12
        return float(optimize.brentq(score, end, near, xtol=1e-14, rtol=1e-14))

    return solve(-1.0, 1.0), solve(1.0, -1.0)


def conditional_exact_interval(
    lost: int, gained: int, n: int, significance: float = 0.05
) -> Interval:
    """Interval for a paired difference of proportions, exact given the number of changed samples.

    Clopper-Pearson limits for the share of gains among the changed samples, carried to the
    difference: ``(2 * share - 1) * changed / n``. It excludes 0 exactly when the exact McNemar
    p-value is below ``significance``.

    Parameters
    ----------
    lost, gained, n, significance
        As for `tango_interval`.

    Returns
    -------
    tuple of float
        Lower and upper end; ``(0, 0)`` when nothing changed.

    Raises
    ------
    ValueError
        The counts do not fit together, or ``significance`` is not in (0, 1).

    References
    ----------
    Clopper and Pearson 1934, Biometrika 26, 404-413.

    Examples
    --------
    >>> [round(end, 6) for end in conditional_exact_interval(5, 15, 100)]
    [0.003582, 0.165371]
    """
    _check_counts(lost, gained, n)
    _check_significance(significance)
    changed = lost + gained
    if changed == 0:
        return 0.0, 0.0
    share = stats.binomtest(gained, changed).proportion_ci(1 - significance, method="exact")
    scale = changed / n
    return (2 * float(share.low) - 1) * scale, (2 * float(share.high) - 1) * scale


def mcnemar_interval(lost: int, gained: int, n: int, significance: float = 0.05) -> Interval:
    """Interval that goes with the exact McNemar test: it excludes 0 iff p < ``significance``.

    The union of `tango_interval` and `conditional_exact_interval`.

    Parameters
    ----------
    lost, gained, n, significance
        As for `tango_interval`.

    Returns
    -------
    tuple of float
        Lower and upper end for candidate - baseline, in [-1, 1].

    Raises
    ------
    ValueError
        The counts do not fit together, or ``significance`` is not in (0, 1).

    Examples
    --------
    >>> [round(end, 6) for end in mcnemar_interval(5, 15, 100)]
    [0.003582, 0.192397]
    """
    score = tango_interval(lost, gained, n, significance)
    exact = conditional_exact_interval(lost, gained, n, significance)
    union = min(score[0], exact[0]), max(score[1], exact[1])
    return _agree(union, exact, mcnemar_pvalue(lost, gained), significance, gained - lost)


def sign_flip_pvalue(differences: Sequence[float] | Floats) -> float:
    """Exact two-sided p-value of the mean under all sign flips of the nonzero differences.

    Parameters
    ----------
    differences
        One difference per sample id. Zeros do not matter.

    Returns
    -------
    float
        Share of the ``2**m`` sign assignments whose absolute sum reaches the observed one; 1 when
        all differences are 0. When all nonzero differences have one size, the binomial
        distribution gives the same share for any m.

    Raises
    ------
    ValueError
        More than `EXACT_LIMIT` nonzero differences of several sizes.

    References
    ----------
    Fisher 1935, The Design of Experiments, section 21.

    Examples
    --------
    >>> sign_flip_pvalue([0.5] * 5)
    0.0625
    """
    nonzero = _nonzero(differences)
    if nonzero.size == 0:
        return 1.0
    sizes = np.abs(nonzero)
    if np.ptp(sizes) <= ROUNDING * sizes.max():
        gained = int((nonzero > 0).sum())
        return mcnemar_pvalue(nonzero.size - gained, gained)
    _check_enumerable(nonzero)
    sums = np.zeros(1)
    for size in sizes:
        sums = np.concatenate((sums + size, sums - size))
    # Assignments that tie with the observed one must count in spite of rounding.
    reached = np.abs(sums) >= abs(nonzero.sum()) - ROUNDING * sizes.sum()
    return float(reached.mean())


def sign_flip_interval(
    differences: Sequence[float] | Floats, significance: float = 0.05
) -> Interval:
    """Interval for the mean difference by inverting the exact sign-flip test.

    The means of all nonempty subsets of the nonzero differences cut the line into equally likely
    pieces; the interval runs between the order statistics at which the two-sided p-value reaches
    ``significance``, scaled by the share of nonzero differences. It excludes 0 exactly when
    `sign_flip_pvalue` is below ``significance``.

    Parameters
    ----------
    differences
        One difference per sample id, at most `EXACT_LIMIT` of them nonzero.
    significance
        One minus the confidence level.

    Returns
    -------
    tuple of float
        Lower and upper end; infinite where the test can reject nothing.

    Raises
    ------
    ValueError
        Too many nonzero differences, or ``significance`` is not in (0, 1).

    References
    ----------
    Hartigan 1969, Journal of the American Statistical Association 64, 1303-1317.

    Examples
    --------
    >>> sign_flip_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], significance=0.0625)
    (1.0, 6.0)
    """
    _check_significance(significance)
    values = np.asarray(differences, dtype=np.float64)
    nonzero = _nonzero(values)
    _check_enumerable(nonzero)
    if nonzero.size == 0:
        return -math.inf, math.inf
    sums, counts = np.zeros(1), np.zeros(1)
    for value in nonzero:
        sums = np.concatenate((sums, sums + value))
        counts = np.concatenate((counts, counts + 1))
    means = np.sort(sums[1:] / counts[1:])
    rank = math.ceil(significance * 2**nonzero.size / 2 - 1e-9) - 1
    if rank < 1:
        return -math.inf, math.inf
    scale = nonzero.size / values.size
    return float(means[rank - 1]) * scale, float(means[-rank]) * scale


def paired_t_interval(
    differences: Sequence[float] | Floats,
    significance: float = 0.05,
    degrees_of_freedom: int | None = None,
) -> Interval | None:
    """Student's interval for the mean difference.

    Parameters
    ----------
    differences
        One difference per sample id (cluster).
    significance
        One minus the confidence level.
    degrees_of_freedom
        Of Student's distribution; one less than there are samples when None.

    Returns
    -------
    tuple of float or None
        Lower and upper end; None for fewer than two samples or when all differences are equal.

    Raises
    ------
    ValueError
        ``significance`` is not in (0, 1).

    Examples
    --------
    >>> paired_t_interval([0.5, 0.5, 0.5]) is None
    True
    """
    _check_significance(significance)
    values = np.asarray(differences, dtype=np.float64)
    deviation = _standard_deviation(values)
    if not deviation:
        return None
    freedom = values.size - 1 if degrees_of_freedom is None else degrees_of_freedom
    half = float(stats.t.isf(significance / 2, freedom)) * deviation
    half /= math.sqrt(values.size)
    mean = float(values.mean())
    return mean - half, mean + half


def mean_interval(
    values: Sequence[float] | Floats, significance: float = 0.05
) -> tuple[float, float] | None:
    """Interval for one run's mean: Wilson's where all values are 0 or 1, else Student's.

    Parameters
    ----------
    values
        One mean per sample id.
    significance
        One minus the confidence level.

    Returns
    -------
    tuple of float or None
        None where no interval can be given.

    Raises
    ------
    ValueError
        ``significance`` is not in (0, 1).
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size and _is_binary(array):
        return wilson_interval(int(array.sum()), array.size, significance)
    return paired_t_interval(array, significance)


def wilson_interval(successes: int, n: int, significance: float = 0.05) -> Interval:
    """Wilson's score interval for one proportion.

    Parameters
    ----------
    successes, n
        Number of successes in ``n`` independent trials.
    significance
        One minus the confidence level.

    Returns
    -------
    tuple of float
        Lower and upper end, in [0, 1].

    Raises
    ------
    ValueError
        The counts do not fit together, or ``significance`` is not in (0, 1).

    References
    ----------
    Wilson 1927, Journal of the American Statistical Association 22, 209-212.

    Examples
    --------
    >>> [round(end, 6) for end in wilson_interval(7, 10)]
    [0.396778, 0.892209]
    """
    _check_counts(successes, 0, n)
    _check_significance(significance)
    ends = stats.binomtest(successes, n).proportion_ci(1 - significance, method="wilson")
    return float(ends.low), float(ends.high)


def hedges_correction(n: int) -> float:
    """Factor that removes the small-sample bias of Cohen's d of ``n`` paired differences.

    Parameters
    ----------
    n
        Number of differences, at least 2.

    Returns
    -------
    float
        Between 0 and 1, tending to 1: the exact form, with gamma functions. 0 for ``n`` = 2.

    Raises
    ------
    ValueError
        ``n`` is below 2.

    References
    ----------
    Hedges 1981, Journal of Educational Statistics 6, 107-128.

    Examples
    --------
    >>> round(hedges_correction(8), 6)
    0.888203
    """
    if n < 2:
        raise ValueError(f"Hedges' correction needs at least 2 differences, not {n}")
    freedom = n - 1
    if freedom == 1:
        # gamma(0) is infinite: the correction has no finite value but 0.
        return 0.0
    log_ratio = special.gammaln(freedom / 2) - special.gammaln((freedom - 1) / 2)
    return float(math.exp(log_ratio) / math.sqrt(freedom / 2))


def cohens_h(baseline: float, candidate: float) -> float:
    """Cohen's h: the difference of two proportions on the arcsine scale.

    Parameters
    ----------
    baseline, candidate
        Proportions in [0, 1].

    Returns
    -------
    float
        In radians, positive when the candidate is higher.

    Raises
    ------
    ValueError
        A proportion is outside [0, 1].

    References
    ----------
    Cohen 1988, Statistical Power Analysis for the Behavioral Sciences, chapter 6.

    Examples
    --------
    >>> round(cohens_h(0.5, 1.0), 6)
    1.570796
    """
    for share in (baseline, candidate):
        if not 0 <= share <= 1:
            raise ValueError(f"a proportion is between 0 and 1, not {share}")
    return 2 * math.asin(math.sqrt(candidate)) - 2 * math.asin(math.sqrt(baseline))


def holm_adjust(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of several p-values.

    Parameters
    ----------
    p_values
        Raw p-values, in any order.

    Returns
    -------
    list of float
        Adjusted p-values in the same order, at most 1.

    References
    ----------
    Holm 1979, Scandinavian Journal of Statistics 6, 65-70.

    Examples
    --------
    >>> holm_adjust([0.25, 0.5])
    [0.5, 0.5]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, position in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = highest
    return adjusted


def required_samples(
    difference: float,
    variance: float,
    significance: float = 0.05,
    power: float = 0.8,
) -> float:
    """Number of samples at which a paired comparison detects a given difference.

    ``(z_(alpha/2) + z_beta)**2 * variance / difference**2``, not rounded.

    Parameters
    ----------
    difference
        True difference of the means, in the units of the scores; not 0.
    variance
        Variance, over samples, of the difference of their mean scores: in Miller's terms
        ``w2 + sA2/KA + sB2/KB``, of which more epochs K make all but the first smaller.
    significance
        Two-sided significance level.
    power
        Probability of a significant result when the difference is real.

    Returns
    -------
    float
        Number of samples; round up.

    Raises
    ------
    ValueError
        A parameter is outside its range.

    References
    ----------
    Miller 2024, Adding Error Bars to Evals, section 5, arXiv:2411.00640.

    Examples
    --------
    >>> round(required_samples(0.03, 1 / 9), 4)
    968.9975
    """
    if difference == 0:
        raise ValueError("no number of samples detects a difference of 0")
    _check_variance(variance)
    return _power_factor(significance, power) ** 2 * variance / difference**2


def minimum_detectable_difference(
    n: int,
    variance: float,
    significance: float = 0.05,
    power: float = 0.8,
) -> float:
    """Smallest true difference that ``n`` samples detect with the given power.

    Parameters
    ----------
    n
        Number of samples, at least 1.
    variance, significance, power
        As for `required_samples`.

    Returns
    -------
    float
        In the units of the scores.

    Raises
    ------
    ValueError
        A parameter is outside its range.

    References
    ----------
    Miller 2024, Adding Error Bars to Evals, section 5, arXiv:2411.00640.

    Examples
    --------
    >>> round(minimum_detectable_difference(969, 1 / 9), 4)
    0.03
    """
    if n < 1:
        raise ValueError(f"the number of samples is at least 1, not {n}")
    _check_variance(variance)
    return _power_factor(significance, power) * math.sqrt(variance / n)


def paired_differences(
    baseline: Sequence[float] | Floats, candidate: Sequence[float] | Floats
) -> Floats:
    """Candidate - baseline, with floating-point noise set to exactly 0.

    Parameters
    ----------
    baseline, candidate
        Equally long lists of scores.

    Returns
    -------
    numpy.ndarray
        One difference per pair.

    Raises
    ------
    ValueError
        The lists differ in length.

    Examples
    --------
    >>> paired_differences([0.3], [0.1 + 0.2]).tolist()
    [0.0]
    """
    first = np.asarray(baseline, dtype=np.float64)
    second = np.asarray(candidate, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"{first.size} baseline scores but {second.size} candidate scores")
    differences = second - first
    differences[np.abs(differences) <= rounding_noise(first, second)] = 0.0
    return differences


def rounding_noise(baseline: Floats, candidate: Floats) -> Floats:
    """Size up to which the difference of two scores may be rounding; NaN without a score."""
    noise: Floats = ROUNDING * np.maximum(np.abs(baseline), np.abs(candidate))
    return noise


def compare_paired(
    baseline: Sequence[float] | Floats,
    candidate: Sequence[float] | Floats,
    significance: float = 0.05,
) -> PairedResult:
    """Compare two runs on the same samples.

    All values 0 or 1: exact McNemar test with `mcnemar_interval`. Otherwise the exact sign-flip
    test for up to `EXACT_LIMIT` nonzero differences, and the paired t-test beyond, with Student's
    interval. Its degrees of freedom are one less than the samples, or, when the test is exact and
    at most half of the samples changed, one less than the changed ones (in simulations, samples
    that never change otherwise bring its coverage down to .87).

    Where Student's interval and an exact p-value would disagree about 0, the interval gives way:
    it is widened to 0 when the p-value is not below ``significance``, and its end next to 0 becomes
    that of `sign_flip_interval` when it is.

    Parameters
    ----------
    baseline, candidate
        One mean per sample id, in the same order.
    significance
        Level below which a p-value counts as significant.

    Returns
    -------
    PairedResult
        Means, difference, test, interval and effect sizes.

    Raises
    ------
    ValueError
        The lists are empty, differ in length or hold values that are not finite, or
        ``significance`` is not in (0, 1).

    Examples
    --------
    >>> compare_paired([0, 0, 0, 1], [1, 1, 1, 1]).p_value
    0.25
    """
    _check_significance(significance)
    first = np.asarray(baseline, dtype=np.float64)
    second = np.asarray(candidate, dtype=np.float64)
    differences = paired_differences(first, second)
    n = differences.size
    if n == 0:
        raise ValueError("no pair of scores to compare")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("scores must be finite numbers")
    noise = np.where(differences == 0, 0.0, rounding_noise(first, second))
    differences = _level(differences, noise)
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    changed = gained + lost
    deviation = _standard_deviation(differences)
    mean = float(differences.mean())
    if abs(mean) <= noise.mean():
        mean = 0.0
    interval: Interval | None
    odds_ratio = effect_h = None
    if _is_binary(first) and _is_binary(second):
        method = "mcnemar-exact"
        p_value = mcnemar_pvalue(lost, gained)
        interval = mcnemar_interval(lost, gained, n, significance)
        odds_ratio = gained / lost if lost else None
        effect_h = cohens_h(float(first.mean()), float(second.mean()))
    elif changed <= EXACT_LIMIT or not deviation:
        method = "sign-flip-exact"
        p_value = sign_flip_pvalue(differences)
        # Unchanged samples say nothing about how far the changed ones go: where they are most of
        # the data, only the changed ones count as degrees of freedom.
        freedom = max(1, changed - 1) if 2 * changed <= n else n - 1
        interval = paired_t_interval(differences, significance, freedom)
        if interval is not None:
            exact = sign_flip_interval(differences, significance)
            interval = _agree(interval, exact, p_value, significance, mean)
    else:
        method = "paired-t"
        p_value = float(stats.ttest_1samp(differences, 0.0).pvalue)
        interval = paired_t_interval(differences, significance)
        if interval is not None:
            interval = _agree(interval, interval, p_value, significance, mean)
    effect = mean / deviation if deviation else None
    return PairedResult(
        n=n,
        changed=changed,
        gained=gained,
        lost=lost,
        baseline_mean=float(first.mean()),
        candidate_mean=float(second.mean()),
        delta=mean,
        p_value=p_value,
        interval=interval,
        method=method,
        standard_error=None if deviation is None else deviation / math.sqrt(n),
        standard_deviation=deviation,
        effect_size=effect,
        hedges_g=None if effect is None else effect * hedges_correction(n),
        odds_ratio=odds_ratio,
        cohens_h=effect_h,
    )


def _level(differences: Floats, noise: Floats) -> Floats:
    """Give sizes that only rounding tells apart one value, so that equal differences are equal."""
    sizes = np.abs(differences)
    order = np.argsort(sizes)
    ranked, noise = sizes[order], noise[order]
    first = np.append(True, np.diff(ranked) > noise[1:] + noise[:-1])
    sizes[order] = ranked[first][np.cumsum(first) - 1]
    return np.copysign(sizes, differences)


def _agree(
    interval: Interval, exact: Interval, p_value: float, significance: float, direction: float
) -> Interval:
    """Make ``interval`` exclude 0 exactly when ``p_value`` is below ``significance``."""
    lower, upper = interval
    if p_value >= significance:
        return min(lower, 0.0), max(upper, 0.0)
    if lower <= 0 <= upper:
        return (exact[0], upper) if direction > 0 else (lower, exact[1])
    return lower, upper


def _standard_deviation(values: Floats) -> float | None:
    """Sample standard deviation; exactly 0 when only rounding tells the values apart."""
    if values.size < 2:
        return None
    if np.ptp(values) <= ROUNDING * np.abs(values).max():
        return 0.0
    return float(values.std(ddof=1))


def _is_binary(values: Floats) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def _nonzero(differences: Sequence[float] | Floats) -> Floats:
    values: Floats = np.asarray(differences, dtype=np.float64)
    nonzero: Floats = values[values != 0]
    return nonzero


def _critical_value(significance: float) -> float:
    _check_significance(significance)
    return float(stats.norm.isf(significance / 2))


def _power_factor(significance: float, power: float) -> float:
    if not 0 < power < 1:
        raise ValueError(f"power is between 0 and 1, not {power}")
    return _critical_value(significance) + float(stats.norm.ppf(power))


def _check_variance(variance: float) -> None:
    if variance < 0:
        raise ValueError(f"a variance is not negative: {variance}")


def _check_significance(significance: float) -> None:
    if not 0 < significance < 1:
        raise ValueError(f"significance is between 0 and 1, not {significance}")


def _check_enumerable(nonzero: Floats) -> None:
    if nonzero.size > EXACT_LIMIT:
        raise ValueError(f"{nonzero.size} nonzero differences; at most {EXACT_LIMIT} are exact")


def _check_counts(lost: int, gained: int, n: int | None = None) -> None:
    if min(lost, gained) < 0:
        raise ValueError("counts are not negative")
    if n is not None and (n < 1 or lost + gained > n):
        raise ValueError(f"{lost} + {gained} counts do not fit into {n} pairs")
