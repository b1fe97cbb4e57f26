"""The `inspect-mlflow scout` command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from inspect_mlflow.scout import ScoutImportError, Selection, trace_import

if TYPE_CHECKING:
    from inspect_scout import Transcript

    from inspect_mlflow.scout.importing import TraceImport


def run_scout(
    database: str,
    experiment_name: str | None,
    tracking_uri: str | None,
    limit: int | None,
    tags: Sequence[str] = (),
    trace_id: Sequence[str] = (),
    **filters: Any,
) -> int:
    """Import, and say how many transcripts were new, present or left out. Returns an exit code."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    selection = Selection(tags=_tags(tags), trace_id=list(trace_id) or None, **filters)
    try:
        source = trace_import(experiment_name, tracking_uri, limit, selection)
        counts = asyncio.run(_insert(source, database, console))
    except ScoutImportError as error:
        problems = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
        problems.print(str(error), style="red")
        return 2
    said = f"{counts.new} new, {counts.present} present, {counts.skipped} skipped"
    console.print(f"{said} → {database}")
    for line in source.left_out():
        console.print(f"  {line}")
    if source.incomplete:
        console.print(f"  {source.incomplete} transcripts could only be read in part")
    return 0


@dataclass
class _Counts:
    new: int = 0
    present: int = 0
    skipped: int = 0


async def _insert(source: TraceImport, database: str, console: Console) -> _Counts:
    from inspect_scout import transcripts_db

    counts = _Counts()
    total = await source.count()
    async with transcripts_db(database) as db:
        known = set(await db.transcript_ids())
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
            bar = progress.add_task("Traces", total=total)
            source.on_trace = lambda: progress.advance(bar)
            await db.insert(_counted(source.transcripts(), known, counts))
    counts.skipped = (
        source.reader.unfinished + source.samples_cut_off + source.samples_waiting.total()
    )
    return counts


async def _counted(
    transcripts: AsyncIterator[Transcript], known: set[str], counts: _Counts
) -> AsyncIterator[Transcript]:
    async for transcript in transcripts:
        if transcript.transcript_id in known:
            counts.present += 1
            continue
        known.add(transcript.transcript_id)
        counts.new += 1
        yield transcript


def _tags(tags: Sequence[str]) -> Mapping[str, str | None] | None:
    named = (tag.partition("=") for tag in tags)
    return {name: value if equals else None for name, equals, value in named} or None
