"""Logs a comparison to MLflow as a run of its own, through the native client."""

import time
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import TYPE_CHECKING

from inspect_mlflow.comparison.gates import GateResult
from inspect_mlflow.comparison.loading import mlflow_client
from inspect_mlflow.comparison.results import ComparisonResult
from inspect_mlflow.keys import Keys

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["log_comparison"]

_BATCH = 900
_NOTE_LENGTH = 8000


def log_comparison(
    result: ComparisonResult,
    *,
    tracking_uri: str | None = None,
    experiment_name: str | None = None,
    gates: Sequence[GateResult] = (),
) -> str:
    """Log a comparison as an MLflow run, with its metrics and its reports as artifacts.

    Global MLflow state (tracking URI, active run) is left alone.

    Parameters
    ----------
    result
        The comparison.
    tracking_uri
        MLflow tracking URI; that of the environment (``INSPECT_MLFLOW_TRACKING_URI``, else
        ``MLFLOW_TRACKING_URI``) when None.
    experiment_name
        Experiment, made when it isn't there. By default that of the candidate's run, else of the
        baseline's, where they came from MLflow; else the one MLflow's environment names.
    gates
        Outcomes of gates, for the reports and the tag ``inspect.comparison.passed``.

    Returns
    -------
    str
        Id of the new run.

    Raises
    ------
    ValueError
        There is no MLflow to log to.
    mlflow.exceptions.MlflowException
        MLflow refused something; a run already begun is marked as failed.

    Examples
    --------
    >>> log_comparison(result, tracking_uri="sqlite:///mlflow.db")  # doctest: +SKIP
    """
    from mlflow.entities import Metric, Param, RunStatus, RunTag

    from inspect_mlflow.comparison.html import render_html
    from inspect_mlflow.comparison.report import (
        render_json,
        render_junit,
        render_markdown,
        render_text,
    )

    client = mlflow_client(tracking_uri)
    experiment = _experiment(client, result, experiment_name)
    name = f"compare {result.baseline_model} → {result.candidate_model}"
    run = client.create_run(experiment, run_name=name[:250], tags=_tags(result, gates))
    run_id: str = run.info.run_id
    status = RunStatus.FAILED
    try:
        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, 0) for key, value in _metrics(result).items()]
        params = [
            Param("significance", str(result.significance)),
            Param("regression_threshold", str(result.regression_threshold)),
        ]
        client.log_batch(run_id, params=params)
        for start in range(0, len(metrics), _BATCH):
            client.log_batch(run_id, metrics=metrics[start : start + _BATCH])
        client.log_text(run_id, render_text(result, gates), "comparison.txt")
        client.log_text(run_id, render_markdown(result, gates), "comparison.md")
        client.log_text(run_id, render_html(result, gates), "comparison.html")
        client.log_text(run_id, render_json(result, gates), "comparison.json")
        client.log_text(run_id, render_junit(result, gates), "comparison.xml")
        # Whole lines without folds, so that no table and no tag is cut open.
        note = render_markdown(result, gates, folds=False)[: _NOTE_LENGTH + 1].rpartition("\n")[0]
        client.log_batch(run_id, tags=[RunTag("mlflow.note.content", note)])
        status = RunStatus.FINISHED
    finally:
        client.set_terminated(run_id, RunStatus.to_string(status))
    return run_id


def _experiment(client: "MlflowClient", result: ComparisonResult, name: str | None) -> str:
    from inspect_mlflow.config import load_settings

    if name is None:
        for run_id in (result.candidate_run_id, result.baseline_run_id):
            if run_id is not None:
                return str(client.get_run(run_id).info.experiment_id)
        # Problems with other settings are none of this function's business.
        settings, _ = load_settings()
        if settings.experiment_id is not None:
            return str(settings.experiment_id)
        name = settings.experiment_name
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    return str(client.create_experiment(name))


def _tags(result: ComparisonResult, gates: Sequence[GateResult]) -> dict[str, str]:
    tags = {
        "inspect.comparison": "true",
        "inspect.comparison.baseline.log": result.baseline_log,
        "inspect.comparison.candidate.log": result.candidate_log,
        "inspect.comparison.baseline.run_id": result.baseline_run_id,
        "inspect.comparison.candidate.run_id": result.candidate_run_id,
        "inspect.comparison.baseline.eval_id": result.baseline_eval_id,
        "inspect.comparison.candidate.eval_id": result.candidate_eval_id,
        "inspect.comparison.baseline.task": result.baseline_task,
        "inspect.comparison.candidate.task": result.candidate_task,
        "inspect.comparison.baseline.model": result.baseline_model,
        "inspect.comparison.candidate.model": result.candidate_model,
    }
    if gates:
        tags["inspect.comparison.passed"] = str(all(gate.passed for gate in gates)).lower()
    return {key: value[:5000] for key, value in tags.items() if value is not None}


def _metrics(result: ComparisonResult) -> dict[str, float]:
    """All numbers of a comparison, under names that MLflow takes."""
    keys = Keys()
    return {
        keys.key(name): float(value)
        for name, value in _numbers(result)
        if value is not None and isfinite(value)
    }


def _numbers(result: ComparisonResult) -> Iterator[tuple[str, float | None]]:
    yield "samples/aligned", result.aligned_count
    yield "samples/missing", result.missing_count
    yield "samples/new", result.new_count
    yield "samples/improved", len(result.improvements)
    yield "samples/regressed", len(result.regressions)
    yield "samples/unchanged", len(result.unchanged)
    yield "samples/win_rate", result.win_rate
    yield "samples/content_changed", len(result.changed_content)
    for metric in result.metrics:
        reducer = f"/{metric.reducer}" if metric.reducer not in (None, "mean") else ""
        prefix = f"{metric.scorer}/{metric.name}{reducer}"
        yield f"{prefix}/baseline", metric.baseline_value
        yield f"{prefix}/candidate", metric.candidate_value
        yield f"{prefix}/delta", metric.delta
        if metric.p_value is not None:
            yield f"{prefix}/p_value", metric.p_value
            yield f"{prefix}/p_value_holm", metric.p_value_holm
            yield f"{prefix}/ci_lower", metric.ci_lower
            yield f"{prefix}/ci_upper", metric.ci_upper
            yield f"{prefix}/effect_size", metric.effect_size
            yield f"{prefix}/significant", float(metric.significant)
    for usage in result.usage:
        yield f"usage/{usage.name}/baseline", usage.baseline_mean
        yield f"usage/{usage.name}/candidate", usage.candidate_mean
        yield f"usage/{usage.name}/delta", usage.delta
