"""EvalSpec → tags, params and dataset of an MLflow run; EvalLog → its status (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from inspect_mlflow.keys import Keys, cut
from otel_bridge.spans import safe_setting
from otel_bridge.values import to_json

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalPlan, EvalSpec
    from mlflow.entities import DatasetInput, Run

PARAM_LENGTH: Final = 6000
TAG_LENGTH: Final = 8000
NAME_LENGTH: Final = 250
"""MLflow's limits, in characters."""

TAG_RUN_ID: Final = "inspect.run_id"
TAG_EVAL_ID: Final = "inspect.eval_id"
TAG_TASK_ID: Final = "inspect.task_id"
TAG_KIND: Final = "inspect.kind"
"""`run` on the parent run of an evaluation, `task` on the run of a task."""
TAG_RETRY_OF: Final = "inspect.retry_of"
"""The MLflow run whose task this run retries."""

_VALUE_BYTES: Final = 1_000_000


def run_name(task_names: list[str]) -> str:
    """The name of the parent run: its tasks."""
    return cut(", ".join(sorted(set(task_names))) or "eval", NAME_LENGTH)


def task_name(spec: EvalSpec) -> str:
    """The name of a task's run: the task and the model."""
    return cut(f"{spec.task} · {spec.model}", NAME_LENGTH)


def run_tags(run_id: str, eval_set_id: str | None, task_names: list[str]) -> dict[str, str]:
    """Tags of the parent run."""
    return _tags(
        {
            TAG_KIND: "run",
            TAG_RUN_ID: run_id,
            "inspect.eval_set_id": eval_set_id,
            "inspect.tasks": ", ".join(sorted(set(task_names))),
        }
    )


def tasks_beside(specs: Iterable[EvalSpec], found: Iterable[Run]) -> list[str]:
    """The tasks, by name, that an evaluation's MLflow runs are of and that are none of these.

    Nothing where there is no parent run: it is made of what there is.
    """
    task_ids = {spec.task_id or spec.eval_id for spec in specs}
    tags = [run.data.tags for run in found]
    if all(of_run.get(TAG_KIND) != "run" for of_run in tags):
        return []
    return sorted(
        of_run["inspect.task"]
        for of_run in tags
        if of_run.get(TAG_KIND) == "task"
        and of_run.get(TAG_TASK_ID, of_run[TAG_EVAL_ID]) not in task_ids
    )


def task_tags(spec: EvalSpec, plan: EvalPlan, *, content: bool = True) -> dict[str, str]:
    """Tags of a task's run: what it is found by, and params that are too long for a param.

    Without `content` the evaluation's metadata and description stay out, and settings that can
    hold text.
    """
    tags: dict[str, Any] = {
        TAG_KIND: "task",
        TAG_RUN_ID: spec.run_id,
        TAG_EVAL_ID: spec.eval_id,
        "inspect.eval_set_id": spec.eval_set_id,
        TAG_TASK_ID: spec.task_id,
        "inspect.task": spec.task,
        "inspect.task_file": spec.task_file,
        "inspect.task_args": _told(spec.task_args_passed, content),
        "inspect.model": spec.model,
        "inspect.created": spec.created,
        "inspect.tags": ", ".join(sorted(spec.tags or ())),
        "mlflow.source.name": spec.task_file,
        "mlflow.note.content": spec.task_description if content else None,
    }
    for package, version in spec.packages.items():
        tags[f"inspect.package.{package}"] = version
    if spec.revision is not None:
        tags["mlflow.source.git.commit"] = spec.revision.commit
        tags["mlflow.source.git.repoURL"] = spec.revision.origin
        tags["inspect.git.dirty"] = spec.revision.dirty
    for key, value in (spec.metadata or {}).items() if content else ():
        tags[f"inspect.metadata.{key}"] = value
    for key, value in _params(spec, plan, content=content).items():
        if len(_text(value)) > PARAM_LENGTH:
            tags[f"inspect.params.{key}"] = value
    return _tags(tags)


def end_tags(log: EvalLog, *, content: bool = True) -> dict[str, str]:
    """Tags that only a finished log knows. Without `content` an error's message stays out."""
    return _tags(
        {
            "inspect.log": log.location,
            "inspect.status": log.status,
            "inspect.error": log.error.message if log.error and content else None,
        }
    )


def task_params(spec: EvalSpec, plan: EvalPlan, *, content: bool = True) -> dict[str, str]:
    """Params of a task's run: what it was configured with.

    Extra HTTP headers stay out, since they can hold secrets; without `content` also settings that
    can hold text of the user's own.
    """
    keys = Keys()
    return {
        keys.key(key): cut(_text(value), PARAM_LENGTH)
        for key, value in _params(spec, plan, content=content).items()
    }


def _params(spec: EvalSpec, plan: EvalPlan, *, content: bool) -> dict[str, Any]:
    config = spec.config
    params: dict[str, Any] = {
        "task": spec.task,
        "task_version": spec.task_version,
        "model": spec.model,
        "model_base_url": spec.model_base_url,
        "dataset": spec.dataset.name,
        "dataset_samples": spec.dataset.samples,
        "dataset_shuffled": spec.dataset.shuffled,
        "solver": spec.solver or ", ".join(step.solver for step in plan.steps),
        "scorers": ", ".join(scorer.name for scorer in spec.scorers or ()),
        "epochs": config.epochs or 1,
        "epochs_reducer": ", ".join(config.epochs_reducer or ()),
        "sandbox": spec.sandbox.type if spec.sandbox else None,
        "sandbox_config": spec.sandbox.config if spec.sandbox and content else None,
    }
    for name, value in _told(spec.task_args_passed, content).items():
        params[f"task_args.{name}"] = value
    if spec.solver:
        passed = spec.solver_args_passed or spec.solver_args or {}
        for name, value in _told(passed, content).items():
            params[f"solver_args.{name}"] = value
    else:
        for step in plan.steps:
            for name, value in _told(step.params_passed, content).items():
                params.setdefault(f"solver_args.{step.solver}.{name}", value)
    for name, role in (spec.model_roles or {}).items():
        models = role if isinstance(role, list) else [role]
        params[f"model_roles.{name}"] = ", ".join(model.model for model in models)
    for generate in (spec.model_generate_config, plan.config):
        for name, value in generate.model_dump(exclude_none=True).items():
            if name != "extra_headers" and (content or safe_setting(name, value)):
                params[f"config.{name}"] = value
    for name in _LIMITS:
        params[name] = getattr(config, name)
    return {key: value for key, value in params.items() if value not in (None, "")}


def _told(arguments: Mapping[str, Any], content: bool) -> Mapping[str, Any]:
    """Arguments that may be told: without `content`, numbers and booleans."""
    if content:
        return arguments
    return {name: value for name, value in arguments.items() if isinstance(value, int | float)}


_LIMITS = (
    "limit",
    "sample_id",
    "message_limit",
    "token_limit",
    "token_limit_type",
    "turn_limit",
    "time_limit",
    "working_limit",
    "cost_limit",
    "fail_on_error",
    "continue_on_fail",
    "retry_on_error",
    "score_on_error",
)


def dataset_input(spec: EvalSpec) -> DatasetInput:
    """The samples of a task as an MLflow dataset; runs on the same samples have the same digest."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = spec.dataset
    identity = to_json([dataset.name, dataset.location, dataset.sample_ids], 100_000_000)
    location = dataset.location or spec.task_file or spec.task
    is_url = re.match(r"https?://", location) is not None
    columns = [{"type": "string", "name": name, "required": True} for name in ("input", "target")]
    return DatasetInput(
        Dataset(
            name=cut(dataset.name or spec.task, NAME_LENGTH),
            digest=blake2b(identity.encode(), digest_size=8).hexdigest(),
            source_type="http" if is_url else "local",
            source=to_json({"url" if is_url else "uri": location}, 10_000),
            schema=to_json({"mlflow_colspec": columns}, 1_000),
            profile=to_json({"num_rows": dataset.samples}, 1_000),
        ),
        [InputTag("mlflow.data.context", "eval")],
    )


def run_status(status: str) -> str:
    """MLflow's run status for Inspect's log status; a log still started was cut off."""
    return {"success": "FINISHED", "error": "FAILED"}.get(status, "KILLED")


def parent_status(statuses: Iterable[str]) -> str:
    """The parent run's status: the worst of its tasks'."""
    found = set(statuses)
    return next((status for status in ("KILLED", "FAILED") if status in found), "FINISHED")


def _tags(values: Mapping[str, Any]) -> dict[str, str]:
    keys = Keys()
    return {
        keys.key(key): cut(_text(value), TAG_LENGTH)
        for key, value in values.items()
        if value not in (None, "", {})
    }


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool | int | float):
        return str(value)
    return to_json(value, _VALUE_BYTES)
