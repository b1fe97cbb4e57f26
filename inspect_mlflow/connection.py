"""The MLflow of one evaluation run: its client, its experiment, and the runs made in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from inspect_mlflow.config import is_databricks, redact
from inspect_mlflow.http import CONNECT_SECONDS, MlflowHttp, Unavailable, said
from otel_bridge import heap
from otel_bridge.errors import short_reason

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

    from inspect_mlflow.config import MLflowSettings

C = TypeVar("C", bound="Connection")
T = TypeVar("T")

ANSWER_SECONDS: Final = 10.0
"""How long MLflow may take to answer whether it is there."""
OPEN_PATIENCE: Final = 5.0
"""Seconds for a server that asks for patience when an evaluation starts."""
PATIENCE: Final = 300.0
"""Seconds from the beginning of a trouble in which requests are made again and again; later ones
are made once. MLflow's own client is about as patient."""
LONGEST_PAUSE: Final = 30.0
_PACKAGES: Final = {
    "psycopg": "'psycopg[binary]'",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
}
"""Database drivers that are installed under another name."""
_WITH_CONNECT_TIMEOUT: Final = ("psycopg", "psycopg2", "mysqldb", "pymysql")
"""Database drivers with that argument; without it they wait for ever for what does not answer."""
_TRIES_AT_500: Final = 3
"""What breaks the server would break it for ever."""


class ConnectionFailed(Exception):
    """MLflow can't be used; the message names the address and says what would help."""


@dataclass
class Connection:
    """Opened once, by whichever thread needs it first. Touches no global state of MLflow."""

    uri: str
    experiment_name: str
    experiment_id: str | None = None
    on_trouble: Callable[[str, str], None] = lambda destination, reason: None
    """Hears, on any thread, the connection's name and what is wrong; again at every failure."""
    patience: float = PATIENCE
    given: str | None = None
    """The address as messages say it, where that is not `uri`."""
    restored: bool = False
    """Whether `open` brought a deleted experiment back."""
    _http: MlflowHttp = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _opened: tuple[MlflowClient, str] | ConnectionFailed | None = None
    _runs: dict[str, Future[str]] = field(default_factory=dict)
    _imported: threading.Event = field(default_factory=threading.Event)
    _settled: threading.Event = field(default_factory=threading.Event)
    _given_up: threading.Event = field(default_factory=threading.Event)
    _troubled_since: float | None = None

    def __post_init__(self) -> None:
        self._http = MlflowHttp(self.uri)

    @classmethod
    def of(
        cls: type[C],
        settings: MLflowSettings,
        on_trouble: Callable[[str, str], None] = lambda destination, reason: None,
    ) -> C:
        """The connection that settings with a tracking URI describe."""
        assert settings.tracking_uri is not None
        return cls(
            _anchored(settings.tracking_uri),
            settings.experiment_name,
            settings.experiment_id,
            on_trouble,
            given=settings.tracking_uri,
        )

    def open(self, *, restore: bool = False) -> tuple[MlflowClient, str]:
        """The client and the id of the experiment, which is created if there is none. Blocks.

        Threads import parts of MLflow only after it: begun on two threads from different parts,
        the import of a package that imports itself in circles fails.

        A deleted experiment is an error unless `restore` says to bring it back.

        Raises
        ------
        ConnectionFailed
            If the server or database can't be used, or the experiment is deleted.
        """
        with self._lock:
            if self._opened is None:
                try:
                    with self._explained():
                        self._opened = self._open(restore)
                except ConnectionFailed as error:
                    self._opened = error
                finally:
                    self._settled.set()
                heap.spare()
            if isinstance(self._opened, ConnectionFailed):
                raise self._opened
            return self._opened

    def reach(self) -> None:
        """Find out in seconds whether MLflow is there: its own client tries for minutes. Blocks.

        Raises
        ------
        ConnectionFailed
            If it is not.
        """
        with self._explained():
            if self.is_http:
                self.request("/health", "GET", timeout=ANSWER_SECONDS)
            elif self._is_database:
                self._reach()

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"MLflow {redact(self.given or self.uri)}"

    @property
    def is_http(self) -> bool:
        """Whether there is an MLflow server, as opposed to its database."""
        return self.uri.startswith(("http://", "https://"))

    @property
    def takes_spans(self) -> bool:
        """Whether spans can be sent to it."""
        return not is_databricks(self.uri)

    def settled(self, timeout: float) -> bool:
        """Wait until another thread's `open` has an outcome; its server may take `timeout` seconds.

        Importing MLflow, which comes first and takes seconds too, does not count.
        """
        self._imported.wait()
        return self._settled.wait(timeout)

    def trouble(self) -> str | None:
        """Why MLflow can't be used at present, found out in seconds; None if it can. Blocks.

        A database is taken to be there.
        """
        try:
            self.persist(self._look, OPEN_PATIENCE)
        except (ConnectionFailed, Unavailable) as error:
            return str(error)
        return None

    @property
    def is_troubled(self) -> bool:
        """Whether the last request of `persist` was in vain."""
        return self._troubled_since is not None

    def give_up(self) -> None:
        """Try nothing again from now on."""
        self._given_up.set()

    def persist(self, attempt: Callable[[], T], patience: float | None = None) -> T:
        """What `attempt` gives, which is made again while MLflow is unavailable. Blocks.

        `patience` bounds, in seconds, how long; the connection's own counts from the beginning of
        the trouble, whichever thread met it first.

        Raises
        ------
        Unavailable
            If it still is, or will be for longer than that.
        """
        began, pause = time.monotonic(), 1.0
        for tries in count(1):
            asked = time.monotonic()
            try:
                result = attempt()
            except Unavailable as error:
                if patience is None:
                    began = self._troubled_since = self._troubled_since or began
                left = began + (self.patience if patience is None else patience) - time.monotonic()
                wait = max(pause, error.after)
                if wait > left or (error.status == 500 and tries == _TRIES_AT_500):
                    raise
                if tries > 1 or error.after > pause or time.monotonic() - asked > CONNECT_SECONDS:
                    self.on_trouble(self.name, str(error))  # else it may be a moment's
                if self._given_up.wait(wait):
                    raise
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._troubled_since = None
                return result
        raise AssertionError("unreachable")

    def run(self, key: str) -> Future[str]:
        """The MLflow run of an Inspect run or eval id; done when it has been created."""
        with self._lock:
            return self._runs.setdefault(key, Future())

    def run_id(self, key: str, timeout: float) -> str | None:
        """The MLflow run of an Inspect id; None if there is none in `timeout` seconds. Blocks."""
        from mlflow.exceptions import MlflowException

        try:
            return self.run(key).result(timeout)
        except (ConnectionFailed, MlflowException, FutureTimeout):
            return None  # the writer of the runs has said why

    def end_run(self, run_id: str, status: str, ended_ms: int) -> None:
        """Give a run its final status. Blocks."""
        from mlflow.entities import RunStatus

        client, _ = self.open()
        # set_terminated() would print the run's address into Inspect's display
        store = client._tracking_client.store
        store.update_run_info(run_id, RunStatus.from_string(status), ended_ms, run_name=None)

    def _open(self, restore: bool) -> tuple[MlflowClient, str]:
        try:
            import mlflow  # noqa: F401  # itself first, whoever imports it at the same time
        finally:
            self._imported.set()
        if self.is_http:  # its client tries for minutes
            self.persist(self._greet, OPEN_PATIENCE)
        elif self._is_database:  # as does its store
            self._reach()
        client = self._client()
        return client, self._experiment(client, restore)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Whatever MLflow, a database or its driver raise is one kind of error, with the reason."""
        try:
            yield
        except ConnectionFailed:
            raise
        except Exception as error:
            raise ConnectionFailed(f"{self.name}: {_why(error)}") from error

    @property
    def _is_database(self) -> bool:
        scheme, colon, _ = self.uri.partition("://")
        return bool(colon) and "sql" in scheme

    def _client(self) -> MlflowClient:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri)

    def _greet(self) -> Any:
        """The first request: where there is no server, nothing is waited for."""
        try:
            return self._ask()
        except Unavailable as error:
            if error.status is None:
                raise ConnectionFailed(f"{self.name}: {error}") from error
            raise

    def _reach(self) -> None:
        """Connect to the database once, as MLflow will do."""
        import sqlalchemy

        utils: Any = import_module("mlflow.store.db.utils")
        utils._make_parent_dirs_if_sqlite(self.uri)
        engine = utils.create_sqlalchemy_engine(self.uri)
        if engine.dialect.driver in _WITH_CONNECT_TIMEOUT:
            bounded = {"connect_timeout": int(ANSWER_SECONDS)}
            sqlalchemy.event.listen(
                engine, "do_connect", lambda *arguments: arguments[-1].update(bounded)
            )
        try:
            sqlalchemy.inspect(engine)
        finally:
            engine.dispose()

    def _ask(self) -> Any:
        """The server's answer about the experiment, None if there is none.

        Raises ConnectionFailed for an answer that a later one won't change.
        """
        from urllib.parse import urlencode

        query = {"experiment_name": self.experiment_name}
        path = "/api/2.0/mlflow/experiments/get-by-name"
        if self.experiment_id is not None:
            query, path = {"experiment_id": self.experiment_id}, "/api/2.0/mlflow/experiments/get"
        response = self.request(f"{path}?{urlencode(query)}", "GET", timeout=ANSWER_SECONDS)
        if response.status_code == 404:
            return None
        if response.status_code != 200:
            raise ConnectionFailed(f"{self.name}: {said(response)}")
        try:
            return response.json()["experiment"]
        except (ValueError, LookupError, TypeError) as error:
            text = " ".join(response.text.split())[:100]
            raise ConnectionFailed(f"{self.name}: this is no MLflow's answer: {text}") from error

    def _look(self) -> None:
        experiment = self._ask() if self.is_http else None
        if experiment is not None and experiment.get("lifecycle_stage") == "deleted":
            raise self._deleted(experiment["name"], experiment["experiment_id"])

    def request(self, path: str, method: str, *, timeout: float, **kwargs: Any) -> Any:
        """One request to the server: see `MlflowHttp.request`."""
        return self._http.request(path, method, timeout=timeout, **kwargs)

    def _experiment(self, client: MlflowClient, restore: bool) -> str:
        from mlflow.exceptions import MlflowException

        experiment: Experiment | None
        if self.experiment_id is not None:
            experiment = client.get_experiment(self.experiment_id)
        else:
            experiment = client.get_experiment_by_name(self.experiment_name)
            if experiment is None:
                try:
                    return self._create_experiment(client)
                except MlflowException:
                    # another evaluation may have created it in between
                    experiment = client.get_experiment_by_name(self.experiment_name)
                    if experiment is None:
                        raise
        if experiment.lifecycle_stage != "active":
            if not restore:
                raise self._deleted(experiment.name, experiment.experiment_id)
            client.restore_experiment(experiment.experiment_id)
            self.restored = True
        return str(experiment.experiment_id)

    def _create_experiment(self, client: MlflowClient) -> str:
        kind = {"mlflow.experimentKind": "genai_development"}
        return str(client.create_experiment(self.experiment_name, tags=kind))

    def _deleted(self, name: str, experiment_id: str) -> ConnectionFailed:
        return ConnectionFailed(
            f"{self.name}: the experiment {name!r} is deleted. An import restores it, as does "
            f"mlflow experiments restore --experiment-id {experiment_id}; or name another with "
            "MLFLOW_EXPERIMENT_NAME."
        )


def _anchored(uri: str) -> str:
    """The address of a relative SQLite file as it is now.

    Inspect changes the working directory while it prepares tasks, and other threads with it.
    """
    path = uri.removeprefix("sqlite:///")
    if path == uri or path.startswith(("/", ":")):
        return uri
    return f"sqlite:///{Path(path).absolute()}"


def _why(error: Exception) -> str:
    """Why there is no connection, and what to install for it."""
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        return f"{error}: pip install {_PACKAGES.get(error.name, error.name)}"
    return short_reason(error)


def available(call: Callable[[], T]) -> T:
    """What a call of MLflow's own gives. Raises Unavailable where a later one may succeed."""
    from mlflow.exceptions import MlflowException

    try:
        return call()
    except MlflowException as error:
        if error.error_code == "TEMPORARILY_UNAVAILABLE":
            raise Unavailable(short_reason(error)) from error
        raise
