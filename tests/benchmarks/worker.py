"""One measuring process: reads a job as JSON from its argument, prints its result as JSON.

A process of its own keeps the measured memory and the imported modules to what the job needs.
"""

import json
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.support.evals import eval_task

AT_ONCE = 20
"""How many samples run at the same time."""
Result = dict[str, Any]


def evaluate(samples: int, sleep: float = 0, size: int = 1000) -> Result:
    """One evaluation of the tool loop: its times, and when its last sample ended."""
    args = {"samples": samples, "size": size, "sleep": sleep}
    with tempfile.TemporaryDirectory() as folder:
        cpu, wall = time.process_time(), time.perf_counter()
        started = time.time()
        log = eval_task("tool_loop", log_dir=Path(folder), task_args=args, max_samples=AT_ONCE)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert log.status == "success"
        ended = max(_timestamp(sample.completed_at) for sample in log.samples or ())
    return {"wall": wall, "cpu": cpu, "to_last_sample": ended - started}


def _timestamp(iso: str | None) -> float:
    assert iso is not None
    return datetime.fromisoformat(iso).timestamp()


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Set the variables that a configuration names."""
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]


def walls(configs: dict[str, dict[str, str]], repeat: int, **options: Any) -> Result:
    """Every configuration in turn, `repeat` times over, after one warming round."""
    for variables in configs.values():
        with environment(variables):
            evaluate(samples=min(20, options["samples"]))
    results: dict[str, list[Result]] = {name: [] for name in configs}
    for _ in range(repeat):
        for name, variables in configs.items():
            with environment(variables):
                results[name].append(evaluate(**options))
    return {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in results.items()
    }


def tail(variables: dict[str, str], samples: int, database: str | None = None) -> Result:
    """Seconds from the last sample's end to the return, and from there until MLflow has all."""
    with environment(variables):
        evaluate(20)
        before = _stored(database)
        result = evaluate(samples)
    returned = time.perf_counter()
    while (stored := _stored(database) - before) < (samples + 1 if database else 0):
        assert time.perf_counter() - returned < 300, f"{stored} of {samples + 1} traces"
        time.sleep(0.05)
    complete = time.perf_counter() - returned
    return {"tail": result["wall"] - result["to_last_sample"], "complete": complete}


def _stored(database: str | None) -> int:
    """How many traces MLflow has whole: ended, and with as many spans as their summary knows."""
    if database is None:
        return 0
    query = """
        SELECT count(*) FROM trace_info
        JOIN (SELECT trace_id, count(*) AS spans FROM spans GROUP BY trace_id)
            ON trace_id = request_id
        WHERE status = 'OK' AND request_preview IS NOT NULL AND (
            spans = 12 OR trace_name LIKE 'eval_run%'
        )
    """
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)
    try:
        (count,) = connection.execute(query).fetchone()
    finally:
        connection.close()
    return int(count)


@contextmanager
def timed_hooks() -> Iterator[list[float]]:
    """Seconds spent in each call of our hooks on the event loop, but for the end of the run."""
    from inspect_mlflow.tracing import MlflowTracingHooks
    from inspect_mlflow.tracking import MlflowTrackingHooks

    times: list[float] = []

    def timed(original: Callable[..., Any]) -> Callable[..., Any]:
        async def measured(self: Any, data: Any) -> None:
            start = time.perf_counter()
            try:
                await original(self, data)
            finally:
                times.append(time.perf_counter() - start)

        return measured

    originals = [
        (hook, name, value)
        for hook in (MlflowTracingHooks, MlflowTrackingHooks)
        for name, value in vars(hook).items()
        if name.startswith("on_") and name != "on_run_end"
    ]
    for hook, name, value in originals:
        setattr(hook, name, timed(value))
    try:
        yield times
    finally:
        for hook, name, value in originals:
            setattr(hook, name, value)


def hooks(variables: dict[str, str], samples: int) -> Result:
    """Time spent in hooks per event on the event loop, and the loop's largest stall."""
    with environment(variables):
        evaluate(20)
        with timed_hooks() as times:
            evaluate(samples)
    stalls = {}
    for label, on in (("with hooks", variables), ("no hooks", {})):
        with environment(on), loop_stalls() as found:
            evaluate(samples)
        stalls[label] = 1e3 * max(found)
    times.sort()
    return {
        "times": {
            "calls": len(times),
            "mean_ms": 1e3 * statistics.fmean(times),
            "p99_ms": 1e3 * times[int(0.99 * len(times))],
            "max_ms": 1e3 * times[-1],
        },
        "stall_ms": stalls,
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


def requests(variables: dict[str, str], samples: int) -> Result:
    """How many HTTP requests this process makes to MLflow."""
    import requests as http

    count = 0
    send = http.Session.send

    def counting(self: Any, request: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        return send(self, request, **options)

    http.Session.send = counting  # type: ignore[method-assign]
    with environment(variables):
        evaluate(samples)
    return {"requests": count}


def long(variables: dict[str, str], turns: int) -> Result:
    """Time in hooks of one sample with so many turns of 5 KB."""
    with environment(variables), tempfile.TemporaryDirectory() as folder, timed_hooks() as times:
        log = eval_task(
            "long.py@long_agent", log_dir=Path(folder), task_args={"turns": turns, "size": 5000}
        )
        assert log.status == "success"
    return {"hooks_ms": 1e3 * sum(times)}


def memory(variables: dict[str, str], samples: int) -> Result:
    """The largest resident memory of the process, in MB."""
    with environment(variables):
        evaluate(samples)
    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def cold(variables: dict[str, str]) -> Result:
    """The first evaluation in a process."""
    with environment(variables):
        return evaluate(1)


def version() -> Result:
    """Seconds of `inspect --version`, with our entry point and without; the best of five."""
    program = """
import importlib.metadata, sys
ours, find = sys.argv.pop() == "with", importlib.metadata.entry_points
def entry_points(**by):
    points = find(**by)
    if ours or not by:
        return points
    return type(points)(point for point in points if "inspect_mlflow" not in point.value)
importlib.metadata.entry_points = entry_points
from inspect_ai._cli.main import main
main()
"""
    best = {"with": 1e9, "without": 1e9}
    for _ in range(5):
        for name in best:
            command = [sys.executable, "-c", program, "--version", name]
            start = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            best[name] = min(best[name], time.perf_counter() - start)
    return best


JOBS: dict[str, Callable[..., Result]] = {
    "walls": walls,
    "tail": tail,
    "hooks": hooks,
    "requests": requests,
    "long": long,
    "memory": memory,
    "cold": cold,
    "version": version,
}

if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    outcome = JOBS[job.pop("job")](**job)
    print("\n" + json.dumps(outcome))
