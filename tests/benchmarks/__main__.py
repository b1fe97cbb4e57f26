"""The command: measures in one run on one machine, prints a table, and JSON with `--json`."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import httpx
from rich.console import Console
from rich.table import Table

from tests.support.environment import clean_environ
from tests.support.process import free_port, loopback_client, wait_until
from tests.support.servers import MlflowServer, running_mlflow

SECTIONS = ("wall", "hooks", "memory", "start")


@click.command()
@click.option("--section", "sections", multiple=True, type=click.Choice(SECTIONS))
@click.option("--samples", multiple=True, type=int, default=(100, 500, 2000), show_default=True)
@click.option("--repeat", default=3, show_default=True, help="Interleaved rounds; medians count.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False))
def main(
    sections: Sequence[str], samples: Sequence[int], repeat: int, json_file: str | None
) -> None:
    """Ratios to an evaluation without hooks, on a mock model that answers at once."""
    console = Console()
    results: dict[str, Any] = {}
    with TemporaryDirectory() as folder, running_mlflow(Path(folder)) as server, sink() as otlp:
        configs = configurations(server, otlp)
        for section in sections or SECTIONS:
            results[section] = MEASURES[section](console, configs, server, samples, repeat)
    if json_file:
        Path(json_file).write_text(json.dumps(results, indent=2))


def configurations(server: MlflowServer, otlp: str) -> dict[str, dict[str, str]]:
    """The environment of each configuration."""
    tracking = {"MLFLOW_TRACKING_URI": server.uri}
    tracing = {"MLFLOW_INSPECT_TRACING": "true"}
    second = {"OTEL_EXPORTER_OTLP_ENDPOINT": otlp}
    return {
        "no hooks": {},
        "tracking": tracking,
        "tracing to an OTLP sink": {**tracing, **second},
        "both into MLflow": {**tracking, **tracing},
        "both, and the OTLP sink": {**tracking, **tracing, **second},
    }


def wall(
    console: Console,
    configs: dict[str, dict[str, str]],
    server: MlflowServer,
    samples: Sequence[int],
    repeat: int,
) -> dict[str, Any]:
    """Wall and CPU time against no hooks."""
    table = Table("evaluation", "hooks", "wall", "CPU", "until the last sample ends")
    found: dict[str, Any] = {}
    cases: list[tuple[str, dict[str, Any]]] = [
        (f"{count} samples", {"samples": count}) for count in samples
    ]
    cases.append(("100 samples, 0.5 s a model call", {"samples": 100, "sleep": 0.5}))
    for label, options in cases:
        result = work("walls", configs=configs, repeat=repeat, **options)
        base = result["no hooks"]
        found[label] = {
            name: {key: values[key] / base[key] for key in values}
            for name, values in result.items()
        }
        for name, ratios in found[label].items():
            table.add_row(label, name, *(f"{ratio:.2f}" for ratio in ratios.values()))
    console.print(table)
    return found


def hooks(
    console: Console,
    configs: dict[str, dict[str, str]],
    server: MlflowServer,
    samples: Sequence[int],
    repeat: int,
) -> dict[str, Any]:
    """Time in hooks on the event loop."""
    result: dict[str, Any] = work(
        "hooks", variables=configs["both into MLflow"], samples=min(samples)
    )
    table = Table("calls", "mean ms", "p99 ms", "max ms", "largest stall ms", "without hooks")
    stall = result["stall_ms"]
    table.add_row(
        str(result["calls"]),
        *(f"{result[key]:.3f}" for key in ("mean_ms", "p99_ms", "max_ms")),
        f"{stall['with hooks']:.1f}",
        f"{stall['no hooks']:.1f}",
    )
    console.print(table)
    return result


def memory(
    console: Console,
    configs: dict[str, dict[str, str]],
    server: MlflowServer,
    samples: Sequence[int],
    repeat: int,
) -> dict[str, Any]:
    """Peak memory above no hooks, in MB. MLflow itself is part of it."""
    table = Table("samples", "hooks", "MB above no hooks")
    found: dict[str, Any] = {}
    for count in samples:
        base = work("memory", variables=configs["no hooks"], samples=count)["peak_mb"]
        for name, variables in list(configs.items())[1:]:
            above = work("memory", variables=variables, samples=count)["peak_mb"] - base
            found[f"{count} {name}"] = above
            table.add_row(str(count), name, f"{above:.0f}")
    console.print(table)
    return found


def start(
    console: Console,
    configs: dict[str, dict[str, str]],
    server: MlflowServer,
    samples: Sequence[int],
    repeat: int,
) -> dict[str, Any]:
    """What the registry adds to Inspect's start, and the first evaluation of a process."""
    program = (
        "import inspect_ai.hooks, time; t = time.perf_counter(); "
        "import inspect_mlflow._registry; print(time.perf_counter() - t)"
    )
    registry = min(
        float(
            subprocess.run(
                [sys.executable, "-c", program],
                env=clean_environ(),
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for _ in range(5)
    )
    first = {
        name: min(work("cold", variables=variables)["wall"] for _ in range(repeat))
        for name, variables in configs.items()
    }
    table = Table("start", "seconds")
    table.add_row("registry import", f"{registry:.4f}")
    for name, seconds in first.items():
        table.add_row(f"first evaluation, {name}", f"{seconds:.2f}")
    console.print(table)
    return {"registry": registry, "first": first}


MEASURES = {"wall": wall, "hooks": hooks, "memory": memory, "start": start}


def work(job: str, **arguments: Any) -> Any:
    """Run a job in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.worker", json.dumps({"job": job, **arguments})],
        env=clean_environ(),
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise SystemExit(result.stdout + result.stderr)
    return json.loads(result.stdout.strip().splitlines()[-1])


@contextmanager
def sink() -> Iterator[str]:
    """A discarding OTLP receiver in a process of its own."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.sink", str(port)])
    uri = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        with loopback_client() as client:
            try:
                return client.get(uri).status_code == 200
            except httpx.TransportError:
                return False

    try:
        wait_until(answers, what="the sink", timeout=20, every=0.1)
        yield uri
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
