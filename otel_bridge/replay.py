"""A finished log → the spans that the live evaluation gave, sample by sample."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from otel_bridge.recorder import RunRecorder
from otel_bridge.spans import ScopeSetting, SpanData
from otel_bridge.values import Capture

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample


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
        belong in one call, since its root span covers them all. An `.eval` file is read one
        sample at a time.
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
    headers = [(log, _header(log)) for log in logs]
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
        for sample in read_samples(log):
            recorder = run.begin_sample(eval_id, sample.uuid, sample.id, sample.epoch)
            assert recorder is not None
            yield from run.end_sample(recorder, sample)
        yield from run.end_task(header)
    yield from run.end()


def _header(log: str | Path | EvalLog) -> EvalLog:
    from inspect_ai.log import EvalLog, read_eval_log

    return log if isinstance(log, EvalLog) else read_eval_log(str(log), header_only=True)


def read_samples(log: str | Path | EvalLog) -> Iterator[EvalSample]:
    """The samples of a log, whole, one at a time where the format allows it."""
    from inspect_ai.log import (
        EvalLog,
        read_eval_log,
        read_eval_log_sample,
        read_eval_log_sample_summaries,
        resolve_sample_attachments,
    )

    if isinstance(log, EvalLog):
        for sample in log.samples or ():
            yield resolve_sample_attachments(sample, "core")
    elif str(log).endswith(".json"):
        yield from read_eval_log(str(log), resolve_attachments="core").samples or ()
    else:
        for summary in read_eval_log_sample_summaries(str(log)):
            yield read_eval_log_sample(
                str(log), id=summary.id, epoch=summary.epoch, resolve_attachments="core"
            )
