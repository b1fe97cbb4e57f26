"""What tracking costs: requests, time on the event loop, memory."""

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.log import EvalLog, write_eval_log

from inspect_mlflow.tracking import MlflowTrackingHooks
from tests.support.evals import eval_task, read_log
from tests.support.servers import MlflowServer
from tests.tracking.conftest import Tracked

REPOSITORY = Path(__file__).parents[2]


@contextmanager
def counted_requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What this process asks of the server, while it does: path by path."""
    import requests

    asked: list[str] = []
    send = requests.Session.send

    def counting(self: Any, request: Any, **options: Any) -> Any:
        asked.append(f"{request.method} {request.path_url.split('?')[0]}")
        return send(self, request, **options)

    with monkeypatch.context() as patch:
        patch.setattr(requests.Session, "send", counting)
        yield asked


def timed_hooks(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    """How long each call of a hook keeps the event loop."""
    spent: dict[str, list[float]] = {}

    def timed(name: str, handler: Any) -> Any:
        async def handle(self: Any, data: Any) -> None:
            began = time.perf_counter()
            await handler(self, data)
            spent.setdefault(name, []).append(time.perf_counter() - began)

        return handle

    for name, handler in list(vars(MlflowTrackingHooks).items()):
        if name.startswith("on_") and name != "on_run_end":  # that one waits, off the loop
            monkeypatch.setattr(MlflowTrackingHooks, name, timed(name, handler))
    return spent


def test_500_samples(tracked: Tracked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    eval_task("tracked@busy", log_dir=tmp_path, task_args={"samples": 1, "sleep": 0})  # imports
    spent = timed_hooks(monkeypatch)
    with counted_requests(monkeypatch) as asked:
        log = eval_task(
            "tracked@busy",
            log_dir=tmp_path,
            task_args={"samples": 500, "sleep": 0.1},
            max_samples=50,
            max_connections=50,
        )
    assert log.status == "success"
    calls = sum(len(times) for times in spent.values())
    total = sum(sum(times) for times in spent.values())
    print(f"{len(asked)} requests; {calls} hook calls took {total / calls * 1e3:.4f} ms on average")
    assert len(spent["on_model_usage"]) == 1500
    assert len(spent["on_sample_end"]) == 500
    assert len(asked) < 60
    assert total / calls < 0.0002
    run = tracked.of_eval(log.eval.eval_id)
    assert run.data.metrics["event/model_call"] == 1500
    assert run.data.metrics["event/tool_call"] == 1000
    assert run.data.metrics["total_model_calls"] == 1500
    assert run.data.metrics["total_tool_calls"] == 1000
    steps = [p.step for p in tracked.points(run) if p.key == "sample/total_time"]
    assert sorted(steps) == list(range(1, 501))


def test_points_of_a_sample_that_runs_long(
    tracked: Tracked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inspect_mlflow.writer.LIVE_SECONDS", 0.5)
    monkeypatch.setattr("inspect_mlflow.writer.WRITE_SECONDS", 0.2)
    eval_task("tracked@busy", log_dir=tmp_path, task_args={"samples": 1, "sleep": 1.5})
    run = tracked.task("busy")
    live = {key: v for key, v in run.data.metrics.items() if key.startswith("live/")}
    assert live.keys() == {"live/model_calls", "live/tool_calls", "live/total_tokens"}
    history = [p for p in tracked.points(run) if p.key == "live/model_calls"]
    assert [p.value for p in sorted(history, key=lambda p: p.step)][:2] == [1, 2]


def multiplied(log: EvalLog, samples: int) -> str:
    """Write a log like this one, of so many samples."""
    log = read_log(log.location)
    assert log.samples is not None
    originals = log.samples
    log.samples = [
        originals[n % len(originals)].model_copy(update={"id": n + 1, "uuid": f"sample-{n + 1}"})
        for n in range(samples)
    ]
    log.eval.dataset.samples = samples
    log.eval.dataset.sample_ids = [*range(1, samples + 1)]
    location = log.location.replace(".eval", "-multiplied.eval")
    write_eval_log(log, location)
    return location


def test_artifacts_of_2000_samples(mlflow_server: MlflowServer, tmp_path: Path) -> None:
    location = multiplied(eval_task("tool_loop", log_dir=tmp_path, task_args={"size": 2000}), 2000)
    client = mlflow_server.client()
    run_id = client.create_run("0").info.run_id
    program = """
        import json, sys, threading, time
        import psutil
        from mlflow import MlflowClient
        from inspect_ai.log import read_eval_log
        from inspect_mlflow.artifacts import ArtifactManager

        uri, run_id, log = sys.argv[1:]
        client = MlflowClient(tracking_uri=uri)
        client.log_text(run_id, "warm", "warm.txt")
        read_eval_log(log, header_only=True)
        process = psutil.Process()
        before = peak = process.memory_info().rss
        over = threading.Event()

        def watch():
            global peak
            while not over.wait(0.02):
                peak = max(peak, process.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.monotonic()
        ArtifactManager(client).log(run_id, log)
        over.set()
        watcher.join()
        print(json.dumps({"extra_mb": (peak - before) / 1e6, "s": time.monotonic() - began}))
    """
    finished = subprocess.run(
        [*(sys.executable, "-c", textwrap.dedent(program)), mlflow_server.uri, run_id, location],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    used = json.loads(finished.stdout.splitlines()[-1])
    print(used)
    assert used["extra_mb"] < 150
    path = client.download_artifacts(run_id, "inspect/events.json")
    events = json.loads(Path(path).read_text())["data"]
    assert len({row[0] for row in events}) == 2000
