"""Finished logs → the runs, traces, scores and artifacts that the live hooks would have made."""

from __future__ import annotations

import glob
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from inspect_mlflow.connection import Connection, ConnectionFailed
from inspect_mlflow.runs import TAG_RUN_ID, tasks_beside
from otel_bridge.errors import short_reason
from otel_bridge.logs import LogSource, local_path, read_header, reused_samples
from otel_bridge.pipeline import Delivery, Destination, finish, tracer_provider
from otel_bridge.recorder import RunRecorder
from otel_bridge.spans import iso_to_ns
from otel_bridge.tracer import SpanTracer

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample

    from inspect_mlflow.config import MLflowSettings
    from inspect_mlflow.exporter import MlflowSpans
    from inspect_mlflow.writer import RunWriter

logger = logging.getLogger("inspect_mlflow")

MOST_RUNS = 50_000
"""How many MLflow gives in one answer at most."""
FLUSH_SECONDS = 600.0
"""How long the end of an import waits for a slow server."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A log that can't be imported, and why."""

    location: str
    reason: str


@dataclass(frozen=True, slots=True)
class LogGroup:
    """The logs of one evaluation run, oldest first."""

    run_id: str
    logs: Sequence[tuple[str, EvalLog]]
    """Location and header of each."""


@dataclass(slots=True)
class Imported:
    """What an import did."""

    logs: int = 0
    samples: int = 0
    traces: int = 0
    deliveries: list[Delivery] = field(default_factory=list)
    failures: list[Unreadable] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was left as it is, and why."""


def find_logs(paths: Iterable[str]) -> Iterator[str]:
    """The logs that arguments name: files, folders, globs, and whatever Inspect reads.

    Raises
    ------
    ValueError
        If a path names nothing, or can't be listed.
    """
    for path in paths:
        try:
            found = _logs_at(path)
        except Exception as error:  # a remote file system raises what it likes
            raise ValueError(f"{path}: {_reason(error)}") from error
        if not found:
            raise ValueError(f"{path}: no log there")
        for location in found:
            local = local_path(location)
            yield location if local is None else str(local.resolve())


def _logs_at(path: str) -> list[str]:
    from inspect_ai.log import list_eval_logs

    if Path(path).is_dir():
        return [info.name for info in list_eval_logs(path, descending=False)]
    if "://" in path or Path(path).exists():
        return [path] if _is_log(path) else [info.name for info in list_eval_logs(path)]
    return sorted(glob.glob(path, recursive=True))


def _is_log(path: str) -> bool:
    return "://" not in path or path.endswith((".eval", ".json"))


def group_logs(locations: Iterable[str]) -> tuple[list[LogGroup], list[Unreadable]]:
    """Logs by their run, since one run's root span and parent run cover all its tasks."""
    groups: dict[str, list[tuple[str, EvalLog]]] = {}
    unreadable = []
    for location in dict.fromkeys(locations):
        try:
            header = read_header(location)
            run_id = header.eval.run_id or header.eval.eval_id or header.eval.created
        except Exception as error:  # whatever a broken file makes Inspect's readers raise
            unreadable.append(Unreadable(location, _reason(error)))
            continue
        groups.setdefault(run_id, []).append((location, header))
    ordered = [
        LogGroup(run_id, sorted(logs, key=lambda log: log[1].eval.created))
        for run_id, logs in groups.items()
    ]
    return sorted(ordered, key=lambda group: group.logs[0][1].eval.created), unreadable


class Importer:
    """Imports the logs of one run after the other into one MLflow experiment."""

    def __init__(
        self,
        settings: MLflowSettings,
        *,
        runs: bool = True,
        traces: bool = True,
        more_destinations: Callable[[], Sequence[Destination]] = tuple,
    ) -> None:
        """`more_destinations` makes those besides MLflow; without a tracking URI, the only ones."""
        self._settings = settings
        self._runs = runs
        self._traces = traces
        self._more_destinations = more_destinations
        self.on_sample: Callable[[], None] = lambda: None
        """Hears of each sample read."""

    def check_connection(self, *, restore: bool) -> bool:
        """Find out whether there is an MLflow and an experiment, which may be made.

        Returns whether it was deleted and has been brought back, which only `restore` does. Raises
        ConnectionFailed. Without a tracking URI nothing is to be found out.
        """
        if self._settings.tracking_uri is None:
            return False
        connection = self._connect()
        connection.open(restore=restore)
        return connection.restored

    def _connect(self) -> Connection:
        return Connection.of(self._settings)

    def _spans_to(self, connection: Connection) -> MlflowSpans:
        """Where spans go."""
        from inspect_mlflow.exporter import MlflowSpanExporter

        return MlflowSpanExporter(connection, link_runs=True)

    def _all_given(self, connection: Connection) -> None:
        """Everything of a run has gone to the connection."""

    def run(self, groups: Iterable[LogGroup]) -> Imported:
        """Import the logs of all runs. A log that fails is named, and the others go on."""
        result = Imported()
        for group in groups:
            if self._settings.tracking_uri is None:
                self._send_group(group, result)
            else:
                self._import_group(group, result)
        return result

    def _send_group(self, group: LogGroup, result: Imported) -> None:
        """The spans alone, without MLflow."""
        destinations = self._more_destinations()
        self._convert(group, destinations, None, result)
        result.deliveries += finish(destinations, time.monotonic() + FLUSH_SECONDS)

    def _import_group(self, group: LogGroup, result: Imported) -> None:
        from mlflow.exceptions import MlflowException

        from inspect_mlflow.writer import RunWriter

        connection = self._connect()
        writer = RunWriter(
            connection,
            log_artifacts=self._settings.log_artifacts,
            content=self._settings.capture_content,
            finished=True,
        )
        headers = [header for _, header in group.logs]
        first = headers[0].eval
        try:
            beside = self._tasks_beside(connection, group)
            self._find_runs(connection, writer, group, parent=bool(beside))
        except (ConnectionFailed, MlflowException) as error:
            writer.finish(0)
            reason = short_reason(error)
            result.failures += [Unreadable(location, reason) for location, _ in group.logs]
            return
        if beside:
            result.notes.append(
                f"Run {group.run_id} has more tasks, whose logs are not here: {', '.join(beside)}. "
                "Its own status, tags, metrics and root span are left as they are."
            )
        elif self._runs:
            writer.begin_run(
                group.run_id,
                first.eval_set_id,
                [header.eval.task for header in headers],
                iso_to_ns(first.created),
            )
        exporters: list[MlflowSpans] = []
        destinations = self._destinations(connection, exporters)
        written = writer if self._runs else None
        self._convert(group, destinations, written, result, whole=not beside)
        if self._runs and not beside:
            writer.end_run([])
        writer.finish(FLUSH_SECONDS)
        for failure in dict.fromkeys(writer.failures):
            result.failures.append(Unreadable(group.logs[0][0], failure))
        result.deliveries += finish(destinations, time.monotonic() + FLUSH_SECONDS)
        connection.give_up()
        for exporter in exporters:
            summaries = exporter.summaries()
            result.traces += summaries.delivered
            if lost := summaries.lost + summaries.waiting:
                reason = f"{lost} traces have no name and no scores: {summaries.reason}"
                result.failures.append(Unreadable(group.logs[0][0], reason))
        self._all_given(connection)

    def _convert(
        self,
        group: LogGroup,
        destinations: Sequence[Destination],
        writer: RunWriter | None,
        result: Imported,
        *,
        whole: bool = True,
    ) -> None:
        """All of a run's logs; the run's own span only where they are the `whole` of it."""
        recorder = RunRecorder(group.run_id, self._settings.trace_scope, self._settings.capture)
        tracer = SpanTracer(tracer_provider(destinations), version("inspect-mlflow"))
        for _, header in group.logs:
            recorder.begin_task(header.eval)
        for location, header in group.logs:
            try:
                self._import_log(location, header, writer, recorder, tracer, result)
                result.logs += 1
            except _NotRead as error:
                result.failures.append(Unreadable(location, str(error)))
            except Exception as error:  # of the conversion's own: the other logs go on
                logger.debug("Converting %s failed", location, exc_info=error)
                reason = f"it could not be converted: {_reason(error)}"
                result.failures.append(Unreadable(location, reason))
        if whole:
            tracer.emit(recorder.end())

    def _import_log(
        self,
        location: str,
        header: EvalLog,
        writer: RunWriter | None,
        recorder: RunRecorder,
        tracer: SpanTracer,
        result: Imported,
    ) -> None:
        """One log: the calls that the hooks would have made, in their order."""
        eval_id = header.eval.eval_id
        source = LogSource.of(header)
        if writer is not None:
            writer.begin_task(header.eval, header.plan, source)
        reused = reused_samples(location, header.eval)
        whole = False
        try:
            for sample in _samples(source):
                self.on_sample()
                result.samples += 1
                if writer is not None:
                    writer.add_sample(eval_id, sample, reused=sample.uuid in reused)
                if self._traces and sample.uuid not in reused:
                    spans = recorder.begin_sample(eval_id, sample.uuid, sample.id, sample.epoch)
                    if spans is not None:
                        tracer.emit(recorder.end_sample(spans, sample))
            whole = True
        finally:
            if self._traces:
                tracer.emit(recorder.end_task(header, reused))
            if writer is not None:
                writer.end_task(header, whole=whole)

    def _destinations(self, connection: Connection, opened: list[MlflowSpans]) -> list[Destination]:
        """Where spans go; the exporter to MLflow is put on `opened` when there is one."""
        if not self._traces:
            return []

        def mlflow() -> MlflowSpans:
            opened.append(self._spans_to(connection))
            return opened[-1]

        ours = [Destination("MLflow", mlflow, wait_for_room=True)] if connection.takes_spans else []
        return [*ours, *self._more_destinations()]

    def _tasks_beside(self, connection: Connection, group: LogGroup) -> list[str]:
        """The tasks that MLflow has of a run, and the group no log of."""
        client, experiment_id = connection.open()
        found = client.search_runs(
            [experiment_id], f"tags.`{TAG_RUN_ID}` = '{group.run_id}'", max_results=MOST_RUNS
        )
        return tasks_beside([header.eval for _, header in group.logs], found)

    def _find_runs(
        self, connection: Connection, writer: RunWriter, group: LogGroup, *, parent: bool
    ) -> None:
        """Runs that are not written, if only the `parent`, are those that are there."""
        keys = [(group.run_id, "run")] if parent or not self._runs else []
        if not self._runs:
            keys += [(header.eval.eval_id, "task") for _, header in group.logs]
        for key, kind in keys:
            run_id = writer.existing(key, kind)
            if run_id is None:
                connection.run(key).set_exception(ConnectionFailed(f"there is no run of {key}"))
            else:
                connection.run(key).set_result(run_id)


class _NotRead(Exception):
    """Inspect can't read a log's samples."""


def _samples(source: LogSource) -> Iterator[EvalSample]:
    try:
        yield from source.samples()
    except Exception as error:  # whatever a broken file makes Inspect's readers raise
        logger.debug("Reading %s failed", source.log.location, exc_info=error)
        raise _NotRead(_reason(error)) from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
