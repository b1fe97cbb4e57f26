"""What is measured: one function per section, each of which gives a table and its numbers."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from tests.benchmarks.comparing import comparing
from tests.benchmarks.importing import importing
from tests.benchmarks.processes import received_bytes, work
from tests.support.environment import clean_environ
from tests.support.servers import MlflowServer

Environment = dict[str, str]
Measured = tuple[Table, dict[str, Any]]

BOTH = "both into MLflow"


@dataclass(frozen=True)
class Bench:
    """What all sections measure against."""

    server: MlflowServer
    sink: str
    """Address of an OTLP receiver that discards."""
    hanging: str
    """Address of one that never answers."""
    samples: Sequence[int]
    repeat: int
    beside: str | None = None

    @property
    def configurations(self) -> dict[str, Environment]:
        """The environment of each configuration; the first has no hooks."""
        tracking = {"MLFLOW_TRACKING_URI": self.server.uri}
        tracing = {"MLFLOW_INSPECT_TRACING": "true"}
        sink = {"OTEL_EXPORTER_OTLP_ENDPOINT": self.sink}
        to_mlflow = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": self.server.otlp_traces,
            "OTEL_EXPORTER_OTLP_HEADERS": "x-mlflow-experiment-id=0",
        }
        return {
            "no hooks": {},
            "tracking": tracking,
            "traces to an OTLP sink": {**tracing, **sink},
            "traces alone to MLflow": {**tracing, **to_mlflow},
            BOTH: {**tracking, **tracing},
            "both, and the OTLP sink": {**tracking, **tracing, **sink},
        }


def wall(bench: Bench) -> Measured:
    """Wall and CPU time against no hooks, until all is delivered and until the last sample ends."""
    table = Table("evaluation", "hooks", "wall", "CPU", "until the last sample ends")
    found: dict[str, Any] = {}
    cases: list[tuple[str, dict[str, Any]]] = [
        (f"{count} samples", {"samples": count}) for count in bench.samples
    ]
    cases.append(("100 samples, 0.5 s a call, 20 at once", {"samples": 100, "sleep": 0.5}))

    def measure(
        name: str, configs: dict[str, Environment], python: str | None, **options: Any
    ) -> dict[str, dict[str, float]]:
        result = work("walls", python, configs=configs, repeat=bench.repeat, **options)
        base = result.pop("no hooks")
        return {
            f"{name}{config}": {key: values[key] / base[key] for key in values}
            for config, values in result.items()
        }

    for label, options in cases:
        found[label] = measure("", bench.configurations, None, **options)
        if bench.beside is not None:
            configs = {name: bench.configurations[name] for name in ("no hooks", "tracking", BOTH)}
            found[label] |= measure("beside: ", configs, bench.beside, **options)
        for name, ratios in found[label].items():
            table.add_row(label, name, *(f"{ratio:.2f}" for ratio in ratios.values()))
    return table, found


def tail(bench: Bench) -> Measured:
    """What is left to do when the last sample has ended, and what MLflow has at the end."""
    table = Table("samples", "last sample to return, s", "no hooks", "then until MLflow has all, s")
    found: dict[str, Any] = {}
    for count in bench.samples:
        base = work("tail", variables={}, samples=count)
        both = work(
            "tail",
            variables=bench.configurations[BOTH],
            samples=count,
            database=str(bench.server.db_path),
        )
        found[str(count)] = {"no hooks": base, BOTH: both}
        table.add_row(
            str(count), *(f"{s:.1f}" for s in (both["tail"], base["tail"], both["complete"]))
        )
    return table, found


def hooks(bench: Bench) -> Measured:
    """Time in hooks on the event loop."""
    table = Table("calls", "mean ms", "p99 ms", "max ms", "largest stall ms", "without hooks")
    result = work("hooks", variables=bench.configurations[BOTH], samples=min(bench.samples))
    times, stall = result["times"], result["stall_ms"]
    table.add_row(
        str(times["calls"]),
        *(f"{times[key]:.3f}" for key in ("mean_ms", "p99_ms", "max_ms")),
        f"{stall['with hooks']:.1f}",
        f"{stall['no hooks']:.1f}",
    )
    return table, result


def requests(bench: Bench) -> Measured:
    """Requests to MLflow of an evaluation with 500 samples."""
    table = Table("hooks", "requests", "beyond one per sample trace")
    found: dict[str, Any] = {}
    for name, traces in (("tracking", 0), (BOTH, 500)):
        count = work("requests", variables=bench.configurations[name], samples=500)["requests"]
        found[name] = count
        table.add_row(name, str(count), str(count - traces))
    return table, found


def long(bench: Bench) -> Measured:
    """One sample of ever more turns: bytes to an OTLP sink, and time in hooks."""
    table = Table("turns of 5 KB", "KB sent per turn", "ms in hooks per turn")
    found: dict[str, Any] = {}
    variables = bench.configurations["traces to an OTLP sink"]
    for turns in (50, 100, 300):
        before = received_bytes(bench.sink)
        result = work("long", variables=variables, turns=turns)
        sent = received_bytes(bench.sink) - before
        found[str(turns)] = {"bytes": sent, "hooks_ms": result["hooks_ms"]}
        table.add_row(str(turns), f"{sent / turns / 1e3:.0f}", f"{result['hooks_ms'] / turns:.3f}")
    return table, found


def memory(bench: Bench) -> Measured:
    """Peak memory above no hooks, in MB. MLflow itself is part of it."""
    table = Table("samples", "hooks", "MB above no hooks")
    found: dict[str, Any] = {}
    configs = bench.configurations | {
        "traces to a sink that hangs": {
            "MLFLOW_INSPECT_TRACING": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": bench.hanging,
            "INSPECT_MLFLOW_FLUSH_TIMEOUT": "2",
        }
    }
    for count in bench.samples:
        peaks = {
            name: work("memory", variables=variables, samples=count)["peak_mb"]
            for name, variables in configs.items()
        }
        base = peaks.pop("no hooks")
        found[str(count)] = {name: peak - base for name, peak in peaks.items()}
        for name, above in found[str(count)].items():
            table.add_row(str(count), name, f"{above:.0f}")
    return table, found


def start(bench: Bench) -> Measured:
    """What the registry adds to Inspect's start, and the first evaluation of a process."""
    program = (
        "import inspect_ai.hooks, time; t = time.perf_counter(); "
        "import inspect_mlflow._registry; print(time.perf_counter() - t)"
    )
    command = [sys.executable, "-c", program]
    runs = [
        subprocess.run(command, env=clean_environ(), capture_output=True, text=True, check=True)
        for _ in range(5)
    ]
    registry = min(float(run.stdout) for run in runs)
    version = work("version")
    first = {
        name: min(work("cold", variables=variables)["wall"] for _ in range(bench.repeat))
        for name, variables in bench.configurations.items()
    }
    table = Table("start", "seconds")
    table.add_row("registry import", f"{registry:.4f}")
    table.add_row("inspect --version, all entry points", f"{version['with']:.2f}")
    table.add_row("inspect --version, without ours", f"{version['without']:.2f}")
    for name, seconds in first.items():
        table.add_row(f"first evaluation, {name}", f"{seconds:.2f}")
    return table, {"registry": registry, "version": version, "first": first}


def imports(bench: Bench) -> Measured:
    """`inspect-mlflow import` of a log against MLflow's own ingestion of the same spans."""
    count = max(bench.samples)
    table = Table(f"{count} samples", "spans/s", "import against it")
    found = importing(bench.server, count)
    for name, rate, ratio in (
        ("import", "import", None),
        ("MLflow alone, spans", "plain", "ratio"),
        ("MLflow alone, spans and what its tables show", "whole", "with_summaries"),
    ):
        against = "" if ratio is None else f"{found[ratio]:.2f}"
        table.add_row(name, f"{found[f'{rate}_spans_per_second']:.0f}", against)
    table.caption = f"{found['memory_mb']:.0f} MB above a process that has imported one sample"
    return table, found


def compare(bench: Bench) -> Measured:
    """Comparing 10,000 pairs of each kind of score in memory, and two stored logs."""
    table = Table("comparison", "CPU ms", "with reading", "MB above base")
    found = comparing()
    for kind, ms in found["pairs"].items():
        table.add_row(f"10,000 pairs, {kind}", f"{ms['loaded']:.0f}", f"{ms['read']:.0f}", "")
    stored = found["stored"]
    table.add_row("two logs of 2,000", "", f"{stored['cpu_ms']:.0f}", f"{stored['memory_mb']:.0f}")
    return table, found


MEASURES: dict[str, Callable[[Bench], Measured]] = {
    "wall": wall,
    "tail": tail,
    "hooks": hooks,
    "requests": requests,
    "long": long,
    "memory": memory,
    "start": start,
    "import": imports,
    "compare": compare,
}
