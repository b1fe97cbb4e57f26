"""compare_evals: alignment, scores, metrics, errors, and what naive comparisons get wrong."""

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspect_ai.log import (
    EvalConfig,
    EvalMetric,
    EvalRevision,
    EvalSample,
    EvalScore,
    ProvenanceData,
)
from inspect_ai.model import (
    ChatMessageUser,
    ContentImage,
    ContentText,
    GenerateConfig,
    ModelConfig,
    ModelUsage,
)
from inspect_ai.scorer import Score

from inspect_mlflow.comparison import (
    ChangedContentError,
    ComparisonResult,
    MetricComparison,
    SampleComparison,
    compare_evals,
)
from tests.comparison.make import ABSENT, ERRORED, Row, epochs, make_log, rows


def compare(first: Any, second: Any, **options: Any) -> ComparisonResult:
    return compare_evals(make_log(first), make_log(second), **options)


def only(result: ComparisonResult) -> MetricComparison:
    (metric,) = result.metrics
    return metric


def directions(result: ComparisonResult) -> dict[tuple[int | str, int], str]:
    return {(sample.id, sample.epoch): sample.direction for sample in result.samples}


# --- what a naive implementation gets wrong ----------------------------------------------------


@pytest.mark.parametrize(("lost", "gained", "p_value"), [(1, 1, 1.0), (2, 0, 0.5)])
def test_few_disagreements_get_the_exact_test(lost: int, gained: int, p_value: float) -> None:
    first = ["C"] * lost + ["I"] * gained + ["C", "I"]
    second = ["I"] * lost + ["C"] * gained + ["C", "I"]
    metric = only(compare(rows(first), rows(second)))
    assert metric.method == "mcnemar-exact"
    assert metric.p_value == p_value


def test_epochs_are_no_independent_samples() -> None:
    first = [[0] * 5] * 20
    second = [[1] * 5] * 3 + [[0] * 5] * 17
    metric = only(compare(epochs(first), epochs(second)))
    assert (metric.n, metric.p_value, metric.significant) == (20, 0.25, False)


def test_a_single_pair_is_never_significant() -> None:
    metric = only(compare(rows([0.3]), rows([0.7])))
    assert metric.delta == pytest.approx(0.4)
    assert (metric.p_value, metric.ci_lower, metric.ci_upper) == (1.0, None, None)
    assert not metric.significant
    assert metric.effect_size is None


def test_five_equal_gains_have_no_effect_size_and_are_not_significant() -> None:
    metric = only(compare(rows([0.25] * 5), rows([0.75] * 5)))
    assert (metric.delta, metric.p_value, metric.effect_size) == (0.5, 0.0625, None)


def test_values_are_those_of_the_samples_in_both_runs() -> None:
    answers = ["C"] * 50 + ["I"] * 50
    baseline = make_log(rows(answers), metrics={"accuracy": 0.5})
    candidate = make_log(rows(answers[:50]), metrics={"accuracy": 1.0})
    result = compare_evals(baseline, candidate)
    metric = only(result)
    assert (metric.delta, metric.p_value, metric.n) == (0.0, 1.0, 50)
    assert (metric.baseline_value, metric.candidate_value) == (1.0, 1.0)
    assert (metric.baseline_logged, metric.candidate_logged) == (0.5, 1.0)
    assert (result.aligned_count, result.missing_count, result.new_count) == (50, 50, 0)


def test_ids_are_kept_apart_as_texts() -> None:
    first: list[Row] = [("1", 1, 1), ("01", 1, 0), ("001", 1, 1), ("²", 1, 0)]
    second: list[Row] = [(1, 1, 1), ("01", 1, 1), ("001", 1, 0), ("²", 1, 0)]
    result = compare(first, second)
    assert result.aligned_count == 4
    assert directions(result) == {
        ("1", 1): "unchanged",
        ("01", 1): "improved",
        ("001", 1): "regressed",
        ("²", 1): "unchanged",
    }


@pytest.mark.parametrize("twin", ["1", 1])
def test_duplicate_ids_are_refused(twin: int | str) -> None:
    with pytest.raises(ValueError, match=r"duplicate sample ids .*'1' \(epoch 1\)"):
        compare([(1, 1, 1), (twin, 1, 0)], rows([1]))


@pytest.mark.parametrize("nothing", [math.nan, ABSENT, ERRORED, "no idea", [1, 0], math.inf])
def test_what_is_no_score_is_counted_and_never_unchanged(nothing: Any) -> None:
    result = compare(rows([1, 0, 1]), rows([1, 1, nothing]))
    assert directions(result) == {(1, 1): "unchanged", (2, 1): "improved", (3, 1): "missing"}
    metric = only(result)
    assert (metric.n, metric.baseline_unscored, metric.candidate_unscored) == (2, 0, 1)
    assert metric.delta == 0.5
    assert (result.aligned_count, result.missing_count) == (3, 0)
    both = compare(rows([1, 0, nothing]), rows([1, 1, nothing]))
    assert (3, 1) not in directions(both)
    assert both.aligned_count == 3


def test_unmapped_texts_are_named() -> None:
    result = compare(rows(["pass", "fail", "C"]), rows(["pass", "pass", "C"]))
    assert only(result).n == 1
    assert any("'pass' (3)" in note for note in result.notes)
    mapped = compare(
        rows(["pass", "fail", "C"]),
        rows(["pass", "pass", "C"]),
        to_float=lambda value: {"pass": 1.0, "fail": 0.0, "C": 1.0}[str(value)],
    )
    assert only(mapped).delta == pytest.approx(1 / 3)
    assert mapped.win_rate == pytest.approx(1 / 3)


def test_dict_scores_are_tested_key_by_key() -> None:
    first = [{"style": 0, "facts": 1.0, "note": None}] * 8
    second = [{"style": 1, "facts": 1.0, "note": None}] * 8
    result = compare(rows(first), rows(second))
    by_name = {metric.scorer: metric for metric in result.metrics}
    assert set(by_name) == {"match/style", "match/facts"}
    assert by_name["match/style"].p_value == pytest.approx(2 / 2**8)
    assert by_name["match/style"].key == "style"
    assert by_name["match/style"].p_value_holm == pytest.approx(4 / 2**8)
    assert by_name["match/facts"].p_value == 1.0
    assert any("match/note: no sample is scored in both" in note for note in result.notes)


def test_an_unknown_scorer_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"scorer 'exact' is not in either log.*has match"):
        compare(rows([1]), rows([1]), scorers=["exact"])


def test_floating_point_noise_is_no_improvement() -> None:
    result = compare(rows([0.3, 1.0]), rows([0.1 + 0.2, 1.0]))
    assert len(result.unchanged) == 2
    assert only(result).delta == 0.0
    # And a change of exactly the threshold is none beyond it.
    edge = compare(rows([0.1, 0.0]), rows([0.3, 0.21]), regression_threshold=0.2)
    assert [sample.direction for sample in edge.samples] == ["unchanged", "improved"]


def test_a_significant_p_value_never_meets_an_interval_around_zero() -> None:
    gains = [0.001, 0.001, 0.002, 0.003, 0.05, 1.0]
    metric = only(compare(rows([0.0] * 6), rows(gains)))
    assert metric.significant
    assert metric.ci_lower is not None
    assert metric.ci_lower > 0


# --- values, metrics and reducers --------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "number"),
    [("C", 1), ("P", 0.5), ("I", 0), ("N", 0), (True, 1), ("Yes", 1), ("false", 0), ("0.7", 0.7)],
)
def test_values_inspect_knows(value: Any, number: float) -> None:
    result = compare(rows([value, 0]), rows([0, 0]))
    assert result.samples[0].baseline_score == number


def test_epochs_need_not_match() -> None:
    first: list[Row] = [(1, 1, 0), (1, 2, 1), (2, 1, 1)]
    second: list[Row] = [(1, 3, 1), (1, 2, 1), (2, 1, 0), (3, 1, 1)]
    result = compare(first, second)
    metric = only(result)
    assert (metric.n, metric.baseline_value, metric.candidate_value) == (2, 0.75, 0.5)
    assert directions(result) == {
        (1, 1): "missing",
        (1, 2): "unchanged",
        (1, 3): "new",
        (2, 1): "regressed",
        (3, 1): "new",
    }
    assert (result.aligned_count, result.missing_count, result.new_count) == (2, 1, 2)
    assert result.win_rate == 0.0


def test_metrics_that_are_no_mean_have_values_and_no_test() -> None:
    def scores(*values: float) -> list[EvalScore]:
        names = [("accuracy", "mean"), ("stderr", "mean"), ("accuracy", "pass_at_2")]
        return [
            EvalScore(
                name="match",
                scorer="match",
                reducer=reducer,
                metrics={name: EvalMetric(name=name, value=value)},
            )
            for (name, reducer), value in zip(names, values, strict=True)
        ]

    baseline = make_log(epochs([[0, 1], [1, 1], [0, 0]]), scores=scores(0.5, 0.2, 2 / 3))
    candidate = make_log(epochs([[1, 1], [1, 1], [1, 0]]), scores=scores(5 / 6, 0.1, 1.0))
    result = compare_evals(baseline, candidate)
    found = {(metric.name, metric.reducer): metric for metric in result.metrics}
    assert found["accuracy", "mean"].p_value == 0.5
    assert found["accuracy", "mean"].delta == pytest.approx(1 / 3)
    for key, delta in ((("stderr", "mean"), -0.1), (("accuracy", "pass_at_2"), 1 / 3)):
        metric = found[key]
        assert metric.delta == pytest.approx(delta)
        assert (metric.p_value, metric.ci_lower, metric.method) == (None, None, None)
        assert not metric.significant


def test_spread_is_computed_for_the_samples_compared() -> None:
    logged = {"accuracy": 0.5, "std": 0.577, "stderr": 0.289, "custom": 3.0}
    first = make_log(rows([1, 0, 1, 0]), metrics=logged)
    second = make_log(rows([1, 0, 1]), metrics={**logged, "accuracy": 2 / 3, "custom": 4.0})
    found = {metric.name: metric for metric in compare_evals(first, second).metrics}
    assert found["std"].baseline_value == pytest.approx(math.sqrt(1 / 3))
    assert found["stderr"].candidate_value == pytest.approx(1 / 3)
    assert found["std"].delta == 0.0
    assert "not the same" in str(found["custom"].note)


def test_a_logged_mean_that_its_scores_do_not_give_is_pointed_out() -> None:
    odd = make_log(rows(["C", "I"]), metrics={"accuracy": 0.9})
    plain = make_log(rows(["C", "I"]), metrics={"accuracy": 0.5})
    result = compare_evals(odd, plain)
    assert only(result).delta == 0.0
    assert any("the baseline reports 0.9 where its scores give 0.5" in n for n in result.notes)
    assert not compare_evals(plain, plain).notes


def test_the_default_reducer_matches_its_name() -> None:
    def log(reducer: str | None) -> Any:
        score = EvalScore(
            name="match",
            scorer="match",
            reducer=reducer,
            metrics={"accuracy": EvalMetric(name="accuracy", value=0.5)},
        )
        return make_log(rows([1, 0]), scores=[score])

    assert only(compare_evals(log(None), log("mean"))).reducer == "mean"


def test_effect_sizes_power_and_relative_delta() -> None:
    metric = only(compare(rows([1] * 5 + [0] * 15), rows([0] + [1] * 12 + [0] * 7)))
    assert (metric.gained, metric.lost, metric.odds_ratio) == (8, 1, 8.0)
    assert metric.relative_delta == pytest.approx(0.35 / 0.25)
    assert metric.cohens_h == pytest.approx(2 * math.asin(0.6**0.5) - 2 * math.asin(0.5))
    assert metric.standard_error is not None
    assert metric.detectable_delta == pytest.approx((1.959964 + 0.841621) * metric.standard_error)
    assert metric.required_samples(metric.detectable_delta or 0.0) in (20, 21)
    assert only(compare(rows([0, 0]), rows([0, 1]))).relative_delta is None


def test_usage_is_paired_and_counts_cache_tokens() -> None:
    first, second = make_log(rows([1, 0, 1, 1])), make_log(rows([1, 0, 1, 1]))
    for log, factor in ((first, 1), (second, 2)):
        for number, sample in enumerate(log.samples or []):
            sample.total_time = factor * (1.0 + number)
            sample.model_usage = {
                "a": ModelUsage(input_tokens=10 * factor, input_tokens_cache_read=5),
                "b": ModelUsage(output_tokens=3, total_tokens=3, total_cost=0.01 * factor),
            }
    found = {usage.name: usage for usage in compare_evals(first, second).usage}
    assert found["input_tokens"].baseline_mean == 15
    assert found["input_tokens"].delta == 10
    assert found["cost"].candidate_total == pytest.approx(0.08)
    assert found["total_time"].delta == 2.5
    assert found["total_time"].ci_lower is not None
    assert found["total_time"].relative_delta == 1.0
    assert "working_time" not in found


# --- sources, differences and errors -----------------------------------------------------------


def test_scorers_in_one_log_only_are_reported() -> None:
    first, second = make_log(rows([1, 0])), make_log(rows([1, 1]))
    for sample in second.samples or []:
        assert sample.scores is not None
        sample.scores["judge"] = Score(value=1)
    result = compare_evals(first, second)
    assert {metric.scorer for metric in result.metrics} == {"match"}
    assert "scored in the candidate only, so not compared: judge" in result.notes
    with pytest.raises(ValueError, match="'judge' is not in"):
        compare_evals(first, second, scorers=["judge"])


def test_differences_between_the_runs_are_said() -> None:
    first = make_log(rows([1, 0]), task="a", task_version=1)
    second = make_log(rows([1, 0]), task="b", task_version="2-A", model="mockllm/other")
    second.status = "cancelled"
    result = compare_evals(first, second)
    assert (result.candidate_task, result.candidate_model) == ("b", "mockllm/other")
    text = result.summary()
    assert "different task: a → b" in text
    assert "different task version: 1 → 2-A" in text
    assert "status 'cancelled'" in text
    assert "mockllm/model → mockllm/other" in text


def test_a_changed_setup_is_said_without_secrets() -> None:
    def log(number: int, word: str, **config: Any) -> Any:
        return make_log(
            rows([1, 0]),
            solver="react",
            solver_args={"attempts": number, "prompt": f"{'x' * 60} {word}"},
            model_roles={"grader": ModelConfig(model=f"openai/{word}")},
            model_generate_config=GenerateConfig(
                max_tokens=100 * number, extra_headers={"Authorization": word}
            ),
            model_args={"api_key": word},
            config=EvalConfig(message_limit=number, max_samples=number, **config),
            packages={"inspect_ai": f"0.3.{number}"},
            task_args={f"a{i}": number for i in range(8)},
            revision=EvalRevision(type="git", origin=word, commit=word),
        )

    first, second = log(1, "secret-a"), log(2, "secret-b", epochs=1)
    assert compare_evals(first, first).notes == []
    assert compare_evals(first, second).notes == [
        "different model roles: grader.model openai/secret-a → openai/secret-b",
        f"different task arguments: {', '.join(f'a{i} 1 → 2' for i in range(5))}, 3 more",
        "different solver arguments: attempts 1 → 2, prompt",
        "different generate config: extra_headers.Authorization, max_tokens 100 → 200",
        "different limits and configuration: message_limit 1 → 2",
        "different model: args.api_key",
        "different revision: commit secret-a → secret-b",
        "different packages: inspect_ai 0.3.1 → 0.3.2",
    ]


@pytest.mark.parametrize(
    ("first", "second", "options", "message"),
    [
        ([("a", 1, 1)], [("b", 1, 1)], {}, "no sample in common"),
        ([], rows([1]), {}, "has no samples"),
        (rows([ABSENT]), rows([1]), {}, "has no scores"),
        (rows([1]), rows([ERRORED]), {}, "1 of its 1 samples errored"),
        (rows([1, math.nan]), rows([math.nan, 1]), {}, "no sample is scored in both"),
        (rows(["pass"]), rows(["fail"]), {}, "for match; .*such as 'pass' .*to_float can say"),
        (rows([1]), rows([1]), {"significance": 0}, "significance"),
        (rows([1]), rows([1]), {"regression_threshold": -1}, "regression_threshold"),
        (rows([1]), rows([1]), {"power": 1}, "power"),
        (rows([1]), rows([1]), {"sample_filter": lambda _: False}, "filter left none"),
    ],
)
def test_errors_are_value_errors(
    first: Any, second: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        compare(first, second, **options)


def test_no_scorer_in_common() -> None:
    with pytest.raises(ValueError, match="the baseline has match, the candidate has judge"):
        compare_evals(make_log(rows([1])), make_log(rows([1]), scorer="judge"))


def test_a_sample_filter_sees_full_samples_and_drops_logged_aggregates() -> None:
    logged = {"accuracy": 0.5, "custom": 1.0}
    first = make_log(rows([1, 0, 1, 0]), metrics=logged)
    second = make_log(rows([1, 1, 1, 0]), metrics=logged)
    seen = []

    def even(sample: EvalSample) -> bool:
        seen.append(sample)
        return int(sample.id) % 2 == 0

    result = compare_evals(first, second, sample_filter=even)
    assert len(seen) == 8
    assert result.aligned_count == 2
    assert [metric.name for metric in result.metrics] == ["accuracy"]
    assert only(result).delta == 0.5
    assert any("custom: cannot be computed" in note for note in result.notes)


def test_invalidated_samples_are_left_out() -> None:
    first, second = make_log(rows([1, 0, 1])), make_log(rows([1, 1, 0]))
    second.invalidated = True
    assert second.samples is not None
    second.samples[2].invalidation = ProvenanceData(author="reviewer", reason="leaked answer")
    result = compare_evals(first, second)
    assert (result.aligned_count, result.missing_count) == (2, 1)
    assert only(result).delta == 0.5
    assert "1 invalidated samples of the candidate are left out" in result.notes


# --- a changed dataset -------------------------------------------------------------------------


def test_changed_inputs_and_targets_are_found_and_said() -> None:
    first = make_log(rows([1, 0, 1]))
    second = make_log(rows([1, 1, 1]))
    assert second.samples is not None
    second.samples[0].input = "another question"
    second.samples[1].target = "another answer"
    result = compare_evals(first, second)
    assert result.changed_content == [(1, 1), (2, 1)]
    assert [sample.content_changed for sample in result.samples] == [True, True, False]
    assert "CHANGED DATASET: 2 samples" in result.summary()
    with pytest.raises(ChangedContentError, match="2 samples have the same id") as caught:
        compare_evals(first, second, strict=True)
    assert caught.value.result.changed_content == [(1, 1), (2, 1)]


def test_only_strict_sees_what_a_summary_cuts_off() -> None:
    first, second = make_log(rows([1, 0])), make_log(rows([1, 0]))
    assert first.samples is not None
    assert second.samples is not None
    first.samples[0].input = "x" * 6000 + "a"
    second.samples[0].input = "x" * 6000 + "b"
    result = compare_evals(first, second)
    assert (result.changed_content, result.unverified_content) == ([], 1)
    with pytest.raises(ChangedContentError):
        compare_evals(first, second, strict=True)


def test_message_ids_are_no_content_but_images_are() -> None:
    def message(image: str) -> ChatMessageUser:
        return ChatMessageUser(content=[ContentText(text="what?"), ContentImage(image=image)])

    first, second = make_log(rows([1])), make_log(rows([1]))
    assert first.samples is not None
    assert second.samples is not None
    first.samples[0].input = [message("data:image/png;base64,AAAA")]
    second.samples[0].input = [message("data:image/png;base64,AAAA")]
    assert compare_evals(first, second, strict=True).changed_content == []
    second.samples[0].input = [message("data:image/png;base64,BBBB")]
    assert compare_evals(first, second).unverified_content == 1
    with pytest.raises(ChangedContentError):
        compare_evals(first, second, strict=True)


# --- the result by itself ----------------------------------------------------------------------


def test_a_result_needs_only_its_first_fields() -> None:
    def sample(number: int, delta: float | None, direction: Any) -> SampleComparison:
        return SampleComparison(number, 1, "match", 0.0, delta, delta, direction)

    result = ComparisonResult(
        baseline_log="a.eval",
        candidate_log="b.eval",
        baseline_task="t",
        candidate_task="t",
        baseline_model="m1",
        candidate_model="m2",
        metrics=[
            MetricComparison(
                name="accuracy",
                scorer="match",
                baseline_value=0.5,
                candidate_value=0.7,
                delta=0.2,
                relative_delta=0.4,
                significant=True,
                p_value=0.01,
                ci_lower=0.1,
                ci_upper=0.3,
            )
        ],
        samples=[
            sample(1, 0.5, "improved"),
            sample(2, 1.0, "improved"),
            sample(3, -0.2, "regressed"),
            sample(4, -0.9, "regressed"),
            sample(5, 0.0, "unchanged"),
            sample(6, None, "new"),
            sample(7, None, "missing"),
        ],
    )
    assert (result.aligned_count, result.missing_count, result.new_count) == (5, 1, 1)
    assert [entry.id for entry in result.improvements] == [2, 1]
    assert [entry.id for entry in result.regressions] == [4, 3]
    assert result.win_rate == 0.4
    for text in (result.summary(), result.to_markdown(), result.to_html(), result.to_junit()):
        assert "accuracy" in text
    assert result.to_dict()["counts"]["aligned"] == 5


# --- properties --------------------------------------------------------------------------------

SCORES = st.one_of(
    st.sampled_from(["C", "I", "P", True, False, math.nan]),
    st.integers(-8, 8).map(lambda i: i / 4),
)
SAMPLES = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 3), SCORES), max_size=24).map(
    lambda drawn: [*{(i, e): (i, e, v) for i, e, v in drawn}.values(), (99, 1, 1), (98, 1, 0)]
)
MIRROR = {"improved": "regressed", "regressed": "improved", "new": "missing", "missing": "new"}


def mirrored(sample: SampleComparison) -> SampleComparison:
    return replace(
        sample,
        baseline_score=sample.candidate_score,
        candidate_score=sample.baseline_score,
        delta=None if sample.delta is None else -sample.delta,
        direction=MIRROR.get(sample.direction, sample.direction),  # type: ignore[arg-type]
    )


@settings(max_examples=100, deadline=None)
@given(SAMPLES, SAMPLES)
def test_swapping_the_runs_mirrors_everything(first: list[Row], second: list[Row]) -> None:
    there, back = compare(first, second), compare(second, first)
    assert [mirrored(sample) for sample in there.samples] == back.samples
    one, other = only(there), only(back)
    assert other.delta == -one.delta
    assert other.p_value == one.p_value
    assert (other.ci_lower is None) == (one.ci_lower is None)
    if one.ci_lower is not None and one.ci_upper is not None:
        assert (other.ci_lower, other.ci_upper) == pytest.approx((-one.ci_upper, -one.ci_lower))
    if one.effect_size is not None:
        assert other.effect_size == pytest.approx(-one.effect_size)
    assert (there.missing_count, there.new_count) == (back.new_count, back.missing_count)


@settings(max_examples=60, deadline=None)
@given(SAMPLES, SAMPLES, st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(
    first: list[Row], second: list[Row], shuffler: random.Random
) -> None:
    expected = compare(first, second)
    shuffler.shuffle(first)
    shuffler.shuffle(second)
    found = compare(first, second)
    assert found.metrics == expected.metrics
    assert found.samples == expected.samples


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(-8, 8).map(lambda i: i / 4)] * 2), min_size=1, max_size=20),
    st.integers(-400, 400).map(lambda i: i / 4),
)
def test_a_constant_on_both_sides_changes_no_delta(
    pairs: list[tuple[float, float]], constant: float
) -> None:
    first, second = zip(*pairs, strict=True)
    plain = compare(rows(first), rows(second))
    moved = compare(rows([a + constant for a in first]), rows([b + constant for b in second]))
    assert [sample.delta for sample in moved.samples] == [sample.delta for sample in plain.samples]
    assert only(moved).delta == pytest.approx(only(plain).delta, abs=1e-12)
    assert directions(moved) == directions(plain)


@settings(max_examples=60, deadline=None)
@given(SAMPLES, SAMPLES, st.sampled_from([0.01, 0.05, 0.2]))
def test_significance_and_interval_agree(
    first: list[Row], second: list[Row], significance: float
) -> None:
    metric = only(compare(first, second, significance=significance))
    assert metric.p_value is not None
    assert metric.significant == (metric.p_value < significance)
    if metric.ci_lower is not None and metric.ci_upper is not None:
        assert metric.significant == (metric.ci_lower > 0 or metric.ci_upper < 0)
