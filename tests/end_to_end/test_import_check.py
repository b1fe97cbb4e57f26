"""`inspect-mlflow import --check` finds every kind of difference, and writes nothing."""

import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from mlflow import MlflowClient

from otel_bridge.recorder import RunRecorder
from tests.support.evals import LOGS, TASKS, eval_task, run_inspect
from tests.support.importing import Ended, import_logs
from tests.support.proxy import recording_proxy
from tests.support.servers import MlflowServer
from tests.support.state import differences, row_counts, state_of


def content(database: Path) -> str:
    """A hash of every row of every table."""
    with sqlite3.connect(database) as connection:
        return hashlib.sha256("\n".join(connection.iterdump()).encode()).hexdigest()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with logs of evaluations of several kinds, recorded live into its `mlflow.db`."""
    folder = tmp_path_factory.mktemp("recorded")
    tasks = [TASKS / f"{name}.py" for name in ("tool_loop", "scorers", "agents", "content")]
    run_inspect(
        ["eval", *tasks, f"{TASKS}/endings.py@sample_error"],
        cwd=folder,
        env={
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "MLFLOW_INSPECT_TRACING": "true",
        },
        check=False,
    )
    return folder


def test_a_live_recording_is_level_with_its_logs(recorded: Path) -> None:
    uri, database = f"sqlite:///{recorded}/mlflow.db", recorded / "mlflow.db"
    before = content(database)
    checked = import_logs(recorded / "logs", uri=uri, check=True)
    assert checked.code == 0, checked.text
    assert ": 0 differences in " in checked.lines[-1]
    assert content(database) == before


def test_importing_twenty_logs_again_changes_nothing(recorded: Path, tmp_path: Path) -> None:
    uri, database = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "mlflow.db"
    logs = [*sorted((recorded / "logs").iterdir()), *sorted(LOGS.iterdir())]
    assert len(logs) >= 20
    assert import_logs(*logs, uri=uri).code == 0
    rows = row_counts(database)
    assert import_logs(*logs, uri=uri).code == 0
    assert row_counts(database) == rows
    checked = import_logs(*logs, uri=uri, check=True)
    assert checked.code == 0, checked.text


@pytest.mark.parametrize("runs", [True, False])
def test_one_log_of_several_leaves_what_is_said_of_all(recorded: Path, runs: bool) -> None:
    uri, database = f"sqlite:///{recorded}/mlflow.db", recorded / "mlflow.db"
    log = next((recorded / "logs").glob("*_tool-loop_*"))
    rows, state = row_counts(database), state_of(uri, "inspect_ai")
    for check in (False, True):
        ended = import_logs(log, uri=uri, runs=runs, check=check)
        assert ended.code == 0, ended.text
        assert "has more tasks, whose logs are not here: graded, " in ended.text
    assert row_counts(database) == rows
    assert differences(state, state_of(uri, "inspect_ai")) == []


def test_samples_that_can_not_be_read_cost_the_run_nothing(recorded: Path, tmp_path: Path) -> None:
    """The log was imported when it was whole."""
    uri, path = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "log.eval"
    shutil.copy(next((recorded / "logs").glob("*_tool-loop_*")), path)
    assert import_logs(path, uri=uri).code == 0
    before = state_of(uri, "inspect_ai")
    with ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (*_, last) = sorted(name for name in members if name.startswith("samples/"))
    with ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, b"{" if name == last else data)
    ended = import_logs(path, uri=uri)
    assert ended.code == 2
    assert "0 logs with " in ended.text
    after = state_of(uri, "inspect_ai")
    assert differences(before["runs"], after["runs"]) == []


@dataclass(frozen=True)
class Store:
    """A database with imported logs, in the state to be damaged."""

    folder: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def sql(self, statement: str) -> None:
        with sqlite3.connect(self.folder / "mlflow.db") as connection:
            assert connection.execute(statement).rowcount > 0, statement

    def run(self, kind: str) -> str:
        client = MlflowClient(self.uri)
        experiment = client.get_experiment_by_name("inspect_ai")
        assert experiment is not None
        found = client.search_runs([experiment.experiment_id], f"tags.`inspect.kind` = '{kind}'")
        return str(found[0].info.run_id)

    def artifact(self, name: str) -> Path:
        (path,) = (self.folder / "artifacts").glob(f"{self.run('task')}/**/{name}")
        return path

    def check(self) -> Ended:
        return import_logs(self.logs, uri=self.uri, check=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("check"))
    for name, samples in (("tool_loop", 12), ("scorers@graded", None)):
        args = {} if samples is None else {"samples": samples}
        eval_task(name, log_dir=store.logs, task_args=args)
    client = MlflowClient(store.uri)
    client.create_experiment("inspect_ai", artifact_location=str(store.folder / "artifacts"))
    assert import_logs(store.logs, uri=store.uri).code == 0
    assert store.check().code == 0
    return store


def delete_run(store: Store) -> None:
    MlflowClient(store.uri).delete_run(store.run("task"))


def delete_trace(store: Store) -> None:
    client = MlflowClient(store.uri)
    run = client.get_run(store.run("task"))
    (first, *_) = client.search_traces(
        locations=[run.info.experiment_id], run_id=run.info.run_id, include_spans=False
    )
    client.delete_traces(run.info.experiment_id, trace_ids=[first.info.trace_id])


def cut_artifact(store: Store) -> None:
    path = store.artifact("samples.json")
    path.write_bytes(path.read_bytes()[:-1])


def change_artifact(store: Store) -> None:
    path = store.artifact("messages.json")
    path.write_bytes(path.read_bytes().replace(b'"user"', b'"uzer"'))


def sql(statement: str) -> Callable[[Store], None]:
    return lambda store: store.sql(statement)


ONE_SPAN = "span_id = (select min(span_id) from spans where name = 'execute_tool lookup')"
DAMAGES: dict[str, tuple[Callable[[Store], None], str]] = {
    "a run is deleted": (delete_run, "run missing"),
    "a run's status": (sql("update runs set status = 'RUNNING'"), "status is RUNNING"),
    "a metric's value": (
        sql("update metrics set value = -1 where key = 'total_samples'"),
        "metric total_samples at step 0 is -1.0, the log says ",
    ),
    "a metric's time": (
        sql("update metrics set timestamp = 5 where key = 'completed_samples'"),
        "time of metric completed_samples at step 0 is 5",
    ),
    "a point is missing": (
        sql("delete from metrics where key = 'sample/total_time' and step = 3"),
        "metric sample/total_time at step 3 is missing",
    ),
    "a param is missing": (sql("delete from params where key = 'model'"), "param model is missing"),
    "a run's tag": (
        sql("update tags set value = 'other' where key = 'inspect.status'"),
        "tag inspect.status is other, the log says success",
    ),
    "a dataset": (sql("delete from inputs where destination_type = 'RUN'"), "dataset "),
    "an artifact is missing": (
        lambda store: store.artifact("samples.json").unlink(),
        "artifact inspect/samples.json is missing",
    ),
    "an artifact is cut": (cut_artifact, "artifact inspect/samples.json is another"),
    "an artifact's content": (change_artifact, "artifact inspect/messages.json is another"),
    "a trace is deleted": (delete_trace, "trace missing"),
    "a span is missing": (
        sql(f"delete from spans where {ONE_SPAN}"),
        "spans missing, the first execute_tool lookup",
    ),
    "a span's attribute": (
        sql(f"update spans set content = replace(content, 'value of', 'VALUE') where {ONE_SPAN}"),
        "spans different, the first execute_tool lookup: attribute gen_ai.tool.call.result is ",
    ),
    "a span's name": (
        sql("update spans set content = replace(content, '\"sample 3\"', '\"sample x\"')"),
        "name is sample x, the log says sample 3",
    ),
    "a trace's state": (
        sql("update trace_info set status = 'IN_PROGRESS'"),
        "state is IN_PROGRESS, the log says OK",
    ),
    "a trace's preview": (
        sql("update trace_info set request_preview = 'x'"),
        "request preview is x, the log says ",
    ),
    "a trace's tag": (
        sql("update trace_tags set value = 'x' where key = 'inspect.task'"),
        "tag inspect.task is x",
    ),
    "a trace's tokens": (
        sql("update trace_info set total_tokens = 1 where total_tokens > 1"),
        "mlflow.trace.tokenUsage is ",
    ),
    "a trace's run": (
        sql("delete from trace_request_metadata where key = 'mlflow.sourceRun'"),
        "mlflow.sourceRun is missing",
    ),
    "a trace's link": (sql("delete from entity_associations"), "is not linked to it"),
    "assessments are missing": (
        sql("delete from assessments where name = 'includes'"),
        "assessments missing, the first includes",
    ),
    "an assessment's value": (
        sql("update assessments set value = '0.25' where name = 'includes'"),
        "assessments different, the first includes",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_differences_are_found_and_an_import_mends_them(damage: str, store: Store) -> None:
    apply, said = DAMAGES[damage]
    apply(store)
    checked = store.check()
    assert checked.code == 1
    assert said in checked.text
    assert ": 0 differences" not in checked.lines[-1]
    assert import_logs(store.logs, uri=store.uri).code == 0
    level = store.check()
    assert level.code == 0, level.text


def test_what_can_not_be_converted_is_named(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another reason than that it can't be read; the other logs go on."""
    end_sample = RunRecorder.end_sample

    def fails_at_one(self: RunRecorder, recorder: Any, sample: Any) -> Any:
        if recorder.ref.task.task == "graded":
            raise TypeError("not foreseen")
        return end_sample(self, recorder, sample)

    monkeypatch.setattr(RunRecorder, "end_sample", fails_at_one)
    ended = import_logs(store.logs, uri=f"sqlite:///{tmp_path}/mlflow.db")
    assert ended.code == 1
    assert "1 logs with " in ended.text
    (named,) = [line for line in ended.lines if "could not be converted" in line]
    assert named.endswith(".eval: it could not be converted: TypeError: not foreseen")


def test_a_param_that_differs_is_found(store: Store, tmp_path: Path) -> None:
    """MLflow lets nobody change it."""
    shutil.copytree(store.folder, tmp_path / "copy")
    copy = Store(tmp_path / "copy")
    copy.sql("update params set value = 'other' where key = 'model'")
    checked = import_logs(store.logs, uri=copy.uri, check=True)
    assert checked.code == 1
    assert "param model is other, the log says mockllm/model" in checked.text


def test_many_differences_are_counted(store: Store, tmp_path: Path) -> None:
    shutil.copytree(store.folder, tmp_path / "copy")
    copy = Store(tmp_path / "copy")
    copy.sql("delete from metrics")
    checked = import_logs(store.logs, uri=copy.uri, check=True)
    assert checked.code == 1
    assert len(checked.lines) == 52
    shown, more, last = checked.lines[:50], checked.lines[50], checked.lines[51]
    assert all("the log says" in line for line in shown)
    assert more.startswith("… and ")
    assert f": {50 + int(more.split()[2])} differences in " in last


def test_a_server_is_only_read(mlflow_server: MlflowServer, experiment_name: str) -> None:
    log = LOGS / "guess-number-tools.eval"
    options = {"experiment_name": experiment_name}
    before = import_logs(log, uri=mlflow_server.uri, check=True, **options)
    assert before.code == 2
    assert f"there is no experiment '{experiment_name}'" in before.text
    assert import_logs(log, uri=mlflow_server.uri, **options).code == 0
    with recording_proxy(mlflow_server.uri) as proxy:
        checked = import_logs(log, uri=proxy.uri, check=True, **options)
    assert checked.code == 0, checked.text
    reading = ("/search", "/batchGetInfos")
    assert proxy.requests
    assert [
        (request.method, request.path)
        for request in proxy.requests
        if request.method != "GET" and not request.path.endswith(reading)
    ] == []


def test_what_can_not_be_checked(tmp_path: Path) -> None:
    log = tmp_path / "log.eval"
    shutil.copy(LOGS / "guess-number-tools.eval", log)
    missing = import_logs(log, uri=f"sqlite:///{tmp_path}/none.db", check=True)
    assert missing.code == 2
    assert "there is no such database" in missing.text
    assert not (tmp_path / "none.db").exists()
    assert import_logs(log, uri="http://127.0.0.1:9", check=True).code == 2
    assert import_logs(log, uri="sqlite:///x.db", check=True, otlp=True).code == 2


def test_an_unreadable_log_is_named(store: Store, tmp_path: Path) -> None:
    (tmp_path / "text.eval").write_text("no log at all")
    checked = import_logs(store.logs, tmp_path / "text.eval", uri=store.uri, check=True)
    assert checked.code == 1
    assert "text.eval: " in checked.text
    assert ": 0 differences" in checked.lines[-1]
