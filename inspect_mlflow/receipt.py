"""What reached which destination: said once, in one line, at the end of an evaluation."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from shlex import quote
from typing import Final

logger = logging.getLogger("inspect_mlflow")

TAG_PREFIX = "inspect.receipt."
"""Tags of the parent run: `inspect.receipt.mlflow.spans`, `inspect.receipt.mlflow.spans.lost`, …"""
_ORDER: Final = ("runs", "run updates", "artifacts", "spans", "traces", "assessments")


@dataclass(slots=True)
class Destination:
    """What became of everything that was meant for one place."""

    name: str
    delivered: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    reason: str | None = None

    @property
    def tag(self) -> str:
        """The destination in the name of a tag."""
        return self.name.partition(" ")[0].lower()


class Receipt:
    """Counts by destination. Both hooks of an evaluation add to the same one."""

    def __init__(self) -> None:
        self._destinations: dict[str, Destination] = {}
        self._logs: dict[str, None] = {}
        self._troubled: set[str] = set()

    def delivered(self, destination: str, what: str, count: int) -> None:
        """So many of something arrived."""
        counts = self._of(destination).delivered
        counts[what] = counts.get(what, 0) + count

    def lost(self, destination: str, what: str, count: int, reason: str | None) -> None:
        """So many of something did not arrive; nothing is said of 0."""
        if count:
            found = self._of(destination)
            found.lost[what] = found.lost.get(what, 0) + count
            found.reason = found.reason or reason

    def trouble(self, destination: str, reason: str) -> None:
        """Warn that something can't be delivered; once per destination. From any thread."""
        if destination not in self._troubled:
            self._troubled.add(destination)
            self._of(destination).reason = reason
            said = reason if destination in reason else f"{destination}: {reason}"
            logger.warning("%s. The evaluation goes on; its log has everything.", said.rstrip("."))

    def log(self, location: str) -> None:
        """Where a log of the evaluation is."""
        if location:
            self._logs[location] = None

    @property
    def is_whole(self) -> bool:
        """Whether everything arrived."""
        return not any(destination.lost for destination in self._destinations.values())

    def tags(self) -> dict[str, str]:
        """The same numbers, for a script."""
        tags = {}
        for destination in self._destinations.values():
            for what, count in destination.delivered.items():
                tags[f"{TAG_PREFIX}{destination.tag}.{what}"] = str(count)
            for what, count in destination.lost.items():
                tags[f"{TAG_PREFIX}{destination.tag}.{what}.lost"] = str(count)
        return tags

    def summary(self) -> str:
        """What arrived, in one line."""
        parts = []
        for destination in sorted(self._destinations.values(), key=lambda found: found.tag):
            parts.append(f"{destination.name}: {_counts(destination.delivered) or 'nothing'}")
        return " · ".join(parts)

    def complaint(self) -> str:
        """What did not arrive."""
        parts = []
        for destination in self._destinations.values():
            if destination.lost:
                reason = (destination.reason or "").removeprefix(f"{destination.name}: ")
                lost = _counts(destination.lost)
                parts.append(f"{lost} did not reach {destination.name} ({reason.rstrip('.')})")
        return ". ".join(parts)

    def command(self) -> str:
        """What sends it later."""
        near = dict.fromkeys(_near(location) for location in self._logs)  # as hooks name them
        logs = " ".join(map(quote, near)) or "LOG"
        otlp = any(d.lost and not d.name.startswith("MLflow") for d in self._destinations.values())
        return f"inspect-mlflow import {'--otlp ' if otlp else ''}{logs}"

    def say(self) -> None:
        """One line for the person who waits, or one warning and one line to copy."""
        if not self.is_whole and _is_shown():
            # Inspect breaks the lines of its log where they end on the screen
            logger.warning("%s. To send it from the log:", self.complaint())
            print(self.command(), file=sys.stderr)
        elif not self.is_whole:
            logger.warning("%s. To send it from the log: %s", self.complaint(), self.command())
        elif self._destinations and _is_shown():
            print(self.summary(), file=sys.stderr)

    def _of(self, name: str) -> Destination:
        return self._destinations.setdefault(name, Destination(name))


def _near(location: str) -> str:
    """A location as a person would type it here."""
    here = os.getcwd() + os.sep
    return location[len(here) :] if location.startswith(here) else location


def _counts(numbers: Mapping[str, int]) -> str:
    """The numbers that are not 0, always in the same order."""
    names = dict.fromkeys([*_ORDER, *numbers])
    found = {what: count for what in names if (count := numbers.get(what))}
    return ", ".join(f"{count:,} {_plural(what, count)}" for what, count in found.items())


def _plural(what: str, count: int) -> str:
    return what.removesuffix("s") if count == 1 else what


def _is_shown() -> bool:
    from inspect_ai.util import display_type

    return display_type() != "none"
