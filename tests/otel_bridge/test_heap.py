"""What is loaded is left out of collections while evaluations run, and only then."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_bridge import heap
from tests.support.evals import eval_task
from tests.support.sink import OtlpSink


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    assert gc.get_freeze_count() == 0
    yield
    gc.unfreeze()


def test_until_the_last_evaluation_ends() -> None:
    heap.spare()
    assert gc.get_freeze_count() == 0
    heap.begin()
    heap.begin()
    before = gc.get_freeze_count()
    assert before > 10_000
    made = [[] for _ in range(1000)]  # type: ignore[var-annotated]
    heap.spare()
    assert gc.get_freeze_count() >= before + len(made)
    heap.end()
    assert gc.get_freeze_count() > before
    heap.end()
    assert gc.get_freeze_count() == 0


def test_what_others_froze_stays_frozen() -> None:
    gc.freeze()
    before = gc.get_freeze_count()
    heap.begin()
    heap.spare()
    heap.end()
    assert gc.get_freeze_count() <= before
    assert gc.get_freeze_count() > 10_000


def test_an_evaluation(
    tmp_path: Path, otlp_sink: OtlpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_INSPECT_TRACING", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", otlp_sink.http_endpoint)
    frozen = []
    end = heap.end

    def watched() -> None:
        frozen.append(gc.get_freeze_count())
        end()

    monkeypatch.setattr(heap, "end", watched)
    assert eval_task("minimal", log_dir=tmp_path).status == "success"
    assert frozen[0] > 10_000
    assert gc.get_freeze_count() == 0
