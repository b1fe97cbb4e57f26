"""Scorers of all kinds: values, metrics, groups, reducers, odd names, a grader and no value."""

import math

from _mock import Turn, mock_model, says
from inspect_ai import Epochs, Task, task
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput
from inspect_ai.scorer import (
    CORRECT,
    INCORRECT,
    Metric,
    SampleScore,
    Score,
    Scorer,
    Target,
    Value,
    accuracy,
    grouped,
    includes,
    match,
    mean,
    metric,
    model_graded_qa,
    scorer,
    std,
    stderr,
)
from inspect_ai.solver import TaskState

ODD_NAME = "Odd näme: 100% (a+b) @ x, #1 = y"
"""A name with characters MLflow doesn't take. (Inspect cuts names at / and globs with [ and *.)"""

QUESTIONS = {"a": "easy", "b": "easy", "c": "hard", "d": "hard"}
"""Sample ids and their group."""


def _answer(turn: Turn) -> ModelOutput:
    """Answer right except in sample d; grade C for a right submission."""
    if "[Submission]" in turn.text:
        submission = turn.text.split("[Submission]")[1].split("[Criterion]")[0]
        right = "yes-" in submission
        return says(f"Comparing with the criterion.\n\nGRADE: {'C' if right else 'I'}")
    name = turn.question.split()[-1]
    return says("no idea" if name == "d" else f"yes-{name}")


def _dataset() -> list[Sample]:
    return [
        Sample(
            id=name,
            input=f"This is question {name}",
            target=f"yes-{name}",
            metadata={"group": group, "nested": {"list": [1, None, "x"]}},
        )
        for name, group in QUESTIONS.items()
    ]


@scorer(metrics=[mean(), std(), stderr()])
def length() -> Scorer:
    """Make a continuous scorer."""

    async def score(state: TaskState, target: Target) -> Score:
        return Score(
            value=len(state.output.completion) / 3,
            answer=state.output.completion,
            explanation="A third of the answer's length.",
            metadata={"characters": len(state.output.completion)},
        )

    return score


@scorer(metrics={"fluency": [mean(), stderr()], "relevance": [mean()], ODD_NAME: [mean()]})
def aspects() -> Scorer:
    """Make a scorer with a dictionary of values."""

    async def score(state: TaskState, target: Target) -> Score:
        right = state.output.completion == target.text
        return Score(value={"fluency": 0.75, "relevance": 1.0 if right else 0.25, ODD_NAME: 0.5})

    return score


@scorer(metrics=[{"*": [mean()]}])
def wildcard() -> Scorer:
    """Make a scorer whose keys are only known from its values."""

    async def score(state: TaskState, target: Target) -> Score:
        return Score(value={"first": 1, "second": state.epoch})

    return score


@scorer(metrics=[mean()])
def by_epoch() -> Scorer:
    """Make a scorer with another value in each epoch."""

    async def score(state: TaskState, target: Target) -> Score:
        return Score(value=1 / state.epoch)

    return score


@scorer(metrics=[grouped(mean(), "group"), mean()])
def by_group() -> Scorer:
    async def score(state: TaskState, target: Target) -> Score:
        return Score(value=1.0 if state.output.completion == target.text else 0.0)

    return score


@scorer(metrics=[mean()])
def sometimes_nan() -> Scorer:
    """Make a scorer that gives no number in sample a."""

    async def score(state: TaskState, target: Target) -> Score:
        return Score(value=math.nan if state.sample_id == "a" else 1.0)

    return score


@scorer(metrics=[accuracy()])
def sometimes_none() -> Scorer:
    """Make a scorer that gives no score at all in sample b."""

    async def score(state: TaskState, target: Target) -> Score | None:
        return None if state.sample_id == "b" else Score(value=True)

    return score


@scorer(metrics=[accuracy()])
def letters() -> Scorer:
    """Make a scorer with Inspect's letters, and text that isn't a number."""

    async def score(state: TaskState, target: Target) -> Score:
        values = {"a": CORRECT, "b": "P", "c": "N", "d": INCORRECT}
        return Score(value=values[str(state.sample_id)], explanation="ü" * 2000)

    return score


@scorer(metrics=[])
def labels() -> Scorer:
    """Make a scorer with texts and lists and no metric."""

    async def score(state: TaskState, target: Target) -> Score:
        values: dict[str, Value] = {"a": "blue", "b": ["x", 1, True], "c": "0.7", "d": ""}
        return Score(value=values[str(state.sample_id)])

    return score


@metric
def spread() -> Metric:
    """Make a metric with a value for each quantile."""

    def compute(scores: list[SampleScore]) -> Value:
        values = sorted(score.score.as_float() for score in scores)
        return {"min": values[0], "max": values[-1]}

    return compute


@scorer(name=ODD_NAME, metrics=[mean(), spread()])
def oddly_named() -> Scorer:
    async def score(state: TaskState, target: Target) -> Score:
        return Score(value=0.5)

    return score


@task
def many_scorers() -> Task:
    """Score 4 samples with 12 scorers; two of them have the same name."""
    return Task(
        dataset=_dataset(),
        scorer=[
            includes(),
            match(location="exact"),
            includes(ignore_case=False),
            length(),
            aspects(),
            wildcard(),
            by_group(),
            sometimes_nan(),
            sometimes_none(),
            letters(),
            labels(),
            oddly_named(),
        ],
        model=mock_model(_answer),
    )


@task
def repeated(epochs: int = 3) -> Task:
    """Score 4 samples in `epochs` epochs with 3 reducers."""
    return Task(
        dataset=_dataset(),
        scorer=[includes(), by_epoch(), aspects(), sometimes_nan()],
        epochs=Epochs(epochs, ["mean", "max", "at_least_2"]),
        model=mock_model(_answer),
    )


@task
def graded() -> Task:
    """Score 4 samples with a grader model: its calls stand inside the scorer."""
    grader = mock_model(_answer, name="grader")
    return Task(
        dataset=_dataset(),
        scorer=model_graded_qa(model=grader),
        model=mock_model(_answer),
    )


@task
def unscored() -> Task:
    """Have no scorer."""
    return Task(dataset=_dataset(), model=mock_model(_answer))
