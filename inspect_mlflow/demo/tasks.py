"""Two small tasks, and mock models that answer them like models would."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    Model,
    ModelOutput,
    ModelUsage,
    get_model,
)
from inspect_ai.scorer import Score, Scorer, Target, includes, mean, scorer, stderr
from inspect_ai.solver import TaskState, generate, system_message, use_tools
from inspect_ai.tool import Tool, ToolCall, ToolError, tool

STOCK = {"apples": 12, "pears": 7, "plums": 0}
CAPITALS = {
    "Austria": "Vienna",
    "Brazil": "Brasília",
    "Canada": "Ottawa",
    "Denmark": "Copenhagen",
    "Egypt": "Cairo",
    "Finland": "Helsinki",
    "Greece": "Athens",
    "Hungary": "Budapest",
    "Iceland": "Reykjavík",
    "Japan": "Tokyo",
    "Kenya": "Nairobi",
    "Latvia": "Riga",
}

# --- a warehouse assistant that uses a tool ---------------------------------------------------


@tool
def stock() -> Tool:
    """A tool that knows how much of everything there is."""

    async def execute(item: str) -> str:
        """Look up how many pieces of an item are in stock.

        Args:
            item: Name of the item.
        """
        if item not in STOCK:
            raise ToolError(f"There is no item called {item!r}.")
        return str(STOCK[item])

    return execute


@scorer(metrics=[mean(), stderr()])
def brevity() -> Scorer:
    """How short the answer is: 1 for nothing, 0 for 100 characters and more."""

    async def score(state: TaskState, target: Target) -> Score:
        length = len(state.output.completion)
        return Score(
            value=round(max(0.0, 1 - length / 100), 2),
            answer=state.output.completion,
            explanation=f"The answer has {length} characters.",
        )

    return score


@task
def warehouse() -> Task:
    """Questions about a stock; one asks for an item that does not exist."""
    return Task(
        dataset=[
            Sample(id="apples", input="How many apples are in stock?", target="12"),
            Sample(id="plums", input="How many plums are in stock?", target="0"),
            Sample(id="fruit", input="How many apples and pears are in stock?", target="19"),
            Sample(id="melons", input="How many melons are in stock?", target="no melons"),
        ],
        solver=[
            system_message("You answer questions about a warehouse, in one sentence."),
            use_tools(stock()),
            generate(),
        ],
        scorer=[includes(), brevity()],
        model=_model("clerk", _clerk),
    )


def _clerk(messages: list[ChatMessage]) -> ModelOutput:
    question = next(message.text for message in messages if message.role == "user")
    match = re.search(r"How many (.+) are", question)
    items = match.group(1).split(" and ") if match else []
    results = [message for message in messages if message.role == "tool"]
    if not results:
        calls = [
            ToolCall(id=f"call-{item}", function="stock", arguments={"item": item})
            for item in items
        ]
        return _says("Let me look that up.", *calls)
    if any(result.error for result in results):
        return _says(f"There are no {items[0]} in this warehouse.")
    total = sum(int(result.text) for result in results)
    return _says(f"There are {total} {' and '.join(items)} in stock.")


# --- the same quiz for two models -------------------------------------------------------------


@task
def capitals(candidate: bool = False) -> Task:
    """A dozen questions, twice each, for the baseline or the candidate model."""
    name, wrong = ("candidate", {"Kenya"}) if candidate else ("baseline", _BASELINE_ERRORS)
    return Task(
        dataset=[
            Sample(id=country, input=f"What is the capital of {country}?", target=capital)
            for country, capital in CAPITALS.items()
        ],
        solver=generate(),
        scorer=[includes(), brevity()],
        model=_model(name, lambda messages: _quiz(messages, wrong, verbose=not candidate)),
        epochs=2,
    )


_BASELINE_ERRORS = {"Brazil", "Canada", "Iceland", "Latvia"}


def _quiz(messages: list[ChatMessage], wrong: set[str], *, verbose: bool) -> ModelOutput:
    country = messages[-1].text.removeprefix("What is the capital of ").removesuffix("?")
    answer = "I am not sure" if country in wrong else CAPITALS[country]
    return _says(f"The capital of {country} is {answer}." if verbose else f"{answer}.")


# --- mock models ------------------------------------------------------------------------------


def _model(name: str, respond: Callable[[list[ChatMessage]], ModelOutput]) -> Model:
    """A model whose answers depend on the conversation alone."""

    def outputs(messages: list[ChatMessage], *_: Any) -> ModelOutput:
        return respond(messages)

    return get_model(f"mockllm/{name}", memoize=False, custom_outputs=outputs)


def _says(text: str, *calls: ToolCall) -> ModelOutput:
    message = ChatMessageAssistant(content=text, tool_calls=list(calls) or None)
    output_tokens = len(text.split()) + 8 * len(calls)
    return ModelOutput(
        model="mock",
        choices=[
            ChatCompletionChoice(message=message, stop_reason="tool_calls" if calls else "stop")
        ],
        usage=ModelUsage(
            input_tokens=40, output_tokens=output_tokens, total_tokens=40 + output_tokens
        ),
    )
