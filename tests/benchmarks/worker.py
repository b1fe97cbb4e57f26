"""One measuring process: reads a job as JSON from its argument, prints its result as JSON.

A process of its own keeps the measured memory and the imported modules to what the job needs.
"""

import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.evals import eval_task

SWITCHES = ("MLFLOW_TRACKING_URI", "MLFLOW_INSPECT_TRACING", "OTEL_EXPORTER_OTLP_ENDPOINT")
Result = dict[str, Any]


def evaluate(samples: int, sleep: float = 0, size: int = 1000) -> Result:
    """One evaluation of the tool loop: its times, and when its last sample ended."""
    args = {"samples": samples, "size": size, "sleep": sleep}
    with tempfile.TemporaryDirectory() as folder:
        cpu, wall = time.process_time(), time.perf_counter()
        started = time.time()
        log = eval_task("tool_loop", log_dir=Path(folder), task_args=args)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert log.status == "success"
        ended = [_timestamp(sample.completed_at) for sample in log.samples or ()]
    return {"wall": wall, "cpu": cpu, "to_last_sample": max(ended) - started}


def _timestamp(iso: str | None) -> float:
    from datetime import datetime

    assert iso is not None
    return datetime.fromisoformat(iso).timestamp()


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Set the switches that a configuration names, and no other."""
    for name in SWITCHES:
        os.environ.pop(name, None)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in SWITCHES:
            os.environ.pop(name, None)


def walls(configs: dict[str, dict[str, str]], repeat: int, **options: Any) -> Result:
    """Every configuration in turn, `repeat` times over, after one warming round."""
    for variables in configs.values():
        with environment(variables):
            evaluate(**{**options, "samples": min(20, options["samples"])})
    results: dict[str, list[Result]] = {name: [] for name in configs}
    for _ in range(repeat):
        for name, variables in configs.items():
            with environment(variables):
                results[name].append(evaluate(**options))
    return {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in results.items()
    }


def hooks(variables: dict[str, str], samples: int) -> Result:
    """Time spent in hooks per event on the event loop, and the loop's largest stall."""
    from inspect_ai.hooks import Hooks

    from inspect_mlflow.tracing import MlflowTracingHooks
    from inspect_mlflow.tracking import MlflowTrackingHooks

    times: dict[str, list[float]] = {}

    def timed(hook: type[Hooks], name: str) -> None:
        original: Callable[..., Any] = getattr(hook, name)

        async def measured(self: Hooks, data: Any) -> None:
            start = time.perf_counter()
            try:
                await original(self, data)
            finally:
                times.setdefault(name, []).append(time.perf_counter() - start)

        setattr(hook, name, measured)

    with environment(variables):
        evaluate(20)
        for hook in (MlflowTracingHooks, MlflowTrackingHooks):
            for name in vars(hook):
                if name.startswith("on_"):
                    timed(hook, name)
        stalls = {}
        for label, on in (("with hooks", variables), ("no hooks", {})):
            with environment(on), loop_stalls() as found:
                evaluate(samples)
            stalls[label] = max(found)
    events = sorted(
        seconds for name, values in times.items() if name != "on_run_end" for seconds in values
    )
    return {
        "calls": len(events),
        "mean_ms": 1e3 * statistics.fmean(events),
        "p99_ms": 1e3 * events[int(0.99 * len(events))],
        "max_ms": 1e3 * events[-1],
        "stall_ms": {label: 1e3 * seconds for label, seconds in stalls.items()},
    }


@contextmanager
def loop_stalls(every: float = 0.001) -> Iterator[list[float]]:
    """How late a timer on the event loop of an evaluation came, at the most."""
    import asyncio

    found = [0.0]
    original = asyncio.new_event_loop

    def watched() -> asyncio.AbstractEventLoop:
        loop = original()
        expected = [0.0]

        def tick() -> None:
            now = loop.time()
            if expected[0]:
                found.append(now - expected[0])
            expected[0] = now + every
            loop.call_later(every, tick)

        loop.call_soon(tick)
        return loop

    asyncio.new_event_loop = watched
    asyncio.events.new_event_loop = watched
    try:
        yield found
    finally:
        asyncio.new_event_loop = asyncio.events.new_event_loop = original


def memory(variables: dict[str, str], samples: int) -> Result:
    """The largest resident memory of the process, in MB."""
    with environment(variables):
        evaluate(samples)
    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def cold(variables: dict[str, str]) -> Result:
    """The first evaluation in a process."""
    with environment(variables):
        return evaluate(1)


JOBS: dict[str, Callable[..., Result]] = {
    "walls": walls,
    "hooks": hooks,
    "memory": memory,
    "cold": cold,
}

if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    outcome = JOBS[job.pop("job")](**job)
    print("\n" + json.dumps(outcome))
