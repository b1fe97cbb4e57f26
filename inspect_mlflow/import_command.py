"""`inspect-mlflow import`: shows the progress of an import, and says what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from inspect_mlflow.config import load_settings, redact
from inspect_mlflow.connection import ConnectionFailed

if TYPE_CHECKING:
    from inspect_mlflow.backfill import Imported, LogGroup, Unreadable
    from otel_bridge.pipeline import Destination

ALL, SOME, NOTHING = 0, 1, 2
"""Exit codes: all logs were imported, some could not be, nothing could."""


def run_import(
    paths: Sequence[str],
    *,
    runs: bool,
    traces: bool,
    otlp: bool,
    dry_run: bool,
    console: Console,
    **overrides: Any,
) -> int:
    """Import logs and return the exit code. `overrides` are settings by name."""
    from inspect_mlflow.backfill import Importer, find_logs, group_logs

    given = {name: value for name, value in overrides.items() if value is not None}
    settings, problems = load_settings(**given)
    for problem in problems:
        return _refuse(console, problem.message)
    if settings.tracking_uri is None:
        return _refuse(
            console, "no MLflow to import into: set MLFLOW_TRACKING_URI or --tracking-uri"
        )
    try:
        groups, unreadable = group_logs(find_logs(paths))
        importer = Importer(
            settings, runs=runs, traces=traces, more_destinations=_otlp if otlp else tuple
        )
        if groups and not dry_run:
            importer.check_connection()
    except (ValueError, ConnectionFailed) as error:
        return _refuse(console, str(error))
    for log in unreadable:
        _name(console, log)
    if not groups:
        return NOTHING
    if dry_run:
        _preview(console, groups)
        return SOME if unreadable else ALL
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as progress:
        bar = progress.add_task("samples", total=sum(map(_samples, groups)))
        importer.on_sample = lambda: progress.advance(bar)
        result = importer.run(groups)
    for log in result.failures:
        _name(console, log)
    _say(console, result, redact(settings.tracking_uri), settings.experiment_name)
    failed = result.failures or any(delivery.lost for delivery in result.deliveries)
    return SOME if unreadable or failed else ALL


def _otlp() -> list[Destination]:
    from otel_bridge.otlp import otlp_target
    from otel_bridge.pipeline import Destination

    target = otlp_target()
    if target is None:
        return []
    return [Destination(f"OTLP {target.traces_url}", target.open, wait_for_room=True)]


def _samples(group: LogGroup) -> int:
    return sum(
        header.results.total_samples if header.results else header.eval.dataset.samples or 0
        for _, header in group.logs
    )


def _preview(console: Console, groups: Sequence[LogGroup]) -> None:
    for group in groups:
        console.print(f"run {group.run_id}", highlight=False)
        for location, header in group.logs:
            console.print(
                f"  {header.status:9} {header.eval.task} · {header.eval.model}  {escape(location)}",
                highlight=False,
                soft_wrap=True,
            )


def _say(console: Console, result: Imported, uri: str, experiment: str) -> None:
    console.print(
        f"{result.logs} logs with {result.samples} samples imported into {uri}, "
        f"experiment {experiment}.",
        highlight=False,
        soft_wrap=True,
    )
    totals: dict[str, tuple[int, int, str | None]] = {}
    for delivery in result.deliveries:
        delivered, lost, reason = totals.get(delivery.destination, (0, 0, None))
        totals[delivery.destination] = (
            delivered + delivery.delivered,
            lost + delivery.lost,
            reason or delivery.reason,
        )
    for destination, (delivered, lost, reason) in totals.items():
        text = f"  {delivered} spans to {destination}"
        if destination == "MLflow":
            text += f", in {result.traces} traces"
        if lost:
            text += f"; {lost} did not arrive: {reason}"
        console.print(escape(text), highlight=False, soft_wrap=True)


def _name(console: Console, log: Unreadable) -> None:
    text = escape(f"{log.location}: {log.reason}")
    console.print(f"[red]{text}[/red]", highlight=False, soft_wrap=True)


def _refuse(console: Console, message: str) -> int:
    console.print(f"[red]{escape(message)}[/red]", highlight=False, soft_wrap=True)
    return NOTHING
