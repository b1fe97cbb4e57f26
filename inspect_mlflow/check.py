"""Compares what MLflow has with what an import would write: the import itself, without writing."""

from __future__ import annotations

import filecmp
import json
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mlflow import MlflowClient
from mlflow.entities import Run, RunData, RunInfo, TraceInfo
from mlflow.exceptions import MlflowException

from inspect_mlflow import runs
from inspect_mlflow.backfill import Importer
from inspect_mlflow.connection import Connection, ConnectionFailed
from inspect_mlflow.exporter import MlflowSpans
from inspect_mlflow.scout.client import sqlite_file
from inspect_mlflow.trace_writer import SummaryDelivery
from otel_bridge.ids import hex_span_id, hex_trace_id

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow.entities import Assessment, DatasetInput, Metric, Param, RunTag, Span, Trace
    from opentelemetry.sdk.trace import ReadableSpan

    from inspect_mlflow.config import MLflowSettings
    from inspect_mlflow.trace_info import TraceSummary

SHOWN: Final = 50
"""How many differences are kept in words; the others are counted."""
_VALUE_CHARS: Final = 80
_ABSENT: Final = object()


class Findings:
    """What was compared, and where it differs. Thread-safe."""

    def __init__(self) -> None:
        self.differences: list[str] = []
        """The first ones, each on a line."""
        self.total = 0
        """How many there are."""
        self.compared: Counter[str] = Counter()
        """How many of what have been compared."""
        self._lock = threading.Lock()

    def compare(self, what: str, count: int = 1) -> None:
        """So many of something have been compared."""
        with self._lock:
            self.compared[what] += count

    def differ(self, where: str, what: str) -> None:
        """Something is not as it should be."""
        with self._lock:
            self.total += 1
            if len(self.differences) < SHOWN:
                self.differences.append(" ".join(f"{where}: {what}".split()))

    def equal(self, where: str, what: str, found: Any, expected: Any) -> None:
        """Compare two values."""
        if found is _ABSENT or (found is None and expected is not None):
            self.differ(where, f"{what} is missing, the log says {_shown(expected)}")
        elif found != expected:
            self.differ(where, f"{what} is {_shown(found)}, the log says {_shown(expected)}")


class Checker(Importer):
    """Does all that an import does, and compares where that writes."""

    def __init__(self, settings: MLflowSettings, *, runs: bool = True, traces: bool = True) -> None:
        super().__init__(settings, runs=runs, traces=traces)
        self.findings = Findings()

    def _connect(self) -> CheckedConnection:
        connection = CheckedConnection.of(self._settings)
        connection.findings = self.findings
        return connection

    def _spans_to(self, connection: Connection) -> MlflowSpans:
        assert isinstance(connection, CheckedConnection)
        return ComparedSpans(connection, self.findings)

    def _all_given(self, connection: Connection) -> None:
        client, _ = connection.open()
        assert isinstance(client, ComparingClient)
        client.compare_metrics()


@dataclass
class CheckedConnection(Connection):
    """A connection whose client compares, and that makes neither a database nor an experiment."""

    findings: Findings = field(default_factory=Findings)

    def end_run(self, run_id: str, status: str, ended_ms: int) -> None:
        """Compare a run's final status."""
        client, _ = self.open()
        assert isinstance(client, ComparingClient)
        client.compare_status(run_id, status)

    def _reach(self) -> None:
        file = sqlite_file(self.uri)
        if file is not None and not file.exists():  # opening it would make one
            raise ConnectionFailed(f"{self.name}: there is no such database")
        super()._reach()

    def _client(self) -> ComparingClient:
        return ComparingClient(self.uri, self.findings)

    def _create_experiment(self, client: MlflowClient) -> str:
        raise ConnectionFailed(f"{self.name}: there is no experiment {self.experiment_name!r}")


class ComparingClient(MlflowClient):
    """Compares what it is told to write with what is there. Reads as its base class does."""

    def __init__(self, uri: str, findings: Findings) -> None:
        super().__init__(tracking_uri=uri)
        self._findings = findings
        self._missing: set[str] = set()
        self._read: dict[str, Run] = {}
        self._points: dict[str, defaultdict[str, set[tuple[int, int, float]]]] = {}
        self._linked: dict[str, set[str]] = {}

    def create_run(
        self,
        experiment_id: str,
        start_time: int | None = None,
        tags: dict[str, Any] | None = None,
        run_name: str | None = None,
    ) -> Run:
        """Say that a run is missing. What is written to the one given back is not compared."""
        tags = tags or {}
        run_id = f"missing {tags[runs.TAG_KIND]} {len(self._missing)}"
        self._missing.add(run_id)
        inspect_id = tags.get(runs.TAG_EVAL_ID, tags.get(runs.TAG_RUN_ID))
        self._findings.compare("runs")
        self._findings.differ(f"{tags[runs.TAG_KIND]} {inspect_id} ({run_name})", "run missing")
        info = RunInfo(run_id, experiment_id, "", "RUNNING", start_time or 0, None, "active")
        return Run(info, RunData())

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
        synchronous: bool | None = None,
    ) -> None:
        """Compare tags and params; metrics are kept for `compare_metrics`."""
        run = self._run(run_id)
        if run is None:
            return
        where = _named(run)
        for what, items, there in (
            ("param", params, run.data.params),
            ("tag", tags, run.data.tags),
        ):
            self._findings.compare(f"{what}s", len(items))
            for item in items:
                if str(item.value) not in self._missing:
                    found = there.get(item.key, _ABSENT)
                    self._findings.equal(where, f"{what} {item.key}", found, str(item.value))
        points = self._points.setdefault(run_id, defaultdict(set))
        for metric in metrics:
            points[metric.key].add((metric.step, metric.timestamp, metric.value))

    def log_inputs(
        self,
        run_id: str,
        datasets: Sequence[DatasetInput] | None = None,
        models: Any = None,
    ) -> None:
        """Compare datasets."""
        run = self._run(run_id)
        if run is None:
            return
        inputs = run.inputs.dataset_inputs if run.inputs else []
        found = {(item.dataset.name, item.dataset.digest): item.dataset for item in inputs}
        for item in datasets or ():
            dataset = found.get((item.dataset.name, item.dataset.digest))
            self._findings.compare("datasets")
            if dataset is None:
                self._findings.differ(_named(run), f"dataset {item.dataset.name} is missing")

    def set_tag(self, run_id: str, key: str, value: Any, synchronous: bool | None = None) -> None:
        """Compare a tag."""
        from mlflow.entities import RunTag

        self.log_batch(run_id, tags=[RunTag(key, str(value))])

    def log_artifact(self, run_id: str, local_path: str, artifact_path: str | None = None) -> None:
        """Compare a file."""
        from pathlib import Path

        run = self._run(run_id)
        if run is None:
            return
        local = Path(local_path)
        path = f"{artifact_path}/{local.name}" if artifact_path else local.name
        sizes = {item.path: item.file_size for item in self.list_artifacts(run_id, artifact_path)}
        self._findings.compare("artifacts")
        if path not in sizes:
            self._findings.differ(_named(run), f"artifact {path} is missing")
        elif sizes[path] not in (None, local.stat().st_size) or not self._same(run_id, path, local):
            self._findings.differ(_named(run), f"artifact {path} is another than the log gives")

    def _same(self, run_id: str, path: str, local: Path) -> bool:
        with tempfile.TemporaryDirectory(prefix="inspect-mlflow-") as folder:
            try:
                return filecmp.cmp(self.download_artifacts(run_id, path, folder), local, False)
            except (MlflowException, OSError):  # listed, but not there
                return False

    def link_traces_to_run(self, trace_ids: list[str], run_id: str) -> None:
        """Compare which traces belong to a run."""
        run = self._run(run_id)
        if run is None:
            return
        if run_id not in self._linked:
            self._linked[run_id] = self._traces_of(run)
        for trace_id in trace_ids:
            if trace_id not in self._linked[run_id]:
                self._findings.differ(_named(run), f"trace {trace_id} is not linked to it")

    def _traces_of(self, run: Run) -> set[str]:
        found: set[str] = set()
        token: str | None = None
        while True:
            page = self.search_traces(
                locations=[run.info.experiment_id],
                run_id=run.info.run_id,
                max_results=500,
                page_token=token,
                include_spans=False,
            )
            found |= {trace.info.trace_id for trace in page}
            token = page.token
            if not token:
                return found

    def compare_status(self, run_id: str, status: str) -> None:
        """Compare a run's status."""
        run = self._run(run_id)
        if run is not None:
            self._findings.compare("runs")
            self._findings.equal(_named(run), "status", run.info.status, status)

    def compare_metrics(self) -> None:
        """Compare all points that were to be written, now that they are all known."""
        for run_id, metrics in self._points.items():
            run = self._run(run_id)
            if run is None:
                continue
            for key, expected in metrics.items():
                history = self.get_metric_history(run_id, key) if key in run.data.metrics else []
                found = {(metric.step, metric.timestamp, metric.value) for metric in history}
                self._findings.compare("points of metrics", len(expected))
                for step, timestamp, value in sorted(expected - found):
                    at = f"metric {key} at step {step}"
                    times = [t for s, t, v in found - expected if (s, v) == (step, value)]
                    values = [v for s, _, v in found - expected if s == step]
                    if times:
                        self._findings.equal(_named(run), f"time of {at}", times[0], timestamp)
                    else:
                        there = values[0] if values else _ABSENT
                        self._findings.equal(_named(run), at, there, value)
                # a point that should not be there can't be taken away, but is not to be shown
                last = max(expected)[2]
                if expected <= found and run.data.metrics[key] != last:
                    what = f"metric {key}, the one that is shown,"
                    self._findings.equal(_named(run), what, run.data.metrics[key], last)

    def _run(self, run_id: str) -> Run | None:
        """A run as it is; None if it is missing."""
        if run_id in self._missing:
            return None
        if run_id not in self._read:
            self._read[run_id] = self.get_run(run_id)
        return self._read[run_id]

    def is_missing(self, run_id: str) -> bool:
        """Whether a run is one that there is none of."""
        return run_id in self._missing


class ComparedSpans(MlflowSpans):
    """Compares the spans and summaries of traces with those that MLflow has."""

    def __init__(self, connection: Connection, findings: Findings) -> None:
        self._connection = connection
        self._findings = findings
        client, experiment_id = connection.open()
        assert isinstance(client, ComparingClient)
        self._client = client
        super().__init__(experiment_id)
        self._spans: dict[str, list[ReadableSpan]] = {}
        """By trace, as long as it is not complete."""
        self._traces = 0

    def deal_with(
        self,
        spans: Iterable[ReadableSpan],
        summaries: Sequence[TraceSummary],
        reused: Sequence[tuple[str, list[str]]],
    ) -> None:
        """Compare the traces that a batch completes."""
        for span in spans:
            assert span.context is not None
            trace_id = f"tr-{hex_trace_id(span.context.trace_id)}"
            self._spans.setdefault(trace_id, []).append(span)
        for summary in summaries:
            expected = self._spans.pop(summary.info.trace_id, [])
            self._compare(summary.info.trace_id, expected, summary)
        for owner, trace_ids in reused:
            if (run_id := self._connection.run_id(owner, _RUN_SECONDS)) is not None:
                self._client.link_traces_to_run(trace_ids, run_id)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Compare traces whose root the log does not have."""
        for trace_id in list(self._spans):
            self._compare(trace_id, self._spans.pop(trace_id), None)
        return True

    def lose_summary(self, reason: str) -> None:
        """The summary of a trace could not be made: it is not compared."""
        self._findings.differ("a trace", reason)

    def summaries(self) -> SummaryDelivery:
        """How many traces have been compared."""
        return SummaryDelivery(self._traces, 0, 0)

    def _compare(
        self, trace_id: str, spans: Sequence[ReadableSpan], summary: TraceSummary | None
    ) -> None:
        self._traces += 1
        self._findings.compare("traces")
        self._findings.compare("spans", len(spans))
        name = "" if summary is None else f" ({summary.info.tags['mlflow.traceName']})"
        where = f"trace {trace_id}{name}"
        try:
            trace = self._client.get_trace(trace_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self._findings.differ(where, "trace missing")
            return
        if summary is not None:
            self._compare_summary(where, trace, summary)
        self._compare_spans(where, trace, spans)

    def _compare_spans(self, where: str, trace: Trace, expected: Sequence[ReadableSpan]) -> None:
        found = {span.span_id: span for span in trace.data.spans}
        missing, different = [], []
        for span in expected:
            assert span.context is not None
            there = found.get(hex_span_id(span.context.span_id))
            if there is None:
                missing.append(span.name)
            elif difference := _difference(there, span):
                different.append(f"{span.name}: {difference}")
        for names, what in ((missing, "missing"), (different, "different")):
            if names:
                self._findings.differ(
                    where, f"{len(names)} of {len(expected)} spans {what}, the first {names[0]}"
                )

    def _compare_summary(self, where: str, trace: Trace, summary: TraceSummary) -> None:
        owners = dict.fromkeys([*summary.owners, *(eval_id for eval_id, _ in summary.scores)])
        run_ids: dict[str, str] = {}
        for owner in owners:
            run_id = self._connection.run_id(owner, _RUN_SECONDS)
            if run_id is not None and not self._client.is_missing(run_id):
                run_ids[owner] = run_id
        expected, found = summary.with_runs(run_ids), trace.info
        equal = self._findings.equal
        for what, there, value in (
            ("state", found.state.value, expected.state.value),
            ("request preview", found.request_preview, expected.request_preview),
            ("response preview", found.response_preview, expected.response_preview),
            ("start", found.request_time, expected.request_time),
            ("duration", found.execution_duration, expected.execution_duration),
        ):
            if value is not None:  # MLflow makes a preview of its own where there is none
                equal(where, what, there, value)
        for key, tag in expected.tags.items():
            equal(where, f"tag {key}", found.tags.get(key, _ABSENT), tag)
        for key in expected.trace_metadata:
            equal(where, key, _metadata(found, key), _metadata(expected, key))
        self._compare_assessments(where, found, expected)
        for owner in summary.owners[1:]:
            if owner in run_ids:
                self._client.link_traces_to_run([found.trace_id], run_ids[owner])

    def _compare_assessments(self, where: str, found: TraceInfo, expected: TraceInfo) -> None:
        there = {a.assessment_id: a for a in found.assessments or ()}
        self._findings.compare("assessments", len(expected.assessments))
        missing = [a.name for a in expected.assessments if a.assessment_id not in there]
        different = [
            a.name
            for a in expected.assessments
            if a.assessment_id in there and _plain(there[a.assessment_id]) != _plain(a)
        ]
        for names, what in ((missing, "missing"), (different, "different")):
            if names:
                count = f"{len(names)} of {len(expected.assessments)} assessments"
                self._findings.differ(where, f"{count} {what}, the first {names[0]}")


_RUN_SECONDS: Final = 600.0
"""How long a trace waits until its run has been looked for."""


def _difference(found: Span, expected: ReadableSpan) -> str | None:
    """Where a stored span is another than the one that would be sent; None if it is not."""
    parent = None if expected.parent is None else hex_span_id(expected.parent.span_id)
    for what, there, value in (
        ("name", found.name, expected.name),
        ("parent", found.parent_id, parent),
        ("start", found.start_time_ns, expected.start_time),
        ("end", found.end_time_ns, expected.end_time),
        ("status", found.status.status_code.value, expected.status.status_code.name),
        ("status message", found.status.description or "", expected.status.description or ""),
    ):
        if there != value:
            return f"{what} is {_shown(there)}, the log says {_shown(value)}"
    stored = found.attributes
    for key, sent in (expected.attributes or {}).items():
        if key not in stored:
            return f"attribute {key} is missing"
        if not _is_stored(stored[key], sent):
            return f"attribute {key} is {_shown(stored[key])}, the log says {_shown(sent)}"
    events = [(event.name, event.timestamp) for event in expected.events]
    if [(event.name, event.timestamp) for event in found.events] != events:
        return f"{len(found.events)} events, the log says {len(events)}"
    for event, sent_event in zip(found.events, expected.events, strict=True):
        for key, sent in (sent_event.attributes or {}).items():
            if not _is_stored((event.attributes or {}).get(key), sent):
                return f"attribute {key} of event {event.name} differs"
    return None


def _is_stored(stored: Any, sent: Any) -> bool:
    """Whether a stored value is one that was sent: MLflow reads those that are JSON."""
    sent = list(sent) if isinstance(sent, tuple) else sent
    if stored == sent:
        return True
    for text, other in ((sent, stored), (stored, sent)):
        if isinstance(text, str):
            try:
                if json.loads(text) == other:
                    return True
            except ValueError:
                pass  # an ordinary text
    return False


def _metadata(info: TraceInfo, key: str) -> Any:
    """A value among a trace's metadata: totals as numbers, without those that are not known."""
    text = info.trace_metadata.get(key)
    if text is None or not key.startswith("mlflow.trace."):
        return text
    return {name: value for name, value in json.loads(text).items() if value is not None}


def _plain(assessment: Assessment) -> Mapping[str, Any]:
    plain: dict[str, Any] = {"valid": True, **assessment.to_dictionary()}  # type: ignore[no-untyped-call]
    return {k: v for k, v in plain.items() if k not in ("create_time", "last_update_time")}


def _named(run: Run) -> str:
    return f"{run.data.tags.get(runs.TAG_KIND)} run {run.info.run_id} ({run.info.run_name})"


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= _VALUE_CHARS else f"{text[: _VALUE_CHARS - 1]}…"
