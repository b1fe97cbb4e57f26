"""Pictures of what MLflow's UI shows of two evaluations. Needs a Chromium, and `playwright`.

    pip install playwright && python examples/screenshots.py pictures/

Starts an MLflow server in a temporary folder, evaluates the bundled geography quiz with a baseline
and a candidate model (30 samples, 2 epochs each; mock models, no API key), and takes a picture of
each view that answers a question about them. `--uri` uses a server that runs already.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SEEN = {
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.assistant.panelOpen_v1": "false",
    "mlflow.detectIssues.guidanceShown_v1": "true",
}
"""What MLflow's UI remembers of a visitor who has closed its hints."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--uri", help="an MLflow server that runs already")
    parser.add_argument("--experiment", default="atlas")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "/usr/bin/chromium")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        if options.uri:
            evaluate(options.uri, options.experiment, scratch)
            take(options.uri, options.experiment, options.folder, options.chromium)
        else:
            with server(scratch) as uri:
                evaluate(uri, options.experiment, scratch)
                take(uri, options.experiment, options.folder, options.chromium)


@contextmanager
def server(folder: str) -> Iterator[str]:
    """An MLflow server on a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"),
            *("--port", str(port), "--workers", "2"),
            *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
            *("--artifacts-destination", f"{folder}/artifacts"),
        ],
        env={
            **os.environ,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_MODEL_CATALOG_URI": "",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(120):
            time.sleep(1)
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=5).close()
                break
            except OSError:
                continue
        yield uri
    finally:
        process.terminate()
        process.wait()


def evaluate(uri: str, experiment: str, folder: str) -> None:
    """The same samples with two models, recorded by the hooks."""
    os.environ |= {
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_EXPERIMENT_NAME": experiment,
        "MLFLOW_INSPECT_TRACING": "true",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    from inspect_ai import eval

    from inspect_mlflow.demo.atlas import atlas

    for candidate in (False, True):
        eval(atlas(candidate=candidate), log_dir=f"{folder}/logs", display="plain")


def take(uri: str, experiment: str, folder: Path, chromium: str) -> None:
    """One picture per view."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs: dict[str, str] = {
        run.data.tags["inspect.model"]: run.info.run_id
        for run in client.search_runs(
            [found.experiment_id], "tags.`inspect.kind` = 'task'", order_by=["start_time ASC"]
        )
    }
    baseline, candidate = runs["mockllm/baseline"], runs["mockllm/candidate"]

    def trace(sample: str) -> str:
        (first, *_) = client.search_traces(
            locations=[found.experiment_id],
            run_id=candidate,
            filter_string=f"tags.`inspect.sample_id` = '{sample}'",
            include_spans=False,
        )
        return str(first.info.trace_id)

    base = f"{uri}/#/experiments/{found.experiment_id}"
    traces = f"{base}/traces?startTimeLabel=ALL"
    playwright: Any = importlib.import_module("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=BROWSER_ARGUMENTS)
        page = browser.new_context(viewport={"width": 1800, "height": 1000}).new_page()
        for key, value in SEEN.items():
            page.add_init_script(f"localStorage.setItem({key!r}, {value!r})")

        def show(address: str, width: int = 1800) -> None:
            page.set_viewport_size({"width": width, "height": 1000})
            page.goto("about:blank")
            page.goto(address, wait_until="domcontentloaded")
            page.wait_for_timeout(8000)

        def click(what: Any) -> None:
            what.click()
            page.wait_for_timeout(1500)

        def picture(name: str) -> None:
            page.screenshot(path=folder / f"{name}.png")
            print(folder / f"{name}.png")

        show(base)
        picture("0-experiment")
        show(traces, width=2700)
        picture("1-traces")
        show(f"{traces}&selectedEvaluationId={trace('Japan')}")
        click(page.locator("button", has_text="Assess").first)
        for card in (4, 0):
            click(page.locator("[data-component-id$=toggle-assessment-expanded]").nth(card))
        picture("2-trace")
        click(page.get_by_text("chat candidate", exact=True).nth(1))
        picture("3-chat")
        click(page.get_by_text("scorer model_graded_qa", exact=True).first)
        picture("4-scorer")
        show(f"{traces}&selectedEvaluationId={trace('Atlantis')}")
        click(page.get_by_text("Events").first)
        picture("5-failed-sample")
        show(f"{base}/runs/{candidate}/traces?startTimeLabel=ALL")
        picture("6-run-traces")
        show(f"{base}/evaluation-runs", width=2400)
        picture("7-evaluation-runs")
        show(
            f"{base}/evaluation-runs?selectedRunUuid={candidate}&compareToRunUuid={baseline}",
            width=2400,
        )
        picture("8-side-by-side")
        browser.close()


if __name__ == "__main__":
    main()
