"""Artifacts of a task's run, built by streaming its finished log."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from inspect_mlflow.artifacts import tables
from otel_bridge.logs import LogSource
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
        with TaskFiles(source) as files:
            for sample in files.source.samples():
                files.add(sample)
                yield sample
            self.upload(run_id, files)

    def upload(self, run_id: str, files: TaskFiles) -> None:
        """Write files that hold all samples to a run."""
        for path in files.finish():
            self._client.log_artifact(run_id, str(path), path.parent.name)
            self.uploaded += 1
        source = files.source.path
        if source is not None:
            self._client.log_artifact(run_id, str(source), LOGS_FOLDER)
            self.uploaded += 1
        paths = [f"{TABLES_FOLDER}/{table}.json" for table in tables.COLUMNS]
        # what MLflow's log_table leaves behind: load_table and the UI find tables by it
        logged = [{"path": path, "type": "table"} for path in paths]
        self._client.set_tag(
            run_id, "mlflow.loggedArtifacts", to_json(logged, 8_000), synchronous=True
        )


class TaskFiles:
    """Temporary files with the tables and results of a task, written a sample at a time.

    They are gone after the `with` block, or with the object.
    """

    def __init__(self, source: LogSource) -> None:
        from inspect_ai.log import write_eval_log

        self._temporary = tempfile.TemporaryDirectory(prefix="inspect-mlflow-")
        self._folder = folder = Path(self._temporary.name)
        for name in (TABLES_FOLDER, RESULTS_FOLDER, LOGS_FOLDER):
            (folder / name).mkdir()
        self.source = source = source.local(folder)
        """The log; its file is on this machine."""
        stem = source.name
        if source.path is None or source.path.suffix != ".json":
            # beside its file the log needs no samples; without a file this is all there is
            log = source.log if source.path is None else source.header
            write_eval_log(log, folder / LOGS_FOLDER / f"{stem}.json", format="json")
        self._tables = {
            table: _Table(folder / TABLES_FOLDER / f"{table}.json", columns)
            for table, columns in tables.COLUMNS.items()
        }
        self._results = _Array(folder / RESULTS_FOLDER / f"{stem}.json")
        for table, rows in tables.log_rows(source.log).items():
            for row in rows:
                self._tables[table].add(tables.cells(table, row))

    def add(self, sample: EvalSample) -> None:
        """Write a sample's rows."""
        for table, row in tables.sample_rows(sample):
            self._tables[table].add(tables.cells(table, row))
        self._results.add(tables.result_row(sample))

    def finish(self) -> list[Path]:
        """The complete files, each in a folder named as it is among the artifacts."""
        for file in (*self._tables.values(), self._results):
            file.close()
        return sorted(self._folder.glob("*/*.json"))

    def __enter__(self) -> TaskFiles:
        return self

    def __exit__(self, *error: object) -> None:
        self.finish()
        self._temporary.cleanup()


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

    def close(self) -> None:
        """End the array, once."""
        if not self._file.closed:
            self._file.write(f"\n{self._close}")
            self._file.close()


class _Table(_Array):
    """A file that holds a table as MLflow writes them: `columns` and `data`."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._open, self._close = f'{{"columns": {to_json(columns, _ITEM_BYTES)}, "data": [', "]}"
        super().__init__(path)


_ITEM_BYTES: Final = 100_000_000
"""No bound: cells are bounded."""
