"""Real evaluations of one task on `mockllm/model`, made to differ in known ways."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from inspect_ai import Epochs, Task, eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import Score, Scorer, Target, accuracy, match, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver

Answers = Callable[[int, int], str]
"""The model's answer to a question (its number) in an epoch."""


@scorer(metrics=[mean(), stderr()])
def closeness() -> Scorer:
    """Partial credit: how near the number is, from 0 to 1."""

    async def score(state: TaskState, target: Target) -> Score:
        text = state.output.completion
        if not text.lstrip("-").isdigit():
            return Score.unscored(reason="no_response")
        return Score(value=max(0.0, 1 - abs(int(text) - int(target.text)) / 10))

    return score


@scorer(metrics={"*": [mean(), stderr()]})
def rubric() -> Scorer:
    """A dict score: short answers, and numeric ones."""

    async def score(state: TaskState, target: Target) -> Score:
        text = state.output.completion
        return Score(value={"brief": len(text) <= 3, "numeric": float(text.lstrip("-").isdigit())})

    return score


@solver
def fails_on(ids: Sequence[str]) -> Solver:
    """Raise on some samples, after nothing and before everything."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        if str(state.sample_id) in ids:
            raise RuntimeError("the tool server went away")
        return state

    return solve


def question(number: int) -> str:
    return f"What is {number} + {number}?"


def run_eval(
    log_dir: Path,
    answers: Answers,
    *,
    model: str = "baseline",
    count: int = 30,
    epochs: int = 1,
    reducers: list[str] | None = None,
    errors: Sequence[str] = (),
    questions: Callable[[int], str] = question,
    scorers: Sequence[Scorer] | None = None,
    log_format: Literal["eval", "json"] = "eval",
    task: str = "doubling",
    tokens: int = 20,
) -> EvalLog:
    """Evaluate `count` questions about doubling numbers, and return the log it left."""
    asked = {questions(number): number for number in range(1, count + 1)}
    turns: dict[int, int] = {}

    def respond(messages: Any, *_: Any) -> ModelOutput:
        number = asked[messages[-1].text]
        turns[number] = turns.get(number, 0) + 1
        output = ModelOutput.from_content(model, answers(number, turns[number]))
        size = tokens + number % 3
        output.usage = ModelUsage(
            input_tokens=size, output_tokens=5, total_tokens=size + 5, total_cost=size * 1e-5
        )
        return output

    dataset = MemoryDataset(
        [
            Sample(id=f"q{number}", input=text, target=str(2 * number))
            for text, number in asked.items()
        ],
        name=task,
    )
    default: Sequence[Scorer] = [match(), closeness(), rubric()]
    [log] = eval(
        Task(
            name=task,
            dataset=dataset,
            solver=[fails_on(errors), generate()],
            scorer=list(default if scorers is None else scorers),
            epochs=Epochs(epochs, reducers or "mean"),
            fail_on_error=False,
        ),
        model=get_model(f"mockllm/{model}", custom_outputs=respond, memoize=False),
        log_dir=str(log_dir),
        log_format=log_format,
        display="none",
        max_connections=1,
    )
    assert log.status == "success", log.error
    return log


def correct_unless(*wrong: int) -> Answers:
    """Answer rightly except to some questions, in every epoch."""
    return lambda number, turn: str(2 * number + 1) if number in wrong else str(2 * number)


__all__ = ["accuracy", "correct_unless", "question", "run_eval"]
