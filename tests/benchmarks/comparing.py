"""Time and memory of comparisons.

Each is measured in a process of its own, in CPU time, so that other work on the machine counts as
little as possible.
"""

import json
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


def comparing() -> dict[str, Any]:
    """Compare 10,000 pairs of each kind of score, and two stored logs of 2,000 samples.

    Returns
    -------
    dict
        `pairs`: by kind of score, CPU ms for logs that are read already (`loaded`) and for logs in
        memory (`read`). `stored`: CPU ms with reading, and the peak in MB above the base.
    """
    pairs = {kind: _work("pairs", kind=kind) for kind in DRAWS}
    with tempfile.TemporaryDirectory() as folder:
        baseline, candidate = (
            run_eval(
                Path(folder) / side,
                correct_unless(*range(step, 2_001, step)),
                count=2_000,
                questions=lambda number: f"What is {number} + {number}? " + "word " * 150,
            ).location
            for side, step in (("a", 3), ("b", 4))
        )
        stored = _work("stored", baseline=baseline, candidate=candidate)
    return {"pairs": pairs, "stored": stored}


def _work(job: str, **options: Any) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.comparing"]
    result = subprocess.run(
        [*command, json.dumps({"job": job, **options})], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    found: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return found


# --- in a process of its own -------------------------------------------------------------------


def pairs(kind: str, rounds: int = 9) -> dict[str, float]:
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

    def cpu_ms(call: Callable[[], object]) -> float:
        call()
        times = []
        for _ in range(rounds):
            start = time.process_time()
            call()
            times.append((time.process_time() - start) * 1000)
        return statistics.median(times)

    return {
        "loaded": cpu_ms(lambda: compare_loaded(*loaded)),
        "read": cpu_ms(lambda: compare_evals(first, second)),
    }


def stored(baseline: str, candidate: str) -> dict[str, float]:
    """Compare two stored logs once."""

    def megabytes(field: str) -> float:
        # Not from getrusage(): its peak outlives exec() and would be the parent's.
        status = Path("/proc/self/status").read_text()
        return int(status.split(f"{field}:")[1].split()[0]) * 1024 / 1e6

    base, start = megabytes("VmRSS"), time.process_time()
    result = compare_evals(baseline, candidate)
    assert result.aligned_count == 2_000
    return {
        "cpu_ms": (time.process_time() - start) * 1000,
        "memory_mb": megabytes("VmHWM") - base,
    }


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    jobs: dict[str, Callable[..., dict[str, float]]] = {"pairs": pairs, "stored": stored}
    print("\n" + json.dumps(jobs[options.pop("job")](**options)))
