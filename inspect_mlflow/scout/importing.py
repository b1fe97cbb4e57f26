"""The import as a whole: traces in, transcripts out, and an account of what was left out."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from logging import getLogger
from typing import TYPE_CHECKING, Final

from inspect_mlflow.config import redact
from inspect_mlflow.scout.client import Reader, Selection
from inspect_mlflow.scout.evaluation import sample_of, samples, tasks
from inspect_mlflow.scout.events import story_of
from inspect_mlflow.scout.transcript import transcript_of_sample, transcript_of_trace
from inspect_mlflow.scout.tree import Node, build
from otel_bridge import semconv as sc
from otel_bridge.ids import hex_trace_id, trace_id

if TYPE_CHECKING:
    from inspect_scout import Transcript
    from mlflow.entities import Trace

logger = getLogger("inspect_mlflow.scout")

_KNOWN_TASKS: Final = 64
"""How many tasks' spans are kept: samples with a trace each have their task in their run's."""


@dataclass
class TraceImport:
    """One import, and in numbers what it came across."""

    reader: Reader
    selection: Selection
    limit: int | None = None
    on_trace: Callable[[], None] | None = None
    """Called for each trace that was read."""
    transcripts_made: int = 0
    samples_cut_off: int = 0
    """Samples that never finished: the log has none of them."""
    incomplete: int = 0
    """Transcripts of which something could not be read."""
    samples_waiting: Counter[str] = field(default_factory=Counter)
    """Finished samples by their evaluation, where that has no end in MLflow: what it was set up
    with comes with its end."""
    _tasks: OrderedDict[str, Node | None] = field(default_factory=OrderedDict)

    async def count(self) -> int:
        """How many traces there are to read, for a progress bar. Raises as `transcripts`."""
        if self.selection.trace_id is not None:
            named = self.selection.trace_id
            return 1 if isinstance(named, str) else len(named)
        await self.reader.open()
        return await self.reader.count(self.selection)

    async def transcripts(self) -> AsyncIterator[Transcript]:
        """The transcripts, trace by trace, the oldest first.

        Raises
        ------
        ScoutImportError
            If MLflow can't be reached, or has no such experiment or trace.
        """
        await self.reader.open(by_experiment=self.selection.trace_id is None)
        if self.limit is None or self.limit > 0:
            async for trace in self.reader.traces(self.selection, self.limit):
                if self.on_trace is not None:
                    self.on_trace()
                async for transcript in self._of_trace(trace):
                    self.transcripts_made += 1
                    yield transcript
                    if self.transcripts_made == self.limit:
                        break
                if self.transcripts_made == self.limit:
                    break

    def left_out(self) -> Iterator[str]:
        """A line for each kind of thing that is missing."""
        if self.reader.unfinished:
            unfinished = _count(self.reader.unfinished, "trace")
            yield f"{unfinished} in progress, or not wholly in MLflow yet: left out"
        if self.samples_cut_off:
            yield f"{_count(self.samples_cut_off, 'sample')} that never finished: left out"
        if self.samples_waiting:
            evaluations = _count(len(self.samples_waiting), "evaluation")
            yield (
                f"{_count(self.samples_waiting.total(), 'sample')} of {evaluations} without an end "
                f"in MLflow ({', '.join(sorted(self.samples_waiting)[:3])}): left out; they come "
                "once it has ended, or, if it was killed, once `inspect-mlflow import` has had its "
                "log"
            )

    async def _of_trace(self, trace: Trace) -> AsyncIterator[Transcript]:
        roots = build(trace.data.spans)
        uri = trace_uri(self.reader.uri, trace.info.experiment_id, trace.info.trace_id)
        found = [node for root in roots for node in samples(root)]
        if not found:
            if any(root.get(sc.INSPECT_KIND) == "run" for root in roots):
                return  # the samples of this run have a trace each
            story = story_of(roots)
            self._tell(trace.info.trace_id, story.problems)
            yield transcript_of_trace(roots, story, trace, uri)
            return
        for node in found:
            if node.get(sc.INSPECT_CUT_OFF):
                self.samples_cut_off += 1
                continue
            task = await self._task(node, roots)
            if task is None:
                self.samples_waiting[node.text(sc.INSPECT_EVAL_ID) or "unknown"] += 1
                continue
            problems: list[str] = []
            sample = sample_of(node, problems)
            self._tell(f"{trace.info.trace_id}, sample {sample.id}", problems)
            yield transcript_of_sample(node, sample, task, trace, uri)

    async def _task(self, sample: Node, roots: list[Node]) -> Node | None:
        """The span of a sample's task: around it, or in the trace of its run."""
        eval_id = sample.text(sc.INSPECT_EVAL_ID) or ""
        if eval_id not in self._tasks:
            here = [task for root in roots for task in tasks(root)]
            if not here:
                run = trace_id(sample.text(sc.INSPECT_RUN_ID) or "")
                trace = await self.reader.trace(f"tr-{hex_trace_id(run)}")
                there = () if trace is None else build(trace.data.spans)
                here = [task for root in there for task in tasks(root)]
            wanted = next((t for t in here if t.text(sc.INSPECT_EVAL_ID) == eval_id), None)
            # without what is below it: the samples of the task would stay in memory
            self._tasks[eval_id] = None if wanted is None else replace(wanted, children=[])
            if len(self._tasks) > _KNOWN_TASKS:
                self._tasks.popitem(last=False)
        return self._tasks[eval_id]

    def _tell(self, where: str, problems: list[str]) -> None:
        if problems:
            self.incomplete += 1
            more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
            logger.warning(
                "MLflow trace %s: could not read %s%s",
                where,
                "; ".join(dict.fromkeys(problems[:5])),
                more,
            )


def trace_uri(uri: str, experiment_id: str | None, trace: str) -> str:
    """Where a trace can be looked at; for a database, what it is called there."""
    if uri.startswith(("http://", "https://")):
        page = f"{redact(uri).rstrip('/')}/#/experiments/{experiment_id}/traces"
        return f"{page}?startTimeLabel=ALL&selectedEvaluationId={trace}"
    return f"{redact(uri)}#{trace}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
