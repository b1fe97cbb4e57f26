"""The statistics against published, enumerated and independently computed values."""

import doctest
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from inspect_mlflow.comparison import statistics
from inspect_mlflow.comparison.statistics import (
    cohens_h,
    compare_paired,
    conditional_exact_interval,
    hedges_correction,
    holm_adjust,
    mcnemar_interval,
    mcnemar_pvalue,
    mean_interval,
    minimum_detectable_difference,
    paired_differences,
    paired_t_interval,
    required_samples,
    sign_flip_interval,
    sign_flip_pvalue,
    tango_interval,
    wilson_interval,
)

BASE = [[1, 0, 1], [0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [1, 1, 0]]
CANDIDATE = [[1, 1, 1], [0, 1, 0], [1, 1, 1], [1, 1, 0], [0, 0, 0], [1, 1, 1]]
X = [0.62, 0.71, 0.55, 0.80, 0.43, 0.90, 0.66, 0.59]
Y = [0.70, 0.75, 0.50, 0.92, 0.55, 0.91, 0.80, 0.61]


def test_docstring_examples() -> None:
    outcome = doctest.testmod(statistics)
    assert outcome.attempted > 10
    assert outcome.failed == 0


@pytest.mark.parametrize(
    ("lost", "gained", "expected"),
    [(1, 1, 1.0), (2, 0, 0.5), (0, 5, 0.0625), (1, 8, 0.0390625), (5, 15, 0.0413894653)],
)
def test_mcnemar(lost: int, gained: int, expected: float) -> None:
    assert mcnemar_pvalue(lost, gained) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((5, 15, 100), (0.01344676, 0.19239650)),
        ((1, 8, 30), (0.04550400, 0.42194836)),
        ((0, 0, 50), (-0.07134760, 0.07134760)),
    ],
)
def test_tango(counts: tuple[int, int, int], expected: tuple[float, float]) -> None:
    assert tango_interval(*counts) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(("lost", "gained", "n"), [(1, 0, 44), (3, 9, 25), (0, 10, 12), (7, 7, 40)])
def test_tango_ends_are_where_the_score_test_turns(lost: int, gained: int, n: int) -> None:
    def statistic(difference: float) -> float:
        # The nuisance parameter by brute force: the most likely share of losses.
        def unlikelihood(share: float) -> float:
            rest = 1 - 2 * share - difference
            counts = ((gained, share + difference), (lost, share), (n - gained - lost, rest))
            return -sum(count * math.log(p) for count, p in counts if count)

        low, high = max(0.0, -difference), (1 - difference) / 2
        best = optimize.minimize_scalar(
            unlikelihood,
            bounds=(low + 1e-12, high - 1e-12),
            method="bounded",
            options={"xatol": 1e-12},
        ).x
        variance = n * (2 * best + difference - difference**2)
        return float((gained - lost - n * difference) / math.sqrt(variance))

    lower, upper = tango_interval(lost, gained, n)
    assert statistic(lower) == pytest.approx(1.959964, abs=2e-4)
    assert statistic(upper) == pytest.approx(-1.959964, abs=2e-4)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((0, 5, 20), (-0.01091188, 0.46870088)), ((5, 15, 100), (0.00358165, 0.19239650))],
)
def test_mcnemar_interval(counts: tuple[int, int, int], expected: tuple[float, float]) -> None:
    assert mcnemar_interval(*counts) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("significance", [0.2, 0.0625, 0.05, 0.01, 0.001, 1e-5])
def test_mcnemar_interval_agrees_with_the_test_on_every_table(significance: float) -> None:
    for n in (1, 2, 5, 10, 30):
        for lost, gained in itertools.product(range(n + 1), repeat=2):
            if lost + gained > n:
                continue
            lower, upper = mcnemar_interval(lost, gained, n, significance)
            excluded = lower > 0 or upper < 0
            assert excluded == (mcnemar_pvalue(lost, gained) < significance), (lost, gained, n)
            assert -1 <= lower <= (gained - lost) / n <= upper <= 1


def test_conditional_interval_is_clopper_pearson_carried_over() -> None:
    share = stats.binomtest(8, 9).proportion_ci(0.95, method="exact")
    expected = ((2 * share.low - 1) * 0.3, (2 * share.high - 1) * 0.3)
    assert conditional_exact_interval(1, 8, 30) == pytest.approx(expected, rel=1e-12)


def test_clustered_vector() -> None:
    base = [sum(row) / 3 for row in BASE]
    candidate = [sum(row) / 3 for row in CANDIDATE]
    found = compare_paired(base, candidate)
    assert found.delta == pytest.approx(0.16666667, abs=1e-8)
    assert found.standard_error == pytest.approx(0.11385501, abs=1e-8)
    assert found.standard_error is not None
    assert found.delta / found.standard_error == pytest.approx(1.46385011, abs=1e-8)
    assert found.p_value == 0.375
    assert found.effect_size == pytest.approx(0.59761430, abs=1e-8)


def test_paired_vector() -> None:
    found = compare_paired(X, Y)
    assert found.delta == pytest.approx(0.06, abs=1e-12)
    assert found.p_value == 0.0546875
    assert found.effect_size == pytest.approx(0.90748521, abs=1e-8)
    assert found.hedges_g == pytest.approx(0.80603100, abs=1e-8)
    differences = paired_differences(X, Y)
    assert stats.ttest_1samp(differences, 0).statistic == pytest.approx(2.56675579, abs=1e-8)
    interval = paired_t_interval(differences)
    assert interval == pytest.approx((0.00472499, 0.11527501), abs=1e-8)
    # The exact p-value is not below 0.05, so the interval is widened to include 0.
    assert found.interval == pytest.approx((0.0, 0.11527501), abs=1e-8)


def test_wilson_holm_and_power_vectors() -> None:
    assert wilson_interval(7, 10) == pytest.approx((0.39677815, 0.89220873), abs=1e-8)
    adjusted = holm_adjust([0.01, 0.04, 0.03, 0.005, 0.2])
    assert adjusted == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.2])
    assert required_samples(0.03, 1 / 9) == pytest.approx(968.9975, abs=5e-5)


def test_detectable_difference_inverts_the_sample_size() -> None:
    needed = required_samples(0.05, 0.2, power=0.9, significance=0.01)
    found = minimum_detectable_difference(round(needed), 0.2, power=0.9, significance=0.01)
    assert found == pytest.approx(0.05, rel=1e-3)


def test_power_formula_against_simulated_power() -> None:
    n = math.ceil(required_samples(0.3, 1.0))
    rng = np.random.default_rng(4)
    draws = rng.normal(0.3, 1.0, (20_000, n))
    power = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05)
    assert power == pytest.approx(0.8, abs=0.015)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-40, 40), min_size=1, max_size=9))
def test_sign_flip_equals_scipys_exact_permutation_test(values: list[int]) -> None:
    differences = np.array(values) / 8
    if len(values) == 1:
        assert sign_flip_pvalue(differences) == 1.0
        return
    expected = stats.permutation_test(
        (differences,), np.sum, permutation_type="samples", n_resamples=2 ** len(values)
    ).pvalue
    assert sign_flip_pvalue(differences) == pytest.approx(min(1.0, expected), abs=1e-12)


def test_equal_sizes_of_any_number_are_exact() -> None:
    assert sign_flip_pvalue([0.5] * 20) == pytest.approx(2 / 2**20)
    assert sign_flip_pvalue([0.5] * 30 + [-0.5] * 10) == pytest.approx(
        stats.binomtest(10, 40).pvalue
    )
    with pytest.raises(ValueError, match="14 nonzero"):
        sign_flip_pvalue([float(i) for i in range(1, 15)])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-30, 60).filter(bool), min_size=5, max_size=10),
    st.sampled_from([0.05, 0.0625, 0.1, 0.25]),
)
def test_sign_flip_interval_holds_what_the_test_does_not_reject(
    values: list[int], significance: float
) -> None:
    differences = np.array(values, dtype=float)
    lower, upper = sign_flip_interval(differences, significance)
    # All integers and halves are ties of some assignment; just beside them are none.
    for shift in (*differences, differences.mean(), -100.0, 200.0):
        for nudge in (-1e-3, 1e-3):
            theta = shift + nudge
            accepted = sign_flip_pvalue(differences - theta) >= significance
            assert accepted == (lower < theta < upper)


def test_one_pair_tells_nothing() -> None:
    found = compare_paired([0.3], [0.7])
    assert found.p_value == 1.0
    assert found.interval is None
    assert found.effect_size is None
    assert found.standard_error is None


def test_equal_differences_have_no_interval_and_no_effect_size() -> None:
    found = compare_paired([0.1] * 5, [0.6] * 5)
    assert found.p_value == 0.0625
    assert found.interval is None
    assert found.effect_size is None
    many = compare_paired([0.1] * 200, [0.6] * 200)
    assert 0 < many.p_value < 1e-50
    assert many.interval is None


def test_identical_runs() -> None:
    found = compare_paired([0.1, 0.5, 0.3], [0.1, 0.5, 0.3])
    assert (found.p_value, found.interval, found.delta) == (1.0, None, 0.0)
    binary = compare_paired([0, 1] * 25, [0, 1] * 25)
    assert binary.p_value == 1.0
    assert binary.interval == pytest.approx((-0.0713476, 0.0713476), abs=1e-7)


def test_rounding_is_no_difference() -> None:
    assert paired_differences([0.3, 0.3], [0.1 + 0.2, 0.31])[0] == 0.0
    found = compare_paired([0.3] * 6, [0.1 + 0.2] * 6)
    assert (found.changed, found.p_value) == (0, 1.0)
    # Changes that cancel out, a constant on large scores, and changes of one size on them.
    cancelling = compare_paired([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.3, 0.4, 0.1, 0.2, 0.8, 0.3])
    assert (cancelling.delta, cancelling.effect_size, cancelling.p_value) == (0.0, 0.0, 1.0)
    large = np.random.default_rng(0).uniform(0, 1e5, 30)
    constant = compare_paired(large, large + 0.1)
    assert (constant.standard_deviation, constant.interval) == (0.0, None)
    assert constant.p_value == 2 / 2**30
    steps = [0.1] * 10 + [-0.1] * 2 + [0.0] * 18
    assert compare_paired(large, large + steps).p_value == mcnemar_pvalue(2, 10)
    # Small changes beside a large unchanged score are no rounding.
    assert compare_paired([1e15, 0.1, 0.2], [1e15, 0.5, 0.7]).changed == 2


def test_an_exact_p_value_below_the_level_never_meets_an_interval_around_zero() -> None:
    # Six gains of very different size: the exact test rejects, Student's interval would not.
    differences = [0.001, 0.001, 0.002, 0.003, 0.05, 1.0]
    for zeros in (0, 30):
        found = compare_paired([0.0] * (6 + zeros), differences + [0.0] * zeros)
        student = paired_t_interval(differences + [0.0] * zeros, 0.05, 5)
        assert student is not None
        assert student[0] < 0 < student[1]
        assert found.p_value == 0.03125
        assert found.interval is not None
        assert 0 < found.interval[0] < found.delta < found.interval[1] == student[1]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.one_of(st.integers(0, 1), st.integers(0, 20).map(lambda i: i / 20))] * 2),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from([0.2, 0.0625, 0.05, 0.01]),
)
def test_interval_and_p_value_never_disagree_and_mirror(
    pairs: list[tuple[float, float]], significance: float
) -> None:
    first, second = zip(*pairs, strict=True)
    found = compare_paired(first, second, significance)
    mirrored = compare_paired(second, first, significance)
    assert mirrored.p_value == found.p_value
    assert mirrored.delta == -found.delta
    assert (mirrored.gained, mirrored.lost) == (found.lost, found.gained)
    if found.interval is None:
        assert mirrored.interval is None
        return
    lower, upper = found.interval
    assert (lower > 0 or upper < 0) == (found.p_value < significance)
    assert mirrored.interval == pytest.approx((-upper, -lower), abs=1e-12)


def test_hedges_and_effects_at_the_edges() -> None:
    assert hedges_correction(2) == 0.0
    assert hedges_correction(1000) == pytest.approx(1 - 3 / (4 * 999 - 1), abs=1e-6)
    assert cohens_h(0.0, 1.0) == pytest.approx(math.pi)
    assert compare_paired([0, 0, 1], [1, 1, 0]).odds_ratio == 2.0
    assert compare_paired([0, 0], [1, 1]).odds_ratio is None


def test_mean_interval_chooses_by_the_values() -> None:
    assert mean_interval([1] * 7 + [0] * 3) == wilson_interval(7, 10)
    assert mean_interval(X) == paired_t_interval(X)
    assert mean_interval([0.5]) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compare_paired([], []), "no pair"),
        (lambda: compare_paired([1], [1, 2]), "1 baseline scores but 2"),
        (lambda: compare_paired([math.nan], [1]), "finite"),
        (lambda: compare_paired([1], [1], significance=1.5), "significance"),
        (lambda: mcnemar_pvalue(-1, 2), "negative"),
        (lambda: tango_interval(5, 6, 10), "do not fit"),
        (lambda: required_samples(0, 1), "difference of 0"),
        (lambda: required_samples(1, -1), "variance"),
        (lambda: required_samples(1, 1, power=1), "power"),
        (lambda: minimum_detectable_difference(0, 1), "at least 1"),
        (lambda: hedges_correction(1), "at least 2"),
        (lambda: cohens_h(1.2, 0), "proportion"),
    ],
)
def test_bad_parameters_are_value_errors(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match=message):
        call()


def test_unchanged_samples_add_no_degrees_of_freedom_where_they_are_most() -> None:
    differences = [0.2, 0.5, -0.1] + [0.0] * 7
    found = compare_paired([0.5] * 10, [0.5 + difference for difference in differences])
    assert found.interval == pytest.approx(paired_t_interval(differences, 0.05, 2))
    mostly = [0.2, 0.5, -0.1, 0.3] + [0.0] * 3
    found = compare_paired([0.5] * 7, [0.5 + difference for difference in mostly])
    assert found.interval == pytest.approx(paired_t_interval(mostly))
