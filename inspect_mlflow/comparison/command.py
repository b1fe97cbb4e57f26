"""The body of `inspect-mlflow compare`: compare, render, log, and decide the exit code."""

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from inspect_mlflow.comparison.compare import ChangedContentError, compare_evals
from inspect_mlflow.comparison.gates import FailOn, GateResult, evaluate_gates
from inspect_mlflow.comparison.html import render_html
from inspect_mlflow.comparison.report import (
    has_epochs,
    render_json,
    render_junit,
    render_markdown,
    render_text,
    sample_text,
)
from inspect_mlflow.comparison.results import ComparisonResult

__all__ = ["run_compare"]

_RENDERERS: dict[str, Callable[[ComparisonResult, Sequence[GateResult]], str]] = {
    "text": render_text,
    "json": render_json,
    "markdown": render_markdown,
    "html": render_html,
    "junit": render_junit,
}
_SUFFIXES = {".json": "json", ".md": "markdown", ".html": "html", ".htm": "html", ".xml": "junit"}
_LISTED = 50


def run_compare(
    baseline: str,
    candidate: str,
    *,
    scorers: Sequence[str],
    significance: float,
    threshold: float,
    output_format: str | None,
    output: str | None,
    fail_on: FailOn,
    margin: float | None,
    strict: bool,
    log_to_mlflow: bool,
    tracking_uri: str | None,
    experiment_name: str | None,
) -> int:
    """Compare two logs as the command line asks.

    Parameters
    ----------
    baseline, candidate
        Sources of the two logs.
    scorers, significance, threshold, margin, strict
        As for `compare_evals` and `evaluate_gates`.
    output_format, output
        Format of the report, and the file it goes to; standard output when None. Without a format
        the file's suffix decides.
    fail_on
        Gate for the exit code.
    log_to_mlflow, tracking_uri, experiment_name
        As for `compare_evals`.

    Returns
    -------
    int
        0, 1 when a gate failed, 2 on bad input or when MLflow or a file could not be written.
    """
    changed = None
    try:
        if margin is not None and not margin >= 0:
            raise ValueError(f"the margin is not negative: {margin}")
        try:
            result = compare_evals(
                baseline,
                candidate,
                scorers=list(scorers) or None,
                significance=significance,
                regression_threshold=threshold,
                strict=strict,
                tracking_uri=tracking_uri,
            )
        except ChangedContentError as error:
            # The report is worth reading all the same.
            changed, result = error, error.result
    except ValueError as error:
        click.echo(f"Error: {error}", err=True)
        return 2
    gates = evaluate_gates(result, fail_on, margin)
    chosen = output_format or _SUFFIXES.get(Path(output or "").suffix.lower(), "text")
    # As bytes: the report is UTF-8 wherever it goes, whatever the locale of standard output is.
    report = _RENDERERS[chosen](result, gates).encode(errors="backslashreplace")
    if output is None:
        click.echo(report, nl=False)
    else:
        try:
            Path(output).write_bytes(report)
        except OSError as error:
            click.echo(f"Error: cannot write {output!r}: {error.strerror}", err=True)
            return 2
    logged = not log_to_mlflow or _log(result, tracking_uri, experiment_name, gates)
    failed = [gate for gate in gates if not gate.passed]
    # The text report on standard output has said it already.
    if chosen != "text" or output is not None:
        for gate in failed:
            _tell(gate, result)
    if changed is not None:
        click.echo(f"Error: {changed}", err=True)
    if changed is not None or not logged:
        return 2
    return 1 if failed else 0


def _tell(gate: GateResult, result: ComparisonResult) -> None:
    click.echo(f"Gate {gate.name} failed: {gate.message}", err=True)
    epochs = has_epochs(result)
    for sample in gate.samples[:_LISTED]:
        click.echo(f"  {sample_text(sample, epochs)}", err=True)
    if len(gate.samples) > _LISTED:
        click.echo(f"  and {len(gate.samples) - _LISTED} more", err=True)


def _log(
    result: ComparisonResult,
    tracking_uri: str | None,
    experiment_name: str | None,
    gates: Sequence[GateResult],
) -> bool:
    from mlflow.exceptions import MlflowException

    from inspect_mlflow.comparison.mlflow_run import log_comparison

    try:
        run_id = log_comparison(
            result, tracking_uri=tracking_uri, experiment_name=experiment_name, gates=gates
        )
    except (MlflowException, OSError, ValueError) as error:
        click.echo(f"Error: the comparison was not logged to MLflow: {error}", err=True)
        return False
    click.echo(f"Logged to MLflow as run {run_id}", err=True)
    return True
