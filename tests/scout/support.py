"""Logs into MLflow, and what Scout makes of a log itself."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from inspect_ai.log import read_eval_log, write_eval_log
from inspect_scout import Transcript, transcripts_from
from inspect_scout._transcript.types import TranscriptContent

from inspect_mlflow.connection import Connection
from inspect_mlflow.exporter import MlflowSpanExporter
from inspect_mlflow.scout import import_mlflow_traces
from otel_bridge.pipeline import Destination, tracer_provider
from otel_bridge.replay import replay
from otel_bridge.spans import ScopeSetting
from otel_bridge.tracer import SpanTracer
from otel_bridge.values import Capture


def send(
    *logs: str | Path, uri: str, experiment: str, scope: ScopeSetting = "sample", **capture: Any
) -> None:
    """Send the finished logs of one run into MLflow, media and all."""
    connection = Connection(uri, experiment)
    destination = Destination(
        "MLflow", lambda: MlflowSpanExporter(connection, link_runs=False), wait_for_room=True
    )
    SpanTracer(tracer_provider([destination])).emit(
        replay(*logs, scope=scope, capture=Capture(media=True, **capture))
    )
    assert destination.force_flush(120_000)
    delivery = destination.delivery()
    destination.shutdown()
    assert delivery.delivered
    assert not delivery.lost, delivery


def as_eval(log: Path, directory: Path) -> Path:
    """The log as an `.eval` file, the format that Scout reads."""
    if log.suffix == ".eval":
        return log
    path = directory / f"{log.stem}.eval"
    write_eval_log(read_eval_log(str(log)), str(path))
    return path


def scout_transcripts(log: str | Path) -> dict[str, Transcript]:
    """What Scout makes of a log, by transcript id."""

    async def read() -> dict[str, Transcript]:
        content = TranscriptContent(messages="all", events="all", timeline="all")
        async with transcripts_from(str(log)).reader() as reader:
            read = [await reader.read(info, content) async for info in reader.index()]
        return {transcript.transcript_id: transcript for transcript in read}

    return asyncio.run(read())


def imported(**options: Any) -> list[Transcript]:
    """What the import gives."""
    return collect(import_mlflow_traces(**options))


def collect(transcripts: AsyncIterator[Transcript]) -> list[Transcript]:
    """All of an asynchronous iterator."""

    async def read() -> list[Transcript]:
        return [transcript async for transcript in transcripts]

    return asyncio.run(read())
