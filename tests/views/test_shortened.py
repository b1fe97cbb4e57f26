"""Spans with values that limits have cut still reach MLflow, each with what is left to show."""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from inspect_mlflow import exporter
from inspect_mlflow.exporter import MlflowSpans
from inspect_mlflow.overlay import SPAN_TYPE
from inspect_mlflow.trace_info import TraceSummary, Usage
from inspect_mlflow.trace_writer import SummaryDelivery
from otel_bridge.values import Capture
from tests.support.evals import eval_task, read_log
from tests.views.sending import spans_of


class Kept(MlflowSpans):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__("0")
        self.spans: list[ReadableSpan] = []
        self.traces: list[TraceSummary] = []
        self.lost: list[str] = []

    def deal_with(
        self,
        spans: Iterable[ReadableSpan],
        summaries: Sequence[TraceSummary],
        reused: Sequence[tuple[str, list[str]]],
    ) -> None:
        self.spans += spans
        self.traces += summaries

    def lose_summary(self, reason: str) -> None:
        self.lost.append(reason)

    def summaries(self) -> SummaryDelivery:
        return SummaryDelivery(len(self.traces), len(self.lost), 0)


@pytest.fixture(scope="module")
def log_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    log = eval_task("agents@nested", log_dir=tmp_path_factory.mktemp("logs"))
    return Path(log.location)


@pytest.mark.parametrize("scope", ["run", "sample"])
@pytest.mark.parametrize(
    ("variables", "max_value_bytes"),
    [
        ({}, 200),
        ({"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "500"}, 1_000_000),
        ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "40"}, 1_000_000),
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "12"}, 1_000_000),
        ({"OTEL_SPAN_EVENT_COUNT_LIMIT": "1", "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "2"}, 1_000_000),
    ],
)
def test_limits_cost_no_span(
    variables: dict[str, str],
    max_value_bytes: int,
    scope: str,
    log_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    capture = Capture(max_value_bytes=max_value_bytes)
    spans = spans_of(read_log(log_file), scope=scope, capture=capture)
    kept = Kept()
    kept.export(spans)
    assert [span.name for span in kept.spans] == [span.name for span in spans]
    assert all(SPAN_TYPE in (span.attributes or {}) for span in kept.spans)
    roots = [span for span in spans if span.parent is None]
    assert (len(kept.traces), kept.lost) == (len(roots), [])


def test_a_mistake_in_the_overlay_costs_no_span(
    log_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def mistaken(span: ReadableSpan, exchange: object) -> ReadableSpan:
        raise LookupError(span.name)

    spans = spans_of(read_log(log_file), scope="sample")
    monkeypatch.setattr(exporter, "with_overlay", mistaken)
    kept = Kept()
    with caplog.at_level(logging.WARNING, "inspect_mlflow"):
        kept.export(spans)
    assert kept.spans == spans
    assert f"{spans[0].name}: MLflow shows it without details" in caplog.text
    assert len(caplog.records) == 1  # not one for each span


def test_a_summary_that_can_not_be_made_is_counted(
    log_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "4")  # not even ids are left
    spans = spans_of(read_log(log_file), scope="sample")
    kept = Kept()
    kept.export(spans)
    assert len(kept.spans) == len(spans)
    assert kept.lost


@pytest.mark.parametrize(
    "usage",
    [
        {"a": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}, "…": "[2 keys cut]"},
        {"a": {"input_tokens": 1, "…": "[4 keys cut]"}},
        "…[900 bytes cut]",
    ],
)
def test_totals_of_which_a_part_was_cut_are_not_shown(usage: object) -> None:
    totals = Usage()
    totals.add(json.dumps({"b": {"input_tokens": 5, "output_tokens": 5, "total_tokens": 10}}))
    totals.add(json.dumps(usage))
    assert "mlflow.trace.tokenUsage" not in totals.metadata()
