"""Finished logs, read a few samples at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample, EvalSampleSummary

_CHUNK_BYTES: Final = 500_000
_CHUNK_SAMPLES: Final = 50
"""How much of a log is read at once: Inspect opens the file anew for each chunk."""


@dataclass(frozen=True)
class LogSource:
    """A log whose samples are in a file, or, failing that, in memory."""

    log: EvalLog
    path: Path | None
    """The file, if it is on this machine."""

    @classmethod
    def of(cls, log: str | Path | EvalLog) -> LogSource:
        """The source for a path, a URL or a log. Reads at most the header."""
        from inspect_ai.log import EvalLog, read_eval_log

        if not isinstance(log, EvalLog):
            log = read_eval_log(str(log), header_only=True)
        return cls(log, local_path(log.location))

    @property
    def header(self) -> EvalLog:
        """The log without its samples."""
        return self.log.model_copy(update={"samples": None, "reductions": None})

    @property
    def name(self) -> str:
        """A name for files made of the log: that of its file."""
        location = self.log.location
        return Path(urlsplit(location).path).stem if location else self.log.eval.eval_id

    @property
    def _location(self) -> str:
        return str(self.path) if self.path is not None else self.log.location

    def _in_memory(self) -> Sequence[EvalSample] | None:
        # a log just finished has a lazy list: touching it would load the whole file
        samples = self.log.samples
        return samples if type(samples) is list else None

    def local(self, folder: Path) -> LogSource:
        """The same with its file on this machine: copied to the folder if it is elsewhere."""
        if self.path is not None or not self.log.location:
            return self
        fsspec: Any = import_module("fsspec")  # it has no types
        path = folder / Path(urlsplit(self.log.location).path).name
        with fsspec.open(self.log.location, "rb") as remote, path.open("wb") as copy:
            shutil.copyfileobj(remote, copy, 1_000_000)
        return LogSource(self.log, path)

    def summaries(self) -> Sequence[EvalSampleSummary | EvalSample]:
        """What Inspect keeps of each sample beside the samples."""
        from inspect_ai.log import read_eval_log_sample_summaries

        samples = self._in_memory()
        if samples is not None or not self._location:
            return samples or ()
        return read_eval_log_sample_summaries(self._location)

    def samples(self) -> Iterator[EvalSample]:
        """All samples, whole, with their attachments."""
        from inspect_ai.log import read_eval_log, resolve_sample_attachments

        samples = self._in_memory()
        if samples is None and self._location.endswith(".json"):
            samples = read_eval_log(self._location).samples or []
        if samples is not None:
            for sample in samples:
                yield resolve_sample_attachments(sample, "core")
        elif self._location:
            yield from self._from_file()

    def _from_file(self) -> Iterator[EvalSample]:
        from inspect_ai.log import read_eval_log_samples_by_id

        order = {id: place for place, id in enumerate(self.log.eval.dataset.sample_ids or ())}
        keys = [(summary.id, summary.epoch) for summary in self.summaries()]
        keys.sort(key=lambda key: (key[1], order.get(key[0], len(order))))
        average = self.path.stat().st_size // max(1, len(keys)) if self.path else _CHUNK_BYTES
        size = min(_CHUNK_SAMPLES, max(1, _CHUNK_BYTES // max(1, average)))
        for start in range(0, len(keys), size):
            yield from read_eval_log_samples_by_id(
                self._location,
                keys[start : start + size],
                concurrency=1,
                resolve_attachments="core",
            )


def local_path(location: str) -> Path | None:
    """The path of a location on this machine, None for any other."""
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(location) if location and "://" not in location else None
