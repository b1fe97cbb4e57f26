"""A finished log → the spans that the live evaluation gave, sample by sample."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from otel_bridge.logs import LogSource, reused_samples
from otel_bridge.recorder import RunRecorder
from otel_bridge.spans import ScopeSetting, SpanData
from otel_bridge.values import Capture

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog


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
        belong in one call, since its root span covers them all. A file is read a few samples at a
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
    sources = [LogSource.of(log) for log in logs]
    runs = {source.log.eval.run_id for source in sources}
    if len(runs) > 1:
        raise ValueError(f"logs of one run belong together; these are of {sorted(runs)}")
    if not sources:
        return
    run = RunRecorder(sources[0].log.eval.run_id, scope, capture)
    for source in sources:
        run.begin_task(source.log.eval)
    for log, source in zip(logs, sources, strict=True):
        spec = source.log.eval
        reused = reused_samples(str(log), spec) if isinstance(log, str | Path) else {}
        for sample in source.samples():
            if sample.uuid in reused:
                continue
            recorder = run.begin_sample(spec.eval_id, sample.uuid, sample.id, sample.epoch)
            assert recorder is not None
            yield from run.end_sample(recorder, sample)
        yield from run.end_task(source.log, reused)
    yield from run.end()
