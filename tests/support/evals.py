"""Runs evaluations: `inspect eval` as a user would, and `inspect_ai.eval` in this process."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import inspect_ai
from inspect_ai.log import EvalLog, read_eval_log

from tests.support.environment import clean_environ

TASKS = Path(__file__).parents[1] / "tasks"
"""Folder of the task files."""

LOGS = Path(__file__).parents[1] / "logs"
"""Folder of recorded logs of real models."""


@dataclass(frozen=True)
class InspectRun:
    """What a finished `inspect` command left behind."""

    arguments: Sequence[str]
    returncode: int
    stdout: str
    stderr: str
    seconds: float
    logs: Sequence[Path]
    """Log files of its log directory, oldest first."""

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    def log(self) -> EvalLog:
        """Read the one log, attachments resolved."""
        (path,) = self.logs
        return read_log(path)


class InspectProcess:
    """A running `inspect` command, started by `start_inspect`."""

    def __init__(self, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> None:
        self.arguments = list(arguments)
        self.cwd = cwd
        self.log_dir = cwd / "logs"
        self._started = time.monotonic()
        # Files instead of pipes: nothing has to read along, and children can't hold us up.
        self._stdout: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "inspect_ai", *arguments],
            cwd=cwd,
            env=clean_environ(
                {
                    "XDG_CACHE_HOME": str(cwd / ".cache"),
                    "XDG_DATA_HOME": str(cwd / ".data"),
                    "INSPECT_CACHE_DIR": str(cwd / ".cache"),
                    "NO_COLOR": "1",
                    "COLUMNS": "200",
                    **env,
                }
            ),
            stdin=subprocess.DEVNULL,
            stdout=self._stdout,
            stderr=self._stderr,
            start_new_session=True,
        )

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def finish(self, timeout: float = 180) -> InspectRun:
        """Wait for the end.

        Raises:
            AssertionError: It took longer; it has been killed, and the message holds its output.
        """
        in_time = True
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            in_time = False
            self.kill()
        run = InspectRun(
            arguments=self.arguments,
            returncode=self.process.returncode,
            stdout=_text(self._stdout),
            stderr=_text(self._stderr),
            seconds=time.monotonic() - self._started,
            logs=_log_files(self.log_dir),
        )
        assert in_time, f"{_describe(run)}\nstill ran after {timeout:.0f} s"
        return run

    def kill(self) -> None:
        """End it and its children at once."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def start_inspect(
    arguments: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    display: str = "plain",
) -> InspectProcess:
    """Start `inspect …` and go on; `finish()` or `kill()` it.

    `arguments` begin with the command, e.g. `["eval", TASKS / "minimal.py"]` or
    `["eval", f"{TASKS}/endings.py@cached"]`. The process sees the caller's environment without
    MLFLOW_*, OTEL_* and INSPECT_*, plus `env`. Logs go to `cwd/logs`, Inspect's own data and
    cache below `cwd`.
    """
    command = [_relative(item, cwd) if isinstance(item, Path) else item for item in arguments]
    command += ["--log-dir", str(cwd / "logs"), "--display", display]
    return InspectProcess(command, cwd=cwd, env=env or {})


def run_inspect(
    arguments: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    display: str = "plain",
    timeout: float = 180,
    check: bool = True,
) -> InspectRun:
    """Run `inspect …` to its end, as `start_inspect` does.

    Raises:
        AssertionError: With `check`, it ended with another code than 0; the message holds its
            output. Or it took longer than `timeout` seconds.
    """
    run = start_inspect(arguments, cwd=cwd, env=env, display=display).finish(timeout)
    if check:
        assert run.returncode == 0, _describe(run)
    return run


def eval_task(
    name: str,
    *,
    log_dir: Path,
    task_args: Mapping[str, Any] | None = None,
    **options: Any,
) -> EvalLog:
    """Evaluate `tests/tasks/{name}.py`, or `{file}.py@{task}`, in this process and give its log.

    `options` go to `inspect_ai.eval`. The log read back from the file has what only that has.
    """
    file, _, task = name.partition("@")
    path = TASKS / f"{file.removesuffix('.py')}.py"
    target = f"{path}@{task}" if task else _relative(path, Path.cwd())
    (log,) = eval_tasks(target, log_dir=log_dir, task_args=dict(task_args or {}), **options)
    return log


def eval_tasks(tasks: Any, *, log_dir: Path, **options: Any) -> list[EvalLog]:
    """Evaluate whatever `inspect_ai.eval` takes, in this process."""
    settings: dict[str, Any] = {"display": "none", "log_format": "eval", **options}
    return inspect_ai.eval(tasks, log_dir=str(log_dir), **settings)


def read_log(path: Path | str) -> EvalLog:
    """Read a log with its samples, attachments resolved."""
    return read_eval_log(str(path), resolve_attachments=True)


def _relative(path: Path, start: Path) -> str:
    """Write a path as Inspect wants it: an absolute one is only taken with `@task` after it."""
    return os.path.relpath(path.resolve(), start.resolve())


def _log_files(directory: Path) -> list[Path]:
    files = [*directory.rglob("*.eval"), *directory.rglob("*.json")]
    return sorted(files, key=lambda path: path.stat().st_mtime_ns)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    text = file.read().decode(errors="replace")
    file.close()
    return text


def _describe(run: InspectRun) -> str:
    return (
        f"inspect {' '.join(run.arguments)} ended with {run.returncode}\n"
        f"--- stdout\n{run.stdout}\n--- stderr\n{run.stderr}"
    )
