"""`inspect-mlflow import` in this process: what it says, and with which code it ends."""

from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from inspect_mlflow.import_command import run_import


@dataclass(frozen=True)
class Ended:
    """How the command ended."""

    code: int
    text: str

    @property
    def lines(self) -> list[str]:
        return [line for line in self.text.splitlines() if line.strip()]


def import_logs(*logs: str | Path, uri: str, **options: Any) -> Ended:
    """Run the command. `options` are those of its function and settings by name."""
    said = StringIO()
    defaults = {"runs": True, "traces": True, "otlp": False, "dry_run": False, "check": False}
    code = run_import(
        [str(log) for log in logs],
        console=Console(file=said, width=200, force_terminal=False),
        **{**defaults, "tracking_uri": uri, **options},
    )
    return Ended(code, said.getvalue())
