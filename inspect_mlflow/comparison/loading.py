"""Reads an evaluation from a file, an `EvalLog` or an MLflow run into what a comparison needs.

Stored logs are read by header and sample summaries. Full samples are read only when the caller
filters them, asks for their whole content, or when the header says that samples were invalidated.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from inspect_ai.log import (
    EvalLog,
    EvalLogInfo,
    EvalSample,
    EvalSampleSummary,
    read_eval_log,
)
from inspect_ai.model import ModelUsage
from inspect_ai.scorer import Score

from otel_bridge.logs import LogSource

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = [
    "ARTIFACT_FOLDER",
    "EvalSource",
    "LoadedEval",
    "SampleFilter",
    "SampleRecord",
    "UnreadableLogError",
    "content_digest",
    "load_eval",
    "mlflow_client",
]

ARTIFACT_FOLDER = "eval_logs"
"""Folder of a run's artifacts that holds its Inspect log."""

_RUN_PREFIX = "runs:/"
# What a comparison never looks at, and what makes full samples large.
_HEAVY_FIELDS = {"messages", "output", "events", "store"}
_SHORTENED = "...\n(content truncated)"

EvalSource = str | os.PathLike[str] | EvalLog | EvalLogInfo
SampleFilter = Callable[[EvalSample], bool]


class UnreadableLogError(ValueError):
    """A source cannot be read as an Inspect log; the cause is attached."""


class SampleRecord(NamedTuple):
    """One sample execution, reduced to what a comparison needs."""

    id: int | str
    epoch: int
    scores: Mapping[str, Score]
    errored: bool
    digest: bytes | int
    shortened: bool
    """The digest covers only the beginning of the content."""
    choices: int | None
    """Digest of the choices: 0 without any, None where they are not known."""
    model_usage: Mapping[str, ModelUsage]
    total_time: float | None
    """Seconds from start to end."""
    working_time: float | None
    """Seconds without waiting."""


@dataclass(frozen=True)
class LoadedEval:
    """One evaluation: its header and its samples.

    Parameters
    ----------
    name
        The source, as a reader would look for it.
    header
        The log without its samples.
    samples
        Records of the sample executions, filtered ones and invalidated ones left out.
    invalidated
        How many sample executions were left out because they were invalidated.
    filtered
        Whether a sample filter was applied.
    run_id
        MLflow run the log came from.
    """

    name: str
    header: EvalLog
    samples: list[SampleRecord] = field(repr=False)
    invalidated: int = 0
    filtered: bool = False
    run_id: str | None = None


def load_eval(
    source: EvalSource,
    sample_filter: SampleFilter | None = None,
    full_content: bool = False,
    tracking_uri: str | None = None,
) -> LoadedEval:
    """Load an evaluation for comparison.

    Parameters
    ----------
    source
        Path or URL that Inspect reads, an `EvalLog` (without samples it is read from its
        location), or ``runs:/<run_id>`` for the log among an MLflow run's artifacts, optionally
        followed by the artifact's path.
    sample_filter
        Keeps the samples for which it returns true; reads full samples.
    full_content
        Digest whole inputs and targets instead of what sample summaries keep of them.
    tracking_uri
        MLflow tracking URI of ``runs:/`` sources; as for `mlflow_client`.

    Returns
    -------
    LoadedEval
        Header and sample records.

    Raises
    ------
    UnreadableLogError
        The source is no log that can be read.
    ValueError
        A ``runs:/`` source without any MLflow.
    """
    if isinstance(source, EvalLog):
        name = source.location or source.eval.eval_id
        if source.samples is not None or not source.location:
            return _from_samples(name, source, source.samples or [], sample_filter, full_content)
        return _from_file(name, source.location, sample_filter, full_content)
    location = source.name if isinstance(source, EvalLogInfo) else os.fspath(source)
    if location.startswith(_RUN_PREFIX):
        return _from_run(location, sample_filter, full_content, tracking_uri)
    return _from_file(location, location, sample_filter, full_content)


def _from_file(
    name: str, location: str, sample_filter: SampleFilter | None, full_content: bool
) -> LoadedEval:
    whole = sample_filter is not None or not location.endswith(".eval")
    with _readable(name):
        source = LogSource.of(location)
        if not whole and (full_content or source.log.invalidated):
            light = read_eval_log(location, exclude_fields=_HEAVY_FIELDS)
            return _from_samples(name, light, light.samples or [], sample_filter, full_content)
        if not whole:
            records = [_record(summary, summary.error) for summary in source.summaries()]
            return LoadedEval(name, source.log, records)
    samples = _readable_samples(name, source.samples())
    return _from_samples(name, source.log, samples, sample_filter, full_content)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """The one boundary for all that storage, zip, JSON and validation raise on foreign input."""
    try:
        yield
    except Exception as error:
        detail = str(error).strip().split("\n")[0] or type(error).__name__
        raise UnreadableLogError(f"cannot read {name!r} as an Inspect log: {detail}") from error


def _readable_samples(name: str, samples: Iterator[EvalSample]) -> Iterator[EvalSample]:
    while True:
        with _readable(name):
            sample = next(samples, None)
        if sample is None:
            return
        yield sample


def _from_samples(
    name: str,
    log: EvalLog,
    samples: Iterable[EvalSample],
    sample_filter: SampleFilter | None,
    full_content: bool,
) -> LoadedEval:
    records = []
    invalidated = 0
    for sample in samples:
        if sample_filter is not None and not sample_filter(sample):
            continue
        if sample.invalidation is not None:
            invalidated += 1
            continue
        records.append(_record(sample, sample.error, full_content))
    return LoadedEval(
        name=name,
        header=LogSource.of(log).header,
        samples=records,
        invalidated=invalidated,
        filtered=sample_filter is not None,
    )


def _from_run(
    uri: str, sample_filter: SampleFilter | None, full_content: bool, tracking_uri: str | None
) -> LoadedEval:
    from mlflow.exceptions import MlflowException

    run_id, _, artifact = uri[len(_RUN_PREFIX) :].partition("/")
    if not run_id:
        raise UnreadableLogError(f"{uri!r} names no run: expected runs:/<run_id>")
    client = mlflow_client(tracking_uri)
    try:
        run_id = client.get_run(run_id).info.run_id
        candidates = [artifact] if artifact else _log_artifacts(client, run_id)
        if not candidates:
            raise UnreadableLogError(
                f"MLflow run {run_id} has no Inspect log among its artifacts in "
                f"{ARTIFACT_FOLDER}/; is it the run of a task, with artifact logging on?"
            )
        failures = []
        for path in candidates:
            with tempfile.TemporaryDirectory(prefix="inspect-mlflow-") as folder:
                local = client.download_artifacts(run_id, path, folder)
                try:
                    loaded = _from_file(
                        f"{_RUN_PREFIX}{run_id}", local, sample_filter, full_content
                    )
                except UnreadableLogError as error:
                    failures.append(f"{path}: {error.__cause__}")
                    continue
            return LoadedEval(
                name=loaded.name,
                header=loaded.header,
                samples=loaded.samples,
                invalidated=loaded.invalidated,
                filtered=loaded.filtered,
                run_id=run_id,
            )
    except (MlflowException, OSError) as error:
        detail = str(error).strip().split("\n")[0]
        raise UnreadableLogError(f"cannot read {uri!r} from MLflow: {detail}") from error
    raise UnreadableLogError(f"no artifact of {uri!r} is an Inspect log ({'; '.join(failures)})")


def mlflow_client(tracking_uri: str | None) -> "MlflowClient":
    """A client of the MLflow that is meant.

    Parameters
    ----------
    tracking_uri
        MLflow tracking URI; that of the settings (``INSPECT_MLFLOW_TRACKING_URI``, else
        ``MLFLOW_TRACKING_URI``, which `mlflow.set_tracking_uri` sets too) when None.

    Raises
    ------
    ValueError
        There is none: MLflow would make a database in the current folder. Or it can't be reached.
    """
    from mlflow import MlflowClient

    from inspect_mlflow.config import load_settings
    from inspect_mlflow.connection import Connection, ConnectionFailed

    if tracking_uri is None:
        settings, problems = load_settings()
        tracking_uri = settings.tracking_uri
        if tracking_uri is None:
            about_it = (found.message for found in problems if "TRACKING_URI=" in found.message)
            raise ValueError(
                next(about_it, "no MLflow: give a tracking URI, or set MLFLOW_TRACKING_URI")
            )
    try:
        Connection(tracking_uri, "").reach()
    except ConnectionFailed as error:
        raise ValueError(str(error)) from error
    return MlflowClient(tracking_uri)


def _log_artifacts(client: "MlflowClient", run_id: str) -> list[str]:
    """Artifact paths that may hold the run's log: its `.eval` file, else what ends in `.json`."""
    paths = [
        item.path for item in client.list_artifacts(run_id, ARTIFACT_FOLDER) if not item.is_dir
    ]
    logs = sorted(path for path in paths if path.endswith(".eval"))
    if len(logs) > 1:
        raise UnreadableLogError(
            f"MLflow run {run_id} has {len(logs)} Inspect logs; name one of them, such as "
            f"{_RUN_PREFIX}{run_id}/{logs[0]}"
        )
    return logs or sorted(path for path in paths if path.endswith(".json"))


def _record(
    sample: EvalSample | EvalSampleSummary, error: object, full_content: bool = False
) -> SampleRecord:
    # Read in one go: this runs for every sample of both logs.
    name, epoch, content, target, choices, scores, usage, total, working = _FIELDS(sample)
    digest, shortened = content_digest(content, target, not full_content)
    options: int | None = hash(tuple(choices)) if choices else 0
    if choices is None and isinstance(sample, EvalSampleSummary):
        # Older versions of Inspect leave them out of the summaries.
        options = None
    return SampleRecord(
        name,
        epoch,
        scores or _NO_SCORES,
        error is not None,
        digest,
        shortened,
        options,
        usage,
        total,
        working,
    )


_FIELDS = attrgetter(
    "id",
    "epoch",
    "input",
    "target",
    "choices",
    "scores",
    "model_usage",
    "total_time",
    "working_time",
)
_NO_SCORES: Mapping[str, Score] = MappingProxyType({})

_SUMMARY_LENGTH = 5120
"""Characters of a text that Inspect keeps in a sample summary."""


def content_digest(
    content: str | list[Any],
    target: str | list[str],
    shorten: bool = True,
) -> tuple[bytes | int, bool]:
    """Digest what a sample asks and expects.

    Roles and contents of messages count; message ids and other bookkeeping do not.

    Parameters
    ----------
    content
        Input of the sample: a text or chat messages.
    target
        Expected answer or answers.
    shorten
        Digest only what a sample summary keeps: the beginning of each text, and the kind of
        anything that is no text.

    Returns
    -------
    tuple of (bytes or int) and bool
        The digest, to be compared within this process only, and whether it covers less than the
        whole content.

    Examples
    --------
    >>> content_digest("1+1", "2") == content_digest("1+1", "2")
    True
    >>> content_digest("1+1", "2") == content_digest("1+1", "3")
    False
    """
    if (
        type(content) is str
        and type(target) is str
        and len(content) <= _SUMMARY_LENGTH
        and len(target) <= _SUMMARY_LENGTH
    ):
        # By far the most samples, so this has to be fast: 64 bits of SipHash under a random key.
        return hash((content, target)), False
    partial = False

    def text(value: str) -> str:
        nonlocal partial
        if not shorten:
            return value
        if value.endswith(_SHORTENED):
            value = value[: -len(_SHORTENED)]
            partial = True
        if len(value) > _SUMMARY_LENGTH:
            partial = True
        return value[:_SUMMARY_LENGTH]

    def part(item: Any) -> Any:
        nonlocal partial
        if item.type == "text":
            placeholder = item.text.startswith("(") and item.text.endswith(")")
            # A summary writes "(Image)" in place of an image.
            partial = partial or (shorten and placeholder and " " not in item.text)
            return text(item.text)
        if shorten:
            partial = True
            return f"({item.type.capitalize()})"
        return item.model_dump(mode="json", exclude={"internal"})

    def message(item: Any) -> Any:
        parts = item.content
        body = text(parts) if isinstance(parts, str) else [part(entry) for entry in parts]
        return [item.role, body]

    canonical = [
        text(content) if isinstance(content, str) else [message(item) for item in content],
        text(target) if isinstance(target, str) else [text(item) for item in target],
    ]
    encoded = json.dumps(canonical, sort_keys=True).encode()
    return hashlib.blake2b(encoded, digest_size=16).digest(), partial
