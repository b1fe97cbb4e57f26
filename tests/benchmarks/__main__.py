"""The command: measures in one run on one machine, prints tables, and JSON with `--json`."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from rich.console import Console

from tests.benchmarks.measures import MEASURES, Bench
from tests.benchmarks.processes import sink
from tests.support.servers import running_mlflow


@click.command()
@click.option("--section", "sections", multiple=True, type=click.Choice(list(MEASURES)))
@click.option("--samples", multiple=True, type=int, default=(100, 500, 2000), show_default=True)
@click.option("--repeat", default=3, show_default=True, help="Interleaved rounds; medians count.")
@click.option(
    "--beside",
    type=click.Path(exists=True, dir_okay=False),
    help="Python of another environment, with another version of the package, to measure as well.",
)
@click.option("--json", "json_file", type=click.Path(dir_okay=False))
def main(
    sections: Sequence[str],
    samples: Sequence[int],
    repeat: int,
    beside: str | None,
    json_file: str | None,
) -> None:
    """Ratios to an evaluation without hooks, on a mock model that answers at once."""
    console = Console()
    results: dict[str, Any] = {}
    with (
        TemporaryDirectory() as folder,
        running_mlflow(Path(folder)) as server,
        sink() as discarding,
        sink("--hang") as hanging,
    ):
        bench = Bench(server, discarding, hanging, samples, repeat, beside)
        for section in sections or MEASURES:
            console.rule(section)
            table, results[section] = MEASURES[section](bench)
            console.print(table)
            if json_file:
                Path(json_file).write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
