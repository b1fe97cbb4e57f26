"""EvalSpec → tags and params of an MLflow run, EvalLog → its metrics and status (pure)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from otel_bridge.values import to_json

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSpec

PARAM_LENGTH: Final = 6000
TAG_LENGTH: Final = 8000
KEY_LENGTH: Final = 250
NAME_LENGTH: Final = 250
"""MLflow's limits, in characters."""

TAG_RUN_ID: Final = "inspect.run_id"
TAG_EVAL_ID: Final = "inspect.eval_id"
TAG_KIND: Final = "inspect.kind"
"""`run` on the parent run of an evaluation, `task` on the run of a task."""


def run_name(task_names: list[str]) -> str:
    """The name of the parent run: its tasks."""
    return _cut(", ".join(dict.fromkeys(task_names)) or "eval", NAME_LENGTH)


def task_name(spec: EvalSpec) -> str:
    """The name of a task's run: the task and the model."""
    return _cut(f"{spec.task} · {spec.model}", NAME_LENGTH)


def run_tags(run_id: str, eval_set_id: str | None) -> dict[str, str]:
    """Tags of the parent run."""
    tags = {TAG_KIND: "run", TAG_RUN_ID: run_id}
    if eval_set_id:
        tags["inspect.eval_set_id"] = eval_set_id
    return tags


def task_tags(spec: EvalSpec) -> dict[str, str]:
    """Tags of a task's run: what it is found by."""
    tags: dict[str, Any] = {
        TAG_KIND: "task",
        TAG_RUN_ID: spec.run_id,
        TAG_EVAL_ID: spec.eval_id,
        "inspect.eval_set_id": spec.eval_set_id,
        "inspect.task_id": spec.task_id,
        "inspect.task": spec.task,
        "inspect.task_file": spec.task_file,
        "inspect.model": spec.model,
        "inspect.created": spec.created,
        "inspect.tags": ", ".join(spec.tags or ()),
    }
    for package, version in spec.packages.items():
        tags[f"inspect.package.{package}"] = version
    if spec.task_file:
        tags["mlflow.source.name"] = spec.task_file
    if spec.revision is not None:
        tags["mlflow.source.git.commit"] = spec.revision.commit
    for key, value in (spec.metadata or {}).items():
        tags[f"inspect.metadata.{key}"] = _text(value)
    return {
        clean_key(key): _cut(str(value), TAG_LENGTH)
        for key, value in tags.items()
        if value not in (None, "")
    }


def task_params(spec: EvalSpec) -> dict[str, str]:
    """Params of a task's run: what it was configured with."""
    params: dict[str, Any] = {
        "task": spec.task,
        "task_version": spec.task_version,
        "model": spec.model,
        "dataset": spec.dataset.name,
        "dataset_samples": spec.dataset.samples,
        "dataset_shuffled": spec.dataset.shuffled,
        "solver": spec.solver,
        "scorers": ", ".join(scorer.name for scorer in spec.scorers or ()),
        "epochs": spec.config.epochs or 1,
        "epochs_reducer": ", ".join(spec.config.epochs_reducer or ()),
        "sandbox": spec.sandbox.type if spec.sandbox else None,
    }
    for name, value in spec.task_args_passed.items():
        params[f"task_args.{name}"] = value
    for name, value in (spec.solver_args_passed or spec.solver_args or {}).items():
        params[f"solver_args.{name}"] = value
    for name, role in (spec.model_roles or {}).items():
        models = role if isinstance(role, list) else [role]
        params[f"model_roles.{name}"] = ", ".join(model.model for model in models)
    for name, value in spec.model_generate_config.model_dump(exclude_none=True).items():
        params[f"config.{name}"] = value
    for name in _LIMITS:
        params[name] = getattr(spec.config, name)
    return {
        clean_key(key): _cut(_text(value), PARAM_LENGTH)
        for key, value in params.items()
        if value not in (None, "")
    }


_LIMITS = (
    "limit",
    "message_limit",
    "token_limit",
    "time_limit",
    "working_limit",
    "cost_limit",
    "fail_on_error",
    "retry_on_error",
)


def final_metrics(log: EvalLog) -> dict[str, float]:
    """Metrics of a finished task: scores, counts and usage.

    NaN and infinities are left out: MLflow would refuse the batch they are in.
    """
    metrics: dict[str, float] = {}
    names: dict[str, str] = {}
    for name, value in _metrics(log):
        if math.isfinite(value):
            key = clean_key(name)
            if names.setdefault(key, name) != name:
                key = f"{key[: KEY_LENGTH - 9]}_{_short_hash(name)}"
            metrics[key] = float(value)
    return metrics


def _metrics(log: EvalLog) -> Iterator[tuple[str, float]]:
    if log.results is not None:
        seen: set[str] = set()
        for score in log.results.scores:
            for name, metric in score.metrics.items():
                key = f"{score.name}/{name}"
                if key in seen and score.reducer:
                    key = f"{score.name}/{score.reducer}/{name}"
                seen.add(key)
                yield key, metric.value
        yield "total_samples", log.results.total_samples
        yield "completed_samples", log.results.completed_samples
    for model, usage in log.stats.model_usage.items():
        yield f"usage/{model}/input_tokens", usage.input_tokens
        yield f"usage/{model}/output_tokens", usage.output_tokens
        yield f"usage/{model}/total_tokens", usage.total_tokens


def run_status(status: str) -> str:
    """MLflow's run status for Inspect's log status."""
    return {"success": "FINISHED", "error": "FAILED", "cancelled": "KILLED"}.get(status, "RUNNING")


def parent_status(statuses: list[str]) -> str:
    """The parent run's status: the worst of its tasks'."""
    for status in ("KILLED", "FAILED"):
        if status in statuses:
            return status
    return "FINISHED"


_REFUSED = re.compile(r"[^\w\-. :/]")


def clean_key(key: str) -> str:
    """A key that MLflow takes: word characters and `_ - . space : /`, a plain path.

    Other characters become `_`; where that or the length changes more than the ends, a short
    hash of the original keeps two keys apart.
    """
    cleaned = _REFUSED.sub("_", key)
    cleaned = re.sub(r"/{2,}", "/", cleaned).strip("/")
    cleaned = "/".join("_" if part in (".", "..") else part for part in cleaned.split("/"))
    if len(cleaned) > KEY_LENGTH:
        cleaned = f"{cleaned[: KEY_LENGTH - 9]}_{_short_hash(key)}"
    return cleaned or "_"


def _short_hash(text: str) -> str:
    return blake2b(text.encode("utf-8", "replace"), digest_size=4).hexdigest()


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping | list | tuple):
        return to_json(value, 100_000)
    return str(value)
