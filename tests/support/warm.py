"""`inspect-mlflow …` in a process of its own, forked from one that has imported everything.

Importing MLflow and Inspect takes most of such a command's time.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from tests.support.environment import clean_environ

_MODULES = (
    "inspect_mlflow.artifacts",
    "inspect_mlflow.cli",
    "inspect_mlflow.exporter",
    "inspect_mlflow.import_command",
    "inspect_mlflow.writer",
    "inspect_ai.log",
    "mlflow.store.tracking.rest_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.tracking.request_header.registry",
    "otel_bridge.replay",
)

_context = get_context("forkserver")
_context.set_forkserver_preload([*_MODULES])


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    returncode: int
    output: str


def run_warm(
    arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float = 240
) -> Finished:
    """Run `inspect-mlflow` with these arguments to its end; `env` as in `start_inspect`.

    Raises:
        AssertionError: It took longer than `timeout` seconds.
    """
    output = cwd / "output.txt"
    process = _context.Process(
        target=_main, args=(list(arguments), cwd, clean_environ({"NO_COLOR": "1", **env}), output)
    )
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        process.join()
    text = output.read_text(errors="replace")
    assert process.exitcode is not None
    assert process.exitcode >= 0, f"{arguments} took longer than {timeout:.0f} s: {text}"
    return Finished(process.exitcode, text)


def _main(arguments: list[str], cwd: Path, environ: Mapping[str, str], output: Path) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    from inspect_mlflow.cli import main

    main(arguments, prog_name="inspect-mlflow")
