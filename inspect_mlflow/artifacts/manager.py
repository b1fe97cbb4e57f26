"""Artifacts of a task's run, built by streaming its finished log."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from inspect_mlflow.artifacts import tables
from otel_bridge.logs import LogSource, with_attachments
from otel_bridge.values import to_json

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample
    from mlflow import MlflowClient

TABLES_FOLDER: Final = "inspect"
RESULTS_FOLDER: Final = "sample_results"
LOGS_FOLDER: Final = "eval_logs"

Line = tuple[str, str]


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
        with TaskFiles(LogSource.of(log)) as files:
            for sample in files.source.samples():
                files.add(sample_lines(sample))
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

    def add(self, lines: Iterable[Line]) -> None:
        """Write a sample's rows; those of all samples in the order of the log."""
        for table, line in lines:
            (self._tables[table] if table else self._results).write(line)

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


class SampleRows:
    """The rows of finished samples, in a temporary file until their task is over.

    A running evaluation hands its samples out when they end; to read them all again from the
    finished log would take longer than everything else that is done at a task's end.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile("w+b", prefix="inspect-mlflow-")  # noqa: SIM115
        self._places: dict[str, tuple[int, int]] = {}

    def add(self, sample: EvalSample) -> None:
        """Keep a sample's rows, instead of those that it had before."""
        data = "\n".join(map("\t".join, sample_lines(with_attachments(sample)))).encode()
        place = self._file.seek(0, io.SEEK_END)
        self._file.write(data)
        if sample.uuid:
            self._places[sample.uuid] = (place, len(data))

    def __contains__(self, uuid: object) -> bool:
        return uuid in self._places

    def lines(self, uuid: str) -> Iterator[Line]:
        """A sample's rows."""
        place, size = self._places[uuid]
        self._file.seek(place)
        for line in self._file.read(size).decode().split("\n"):
            table, _, row = line.partition("\t")
            yield table, row

    def close(self) -> None:
        """Forget all."""
        self._file.close()
        self._places.clear()


def sample_lines(sample: EvalSample) -> Iterator[Line]:
    """A sample's rows as JSON, each with its table; its result has none."""
    for table, row in tables.sample_rows(sample):
        yield table, to_json(tables.cells(table, row), _ITEM_BYTES)
    yield "", to_json(tables.result_row(sample), _ITEM_BYTES)


class _Array:
    """A file that holds a JSON array, written an item at a time."""

    _open, _close = "[", "]"

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open("w", encoding="utf-8")
        self._file.write(self._open)
        self._separator = "\n"

    def add(self, item: Any) -> None:
        """Append an item."""
        self.write(to_json(item, _ITEM_BYTES))

    def write(self, line: str) -> None:
        """Append an item's JSON."""
        self._file.write(self._separator + line)
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
