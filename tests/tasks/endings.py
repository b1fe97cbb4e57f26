"""All the ways a sample or a model call can end: errors, retries, limits and cache reads."""

import asyncio
import uuid
from collections import Counter
from typing import Any, Literal

from _mock import Turn, call, mock_model, says
from inspect_ai import Task, task
from inspect_ai.agent import Agent, AgentState, agent, as_tool
from inspect_ai.dataset import Sample
from inspect_ai.model import (
    CachePolicy,
    ChatMessage,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    get_model,
    modelapi,
)
from inspect_ai.scorer import CORRECT, Score, Scorer, Target, accuracy, includes, scorer
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver, use_tools
from inspect_ai.tool import Tool, ToolChoice, ToolInfo, tool
from inspect_ai.util import Limit, token_limit

Place = Literal["solver", "model", "tool", "scorer"]
LimitKind = Literal["token", "message", "turn", "time", "working"]


def _dataset(samples: int) -> list[Sample]:
    return [
        Sample(id=f"sample-{n}", input=f"This is sample {n}.", target="done")
        for n in range(1, samples + 1)
    ]


def _fail(place: str, text: str) -> None:
    raise RuntimeError(f"the {place} failed: {text}")


@solver
def failing_solver(place: Place) -> Solver:
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        if place == "solver" and state.sample_id == "sample-2":
            _fail("solver", str(state.sample_id))
        return state

    return solve


@tool
def failing_tool() -> Tool:
    async def execute(text: str) -> str:
        """Fail.

        Args:
            text: Why.
        """
        _fail("tool", text)
        return ""

    return execute


@scorer(metrics=[accuracy()])
def failing_scorer(place: Place) -> Scorer:
    async def score(state: TaskState, target: Target) -> Score:
        if place == "scorer" and state.sample_id == "sample-2":
            _fail("scorer", str(state.sample_id))
        return Score(value=CORRECT)

    return score


@task
def sample_error(place: Place = "solver", samples: int = 3, fail_on_error: bool = False) -> Task:
    """Let an exception end sample-2, in its solver, model call, tool or scorer.

    With `fail_on_error` the task fails with it, else the others go on.
    """

    def respond(turn: Turn) -> ModelOutput:
        second = "sample 2" in turn.question
        if second and place == "model":
            _fail("model", turn.question)
        if second and place == "tool":
            return says("Calling.", call("failing_tool", "call-failing", text="no reason"))
        return says("done")

    return Task(
        dataset=_dataset(samples),
        solver=[use_tools(failing_tool()), failing_solver(place), generate()],
        scorer=failing_scorer(place),
        fail_on_error=fail_on_error,
        model=mock_model(respond),
    )


@solver
def flaky(failures: int) -> Solver:
    attempts: Counter[str] = Counter()

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        state = await generate(state)
        attempts[state.uuid] += 1
        if state.sample_id == "sample-1" and attempts[state.uuid] <= failures:
            _fail("solver", f"attempt {attempts[state.uuid]}")
        return state

    return solve


@task
def retried(failures: int = 1, samples: int = 2) -> Task:
    """Fail the first attempts of sample-1. Run it with `--retry-on-error N`."""
    return Task(
        dataset=_dataset(samples),
        solver=flaky(failures),
        scorer=includes(),
        model=mock_model(lambda turn: says("done")),
    )


@tool
def pause() -> Tool:
    async def execute(seconds: float) -> str:
        """Do nothing for a while.

        Args:
            seconds: How long.
        """
        await asyncio.sleep(seconds)
        return f"paused {seconds} s"

    return execute


@task
def limited(kind: LimitKind = "token", in_tool: bool = False, samples: int = 1) -> Task:
    """Run into a limit in an endless tool loop.

    The limit is 300 tokens (a call costs 120), 5 messages, 2 turns, or a second of time. With
    `in_tool` one of time cuts off a first tool call of a minute.
    """
    seconds = 60.0 if in_tool and kind in ("time", "working") else 0.2
    limits: dict[LimitKind, Any] = {
        "token": {"token_limit": 300},
        "message": {"message_limit": 5},
        "turn": {"turn_limit": 2},
        "time": {"time_limit": 1},
        "working": {"working_limit": 1},
    }

    def respond(turn: Turn) -> ModelOutput:
        return says("Once more.", call("pause", f"call-{turn.number}", seconds=seconds))

    return Task(
        dataset=_dataset(samples),
        solver=[use_tools(pause()), generate()],
        scorer=includes(),
        model=mock_model(respond),
        **limits[kind],
    )


@agent
def greedy() -> Agent:
    async def execute(state: AgentState) -> AgentState:
        """Think for ever."""
        state.messages, state.output = await get_model().generate_loop(
            state.messages, tools=[pause()]
        )
        return state

    return execute


@task
def agent_limited(own: bool = True, samples: int = 1) -> Task:
    """Let an agent used as a tool run into a token limit.

    With a limit of its own the sample goes on. Without, the sample's cuts off the tool call.
    """
    limits: list[Limit] = [token_limit(300)] if own else []

    def respond(turn: Turn) -> ModelOutput:
        if any(info.name == "pause" for info in turn.tools):
            return says("Once more.", call("pause", f"call-{turn.number}", seconds=0.01))
        if turn.number == 0:
            return says("Delegating.", call("greedy", "call-greedy", input="Think."))
        return says("done")

    return Task(
        dataset=_dataset(samples),
        solver=[
            use_tools(as_tool(greedy(), description="Thinks.", limits=limits)),
            generate(),
        ],
        scorer=includes(),
        token_limit=None if own else 400,
        model=mock_model(respond),
    )


@solver
def ask_twice() -> Solver:
    # A scope of its own, so that earlier runs have nothing to do with it.
    policy = CachePolicy(scopes={"run": uuid.uuid4().hex})

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        for _ in range(2):
            state.output = await get_model().generate(f"Ask {state.sample_id}.", cache=policy)
        return state

    return solve


@task
def cached(samples: int = 1) -> Task:
    """Make the same model call twice; the second is read from the cache."""
    return Task(
        dataset=_dataset(samples),
        solver=ask_twice(),
        scorer=includes(),
        model=mock_model(lambda turn: says("done")),
    )


class Unreliable(ModelAPI):
    """A provider whose first calls of a conversation fail in a way that is worth a retry."""

    def __init__(self, model_name: str, *, failures: int, **options: Any) -> None:
        super().__init__(model_name, **options)
        self.failures = failures
        self.attempts: Counter[str] = Counter()

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        self.attempts[input[-1].text] += 1
        if self.attempts[input[-1].text] <= self.failures:
            raise ConnectionError(f"503 at attempt {self.attempts[input[-1].text]}")
        return says("done")

    def should_retry(self, ex: BaseException) -> bool:
        return isinstance(ex, ConnectionError)


@modelapi(name="unreliable")
def unreliable() -> type[ModelAPI]:
    return Unreliable


@task
def http_retries(failures: int = 1, samples: int = 1) -> Task:
    """Make one model call a sample, which Inspect repeats `failures` times."""
    return Task(
        dataset=_dataset(samples),
        scorer=includes(),
        model=get_model("unreliable/model", memoize=False, failures=failures),
    )
