"""Agents: react, handoff, agents as tools, nested agents, parallel agents and custom spans."""

import asyncio

from _mock import Turn, call, mock_model, says, script
from inspect_ai import Task, task
from inspect_ai.agent import Agent, AgentState, agent, as_solver, as_tool, handoff, react, run
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageUser, ModelOutput, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver, use_tools
from inspect_ai.tool import Tool, tool
from inspect_ai.util import collect, span


def _dataset(samples: int) -> list[Sample]:
    return [
        Sample(id=f"agents-{n}", input=f"Add 2 and 3, please ({n}).", target="5")
        for n in range(1, samples + 1)
    ]


@tool
def add() -> Tool:
    async def execute(a: int, b: int) -> int:
        """Add two numbers.

        Args:
            a: First number.
            b: Second number.
        """
        await asyncio.sleep(0.01)
        return a + b

    return execute


@task
def react_agent(samples: int = 1) -> Task:
    """A react agent that adds, then submits: 2 model calls, 2 tool calls."""
    return Task(
        dataset=_dataset(samples),
        solver=as_solver(react(name="adder", description="Adds numbers.", tools=[add()])),
        scorer=includes(),
        model=mock_model(
            script(
                [
                    says("I'll add them.", call("add", "call-add", a=2, b=3)),
                    says("Here it is.", call("submit", "call-submit", answer="5")),
                ]
            )
        ),
    )


@agent
def calculator() -> Agent:
    """Make an agent that answers with one tool call."""

    async def execute(state: AgentState) -> AgentState:
        """Calculate."""
        state.messages, state.output = await get_model().generate_loop(
            state.messages, tools=[add()]
        )
        return state

    return execute


@agent
def researcher() -> Agent:
    """Make an agent that asks another one."""

    async def execute(state: AgentState) -> AgentState:
        """Find something out with the help of a calculator."""
        state.messages.append(ChatMessageUser(content="Ask the calculator."))
        state.messages, state.output = await get_model().generate_loop(
            state.messages, tools=[as_tool(calculator(), description="Calculates.")]
        )
        return state

    return execute


def _delegating(turn: Turn) -> ModelOutput:
    """Delegate down to whoever can add; then report upwards."""
    offered = {info.name for info in turn.tools}
    added = any(m.role == "tool" and m.function == "add" for m in turn.messages)
    if "add" in offered and not added:
        return says("Adding.", call("add", "call-add", a=2, b=3))
    if turn.messages[-1].role == "tool":
        return says(f"They say {turn.text.strip()}.")
    if "transfer_to_calculator" in offered and turn.number == 0:
        return says("Over to you.", call("transfer_to_calculator", "call-handoff"))
    if "researcher" in offered:
        return says("Research!", call("researcher", "call-researcher", input="What is 2 + 3?"))
    if "calculator" in offered:
        return says("Calculate!", call("calculator", "call-calculator", input="2 + 3?"))
    return says("It is 5.")


@task
def handed_off(samples: int = 1) -> Task:
    """Hand the conversation off to an agent which makes a tool call."""
    return Task(
        dataset=_dataset(samples),
        solver=[
            use_tools(handoff(calculator(), description="Calculates.")),
            generate(),
        ],
        scorer=includes(),
        model=mock_model(_delegating),
    )


@task
def nested(samples: int = 1) -> Task:
    """Nest agents as tools: the model asks researcher, it asks calculator, it calls add."""
    return Task(
        dataset=_dataset(samples),
        solver=[use_tools(as_tool(researcher(), description="Researches.")), generate()],
        scorer=includes(),
        model=mock_model(_delegating),
    )


@solver
def in_parallel(width: int) -> Solver:
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        async def one(n: int) -> str:
            # Later ones finish earlier.
            await asyncio.sleep(0.03 * (width - n))
            result = await run(calculator(), f"What is 2 + 3? (nr. {n})", name=f"calculator-{n}")
            return result.output.completion

        async with span("planning", type="plan"):
            plan = await get_model().generate("How do we go about it?")
            async with span("reflection"):
                await asyncio.sleep(0.01)
        async with span("fan out"):
            answers = await collect(*(one(n) for n in range(width)))
        state.output = ModelOutput.from_content("mock-1", f"{plan.completion} {answers}")
        return state

    return solve


@task
def parallel(samples: int = 1, width: int = 3) -> Task:
    """Plan in custom spans, then run `width` agents at once with collect()."""
    return Task(
        dataset=_dataset(samples),
        solver=in_parallel(width),
        scorer=includes(),
        model=mock_model(_delegating),
    )
