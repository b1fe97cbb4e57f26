"""A log's transcripts by way of MLflow equal those that Scout makes of the log itself."""

import math
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.event import timeline_build, timeline_dump
from inspect_ai.log import read_eval_log, write_eval_log
from inspect_scout import Transcript

from inspect_mlflow.scout.differences import DIFFERENCES
from otel_bridge.spans import ScopeSetting
from tests.scout.support import as_eval, imported, scout_transcripts, send
from tests.support.environment import clean_environ
from tests.support.evals import TASKS, eval_task, run_inspect

LOGS = Path(__file__).parents[1] / "logs"

EVALUATIONS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("tool_loop", {"epochs": 2}, {}),
    ("parallel_tools", {}, {}),
    ("agents.py@react_agent", {}, {}),
    ("agents.py@handed_off", {}, {}),
    ("agents.py@nested", {}, {}),
    ("agents.py@parallel", {}, {}),
    ("content.py@media", {}, {}),
    ("content.py@reasoning", {}, {}),
    ("content.py@tool_errors", {}, {}),
    ("content.py@settings", {}, {}),
    ("events.py@busy_events", {}, {}),
    ("rare.py@rare_events", {}, {}),
    ("sandbox", {}, {}),
    ("scorers.py@many_scorers", {}, {}),
    ("scorers.py@graded", {}, {}),
    ("scorers.py@unscored", {}, {}),
    ("endings.py@sample_error", {"fail_on_error": False}, {}),
    ("endings.py@sample_error", {"fail_on_error": True}, {}),
    ("endings.py@sample_error", {"place": "scorer"}, {}),
    ("endings.py@limited", {"kind": "token"}, {}),
    ("endings.py@limited", {"kind": "message"}, {}),
    ("endings.py@limited", {"kind": "time", "in_tool": True}, {}),
    ("endings.py@agent_limited", {}, {}),
    ("endings.py@cached", {}, {}),
    ("endings.py@http_retries", {}, {}),
    ("endings.py@retried", {"failures": 1}, {"retry_on_error": 2}),
]

EXPECTED = {
    "source_type",
    "source_uri",
    "metadata.log",
    "metadata.mlflow_trace_id",
    "metadata.mlflow_experiment_id",
    "events[model].call",
    "events[input].input_ansi",
}
"""The paths of the differences that every log has."""

OLD = {
    # made up at every read
    "messages[].id",
    "events[model].input[].id",
    "events[model].output.choices[].message.id",
    "events[sample_init].sample.input[].id",
    # not in the log's index
    "message_count",
    "total_tokens",
    "metadata.scores.model_graded_fact.history",
}
"""Further differences of logs from before there were ids, and counts in the index."""


IN_ONE_TRACE = ("tool_loop", "agents.py@nested", "scorers.py@many_scorers")
CASES: list[tuple[str, dict[str, Any], dict[str, Any], ScopeSetting]] = [
    *((*case, "sample") for case in EVALUATIONS),
    *((*case, "run") for case in EVALUATIONS if case[0] in IN_ONE_TRACE),
]


@pytest.mark.parametrize(
    ("name", "task_args", "options", "scope"),
    CASES,
    ids=[f"{name} {args or ''} {scope}" for name, args, _, scope in CASES],
)
def test_evaluations(
    name: str,
    task_args: dict[str, Any],
    options: dict[str, Any],
    scope: ScopeSetting,
    store: str,
    experiment_name: str,
    tmp_path: Path,
) -> None:
    log = eval_task(name, log_dir=tmp_path, task_args=task_args, **options).location
    send(log, uri=store, experiment=experiment_name, scope=scope)
    found = compared(log, imported(experiment_name=experiment_name, tracking_uri=store))
    assert found <= EXPECTED


@pytest.mark.parametrize("log", sorted(LOGS.iterdir()), ids=lambda log: log.name)
def test_real_logs(log: Path, store: str, experiment_name: str, tmp_path: Path) -> None:
    path = as_eval(log, tmp_path)
    send(path, uri=store, experiment=experiment_name)
    found = compared(path, imported(experiment_name=experiment_name, tracking_uri=store))
    made_up = {path for path in found if path.endswith((".uuid", ".working_start"))}
    assert found <= EXPECTED | (set() if log.name == "guess-number-tools.eval" else made_up | OLD)


def test_long_conversations_with_little_history(
    store: str, experiment_name: str, tmp_path: Path
) -> None:
    """Model spans that repeat next to nothing still give every call its whole input."""
    log = eval_task("tool_loop", log_dir=tmp_path, task_args={"turns": 12}).location
    send(log, uri=store, experiment=experiment_name, history_bytes=100)
    found = compared(log, imported(experiment_name=experiment_name, tracking_uri=store))
    assert found <= EXPECTED


def test_several_tasks_in_one_run(store: str, experiment_name: str, tmp_path: Path) -> None:
    from inspect_ai import eval as inspect_eval

    logs = inspect_eval(
        [f"{TASKS}/tool_loop.py@tool_loop", f"{TASKS}/minimal.py@minimal"],
        log_dir=str(tmp_path),
        display="none",
        log_format="eval",
    )
    locations = [log.location for log in logs]
    send(*locations, uri=store, experiment=experiment_name, scope="run")
    got = imported(experiment_name=experiment_name, tracking_uri=store)
    assert len({transcript.metadata["mlflow_trace_id"] for transcript in got}) == 1
    for location in locations:
        eval_id = read_eval_log(location, header_only=True).eval.eval_id
        assert compared(location, [t for t in got if t.source_id == eval_id]) <= EXPECTED


def test_stored_timelines_come_along(store: str, experiment_name: str, tmp_path: Path) -> None:
    log = read_eval_log(eval_task("agents.py@nested", log_dir=tmp_path).location)
    assert log.samples
    for sample in log.samples:
        sample.timelines = [timeline_build(sample.events, name="mine", description="of my own")]
    path = tmp_path / "timelines.eval"
    write_eval_log(log, str(path))
    send(path, uri=store, experiment=experiment_name)
    (got,) = imported(experiment_name=experiment_name, tracking_uri=store)
    (expected,) = scout_transcripts(path).values()
    assert [t.name for t in got.timelines] == ["mine"]
    assert [*map(timeline_dump, got.timelines)] == [*map(timeline_dump, expected.timelines)]


def test_text_that_reads_as_a_list(store: str, experiment_name: str, tmp_path: Path) -> None:
    log = read_eval_log(eval_task("tool_loop", log_dir=tmp_path).location)
    assert log.samples
    messages = '[{"role": "user", "content": "Hi"}]'
    texts = [(messages, '["Paris", "London"]'), ("[]", "[]"), ("[1", " [1, 2]")]
    for sample, (given, target) in zip(log.samples, texts, strict=True):
        sample.input, sample.target = given, target
    path = tmp_path / "texts.eval"
    write_eval_log(log, str(path))
    send(path, uri=store, experiment=experiment_name)
    found = imported(experiment_name=experiment_name, tracking_uri=store)
    assert compared(path, found) <= EXPECTED


def test_differences_are_documented() -> None:
    documented = " ".join(DIFFERENCES)
    for path in EXPECTED:
        assert path in documented


# --- comparing ------------------------------------------------------------------------------------


def compared(log: str | Path, got: list[Transcript]) -> set[str]:
    """The paths at which transcripts differ from Scout's own of the log."""
    expected = scout_transcripts(log)
    assert {t.transcript_id for t in got} == set(expected)
    assert len(got) == len(expected)
    found: set[str] = set()
    for transcript in got:
        own = expected[transcript.transcript_id]
        assert shape(transcript) == shape(own)
        found |= {normal(path, own) for path in different(dumped(own), dumped(transcript), "")}
    return found


def shape(transcript: Transcript) -> Any:
    """What Scout's timelines are made of, without the ids that old logs don't have."""
    uuids = {event.uuid: place for place, event in enumerate(transcript.events)}

    def known(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: known(item) for key, item in value.items()}
        if isinstance(value, list):
            return [known(item) for item in value]
        return uuids.get(value, value) if isinstance(value, str) else value

    return known(timeline_dump(timeline_build(transcript.events)))


def dumped(transcript: Transcript) -> dict[str, Any]:
    fields = transcript.model_dump(exclude={"metadata", "timelines"})
    # Scout reads the JSON in its metadata when it is asked for
    return {**fields, "metadata": {key: transcript.metadata[key] for key in transcript.metadata}}


def different(one: Any, other: Any, path: str) -> Iterator[str]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in {**one, **other}:
            at = f"{path}.{key}" if path else str(key)
            if key in one and key in other:
                yield from different(one[key], other[key], at)
            else:
                yield at
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from different(left, right, f"{path}[{place}]")
    elif isinstance(one, float) and isinstance(other, float):
        # what comes from the index of the log went through a data frame and back
        if not (math.isclose(one, other, rel_tol=1e-9) or (math.isnan(one) and math.isnan(other))):
            yield path
    elif one != other or type(one) is not type(other):
        yield path


def normal(path: str, transcript: Transcript) -> str:
    """A path with the kind of the event in it, and without other places."""
    head, bracket, rest = path.partition("[")
    if not bracket:
        return path
    place, _, rest = rest.partition("]")
    kind = transcript.events[int(place)].event if head == "events" else ""
    parts = [f"{head}[{kind}]"]
    while rest:
        before, bracket, after = rest.partition("[")
        parts.append(before + ("[]" if bracket else ""))
        rest = after.partition("]")[2] if bracket else ""
    return "".join(parts)


MAIN = "from inspect_mlflow.cli import main; main()"


def test_live_and_imported_logs(tmp_path: Path) -> None:
    """By the hooks while it runs, and by the import command afterwards: the same."""
    live, later = (f"sqlite:///{tmp_path}/{name}.db" for name in ("live", "later"))
    environ = {
        "MLFLOW_MODEL_CATALOG_URI": "",
        "INSPECT_MLFLOW_CAPTURE_MEDIA": "true",
        "MLFLOW_INSPECT_TRACING": "true",
        "INSPECT_MLFLOW_LOG_ARTIFACTS": "false",
    }
    run = run_inspect(
        ["eval", f"{TASKS}/content.py@media"],
        cwd=tmp_path,
        env={**environ, "MLFLOW_TRACKING_URI": live},
    )
    (log,) = run.logs
    subprocess.run(
        [sys.executable, "-c", MAIN, "import", str(log), "--no-runs"],
        cwd=tmp_path,
        env={**clean_environ(), **environ, "MLFLOW_TRACKING_URI": later},
        check=True,
    )
    for store in (live, later):
        assert compared(log, imported(tracking_uri=store)) <= EXPECTED
