"""`inspect-mlflow import`: shows the progress of an import, and says what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from inspect_mlflow.config import NO_SPANS, is_databricks, load_settings, redact
from inspect_mlflow.connection import ConnectionFailed

if TYPE_CHECKING:
    from inspect_mlflow.backfill import Imported, Importer, LogGroup, Unreadable
    from inspect_mlflow.config import MLflowSettings
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
    check: bool,
    console: Console,
    **overrides: Any,
) -> int:
    """Import or check logs, and return the exit code. `overrides` are settings by name."""
    from inspect_mlflow.backfill import Importer, find_logs, group_logs
    from otel_bridge.pipeline import tracer_provider

    if check and otlp:
        return _refuse(console, "--check compares with MLflow; it knows no other destination")
    if otlp and not traces:
        return _refuse(console, "--otlp sends traces: it does not go with --no-traces")
    given = {name: value for name, value in overrides.items() if value is not None}
    settings, problems = load_settings(**given)
    for problem in problems:
        return _refuse(console, problem.message)
    if settings.tracking_uri is None and not otlp:
        return _refuse(
            console, "no MLflow to import into: set MLFLOW_TRACKING_URI or --tracking-uri"
        )
    if traces and is_databricks(settings.tracking_uri or ""):
        console.print(NO_SPANS, highlight=False, soft_wrap=True)
    try:
        more_destinations = _otlp(settings.tracking_uri) if otlp else tuple
        tracer_provider(())  # to hear of a setting that it can't read before anything is written
        groups, unreadable = group_logs(find_logs(paths))
        importer = (
            _checker(settings, runs=runs, traces=traces)
            if check
            else Importer(settings, runs=runs, traces=traces, more_destinations=more_destinations)
        )
        if groups and not dry_run and importer.check_connection(restore=not check):
            console.print("The experiment was deleted. It is restored, with the runs in it.")
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
    for note in result.notes:
        console.print(escape(note), highlight=False, soft_wrap=True)
    place = None
    if settings.tracking_uri is not None:
        place = f"{redact(settings.tracking_uri)}, experiment {settings.experiment}"
    if check:
        return _say_checked(console, importer, result, place, bool(unreadable))
    _say(console, result, place)
    if not result.logs:
        return NOTHING
    failed = result.failures or any(delivery.lost for delivery in result.deliveries)
    return SOME if unreadable or failed else ALL


def _otlp(tracking_uri: str | None) -> Callable[[], Sequence[Destination]]:
    """What makes the OTLP destination of the environment. Raises ValueError if there is none."""
    from inspect_mlflow.tracing import same_endpoint
    from otel_bridge.otlp import otlp_target
    from otel_bridge.pipeline import Destination

    target = otlp_target()
    if target is None:
        raise ValueError("--otlp: there is no OTLP endpoint: set OTEL_EXPORTER_OTLP_ENDPOINT")
    if tracking_uri is not None and same_endpoint(target.traces_url, tracking_uri):
        raise ValueError(f"--otlp: {target.traces_url} is this MLflow, which has the spans anyway")
    name = f"OTLP {target.traces_url}"
    return lambda: [Destination(name, target.open, wait_for_room=True)]


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


def _checker(settings: MLflowSettings, *, runs: bool, traces: bool) -> Importer:
    from inspect_mlflow.check import Checker

    return Checker(settings, runs=runs, traces=traces)


def _say_checked(
    console: Console, checker: Importer, result: Imported, place: str | None, unreadable: bool
) -> int:
    from inspect_mlflow.check import Checker

    assert isinstance(checker, Checker)
    findings = checker.findings
    for line in findings.differences:
        console.print(escape(line), highlight=False, soft_wrap=True)
    if more := findings.total - len(findings.differences):
        console.print(f"… and {more} more differences", highlight=False, soft_wrap=True)
    compared = ", ".join(f"{count} {what}" for what, count in findings.compared.items())
    console.print(
        f"{result.logs} logs with {result.samples} samples compared with {place}: "
        f"{findings.total} differences in {compared}.",
        highlight=False,
        soft_wrap=True,
    )
    lost = [delivery for delivery in result.deliveries if delivery.lost]
    for delivery in lost:
        _refuse(console, f"{delivery.lost} spans could not be compared: {delivery.reason}")
    if not findings.compared:
        return NOTHING
    return SOME if findings.total or result.failures or unreadable or lost else ALL


def _say(console: Console, result: Imported, place: str | None) -> None:
    done = "sent" if place is None else f"imported into {place}"
    console.print(
        f"{result.logs} logs with {result.samples} samples {done}.",
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
