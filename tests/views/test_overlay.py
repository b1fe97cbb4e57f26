"""What single spans say to MLflow, from the spans of real logs; no server."""

import json
from pathlib import Path
from typing import Any

import pytest

from inspect_mlflow.conversations import Conversations
from inspect_mlflow.overlay import gen_ai_messages, openai_messages, overlay, sample_messages
from otel_bridge import semconv as sc
from otel_bridge.values import Capture
from tests.support.evals import eval_task, read_log
from tests.views.sending import spans_of


def shown(task: str, folder: Path, **capture: Any) -> list[tuple[str, dict[str, Any]]]:
    """Names and MLflow attributes of a task's spans, the JSON read."""
    log = read_log(eval_task(task, log_dir=folder).location)
    conversations = Conversations()
    return [
        (span.name, {k: _read(v) for k, v in overlay(span, conversations.of(span)).items()})
        for span in spans_of(log, capture=Capture(**capture))
    ]


def _read(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) and value[:1] in "{[" else value


def of(name: str, spans: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    return [attributes for span, attributes in spans if span == name]


def test_media_are_shown_or_named(tmp_path: Path) -> None:
    first, second = of("chat model", shown("content@media", tmp_path, media=True))
    _, question = first["mlflow.spanInputs"]["messages"]
    kinds = [part["type"] for part in question["content"]]
    assert kinds == ["text", "image_url", "input_audio", "text", "text", "text"]
    assert question["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")
    assert question["content"][2]["input_audio"]["format"] == "wav"
    texts = [part["text"] for part in question["content"] if part["type"] == "text"]
    assert texts[1:3] == ["[video/mp4]", "[application/pdf]"]
    roles = [message["role"] for message in second["mlflow.spanInputs"]["messages"]]
    assert roles[:4] == ["system", "user", "assistant", "tool"]
    (choice,) = second["mlflow.spanOutputs"]["choices"]
    assert choice["message"]["content"][1]["image_url"]["url"] == "https://example.com/drawn.jpg"

    first, _ = of("chat model", shown("content@media", tmp_path))
    _, question = first["mlflow.spanInputs"]["messages"]
    assert "[image/png, 1073 bytes, sha256 " in question["content"]


def test_reasoning_and_server_tools_stand_in_the_answer(tmp_path: Path) -> None:
    (model,) = of("chat model", shown("content@reasoning", tmp_path))
    (choice,) = model["mlflow.spanOutputs"]["choices"]
    message = choice["message"]
    assert message["reasoning"] == "France … Paris.\n\nThought of Paris."
    calls = [call["function"] for call in message["tool_calls"]]
    assert calls[0] == {"name": "web_search", "arguments": '{"query": "capital of France"}'}
    assert "[mcp_call] no such city" in message["content"]
    assert "The capital is Paris." in message["content"]
    assert model["mlflow.llm.cost"] == {
        "input_cost": 0.0,
        "output_cost": 0.0,
        "total_cost": 0.0125,
    }


def test_tool_results_and_their_errors_are_messages(tmp_path: Path) -> None:
    spans = shown("content@tool_errors", tmp_path)
    _, second = of("chat model", spans)
    results = [m for m in second["mlflow.spanInputs"]["messages"] if m["role"] == "tool"]
    assert len(results) == 9
    assert any("that won't do" in message["content"] for message in results)
    assert {attributes["mlflow.spanType"] for attributes in of("execute_tool troubled", spans)} == {
        "TOOL"
    }
    (tool,) = second["mlflow.chat.tools"]
    assert tool["type"] == "function"
    assert tool["function"]["name"] == "troubled"


def test_sandbox_actions(tmp_path: Path) -> None:
    spans = shown("sandbox@sandboxed", tmp_path)
    inputs = [a["mlflow.spanInputs"] for a in of("sandbox exec", spans)]
    failed = next(a for a in of("sandbox exec", spans) if "exit 3" in str(a["mlflow.spanInputs"]))
    assert any(given["command"].startswith("wc -l") for given in inputs)
    assert failed["mlflow.spanOutputs"]["exit_code"] == 3
    assert "oops" in failed["mlflow.spanOutputs"]["output"]
    read = [a["mlflow.spanInputs"].get("file") for a in of("sandbox read_file", spans)]
    assert "notes.txt" in read


def test_agents_say_what_they_were_asked_and_answered(tmp_path: Path) -> None:
    spans = shown("agents@nested", tmp_path)
    (calculator,) = of("invoke_agent calculator", spans)
    (researcher,) = of("invoke_agent researcher", spans)
    assert calculator["mlflow.spanType"] == researcher["mlflow.spanType"] == "AGENT"
    assert calculator["mlflow.spanInputs"] == "2 + 3?"
    assert calculator["mlflow.spanOutputs"] == "They say 5."
    assert researcher["mlflow.spanInputs"] == "Ask the calculator."
    (solver,) = of("solver generate", spans)
    assert solver["mlflow.spanInputs"] == "Add 2 and 3, please (1)."
    assert "They say" in str(solver["mlflow.spanOutputs"])


def test_runs_and_tasks(tmp_path: Path) -> None:
    spans = shown("scorers@graded", tmp_path)
    (run,) = of("eval_run graded", spans)
    (task,) = of("task graded", spans)
    assert run["mlflow.spanType"] == "WORKFLOW"
    assert run["mlflow.traceTag.mlflow.traceName"] == "eval_run graded"
    assert task["mlflow.spanInputs"]["model"] == "mockllm/model"
    assert task["mlflow.spanOutputs"]["model_graded_qa.accuracy"] == 0.75
    assert [a["mlflow.llm.cost"] for a in of("chat model", spans)] == [{}] * 4


def test_earlier_messages_that_stand_elsewhere_are_named() -> None:
    from inspect_mlflow.overlay import _with_gaps

    messages = [{"role": "user", "parts": [{"type": "text", "content": str(n)}]} for n in (0, 5, 6)]
    attributes = {
        sc.GEN_AI_INPUT_MESSAGES: json.dumps(messages),
        sc.INSPECT_INPUT_OMITTED: "[[1,5]]",
        sc.INSPECT_INPUT_PREFIX_SPAN: "abc",
    }
    gapped = _with_gaps(gen_ai_messages(attributes[sc.GEN_AI_INPUT_MESSAGES]), attributes)
    texts = [message["content"] for message in openai_messages(gapped)]
    assert texts == ["0", "[4 earlier messages: see the model call in span abc]", "5", "6"]


def test_what_was_cut_is_a_note() -> None:
    text = json.dumps([{"role": "user", "parts": ["…[3 items cut]"]}, "…[12 items cut]"])
    assert list(openai_messages(gen_ai_messages(text))) == [
        {"role": "user", "content": "…[3 items cut]"},
        {"role": "system", "content": "…[12 items cut]"},
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", [("user", "plain")]),
        ('[{"not": "messages"}]', [("user", '[{"not": "messages"}]')]),
        ("[{broken", [("user", "[{broken")]),
        (
            '[{"role":"system","content":"Be kind."},'
            '{"role":"user","content":[{"type":"text","text":"Hi"},{"type":"image"}]}]',
            [("system", "Be kind."), ("user", "Hi\n[image]")],
        ),
    ],
)
def test_sample_inputs(text: str, expected: list[tuple[str, str]]) -> None:
    messages = sample_messages({sc.INSPECT_SAMPLE_INPUT: text})
    assert [(m["role"], m["content"]) for m in messages] == expected


def test_choices_stand_below_the_question() -> None:
    attributes = {sc.INSPECT_SAMPLE_INPUT: "Which?", sc.INSPECT_SAMPLE_CHOICES: '["this","that"]'}
    (message,) = sample_messages(attributes)
    assert message["content"] == "Which?\n\nA) this\nB) that"


def test_conversations_keep_nothing_of_finished_samples(tmp_path: Path) -> None:
    log = read_log(eval_task("agents@parallel", log_dir=tmp_path).location)
    conversations = Conversations()
    for span in spans_of(log):
        conversations.of(span)
    assert not conversations._inside
