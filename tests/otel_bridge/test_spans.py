"""What a log says of itself: providers, and in which trace samples stand."""

import pytest
from inspect_ai.log import EvalConfig, EvalDataset, EvalSpec

from otel_bridge.spans import TaskRef, model_provider


@pytest.mark.parametrize(
    ("model", "provider", "name"),
    [
        ("openai/gpt-4o", "openai", "gpt-4o"),
        ("openai/azure/gpt-4o", "azure.ai.openai", "gpt-4o"),
        ("openai/bedrock/gpt-oss", "aws.bedrock", "gpt-oss"),
        ("anthropic/claude", "anthropic", "claude"),
        ("anthropic/bedrock/claude", "aws.bedrock", "claude"),
        ("anthropic/vertex/claude", "gcp.vertex_ai", "claude"),
        ("anthropic/azure/claude", "azure.ai.inference", "claude"),
        ("google/gemini-2.5-pro", "gcp.gemini", "gemini-2.5-pro"),
        ("google/vertex/gemini-2.5-pro", "gcp.vertex_ai", "gemini-2.5-pro"),
        ("mistral/azure/large", "azure.ai.inference", "large"),
        ("openai-api/deepseek/deepseek-chat", "deepseek", "deepseek-chat"),
        ("openai-api/mine/a/b", "mine", "a/b"),
        ("together/meta-llama/Llama-3", "together", "meta-llama/Llama-3"),
        ("vllm/azure/x", "vllm", "azure/x"),
        ("model", "_OTHER", "model"),
    ],
)
def test_model_provider(model: str, provider: str, name: str) -> None:
    assert model_provider(model) == (provider, name)


@pytest.mark.parametrize(
    ("samples", "epochs", "scope"),
    [(1, 1, "run"), (5, 2, "run"), (5, 3, "sample"), (11, 1, "sample"), (0, 1, "sample")],
)
def test_small_tasks_stay_in_the_trace_of_their_run(samples: int, epochs: int, scope: str) -> None:
    spec = EvalSpec(
        created="2026-01-01T00:00:00+00:00",
        task="task",
        dataset=EvalDataset(samples=samples),
        model="mockllm/model",
        config=EvalConfig(epochs=epochs),
    )
    assert TaskRef.of(spec, "auto").scope == scope
