"""How fast a finished log is imported, against what MLflow alone does with the same spans."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import getrandbits
from tempfile import TemporaryDirectory
from typing import Any

from tests.support.environment import clean_environ
from tests.support.evals import eval_task
from tests.support.servers import MlflowServer

SENDERS = 4
"""Requests for traces at once; as with spans, more are no faster."""
BATCH_SPANS = 512
"""Spans in a request of the plain ingestion; MLflow takes larger ones no faster."""


def importing(server: MlflowServer, samples: int = 2000) -> dict[str, float]:
    """Import a log of the tool loop with messages of 1 KB, in a warm process of its own.

    The same spans, under other trace ids, are posted ready-made before and after; and once more
    with what MLflow's tables show of their traces (names, previews, totals, scores), which takes a
    request for each trace.

    Returns
    -------
    dict
        The `ratio` of the import's rate to that of the spans alone, and to that `with_summaries`;
        the three rates in spans per second; `spans`; `traces` counted in MLflow after the import;
        `memory_mb`, the peak above the process that has imported a log of one sample.
    """
    with TemporaryDirectory() as folder:
        logs = {
            count: eval_task(
                "tool_loop",
                log_dir=Path(folder) / str(count),
                task_args={"samples": count, "size": 1000},
            ).location
            for count in (1, samples)
        }
        before = _work("plain", uri=server.uri, log=logs[samples])
        imported = _work("imported", uri=server.uri, warm=logs[1], log=logs[samples])
        after = _work("plain", uri=server.uri, log=logs[samples])
        summarized = _work("plain", uri=server.uri, log=logs[samples], summaries=True)
    assert before["spans"] == imported["spans"], (before, imported)
    assert imported["traces"] == samples + 1, imported
    plain = 2 * before["spans"] / (before["seconds"] + after["seconds"])
    whole = summarized["spans"] / summarized["seconds"]
    rate = imported["spans"] / imported["seconds"]
    return {
        "ratio": rate / plain,
        "with_summaries": rate / whole,
        "whole_spans_per_second": whole,
        "import_spans_per_second": rate,
        "plain_spans_per_second": plain,
        "spans": imported["spans"],
        "traces": imported["traces"],
        "memory_mb": imported["memory_mb"],
    }


def _work(job: str, **options: Any) -> dict[str, float]:
    result = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.importing", json.dumps({"job": job, **options})],
        env=clean_environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return found


# --- in a process of its own -------------------------------------------------------------------


def plain(uri: str, log: str, summaries: bool = False) -> dict[str, float]:
    """Post the spans of a log as they would be sent, encoded beforehand."""
    import httpx

    from inspect_mlflow.connection import Connection

    _, experiment_id = Connection(uri, f"plain {getrandbits(64):x}").open()
    batches = list(_encoded(log, experiment_id))
    headers = {
        "content-type": "application/x-protobuf",
        "x-mlflow-experiment-id": experiment_id,
    }

    def summarize(summary: dict[str, Any]) -> None:
        httpx.post(f"{uri}/api/3.0/mlflow/traces", json=summary, timeout=60).raise_for_status()

    with (
        httpx.Client(base_url=uri, headers=headers, trust_env=False, timeout=60) as client,
        ThreadPoolExecutor(SENDERS) as pool,
    ):
        started = time.perf_counter()
        for _, body, infos in batches:
            if summaries:
                list(pool.map(summarize, infos))
            client.post("/v1/traces", content=body).raise_for_status()
        seconds = time.perf_counter() - started
    return {"spans": sum(count for count, _, _ in batches), "seconds": seconds}


def _encoded(log: str, experiment_id: str) -> Iterator[tuple[int, bytes, list[dict[str, Any]]]]:
    """Batches of a log's spans: how many, the request, and the summaries of the traces it ends.

    The ids of traces and scores are new ones.
    """
    from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
    from mlflow.entities import Trace, TraceData
    from mlflow.protos.service_pb2 import StartTraceV3
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

    from inspect_mlflow.conversations import Conversations
    from inspect_mlflow.exporter import with_overlay
    from inspect_mlflow.trace_info import TraceSummaries, TraceSummary
    from otel_bridge.pipeline import tracer_provider
    from otel_bridge.replay import replay
    from otel_bridge.tracer import SpanTracer

    class Kept(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            waiting.append(span)

    def encoded(batch: Sequence[ReadableSpan]) -> bytes:
        request = encode_spans([with_overlay(span, conversations.of(span)) for span in batch])
        for resource_spans in request.resource_spans:
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    span.trace_id = salted(span.trace_id)
        body: bytes = request.SerializeToString()
        return body

    def salted(data: bytes) -> bytes:
        return bytes(a ^ b for a, b in zip(data, salt, strict=True))

    def info(summary: TraceSummary) -> dict[str, Any]:
        found = summary.with_runs({})
        found.trace_id = f"tr-{salted(bytes.fromhex(found.trace_id[3:])).hex()}"
        for assessment in found.assessments:
            assert assessment.assessment_id is not None
            assessment.trace_id = found.trace_id
            assessment.assessment_id = (
                f"a-{salted(bytes.fromhex(assessment.assessment_id[2:])).hex()}"
            )
        message = StartTraceV3(trace=Trace(found, TraceData([])).to_proto())  # type: ignore[no-untyped-call]
        result: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
        return result

    def batch() -> tuple[int, bytes, list[dict[str, Any]]]:
        infos = [info(summary) for span in waiting for summary in summaries.add(span)]
        return len(waiting), encoded(waiting), infos

    salt = getrandbits(128).to_bytes(16, "big")
    waiting: list[ReadableSpan] = []
    conversations = Conversations()
    summaries = TraceSummaries(experiment_id)
    tracer = SpanTracer(tracer_provider([Kept()]))
    for data in replay(log):
        tracer.emit([data])
        if len(waiting) >= BATCH_SPANS:
            yield batch()
            waiting.clear()
    if waiting:
        yield batch()


def imported(uri: str, warm: str, log: str) -> dict[str, float]:
    """Import a log after a small one; count its traces in MLflow."""
    from inspect_mlflow.backfill import Importer, group_logs
    from inspect_mlflow.config import load_settings

    name = f"imported {getrandbits(64):x}"
    settings, _ = load_settings(tracking_uri=uri, experiment_name=name)
    first, _ = group_logs([warm])
    Importer(settings).run(first)
    base = _peak_mb()
    groups, _ = group_logs([log])
    started = time.perf_counter()
    result = Importer(settings).run(groups)
    seconds = time.perf_counter() - started
    assert not result.failures, result.failures
    (delivery,) = result.deliveries
    assert not delivery.lost, delivery
    run_id = groups[0].run_id
    return {
        "spans": delivery.delivered,
        "seconds": seconds,
        "traces": _traces(uri, name, run_id),
        "memory_mb": _peak_mb() - base,
    }


def _traces(uri: str, experiment_name: str, run_id: str) -> int:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(experiment_name)
    assert experiment is not None
    found, token = 0, None
    while True:
        page = client.search_traces(
            locations=[experiment.experiment_id],
            filter_string=f"tag.`inspect.run_id` = '{run_id}'",
            max_results=500,
            page_token=token,
            include_spans=False,
        )
        found += len(page)
        token = page.token
        if not token:
            return found


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    jobs: dict[str, Callable[..., dict[str, float]]] = {"plain": plain, "imported": imported}
    print("\n" + json.dumps(jobs[options.pop("job")](**options)))
