"""Artifacts of a task's run, built by streaming its finished log."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from inspect_mlflow.artifacts import tables
from inspect_mlflow.logs import LogSource
from otel_bridge.values import to_json

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample
    from mlflow import MlflowClient

TABLES_FOLDER: Final = "inspect"
RESULTS_FOLDER: Final = "sample_results"
LOGS_FOLDER: Final = "eval_logs"


class ArtifactManager:
    """Writes tables of a log, results of its samples and the log itself to an MLflow run.

    Everything goes through temporary files, a sample at a time, so that memory doesn't grow with
    the log.
    """

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self.uploaded = 0
        """How many files have been written to runs."""

    def log(self, run_id: str, log: str | Path | EvalLog) -> None:
        """Write all artifacts of a finished log to a run. Blocks.

        Parameters
        ----------
        run_id
            The task's MLflow run.
        log
            Path or URL that Inspect reads, or a log in memory.
        """
        for _ in self.steps(run_id, LogSource.of(log)):
            pass

    def steps(self, run_id: str, source: LogSource) -> Iterator[EvalSample]:
        """The same in small steps: gives each sample once it is in the files."""
        with tempfile.TemporaryDirectory(prefix="inspect-mlflow-") as name:
            folder = Path(name)
            local = source.local(folder)
            yield from _write_tables(local, folder)
            self._upload(run_id, local, folder)

    def _upload(self, run_id: str, source: LogSource, folder: Path) -> None:
        for path in sorted(folder.glob("*/*.json")):
            self._put(run_id, path, path.parent.name)
        if source.path is not None:
            self._put(run_id, source.path, LOGS_FOLDER)
        paths = [f"{TABLES_FOLDER}/{table}.json" for table in tables.COLUMNS]
        # what MLflow's log_table leaves behind: load_table and the UI find tables by it
        logged = [{"path": path, "type": "table"} for path in paths]
        self._client.set_tag(
            run_id, "mlflow.loggedArtifacts", to_json(logged, 8_000), synchronous=True
        )

    def _put(self, run_id: str, path: Path, folder: str) -> None:
        self._client.log_artifact(run_id, str(path), folder)
        self.uploaded += 1


def _write_tables(source: LogSource, folder: Path) -> Iterator[EvalSample]:
    from inspect_ai.log import write_eval_log

    for name in (TABLES_FOLDER, RESULTS_FOLDER, LOGS_FOLDER):
        (folder / name).mkdir()
    stem = source.name
    if source.path is None or source.path.suffix != ".json":
        # beside its file the log needs no samples; without a file this is all there is
        log = source.log if source.path is None else source.header
        write_eval_log(log, folder / LOGS_FOLDER / f"{stem}.json", format="json")
    with ExitStack() as files:
        writers = {
            table: files.enter_context(_Table(folder / TABLES_FOLDER / f"{table}.json", columns))
            for table, columns in tables.COLUMNS.items()
        }
        results = files.enter_context(_Array(folder / RESULTS_FOLDER / f"{stem}.json"))
        for table, rows in tables.log_rows(source.log).items():
            for row in rows:
                writers[table].add(tables.cells(table, row))
        for sample in source.samples():
            for table, row in tables.sample_rows(sample):
                writers[table].add(tables.cells(table, row))
            results.add(tables.result_row(sample))
            yield sample


class _Array:
    """A file that holds a JSON array, written an item at a time."""

    _open, _close = "[", "]"

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open("w", encoding="utf-8")
        self._file.write(self._open)
        self._separator = "\n"

    def add(self, item: Any) -> None:
        """Append an item."""
        self._file.write(self._separator + to_json(item, _ITEM_BYTES))
        self._separator = ",\n"

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.write(f"\n{self._close}")
        self._file.close()


class _Table(_Array):
    """A file that holds a table as MLflow writes them: `columns` and `data`."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._open, self._close = f'{{"columns": {to_json(columns, _ITEM_BYTES)}, "data": [', "]}"
        super().__init__(path)


_ITEM_BYTES: Final = 100_000_000
"""No bound: cells are bounded."""
