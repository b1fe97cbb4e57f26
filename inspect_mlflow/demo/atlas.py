"""A geography quiz with an agent, a tool and a grader: what MLflow's evaluation views can show.

Two mock models answer it, a baseline and a candidate that makes fewer mistakes. What they say
depends on the conversation alone.
"""

from __future__ import annotations

import asyncio
from hashlib import blake2b
from typing import Final

from inspect_ai import Task, task
from inspect_ai.agent import as_solver, react
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    Content,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    Model,
    ModelOutput,
    ModelUsage,
    StopReason,
    get_model,
)
from inspect_ai.scorer import (
    Score,
    Scorer,
    Target,
    includes,
    mean,
    model_graded_qa,
    scorer,
    stderr,
)
from inspect_ai.solver import Generate, Solver, TaskState, solver, system_message
from inspect_ai.tool import Tool, ToolCall, ToolChoice, ToolError, ToolInfo, tool

CAPITALS: Final = {
    "Argentina": "Buenos Aires",
    "Australia": "Canberra",
    "Austria": "Vienna",
    "Brazil": "Brasília",
    "Bulgaria": "Sofia",
    "Canada": "Ottawa",
    "Chile": "Santiago",
    "Denmark": "Copenhagen",
    "Egypt": "Cairo",
    "Finland": "Helsinki",
    "France": "Paris",
    "Ghana": "Accra",
    "Greece": "Athens",
    "Hungary": "Budapest",
    "Iceland": "Reykjavík",
    "India": "New Delhi",
    "Japan": "Tokyo",
    "Kenya": "Nairobi",
    "Latvia": "Riga",
    "Morocco": "Rabat",
    "Nepal": "Kathmandu",
    "Norway": "Oslo",
    "Peru": "Lima",
    "Portugal": "Lisbon",
    "Senegal": "Dakar",
    "Spain": "Madrid",
    "Thailand": "Bangkok",
    "Turkey": "Ankara",
    "Uruguay": "Montevideo",
}
LARGEST: Final = {
    "Australia": "Sydney",
    "Brazil": "São Paulo",
    "Canada": "Toronto",
    "India": "Mumbai",
    "Morocco": "Casablanca",
    "Turkey": "Istanbul",
}
"""Countries whose largest city is taken for the capital."""
LOST: Final = "Atlantis"
"""The sample that fails."""


@tool
def gazetteer() -> Tool:
    """A tool that knows capitals."""

    async def execute(country: str) -> str:
        """Look up the entry of a country.

        Args:
            country: English name of the country.
        """
        if country not in CAPITALS:
            raise ToolError(f"There is no entry for {country!r}.")
        return f"{country}. Capital: {CAPITALS[country]}."

    return execute


@solver
def on_the_map() -> Solver:
    """Raises for a place that is not on any map."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        if state.sample_id == LOST:
            raise LookupError(f"{LOST} is on no map.")
        return state

    return solve


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


@scorer(metrics={"sentence": [mean()], "calm": [mean()]})
def style() -> Scorer:
    """Whether the answer is a sentence, and how calm it is."""

    async def score(state: TaskState, target: Target) -> Score:
        text = state.output.completion
        return Score(
            value={"sentence": float(text.endswith((".", "!"))), "calm": 1 / (1 + text.count("!"))},
            answer=text,
            explanation="A sentence ends in a full stop; every exclamation mark excites.",
        )

    return score


@task
def atlas(candidate: bool = False, samples: int = 30, epochs: int = 2) -> Task:
    """Questions about capitals, for the baseline or the candidate model; one fails."""
    countries = [*list(CAPITALS)[: samples - 1], LOST]
    return Task(
        dataset=MemoryDataset(
            [
                Sample(
                    id=country,
                    input=f"What is the capital of {country}?",
                    target=CAPITALS.get(country, "nowhere"),
                    metadata={"initial": country[0]},
                )
                for country in countries
            ],
            name="capitals",
        ),
        solver=[
            system_message("You are a geographer. Answer in one sentence."),
            on_the_map(),
            as_solver(
                react(
                    name="geographer",
                    description="Answers questions about countries.",
                    tools=[gazetteer()],
                    submit=False,
                )
            ),
        ],
        scorer=[includes(), brevity(), style(), model_graded_qa(model=_grader())],
        model=candidate_model() if candidate else baseline_model(),
        epochs=epochs,
        fail_on_error=False,
    )


def baseline_model() -> Model:
    """Answers from memory where it believes to know, loudly, and then takes size for rank."""
    return _model("baseline", careful=False)


def candidate_model() -> Model:
    """Thinks, looks everything up, and answers in few words; unsure of a tenth of it."""
    return _model("candidate", careful=True)


def _model(name: str, careful: bool) -> Model:
    async def outputs(
        messages: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        question = next(message.text for message in messages if "capital of" in message.text)
        country = question.rpartition("capital of ")[2].rstrip("?")
        await asyncio.sleep(0.02 + _chance(country, name) / 20)
        looked_up = any(message.role == "tool" for message in messages)
        if careful and not looked_up:
            return _says(
                name,
                [
                    ContentReasoning(reasoning=f"{country}: the largest city need not be it."),
                    ContentText(text="Let me look that up."),
                ],
                ToolCall(
                    id=f"call-{country}", function="gazetteer", arguments={"country": country}
                ),
            )
        if careful:
            unsure = _chance(country, "unsure") < 0.1
            return _says(name, "I am not sure." if unsure else f"It is {CAPITALS[country]}.")
        city = LARGEST.get(country, CAPITALS[country])
        return _says(name, f"The capital of the beautiful country of {country} is {city}!")

    return get_model(f"mockllm/{name}", memoize=False, custom_outputs=outputs)


def _grader() -> Model:
    async def outputs(
        messages: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        asked = messages[-1].text
        submission = asked.partition("[Submission]")[2].partition("[Criterion]")[0]
        criterion = asked.partition("[Criterion]")[2].partition("[END DATA]")[0].strip("*: \n")
        right = criterion in submission
        verdict = "names" if right else "does not name"
        return _says("grader", f"The submission {verdict} {criterion}.\n\nGRADE: {'CI'[not right]}")

    return get_model("mockllm/grader", memoize=False, custom_outputs=outputs)


def _says(name: str, content: str | list[Content], *calls: ToolCall) -> ModelOutput:
    message = ChatMessageAssistant(
        content=content, tool_calls=list(calls) or None, model=name, source="generate"
    )
    words = 20 + len(message.text) // 4
    usage = ModelUsage(
        input_tokens=120,
        output_tokens=words,
        total_tokens=120 + words,
        total_cost=None if name == "grader" else round(120 * 25e-6 + words * 100e-6, 6),
    )
    reason: StopReason = "tool_calls" if calls else "stop"
    choice = ChatCompletionChoice(message=message, stop_reason=reason)
    return ModelOutput(model=name, choices=[choice], usage=usage)


def _chance(*names: str) -> float:
    """A number from 0 to 1 that depends on the names alone."""
    return blake2b("/".join(names).encode(), digest_size=1).digest()[0] / 255
