"""A scan gives the same results on a log and on its traces, by way of a transcript database."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.event import timeline_dump
from inspect_scout import (
    Result,
    Scanner,
    Transcript,
    scan,
    scan_results_df,
    scanner,
    transcripts_db,
    transcripts_from,
)

from inspect_mlflow.scout import import_mlflow_traces
from tests.scout.support import send
from tests.support.evals import eval_task


def outline(span: Mapping[str, Any]) -> Any:
    """The tree of a timeline: kinds, names and the events' uuids."""
    inner = [outline(item) for item in span.get("content", ())]
    return [span.get("type"), span.get("name"), span.get("span_type"), span.get("event"), inner]


@scanner(messages="all")
def talk() -> Scanner[Transcript]:
    async def run(transcript: Transcript) -> Result:
        said = [[m.role, m.id, m.text] for m in transcript.messages]
        return Result(value=len(said), answer=str(said), explanation=str(transcript.score))

    return run


@scanner(events=["model", "tool", "span_begin"])
def work() -> Scanner[Transcript]:
    async def run(transcript: Transcript) -> Result:
        done = [[e.event, e.uuid, e.span_id, str(e.timestamp)] for e in transcript.events]
        return Result(value=len(done), answer=str(done), explanation=str(transcript.model_options))

    return run


@scanner(timeline="all")
def times() -> Scanner[Transcript]:
    async def run(transcript: Transcript) -> Result:
        trees = [outline(timeline_dump(t)["root"]) for t in transcript.timelines]
        return Result(value=len(trees), answer=str(trees))

    return run


@pytest.mark.parametrize("name", ["agents.py@nested", "tool_loop", "scorers.py@graded"])
def test_scan(name: str, store: str, experiment_name: str, tmp_path: Path) -> None:
    log = eval_task(name, log_dir=tmp_path / "logs").location
    send(log, uri=store, experiment=experiment_name)

    async def fill() -> None:
        async with transcripts_db(str(tmp_path / "db")) as db:
            await db.insert(import_mlflow_traces(experiment_name, store))

    asyncio.run(fill())
    of_log = scanned(str(log), tmp_path / "scans-log")
    of_traces = scanned(str(tmp_path / "db"), tmp_path / "scans-db")
    assert of_log == of_traces
    assert {name for name, _ in of_log} == {"talk", "work", "times"}


def scanned(location: str, scans: Path) -> dict[tuple[str, str], tuple[Any, ...]]:
    """By scanner and transcript: what was found."""
    status = scan(
        [talk(), work(), times()],
        transcripts=transcripts_from(location),
        scans=str(scans),
        max_processes=1,
        display="none",
    )
    assert status.complete, status.errors
    columns = ["value", "answer", "explanation", "transcript_task_id", "transcript_task_repeat"]
    found = {}
    for name, frame in scan_results_df(status.location).scanners.items():
        for row in frame.to_dict("records"):
            values = tuple(str(row.get(column)) for column in columns)
            found[name, str(row["transcript_id"])] = values
    return found
