"""What an evaluation is, whatever happened to its recording, and the command that repairs that."""

import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from inspect_ai.log import EvalLog
from mlflow import MlflowClient

from inspect_mlflow.cli import main
from tests.support.evals import InspectRun
from tests.support.state import state_of

RECEIPT = "inspect.receipt."


def outcome_of(log: EvalLog) -> dict[str, Any]:
    """What must not depend on where an evaluation is recorded: no ids and no times in it."""
    return {
        "status": log.status,
        "error": log.error and log.error.message,
        "results": log.results
        and [
            (score.name, {name: metric.value for name, metric in score.metrics.items()})
            for score in log.results.scores
        ],
        "samples": {
            (sample.id, sample.epoch): (
                sample.error and sample.error.message,
                {name: score.value for name, score in (sample.scores or {}).items()},
                [(message.role, message.text) for message in sample.messages],
                sorted(event.event for event in sample.events),
            )
            for sample in log.samples or ()
        },
    }


def recorded(uri: str, experiment_name: str = "inspect_ai") -> dict[str, Any]:
    """The state of an experiment without receipts: they are of a delivery."""
    state = state_of(uri, experiment_name)
    for run in state["runs"].values():
        run["tags"] = {k: v for k, v in run["tags"].items() if not k.startswith(RECEIPT)}
    return state


def span_ids(state: Mapping[str, Any]) -> set[str]:
    """The ids of all spans of a state."""
    return {span_id for trace in state["traces"].values() for span_id in trace["spans"]}


PLAIN_LOG = {"INSPECT_PY_LOGGER_FORMAT": "plain"}
"""Makes Inspect write each message on a line of its own."""


def warnings_of(run: InspectRun) -> list[str]:
    """What a process with PLAIN_LOG logged at WARNING and above."""
    return re.findall(r" - (?:WARNING|ERROR|CRITICAL) - \S+ - (.*)", run.output)


def repair_command(text: str) -> list[str]:
    """The arguments of the `inspect-mlflow` command that an evaluation says at its end."""
    (command,) = re.findall(r"inspect-mlflow import .*", text)
    return shlex.split(command)[1:]


def run_cli(*arguments: str, monkeypatch: pytest.MonkeyPatch, cwd: Path, **env: str) -> str:
    """Run `inspect-mlflow …` in this process; it must succeed. Gives what it printed."""
    with monkeypatch.context() as patch:
        patch.chdir(cwd)
        for name, value in env.items():
            patch.setenv(name, value)
        result = CliRunner().invoke(main, arguments, env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code == 0, result.output
    assert "Traceback" not in result.output
    return result.output


class Stores:
    """SQLite stores of MLflow, each empty at first; made by copying one, which is quick."""

    def __init__(self, template: Path) -> None:
        self._template = template
        MlflowClient(f"sqlite:///{template}").search_experiments()

    def new(self, path: Path) -> str:
        """The tracking URI of a new store at a path."""
        shutil.copy(self._template, path)
        return f"sqlite:///{path}"
