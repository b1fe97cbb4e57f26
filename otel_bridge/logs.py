"""Finished logs, read a few samples at a time."""

from __future__ import annotations

import io
import json
import logging
import shutil
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit
from zipfile import ZipFile

from otel_bridge.errors import short_reason

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample, EvalSampleSummary, EvalSpec

logger = logging.getLogger(__name__)

_CHUNK_BYTES: Final = 1_000_000
_CHUNK_SAMPLES: Final = 50
"""How much JSON is read at once, if more than a sample: Inspect opens the file anew each time."""


@dataclass(frozen=True)
class LogSource:
    """A log whose samples are in a file, or, failing that, in memory."""

    log: EvalLog
    path: Path | None
    """The file, if it is on this machine."""

    @classmethod
    def of(cls, log: str | Path | EvalLog) -> LogSource:
        """The source for a path, a URL or a log. Reads at most the header."""
        from inspect_ai.log import EvalLog

        if not isinstance(log, EvalLog):
            log = read_header(log)
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
        import fsspec  # type: ignore[import-untyped]

        if self.path is not None or not self.log.location:
            return self
        path = folder / Path(urlsplit(self.log.location).path).name
        with fsspec.open(self.log.location, "rb") as remote, path.open("wb") as copy:
            shutil.copyfileobj(remote, copy, 1_000_000)
        return LogSource(self.log, path)

    def summaries(self) -> Sequence[EvalSampleSummary | EvalSample]:
        """What Inspect keeps of each sample beside the samples; a `.json` log is read for it."""
        from inspect_ai.log import read_eval_log_sample_summaries

        samples = self._in_memory()
        if samples is not None or not self._location:
            return samples or ()
        if self._location.endswith(".json"):
            return [sample.summary() for sample in self.samples()]
        return read_eval_log_sample_summaries(self._location)

    def samples(self) -> Iterator[EvalSample]:
        """All samples, whole, with their attachments; a few of them in memory at a time."""
        samples = self._in_memory()
        if samples is not None:
            return map(with_attachments, samples)
        if not self._location:
            return iter(())
        if self._location.endswith(".json"):
            return self._of_json()
        return self._of_zip([(summary.id, summary.epoch) for summary in self.in_order()])

    def samples_beside(self, known: Container[str]) -> Iterator[EvalSample | str]:
        """The same; in the place of those with `known` uuids, where that saves time, their uuid."""
        if self._in_memory() is not None or not self._location.endswith(".eval"):
            yield from self.samples()
            return
        for is_known, group in groupby(self.in_order(), lambda summary: summary.uuid in known):
            if is_known:
                yield from (summary.uuid or "" for summary in group)
            else:
                yield from self._of_zip([(summary.id, summary.epoch) for summary in group])

    def in_order(self) -> Sequence[EvalSampleSummary | EvalSample]:
        """The summaries in the order of the dataset, epoch by epoch."""
        order = {id: place for place, id in enumerate(self.log.eval.dataset.sample_ids or ())}
        return sorted(
            self.summaries(),
            key=lambda summary: (summary.epoch, order.get(summary.id, len(order))),
        )

    def _of_zip(self, keys: Sequence[tuple[int | str, int]]) -> Iterator[EvalSample]:
        from inspect_ai.log import read_eval_log_samples_by_id

        for chunk in self._chunks(keys):
            for sample in read_eval_log_samples_by_id(
                self._location, chunk, concurrency=1, resolve_attachments="core"
            ):
                yield self._of_pool(sample) if _lacks_inputs(sample) else sample

    def _chunks(
        self, keys: Sequence[tuple[int | str, int]]
    ) -> Iterator[Sequence[tuple[int | str, int]]]:
        """Samples that are read together."""
        import fsspec

        with fsspec.open(self._location, "rb") as file, ZipFile(file) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        chunk: list[tuple[int | str, int]] = []
        total = 0
        for key in keys:
            size = sizes.get(_member(*key), 0)
            if chunk and (len(chunk) == _CHUNK_SAMPLES or total + size > _CHUNK_BYTES):
                yield chunk
                chunk, total = [], 0
            chunk.append(key)
            total += size
        if chunk:
            yield chunk

    def _of_pool(self, sample: EvalSample) -> EvalSample:
        """A sample whose messages stand in a pool that today's Inspect does not look for."""
        import fsspec

        with fsspec.open(self._location, "rb") as file, ZipFile(file) as archive:
            raw = json.loads(archive.read(_member(sample.id, sample.epoch)))
            return _Reader(self.log)(raw)

    def _of_json(self) -> Iterator[EvalSample]:
        """In the order of the file, each read by Inspect as a log of its own."""
        import fsspec
        import ijson  # type: ignore[import-untyped]
        from inspect_ai.log import read_eval_log

        read = _Reader(self.log)
        done = 0
        try:
            with fsspec.open(self._location, "rb") as file:
                for raw in ijson.items(file, "samples.item", use_float=True):
                    yield read(raw)
                    done += 1
        except (
            ijson.JSONError,
            ValueError,
        ):  # NaN and infinities, which not every reader takes
            log = read_eval_log(self._location, resolve_attachments="core")
            yield from islice(log.samples or (), done, None)


class _Reader:
    """Has Inspect read the JSON of samples, each as the only one of a log."""

    def __init__(self, log: EvalLog) -> None:
        self._log = {"version": 2, "eval": log.eval.model_dump(mode="json")}

    def __call__(self, raw: dict[str, Any]) -> EvalSample:
        from inspect_ai.log import read_eval_log

        data = json.dumps({**self._log, "samples": [_promoted(raw)]}).encode()
        log = read_eval_log(io.BytesIO(data), resolve_attachments="core")
        assert log.samples is not None
        return log.samples[0]


def with_attachments(sample: EvalSample) -> EvalSample:
    """A sample whose contents all stand in their places, however Inspect has stored them."""
    from inspect_ai.log import resolve_sample_attachments

    stored = sample.attachments or sample.events_data
    return resolve_sample_attachments(sample, "core") if stored else sample


def read_header(log: str | Path) -> EvalLog:
    """A log without its samples, from a path or URL."""
    from inspect_ai.log import read_eval_log

    return read_eval_log(str(log), header_only=True)


def reused_samples(location: str, spec: EvalSpec) -> dict[str, EvalSpec]:
    """The samples of a retried task that were run for an earlier log, by uuid, with its spec.

    A retry writes a log of its own with the samples that it takes over, uuids unchanged. The log
    they come from has the same task id (part of its name), and lies in the same folder. Where
    that can't be read, a warning says so: then they are the retry's own.
    """
    import fsspec

    if not spec.task_id or not location:
        return {}
    reused: dict[str, EvalSpec] = {}
    try:
        files, path = fsspec.core.url_to_fs(location)
        own = (spec.created, _modified(files.info(path)))
        earlier: list[_Attempt] = []
        for info in files.ls(path.rpartition("/")[0] or ".", detail=True):
            name = str(info["name"])
            if spec.task_id in name and name.endswith((".eval", ".json")):
                earlier += _before(own, info, files.unstrip_protocol(name), spec)
        if earlier:
            uuids = {summary.uuid for summary in LogSource.of(location).summaries()}
            for attempt in sorted(earlier, key=lambda attempt: (attempt.time, attempt.location)):
                for summary in attempt.summaries:
                    if summary.uuid and summary.uuid in uuids:
                        reused.setdefault(summary.uuid, attempt.spec)
    except Exception as error:  # a remote file system raises what it likes
        _not_linked(location, error)
    return reused


class _Attempt(NamedTuple):
    """An earlier attempt at a task, by its log."""

    time: tuple[str, float]
    location: str
    spec: EvalSpec
    summaries: Sequence[EvalSampleSummary | EvalSample]


def _before(
    own: tuple[str, float], info: Mapping[str, Any], location: str, spec: EvalSpec
) -> Iterator[_Attempt]:
    """The attempt that a log beside that of a task is of, if it is an earlier one."""
    try:
        source = LogSource.of(location)
        other = source.log.eval
        time = (other.created, _modified(info))
        if other.task_id == spec.task_id and other.eval_id != spec.eval_id and time < own:
            yield _Attempt(time, location, other, source.summaries())
    except Exception as error:  # whatever a broken file makes Inspect's readers raise
        _not_linked(location, error)


def _not_linked(location: str, error: Exception) -> None:
    logger.warning(
        "Samples that a retry took over are not linked; %s: %s", location, short_reason(error)
    )


def local_path(location: str) -> Path | None:
    """The path of a location on this machine, None for any other."""
    parts = urlsplit(location)
    if parts.scheme == "file":
        from urllib.request import url2pathname  # it imports much

        return Path(url2pathname(parts.path))  # file:///C:/logs is C:\logs on Windows
    return Path(location) if location and "://" not in location else None


def _modified(info: Mapping[str, Any]) -> float:
    """When a file was last written, where its file system says so."""
    modified = info.get("mtime") or info.get("LastModified") or 0
    return float(modified if isinstance(modified, int | float) else modified.timestamp())


def _member(id: int | str, epoch: int) -> str:
    """The name of a sample in an `.eval` file."""
    return f"samples/{id}_epoch_{epoch}.json"


def _lacks_inputs(sample: EvalSample) -> bool:
    return any(e.event == "model" and e.input_refs and not e.input for e in sample.events)


def _promoted(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample with its events and messages where newer logs have them.

    Inspect moves events too, but then makes up a uuid for each at every read.
    """
    transcript = sample.pop("transcript", None)
    if transcript is not None:
        sample["events"] = transcript.get("events", [])
        sample["attachments"] = transcript.get("content", {})
    if "message_pool" in sample and not sample.get("events_data"):
        sample["events_data"] = {
            "messages": sample.pop("message_pool"),
            "calls": sample.pop("call_pool", []),
        }
    return sample
