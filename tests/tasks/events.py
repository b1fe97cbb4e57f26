"""Events that are points in time: state, store, info, logger, approval, and what is around them."""

import logging

from _mock import call, mock_model, says, script
from inspect_ai import Task, task
from inspect_ai.approval import ApprovalPolicy, auto_approver
from inspect_ai.dataset import Sample
from inspect_ai.log import transcript
from inspect_ai.model import ChatMessageUser, ModelOutput
from inspect_ai.scorer import includes, score
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver, use_tools
from inspect_ai.tool import Tool, tool
from inspect_ai.util import span, store, subtask

logger = logging.getLogger(__name__)


@tool
def note() -> Tool:
    async def execute(text: str) -> str:
        """Keep a note in the store.

        Args:
            text: The note.
        """
        store().set("notes", [*store().get("notes", []), text])
        return f"noted {text}"

    return execute


@tool
def erase() -> Tool:
    async def execute(text: str) -> str:
        """Erase a note.

        Args:
            text: The note.
        """
        return f"erased {text}"

    return execute


@subtask
async def summarise(words: list[str], limit: int = 3) -> str:
    store().set("inner", limit)
    transcript().info("inside the subtask")
    return " ".join(words[:limit])


@subtask(name="broken step", type="helper")
async def broken_step() -> str:
    raise ValueError("the subtask failed")


@solver
def busy() -> Solver:
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        transcript().info("plain text")
        transcript().info({"step": 1, "nested": {"list": [1, 2.5, None, True]}}, source="tests")
        store().set("counter", 1)
        state.metadata["seen"] = True
        state.messages.append(ChatMessageUser(content="One more thing."))
        logger.warning("a warning of %s", state.sample_id)
        async with span("checking", type="check"):
            store().set("counter", 2)
            transcript().info(["a", "b"], source="tests")
            state.output = ModelOutput.from_content("mock-1", "half done")
            await score(state)
        state.store.set("summary", await summarise(["one", "two", "three", "four"], limit=2))
        try:
            await broken_step()
        except ValueError:
            store().delete("counter")
        return state

    return solve


@task
def busy_events(samples: int = 1) -> Task:
    """Make info, store, state, logger, subtask, intermediate score and approval events.

    The model calls `note`, which is approved, and `erase`, which is rejected.
    """
    return Task(
        dataset=[
            Sample(id=f"events-{n}", input="Be busy.", target="done", metadata={"n": n})
            for n in range(1, samples + 1)
        ],
        solver=[busy(), use_tools(note(), erase()), generate()],
        scorer=includes(),
        approval=[
            ApprovalPolicy(auto_approver("reject"), "erase*"),
            ApprovalPolicy(auto_approver("approve"), "*"),
        ],
        model=mock_model(
            script(
                [
                    says("First.", call("note", "call-note", text="hello")),
                    says("Second.", call("erase", "call-erase", text="all")),
                    says("done"),
                ]
            )
        ),
    )


@solver
def nothing() -> Solver:
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        return state

    return solve


@task
def silent(samples: int = 1) -> Task:
    """Make samples with empty input, no target, no id, no model call and no scorer."""
    return Task(
        dataset=[Sample(input="") for _ in range(samples)],
        solver=nothing(),
        model=mock_model(lambda turn: says("never asked")),
    )
