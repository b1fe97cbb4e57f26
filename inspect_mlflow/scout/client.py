"""Traces from MLflow, a page at a time: the one room that talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from inspect_mlflow.config import redact
from inspect_mlflow.connection import Connection, ConnectionFailed
from otel_bridge.errors import short_reason

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Trace, TraceInfo
    from mlflow.store.entities import PagedList
    from mlflow.tracing.client import TracingClient

PAGE_TRACES: Final = 20
"""How many traces make a page. Two are in memory: one is read while the other is worked on."""
COUNTED_TRACES: Final = 500
"""The most that MLflow lists at once."""
_Result = TypeVar("_Result")


class ScoutImportError(Exception):
    """The traces can't be read; the message names what is wrong and where."""


@dataclass(frozen=True)
class Selection:
    """Which traces of an experiment to read: those that meet all that is given.

    Fields as the parameters of `import_mlflow_traces`.
    """

    from_time: datetime | None = None
    to_time: datetime | None = None
    run_id: str | None = None
    trace_id: str | Sequence[str] | None = None
    session_id: str | None = None
    tags: Mapping[str, str | None] | Sequence[str] | None = None
    filter: str | None = None

    def filter_string(self) -> str | None:
        """All of it in the language of MLflow's search."""
        terms: list[str] = []
        if self.filter:
            terms.append(self.filter)
        if self.from_time is not None:
            terms.append(f"attributes.timestamp_ms >= {_milliseconds(self.from_time)}")
        if self.to_time is not None:
            terms.append(f"attributes.timestamp_ms < {_milliseconds(self.to_time)}")
        if self.run_id is not None:
            terms.append(f"attributes.run_id = {_quoted(self.run_id)}")
        if self.session_id is not None:
            terms.append(f"metadata.`mlflow.trace.session` = {_quoted(self.session_id)}")
        tags = self.tags or {}
        if not isinstance(tags, Mapping):
            tags = dict.fromkeys([tags] if isinstance(tags, str) else tags)
        for name, value in tags.items():
            meets = "LIKE '%'" if value is None else f"= {_quoted(value)}"
            terms.append(f"tag.`{name}` {meets}")
        return " AND ".join(terms) or None


@dataclass
class Reader:
    """Reads the traces of one experiment. Touches no global state of MLflow."""

    uri: str
    experiment_name: str
    experiment_id: str | None = None
    read: int = 0
    """Traces so far."""
    unfinished: int = 0
    """Traces so far that are still in progress, or of which not all has arrived."""
    _client: TracingClient | None = None

    async def open(self, *, by_experiment: bool = True) -> None:
        """Connect, and find the experiment if traces are to be looked up by it.

        Raises
        ------
        ScoutImportError
            If MLflow can't be reached or there is no such experiment.
        """
        self._client, self.experiment_id = await _in_thread(partial(self._open, by_experiment))

    def _open(self, by_experiment: bool) -> tuple[TracingClient, str | None]:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from mlflow.tracing.client import TracingClient

        file = sqlite_file(self.uri)
        if file is not None and not file.exists():  # opening it would make an empty one
            raise ScoutImportError(f"MLflow at {redact(self.uri)}: there is no such database.")
        connection = Connection(self.uri, self.experiment_name)
        try:
            connection.reach()
            if not by_experiment:
                return TracingClient(self.uri), None
            client = MlflowClient(tracking_uri=self.uri)
            experiment: Experiment | None
            if self.experiment_id is not None:
                experiment = client.get_experiment(self.experiment_id)
            else:
                experiment = client.get_experiment_by_name(self.experiment_name)
        except ConnectionFailed as error:
            raise ScoutImportError(str(error)) from error
        except MlflowException as error:
            raise ScoutImportError(
                f"MLflow at {redact(self.uri)}: {short_reason(error)}"
            ) from error
        if experiment is None or experiment.lifecycle_stage != "active":
            raise ScoutImportError(
                f"MLflow at {redact(self.uri)} has "
                f"{'no' if experiment is None else 'deleted the'} experiment "
                f"{self.experiment_name!r}. Name another with experiment_name, or with "
                "MLFLOW_EXPERIMENT_NAME."
            )
        return TracingClient(self.uri), str(experiment.experiment_id)

    async def traces(self, selection: Selection, limit: int | None = None) -> AsyncIterator[Trace]:
        """Finished traces, the oldest first; others are counted.

        `limit` is how many are wanted: no page is larger.
        """
        if selection.trace_id is not None:
            pages = self._named(selection.trace_id)
        else:
            pages = self._pages(selection.filter_string(), limit)
        async for page in pages:
            self.unfinished += page.unfinished
            for trace in page.traces:
                self.read += 1
                yield trace

    async def count(self, selection: Selection) -> int:
        """How many finished traces there are."""
        token: str | None = None
        total = 0
        while True:
            search = partial(self._search, selection.filter_string(), COUNTED_TRACES, token)
            page = await self._call(search)
            total += sum(_is_finished(trace.info) for trace in page)
            token = page.token
            if not token:
                return total

    async def _pages(self, filter_string: str | None, limit: int | None) -> AsyncIterator[_Page]:
        """Pages, each read while the one before it is worked on."""
        size = PAGE_TRACES if limit is None else min(PAGE_TRACES, limit)
        read = partial(self._page, filter_string, size)
        executor = ThreadPoolExecutor(1, "mlflow-traces")
        try:
            coming = executor.submit(self._guarded, partial(read, None))
            while True:
                page = await _in_thread(coming.result)
                if page.token:
                    coming = executor.submit(self._guarded, partial(read, page.token))
                yield page
                if not page.token:
                    return
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    def _page(
        self, filter_string: str | None, size: int, token: str | None, client: TracingClient
    ) -> _Page:
        found = self._search(filter_string, size, token, client)
        return _with_spans([trace.info for trace in found], found.token, client)

    def _search(
        self, filter_string: str | None, size: int, token: str | None, client: TracingClient
    ) -> PagedList[Trace]:
        return client.search_traces(
            locations=[str(self.experiment_id)],
            filter_string=filter_string,
            max_results=size,
            order_by=["timestamp_ms ASC"],
            page_token=token,
            include_spans=False,
        )

    async def _named(self, trace_ids: str | Sequence[str]) -> AsyncIterator[_Page]:
        for trace_id in [trace_ids] if isinstance(trace_ids, str) else trace_ids:
            page = await self._call(partial(_one, trace_id))
            if page is None:
                raise ScoutImportError(f"MLflow at {redact(self.uri)} has no trace {trace_id!r}.")
            yield page

    async def trace(self, trace_id: str) -> Trace | None:
        """One trace, None if there is none of that id, or not all of it."""
        page = await self._call(partial(_one, trace_id))
        return next(iter(page.traces), None) if page is not None else None

    async def _call(self, function: Callable[[TracingClient], _Result]) -> _Result:
        return await _in_thread(partial(self._guarded, function))

    def _guarded(self, function: Callable[[TracingClient], _Result]) -> _Result:
        import requests
        from mlflow.exceptions import MlflowException

        assert self._client is not None
        try:
            return function(self._client)
        except (MlflowException, requests.RequestException) as error:
            raise ScoutImportError(
                f"MLflow at {redact(self.uri)}: {short_reason(error)}"
            ) from error


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite database, None for anything else."""
    path = uri.removeprefix("sqlite:///")
    return Path(path.partition("?")[0]) if path not in ("", uri, ":memory:") else None


@dataclass(frozen=True)
class _Page:
    traces: Sequence[Trace]
    unfinished: int
    token: str | None = None


def _is_finished(info: TraceInfo) -> bool:
    return info.state.value != "IN_PROGRESS"


def _with_spans(infos: Sequence[TraceInfo], token: str | None, client: TracingClient) -> _Page:
    """The traces of a page. MLflow gives none of which a span has not arrived."""
    finished = [info.trace_id for info in infos if _is_finished(info)]
    loaded = {trace.info.trace_id: trace for trace in client.batch_get_traces(finished)}
    traces = [loaded[trace_id] for trace_id in finished if trace_id in loaded]
    return _Page(traces, len(infos) - len(traces), token)


def _one(trace_id: str, client: TracingClient) -> _Page | None:
    from mlflow.exceptions import MlflowException

    try:
        return _with_spans([client.get_trace_info(trace_id)], None, client)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            return None
        raise


async def _in_thread(function: Callable[[], _Result]) -> _Result:
    """MLflow's client blocks; Scout's event loop goes on."""
    from anyio import to_thread

    return await to_thread.run_sync(function)


def _milliseconds(time: datetime) -> int:
    aware = time.replace(tzinfo=timezone.utc) if time.tzinfo is None else time
    return int(aware.timestamp() * 1000)


def _quoted(text: str) -> str:
    if "'" not in text:
        return f"'{text}'"
    if '"' not in text:
        return f'"{text}"'
    raise ScoutImportError(f"MLflow's search can't look for {text!r}: it has both kinds of quotes.")
