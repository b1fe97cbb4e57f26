"""The smallest evaluation: one sample, one model call, one scorer."""

from _mock import mock_model, says
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes


@task
def minimal() -> Task:
    return Task(
        dataset=[Sample(input="What is the capital of France?", target="Paris", id="france")],
        scorer=includes(),
        model=mock_model(lambda turn: says("The capital of France is Paris.")),
    )
