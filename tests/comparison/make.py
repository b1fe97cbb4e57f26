"""Small `EvalLog`s in memory, for what no scorer needs to run."""

from collections.abc import Mapping, Sequence
from typing import Any

from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalMetric,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
)
from inspect_ai.scorer import Score

Row = tuple[int | str, int, Any]
"""Sample id, epoch and score value; ERRORED and ABSENT say that there is none."""

ERRORED = object()
ABSENT = object()


def rows(values: Sequence[Any]) -> list[Row]:
    """One sample per value, with ids from 1."""
    return [(number, 1, value) for number, value in enumerate(values, 1)]


def epochs(table: Sequence[Sequence[Any]]) -> list[Row]:
    """One sample per row, one epoch per column."""
    return [
        (number, epoch, value)
        for number, row in enumerate(table, 1)
        for epoch, value in enumerate(row, 1)
    ]


def make_log(
    samples: Sequence[Row],
    *,
    scorer: str = "match",
    metrics: Mapping[str, float] | None = None,
    scores: Sequence[EvalScore] | None = None,
    text: str = "question {id}",
    target: str = "answer",
    **fields: Any,
) -> EvalLog:
    """A log whose samples carry these scores, with `metrics` among its results."""
    made = []
    for number, epoch, value in samples:
        sample: dict[str, Any] = {
            "id": number,
            "epoch": epoch,
            "input": text.format(id=number),
            "target": target,
        }
        if value is ERRORED:
            sample["error"] = {"message": "boom", "traceback": "", "traceback_ansi": ""}
        elif value is not ABSENT:
            sample["scores"] = {scorer: Score(value=value)}
        made.append(EvalSample(**sample))
    if scores is None and metrics is not None:
        scores = [
            EvalScore(
                name=scorer,
                scorer=scorer,
                metrics={name: EvalMetric(name=name, value=v) for name, v in metrics.items()},
            )
        ]
    spec: dict[str, Any] = {
        "created": "2026-01-01T00:00:00+00:00",
        "task": "task",
        "model": "mockllm/model",
        "dataset": EvalDataset(name="data"),
        "config": EvalConfig(),
        **fields,
    }
    return EvalLog(
        status="success",
        eval=EvalSpec(**spec),
        results=EvalResults(scores=list(scores)) if scores is not None else None,
        samples=made,
    )
