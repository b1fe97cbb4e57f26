"""Traces of anyone's: the conventions there are, and shapes that nobody knows."""

import json
import logging
from typing import Any

import pytest
from inspect_ai.event import ModelEvent, ToolEvent, timeline_build
from inspect_scout import Transcript

from inspect_mlflow.scout.detection import without_repeats
from inspect_mlflow.scout.transcript import said_in
from inspect_mlflow.scout.tree import Node
from tests.scout.handmade import Given, log_trace
from tests.scout.support import imported

QUESTION, ANSWER = "What is the weather in Oslo?", "Rain."
CALL = {"city": "Oslo"}


def mlflow(kind: str, inputs: Any, outputs: Any, **more: Any) -> dict[str, Any]:
    return {
        "mlflow.spanType": kind,
        "mlflow.spanInputs": inputs,
        "mlflow.spanOutputs": outputs,
        **more,
    }


TOOL = mlflow("TOOL", CALL, "rain")
USAGE = {"input_tokens": 11, "output_tokens": 5, "total_tokens": 16}

OPENAI_TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": QUESTION},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "rain"},
]


def openai_answer(message: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def parts(role: str, *items: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "parts": list(items)}


GENAI_TURNS = [
    parts("user", {"type": "text", "content": QUESTION}),
    parts("assistant", {"type": "tool_call", "id": "c1", "name": "weather", "arguments": CALL}),
    parts("tool", {"type": "tool_call_response", "id": "c1", "response": "rain"}),
]

LANGCHAIN_TURNS = [
    [
        {"type": "system", "content": "Be brief."},
        {"type": "human", "content": QUESTION},
        {
            "type": "ai",
            "content": "",
            "tool_calls": [{"name": "weather", "args": CALL, "id": "c1", "type": "tool_call"}],
        },
        {"type": "tool", "content": "rain", "tool_call_id": "c1", "name": "weather"},
    ]
]

GEMINI_TURNS = [
    {"role": "user", "parts": [{"text": QUESTION}]},
    {"role": "model", "parts": [{"function_call": {"id": "c1", "name": "weather", "args": CALL}}]},
    {
        "role": "user",
        "parts": [
            {"function_response": {"id": "c1", "name": "weather", "response": {"result": "rain"}}}
        ],
    },
]

BEDROCK_TURNS = [
    {"role": "user", "content": [{"text": QUESTION}]},
    {
        "role": "assistant",
        "content": [{"toolUse": {"toolUseId": "c1", "name": "weather", "input": CALL}}],
    },
    {
        "role": "user",
        "content": [{"toolResult": {"toolUseId": "c1", "content": [{"text": "rain"}]}}],
    },
]

OPENINFERENCE = {
    "openinference.span.kind": "LLM",
    "llm.model_name": "m",
    "llm.invocation_parameters": {"temperature": 0.1},
    "llm.input_messages.0.message.role": "system",
    "llm.input_messages.0.message.content": "Be brief.",
    "llm.input_messages.1.message.role": "user",
    "llm.input_messages.1.message.contents.0.message_content.type": "text",
    "llm.input_messages.1.message.contents.0.message_content.text": QUESTION,
    "llm.input_messages.2.message.role": "assistant",
    "llm.input_messages.2.message.tool_calls.0.tool_call.id": "c1",
    "llm.input_messages.2.message.tool_calls.0.tool_call.function.name": "weather",
    "llm.input_messages.2.message.tool_calls.0.tool_call.function.arguments": '{"city": "Oslo"}',
    "llm.input_messages.3.message.role": "tool",
    "llm.input_messages.3.message.tool_call_id": "c1",
    "llm.input_messages.3.message.content": "rain",
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.content": ANSWER,
    "llm.token_count.prompt": 11,
    "llm.token_count.completion": 5,
    "llm.token_count.total": 16,
}

MODELS: dict[str, dict[str, Any]] = {
    "openai": mlflow(
        "CHAT_MODEL",
        {"model": "m", "messages": OPENAI_TURNS, "temperature": 0.1},
        openai_answer({"role": "assistant", "content": ANSWER}),
        **{"mlflow.chat.tokenUsage": USAGE},
    ),
    "messages alone": mlflow(
        "LLM",
        OPENAI_TURNS,
        {"role": "assistant", "content": ANSWER},
        **{"mlflow.llm.model": "m", "mlflow.chat.tokenUsage": USAGE},
    ),
    "litellm": mlflow(
        "LLM",
        {"model": "m", "messages": OPENAI_TURNS, "temperature": 0.1},
        {
            **openai_answer({"role": "assistant", "content": ANSWER}),
            "usage": {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16},
        },
    ),
    "langchain": mlflow(
        "CHAT_MODEL",
        LANGCHAIN_TURNS,
        {"generations": [[{"text": ANSWER, "message": {"type": "ai", "content": ANSWER}}]]},
        **{
            "invocation_params": {"model": "m", "temperature": 0.1},
            "mlflow.llm.model": "m",
            "mlflow.chat.tokenUsage": USAGE,
        },
    ),
    "gemini": mlflow(
        "CHAT_MODEL",
        {
            "model": "m",
            "contents": GEMINI_TURNS,
            "config": {"system_instruction": "Be brief.", "temperature": 0.1},
        },
        {
            "candidates": [
                {"content": {"role": "model", "parts": [{"text": ANSWER}]}, "finish_reason": "STOP"}
            ],
            "usage_metadata": {
                "prompt_token_count": 11,
                "candidates_token_count": 5,
                "total_token_count": 16,
            },
        },
    ),
    "bedrock": mlflow(
        "CHAT_MODEL",
        {
            "modelId": "m",
            "system": [{"text": "Be brief."}],
            "messages": BEDROCK_TURNS,
            "inferenceConfig": {"temperature": 0.1},
        },
        {
            "ResponseMetadata": {"HTTPStatusCode": 200, "RetryAttempts": 0},
            "output": {"message": {"role": "assistant", "content": [{"text": ANSWER}]}},
            "stopReason": "end_turn",
            "usage": {"inputTokens": 11, "outputTokens": 5, "totalTokens": 16},
            "metrics": {"latencyMs": 1},
        },
        **{"mlflow.llm.model": "m", "mlflow.message.format": "bedrock"},
    ),
    "genai conventions": {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.request.temperature": 0.1,
        "gen_ai.system_instructions": [{"type": "text", "content": "Be brief."}],
        "gen_ai.input.messages": GENAI_TURNS,
        "gen_ai.output.messages": [
            {**parts("assistant", {"type": "text", "content": ANSWER}), "finish_reason": "stop"}
        ],
        "gen_ai.usage.input_tokens": 11,
        "gen_ai.usage.output_tokens": 5,
    },
    "openinference": OPENINFERENCE,
}


@pytest.mark.parametrize("name", MODELS)
def test_agents_with_tools(name: str, store: str, experiment_name: str) -> None:
    trace_id = log_trace(
        store,
        experiment_name,
        Given(
            "run",
            {"mlflow.spanType": "AGENT", "gen_ai.agent.name": "forecaster"},
            [Given("weather", TOOL), Given("call", MODELS[name])],
        ),
    )
    transcript = the_one(store, experiment_name)
    assert transcript.transcript_id == trace_id
    assert [m.role for m in transcript.messages] == [
        *("system", "user", "assistant", "tool", "assistant")
    ]
    system, user, asked, result, answer = transcript.messages
    assert (system.text, user.text, answer.text) == ("Be brief.", QUESTION, ANSWER)
    assert asked.role == "assistant"
    assert asked.tool_calls is not None
    assert [(c.id, c.function, c.arguments) for c in asked.tool_calls] == [("c1", "weather", CALL)]
    assert result.role == "tool"
    assert result.tool_call_id == "c1"
    assert "rain" in result.text
    (model,) = (event for event in transcript.events if isinstance(event, ModelEvent))
    assert model.model == transcript.model == "m"
    assert model.output.usage is not None
    assert (model.output.usage.input_tokens, model.output.usage.output_tokens) == (11, 5)
    assert transcript.total_tokens == 16
    assert transcript.agent == "forecaster"
    if name != "messages alone":
        assert transcript.model_options == {"temperature": 0.1}
    assert [(e.event, e.span_id == transcript.events[0].span_id) for e in transcript.events] == [
        ("span_begin", True),
        ("span_begin", False),
        ("tool", True),
        ("span_end", False),
        ("model", True),
        ("span_end", True),
    ]
    assert len(timeline_build(transcript.events).root.content)


def test_nested_agents(store: str, experiment_name: str) -> None:
    """The conversation is the outer agent's, not the longer one of an agent that it calls.

    So are the model and its options.
    """
    inner = mlflow(
        "CHAT_MODEL",
        {"model": "mini", "temperature": 1, "messages": [*OPENAI_TURNS, *OPENAI_TURNS[1:]]},
        openai_answer({"role": "assistant", "content": "inner"}),
    )
    outer = MODELS["openai"]
    root = Given(
        "outer",
        {"mlflow.spanType": "AGENT"},
        [
            Given("ask", TOOL, [Given("inner", {"mlflow.spanType": "AGENT"}, [Given("c", inner)])]),
            Given("call", outer),
        ],
    )
    log_trace(store, experiment_name, root)
    transcript = the_one(store, experiment_name)
    assert transcript.messages[-1].text == ANSWER
    assert len(transcript.messages) == 5
    assert (transcript.model, transcript.model_options) == ("m", {"temperature": 0.1})
    types = [e.type for e in transcript.events if e.event == "span_begin"]
    assert types == ["agent", "tool", "agent"]


def test_a_framework_and_the_sdk_under_it_are_one_call(store: str, experiment_name: str) -> None:
    frame = Given("ChatOpenAI", MODELS["langchain"], [Given("Completions", MODELS["openai"])])
    log_trace(store, experiment_name, frame)
    transcript = the_one(store, experiment_name)
    assert [e.event for e in transcript.events] == ["span_begin", "model", "span_end"]
    assert transcript.total_tokens == 16


def test_media(store: str, experiment_name: str) -> None:
    content = [
        {"type": "text", "text": "Look."},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
        {"inline_data": {"mime_type": "application/pdf", "data": "QUJD"}},
    ]
    inputs = {"model": "m", "messages": [{"role": "user", "content": content}]}
    log_trace(store, experiment_name, Given("call", mlflow("CHAT_MODEL", inputs, "Seen.")))
    found: Any = the_one(store, experiment_name).messages[0].content
    assert [part.type for part in found] == ["text", "image", "image", "audio", "document"]
    assert {part.image for part in found[1:3]} == {"data:image/png;base64,QUJD"}


def test_errors(store: str, experiment_name: str) -> None:
    failed = {**MODELS["openai"]}
    del failed["mlflow.spanOutputs"]
    tool = Given("weather", mlflow("TOOL", CALL, None), error="no such city")
    root = Given("run", children=[tool, Given("call", failed, error="overloaded")], error="gave up")
    log_trace(store, experiment_name, root)
    transcript = the_one(store, experiment_name)
    assert transcript.error == "gave up"
    (model,) = (e for e in transcript.events if isinstance(e, ModelEvent))
    (call,) = (e for e in transcript.events if isinstance(e, ToolEvent))
    assert model.error == "overloaded"
    assert call.error is not None
    assert call.error.message == "no such city"


def test_unknown_shapes(store: str, experiment_name: str, caplog: pytest.LogCaptureFixture) -> None:
    odd = mlflow("CHAT_MODEL", {"x": 1}, {"y": 2})
    log_trace(store, experiment_name, Given("odd", children=[Given("call", odd)]))
    with caplog.at_level(logging.WARNING, "inspect_mlflow.scout"):
        transcript = the_one(store, experiment_name)
    assert [e.event for e in transcript.events] == ["span_begin", "model", "span_end"]
    (line,) = [r.getMessage() for r in caplog.records if r.name == "inspect_mlflow.scout"]
    assert "could not read what the model call 'call' was given; what the model call" in line


def test_inputs_and_outputs_alone(store: str, experiment_name: str) -> None:
    root = mlflow("CHAIN", {"question": QUESTION}, openai_answer({"content": ANSWER}))
    log_trace(store, experiment_name, Given("app", root, [Given("step")]))
    transcript = the_one(store, experiment_name)
    assert [(m.role, m.text) for m in transcript.messages] == [
        ("user", QUESTION),
        ("assistant", ANSWER),
    ]


def test_assessments(store: str, experiment_name: str) -> None:
    from mlflow.entities import AssessmentSource, Expectation, Feedback
    from mlflow.tracing.client import TracingClient

    trace_id = log_trace(store, experiment_name, Given("call", MODELS["openai"]))
    client = TracingClient(store)
    judge, person = AssessmentSource("LLM_JUDGE", "j"), AssessmentSource("HUMAN", "p")
    for assessment in (
        Feedback(name="helpful", value=0.7, rationale="It says.", source=judge),
        Feedback(name="liked", value=False, source=person),
        Expectation(name="answer", value="Rain", source=person),
    ):
        client.log_assessment(trace_id, assessment)
    transcript = the_one(store, experiment_name)
    assert (transcript.score, transcript.success) == (0.7, True)
    assert transcript.score_explanation == "It says."
    assert transcript.metadata["score_helpful"] == 0.7
    assert transcript.metadata["human_feedback"] == {"liked": False}
    assert transcript.metadata["expectations"] == {"answer": "Rain"}


def test_assessments_count_in_the_order_of_time() -> None:
    """Whatever the order in which MLflow lists them."""
    from mlflow.entities import Feedback

    listed = [
        Feedback(name=name, value=value, create_time_ms=time)
        for time, name, value in ((3, "a", 0.3), (1, "b", 0.1), (2, "a", 0.2))
    ]
    scores = said_in(listed)["feedback"]
    assert [(name, value) for name, (value, _) in scores.items()] == [("b", 0.1), ("a", 0.3)]


def the_one(uri: str, experiment: str) -> Transcript:
    (transcript,) = imported(experiment_name=experiment, tracking_uri=uri)
    return transcript


def test_repeats_of_a_call() -> None:
    """What an SDK says in numbers of a call that is traced in full, within it or beside it."""

    def node(name: str, start: int, end: int, **attributes: Any) -> Node:
        given = {key.replace("__", "."): json.dumps(value) for key, value in attributes.items()}
        return Node(name, None, name, start, end, False, "", (), given)

    model = {"gen_ai__operation__name": "chat", "gen_ai__request__model": "m"}
    content = {"mlflow__spanInputs": [{"role": "user", "content": QUESTION}]}
    counted = {"gen_ai__usage__input_tokens": 11, "gen_ai__usage__output_tokens": 5}
    inside = node("inside", 1, 2, **{**model, "gen_ai__request__model": "m-2025"}, **counted)
    inside.children = [node("http", 1, 2)]
    around = node("around", 0, 3, **model, **content)
    around.children = [inside]
    full = node("full", 4, 6, **model, **content, gen_ai__usage__output_tokens=6)
    beside = node("beside", 5, 9, **model, **counted)
    other = node("other", 5, 6, **{**model, "gen_ai__request__model": "n"}, **counted)
    later = node("later", 7, 8, **model, **counted)
    root = node("root", 0, 9)
    root.children = [around, full, beside, other, later]

    (root,) = without_repeats([root])
    assert [n.name for n in root.children] == ["around", "full", "other", "later"]
    assert [n.name for n in around.children] == ["http"]
    tokens = ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")
    assert [around.get(name) for name in tokens] == [11, 5]
    assert [full.get(name) for name in tokens] == [11, 6], "its own count stays"
    only_numbers = node("numbers", 0, 1, **model, **counted)
    assert without_repeats([only_numbers]) == [only_numbers]
