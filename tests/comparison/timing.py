"""Time and memory of a comparison.

    python -m tests.comparison.timing pairs     # 10,000 pairs of each kind of score
    python -m tests.comparison.timing stored    # two stored logs of 2,000 samples

Every kind of score is measured in a process of its own, in CPU time, so that other work on the
machine counts as little as possible.
"""

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inspect_ai.log import EvalLog
from inspect_ai.model import ModelUsage

from inspect_mlflow.comparison import compare_evals
from inspect_mlflow.comparison.compare import compare_loaded
from inspect_mlflow.comparison.loading import load_eval
from tests.comparison.evals import correct_unless, run_eval
from tests.comparison.make import make_log, rows

PAIRS = 10_000
DRAWS: dict[str, Callable[[random.Random], Any]] = {
    "letter": lambda rng: rng.choice("CI"),
    "ordinal": lambda rng: rng.choice([0, 0.25, 0.5, 0.75, 1]),
    "continuous": lambda rng: rng.random(),
    "text": lambda rng: str(rng.random()),
    "boolean": lambda rng: rng.random() < 0.5,
    "dict of 3": lambda rng: {"a": rng.random(), "b": rng.random() < 0.5, "c": 1},
}


def measure_pairs(kind: str, rounds: int = 9) -> None:
    """Compare 10,000 pairs of one kind of score, read beforehand and as logs in memory."""
    rng = random.Random(1)

    def log() -> EvalLog:
        made = make_log(rows([DRAWS[kind](rng) for _ in range(PAIRS)]))
        for sample in made.samples or []:
            sample.model_usage = {"m": ModelUsage(input_tokens=3, output_tokens=4, total_tokens=7)}
            sample.total_time = rng.random()
        return made

    first, second = log(), log()
    loaded = load_eval(first), load_eval(second)

    def cpu(call: Callable[[], object]) -> str:
        call()
        times = []
        for _ in range(rounds):
            start = time.process_time()
            call()
            times.append((time.process_time() - start) * 1000)
        return f"{statistics.median(times):4.0f} ms (best {min(times):.0f})"

    read = cpu(lambda: compare_loaded(*loaded))
    whole = cpu(lambda: compare_evals(first, second))
    print(f"{kind:11} loaded {read}   from EvalLog {whole}", flush=True)


def measure_stored(baseline: str, candidate: str) -> None:
    """Compare two stored logs once and print time and memory."""

    def megabytes(field: str) -> float:
        # Not from getrusage(): its peak outlives exec() and would be the parent's.
        status = Path("/proc/self/status").read_text()
        return int(status.split(f"{field}:")[1].split()[0]) * 1024 / 1e6

    base, start = megabytes("VmRSS"), time.perf_counter()
    result = compare_evals(baseline, candidate)
    seconds = time.perf_counter() - start
    peak = megabytes("VmHWM")
    print(f"{result.aligned_count} samples: {seconds:.2f} s, {peak - base:.0f} MB above {base:.0f}")


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description="Time and memory of a comparison.")
    parser.add_argument("what", choices=["pairs", "stored", "kind", "logs"])
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    again = [sys.executable, "-m", "tests.comparison.timing"]
    if options.what == "kind":
        measure_pairs(options.names[0])
    elif options.what == "logs":
        measure_stored(*options.names)
    elif options.what == "pairs":
        for kind in DRAWS:
            subprocess.run([*again, "kind", kind], check=True)
    else:
        with tempfile.TemporaryDirectory() as folder:
            paths = [
                run_eval(
                    Path(folder) / side,
                    correct_unless(*range(step, 2_001, step)),
                    count=2_000,
                    questions=lambda number: f"What is {number} + {number}? " + "word " * 150,
                ).location
                for side, step in (("a", 3), ("b", 4))
            ]
            subprocess.run([*again, "logs", *paths], check=True)


if __name__ == "__main__":
    main()
