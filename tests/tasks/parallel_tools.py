"""Parallel calls of the same tool that finish out of order, one of them failing."""

import asyncio

from _mock import call, mock_model, says, script
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import Tool, ToolError, tool


@tool(parallel=True)
def wait() -> Tool:
    async def execute(label: str, seconds: float) -> str:
        """Wait, and give the label back.

        Args:
            label: What to give back; "broken" fails.
            seconds: How long to wait.
        """
        await asyncio.sleep(seconds)
        if label == "broken":
            raise ToolError(f"{label} after {seconds} s")
        return f"{label} after {seconds} s"

    return execute


@task
def parallel_tools(samples: int = 2) -> Task:
    """Make 2 model calls and 4 parallel tool calls a sample: slow, broken, quick and middle."""
    return Task(
        dataset=[
            Sample(id=f"parallel-{n}", input=f"Wait four times ({n}).", target="done")
            for n in range(1, samples + 1)
        ],
        solver=[use_tools(wait()), generate()],
        scorer=includes(),
        model=mock_model(
            script(
                [
                    says(
                        "Four at once.",
                        call("wait", "call-slow", label="slow", seconds=0.4),
                        call("wait", "call-broken", label="broken", seconds=0.2),
                        call("wait", "call-quick", label="quick", seconds=0.05),
                        call("wait", "call-middle", label="middle", seconds=0.3),
                    ),
                    says("All done."),
                ]
            )
        ),
    )
