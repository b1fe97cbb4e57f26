"""The pure half: names, numbers and points."""

import math
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalMetric,
    EvalPlan,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
)
from inspect_ai.model import GenerateConfig, ModelUsage
from inspect_ai.scorer import Score, value_to_float
from mlflow.utils import validation

from inspect_mlflow import runs
from inspect_mlflow.keys import Keys
from inspect_mlflow.metrics import (
    Calls,
    final_metrics,
    score_values,
)
from otel_bridge.spans import score_number
from tests.support.evals import eval_task, read_log
from tests.tracking.conftest import steps_of

validate_metric: Any = validation._validate_metric_name


@given(st.lists(st.text(max_size=300), unique=True, max_size=12))
def test_keys_are_taken_and_never_the_same(names: list[str]) -> None:
    keys = Keys()
    made = [keys.key(name) for name in names]
    for key in made:
        validate_metric(key)
        assert len(key) <= 250
    assert len(set(made)) == len(names)
    assert [keys.key(name) for name in names] == made


def test_keys_stay_recognisable() -> None:
    keys = Keys()
    assert keys.key("f1@k (avg)/mean") == "f1_k _avg_/mean"
    assert keys.key("f1#k (avg)/mean").startswith("f1_k _avg_/mean_")
    assert keys.key("plain/accuracy") == "plain/accuracy"
    assert keys.key("über/größe") == "über/größe"
    assert keys.key("/a//b/../c/") == "a/b/_/c"


@pytest.mark.parametrize(
    "value", ["C", "I", "P", "N", "yes", "No", "TRUE", "false", "0.7", "3", True, False, 2, 0.25]
)
def test_a_scores_number_is_inspects(value: Any) -> None:
    assert score_number(value) == value_to_float()(value)


@pytest.mark.parametrize(
    "value", ["blue", "", None, math.nan, math.inf, "nan", "inf", 10**400, [1], {"a": 1}]
)
def test_what_is_no_number(value: Any) -> None:
    assert score_number(value) is None


def test_each_key_of_a_score_has_a_number() -> None:
    scores = {
        "s": Score(value={"a": "C", "b": 0.5, "c": None, "d": "blue"}),
        "t": Score(value=["C"]),
    }
    assert dict(score_values(scores)) == {"s/a": 1.0, "s/b": 0.5}


def test_each_call_is_counted_once(tmp_path: Path) -> None:
    log = read_log(eval_task("endings@http_retries", log_dir=tmp_path).location)
    assert log.samples is not None
    # Inspect logs the attempt that failed as an event of its own
    assert [event.event for event in log.samples[0].events].count("model") == 2
    assert Calls.of(log.samples[0].events) == Calls(model_calls=1, model_retries=1)


START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def sample(id: int, seconds: float, **fields: Any) -> EvalSample:
    ended = START + timedelta(seconds=seconds)
    values: dict[str, Any] = {
        "id": id,
        "epoch": 1,
        "uuid": f"u{id}",
        "input": "",
        "target": "",
        "started_at": START.isoformat(),
        "completed_at": ended.isoformat(),
        "total_time": seconds,
        "model_usage": {"m": ModelUsage(input_tokens=id, total_tokens=id)},
    }
    return EvalSample(**{**values, **fields})


def test_points_are_in_the_order_of_the_ends() -> None:
    taken_over = sample(9, 1, started_at=(START - timedelta(hours=1)).isoformat())
    samples = [sample(1, 30), sample(2, 10), sample(3, 20), taken_over]
    points = steps_of(START.isoformat(), samples)
    tokens = [point for point in points if point.key == "event/input_tokens"]
    assert [(point.step, point.value) for point in tokens] == [(1, 2), (2, 5), (3, 6)]
    start_ms = int(START.timestamp() * 1000)
    assert [point.timestamp_ms - start_ms for point in tokens] == [10_000, 20_000, 30_000]
    times = [point.value for point in points if point.key == "sample/total_time"]
    assert times == [10, 20, 30]


def spec(**fields: Any) -> EvalSpec:
    values: dict[str, Any] = {
        "created": START.isoformat(),
        "task": "t",
        "dataset": EvalDataset(samples=2),
        "model": "m",
        "config": EvalConfig(),
    }
    return EvalSpec(**{**values, **fields})


def test_scorers_and_reducers_keep_their_own_numbers() -> None:
    def score(name: str, scorer: str, reducer: str | None, value: float) -> EvalScore:
        metrics = {"mean": EvalMetric(name="mean", value=value)}
        return EvalScore(name=name, scorer=scorer, reducer=reducer, metrics=metrics)

    scores = [
        score("q", "a", "mean", 1),
        score("q", "a", "max", 2),
        score("q", "b", "mean", 3),
        score("q", "b", "max", 4),
        score("r", "a", "mean", math.nan),
        score("r", "a", "max", math.inf),
    ]
    log = EvalLog(eval=spec(), results=EvalResults(scores=scores))
    metrics = final_metrics(log, [])
    assert {key: value for key, value in metrics.items() if "mean" in key} == {
        "q/mean": 1,
        "q/max/mean": 2,
        "b/q/mean": 3,
        "b/q/max/mean": 4,
    }


def test_long_params_are_whole_in_a_tag() -> None:
    long = "x" * 7000
    task = spec(task_args_passed={"prompt": long, "n": 1})
    plan = EvalPlan(config=GenerateConfig(temperature=0.5))
    params = runs.task_params(task, plan)
    assert len(params["task_args.prompt"]) == 6000
    assert params["task_args.n"] == "1"
    assert params["config.temperature"] == "0.5"
    assert runs.task_tags(task, plan)["inspect.params.task_args.prompt"] == long
