"""Every number, param, tag and artifact of a run against its `.eval` log, read by Inspect."""

import json
import math
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inspect_ai.log import EvalLog, read_eval_log
from inspect_ai.scorer import Value, value_to_float
from mlflow.entities import Run

from inspect_mlflow.artifacts.tables import COLUMNS
from tests.support.evals import TASKS, eval_task, eval_tasks, read_log
from tests.tracking.conftest import Tracked, steps_of

SEVERAL = [
    "scorers.py@many_scorers",
    "scorers.py@repeated",
    "endings.py@sample_error",
    "endings.py@http_retries",
    "tracked.py@priced",
    "tool_loop.py@tool_loop",
]


def final_values(log: EvalLog) -> dict[str, float]:
    """What a finished log says, computed again: without names that clash or are refused."""
    assert log.results is not None
    assert log.samples is not None
    first = {score.name: score.reducer for score in reversed(log.results.scores)}
    values: dict[str, float] = {
        "total_samples": log.results.total_samples,
        "completed_samples": log.results.completed_samples,
        "errored_samples": sum(sample.error is not None for sample in log.samples),
        "unscored_samples": sum(not sample.scores for sample in log.samples),
    }
    for score in log.results.scores:
        middle = "" if first[score.name] == score.reducer else f"/{score.reducer}"
        if score.unscored_samples:
            values[f"{score.name}{middle}/unscored_samples"] = score.unscored_samples
        for name, metric in score.metrics.items():
            values[f"{score.name}{middle}/{name}"] = metric.value
    for model, usage in log.stats.model_usage.items():
        kinds = {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "total_tokens": usage.total_tokens,
            "cache_read_tokens": usage.input_tokens_cache_read,
            "cache_write_tokens": usage.input_tokens_cache_write,
            "reasoning_tokens": usage.reasoning_tokens,
            "total_cost_usd": usage.total_cost,
        }
        values |= {f"usage/{model}/{k}": v for k, v in kinds.items() if v is not None}
    costs = [u.total_cost for u in log.stats.model_usage.values() if u.total_cost is not None]
    if costs:
        values["cost/total_usd"] = sum(costs)
    times = [s.total_time for s in log.samples if s.total_time is not None]
    values["latency/per_sample_mean_seconds"] = statistics.fmean(times)
    values["latency/per_sample_p50_seconds"] = statistics.median(times)
    values["latency/per_sample_p95_seconds"] = float(np.percentile(times, 95))
    values["total_model_calls"] = sum(
        event.event == "model" and not (event.error and sample.error is None)
        for sample in log.samples
        for event in sample.events
    )
    values["total_tool_calls"] = sum(e.event == "tool" for s in log.samples for e in s.events)
    return values


def test_several_tasks_at_once(tracked: Tracked, tmp_path: Path) -> None:
    logs = eval_tasks(
        [f"{TASKS}/{name}" for name in SEVERAL],
        log_dir=tmp_path,
        max_tasks=len(SEVERAL),
        tags=["together"],
        metadata={"team": "a@b"},
    )
    (parent,) = tracked.runs("run")
    assert parent.info.status == "FINISHED"
    assert len(tracked.runs("task")) == len(SEVERAL)
    tables = load_tables(tracked)
    for written in logs:
        log = read_log(written.location)
        run = tracked.of_eval(log.eval.eval_id)
        check_run(tracked, log, run)
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        check_artifacts(tracked, log, run, tables)


def check_run(tracked: Tracked, log: EvalLog, run: Run) -> None:
    assert run.info.status == "FINISHED"
    assert log.samples is not None
    metrics = run.data.metrics
    for key, value in final_values(log).items():
        if "Odd" not in key:
            assert metrics[key] == pytest.approx(value, abs=1e-12), (log.eval.task, key)

    points = [p for p in tracked.points(run) if p.step]
    assert sorted(points) == sorted(steps_of(log.eval.created, log.samples))
    assert {point.step for point in points} == set(range(1, len(log.samples) + 1))

    ordered = sorted(log.samples, key=lambda sample: str(sample.completed_at))
    calls: Counter[str] = Counter()
    for step, sample in enumerate(ordered, 1):
        here = {point.key: point.value for point in points if point.step == step}
        for usage in sample.model_usage.values():
            calls["event/total_tokens"] += usage.total_tokens
        calls["event/tool_call"] += sum(event.event == "tool" for event in sample.events)
        for key, count in calls.items():
            assert here.get(key, 0) == count
        assert here["sample/total_time"] == sample.total_time
        for name, score in (sample.scores or {}).items():
            if "Odd" not in name and (
                score.value in ("C", "I", "P", "N") or is_number(score.value)
            ):
                assert here[f"sample/{name}"] == value_to_float()(score.value)

    tags = run.data.tags
    assert tags["inspect.task_id"] == log.eval.task_id
    assert tags["inspect.run_id"] == log.eval.run_id
    assert "together" in tags["inspect.tags"].split(", ")
    assert tags["inspect.metadata.team"] == "a@b"
    assert tags["inspect.log"] == log.location
    assert tags["inspect.package.inspect_ai"] == log.eval.packages["inspect_ai"]
    assert tags["inspect.task_file"].endswith(".py")
    assert log.eval.revision is None or tags["mlflow.source.git.commit"]
    params = run.data.params
    assert params["model"] == log.eval.model
    assert params["dataset_samples"] == str(log.eval.dataset.samples)
    assert params["epochs"] == str(log.eval.config.epochs)
    assert run.inputs is not None
    (dataset,) = run.inputs.dataset_inputs
    assert json.loads(str(dataset.dataset.profile)) == {"num_rows": log.eval.dataset.samples}
    assert dataset.tags[0].value == "eval"


def is_number(value: Value) -> bool:
    return isinstance(value, bool | int | float) and math.isfinite(value)


def load_tables(tracked: Tracked) -> dict[str, dict[str, Any]]:
    """Table → run → rows, as MLflow loads them."""
    tables = {}
    for table, columns in COLUMNS.items():
        loaded = tracked.client.load_table(
            tracked.experiment_id, f"inspect/{table}.json", extra_columns=["run_id"]
        )
        tables[table] = dict(list(loaded.groupby("run_id")))
        assert set(loaded.columns) == {*columns, "run_id"}
    return tables


def check_artifacts(
    tracked: Tracked, log: EvalLog, run: Run, tables: dict[str, dict[str, Any]]
) -> None:
    assert log.samples is not None
    run_id = run.info.run_id
    rows = {
        "tasks": 1,
        "samples": len(log.samples),
        "messages": sum(len(sample.messages) for sample in log.samples),
        "events": sum(len(sample.events) for sample in log.samples),
        "model_usage": len(log.stats.model_usage) + len(log.stats.role_usage),
    }
    scored = [s.value for sample in log.samples for s in (sample.scores or {}).values()]
    rows["sample_scores"] = sum(len(v) if isinstance(v, dict) else 1 for v in scored)
    for table, count in rows.items():
        assert len(tables[table].get(run_id, ())) == count, table
    stem = Path(log.location).stem
    results = download(tracked, run_id, f"sample_results/{stem}.json")
    assert [(row["id"], row["epoch"]) for row in results] == [
        (sample.id, sample.epoch) for sample in log.samples
    ]
    header = read_eval_log(fetch(tracked, run_id, f"eval_logs/{stem}.json"))
    assert header.eval == log.eval
    assert header.plan == log.plan
    assert header.stats == log.stats
    assert header.samples is None
    original = fetch(tracked, run_id, f"eval_logs/{stem}.eval")
    assert original.read_bytes() == Path(log.location).read_bytes()


def fetch(tracked: Tracked, run_id: str, path: str) -> Path:
    return Path(tracked.client.download_artifacts(run_id, path))


def download(tracked: Tracked, run_id: str, path: str) -> Any:
    return json.loads(fetch(tracked, run_id, path).read_text())


def test_names_that_clash_and_values_that_are_none(tracked: Tracked, tmp_path: Path) -> None:
    eval_task("tracked@clashing", log_dir=tmp_path)
    run = tracked.task("clashing")
    metrics = run.data.metrics
    assert metrics["f1_k _avg_/mean"] == 0.25
    assert metrics["sample/f1_k _avg_"] == 0.25
    # the second keeps its name recognisable, and its own numbers
    assert by_prefix(metrics, "f1_k _avg_/mean_") == [0.75]
    assert by_prefix(metrics, "sample/f1_k _avg__") == [0.75]
    assert metrics["quality/mean"] == 0.1
    assert metrics["second/quality/mean"] == 0.9
    assert metrics["sample/first/quality"] == 0.1
    assert metrics["sample/second/quality"] == 0.9
    assert by_prefix(metrics, "sample/total_time_") == [0.5]
    assert 0 <= metrics["sample/total_time"] < 60
    assert not [key for key in metrics if "infinite" in key]
    assert "sample/unknown" not in metrics
    assert metrics["unknown/unscored_samples"] == 2
    assert "unknown/mean" not in metrics


def by_prefix(metrics: dict[str, float], prefix: str) -> list[float]:
    return [value for key, value in metrics.items() if key.startswith(prefix)]


def test_params_tags_and_usage(tracked: Tracked, tmp_path: Path) -> None:
    long = "x" * 7000
    eval_task(
        "tracked@priced",
        log_dir=tmp_path,
        task_args={"samples": 3},
        message_limit=9,
        max_tokens=77,
        metadata={"prompt": long, "ab#": 1, "ab@": 2},
        model_roles={"grader": "mockllm/judge"},
    )
    run = tracked.task("priced")
    params, tags, metrics = run.data.params, run.data.tags, run.data.metrics
    assert params["task_args.samples"] == "3"
    assert params["config.temperature"] == "0.25"
    assert params["config.max_tokens"] == "77"
    assert params["config.stop_seqs"] == '["stop"]'
    assert params["message_limit"] == "9"
    assert params["model_roles.grader"] == "mockllm/judge"
    assert params["solver"] == "generate"
    assert params["scorers"] == "includes"
    assert tags["inspect.tags"] == "nightly, v2"
    assert tags["inspect.task_args"] == '{"samples":3}'
    assert tags["inspect.metadata.purpose"] == "prices"
    assert tags["inspect.metadata.nested"] == '{"a":[1,2]}'
    assert tags["inspect.metadata.prompt"] == long
    assert {v for k, v in tags.items() if k.startswith("inspect.metadata.ab_")} == {"1", "2"}
    usage = "usage/mockllm/priced"
    assert metrics[f"{usage}/input_tokens"] == 30
    assert metrics[f"{usage}/cache_read_tokens"] == 3000
    assert metrics[f"{usage}/cache_write_tokens"] == 12
    assert metrics[f"{usage}/reasoning_tokens"] == 21
    assert metrics[f"{usage}/total_cost_usd"] == pytest.approx(0.0375)
    assert metrics["cost/total_usd"] == pytest.approx(0.0375)
    assert metrics["event/total_cost_usd"] == pytest.approx(0.0375)


def test_a_log_in_json(tracked: Tracked, tmp_path: Path) -> None:
    log = eval_task("scorers@repeated", log_dir=tmp_path, log_format="json")
    run = tracked.task("repeated")
    assert len([p for p in tracked.points(run) if p.key == "sample/total_time"]) == 12
    assert run.data.metrics["total_model_calls"] == 12
    names = [item.path for item in tracked.client.list_artifacts(run.info.run_id, "eval_logs")]
    assert names == [f"eval_logs/{Path(log.location).name}"]
    uploaded = fetch(tracked, run.info.run_id, names[0])
    assert uploaded.read_bytes() == Path(log.location).read_bytes()


def test_without_artifacts(
    tracked: Tracked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSPECT_MLFLOW_LOG_ARTIFACTS", "false")
    eval_task("tool_loop", log_dir=tmp_path)
    run = tracked.task("tool_loop")
    assert run.data.metrics["total_model_calls"] == 9
    assert run.data.metrics["total_tool_calls"] == 6
    assert tracked.client.list_artifacts(run.info.run_id) == []
    assert "mlflow.loggedArtifacts" not in run.data.tags
