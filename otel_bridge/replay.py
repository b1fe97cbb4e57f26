"""A finished log → the spans that the live evaluation gave, sample by sample."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

from otel_bridge.recorder import RunRecorder
from otel_bridge.spans import ScopeSetting, SpanData
from otel_bridge.values import Capture

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample, EvalSpec


def replay(
    *logs: str | Path | EvalLog,
    scope: ScopeSetting = "auto",
    capture: Capture | None = None,
) -> Iterator[SpanData]:
    """Spans of the logs of one run, in the order: samples, their task, …, the run.

    Parameters
    ----------
    *logs
        Paths or URLs that Inspect reads (`.eval`, `.json`), or logs in memory. Logs of one run
        belong in one call, since its root span covers them all. A file is read one sample at a
        time. Samples that a retry took over from an earlier log in the same folder are not given
        again: the task's span links to the spans they have.
    scope
        Where samples stand: as `INSPECT_MLFLOW_TRACE_SCOPE`.
    capture
        What of the content goes along; all of it by default, without inline media.

    Raises
    ------
    ValueError
        If the logs are of different runs.
    """
    capture = capture or Capture()
    headers = [(log, read_header(log)) for log in logs]
    runs = {header.eval.run_id for _, header in headers}
    if len(runs) > 1:
        raise ValueError(f"logs of one run belong together; these are of {sorted(runs)}")
    if not headers:
        return
    run = RunRecorder(headers[0][1].eval.run_id, scope, capture)
    for _, header in headers:
        run.begin_task(header.eval)
    for log, header in headers:
        eval_id = header.eval.eval_id
        reused = reused_samples(str(log), header.eval) if isinstance(log, str | Path) else {}
        for sample in read_samples(log):
            if sample.uuid in reused:
                continue
            recorder = run.begin_sample(eval_id, sample.uuid, sample.id, sample.epoch)
            assert recorder is not None
            yield from run.end_sample(recorder, sample)
        yield from run.end_task(header, reused)
    yield from run.end()


def read_header(log: str | Path | EvalLog) -> EvalLog:
    """A log without its samples."""
    from inspect_ai.log import read_eval_log

    return read_eval_log(str(log), header_only=True) if isinstance(log, str | Path) else log


def read_samples(log: str | Path | EvalLog) -> Iterator[EvalSample]:
    """The samples of a log, whole, one at a time."""
    from inspect_ai.log import (
        read_eval_log_sample,
        read_eval_log_sample_summaries,
        resolve_sample_attachments,
    )

    if not isinstance(log, str | Path):
        for sample in log.samples or ():
            yield resolve_sample_attachments(sample, "core")
    elif str(log).endswith(".json"):
        yield from _json_samples(str(log))
    else:
        for summary in read_eval_log_sample_summaries(str(log)):
            id, epoch = summary.id, summary.epoch
            sample = read_eval_log_sample(str(log), id=id, epoch=epoch, resolve_attachments="core")
            if any(e.event == "model" and e.input_refs and not e.input for e in sample.events):
                sample = _pooled_sample(str(log), f"samples/{id}_epoch_{epoch}.json")
            yield sample


def reused_samples(location: str, spec: EvalSpec) -> dict[str, EvalSpec]:
    """The samples of a retried task that were run for an earlier log, by uuid, with its spec.

    A retry writes a log of its own with the samples that it takes over, uuids unchanged. The log
    they come from has the same task id (part of its name), and lies in the same folder.
    """
    import fsspec  # type: ignore[import-untyped]
    from inspect_ai.log import read_eval_log_sample_summaries

    if not spec.task_id:
        return {}
    files, path = fsspec.core.url_to_fs(location)
    own = (spec.created, _modified(files.info(path)))
    earlier = []
    for info in files.ls(path.rpartition("/")[0] or ".", detail=True):
        name = str(info["name"])
        if spec.task_id in name and name.endswith((".eval", ".json")):
            name = files.unstrip_protocol(name)
            other = read_header(name).eval
            time = (other.created, _modified(info))
            if other.task_id == spec.task_id and other.eval_id != spec.eval_id and time < own:
                earlier.append((*time, name, other))
    reused: dict[str, EvalSpec] = {}
    if earlier:
        uuids = {summary.uuid for summary in read_eval_log_sample_summaries(location)}
        for _, _, name, other in sorted(earlier, key=lambda log: log[:3]):
            for summary in read_eval_log_sample_summaries(name):
                if summary.uuid and summary.uuid in uuids:
                    reused.setdefault(summary.uuid, other)
    return reused


def _modified(info: Mapping[str, Any]) -> float:
    """When a file was last written, where its file system says so."""
    modified = info.get("mtime") or info.get("LastModified") or 0
    return float(modified if isinstance(modified, int | float) else modified.timestamp())


def _json_samples(location: str) -> Iterator[EvalSample]:
    """The samples of a `.json` log, each read by Inspect as a log of its own."""
    import fsspec
    import ijson  # type: ignore[import-untyped]
    from inspect_ai.log import read_eval_log

    header = read_header(location)
    done = 0
    try:
        with fsspec.open(location, "rb") as file:
            for raw in ijson.items(file, "samples.item", use_float=True):
                yield _read_alone(raw, header)
                done += 1
    except (ijson.JSONError, ValueError):  # NaN and the infinities, which only some readers take
        log = read_eval_log(location, resolve_attachments="core")
        yield from islice(log.samples or (), done, None)


def _pooled_sample(location: str, name: str) -> EvalSample:
    """A sample whose messages stand in a pool that today's Inspect does not look for."""
    import fsspec

    with fsspec.open(location, "rb") as file, ZipFile(file) as archive:
        return _read_alone(json.loads(archive.read(name)), read_header(location))


def _read_alone(raw: dict[str, Any], header: EvalLog) -> EvalSample:
    """A sample from its JSON, as the only one of a log."""
    from inspect_ai.log import read_eval_log

    spec = header.eval.model_dump(mode="json")
    data = json.dumps({"version": 2, "eval": spec, "samples": [_promoted(raw)]}).encode()
    log = read_eval_log(io.BytesIO(data), resolve_attachments="core")
    assert log.samples is not None
    return log.samples[0]


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
