"""Says what differs between two evaluations besides their scores (pure)."""

import json
from collections.abc import Iterator
from typing import Any

from inspect_ai.log import EvalSpec
from pydantic import BaseModel

from inspect_mlflow.comparison.loading import LoadedEval

__all__ = ["difference_notes"]

_LISTED = 6
_LENGTH = 40
# Fields that say how an evaluation was run or logged, not what was asked of the model.
_INCIDENTAL = {
    *("acp_server", "adaptive_connections", "max_connections", "max_dataset_memory", "max_retries"),
    *("max_samples", "max_sandboxes", "max_subprocesses", "max_tasks", "notification"),
    *("log_buffer", "log_images", "log_model_api", "log_realtime", "log_samples", "log_shared"),
    *("sample_ids", "sandbox_cleanup", "score_display"),
}
# What may hold a secret: that it differs is all that is said.
_UNQUOTED = {"args", "api_key", "base_url", "env", "environment", "extra_body", "extra_headers"}
_DEFAULTS = {"epochs": 1, "epochs_reducer": ["mean"]}


def difference_notes(baseline: LoadedEval, candidate: LoadedEval) -> list[str]:
    """Say what differs between two evaluations besides their scores and models.

    Parameters
    ----------
    baseline, candidate
        Loaded evaluations.

    Returns
    -------
    list of str
        One sentence each for samples left out, and for every part of the setup that differs, as
        ``name before → after``. Values that may hold a secret are named only.
    """
    notes = []
    for side, run in (("baseline", baseline), ("candidate", candidate)):
        if run.header.status != "success":
            notes.append(f"the {side} has status {run.header.status!r}: it may be incomplete")
        errored = sum(record.errored for record in run.samples)
        if errored:
            notes.append(
                f"{errored} of {len(run.samples)} samples errored in the {side} and are left out"
            )
        if run.invalidated:
            notes.append(f"{run.invalidated} invalidated samples of the {side} are left out")
    if baseline.filtered:
        notes.append("a sample filter was applied to both runs")
    setups = _setup(baseline.header.eval), _setup(candidate.header.eval)
    for part in setups[0]:
        first, second = (dict(_flat(setup[part])) for setup in setups)
        changes = [
            _change(path, first.get(path), second.get(path))
            for path in sorted(first.keys() | second.keys())
            if _value(first, path) != _value(second, path)
        ]
        if len(changes) > _LISTED:
            changes[_LISTED - 1 :] = [f"{len(changes) - _LISTED + 1} more"]
        if changes:
            notes.append(f"different {part}: {', '.join(changes)}")
    return notes


def _setup(spec: EvalSpec) -> dict[str, Any]:
    """What may explain a difference between scores, who graded first."""
    return {
        "model roles": spec.model_roles,
        "scorer arguments": {entry.name: entry.options for entry in spec.scorers or []},
        "task": spec.task,
        "task version": spec.task_version,
        "task arguments": spec.task_args,
        "dataset": spec.dataset,
        "solver": spec.solver,
        "solver arguments": spec.solver_args,
        "generate config": spec.model_generate_config,
        "limits and configuration": spec.config,
        "model": {"args": spec.model_args, "base_url": spec.model_base_url},
        "sandbox": spec.sandbox,
        "revision": spec.revision and spec.revision.model_dump(include={"commit", "dirty"}),
        "packages": spec.packages,
    }


def _flat(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The values that are set within a value, by the names that lead to them."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude=_INCIDENTAL)
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(item, (*path, str(name)))
    elif value is not None:
        yield path, value


def _value(values: dict[tuple[str, ...], Any], path: tuple[str, ...]) -> Any:
    return values.get(path, _DEFAULTS.get(path[-1]) if path else None)


def _change(path: tuple[str, ...], first: Any, second: Any) -> str:
    name = ".".join(path)
    before, after = _short(first), _short(second)
    if before == after or not _UNQUOTED.isdisjoint(path):
        return name or "at length"
    return f"{name} {before} → {after}".lstrip()


def _short(value: Any) -> str:
    if value is None:
        return "unset"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = " ".join(text.split())
    return text if len(text) <= _LENGTH else f"{text[:_LENGTH]}…"
