"""The one background writer to MLflow of an evaluation run: in order, with a bounded flush."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from getpass import getuser
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, TypeVar

from inspect_mlflow import runs
from inspect_mlflow.artifacts.manager import SampleRows, TaskFiles, sample_lines
from inspect_mlflow.connection import Connection, ConnectionFailed
from inspect_mlflow.metrics import (
    Calls,
    FinishedSample,
    Point,
    Progress,
    call_totals,
    final_metrics,
    has_samples,
    run_metrics,
)
from otel_bridge.background import BackgroundThread
from otel_bridge.errors import OVER, short_reason
from otel_bridge.live import sample_bytes
from otel_bridge.logs import LogSource, read_header
from otel_bridge.spans import iso_to_ns

if TYPE_CHECKING:
    from inspect_ai.log import (
        EvalLog,
        EvalPlan,
        EvalSample,
        EvalSampleSummary,
        EvalSpec,
        EvalStatus,
    )

logger = logging.getLogger("inspect_mlflow")

T = TypeVar("T")

_PACKAGE: Final = "inspect-mlflow"

BATCH_METRICS: Final = 1000
BATCH_PARAMS: Final = 100
BATCH_TAGS: Final = 100
"""MLflow's limits for one request."""

WRITE_SECONDS: Final = 2.0
"""How long points wait for others to share a request with, and for samples that ended earlier."""
LIVE_SECONDS: Final = 15.0
"""How often what running samples have done so far is written."""
ROWS_BYTES: Final = 64 * 1024 * 1024
"""How much memory finished samples keep at most that wait to be made rows of."""
ROWS_SECONDS: Final = 60.0
"""How long the end of a task waits at most for the last of them."""
MOST_WAITING: Final = 50_000
"""How many samples of a running task may wait for a slow server; each keeps about 1 KB."""
LOOK_SECONDS: Final = 5.0
"""How long a request may take before it is looked whether MLflow is still there: its own client
tries for minutes without a word."""
STEP_SECONDS: Final = 0.2
"""How long artifacts are worked at before whatever else is waiting has its turn."""


@dataclass
class LiveCounts:
    """What all samples of a task have done so far; counted where it happens, on the event loop."""

    model_calls: int = 0
    tool_calls: int = 0
    total_tokens: int = 0

    def points(self, started_ns: int, now_ns: int) -> list[Point]:
        """Points whose steps are the seconds since the start."""
        step = (now_ns - started_ns) // 1_000_000_000
        return [
            Point(f"live/{name}", value, now_ns // 1_000_000, step)
            for name, value in vars(self).items()
        ]


@dataclass
class _Task:
    """A task on its way to its run."""

    spec: EvalSpec
    plan: EvalPlan
    location: str = ""
    live: LiveCounts = field(default_factory=LiveCounts)
    finished: deque[FinishedSample] = field(default_factory=deque)
    progress: Progress = field(default_factory=Progress)
    live_written: tuple[float, tuple[int, ...]] = (0.0, (0, 0, 0))
    rows: SampleRows | None = None
    """Those of the samples that have ended, for its artifacts."""
    read: _ReadLog | None = None
    """What has been read of its log, when that is finished."""

    @property
    def started_ns(self) -> int:
        return iso_to_ns(self.spec.created) or 0


class _ReadLog:
    """What a task's end needs of the samples of a finished log, taken from each as it is read."""

    def __init__(self, source: LogSource, *, files: bool) -> None:
        self.files = TaskFiles(source) if files else None
        self.summaries: list[EvalSampleSummary] = []
        self.calls: list[Calls] = []

    def add(self, sample: EvalSample) -> None:
        self.summaries.append(sample.summary())
        self.calls.append(Calls.of(sample.events))
        if self.files is not None:
            self.files.add(sample_lines(sample))


class RunWriter:
    """Writes the runs of one evaluation run. All methods but `finish` return at once.

    What MLflow refuses is noted and the rest goes on. Once it can't be reached any more, nothing
    is tried again, so that a dead server costs one wait and not one per call.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        log_artifacts: bool = False,
        content: bool = True,
        finished: bool = False,
    ) -> None:
        """`finished`: the evaluation is over and may have been recorded before.

        Then runs that are there are completed instead of made, and samples may come in any order.
        """
        self.failures: list[str] = []
        self.unreachable = False
        self.written: Counter[str] = Counter()
        self.locations: list[str] = []
        """Where the logs of the tasks are."""
        self._connection = connection
        self._log_artifacts = log_artifacts
        self._content = content
        self._finished = finished
        self._thread = BackgroundThread("inspect-runs")
        # one that waits for no server; samples that it refuses are read from the log later
        self._rows_thread = BackgroundThread("inspect-rows", limit=ROWS_BYTES)
        # one for files: however long they take, runs begin and end
        self._uploads = BackgroundThread("inspect-uploads")
        self._tasks: dict[str, _Task] = {}
        self._run_id: str | None = None
        # the rest is only touched by the background thread
        self._calls: dict[str, Calls] = {}
        self._statuses: dict[str, str] = {}
        self._ended: dict[str, tuple[EvalLog, Mapping[str, float]]] = {}
        self._last_ns = 0
        self._jobs = 0
        self._ticking = False
        self._wake = threading.Event()
        self._counting = threading.Lock()
        self._waiting = 0
        self._over = False

    # --- from the hooks ------------------------------------------------------------------------

    def begin_run(
        self,
        run_id: str,
        eval_set_id: str | None,
        task_names: list[str],
        started_ns: int | None = None,
    ) -> None:
        """Create the parent run. It starts now unless said otherwise."""
        self._run_id = run_id
        started_ns = started_ns or time.time_ns()
        self._submit(partial(self._begin_run, run_id, eval_set_id, task_names, started_ns), run_id)

    def begin_task(self, spec: EvalSpec, plan: EvalPlan, finished: LogSource | None = None) -> None:
        """Create a task's run under it; an earlier attempt at the same task is over.

        With the `finished` log, all its samples have to come, by `add_sample`.
        """
        for task in list(self._tasks.values()):
            if task.spec.task_id == spec.task_id:
                self._end_without_log(task, "error")
        task = self._tasks[spec.eval_id] = _Task(spec, plan)
        if finished is not None:
            task.read = _ReadLog(finished, files=self._log_artifacts)
        elif self._log_artifacts:
            task.rows = SampleRows()
        self._submit(partial(self._begin_task, task), spec.eval_id)

    def live(self, eval_id: str | None) -> LiveCounts | None:
        """Where to count what a task's samples do."""
        task = self._tasks.get(eval_id or "")
        return task.live if task is not None else None

    def locate(self, eval_id: str, location: str) -> None:
        """Note where a task's log is being written."""
        if (task := self._tasks.get(eval_id)) is not None:
            task.location = location

    def end_sample(self, eval_id: str, sample: EvalSample) -> None:
        """A sample is finished. It is reduced at once: a slow server must not pile samples up."""
        task = self._tasks.get(eval_id)
        if task is None or self.unreachable:  # they would only pile up
            return
        if len(task.finished) >= MOST_WAITING and not self._finished:
            reason = f"more than {MOST_WAITING:,} samples were waiting"
            if reason not in self.failures:
                self.failures.append(reason)
            return
        task.finished.append(FinishedSample.of(sample))
        if task.rows is not None:
            self._rows_thread.submit(partial(task.rows.add, sample), sample_bytes(sample))

    def add_sample(self, eval_id: str, sample: EvalSample, *, reused: bool) -> None:
        """A sample of a finished log; `reused` when an earlier evaluation ran it."""
        task = self._tasks[eval_id]
        assert task.read is not None
        task.read.add(sample)
        if not reused:
            self.end_sample(eval_id, sample)

    def end_task(self, log: EvalLog, *, whole: bool = True) -> None:
        """Write a finished task's metrics, status and artifacts.

        Of a log that can't be read as a `whole` only the status is written, and what its header
        says of it.
        """
        task = self._tasks.pop(log.eval.eval_id, None)
        if task is not None:
            self.locations.append(log.location)
            self._submit(partial(self._end_task, task, log, whole))

    def end_run(self, logs: Sequence[EvalLog], error: BaseException | None = None) -> None:
        """End the parent run, and whatever task is still open."""
        for log in logs:
            self.end_task(log)
        for task in list(self._tasks.values()):
            self._end_without_log(task, "cancelled")
        self._submit(partial(self._end_run, error, time.time_ns()))

    def finish(self, timeout: float) -> bool:
        """Wait until all is written, at most `timeout` seconds, then stop. Blocks.

        What has not been written then never is, and counts as a failure.
        """
        deadline = time.monotonic() + timeout
        done = threading.Event()
        self._thread.submit(partial(self._when_idle, done))
        self._wake.set()
        in_time = done.wait(timeout)
        in_time = in_time and self._uploads.flush(max(0.0, deadline - time.monotonic()))
        for thread in (self._thread, self._rows_thread, self._uploads):
            thread.close()
        if not in_time:
            self.give_up()
        return in_time

    def give_up(self) -> None:
        """Write nothing from now on; what is waiting counts as a failure."""
        with self._counting:
            if not self._over:
                self.unreachable = self._over = True
                self.failures += [OVER] * self._waiting

    def _end_without_log(self, task: _Task, status: EvalStatus) -> None:
        """End a task that Inspect gives no log for: its file is all there is."""
        self.locations.append(task.location)
        del self._tasks[task.spec.eval_id]
        self._submit(partial(self._end_from_file, task, status))

    def _submit(self, item: Callable[[], None], creates: str | None = None) -> None:
        self._await()
        self._thread.submit(partial(self._do, item, creates))
        self._wake.set()

    def _await(self, count: int = 1) -> None:
        with self._counting:
            self._waiting += count

    # --- on the background thread --------------------------------------------------------------

    def _do(self, item: Callable[[], None], creates: str | None) -> None:
        self._guarded(item, creates)
        self._await(-1)

    def _guarded(self, item: Callable[[], None], creates: str | None = None) -> None:
        """Run an item: the boundary where failures end, of MLflow, of the log's storage, of ours.

        `creates` names the run that others wait for: they are told in any case.
        """
        failure: Exception | None = None
        if self.unreachable:
            self._lose(next(iter(self.failures), OVER))
        else:
            watch = threading.Timer(LOOK_SECONDS, self._look)
            watch.daemon = True
            watch.name = "inspect-watch"
            watch.start()
            try:
                item()
                return
            except Exception as error:
                failure = error
                self._note(error)
            finally:
                watch.cancel()
        if creates is not None and not self._connection.run(creates).done():
            self._connection.run(creates).set_exception(
                failure if isinstance(failure, ConnectionFailed) else ConnectionFailed(str(failure))
            )

    def _look(self) -> None:
        """A request takes long: say so if MLflow is in trouble."""
        if (reason := self._connection.trouble()) is not None:
            self._connection.on_trouble(self._connection.name, reason)

    def _lose(self, reason: str) -> None:
        with self._counting:
            if not self._over:
                self.failures.append(reason)

    def _note(self, error: Exception) -> None:
        reason = short_reason(error)
        self._lose(reason)
        logger.debug("Writing to MLflow failed", exc_info=error)
        if isinstance(error, ConnectionFailed):
            self.unreachable = True
        elif (trouble := self._connection.trouble()) is not None:
            self.unreachable, reason = True, trouble
        self._connection.on_trouble(self._connection.name, reason)

    def _begin_run(
        self, run_id: str, eval_set_id: str | None, task_names: list[str], start_ns: int
    ) -> None:
        tags = runs.run_tags(run_id, eval_set_id, task_names)
        self._create(run_id, runs.run_name(task_names), tags, start_ns)

    def _begin_task(self, task: _Task) -> None:
        from mlflow.entities import Param

        spec = task.spec
        parent = self._connection.run(spec.run_id)
        tags = runs.task_tags(spec, task.plan, content=self._content)
        tags["mlflow.parentRunId"] = parent.result(timeout=0)
        if (earlier := self._earlier_attempt(spec)) is not None:
            tags[runs.TAG_RETRY_OF] = earlier
        started = task.started_ns or time.time_ns()
        run_id = self._create(spec.eval_id, runs.task_name(spec), tags, started)
        if not self._ticking and not self._finished:
            self._ticking = True
            self._thread.submit(self._tick)
        client, _ = self._connection.open()
        values = runs.task_params(spec, task.plan, content=self._content)
        params = [Param(key, value) for key, value in values.items()]
        for batch in _batches(params, BATCH_PARAMS):
            client.log_batch(run_id, params=batch, synchronous=True)
        for owner in (run_id, parent.result(timeout=0)):
            client.log_inputs(owner, datasets=[runs.dataset_input(spec)])

    def _create(self, key: str, name: str, tags: Mapping[str, str], start_ns: int) -> str:
        client, experiment_id = self._connection.open()
        from mlflow.entities import RunTag  # only now: see Connection.open

        items = list(tags.items())
        run_id = self.existing(key, tags[runs.TAG_KIND]) if self._finished else None
        if run_id is None:
            ours = {"mlflow.user": _user(), "inspect.package.inspect_mlflow": version(_PACKAGE)}
            items = list({**ours, **tags}.items())
            run = client.create_run(
                experiment_id,
                start_time=start_ns // 1_000_000,
                tags=dict(items[:BATCH_TAGS]),
                run_name=name,
            )
            run_id = str(run.info.run_id)
            items = items[BATCH_TAGS:]
        # at once: a run that is there gets its end, whatever else fails
        if not (created := self._connection.run(key)).done():  # else this is a copy of a log
            created.set_result(run_id)
        self.written["runs"] += 1
        for batch in _batches(items, BATCH_TAGS):
            client.log_batch(run_id, tags=[RunTag(*item) for item in batch], synchronous=True)
        return run_id

    def existing(self, key: str, kind: str) -> str | None:
        """The MLflow run of an Inspect `run` or `task`, if the experiment has it. Blocks."""
        client, experiment_id = self._connection.open()
        tag = {"run": runs.TAG_RUN_ID, "task": runs.TAG_EVAL_ID}[kind]
        found = client.search_runs(
            [experiment_id],
            f"tags.`{tag}` = '{key}' and tags.`{runs.TAG_KIND}` = '{kind}'",
            max_results=1,
            order_by=["attributes.start_time ASC"],
        )
        return str(found[0].info.run_id) if found else None

    def _earlier_attempt(self, spec: EvalSpec) -> str | None:
        """The run of the latest earlier attempt at a task: a retry keeps the task's id."""
        client, experiment_id = self._connection.open()
        found = client.search_runs(
            [experiment_id],
            f"tags.`{runs.TAG_TASK_ID}` = '{spec.task_id}' "
            f"and tags.`{runs.TAG_EVAL_ID}` != '{spec.eval_id}' "
            f"and attributes.start_time <= {(iso_to_ns(spec.created) or 0) // 1_000_000}",
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
        return str(found[0].info.run_id) if found else None

    def _tick(self) -> None:
        """Write what has come together, as long as tasks are running."""
        if not self._jobs:
            self._wake.wait(WRITE_SECONDS)
            self._wake.clear()
        # samples that ended just now wait: one that ended before them may still be under way here
        until = time.time_ns() - int(WRITE_SECONDS * 1e9)
        for task in list(self._tasks.values()):
            self._guarded(partial(self._write_points, task, until))
        self._ticking = bool(self._tasks) and not self.unreachable
        if self._ticking:
            self._thread.submit(self._tick)

    def _write_points(self, task: _Task, until_ns: int | None = None) -> None:
        run_id = self._run_of(task)
        if run_id is None:
            return
        waiting = sorted(
            (task.finished.popleft() for _ in range(len(task.finished))),
            key=lambda sample: sample.order,
        )
        points = []
        for sample in waiting:
            if until_ns is not None and sample.ended_ns > until_ns:
                task.finished.append(sample)
                continue
            self._calls[sample.uuid] = sample.calls
            points += task.progress.add(sample)
        if until_ns is not None:
            points += _live_points(task)
        self._log_metrics(run_id, points)

    def _run_of(self, task: _Task) -> str | None:
        """A task's MLflow run, None while there is none and if it could not be created."""
        run = self._connection.run(task.spec.eval_id)
        if not run.done():
            return None
        return run.result() if run.exception() is None else None

    def _log_metrics(self, run_id: str, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        client, _ = self._connection.open()
        for batch in _batches([Metric(*point) for point in points], BATCH_METRICS):
            client.log_batch(run_id, metrics=batch, synchronous=True)

    def _end_from_file(self, task: _Task, status: EvalStatus) -> None:
        from inspect_ai.log import EvalLog

        log = EvalLog(eval=task.spec, plan=task.plan, status=status, location=task.location)
        whole = False
        if task.location:
            try:
                log = read_header(task.location)
                whole = True
            except Exception as error:  # storage, zip, JSON, validation: it may be half written
                logger.debug("Can't read %s", task.location, exc_info=error)
                self._lose(f"{task.location} can't be read: {short_reason(error)}")
        self._end_task(task, log, whole)

    def _end_task(self, task: _Task, log: EvalLog, whole: bool) -> None:
        run_id = self._run_of(task)
        if run_id is None:
            return
        status = runs.run_status(log.status)
        self._statuses[_task_key(log)] = status
        ended_ns = _ended_ns(log, task.read) or time.time_ns()
        self._last_ns = max(self._last_ns, ended_ns)
        # the status first: nothing that can fail after it leaves the run open
        self._guarded(partial(self._connection.end_run, run_id, status, ended_ns // 1_000_000))
        self._guarded(partial(self._write_tags, run_id, log))
        read = task.read
        if whole or read is None:
            self._guarded(partial(self._write_points, task))
        if not whole:
            return
        if read is not None:
            self._guarded(
                partial(self._write_end, run_id, log, read.summaries, read.calls, ended_ns)
            )
            if read.files is not None:
                self._upload(run_id, read.files)
            return
        source = LogSource.of(log)
        found: list[Sequence[EvalSampleSummary | EvalSample]] = []
        self._guarded(lambda: found.append(source.summaries()))
        for summaries in found:
            calls = [self._calls.get(summary.uuid or "") for summary in summaries]
            known = [call for call in calls if call is not None]
            missing = len(known) < len(calls) and log.status != "started"
            totals = None if missing else known
            self._guarded(partial(self._write_end, run_id, log, summaries, totals, ended_ns))
            if self._log_artifacts or missing:
                self._start(self._complete(run_id, task, source, ended_ns, missing=missing))

    def _write_tags(self, run_id: str, log: EvalLog) -> None:
        from mlflow.entities import RunTag

        client, _ = self._connection.open()
        tags = runs.end_tags(log, content=self._content)
        client.log_batch(run_id, tags=[RunTag(*tag) for tag in tags.items()], synchronous=True)

    def _write_end(
        self,
        run_id: str,
        log: EvalLog,
        summaries: Sequence[EvalSampleSummary | EvalSample],
        calls: Sequence[Calls] | None,
        ended_ns: int,
    ) -> None:
        if log.status == "started":
            return  # it is being written, or was cut off: nothing in it is final
        metrics = final_metrics(log, summaries)
        if calls is not None and has_samples(log):
            metrics |= call_totals(calls)
        self._log_metrics(run_id, _at(ended_ns, metrics))
        self._ended[_task_key(log)] = (LogSource.of(log).header, metrics)

    def _upload(self, run_id: str, files: TaskFiles) -> None:
        self._await()
        self._uploads.submit(partial(self._do, partial(self._write_files, run_id, files), None))

    def _write_files(self, run_id: str, files: TaskFiles) -> None:
        from inspect_mlflow.artifacts import ArtifactManager

        client, _ = self._connection.open()
        manager = ArtifactManager(client)
        with files:
            manager.upload(run_id, files)
        self.written["artifacts"] += manager.uploaded

    def _complete(
        self, run_id: str, task: _Task, source: LogSource, ended_ns: int, *, missing: bool
    ) -> Iterator[None]:
        """Write the artifacts, and what comes of samples that fired no hooks: they are read."""
        rows = task.rows
        files = None if rows is None else TaskFiles(source)
        if rows is not None and not self._rows_thread.flush(ROWS_SECONDS):
            rows = SampleRows()  # those are still being written: all samples are read
        known = {uuid for uuid in self._calls if rows is None or uuid in rows}
        calls = []
        for sample in source.samples_beside(known):
            if isinstance(sample, str):
                calls.append(self._calls[sample])
                lines = iter(()) if rows is None else rows.lines(sample)
            else:
                calls.append(Calls.of(sample.events))
                lines = sample_lines(sample)
            if files is not None:
                files.add(lines)
            yield
        if missing:
            self._log_metrics(run_id, _at(ended_ns, call_totals(calls)))
        if files is not None:
            self._upload(run_id, files)
        if rows is not None:
            rows.close()

    def _start(self, job: Iterator[None]) -> None:
        self._jobs += 1
        self._await()
        self._thread.submit(partial(self._work_at, job))

    def _work_at(self, job: Iterator[None]) -> None:
        """Do a part of a long job; what has been submitted meanwhile comes before its next part."""
        over = True

        def part() -> None:
            nonlocal over
            deadline = time.monotonic() + STEP_SECONDS
            for _ in job:
                if time.monotonic() > deadline:
                    over = False
                    return

        self._guarded(part)
        if over:
            self._jobs -= 1
            self._await(-1)
        else:
            self._thread.submit(partial(self._work_at, job))

    def _when_idle(self, done: threading.Event) -> None:
        if self._jobs and not self.unreachable:
            self._thread.submit(partial(self._when_idle, done))
        else:
            done.set()

    def _end_run(self, error: BaseException | None, ended_ns: int) -> None:
        status = runs.parent_status(self._statuses.values())
        if error is not None:
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
        assert self._run_id is not None
        run_id = self._connection.run(self._run_id).result(timeout=0)
        ended_ns = (self._finished and self._last_ns) or ended_ns
        self._connection.end_run(run_id, status, ended_ns // 1_000_000)
        if self._ended and self._ended.keys() == self._statuses.keys():
            metrics = run_metrics(self._ended.values())
            self._log_metrics(run_id, _at(self._last_ns, metrics))


def _live_points(task: _Task) -> list[Point]:
    now = time.monotonic()
    last, counts = task.live_written
    if last == 0.0:
        task.live_written = (now, counts)
    elif now - last >= LIVE_SECONDS and counts != (current := tuple(vars(task.live).values())):
        task.live_written = (now, current)
        return task.live.points(task.started_ns, time.time_ns())
    return []


def _task_key(log: EvalLog) -> str:
    """The same for all attempts at a task."""
    return log.eval.task_id or log.eval.eval_id


def _ended_ns(log: EvalLog, read: _ReadLog | None) -> int | None:
    """When a task ended; of a log that was cut off, the last moment that it knows of."""
    times = [log.stats.completed_at]
    if read is not None and not log.stats.completed_at:
        times = [summary.completed_at or "" for summary in read.summaries]
        times += [log.stats.started_at, log.eval.created]
    return max((iso_to_ns(time) or 0 for time in times), default=0) or None


def _user() -> str:
    try:
        return getuser()
    except (KeyError, OSError):  # in a container whose user has no name
        return "unknown"


def _at(time_ns: int, metrics: Mapping[str, float]) -> list[Point]:
    return [Point(key, value, time_ns // 1_000_000, 0) for key, value in metrics.items()]


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
