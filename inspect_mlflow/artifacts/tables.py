"""Logs and samples → rows of the tables among a run's artifacts (pure)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from inspect_mlflow.metrics import Calls, usage_values
from otel_bridge.spans import score_number
from otel_bridge.values import clean_text, to_json

if TYPE_CHECKING:
    from inspect_ai.event import Event
    from inspect_ai.log import EvalLog, EvalSample
    from inspect_ai.model import ChatMessage

Row = Mapping[str, Any]

CELL_BYTES: Final = 20_000
"""Longer texts are cut: the log beside the tables has them whole."""

_SAMPLE: Final = ("sample_id", "epoch", "sample_uuid")
_TOKENS: Final = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "total_cost_usd",
)

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "tasks": (
        *("inspect_run_id", "eval_id", "eval_set_id", "task_id", "task", "task_version"),
        *("task_file", "model", "status", "error", "created", "started", "completed", "dataset"),
        *("dataset_samples", "epochs", "solver", "scorers", "total_samples", "completed_samples"),
        *("tags", "log"),
    ),
    "samples": (
        *_SAMPLE,
        *("input", "choices", "target", "output", "model", "stop_reason", "scores", "error"),
        *("limit", "retries", "started", "completed", "total_seconds", "working_seconds"),
        *("messages", "model_calls", "tool_calls", "tool_errors", *_TOKENS, "metadata"),
    ),
    "messages": (
        *_SAMPLE,
        *("index", "message_id", "role", "source", "model", "content", "tool_calls"),
        *("tool_call_id", "function", "error"),
    ),
    "sample_scores": (
        *_SAMPLE,
        *("scorer", "key", "value", "number", "answer", "explanation", "metadata"),
    ),
    "events": (
        *_SAMPLE,
        *("index", "event_uuid", "event", "timestamp", "completed", "span_id", "parent_id"),
        *("type", "name", "arguments", "result", "error", "cache", "working_seconds", *_TOKENS),
    ),
    "model_usage": ("eval_id", "task", "model", "role", *_TOKENS),
}
"""Table → its columns, in order."""


def log_rows(log: EvalLog) -> dict[str, list[Row]]:
    """Rows of the tables that a log's header fills."""
    spec, results = log.eval, log.results
    task = {
        "inspect_run_id": spec.run_id,
        "eval_id": spec.eval_id,
        "eval_set_id": spec.eval_set_id,
        "task_id": spec.task_id,
        "task": spec.task,
        "task_version": spec.task_version,
        "task_file": spec.task_file,
        "model": spec.model,
        "status": log.status,
        "error": log.error.message if log.error else None,
        "created": spec.created,
        "started": log.stats.started_at,
        "completed": log.stats.completed_at,
        "dataset": spec.dataset.name,
        "dataset_samples": spec.dataset.samples,
        "epochs": spec.config.epochs or 1,
        "solver": spec.solver or ", ".join(step.solver for step in log.plan.steps),
        "scorers": ", ".join(scorer.name for scorer in spec.scorers or ()),
        "total_samples": results.total_samples if results else None,
        "completed_samples": results.completed_samples if results else None,
        "tags": ", ".join(sorted(spec.tags or ())),
        "log": log.location,
    }
    usage_rows: list[Row] = [
        {"eval_id": spec.eval_id, "task": spec.task, kind: name, **dict(usage_values(usage))}
        for kind, used in (("model", log.stats.model_usage), ("role", log.stats.role_usage))
        for name, usage in used.items()
    ]
    return {"tasks": [task], "model_usage": usage_rows}


def sample_rows(sample: EvalSample) -> Iterator[tuple[str, Row]]:
    """Rows of a sample, each with its table."""
    of_sample = {"sample_id": sample.id, "epoch": sample.epoch, "sample_uuid": sample.uuid}
    yield "samples", of_sample | _sample_row(sample)
    for index, message in enumerate(sample.messages):
        yield "messages", of_sample | {"index": index} | _message_row(message)
    for name, score in (sample.scores or {}).items():
        keyed = score.value if isinstance(score.value, Mapping) else {None: score.value}
        for key, value in keyed.items():
            yield (
                "sample_scores",
                of_sample
                | {
                    "scorer": name,
                    "key": key,
                    "value": value,
                    "number": score_number(value),
                    "answer": score.answer,
                    "explanation": score.explanation,
                    "metadata": score.metadata,
                },
            )
    for index, event in enumerate(sample.events):
        yield "events", of_sample | {"index": index} | _event_row(event)


def result_row(sample: EvalSample) -> Row:
    """A sample's row in `sample_results/`: the values themselves, not texts of them."""
    row: dict[str, Any] = {
        "id": sample.id,
        "epoch": sample.epoch,
        "uuid": sample.uuid,
        "input": _cell(_input(sample)),
        "target": _cell(sample.target),
        "output": _cell(sample.output.completion),
        "error": sample.error.message if sample.error else None,
        "limit": sample.limit.type if sample.limit else None,
        "total_time": sample.total_time,
        "working_time": sample.working_time,
        "total_tokens": sum(usage.total_tokens for usage in sample.model_usage.values()),
    }
    for name, score in (sample.scores or {}).items():
        row[f"score/{name}"] = score.value
        if score.explanation:
            row[f"explanation/{name}"] = _cell(score.explanation)
    return row


def cells(table: str, row: Row) -> list[Any]:
    """A row in the order of its table's columns, made of numbers, booleans, texts and None."""
    return [_cell(row[column]) if column in row else None for column in COLUMNS[table]]


def _sample_row(sample: EvalSample) -> dict[str, Any]:
    calls = Calls.of(sample.events)
    tokens: dict[str, float] = {}
    for usage in sample.model_usage.values():
        for name, value in usage_values(usage):
            tokens[name] = tokens.get(name, 0) + value
    scores = {name: score.value for name, score in (sample.scores or {}).items()}
    return {
        "input": _input(sample),
        "choices": sample.choices,
        "target": sample.target,
        "output": sample.output.completion,
        "model": sample.output.model,
        "stop_reason": sample.output.stop_reason if sample.output.choices else None,
        "scores": scores,
        "error": sample.error.message if sample.error else None,
        "limit": sample.limit.type if sample.limit else None,
        "retries": len(sample.error_retries or ()),
        "started": sample.started_at,
        "completed": sample.completed_at,
        "total_seconds": sample.total_time,
        "working_seconds": sample.working_time,
        "messages": len(sample.messages),
        "model_calls": calls.model_calls,
        "tool_calls": calls.tool_calls,
        "tool_errors": calls.tool_errors,
        "metadata": sample.metadata,
        **tokens,
    }


def _input(sample: EvalSample) -> Any:
    if isinstance(sample.input, str):
        return sample.input
    return [{"role": message.role, "content": _content(message)} for message in sample.input]


def _content(message: ChatMessage) -> Any:
    if isinstance(message.content, str):
        return message.content
    parts = [part.model_dump(mode="json", exclude_none=True) for part in message.content]
    only_text = len(parts) == 1 and parts[0]["type"] == "text"
    return parts[0]["text"] if only_text else parts


def _message_row(message: ChatMessage) -> dict[str, Any]:
    row: dict[str, Any] = {
        "message_id": message.id,
        "role": message.role,
        "source": message.source,
        "content": _content(message),
    }
    if message.role == "assistant":
        row["model"] = message.model
        row["tool_calls"] = [
            {"id": call.id, "function": call.function, "arguments": call.arguments}
            for call in message.tool_calls or ()
        ] or None
    elif message.role == "tool":
        row["tool_call_id"] = message.tool_call_id
        row["function"] = message.function
        row["error"] = message.error.message if message.error else None
    return row


def _event_row(event: Event) -> dict[str, Any]:
    row: dict[str, Any] = {
        "event_uuid": event.uuid,
        "event": event.event,
        "timestamp": event.timestamp.isoformat(),
        "span_id": event.span_id,
    }
    describe = _DESCRIBE.get(event.event)
    return row | describe(event) if describe else row


def _span_begin(event: Any) -> dict[str, Any]:
    return {"type": event.type, "name": event.name, "parent_id": event.parent_id}


def _model(event: Any) -> dict[str, Any]:
    usage = event.output.usage
    return {
        "completed": event.completed.isoformat() if event.completed else None,
        "name": event.model,
        "type": event.role,
        "result": event.output.completion,
        "error": event.error,
        "cache": event.cache,
        "working_seconds": event.working_time,
        **(dict(usage_values(usage)) if usage else {}),
    }


def _tool(event: Any) -> dict[str, Any]:
    return {
        "completed": event.completed.isoformat() if event.completed else None,
        "name": event.function,
        "arguments": event.arguments,
        "result": event.result,
        "error": event.error.message if event.error else None,
        "working_seconds": event.working_time,
    }


def _score(event: Any) -> dict[str, Any]:
    return {"name": event.scorer, "result": event.score.value}


def _sandbox(event: Any) -> dict[str, Any]:
    return {
        "completed": event.completed.isoformat() if event.completed else None,
        "name": event.action,
        "arguments": event.cmd or event.file,
        "result": event.output,
    }


def _error(event: Any) -> dict[str, Any]:
    return {"error": event.error.message}


def _limit(event: Any) -> dict[str, Any]:
    return {"type": event.type, "result": event.message}


def _info(event: Any) -> dict[str, Any]:
    return {"name": event.source, "result": event.data}


def _logger(event: Any) -> dict[str, Any]:
    return {"type": event.message.level, "result": event.message.message}


_DESCRIBE: Final[Mapping[str, Callable[[Any], dict[str, Any]]]] = {
    "span_begin": _span_begin,
    "model": _model,
    "tool": _tool,
    "score": _score,
    "sandbox": _sandbox,
    "error": _error,
    "sample_limit": _limit,
    "info": _info,
    "logger": _logger,
}


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else None  # JSON has no NaN and no infinities
    if isinstance(value, str):
        return clean_text(value, CELL_BYTES)
    return to_json(value, CELL_BYTES, media=False)
