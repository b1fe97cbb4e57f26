"""`inspect-mlflow import` makes of a finished log what the live hooks made."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from inspect_mlflow.cli import main
from tests.support.environment import clean_environ
from tests.support.evals import LOGS, TASKS, run_inspect
from tests.support.state import differences, row_counts, state_of

PROGRAM = str(Path(sys.executable).with_name("inspect-mlflow"))


def run_import(
    *arguments: str | Path, cwd: Path, check: int | None = 0
) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [PROGRAM, "import", *map(str, arguments)],
        cwd=cwd,
        env=clean_environ({"COLUMNS": "200", "NO_COLOR": "1"}),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert check is None or result.returncode == check, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    return result


@pytest.mark.parametrize(
    "arguments",
    [
        [TASKS / "tool_loop.py", TASKS / "scorers.py"],
        [f"{TASKS}/endings.py@sample_error"],
        [f"{TASKS}/endings.py@sample_error", "-T", "fail_on_error=true"],
        [TASKS / "agents.py"],
    ],
    ids=["tasks with many scorers", "failed samples", "a failed task", "agents"],
)
def test_an_import_equals_the_live_recording(arguments: list[str | Path], tmp_path: Path) -> None:
    live = f"sqlite:///{tmp_path}/live.db"
    run = run_inspect(
        ["eval", *arguments],
        cwd=tmp_path,
        env={"MLFLOW_TRACKING_URI": live, "MLFLOW_INSPECT_TRACING": "true"},
        check=False,
    )
    assert run.logs
    imported = f"sqlite:///{tmp_path}/imported.db"
    (tmp_path / "elsewhere").mkdir()
    run_import("../logs", "--tracking-uri", imported, cwd=tmp_path / "elsewhere")
    recorded, made = state_of(live, "inspect_ai"), state_of(imported, "inspect_ai")
    for run_state in recorded["runs"].values():
        tags = run_state["tags"]  # the receipt is of the delivery, not of the evaluation
        run_state["tags"] = {k: v for k, v in tags.items() if not k.startswith("inspect.receipt.")}
    found = differences(recorded, made)
    assert found == [], "\n".join(found)


def test_importing_again_changes_nothing(tmp_path: Path) -> None:
    uri, database = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "mlflow.db"
    run_import(LOGS, "--tracking-uri", uri, cwd=tmp_path)
    rows, state = row_counts(database), state_of(uri, "inspect_ai")
    run_import(LOGS, "--tracking-uri", uri, cwd=tmp_path)
    assert row_counts(database) == rows
    assert differences(state, state_of(uri, "inspect_ai")) == []


def test_a_broken_log_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    shutil.copy(LOGS / "guess-number-tools.eval", tmp_path / "good.eval")
    whole = (LOGS / "guess-number-tools.eval").read_bytes()
    (tmp_path / "cut.eval").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.json").write_text("no log at all")
    (tmp_path / "empty.eval").write_bytes(b"")
    result = run_import(
        *("good.eval", "cut.eval", "text.json", "empty.eval"),
        *("--tracking-uri", "sqlite:///mlflow.db"),
        cwd=tmp_path,
        check=1,
    )
    for name in ("cut.eval", "text.json", "empty.eval"):
        assert f"{name}: " in result.stdout
    assert "1 logs with 1 samples imported" in result.stdout
    assert len(state_of(f"sqlite:///{tmp_path}/mlflow.db", "inspect_ai")["runs"]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.eval", "--tracking-uri", "sqlite:///mlflow.db"], "nowhere.eval: no log there"),
        (["log.eval"], "no MLflow to import into"),
        (["log.eval", "--tracking-uri", "http://127.0.0.1:9"], "MLflow http://127.0.0.1:9"),
        (["log.eval", "--tracking-uri", "mlruns"], "accepted are http(s)://"),
    ],
)
def test_nothing_could_be_imported(arguments: list[str], said: str, tmp_path: Path) -> None:
    shutil.copy(LOGS / "guess-number-tools.eval", tmp_path / "log.eval")
    result = run_import(*arguments, cwd=tmp_path, check=2)
    assert said in " ".join(result.stdout.split())


NOWHERE = "sqlite:///mlflow.db"
NO_CREDENTIALS = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
OTLP = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:5000"}


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        (["--otlp"], {}, "there is no OTLP endpoint"),
        (["--otlp", "--no-traces"], OTLP, "does not go with --no-traces"),
        (
            ["--otlp"],
            {**OTLP, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_PROTOCOL='http/json': accepted are 'http/protobuf' and 'grpc'",
        ),
        (["--otlp", "--tracking-uri", "http://127.0.0.1:5000"], OTLP, "is this MLflow"),
        ([], {"OTEL_SPAN_EVENT_COUNT_LIMIT": "abc"}, "OTEL_SPAN_EVENT_COUNT_LIMIT must be"),
        (["s3://logs/folder"], NO_CREDENTIALS, "s3://logs/folder: NoCredentialsError: "),
        (
            ["--tracking-uri", "./mlruns"],
            {"MLFLOW_TRACKING_URI": "http://fine"},
            "tracking_uri='./mlruns': accepted are http(s)://",
        ),
    ],
)
def test_what_is_refused(
    arguments: list[str],
    environ: dict[str, str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = shutil.copy(LOGS / "guess-number-tools.eval", tmp_path)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    command = ["import", str(log), "--tracking-uri", NOWHERE, *arguments]
    result = CliRunner().invoke(main, command, env={"COLUMNS": "300"})
    assert isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code == 2
    assert said in result.output
    assert not (tmp_path / "mlflow.db").exists()


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    shutil.copy(LOGS / "guess-number-tools.eval", tmp_path / "log.eval")
    result = run_import(
        "log.eval", "--tracking-uri", "sqlite:///mlflow.db", "--dry-run", cwd=tmp_path
    )
    assert "guess_number" in result.stdout
    assert not (tmp_path / "mlflow.db").exists()
