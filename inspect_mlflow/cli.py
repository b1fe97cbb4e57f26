"""The `inspect-mlflow` command."""

import sys
from typing import Any

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="inspect-mlflow")
def main() -> None:
    """Inspect AI evaluations in MLflow: traces, runs, artifacts and comparisons."""


@main.command()
@click.option(
    "--tracking-uri",
    default="sqlite:///mlflow.db",
    show_default=True,
    help="Where to write: an MLflow server, or a database.",
)
@click.option("--experiment-name", default="inspect_ai", show_default=True)
def demo(tracking_uri: str, experiment_name: str) -> None:
    """Evaluate a bundled task on mock models into MLflow, and say where to look.

    Needs no API key and no internet. Exit code 0, 1 if MLflow can't be used or lacks something of
    it, 2 on bad input.
    """
    from rich.console import Console

    from inspect_mlflow.demo.run import run_demo

    sys.exit(run_demo(tracking_uri, experiment_name, Console()))


@main.command("import")
@click.argument("logs", nargs=-1, required=True)
@click.option("--tracking-uri", help="MLflow to write to  [default: MLFLOW_TRACKING_URI]")
@click.option(
    "--experiment-name", help="Experiment  [default: MLFLOW_EXPERIMENT_ID or _NAME, or inspect_ai]"
)
@click.option("--traces/--no-traces", default=True, show_default=True)
@click.option("--runs/--no-runs", default=True, show_default=True)
@click.option(
    "--otlp",
    is_flag=True,
    help="Send the spans to the OTLP endpoint of OTEL_EXPORTER_OTLP_* too, whether or not it has "
    "them already.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be imported.")
@click.option(
    "--check", is_flag=True, help="Write nothing: compare what MLflow has with what the logs hold."
)
def import_logs(logs: tuple[str, ...], **options: Any) -> None:
    """Bring MLflow level with finished LOGS: files, folders, globs or URLs that Inspect reads.

    Makes the runs, metrics, artifacts, traces and scores that the live hooks would have made, and
    adds what is missing where they did; importing again changes nothing. Exit code 0 if all logs
    were imported, 1 if some could not be, 2 if nothing could. With --check: 0 if MLflow is level
    with the logs, 1 if something differs or a log can't be read, 2 if nothing could be compared.
    """
    from rich.console import Console

    from inspect_mlflow.import_command import run_import

    sys.exit(run_import(logs, console=Console(), **options))


@main.command()
@click.argument("baseline")
@click.argument("candidate")
@click.option("--scorer", "scorers", multiple=True, help="Compare only this scorer; repeatable.")
@click.option(
    "--significance", type=float, default=0.05, show_default=True, help="Level of the tests."
)
@click.option(
    "--threshold",
    type=float,
    default=0.0,
    show_default=True,
    help="Change of a sample's score up to which it counts as unchanged.",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json", "markdown", "html", "junit"]),
    help="Format of the report  [default: by the suffix of --output, else text]",
)
@click.option("--output", type=click.Path(dir_okay=False), help="Write the report to this file.")
@click.option(
    "--fail-on",
    type=click.Choice(["never", "regression", "significant"]),
    default="never",
    show_default=True,
    help="Exit with 1 when any sample scored worse by more than --threshold (its epochs averaged), "
    "or any metric is significantly worse (p Holm-adjusted for several scores).",
)
@click.option(
    "--margin",
    type=float,
    help="Exit with 1 unless every score of the baseline could be compared and every metric's "
    "interval lies above -MARGIN (non-inferiority).",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Compare whole inputs and targets, and exit with 2 when any differ.",
)
@click.option("--log-to-mlflow", is_flag=True, help="Log the comparison as an MLflow run.")
@click.option(
    "--tracking-uri", help="MLflow to read from and log to  [default: MLFLOW_TRACKING_URI]"
)
@click.option("--experiment-name", help="MLflow experiment for --log-to-mlflow.")
def compare(**options: Any) -> None:
    """Compare two evaluations, BASELINE and CANDIDATE, of the same samples.

    Each is a path or URL of an Inspect log, or runs:/<run_id> for the log of an MLflow run. Exit
    code 0, 1 when a gate failed, 2 on bad input or when MLflow or a file could not be written.
    """
    from inspect_mlflow.comparison.command import run_compare

    sys.exit(run_compare(**options))


@main.command()
@click.argument("database")
@click.option(
    "--experiment-name", help="The experiment  [default: MLFLOW_EXPERIMENT_NAME, or inspect_ai]"
)
@click.option("--tracking-uri", help="MLflow's server or database  [default: MLFLOW_TRACKING_URI]")
@click.option("--limit", type=click.IntRange(min=1), help="The most transcripts.")
@click.option("--from-time", type=click.DateTime(), help="Traces that began then or later (UTC).")
@click.option("--to-time", type=click.DateTime(), help="Traces that began before then (UTC).")
@click.option("--run-id", help="Traces of this MLflow run.")
@click.option("--trace-id", multiple=True, help="This trace alone; repeatable.")
@click.option("--session-id", help="Traces of this session.")
@click.option("--tag", "tags", multiple=True, help="NAME or NAME=VALUE of a tag; repeatable.")
@click.option("--filter", help="A condition in MLflow's search syntax.")
def scout(**options: Any) -> None:
    """Insert the traces of an MLflow experiment into an Inspect Scout DATABASE.

    DATABASE is the directory or URL of a Scout transcript database; it is made if there is none.
    Transcripts that it has already are left as they are. Exit code 0, or 2 if MLflow can't be read.
    """
    from inspect_mlflow.scout.command import run_scout

    sys.exit(run_scout(**options))
