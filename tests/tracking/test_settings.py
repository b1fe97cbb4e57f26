"""The settings: where they are read from, and what becomes of values that are not accepted."""

import sys
from pathlib import Path
from typing import Any

import pytest

from inspect_mlflow.activation import activation
from inspect_mlflow.backfill import Importer
from inspect_mlflow.check import Checker
from inspect_mlflow.config import NO_SPANS, MLflowSettings, load_settings, redact, variables
from inspect_mlflow.connection import Connection
from tests.support.evals import LOGS
from tests.support.importing import import_logs

CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


def test_only_documented_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in MLflowSettings.model_fields:
        monkeypatch.setenv(field.upper(), "77")
    settings, problems = load_settings()
    assert not problems
    assert settings.model_fields_set == set()
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for name in variables():
        short = name.replace("INSPECT_MLFLOW_", "…_")
        assert name in readme or short in readme, name


def test_what_is_given_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow")
    monkeypatch.setenv("INSPECT_MLFLOW_TRACKING_URI", "http://ours")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "77")
    assert load_settings()[0].experiment == "77"
    given: dict[str, Any] = {"tracking_uri": "http://given"}
    assert MLflowSettings(**given).tracking_uri == "http://given"
    settings, _ = load_settings(**given, experiment_name="mine")
    assert settings.tracking_uri == "http://given"
    assert (settings.experiment_id, settings.experiment) == (None, "mine")


def test_an_import_goes_into_the_experiment_that_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    log, uri = LOGS / "popularity-cancelled.json", f"sqlite:///{tmp_path}/mlflow.db"
    named = import_logs(log, uri=uri, traces=False, experiment_name="mine")
    assert (named.code, named.lines[-1].endswith(", experiment mine.")) == (0, True), named.text
    assert import_logs(log, uri=uri, traces=False, experiment_name="mine", check=True).code == 0
    numbered = import_logs(log, uri=uri, traces=False, check=True)
    assert numbered.code == 1
    assert ", experiment 0: " in numbered.lines[-1]


def test_a_mistyped_no_content_turns_both_hooks_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow")
    monkeypatch.setenv("MLFLOW_INSPECT_TRACING", "true")
    monkeypatch.setenv(CONTENT, "NO-CONTENT")
    found = activation()
    assert (found.tracking, found.tracing) == (False, False)
    (record,) = caplog.records
    assert f"{CONTENT}='NO-CONTENT': accepted: NO_CONTENT, " in record.getMessage()


def test_databricks_gets_runs_but_no_spans(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks")
    monkeypatch.setenv("MLFLOW_INSPECT_TRACING", "true")
    alone = activation()
    assert (alone.tracking, alone.tracing) == (True, False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    assert activation().tracing
    assert [record.getMessage() for record in caplog.records] == [NO_SPANS, NO_SPANS]
    importer, checker = (kind(activation().settings) for kind in (Importer, Checker))
    for reader in (importer, checker):
        assert reader._destinations(Connection.of(activation().settings), []) == []


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://u:p@ss@h/db", "postgresql://u:***@h/db"),
        (
            "postgresql://u:p/w@h/db?sslPassword=x&a=1",
            "postgresql://u:***@h/db?sslPassword=***&a=1",
        ),
        ("https://TOKEN@h:5000/x?token=a#b", "https://***@h:5000/x?token=***#b"),
        ("postgresql://user@h/db", "postgresql://user@h/db"),
        ("http://h:5000/a@b", "http://h:5000/a@b"),
        ("sqlite:////a:b@c/mlflow.db", "sqlite:////a:b@c/mlflow.db"),
    ],
)
def test_what_messages_say_of_an_address(address: str, shown: str) -> None:
    assert redact(address) == shown


@pytest.mark.parametrize(
    ("database", "reason"),
    [
        ("{folder}", "unable to open database file"),
        ("{folder}/file/mlflow.db", "File exists"),
        ("{folder}/file", "file is not a database"),
    ],
)
def test_an_import_into_no_database_ends_with_a_message(
    database: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"no database".ljust(4096))
    uri = f"sqlite:///{database.format(folder=tmp_path)}"
    ended = import_logs(LOGS / "popularity-cancelled.json", uri=uri)
    assert ended.code == 2
    (line,) = ended.lines
    assert line.startswith(f"MLflow {uri}: ")
    assert reason in line


def test_a_driver_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    log, uri = LOGS / "popularity-cancelled.json", "postgresql+psycopg2://u:secret@127.0.0.1:9/db"
    ended = import_logs(log, uri=uri)
    assert ended.code == 2
    (line,) = ended.lines
    assert line.startswith("MLflow postgresql+psycopg2://u:***@127.0.0.1:9/db: ")
    assert line.endswith(": pip install psycopg2-binary")
