"""A program that uses the Anthropic SDK's streams, traced in ways that record them.

Its traces are named after what makes them: `create.stream`, `stream`, … Run as
`python -m tests.scout.instrumented URI EXPERIMENT_ID WAY`, in a process of its own: instrumentation
patches SDKs. The ways: `otlp` is OpenInference into a tracer provider that exports to MLflow over
OTLP; `shared` is OpenInference into MLflow's traces; `sdk` is the SDK's own spans into these.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import anthropic

from tests.scout.autologged import anthropic_turns, blocks, gathered
from tests.scout.providers import running_providers

Content = list[dict[str, Any]]
Agent = Callable[[str], AbstractContextManager[Any]]
Add = Callable[[int, int], str]


def create(client: anthropic.Anthropic, options: Any) -> Content:
    return blocks(client.messages.create(**options))


def create_stream(client: anthropic.Anthropic, options: Any) -> Content:
    return gathered(client.messages.create(**options, stream=True))


def stream(client: anthropic.Anthropic, options: Any) -> Content:
    with client.messages.stream(**options) as events:
        for _ in events:
            pass
        return blocks(events.get_final_message())


async def async_create_stream(client: anthropic.AsyncAnthropic, options: Any) -> Content:
    events = await client.messages.create(**options, stream=True)
    return gathered([event async for event in events])


async def async_stream(client: anthropic.AsyncAnthropic, options: Any) -> Content:
    async with client.messages.stream(**options) as events:
        return blocks(await events.get_final_message())


def converse(agent: Agent, add: Add) -> None:
    """Trace a conversation each."""
    with running_providers() as address:
        client = anthropic.Anthropic(base_url=address, api_key="-")
        for call in (create, create_stream, stream):
            with agent(call.__name__):
                anthropic_turns(partial(call, client), add)
        for async_call in (async_create_stream, async_stream):
            with agent(async_call.__name__):
                anthropic_turns(partial(run, async_call, address), add)


def run(
    call: Callable[[Any, Any], Coroutine[Any, Any, Content]], address: str, options: Any
) -> Any:
    async def ask() -> Content:
        async with anthropic.AsyncAnthropic(base_url=address, api_key="-") as client:
            return await call(client, options)

    return asyncio.run(ask())


def instrument(**options: Any) -> None:
    openinference: Any = import_module("openinference.instrumentation.anthropic")
    openinference.AnthropicInstrumentor().instrument(**options)


def over_otlp(uri: str, experiment_id: str) -> None:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    headers = {"x-mlflow-experiment-id": experiment_id}
    provider = TracerProvider()
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(f"{uri}/v1/traces", headers=headers))
    )
    instrument(tracer_provider=provider)
    tracer = provider.get_tracer(__name__)

    @contextmanager
    def agent(name: str) -> Iterator[None]:
        with tracer.start_as_current_span(name, attributes={"openinference.span.kind": "AGENT"}):
            yield

    def add(a: int, b: int) -> str:
        attributes = {
            "openinference.span.kind": "TOOL",
            "tool.name": "add",
            "input.value": json.dumps({"a": a, "b": b}),
            "output.value": str(a + b),
        }
        with tracer.start_as_current_span("add", attributes=attributes):
            return str(a + b)

    converse(agent, add)
    provider.shutdown()


def into_mlflow(uri: str, experiment_id: str, *, openinference: bool) -> None:
    os.environ["MLFLOW_USE_DEFAULT_TRACER_PROVIDER"] = "false"
    if not openinference:
        os.environ["ANTHROPIC_OPEN_TELEMETRY_TRACES_CONTENT_MODE"] = "content"
    import mlflow
    from opentelemetry import trace

    from tests.scout.autologged import add

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(experiment_id=experiment_id)
    if openinference:
        instrument()
    converse(lambda name: mlflow.start_span(name, span_type="AGENT"), add)
    provider: Any = trace.get_tracer_provider()
    provider.force_flush()
    mlflow.flush_trace_async_logging()


def main(uri: str, experiment_id: str, way: str) -> None:
    if way == "otlp":
        over_otlp(uri, experiment_id)
    else:
        into_mlflow(uri, experiment_id, openinference=way == "shared")


if __name__ == "__main__":
    main(*sys.argv[1:])
