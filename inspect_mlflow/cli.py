"""The `inspect-mlflow` command."""

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="inspect-mlflow")
def main() -> None:
    """Inspect AI evaluations in MLflow: traces, runs, artifacts and comparisons."""
