"""Requests to an MLflow server, with what MLflow's own client would send along."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from otel_bridge.errors import short_reason

if TYPE_CHECKING:
    from requests import Response, Session

CONNECT_SECONDS: Final = 5.0
_KNOWN_SECONDS: Final = 10.0
"""How long what MLflow's own client sends along is used before it is asked again."""
_OF_ONE_REQUEST: Final = ("content-length", "content-type", "transfer-encoding", "cookie")
_LATER: Final = frozenset({408, 429, 500, 502, 503, 504})
"""Answers that may be others a little later."""


class Unavailable(Exception):
    """MLflow did not answer, or it may answer otherwise a little later."""

    def __init__(self, reason: str, status: int | None = None, after: float = 0.0) -> None:
        """`status` is that of the answer, if there was one; `after` its Retry-After in seconds."""
        super().__init__(reason)
        self.status = status
        self.after = after


@dataclass(frozen=True, slots=True)
class _Known:
    """What goes along with every request, as MLflow's own client found it out."""

    at: float
    session: Session
    headers: Mapping[str, str]
    settings: Mapping[str, Any]
    """Proxies and certificates."""


class MlflowHttp:
    """Makes requests as MLflow's own client does: with its credentials, headers and certificates.

    That client puts together for each request what to send along, among others by imports that
    fail: sixty system calls, after each of which the evaluation has to hand the interpreter over.
    Here it is asked for the first request, and every few seconds again.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")
        self._known: _Known | None = None

    def request(
        self,
        path: str,
        method: str,
        *,
        timeout: float,
        headers: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> Response:
        """One request, tried once. `timeout` is in seconds, for the answer.

        Other keyword arguments are those of `requests.Session.request`.

        Raises
        ------
        Unavailable
            If there is no answer, or one that may be another a little later.
        """
        import requests
        from mlflow.exceptions import MlflowException

        headers = dict(headers or {})
        if self._uri.startswith("http://"):
            # on a connection used before, MLflow's server holds the body back until the headers are
            # acknowledged, which systems put off by 40 ms; a new one costs much less
            headers["Connection"] = "close"
        kwargs |= {"headers": headers, "timeout": (CONNECT_SECONDS, timeout)}
        try:
            response: Response = self._send(path, method, **kwargs)
        except (MlflowException, requests.RequestException) as error:
            raise Unavailable(short_reason(error)) from error
        if response.status_code in _LATER:
            raise Unavailable(said(response), response.status_code, _retry_after(response))
        return response

    def _send(self, path: str, method: str, *, headers: Mapping[str, str], **kwargs: Any) -> Any:
        known = self._known
        if known is None or time.monotonic() - known.at > _KNOWN_SECONDS:
            return self._send_as_mlflow(path, method, headers, **kwargs)
        headers = {**known.headers, **headers}
        url = self._uri + path
        return known.session.request(method, url, headers=headers, **known.settings, **kwargs)

    def _send_as_mlflow(self, path: str, method: str, own: Mapping[str, str], **kwargs: Any) -> Any:
        from requests import Session

        client: Any = import_module("mlflow.utils.rest_utils")
        variables: Any = import_module("mlflow.environment_variables")
        host = import_module("mlflow.utils.credentials").get_default_host_creds(self._uri)
        response = client.http_request(
            host, path, method, max_retries=0, raise_on_status=False, extra_headers=own, **kwargs
        )
        if not host.auth and not host.aws_sigv4:  # these sign each request
            sent = (response.history or [response])[0].request.headers
            of_this = {*map(str.lower, own), *_OF_ONE_REQUEST}
            headers = {key: value for key, value in sent.items() if key.lower() not in of_this}
            session = Session()
            settings: dict[str, Any] = session.merge_environment_settings(
                self._uri, {}, None, host.verify, host.client_cert_path
            )
            settings["allow_redirects"] = variables.MLFLOW_ALLOW_HTTP_REDIRECTS.get()
            session.trust_env = False  # the environment has said what it has to say
            self._known = _Known(time.monotonic(), session, headers, settings)
        return response


def said(response: Any) -> str:
    """The status of an answer, and what it says."""
    try:
        text = str(response.json()["message"])
    except (ValueError, LookupError, TypeError):  # it is not from MLflow itself
        text = str(response.text)
    return f"HTTP {response.status_code}: {' '.join(text.split())[:300]}".rstrip(": ")


def _retry_after(response: Response) -> float:
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    try:
        return max(0.0, Retry().parse_retry_after(response.headers.get("Retry-After") or "0"))
    except InvalidHeader:
        return 0.0
