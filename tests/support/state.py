"""All that an MLflow experiment holds of evaluations, as plain data that can be compared."""

import json
import sqlite3
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run, Trace

OWN_TAGS = ("mlflow.user", "mlflow.runName", "mlflow.parentRunId", "inspect.retry_of")
"""Run tags that MLflow makes up, or that hold ids of its own making."""


def state_of(uri: str, experiment_name: str) -> dict[str, Any]:
    """Runs by their Inspect ids and traces by theirs; ids of MLflow's own making left out."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(experiment_name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=500)
    names = {run.info.run_id: _key(run) for run in runs}
    traces = client.search_traces(locations=[experiment.experiment_id], max_results=500)
    return {
        "runs": {_key(run): _run(client, run, names) for run in runs},
        "traces": {trace.info.trace_id: _trace(trace, names) for trace in traces},
    }


def differences(one: Any, other: Any, at: str = "") -> list[str]:
    """Where two states differ, as paths with both values."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = []
        for key in sorted({*one, *other}, key=str):
            found += differences(one.get(key, "(none)"), other.get(key, "(none)"), f"{at}/{key}")
        return found
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [text for i, (a, b) in pairs for text in differences(a, b, f"{at}[{i}]")]
    return [] if one == other else [f"{at}: {str(one)[:300]} != {str(other)[:300]}"]


def row_counts(database: Path) -> dict[str, int]:
    """The number of rows of every table of an SQLite database."""
    with sqlite3.connect(database) as connection:
        tables = connection.execute("select name from sqlite_master where type = 'table'")
        return {
            name: connection.execute(f'select count(*) from "{name}"').fetchone()[0]
            for (name,) in tables.fetchall()
        }


def _key(run: Run) -> str:
    tags = run.data.tags
    return f"{tags['inspect.kind']} {tags.get('inspect.eval_id', tags['inspect.run_id'])}"


def _run(client: MlflowClient, run: Run, names: dict[str, str]) -> dict[str, Any]:
    tags = run.data.tags
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "parent": names.get(tags.get("mlflow.parentRunId", "")),
        "tags": {key: value for key, value in tags.items() if key not in OWN_TAGS},
        "params": run.data.params,
        "metrics": {
            key: sorted(
                (metric.step, metric.timestamp, metric.value)
                for metric in client.get_metric_history(run.info.run_id, key)
            )
            for key in run.data.metrics
            if not key.startswith("live/")
        },
        "datasets": [
            (item.dataset.name, item.dataset.digest, item.dataset.profile)
            for item in (run.inputs.dataset_inputs if run.inputs else [])
        ],
        "artifacts": _artifacts(client, run.info.run_id),
    }


def _artifacts(client: MlflowClient, run_id: str, folder: str | None = None) -> dict[str, int]:
    found: dict[str, int] = {}
    for item in client.list_artifacts(run_id, folder):
        if item.is_dir:
            found |= _artifacts(client, run_id, item.path)
        else:
            found[item.path] = int(item.file_size or 0)
    return found


def _trace(trace: Trace, names: dict[str, str]) -> dict[str, Any]:
    info = trace.info
    metadata = {
        key: names.get(value, value)
        for key, value in info.trace_metadata.items()
        if key != "mlflow.traceInputs"
    }
    return {
        "state": info.state.value,
        "request": info.request_preview,
        "response": info.response_preview,
        "time": info.request_time,
        "duration": info.execution_duration,
        "tags": {k: v for k, v in info.tags.items() if k != "mlflow.artifactLocation"},
        "metadata": metadata,
        "assessments": sorted(
            (_assessment(a, names) for a in info.assessments or []),
            key=lambda a: str(a["assessment_id"]),
        ),
        "spans": {
            span.span_id: {
                "name": span.name,
                "type": span.span_type,
                "parent": span.parent_id,
                "times": [span.start_time_ns, span.end_time_ns],
                "status": [span.status.status_code.value, span.status.description],
                "attributes": dict(span.attributes),
                "events": [[e.name, e.timestamp, dict(e.attributes)] for e in span.events],
            }
            for span in trace.data.spans
        },
    }


def _assessment(assessment: Any, names: dict[str, str]) -> dict[str, Any]:
    text = json.dumps(assessment.to_dictionary())
    for run_id, name in names.items():
        text = text.replace(run_id, name)
    kept: dict[str, Any] = json.loads(text)
    for key in ("create_time", "last_update_time"):
        kept.pop(key, None)
    kept.setdefault("valid", True)  # a server leaves it out
    return kept
