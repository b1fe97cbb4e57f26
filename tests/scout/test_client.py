"""Reading from MLflow: what is selected, what is left out, and what goes wrong."""

import asyncio
import logging
import os
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import mlflow
import pytest
from click.testing import CliRunner
from inspect_scout import Transcript, transcripts_from

from inspect_mlflow import import_mlflow_traces
from inspect_mlflow.cli import main
from inspect_mlflow.scout import ScoutImportError, trace_import
from inspect_mlflow.scout.client import Selection
from tests.scout.handmade import START, Given, log_trace
from tests.scout.support import collect, imported, send
from tests.scout.test_anyone import MODELS
from tests.support.evals import TASKS, eval_task, start_inspect
from tests.support.process import wait_until
from tests.support.servers import MlflowServer

BEGAN = datetime.fromtimestamp(START / 1e9, timezone.utc)


@pytest.fixture
def three(store: str, experiment_name: str) -> list[str]:
    """Ids of three traces; the second has a session and a tag of its own."""
    from mlflow.tracing.client import TracingClient

    call = MODELS["openai"]
    ids = [
        log_trace(store, experiment_name, Given("one", call)),
        log_trace(store, experiment_name, Given("two", {**call, "session.id": "it's"})),
        log_trace(store, experiment_name, Given("three", call, error="bad")),
    ]
    TracingClient(store).set_trace_tag(ids[1], "my.tag", "mine")
    return ids


def test_all_of_them(three: list[str], store: str, experiment_name: str) -> None:
    found = imported(experiment_name=experiment_name, tracking_uri=store)
    assert [t.transcript_id for t in found] == three
    assert {t.source_type for t in found} == {"mlflow"}
    assert found[0].source_uri == f"{store}#{three[0]}"


def test_limit(three: list[str], store: str, experiment_name: str) -> None:
    found = imported(experiment_name=experiment_name, tracking_uri=store, limit=2)
    assert [t.transcript_id for t in found] == three[:2]


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({"session_id": "it's"}, [1]),
        ({"tags": {"my.tag": "mine"}}, [1]),
        ({"tags": ["my.tag"]}, [1]),
        ({"tags": {"my.tag": "other"}}, []),
        ({"filter": "attributes.status = 'ERROR'"}, [2]),
        ({"from_time": BEGAN, "to_time": BEGAN + timedelta(days=1)}, [0, 1, 2]),
        ({"from_time": BEGAN + timedelta(days=1)}, []),
        ({"to_time": BEGAN}, []),
        ({"session_id": "it's", "filter": "attributes.status = 'ERROR'"}, []),
    ],
)
def test_filters(
    filters: dict[str, Any], wanted: list[int], three: list[str], store: str, experiment_name: str
) -> None:
    found = imported(experiment_name=experiment_name, tracking_uri=store, **filters)
    assert [t.transcript_id for t in found] == [three[i] for i in wanted]


def test_times_without_a_zone_are_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        naive = BEGAN.replace(tzinfo=None)
        assert Selection(naive, naive).filter_string() == Selection(BEGAN, BEGAN).filter_string()
    finally:
        monkeypatch.undo()
        time.tzset()


def test_traces_by_their_ids(three: list[str], store: str) -> None:
    found = imported(tracking_uri=store, trace_id=[three[2], three[0]])
    assert [t.transcript_id for t in found] == [three[2], three[0]]
    with pytest.raises(ScoutImportError, match=r"has no trace 'tr-0'"):
        imported(tracking_uri=store, trace_id="tr-0")


def test_a_run(store: str, experiment_name: str) -> None:
    from mlflow import MlflowClient

    log_trace(store, experiment_name, Given("one", MODELS["openai"]))
    linked = log_trace(store, experiment_name, Given("two", MODELS["openai"]))
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(experiment_name)
    assert experiment is not None
    run = client.create_run(experiment.experiment_id).info.run_id
    client.link_traces_to_run([linked], run)
    (found,) = imported(experiment_name=experiment_name, tracking_uri=store, run_id=run)
    assert found.transcript_id == linked


def test_traces_in_progress_are_counted(
    store: str, experiment_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    call = Given("call", MODELS["openai"])
    done = log_trace(store, experiment_name, Given("done", children=[call]))
    log_trace(store, experiment_name, Given("open", children=[call]), without_root=True)
    with caplog.at_level(logging.WARNING, "inspect_mlflow.scout"):
        (found,) = imported(experiment_name=experiment_name, tracking_uri=store)
    assert found.transcript_id == done
    assert "1 trace in progress, or not wholly in MLflow yet: left out" in caplog.text


def test_an_evaluation_that_runs(
    mlflow_server: MlflowServer,
    experiment_name: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A finished sample comes once its evaluation has ended, with all that Scout has of it."""
    from tests.scout.test_round_trip import EXPECTED, compared

    env = {
        "MLFLOW_TRACKING_URI": mlflow_server.uri,
        "MLFLOW_EXPERIMENT_NAME": experiment_name,
        "MLFLOW_INSPECT_TRACING": "true",
        "INSPECT_MLFLOW_TRACE_SCOPE": "sample",
    }
    client = mlflow_server.client()

    def first_sample_is_there() -> bool:
        experiment = client.get_experiment_by_name(experiment_name)
        if experiment is None:
            return False
        found = client.search_traces([experiment.experiment_id], include_spans=False)
        return any(trace.info.state == "OK" for trace in found)

    options = ["--experiment-name", experiment_name, "--tracking-uri", mlflow_server.uri]
    command = ["scout", str(tmp_path / "scout"), *options]
    running = start_inspect(["eval", f"{TASKS}/rare.py@waiting"], cwd=tmp_path, env=env)
    try:
        wait_until(first_sample_is_there, what="the trace of a sample", timeout=180, every=0.5)
        with caplog.at_level(logging.WARNING, "inspect_mlflow.scout"):
            assert imported(experiment_name=experiment_name, tracking_uri=mlflow_server.uri) == []
        assert "1 sample of 1 evaluation without an end in MLflow" in caplog.text
        output = CliRunner().invoke(main, command).output
        assert "0 new, 0 present" in output
        assert "1 sample of 1 evaluation without an end in MLflow" in output
        running.interrupt()
        (log,) = running.finish(timeout=90).logs
    finally:
        running.kill()
    found = imported(experiment_name=experiment_name, tracking_uri=mlflow_server.uri)
    first = next(transcript for transcript in found if transcript.task_id == "sample-1")
    assert first.metadata["eval_status"] == "cancelled"
    assert compared(log, found) <= EXPECTED
    assert f"{len(found)} new, 0 present" in CliRunner().invoke(main, command).output


def test_an_evaluation_without_an_end(
    store: str, experiment_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As of one that was killed: its samples wait for the rest of the log."""
    from mlflow.tracing.client import TracingClient

    log = eval_task("minimal", log_dir=tmp_path)
    send(log.location, uri=store, experiment=experiment_name)
    (whole,) = imported(experiment_name=experiment_name, tracking_uri=store)
    client = TracingClient(store)
    infos = client.search_traces(locations=[str(whole.metadata["mlflow_experiment_id"])])
    (run,) = (t.info for t in infos if t.info.trace_id != whole.metadata["mlflow_trace_id"])
    client.delete_traces(experiment_id=str(run.experiment_id), trace_ids=[run.trace_id])
    assert imported(experiment_name=experiment_name, tracking_uri=store) == []
    assert f"1 sample of 1 evaluation without an end in MLflow ({whole.source_id})" in caplog.text
    send(log.location, uri=store, experiment=experiment_name)
    assert imported(experiment_name=experiment_name, tracking_uri=store) == [whole]


def test_what_people_say_of_a_sample(store: str, experiment_name: str, tmp_path: Path) -> None:
    """Feedback and expectations come along, but not those that repeat the evaluation's own."""
    from mlflow.entities import AssessmentSource, Expectation, Feedback
    from mlflow.tracing.client import TracingClient

    send(
        eval_task("scorers.py@graded", log_dir=tmp_path).location,
        uri=store,
        experiment=experiment_name,
    )
    first, *others = imported(experiment_name=experiment_name, tracking_uri=store)
    client, person = TracingClient(store), AssessmentSource("HUMAN", "p")
    trace_id = first.metadata["mlflow_trace_id"]
    client.log_assessment(trace_id, Feedback(name="liked", value=True, source=person))
    client.log_assessment(trace_id, Expectation(name="tone", value="kind", source=person))
    again, *rest = imported(experiment_name=experiment_name, tracking_uri=store)
    said = {"human_feedback": {"liked": True}, "expectations": {"tone": "kind"}}
    assert again.metadata == {**first.metadata, **said}
    assert [t.metadata for t in rest] == [t.metadata for t in others]
    assert not said.keys() & {key for t in [first, *others] for key in t.metadata}


# --- what goes wrong ------------------------------------------------------------------------------


def test_no_address() -> None:
    with pytest.raises(ScoutImportError, match="set MLFLOW_TRACKING_URI"):
        imported()


def test_an_address_that_is_not_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:./mlruns")
    with pytest.raises(ScoutImportError, match=r"MLFLOW_TRACKING_URI='file:./mlruns': accepted"):
        imported()


def test_no_such_experiment(three: list[str], store: str) -> None:
    with pytest.raises(ScoutImportError, match="has no experiment 'nowhere'"):
        imported(experiment_name="nowhere", tracking_uri=store)


def test_a_deleted_experiment(store: str, experiment_name: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(store)
    client.delete_experiment(client.create_experiment(experiment_name))
    with pytest.raises(ScoutImportError, match="has deleted the experiment"):
        imported(experiment_name=experiment_name, tracking_uri=store)


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_no_server(scheme: str) -> None:
    uri = f"{scheme}://127.0.0.1:9"
    with pytest.raises(ScoutImportError, match=rf"^MLflow {uri}: .*(refused|pip install)"):
        imported(tracking_uri=uri)


def test_no_database_is_made(tmp_path: Path) -> None:
    with pytest.raises(ScoutImportError, match="there is no such database"):
        imported(tracking_uri=f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()


def test_a_filter_that_mlflow_refuses(three: list[str], store: str, experiment_name: str) -> None:
    with pytest.raises(ScoutImportError, match="nonsense"):
        imported(experiment_name=experiment_name, tracking_uri=store, filter="nonsense = 1")


# --- around it ------------------------------------------------------------------------------------


def test_mlflow_s_state_stays(
    three: list[str], store: str, experiment_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment_name)
    before = (mlflow.get_tracking_uri(), mlflow.active_run(), dict(os.environ))
    assert len(imported()) == 3
    assert (mlflow.get_tracking_uri(), mlflow.active_run(), dict(os.environ)) == before


def test_tasks_are_kept_without_their_samples(
    store: str, experiment_name: str, tmp_path: Path
) -> None:
    log = eval_task("tool_loop", log_dir=tmp_path)
    send(log.location, uri=store, experiment=experiment_name, scope="run")
    source = trace_import(experiment_name, store)
    assert collect(source.transcripts())
    (task,) = source._tasks.values()
    assert task is not None
    assert not task.children


def test_stopping_early(three: list[str], store: str, experiment_name: str) -> None:
    async def first() -> Transcript:
        async for transcript in import_mlflow_traces(experiment_name, store):
            return transcript
        raise AssertionError

    assert asyncio.run(first()).transcript_id == three[0]


def test_over_http(mlflow_server: MlflowServer, experiment_name: str, tmp_path: Path) -> None:
    log = eval_task("agents.py@nested", log_dir=tmp_path).location
    send(log, uri=mlflow_server.uri, experiment=experiment_name)
    from tests.scout.test_round_trip import EXPECTED, compared

    found = collect(import_mlflow_traces(experiment_name, mlflow_server.uri))
    assert compared(log, found) <= EXPECTED
    assert found[0].source_uri is not None
    assert found[0].source_uri.startswith(f"{mlflow_server.uri}/#/experiments/")


def test_the_name_is_lazy() -> None:
    code = (
        "import sys, inspect_mlflow; inspect_mlflow.import_mlflow_traces; "
        "sys.exit('mlflow' in sys.modules or 'inspect_scout' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the command ----------------------------------------------------------------------------------


def test_command(
    three: list[str],
    store: str,
    experiment_name: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    call = Given("call", MODELS["openai"])
    log_trace(store, experiment_name, Given("open", children=[call]), without_root=True)
    database = str(tmp_path / "[db]")
    options = ["--experiment-name", experiment_name, "--tracking-uri", store]

    def run(*more: str) -> str:
        result = CliRunner().invoke(main, ["scout", database, *options, *more])
        assert result.exit_code == 0, result.output
        return result.output

    assert f"1 new, 0 present, 0 skipped → {database}" in run("--tag", "my.tag=mine")
    output = run()
    assert f"2 new, 1 present, 1 skipped → {database}" in output
    assert "1 trace in progress" in output
    assert "in progress" not in caplog.text, "it is printed already"

    async def ids() -> set[str]:
        async with transcripts_from(database).reader() as reader:
            return {info.transcript_id async for info in reader.index()}

    assert asyncio.run(ids()) == set(three)


def test_command_without_mlflow(tmp_path: Path) -> None:
    command = ["scout", str(tmp_path / "db"), "--tracking-uri", "http://127.0.0.1:9"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "MLflow http://127.0.0.1:9: " in result.output
    assert not (tmp_path / "db").exists()


@pytest.mark.parametrize("name", ["[prod] agents", "[/prod] agents"])
def test_command_with_a_name_in_brackets(
    name: str, three: list[str], store: str, tmp_path: Path
) -> None:
    command = ["scout", str(tmp_path / "db"), "--tracking-uri", store, "--experiment-name", name]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2, result.output
    assert f"has no experiment {name!r}" in result.output
