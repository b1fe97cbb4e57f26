"""Plays an evaluation while MLflow is in trouble, and the import after it."""

import re
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from inspect_ai.log import EvalLog
from mlflow import MlflowClient

from inspect_mlflow.backfill import Importer, group_logs
from inspect_mlflow.config import load_settings
from otel_bridge.replay import replay
from tests.failures.troubles import TROUBLES, Servers
from tests.support.evals import TASKS, InspectRun, start_inspect
from tests.support.process import wait_until
from tests.support.recovery import repair_command
from tests.support.sink import running_sink
from tests.support.state import differences, state_of
from tests.support.warm import Finished, run_warm

SAMPLES = 12
WAVES = 3
"""The spans of a sample are sent when it ends: so that some have arrived when others run."""
CALLS = 3
"""Of the model, in each sample."""
EVALUATION: Sequence[str | Path] = (
    *("eval", TASKS / "tool_loop.py", "-T", f"samples={SAMPLES}"),
    *("--max-samples", str(SAMPLES // WAVES)),
)


@dataclass(frozen=True)
class Played:
    """What is left of an evaluation, and what the import made of it."""

    run: InspectRun
    log: EvalLog
    sleep: float
    """Seconds of each of a sample's three model calls."""
    flush_timeout: int
    """How long it may wait at its end, in seconds."""
    seconds_before: float
    """From the start of the process until the log was finished."""
    seconds_after: float
    """From then on."""
    sent: Counter[str]
    """The names of the spans that reached the other destination."""
    warnings: Sequence[str]
    command: Sequence[str]
    """The arguments of the command that the evaluation named at its end, if it did."""
    repair: Finished | None
    differences: Sequence[str]

    @property
    def seconds_of_samples(self) -> float:
        """From the first event to the end of the last sample."""
        assert self.log.samples is not None
        starts = [s.events[0].timestamp.timestamp() for s in self.log.samples]
        ends = [s.events[-1].timestamp.timestamp() for s in self.log.samples]
        return max(ends) - min(starts)

    @property
    def spans_of_log(self) -> Counter[str]:
        """The names of the spans that the log makes."""
        return Counter(span.name for span in replay(*self.run.logs))


def play(name: str, servers: Servers, folder: Path) -> Played:
    """Evaluate in a trouble, let it pass, and run the command that was named."""
    experiment = f"trouble {name}"
    with TROUBLES[name](servers, folder, experiment) as trouble, running_sink() as sink:
        hooks = {
            "MLFLOW_TRACKING_URI": trouble.uri,
            "MLFLOW_EXPERIMENT_NAME": experiment,
            "MLFLOW_INSPECT_TRACING": "true",
            "INSPECT_MLFLOW_FLUSH_TIMEOUT": str(trouble.flush_timeout),
            "OTEL_EXPORTER_OTLP_ENDPOINT": sink.http_endpoint,
        }
        sleep = 0.0
        if trouble.strike is not None:  # then autologging, which begins at the start, is no matter
            sleep = trouble.sleep
            hooks["INSPECT_MLFLOW_AUTOLOG_ENABLED"] = "false"
        began = time.time()
        evaluation = start_inspect(
            [*EVALUATION, "-T", f"sleep={sleep}"],
            cwd=folder,
            env={"COLUMNS": "1000", **hooks},
        )
        try:
            if trouble.strike is not None:
                wait_until(
                    lambda: bool(trace_ids(trouble.store, experiment)),
                    what="a trace in MLflow",
                    timeout=120,
                    every=0.3,
                )
                trouble.strike()
            run = evaluation.finish(120)
        finally:
            evaluation.kill()
        ended = time.time()
        log = run.log()
        finished = datetime.fromisoformat(log.stats.completed_at).timestamp()
        command = repair_command(run.output) if "did not reach" in run.output else []
        trouble.heal()
        repair = None
        if command:
            repair = run_warm(command, cwd=folder, env={**hooks, **trouble.healed_environ})
        left = state_of(trouble.store, experiment)
        return Played(
            run,
            log,
            sleep,
            trouble.flush_timeout,
            finished - began,
            ended - finished,
            Counter(span.name for span in sink.spans()),
            re.findall(r"WARNING\s+(.*?)\s*$", run.output, re.MULTILINE),
            command,
            repair,
            differences(
                without_receipt(left), imported(run, servers.empty_store, folder, experiment)
            ),
        )


def play_without_hooks(folder: Path) -> EvalLog:
    """The evaluation as it is without us."""
    run = start_inspect(EVALUATION, cwd=folder).finish(120)
    return run.log()


def imported(run: InspectRun, empty_store: Path, folder: Path, experiment: str) -> dict[str, Any]:
    """What an undisturbed evaluation would have left: an import into an empty store."""
    uri = f"sqlite:///{shutil.copy(empty_store, folder / 'undisturbed.db')}"
    settings, problems = load_settings(tracking_uri=uri, experiment_name=experiment)
    assert not problems
    groups, unreadable = group_logs(map(str, run.logs))
    assert not unreadable
    artifacts = folder / "artifacts"
    MlflowClient(uri).create_experiment(
        experiment, str(artifacts), {"mlflow.experimentKind": "genai_development"}
    )
    result = Importer(settings).run(groups)
    assert not result.failures, result.failures
    return state_of(uri, experiment)


def without_receipt(state: dict[str, Any]) -> dict[str, Any]:
    """The receipt is of the delivery, not of the evaluation."""
    for run in state["runs"].values():
        tags: Mapping[str, str] = run["tags"]
        run["tags"] = {k: v for k, v in tags.items() if not k.startswith("inspect.receipt.")}
    return state


def trace_ids(store: str, experiment_name: str) -> list[str]:
    """The traces that an experiment has so far."""
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(experiment_name)
    if experiment is None:
        return []
    found = client.search_traces(
        locations=[experiment.experiment_id], max_results=10, include_spans=False
    )
    return [trace.info.trace_id for trace in found]


def gist(log: EvalLog) -> dict[str, Any]:
    """What an evaluation found out, without ids and times."""
    assert log.samples is not None
    assert log.results is not None
    return {
        "status": log.status,
        "error": log.error,
        "results": {
            score.name: {name: metric.value for name, metric in score.metrics.items()}
            for score in log.results.scores
        },
        "samples": {
            sample.id: {
                "scores": {name: score.value for name, score in (sample.scores or {}).items()},
                "messages": [(message.role, message.text) for message in sample.messages],
                "events": [event.event for event in sample.events],
                "error": sample.error,
                "usage": {name: usage.total_tokens for name, usage in sample.model_usage.items()},
            }
            for sample in log.samples
        },
    }
