"""Comparisons of real Inspect logs: files, MLflow runs, the command, and the reports."""

import json
import math
import re
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import mlflow
import pytest
from click.testing import CliRunner, Result
from inspect_ai.log import EvalLog, EvalSample, read_eval_log, write_eval_log
from inspect_ai.scorer import Score, match
from mlflow import MlflowClient

from inspect_mlflow.cli import main
from inspect_mlflow.comparison import (
    ChangedContentError,
    ComparisonResult,
    UnreadableLogError,
    compare_evals,
    evaluate_gates,
    log_comparison,
)
from inspect_mlflow.comparison.report import render_json, render_junit, render_markdown, render_text
from otel_bridge.logs import LogSource
from tests.comparison.evals import correct_unless, run_eval
from tests.comparison.make import epochs, make_log, rows
from tests.support.evals import LOGS


@dataclass(frozen=True)
class Pair:
    """Two real logs of one task: 30 questions, two epochs, four scores."""

    baseline: str
    candidate: str


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("logs")
    baseline = run_eval(folder / "a", correct_unless(*range(1, 10), 20), epochs=2, errors=["q30"])

    def better(number: int, turn: int) -> str:
        return "no idea" if number == 29 else correct_unless(9, 10)(number, turn)

    candidate = run_eval(folder / "b", better, epochs=2, model="candidate", tokens=30)
    return Pair(baseline.location, candidate.location)


@pytest.fixture
def result(pair: Pair) -> ComparisonResult:
    return compare_evals(pair.baseline, pair.candidate)


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["compare", *(str(argument) for argument in arguments)])


# --- reading -----------------------------------------------------------------------------------


def test_two_real_logs(result: ComparisonResult) -> None:
    assert result.baseline_model == "mockllm/baseline"
    assert (result.aligned_count, result.missing_count, result.new_count) == (60, 0, 0)
    assert result.counts is not None
    assert result.counts.baseline_errored == 2
    tested = {m.scorer: m for m in result.metrics if m.p_value is not None}
    assert set(tested) == {"match", "closeness", "rubric/brief", "rubric/numeric"}
    accuracy = tested["match"]
    # q1 to q8 and q20 are gained, q10 and q29 lost; q30 errored in the baseline.
    assert (accuracy.gained, accuracy.lost, accuracy.n) == (9, 2, 29)
    assert accuracy.method == "mcnemar-exact"
    assert accuracy.p_value == pytest.approx(0.0654296875)
    assert accuracy.baseline_logged == pytest.approx(19 / 29)
    assert accuracy.candidate_logged == pytest.approx(27 / 30)
    # q29's answer is no number: the scorer left it unscored.
    closeness = tested["closeness"]
    assert (closeness.n, closeness.baseline_unscored, closeness.candidate_unscored) == (28, 2, 2)
    assert closeness.significant
    assert {s.id for s in result.samples if s.direction == "missing"} == {"q29"}
    assert {s.id for s in result.samples if s.direction == "new"} == {"q30"}
    usage = {entry.name: entry for entry in result.usage}
    assert usage["total_tokens"].delta == pytest.approx(10)
    assert usage["cost"].delta == pytest.approx(1e-4)
    assert usage["total_time"].n == 29


def test_every_way_to_name_a_log_gives_the_same(
    pair: Pair, result: ComparisonResult, tmp_path: Path
) -> None:
    baseline = read_eval_log(pair.baseline)
    write_eval_log(baseline, str(tmp_path / "baseline.json"))
    sources: list[Any] = [
        Path(pair.baseline),
        Path(pair.baseline).as_uri(),
        tmp_path / "baseline.json",
        baseline,
        read_eval_log(pair.baseline, header_only=True),
    ]
    for source in sources:
        found = compare_evals(source, pair.candidate)
        assert found.metrics == result.metrics
        assert found.samples == result.samples
        assert found.changed_content == []


def test_stored_logs_are_read_by_their_summaries(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original = LogSource.samples

    def recording(self: LogSource) -> Iterator[EvalSample]:
        read.append(self.log.location)
        return original(self)

    monkeypatch.setattr(LogSource, "samples", recording)
    compare_evals(pair.baseline, pair.candidate)
    assert read == []
    compare_evals(pair.baseline, pair.candidate, sample_filter=lambda sample: sample.epoch == 1)
    assert read == [pair.baseline, pair.candidate]


def test_a_recorded_log_compares_with_itself() -> None:
    path = LOGS / "popularity-cancelled.json"
    result = compare_evals(path, path)
    (accuracy,) = [metric for metric in result.metrics if metric.name == "accuracy"]
    assert (accuracy.delta, accuracy.p_value, accuracy.n) == (0.0, 1.0, 3)
    assert "the baseline has status 'cancelled': it may be incomplete" in result.notes


def test_several_reducers_on_a_real_log(tmp_path: Path) -> None:
    def answers(number: int, turn: int) -> str:
        return str(2 * number) if (number + turn) % 3 else "0"

    options: dict[str, Any] = {
        "count": 8,
        "epochs": 3,
        "reducers": ["mean", "max", "at_least_2"],
        "scorers": [match()],
    }
    first = run_eval(tmp_path, answers, **options)
    second = run_eval(tmp_path, correct_unless(1), **options)
    result = compare_evals(first, second)
    found = {metric.reducer: metric for metric in result.metrics if metric.name == "accuracy"}
    assert set(found) == {"mean", "max", "at_least_2"}
    assert found["mean"].p_value is not None
    assert found["mean"].label == "match accuracy"
    for reducer in ("max", "at_least_2"):
        assert found[reducer].p_value is None
        assert found[reducer].candidate_value == pytest.approx(7 / 8)
        assert found[reducer].label == f"match accuracy ({reducer})"


def test_a_changed_dataset_in_stored_logs(pair: Pair, tmp_path: Path) -> None:
    changed = run_eval(
        tmp_path, correct_unless(), questions=lambda number: f"Double {number}.", epochs=2
    )
    result = compare_evals(pair.baseline, changed.location)
    assert len(result.changed_content) == 60
    assert all(sample.content_changed for sample in result.samples)
    assert command(pair.baseline, changed.location).exit_code == 0
    strict = command(pair.baseline, changed.location, "--strict")
    assert strict.exit_code == 2
    assert "CHANGED DATASET: 60 samples" in strict.stdout
    assert "60 samples have the same id" in strict.stderr
    assert command(pair.baseline, pair.candidate, "--strict").exit_code == 0


@pytest.mark.parametrize(("other", "changed"), [(["yes", "no"], False), (["yes", "maybe"], True)])
def test_summaries_without_choices_are_no_changed_dataset(
    other: list[str], changed: bool, tmp_path: Path
) -> None:
    plain, newer, older = (tmp_path / f"{name}.eval" for name in ("plain", "newer", "older"))
    for path, choices in ((plain, ["yes", "no"]), (newer, other)):
        log = make_log(rows([1, 0]))
        for sample in log.samples or []:
            sample.choices = choices
        write_eval_log(log, str(path))
    assert len(compare_evals(plain, newer).changed_content) == 2 * changed
    # As an older Inspect wrote it.
    with zipfile.ZipFile(newer) as new, zipfile.ZipFile(older, "w") as old:
        for name in new.namelist():
            content = new.read(name)
            if "summar" in name:
                summaries = [dict(entry, choices=None) for entry in json.loads(content)]
                content = json.dumps(summaries).encode()
            old.writestr(name, content)
    for first, second in ((plain, older), (older, plain)):
        result = compare_evals(first, second)
        assert (result.changed_content, result.unverified_content) == ([], 2)
        if changed:
            with pytest.raises(ChangedContentError):
                compare_evals(first, second, strict=True)
        else:
            assert compare_evals(first, second, strict=True).unverified_content == 0
    assert compare_evals(older, older).unverified_content == 0


@pytest.mark.parametrize(
    "content", [None, b"", b"not a log", b"PK\x03\x04 broken", b'{"eval": 1}', b"{}"]
)
@pytest.mark.parametrize("suffix", [".eval", ".json", ".txt"])
def test_what_cannot_be_read_is_a_value_error(
    content: bytes | None, suffix: str, tmp_path: Path, pair: Pair
) -> None:
    path = tmp_path / f"log{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableLogError, match="as an Inspect log") as caught:
        compare_evals(path, pair.candidate)
    assert str(path) in str(caught.value)
    assert caught.value.__cause__ is not None


# --- MLflow ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Store:
    """An MLflow store in a file, with one experiment for both tasks' runs."""

    uri: str
    client: MlflowClient
    experiment: str

    def run(self, *artifacts: Path) -> str:
        run_id: str = self.client.create_run(self.experiment).info.run_id
        for path in artifacts:
            self.client.log_artifact(run_id, str(path), "eval_logs")
        return run_id


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)
    experiment = client.create_experiment("evals", artifact_location=(folder / "files").as_uri())
    return Store(uri, client, experiment)


@pytest.fixture
def store(stored: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("MLFLOW_MODEL_CATALOG_URI", "")
    before = mlflow.get_tracking_uri()
    yield stored
    assert mlflow.get_tracking_uri() == before
    assert mlflow.active_run() is None


def test_runs_are_read_from_their_artifacts_and_leave_nothing_behind(
    store: Store, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "summary.json"
    notes.write_text('{"not": "a log"}')
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    baseline = store.run(notes, Path(pair.baseline))
    converted = tmp_path / "whole.json"
    write_eval_log(read_eval_log(pair.candidate), str(converted))
    candidate = store.run(notes, converted)
    result = compare_evals(
        f"runs:/{baseline}", f"runs:/{candidate}", tracking_uri=store.uri, scorers=["match"]
    )
    assert (result.baseline_run_id, result.candidate_run_id) == (baseline, candidate)
    assert result.baseline_log == f"runs:/{baseline}"
    assert result.metrics == compare_evals(pair.baseline, pair.candidate, ["match"]).metrics
    named = f"runs:/{baseline}/eval_logs/{Path(pair.baseline).name}"
    assert compare_evals(named, pair.candidate, tracking_uri=store.uri).aligned_count == 60
    assert list(scratch.iterdir()) == []


def test_runs_without_a_readable_log_are_value_errors(
    store: Store, pair: Pair, tmp_path: Path
) -> None:
    notes = tmp_path / "summary.json"
    notes.write_text('{"not": "a log"}')
    cases = {
        "runs:/": "names no run",
        "runs:/0123456789abcdef": "cannot read",
        f"runs:/{store.run()}": "no Inspect log among its artifacts",
        f"runs:/{store.run(notes)}": "no artifact of",
        f"runs:/{store.run(Path(pair.baseline), Path(pair.candidate))}": "2 Inspect logs; name one",
    }
    for source, message in cases.items():
        with pytest.raises(ValueError, match=message):
            compare_evals(source, pair.candidate, tracking_uri=store.uri)


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_run_of_an_mlflow_that_is_not_there(scheme: str, pair: Pair) -> None:
    uri = f"{scheme}://127.0.0.1:9"
    with pytest.raises(ValueError, match=rf"^MLflow {uri}: .*(refused|pip install)"):
        compare_evals("runs:/0123456789abcdef", pair.candidate, tracking_uri=uri)


def test_a_comparison_is_logged_as_a_run_of_its_own(store: Store, pair: Pair) -> None:
    baseline, candidate = store.run(Path(pair.baseline)), store.run(Path(pair.candidate))
    result = compare_evals(
        f"runs:/{baseline}", f"runs:/{candidate}", tracking_uri=store.uri, log_to_mlflow=True
    )
    assert result.mlflow_run_id is not None
    run = store.client.get_run(result.mlflow_run_id)
    assert run.info.experiment_id == store.experiment
    assert run.info.status == "FINISHED"
    assert run.data.tags["inspect.comparison.baseline.run_id"] == baseline
    assert run.data.tags["inspect.comparison.candidate.run_id"] == candidate
    accuracy = next(metric for metric in result.metrics if metric.name == "accuracy")
    assert run.data.metrics["match/accuracy/delta"] == accuracy.delta
    assert run.data.metrics["match/accuracy/p_value"] == accuracy.p_value
    assert run.data.metrics["samples/regressed"] == len(result.regressions)
    assert run.data.metrics["rubric/brief/mean/ci_upper"] > 0
    artifacts = store.client.list_artifacts(result.mlflow_run_id)
    endings = {"txt", "md", "html", "json", "xml"}
    assert {item.path for item in artifacts} == {f"comparison.{end}" for end in endings}


@pytest.mark.parametrize("variable", ["INSPECT_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI"])
def test_the_environment_says_which_mlflow(
    variable: str, stored: Store, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_MODEL_CATALOG_URI", "")
    for name in ("INSPECT_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    options = (f"runs:/{stored.run(Path(pair.baseline))}", pair.candidate, "--log-to-mlflow")
    nowhere = command(*options), command(pair.baseline, *options[1:])
    assert [found.exit_code for found in nowhere] == [2, 2]
    assert all("set MLFLOW_TRACKING_URI" in found.stderr for found in nowhere)
    monkeypatch.setenv(variable, "file:./runs")
    assert f"{variable}='file:./runs': accepted are" in command(*options).stderr
    monkeypatch.setenv(variable, stored.uri)
    assert "Logged to MLflow" in command(*options).stderr
    assert list(tmp_path.iterdir()) == []


def test_scores_whose_names_mlflow_takes_for_one_keep_their_metrics(store: Store) -> None:
    def log(*scores: float) -> EvalLog:
        return make_log(rows([dict(zip(("a@b", "a_b"), scores, strict=True))] * 2))

    result = compare_evals(
        log(0, 0), log(1, 0.5), tracking_uri=store.uri, log_to_mlflow=True, experiment_name="twins"
    )
    logged = store.client.get_run(str(result.mlflow_run_id)).data.metrics
    assert sorted(value for key, value in logged.items() if "/delta" in key) == [0.5, 1.0]


def test_the_description_of_a_run_is_cut_at_whole_lines(store: Store) -> None:
    def log(score: int) -> EvalLog:
        return make_log(rows([{f"a score with a long name {i}": score for i in range(80)}] * 3))

    result = compare_evals(log(1), log(0))
    gates = evaluate_gates(result, "regression")
    run_id = log_comparison(result, tracking_uri=store.uri, experiment_name="long", gates=gates)
    note = store.client.get_run(run_id).data.tags["mlflow.note.content"]
    assert 7_000 < len(note) <= 8_000
    assert "Gate regression: ❌ **failed**" in note
    assert "<details>" not in note
    assert note.splitlines()[-1] in render_markdown(result, gates).splitlines()


def test_a_comparison_that_mlflow_does_not_take_is_exit_code_2(
    store: Store, pair: Pair, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    blocked = (tmp_path / "file" / "artifacts").as_uri()
    store.client.create_experiment(str(tmp_path), artifact_location=blocked)
    found = command(
        pair.baseline, pair.candidate, "--log-to-mlflow", "--tracking-uri", store.uri,
        "--experiment-name", tmp_path, "--fail-on", "regression", "--format", "json",
    )  # fmt: skip
    assert found.exit_code == 2
    assert "Gate regression failed" in found.stderr
    assert "not logged to MLflow" in found.stderr


def test_metric_names_that_mlflow_refuses_are_rewritten(store: Store) -> None:
    odd = "judge (gpt-4o) 100%/../@home"
    first, second = make_log(rows([1, 0]), scorer=odd), make_log(rows([1, 1]), scorer=odd)
    result = compare_evals(
        first, second, tracking_uri=store.uri, log_to_mlflow=True, experiment_name="odd names"
    )
    run = store.client.get_run(str(result.mlflow_run_id))
    assert store.client.get_experiment_by_name("odd names") is not None
    assert [value for key, value in run.data.metrics.items() if key.endswith("mean/delta")] == [0.5]


def test_the_command_logs_to_mlflow(store: Store, pair: Pair) -> None:
    run_id = store.run(Path(pair.baseline))
    found = command(
        f"runs:/{run_id}", pair.candidate, "--log-to-mlflow", "--tracking-uri", store.uri,
        "--fail-on", "regression",
    )  # fmt: skip
    assert found.exit_code == 1
    logged = re.search(r"Logged to MLflow as run (\w+)", found.stderr)
    assert logged is not None
    tags = store.client.get_run(logged[1]).data.tags
    assert tags["inspect.comparison.passed"] == "false"
    assert tags["inspect.comparison.baseline.run_id"] == run_id


# --- gates, reports and the command ------------------------------------------------------------


def test_gates(result: ComparisonResult) -> None:
    assert evaluate_gates(result) == []
    (regression,) = evaluate_gates(result, "regression")
    assert not regression.passed
    deltas = [sample.delta for sample in regression.samples]
    assert deltas == sorted(deltas, key=lambda delta: delta or 0.0)
    assert len(deltas) == 5
    assert len(result.regressions) == 10
    (significant,) = evaluate_gates(result, "significant")
    assert significant.passed
    margins = {gate.name: gate for gate in evaluate_gates(result, margin=0.05)}
    assert margins["non-inferiority match accuracy"].passed
    failed = margins["non-inferiority rubric/brief mean"]
    assert not failed.passed
    assert {sample.scorer for sample in failed.samples} == {"rubric/brief"}
    with pytest.raises(ValueError, match="margin"):
        evaluate_gates(result, margin=-1)
    with pytest.raises(ValueError, match="unknown gate"):
        evaluate_gates(result, "always")  # type: ignore[arg-type]


def test_the_gate_on_significance() -> None:
    worse = compare_evals(make_log(rows(["C"] * 8)), make_log(rows(["I"] * 7 + ["C"])))
    (gate,) = evaluate_gates(worse, "significant")
    assert not gate.passed
    assert [sample.id for sample in gate.samples] == [1, 2, 3, 4, 5, 6, 7]
    better = compare_evals(make_log(rows(["I"] * 8)), make_log(rows(["C"] * 8)))
    assert evaluate_gates(better, "significant")[0].passed


@pytest.mark.parametrize(
    ("change", "n", "margin", "passed"),
    [
        (0.0, 6, 0.0, True),
        (-0.01, 6, 0.02, True),
        (-0.02, 6, 0.02, False),
        # Chance alone gives five equal changes too often (2 / 2**5 > 0.05).
        (-0.01, 5, 0.02, False),
        (0.0, 5, 0.02, False),
        (0.1, 1, 0.5, False),
    ],
)
def test_equal_changes_pass_a_margin_when_they_are_enough(
    change: float, n: int, margin: float, passed: bool
) -> None:
    scores = [0.5 + i / 10 for i in range(n)]
    moved = [score + change for score in scores]
    (gate,) = evaluate_gates(
        compare_evals(make_log(rows(scores)), make_log(rows(moved))), margin=margin
    )
    assert gate.passed == passed
    assert ("n = 6 would" in gate.message) == (n < 6)


def judged(*scores: Any) -> EvalLog:
    """A log of `match`, always right, and of `judge` where it has a score."""
    log = make_log(rows([1] * len(scores)))
    for sample, score in zip(log.samples or [], scores, strict=True):
        if score is not None:
            (sample.scores or {})["judge"] = Score(value=score)
    return log


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [([None] * 3, "only the baseline has it"), ([math.nan] * 3, "no sample is scored in both")],
)
def test_a_score_without_a_comparison_is_not_shown_to_be_no_worse(
    candidate: list[Any], reason: str
) -> None:
    result = compare_evals(judged(1, 0, 1), judged(*candidate))
    margins = {gate.name: gate for gate in evaluate_gates(result, margin=1)}
    assert margins["non-inferiority match mean"].passed
    assert not margins["non-inferiority judge"].passed
    assert reason in margins["non-inferiority judge"].message
    for fail_on in ("regression", "significant"):
        (gate,) = evaluate_gates(result, fail_on)
        assert gate.passed
        assert f"not compared: judge ({reason}" in gate.message
    # What only the candidate has is not worse than anything.
    back = compare_evals(judged(*[None] * 3), judged(1, 0, 1))
    assert len(evaluate_gates(back, margin=1)) == 1


def test_the_gate_on_significance_corrects_for_several_scores() -> None:
    def log(worse: int) -> EvalLog:
        scores = {f"s{i}": 1 for i in range(4)}
        return make_log(rows([scores] * (8 - worse) + [{**scores, "s0": 0}] * worse))

    result = compare_evals(log(0), log(6))
    assert [metric.significant for metric in result.metrics] == [True, False, False, False]
    (gate,) = evaluate_gates(result, "significant")
    assert gate.passed
    assert "Holm" in gate.message
    assert not evaluate_gates(compare_evals(log(0), log(8)), "significant")[0].passed


def test_the_gate_on_regressions_judges_samples_over_their_epochs() -> None:
    baseline = make_log(epochs([[1, 0], [0, 1], [1, 1], [0.2, 0.1]]))
    swapped = make_log(epochs([[0, 1], [1, 0], [1, 1], [0.1, 0.2]]))
    result = compare_evals(baseline, swapped)
    assert len(result.regressions) == 3
    assert evaluate_gates(result, "regression")[0].passed
    assert ElementTree.fromstring(result.to_junit()).get("failures") == "0"
    worse = make_log(epochs([[0, 1], [0, 0], [0, 0], [0.1, 0.2]]))
    (gate,) = evaluate_gates(compare_evals(baseline, worse), "regression")
    assert gate.message == "2 samples scored worse, over their epochs"
    assert [(s.id, s.epoch, s.delta) for s in gate.samples] == [(3, 0, -1.0), (2, 0, -0.5)]
    edge = compare_evals(baseline, worse, regression_threshold=0.5)
    assert [s.id for s in evaluate_gates(edge, "regression")[0].samples] == [3]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ([], 0),
        (["--fail-on", "never"], 0),
        (["--fail-on", "regression"], 1),
        (["--fail-on", "regression", "--threshold", "1"], 0),
        (["--fail-on", "significant"], 0),
        (["--margin", "0.5"], 0),
        (["--margin", "0.01"], 1),
        (["--scorer", "match", "--margin", "0.05"], 0),
        (["--scorer", "nobody"], 2),
        (["--significance", "7"], 2),
        (["--margin", "-1"], 2),
        (["--format", "pdf"], 2),
    ],
)
def test_exit_codes(pair: Pair, options: list[str], code: int) -> None:
    found = command(pair.baseline, pair.candidate, *options)
    assert found.exit_code == code, found.output
    if code == 2:
        assert "Error" in found.stderr
        assert found.stdout == ""


def test_bad_input_is_exit_code_2(pair: Pair, tmp_path: Path) -> None:
    found = command(tmp_path / "nothing.eval", pair.candidate)
    assert found.exit_code == 2
    assert "cannot read" in found.stderr
    unwritable = command(pair.baseline, pair.candidate, "--output", tmp_path / "no" / "r.json")
    assert unwritable.exit_code == 2
    assert "cannot write" in unwritable.stderr


def test_failures_are_told_beside_a_report_file(pair: Pair, tmp_path: Path) -> None:
    output = tmp_path / "report.json"
    found = command(pair.baseline, pair.candidate, "--output", output, "--fail-on", "regression")
    assert found.exit_code == 1
    assert found.stdout == ""
    lines = found.stderr.splitlines()
    assert lines[0] == "Gate regression failed: 5 samples scored worse, over their epochs"
    assert lines[1] == "  q10  match  1.000 → 0.000  (−1.000)"
    report = json.loads(output.read_text())
    assert report["gates"][0]["passed"] is False
    assert len(report["gates"][0]["samples"]) == 5


@pytest.mark.parametrize("output_format", ["text", "json"])
def test_a_report_is_utf8_whatever_standard_output_is(pair: Pair, output_format: str) -> None:
    arguments = ["compare", pair.baseline, pair.candidate, "--format", output_format]
    found = CliRunner(charset="cp1252").invoke(main, arguments)
    assert (found.exit_code, found.exception) == (0, None)
    result = compare_evals(pair.baseline, pair.candidate)
    assert found.stdout_bytes.decode() == (
        render_text(result) if output_format == "text" else render_json(result)
    )


def test_text_report(result: ComparisonResult) -> None:
    text = result.summary()
    assert text.startswith("doubling: mockllm/baseline → mockllm/candidate\n")
    assert "closeness mean is better: +0.029 [+0.006, +0.051], p = 0.0215" in text
    assert "60 in both runs, 0 in the baseline only, 0 in the candidate only" in text
    assert "36 improved, 10 regressed, 184 unchanged; win rate 15.7 %" in text
    assert "Regressions (10), worst first\n  q10 epoch 1  match" in text
    assert "cost per sample (USD)" in text
    body = [line for line in text.splitlines() if ".eval" not in line and "Holm's" not in line]
    assert max(map(len, body)) <= 112
    assert "Gate regression FAILED" in render_text(result, evaluate_gates(result, "regression"))


def test_json_report_is_strict_and_whole(result: ComparisonResult) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    report = json.loads(render_json(result), parse_constant=refuse)
    assert len(report["samples"]) == len(result.samples)
    assert report["counts"]["regressed"] == 10
    assert report["metrics"][0]["scorer"] == result.metrics[0].scorer


def test_junit_report_fails_when_a_gate_does(result: ComparisonResult) -> None:
    root = ElementTree.fromstring(render_junit(result, evaluate_gates(result, "regression")))
    assert root.get("failures") == "11"
    suites = {suite.get("name"): suite for suite in root}
    assert suites["match"].get("tests") == "60"
    assert suites["match"].get("failures") == "4"
    assert suites["match"].get("skipped") == "2"
    assert root.get("tests") == str(len(list(root.iter("testcase"))))
    quiet = ElementTree.fromstring(render_junit(result))
    assert quiet.get("failures") == "0"
    assert ElementTree.fromstring(result.to_junit()).get("failures") == "11"


class _Page(HTMLParser):
    """Collects tags and what they refer to, and whether they are balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for key, value in attrs if key in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_report_is_self_contained(result: ComparisonResult) -> None:
    page = _Page()
    page.feed(result.to_html())
    assert page.open == []
    assert page.references == []
    assert "script" not in page.tags
    assert page.tags.count("circle") == 4
    assert "url(" not in result.to_html()


def test_names_from_a_log_are_only_text_in_every_report() -> None:
    evil = '<script>alert(1)</script>|"\x00\x1b[31m`*x*`\n# head'
    first = make_log([(evil, 1, 1), ("b", 1, 1)], scorer=evil, task=evil)
    second = make_log([(evil, 1, 0), ("b", 1, 1)], scorer=evil, model=evil)
    result = compare_evals(first, second)
    assert "<script>" not in result.to_html()
    assert "<script>" not in result.to_markdown()
    assert "\n# head" not in result.to_markdown()
    gates = evaluate_gates(result, "regression")
    assert ElementTree.fromstring(render_junit(result, gates)).get("failures") == "2"
    assert json.loads(render_json(result))["samples"][0]["id"]
    table = [line for line in render_markdown(result).splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table[:3]}) == 1


# --- imports, time and memory ------------------------------------------------------------------


def test_importing_the_package_stays_light() -> None:
    code = (
        "import sys, inspect_mlflow, inspect_mlflow.comparison, inspect_mlflow.cli;"
        "from inspect_mlflow import ComparisonResult;"
        "heavy = {'scipy', 'numpy', 'mlflow', 'inspect_ai', 'opentelemetry.sdk'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_comparison_allocates_little_beyond_its_rows() -> None:
    first, second = (make_log(rows([i % k for i in range(2000)])) for k in (2, 3))
    compare_evals(first, second)
    tracemalloc.start()
    compare_evals(first, second)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6
