"""The MLflow of one evaluation run: its client, its experiment, and the runs made in it."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from inspect_mlflow.config import redact
from otel_bridge.errors import short_reason

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

    from inspect_mlflow.config import MLflowSettings

C = TypeVar("C", bound="Connection")


class ConnectionFailed(Exception):
    """MLflow can't be used; the message names the address and says what would help."""


@dataclass
class Connection:
    """Opened once, by whichever thread needs it first. Touches no global state of MLflow."""

    uri: str
    experiment_name: str
    experiment_id: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _opened: tuple[MlflowClient, str] | ConnectionFailed | None = None
    _runs: dict[str, Future[str]] = field(default_factory=dict)

    @classmethod
    def of(cls: type[C], settings: MLflowSettings) -> C:
        """The connection that settings with a tracking URI describe."""
        assert settings.tracking_uri is not None
        return cls(settings.tracking_uri, settings.experiment_name, settings.experiment_id)

    def open(self) -> tuple[MlflowClient, str]:
        """The client and the id of the experiment, which is created if there is none. Blocks.

        Threads import parts of MLflow only after it: begun on two threads from different parts,
        the import of a package that imports itself in circles fails.

        Raises
        ------
        ConnectionFailed
            If the server can't be reached or refuses, or the experiment is deleted.
        """
        with self._lock:
            if self._opened is None:
                try:
                    self._opened = self._open()
                except ConnectionFailed as error:
                    self._opened = error
            if isinstance(self._opened, ConnectionFailed):
                raise self._opened
            return self._opened

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"MLflow {redact(self.uri)}"

    @property
    def is_http(self) -> bool:
        """Whether there is an MLflow server, as opposed to its database."""
        return self.uri.startswith(("http://", "https://"))

    def is_alive(self) -> bool:
        """Whether MLflow answers, found out in seconds; a database is taken to. Blocks."""
        import requests
        from mlflow.exceptions import MlflowException

        try:
            if self.is_http:
                self._greet()
        except (MlflowException, requests.RequestException):
            return False
        return True

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

    def _open(self) -> tuple[MlflowClient, str]:
        import requests
        from mlflow.exceptions import MlflowException

        try:
            if self.is_http:
                self._greet()
            client = self._client()
            return client, self._experiment(client)
        except (MlflowException, requests.RequestException) as error:
            raise ConnectionFailed(f"{self.name}: {short_reason(error)}") from error

    def _client(self) -> MlflowClient:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri)

    def _greet(self) -> None:
        # its client tries for minutes
        self.request("/health", "GET", max_retries=0, timeout=5)

    def request(self, path: str, method: str, **kwargs: Any) -> Any:
        """A request to the server through MLflow's own client: its credentials, CA and headers.

        Keyword arguments and the response are those of `mlflow.utils.rest_utils.http_request`.
        """
        from mlflow.utils import rest_utils
        from mlflow.utils.credentials import get_default_host_creds

        send: Any = rest_utils.http_request
        credentials: Any = get_default_host_creds
        return send(credentials(self.uri), path, method, raise_on_status=False, **kwargs)

    def _experiment(self, client: MlflowClient) -> str:
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
            raise ConnectionFailed(
                f"{self.name}: the experiment {experiment.name!r} is deleted. "
                "Restore it (mlflow experiments restore --experiment-id "
                f"{experiment.experiment_id}), or name another with MLFLOW_EXPERIMENT_NAME."
            )
        return str(experiment.experiment_id)

    def _create_experiment(self, client: MlflowClient) -> str:
        kind = {"mlflow.experimentKind": "genai_development"}
        return str(client.create_experiment(self.experiment_name, tags=kind))
