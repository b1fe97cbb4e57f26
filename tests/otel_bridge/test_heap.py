"""What is loaded is left out of collections while evaluations run, and only then."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_bridge import heap
from tests.support.evals import eval_task
from tests.support.sink import OtlpSink


@pytest.fixture(autouse=True)
def thawed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    assert gc.get_freeze_count() == 0
    monkeypatch.setattr(heap, "_running", heap._running)  # as it is now, also after a failure
    yield
    gc.unfreeze()


def collected(what: object) -> bool:
    """Whether collections look at an object. Counts would not tell: what is frozen can die."""
    return any(each is what for each in gc.get_objects())


def test_until_the_last_evaluation_ends() -> None:
    heap.spare()
    assert gc.get_freeze_count() == 0
    before: list[object] = []
    heap.begin()
    assert not collected(before)
    heap.begin()
    meanwhile: list[object] = []
    assert collected(meanwhile)
    heap.spare()
    assert not collected(meanwhile)
    heap.end()
    assert not collected(before)
    heap.end()
    assert collected(before)
    assert gc.get_freeze_count() == 0


def test_what_others_froze_stays_frozen() -> None:
    theirs: list[object] = []
    gc.freeze()
    ours: list[object] = []
    heap.begin()
    heap.spare()
    assert collected(ours)
    heap.end()
    assert not collected(theirs)


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
