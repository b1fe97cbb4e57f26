"""Rare events, subtasks that are cut off, early stopping, a cost limit, samples that won't end."""

import asyncio
from pathlib import Path
from typing import Any

from _mock import Turn, call, mock_model, says
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.event import (
    AnchorEvent,
    BranchEvent,
    CompactionEvent,
    InputEvent,
    InterruptEvent,
    ReviewEvent,
    SampleLimitEvent,
)
from inspect_ai.log import EvalSpec, transcript
from inspect_ai.model import ModelCost, ModelInfo, ModelOutput, get_model, set_model_info
from inspect_ai.scorer import SampleScore, includes
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver, use_tools
from inspect_ai.tool import Tool, ToolCall, tool
from inspect_ai.util import EarlyStop, span, store, subtask


def _dataset(samples: int) -> list[Sample]:
    return [
        Sample(id=f"sample-{n}", input=f"This is sample {n}.", target="done")
        for n in range(1, samples + 1)
    ]


@solver
def rarely() -> Solver:
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        record = transcript()._event
        record(CompactionEvent(type="trim", tokens_before=9000, tokens_after=100, source="tests"))
        async with span("asking"):
            record(InputEvent(input="Go on", input_ansi="\x1b[1mGo on\x1b[0m", outcome="accepted"))
            record(InterruptEvent(source="user_cancel", interrupted="generate"))
        record(
            ReviewEvent(
                message="odd",
                call=ToolCall(id="c", function="f", arguments={"x": "ünïcode"}),
                reviewer="human",
                decision="continue",
                explanation="fine",
            )
        )
        record(AnchorEvent(anchor_id="a-1", source="tests", metadata={"why": ["later"]}))
        record(BranchEvent(from_anchor="a-1"))
        record(SampleLimitEvent(type="custom", message="as wished", limit=7))
        return await generate(state)

    return solve


@task
def rare_events(samples: int = 1) -> Task:
    """Make compaction, input, interrupt, review, anchor, branch and limit events."""
    return Task(
        dataset=_dataset(samples),
        solver=rarely(),
        scorer=includes(),
        model=mock_model(lambda turn: says("done")),
    )


@subtask
async def endless() -> str:
    store().set("started", True)
    while True:
        await get_model().generate("Once more.")
        await asyncio.sleep(0.01)


@solver
def never_ending() -> Solver:
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        async with span("outer"):
            await endless()
        return state

    return solve


@task
def cut_off_subtask(samples: int = 1) -> Task:
    """Let a token limit cut off a subtask inside a span."""
    return Task(
        dataset=_dataset(samples),
        solver=never_ending(),
        scorer=includes(),
        token_limit=300,
        model=mock_model(lambda turn: says("Again.")),
    )


@task
def costly(samples: int = 1) -> Task:
    """Run into a cost limit; a call costs 10 cents."""
    set_model_info(
        "mockllm/costly",
        ModelInfo(cost=ModelCost(input=1000, output=0, input_cache_write=0, input_cache_read=0)),
    )

    def respond(turn: Turn) -> ModelOutput:
        return says("Once more.", call("nothing", f"call-{turn.number}"))

    return Task(
        dataset=_dataset(samples),
        solver=[use_tools(nothing()), generate()],
        scorer=includes(),
        cost_limit=0.25,
        model=mock_model(respond, name="costly"),
    )


@tool
def nothing() -> Tool:
    async def execute() -> str:
        """Do nothing."""
        return "done nothing"

    return execute


class FirstIsEnough:
    """Stops a task after its first sample."""

    def __init__(self) -> None:
        self.completed = 0

    async def start_task(self, task: EvalSpec, samples: list[Sample], epochs: int) -> str:
        return "first is enough"

    async def schedule_sample(self, id: str | int, epoch: int) -> EarlyStop | None:
        return EarlyStop(id=id, epoch=epoch, reason="enough") if self.completed else None

    async def complete_sample(
        self, id: str | int, epoch: int, scores: dict[str, SampleScore]
    ) -> None:
        self.completed += 1

    async def complete_task(self) -> dict[str, Any]:
        return {"completed": self.completed}


@task
def early_stopping(samples: int = 4) -> Task:
    """Run one sample of `samples`: the others are stopped early. Run it with max_samples=1."""
    return Task(
        dataset=_dataset(samples),
        scorer=includes(),
        early_stopping=FirstIsEnough(),
        model=mock_model(lambda turn: says("done")),
    )


@tool
def wait() -> Tool:
    async def execute(seconds: float) -> str:
        """Wait.

        Args:
            seconds: How long.
        """
        async with span("waiting", type="wait"):
            await asyncio.sleep(seconds)
        return "waited"

    return execute


@task
def waiting(samples: int = 3, seconds: float = 600, first: bool = True) -> Task:
    """Wait in a tool call, in all samples or (with `first`) all but the first."""

    def respond(turn: Turn) -> ModelOutput:
        if turn.number or (first and turn.question == "This is sample 1."):
            return says("done")
        return says("Waiting.", call("wait", "call-wait", seconds=seconds))

    return Task(
        dataset=_dataset(samples),
        solver=[use_tools(wait()), generate()],
        scorer=includes(),
        model=mock_model(respond),
    )


@solver
def failing_at_first(failing: str, times: int, record: Path) -> Solver:
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        if state.sample_id == failing:
            await asyncio.sleep(0.3)  # the others are done by then
            failures = len(record.read_text()) if record.exists() else 0
            if failures < times:
                record.write_text("x" * (failures + 1))
                raise RuntimeError(f"failure {failures + 1}")
        return await generate(state)

    return solve


@task
def fails_at_first(record: str, samples: int = 3, times: int = 1) -> Task:
    """Fail `times` times by the last sample; the others are fine. The file `record` counts."""
    return Task(
        dataset=_dataset(samples),
        solver=failing_at_first(f"sample-{samples}", times, Path(record)),
        scorer=includes(),
        model=mock_model(lambda turn: says("done")),
    )
