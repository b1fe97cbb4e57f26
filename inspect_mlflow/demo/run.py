"""`inspect-mlflow demo`: evaluates the bundled tasks through the hooks, and says where to look."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from inspect_mlflow.config import load_settings, redact
from inspect_mlflow.connection import Connection, ConnectionFailed

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DEFAULT_PORT = 5000


@dataclass(frozen=True, slots=True)
class Written:
    """A run that the demonstration left in MLflow."""

    name: str
    status: str
    metrics: dict[str, float]
    traces: int


def run_demo(tracking_uri: str, experiment_name: str, console: Console) -> int:
    """Evaluate, then show what MLflow holds.

    Returns the exit code: 0, 1 if MLflow can't be used or lacks a run, 2 for a setting that is not
    accepted; then nothing was evaluated.
    """
    # the prefixed variables win over whatever else is set
    os.environ["INSPECT_MLFLOW_TRACKING_URI"] = tracking_uri
    os.environ["INSPECT_MLFLOW_EXPERIMENT_NAME"] = experiment_name
    os.environ["INSPECT_MLFLOW_TRACING_ENABLED"] = "true"
    settings, problems = load_settings()
    if problems:
        return _refuse(console, problems[0].message, 2)
    try:
        Connection.of(settings).open()

        from inspect_ai import eval

        from inspect_mlflow.demo.tasks import capitals, warehouse

        logs = [*eval(warehouse()), *eval([capitals(candidate=False), capitals(candidate=True)])]
        connection = Connection.of(settings)
        client, experiment_id = connection.open()
    except ConnectionFailed as error:
        return _refuse(console, str(error), 1)
    run_ids = {log.eval.run_id for log in logs}
    written = read_back(client, experiment_id, run_ids)
    expected = len(logs) + len(run_ids)
    if len(written) < expected:
        return _refuse(console, f"{connection.name} holds {len(written)} of {expected} runs.", 1)
    table = Table(title=f"Written to {redact(tracking_uri)}, experiment {experiment_name}")
    for column in ("run", "status", "metrics", "traces"):
        table.add_column(column)
    for run in written:
        metrics = ", ".join(
            f"{name} {value:.2f}" for name, value in run.metrics.items() if "/" in name
        )
        table.add_row(run.name, run.status, metrics, str(run.traces))
    console.print(table)
    _say_where(console, tracking_uri, experiment_id, len(logs))
    return 0


def read_back(client: MlflowClient, experiment_id: str, run_ids: set[str]) -> list[Written]:
    """The MLflow runs of some Inspect runs, parents first, with the number of their traces."""
    groups: list[list[Run]] = []
    for run_id in run_ids:
        runs = client.search_runs(
            [experiment_id], filter_string=f"tags.`inspect.run_id` = '{run_id}'"
        )
        groups.append(sorted(runs, key=lambda run: (_is_child(run), run.info.run_name)))
    groups.sort(key=lambda group: min((run.info.start_time for run in group), default=0))
    return [
        Written(
            name=("  " if _is_child(run) else "") + run.info.run_name,
            status=run.info.status,
            metrics={
                name: value
                for name, value in run.data.metrics.items()
                if _is_child(run) and name.endswith(("/accuracy", "/mean"))
            },
            traces=len(
                client.search_traces(
                    locations=[experiment_id],
                    run_id=run.info.run_id,
                    max_results=500,
                    include_spans=False,
                )
            ),
        )
        for group in groups
        for run in group
    ]


def _refuse(console: Console, message: str, code: int) -> int:
    console.print(f"[red]{escape(message)}[/red]", highlight=False, soft_wrap=True)
    return code


def _is_child(run: Run) -> bool:
    return "mlflow.parentRunId" in run.data.tags


def _say_where(console: Console, tracking_uri: str, experiment_id: str, tasks: int) -> None:
    address = tracking_uri.rstrip("/")
    if not tracking_uri.startswith(("http://", "https://")):
        address = f"http://127.0.0.1:{DEFAULT_PORT}"
        console.print("\nLook at it with")
        console.print(
            f"  mlflow ui --backend-store-uri {tracking_uri} --port {DEFAULT_PORT}",
            style="bold",
            soft_wrap=True,
        )
    base = f"{redact(address)}/#/experiments/{experiment_id}"
    console.print("\nThen open")
    for what, path in (
        ("traces", "traces?startTimeLabel=ALL"),
        ("evaluations, to compare: tick the two capitals runs", "evaluation-runs"),
        ("runs", "runs"),
    ):
        console.print(f"  {base}/{path}   {what}", soft_wrap=True, highlight=False)
