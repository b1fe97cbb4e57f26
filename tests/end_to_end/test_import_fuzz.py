"""Logs that are broken in any way are named with the reason; what can be read is imported."""

import gc
import io
import json
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.log import read_eval_log, read_eval_log_sample_summaries

from otel_bridge.logs import LogSource
from otel_bridge.replay import replay
from tests.support.environment import clean_environ
from tests.support.evals import LOGS, eval_task
from tests.support.importing import import_logs

CASES = 300
SEED = 6

Corruption = Callable[[bytes, random.Random], bytes]


def truncated(data: bytes, random: random.Random) -> bytes:
    return data[: random.randrange(len(data))]


def flipped(data: bytes, random: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 3, 30))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def without_a_part(data: bytes, random: random.Random) -> bytes:
    start = random.randrange(len(data))
    return data[:start] + data[start + random.randrange(1, 2000) :]


def empty(data: bytes, random: random.Random) -> bytes:
    return b""


def a_text(data: bytes, random: random.Random) -> bytes:
    return b"This is no log.\n" * random.randrange(1, 20)


def without_a_member(data: bytes, random: random.Random) -> bytes:
    """A log without one of its members; a `.json` log without one of its keys."""
    return _members(data, random, lambda value: None)


def wrong_types(data: bytes, random: random.Random) -> bytes:
    """A value somewhere in the JSON is of another type."""

    def change(value: Any) -> Any:
        at = value
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                return value
            key = random.choice(keys)
            if isinstance(at[key], dict | list) and at[key] and random.random() < 0.8:
                at = at[key]
                continue
            at[key] = random.choice([None, 7, "text", [], {}, [1, {"a": None}], 1e999, True])
            return value

    return _members(data, random, change)


def _members(data: bytes, random: random.Random, change: Callable[[Any], Any]) -> bytes:
    """Change the JSON of one part of a log; drop it where the change gives None."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        log = json.loads(data)
        key = random.choice(list(log))
        changed = change(log[key]) if isinstance(log[key], dict | list) else None
        log.pop(key) if changed is None else log.update({key: changed})
        return json.dumps(log).encode()
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(written, "w") as new:
        victim = random.choice(old.namelist())
        for name in old.namelist():
            content: bytes | None = old.read(name)
            if name == victim:
                value = change(json.loads(old.read(name)))
                content = None if value is None else json.dumps(value).encode()
            if content is not None:
                new.writestr(name, content, zipfile.ZIP_DEFLATED)
    return written.getvalue()


CORRUPTIONS: tuple[Corruption, ...] = (
    *(truncated, flipped, without_a_part, empty),
    *(a_text, without_a_member, wrong_types, wrong_types),
)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Logs of real models, and fresh ones."""
    folder = tmp_path_factory.mktemp("fresh")
    for name in ("tool_loop", "scorers@graded", "endings@sample_error"):
        eval_task(name, log_dir=folder)
    recorded = [path for path in LOGS.iterdir() if path.stat().st_size < 200_000]
    return sorted(recorded) + sorted(folder.glob("*.eval"))


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Streams that Inspect leaves open in a log that it can't read are these tests' garbage."""
    yield
    gc.collect()


def is_readable(path: Path) -> bool:
    """Whether Inspect reads a log as a whole, its header, and all samples that it lists.

    One with samples that are not as they were written, which Inspect does not look at, is not.
    """
    try:
        read_eval_log(str(path), header_only=True)
        log = read_eval_log(str(path), resolve_attachments="core")
        listed = read_eval_log_sample_summaries(str(path))
        if path.suffix == ".eval":
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    return False
    except Exception:
        return False
    samples = [(sample.id, sample.epoch) for sample in log.samples or ()]
    return {(summary.id, summary.epoch) for summary in listed} <= set(samples)


def test_corrupted_logs(logs: list[Path], tmp_path: Path) -> None:
    """Each in a folder of its own: one log must not stand in for another."""
    chance = random.Random(SEED)
    paths: list[Path] = []
    for number in range(CASES):
        source = chance.choice(logs)
        corrupt = chance.choice(CORRUPTIONS)
        path = tmp_path / f"{number}-{corrupt.__name__}" / f"log{source.suffix}"
        path.parent.mkdir()
        path.write_bytes(corrupt(source.read_bytes(), chance))
        paths.append(path)
    readable = {path for path in paths if is_readable(path)}
    assert 30 < len(readable) < CASES - 100
    ended = import_logs(*paths, *logs, uri=f"sqlite:///{tmp_path}/mlflow.db", log_artifacts=False)
    assert ended.code == 1
    assert "Traceback" not in ended.text
    named = {}
    for line in ended.lines:
        location, separator, reason = line.partition(": ")
        # copies of a log may differ in a param, which MLflow lets nobody change
        if separator and location.startswith("/") and not reason.startswith("Changing param"):
            named[Path(location)] = reason
    assert not set(named) & set(logs), named
    assert not readable & set(named), {path: named[path] for path in readable & set(named)}
    for path in set(paths) - readable - set(named):
        # what Inspect does not read as a whole, it may read in its parts
        assert list(LogSource.of(path).samples()), path
    assert all(0 < len(reason) <= 400 for reason in named.values())
    for path in readable:  # of logs with the same ids, the import converts one
        assert list(replay(path)), path
    whole = CASES + len(logs) - len(named)
    assert f"{whole} logs with " in ended.text


def test_the_command_on_corrupted_logs(logs: list[Path], tmp_path: Path) -> None:
    chance = random.Random(SEED)
    for corrupt in (truncated, empty, a_text, wrong_types):
        source = chance.choice(logs)
        (tmp_path / f"{corrupt.__name__}{source.suffix}").write_bytes(
            corrupt(source.read_bytes(), chance)
        )
    shutil.copy(LOGS / "guess-number-tools.eval", tmp_path / "good.eval")
    program = Path(sys.executable).with_name("inspect-mlflow")
    result = subprocess.run(
        [program, "import", f"{tmp_path}/*.*", "--tracking-uri", f"sqlite:///{tmp_path}/m.db"],
        cwd=tmp_path,
        env=clean_environ({"COLUMNS": "200", "NO_COLOR": "1"}),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    for name in ("truncated", "empty", "a_text"):
        assert f"/{name}." in result.stdout
    assert "/good.eval" not in result.stdout
