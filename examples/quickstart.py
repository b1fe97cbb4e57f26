"""A first task to evaluate: `inspect eval examples/quickstart.py --model openai/gpt-4o`.

Without an API key: `inspect eval examples/quickstart.py -T mock=true`.
"""

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessage, Model, ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import Tool, tool


@tool
def add() -> Tool:
    async def execute(a: int, b: int) -> str:
        """Add two numbers.

        Args:
            a: The first number.
            b: The second number.
        """
        return str(a + b)

    return execute


@task
def quickstart(mock: bool = False) -> Task:
    """Sums, with a calculator at hand. `mock` answers without a real model."""
    return Task(
        dataset=[
            Sample(input="What is 17 + 25?", target="42"),
            Sample(input="What is 100 + 11?", target="111"),
            Sample(input="What is 8 + 9?", target="17"),
        ],
        solver=[use_tools(add()), generate()],
        scorer=includes(),
        model=mock_model() if mock else None,
    )


def mock_model() -> Model:
    def answer(messages: list[ChatMessage], *_: object) -> ModelOutput:
        last = messages[-1]
        if last.role == "tool":
            output = ModelOutput.from_content("mock", f"The sum is {last.text}.")
        else:
            a, b = (int(word.strip("?")) for word in last.text.split()[2::2])
            output = ModelOutput.for_tool_call("mock", "add", {"a": a, "b": b})
        output.usage = ModelUsage(input_tokens=30, output_tokens=10, total_tokens=40)
        return output

    return get_model("mockllm/model", memoize=False, custom_outputs=answer)
