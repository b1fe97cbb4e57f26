"""A program that uses the SDKs of OpenAI, Anthropic and Bedrock under MLflow's autolog.

Its traces are named after what makes them: `openai.chat`, `openai.chat.stream`, … Run as
`python -m tests.scout.autologged URI EXPERIMENT`, in a process of its own: autolog patches SDKs.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import anthropic
import mlflow
import openai

from tests.scout.providers import running_providers

QUESTION = "What is 2 + 3?"
PARAMETERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}
TOOL = {"name": "add", "description": "Add two numbers.", "parameters": PARAMETERS}


@mlflow.trace(span_type="TOOL")  # type: ignore[untyped-decorator, unused-ignore]
def add(a: int, b: int) -> str:
    return str(a + b)


def openai_chat(client: openai.OpenAI, stream: bool) -> None:
    tools: Any = [{"type": "function", "function": TOOL}]
    messages: list[Any] = [
        {"role": "system", "content": "You add."},
        {"role": "user", "content": QUESTION},
    ]
    for _ in range(2):
        options: dict[str, Any] = {"model": "gpt-4o", "temperature": 0.5, "max_tokens": 100}
        if stream:
            options |= {"stream": True, "stream_options": {"include_usage": True}}
        answer: Any = client.chat.completions.create(messages=messages, tools=tools, **options)
        if not stream:
            message = answer.choices[0].message
            calls = [call.model_dump() for call in message.tool_calls or ()]
        else:
            calls = []
            for chunk in answer:
                for call in chunk.choices[0].delta.tool_calls or () if chunk.choices else ():
                    if call.id:
                        calls.append(call.model_dump(exclude={"index"}))
                    else:
                        calls[-1]["function"]["arguments"] += call.function.arguments
        if calls:
            messages.append({"role": "assistant", "content": None, "tool_calls": calls})
            for call in calls:
                result = add(**json.loads(call["function"]["arguments"]))
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})


def openai_responses(client: openai.OpenAI, stream: bool) -> None:
    tools: Any = [{"type": "function", **TOOL, "strict": False}]
    items: list[Any] = [{"role": "user", "content": QUESTION}]
    for _ in range(2):
        answer: Any = client.responses.create(
            model="gpt-5", instructions="You add.", input=items, tools=tools, stream=stream
        )
        if stream:
            (answer,) = (e.response for e in answer if e.type == "response.completed")
        for item in answer.output:
            items.append(item.model_dump(exclude_none=True))
            if item.type == "function_call":
                result = add(**json.loads(item.arguments))
                output = {"type": "function_call_output", "call_id": item.call_id}
                items.append({**output, "output": result})


def anthropic_messages(client: anthropic.Anthropic, stream: bool) -> None:
    def ask(options: Any) -> list[dict[str, Any]]:
        if stream:
            return gathered(client.messages.create(**options, stream=True))
        return blocks(client.messages.create(**options))

    anthropic_turns(ask, add)


def anthropic_turns(
    ask: Callable[[Any], list[dict[str, Any]]], add: Callable[[int, int], str]
) -> None:
    """Converse until the answer; `ask` takes the options of a request and gives the content."""
    tools: Any = [{"name": "add", "description": "Add two numbers.", "input_schema": PARAMETERS}]
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    for _ in range(2):
        options: Any = {
            "model": "claude-4",
            "max_tokens": 100,
            "system": "You add.",
            "messages": messages,
            "tools": tools,
        }
        content = ask(options)
        messages.append({"role": "assistant", "content": content})
        results = [
            {
                "type": "tool_result",
                "tool_use_id": b["id"],
                "content": add(b["input"]["a"], b["input"]["b"]),
            }
            for b in content
            if b["type"] == "tool_use"
        ]
        if results:
            messages.append({"role": "user", "content": results})


IMAGE = b"\x89PNG\r\n'\""


def bedrock_converse(client: Any) -> None:
    spec = {"name": "add", "description": TOOL["description"], "inputSchema": {"json": PARAMETERS}}
    image = {"image": {"format": "png", "source": {"bytes": IMAGE}}}
    messages: list[Any] = [{"role": "user", "content": [{"text": QUESTION}, image]}]
    for _ in range(2):
        answer = client.converse(
            modelId="anthropic.claude-4",
            system=[{"text": "You add."}],
            messages=messages,
            inferenceConfig={"maxTokens": 100, "temperature": 0.5, "stopSequences": ["END"]},
            toolConfig={"tools": [{"toolSpec": spec}]},
        )["output"]["message"]
        messages.append(answer)
        results = [
            {"toolUseId": part["toolUse"]["toolUseId"], "content": [{"json": {"sum": 5}}]}
            for part in answer["content"]
            if "toolUse" in part and add(**part["toolUse"]["input"])
        ]
        if results:
            messages.append({"role": "user", "content": [{"toolResult": r} for r in results]})


def bedrock_invoke(client: Any, as_bytes: bool) -> None:
    def ask(options: Any) -> list[dict[str, Any]]:
        body = json.dumps({k: v for k, v in options.items() if k != "model"})
        answer = client.invoke_model(
            modelId="anthropic.claude-4", body=body.encode() if as_bytes else body
        )
        found: list[dict[str, Any]] = json.loads(answer["body"].read())["content"]
        return found

    anthropic_turns(ask, add)


def blocks(message: anthropic.types.Message) -> list[dict[str, Any]]:
    """The content of Anthropic's message."""
    return [block.model_dump(exclude_none=True) for block in message.content]


def gathered(events: Any) -> list[dict[str, Any]]:
    """The content of Anthropic's streamed message."""
    content: list[dict[str, Any]] = []
    for event in events:
        if event.type == "content_block_start":
            content.append(event.content_block.model_dump(exclude_none=True))
            text = ""
        elif event.type == "content_block_delta" and event.delta.type == "input_json_delta":
            text += event.delta.partial_json
            content[-1]["input"] = {} if text[-1] != "}" else json.loads(text)
        elif event.type == "content_block_delta":
            name = event.delta.type.removesuffix("_delta")
            content[-1][name] += getattr(event.delta, name)
    return content


async def in_parallel(client: openai.AsyncOpenAI) -> None:
    message: Any = {"role": "user", "content": QUESTION}
    await asyncio.gather(
        *(client.chat.completions.create(model="gpt-4o", messages=[message]) for _ in range(3))
    )


def main(uri: str, experiment: str) -> None:
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(experiment)
    mlflow.openai.autolog()
    mlflow.anthropic.autolog()
    mlflow.bedrock.autolog()
    boto3: Any = import_module("boto3")
    with running_providers() as address:
        one = openai.OpenAI(base_url=f"{address}/v1", api_key="none")
        other = anthropic.Anthropic(base_url=address, api_key="none")
        for stream in (False, True):
            suffix = ".stream" if stream else ""
            for name, run, client in (
                ("openai.chat", openai_chat, one),
                ("openai.responses", openai_responses, one),
                ("anthropic.messages", anthropic_messages, other),
            ):
                with mlflow.start_span(f"{name}{suffix}", span_type="AGENT") as span:
                    span.set_inputs({"question": QUESTION})
                    run(client, stream)  # type: ignore[arg-type]
                    span.set_outputs("It is 5.")
        third = boto3.client(
            "bedrock-runtime",
            endpoint_url=address,
            region_name="us-east-1",
            aws_access_key_id="-",
            aws_secret_access_key="-",
        )
        for name, use in (
            ("bedrock.converse", bedrock_converse),
            ("bedrock.invoke", partial(bedrock_invoke, as_bytes=False)),
            ("bedrock.invoke.bytes", partial(bedrock_invoke, as_bytes=True)),
        ):
            with mlflow.start_span(name, span_type="AGENT"):
                use(third)
        with mlflow.start_span("openai.parallel") as span:
            asyncio.run(in_parallel(openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none")))
        one.chat.completions.create(  # a trace that is one call
            model="gpt-4o", messages=[{"role": "user", "content": QUESTION}]
        )
    mlflow.flush_trace_async_logging()


if __name__ == "__main__":
    main(*sys.argv[1:])
