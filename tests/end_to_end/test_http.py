"""Requests to MLflow carry what MLflow's own client would send: the first one, and later ones."""

from collections.abc import Iterator, Mapping

import pytest
from mlflow.tracking.request_auth import registry
from mlflow.tracking.request_auth.abstract_request_auth_provider import RequestAuthProvider
from requests import PreparedRequest

from inspect_mlflow import http
from inspect_mlflow.http import MlflowHttp, Unavailable
from tests.support.sink import Behaviour, OtlpSink

OWN = {"content-type": "application/x-protobuf"}


def post(client: MlflowHttp, count: int = 1) -> None:
    for _ in range(count):
        client.request("/v1/traces", "POST", data=b"", headers=OWN, timeout=5)


def headers(sink: OtlpSink) -> list[Mapping[str, str]]:
    return [request.headers for request in sink.requests]


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "secret"},
        {"MLFLOW_TRACKING_TOKEN": "token-1"},
        {"MLFLOW_WORKSPACE": "evaluations"},
    ],
    ids=["nothing", "password", "token", "workspace"],
)
def test_later_requests_are_like_the_first(
    variables: Mapping[str, str], otlp_sink: OtlpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    post(MlflowHttp(otlp_sink.http_endpoint), 3)
    first, *later = headers(otlp_sink)
    assert first["user-agent"].startswith("mlflow-python-client/")
    assert ("authorization" in first) == any("TRACKING" in name for name in variables)
    assert ("x-mlflow-workspace" in first) == ("MLFLOW_WORKSPACE" in variables)
    assert later == [first, first]


def test_a_changed_token_is_found(otlp_sink: OtlpSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token-1")
    client = MlflowHttp(otlp_sink.http_endpoint)
    post(client, 2)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token-2")
    monkeypatch.setattr(http, "_KNOWN_SECONDS", 0.0)
    post(client)
    sent = [each["authorization"] for each in headers(otlp_sink)]
    assert sent == ["Bearer token-1", "Bearer token-1", "Bearer token-2"]


class Signature:
    """Signs each request differently."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        self.count += 1
        request.headers["Authorization"] = f"signature {self.count}"
        return request


@pytest.fixture
def signing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A plugin of MLflow that signs requests."""
    signature = Signature()

    class Provider(RequestAuthProvider):
        def get_name(self) -> str:
            return "signing"

        def get_auth(self) -> Signature:
            return signature

    providers = registry._request_auth_provider_registry
    before = list(providers)
    providers.register(Provider)  # type: ignore[no-untyped-call]
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "signing")
    yield
    providers._registry[:] = before


def test_a_plugin_signs_each_request(signing: None, otlp_sink: OtlpSink) -> None:
    post(MlflowHttp(otlp_sink.http_endpoint), 3)
    sent = [each["authorization"] for each in headers(otlp_sink)]
    assert sent == ["signature 1", "signature 2", "signature 3"]


def test_all_go_through_the_proxy(otlp_sink: OtlpSink, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HTTP_PROXY", otlp_sink.http_endpoint)
    monkeypatch.setenv("http_proxy", otlp_sink.http_endpoint)
    post(MlflowHttp("http://mlflow.invalid:5000"), 2)
    assert [each["host"] for each in headers(otlp_sink)] == ["mlflow.invalid:5000"] * 2


def test_redirects_as_mlflow_allows_them(
    otlp_sink: OtlpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_HTTP_REDIRECTS", "false")
    client = MlflowHttp(otlp_sink.http_endpoint)
    otlp_sink.behave(Behaviour(redirect=f"{otlp_sink.http_endpoint}/elsewhere"))
    answers = [
        client.request("/v1/traces", "POST", data=b"", timeout=5).status_code for _ in range(2)
    ]
    assert answers == [302, 302]
    assert {request.path for request in otlp_sink.requests} == {"/v1/traces"}


def test_what_may_be_otherwise_later(otlp_sink: OtlpSink) -> None:
    client = MlflowHttp(otlp_sink.http_endpoint)
    otlp_sink.behave(Behaviour(status=503, headers={"Retry-After": "7"}))
    for _ in range(2):
        with pytest.raises(Unavailable, match="HTTP 503") as caught:
            post(client)
        assert (caught.value.status, caught.value.after) == (503, 7.0)


def test_no_server() -> None:
    with pytest.raises(Unavailable, match="refused"):
        post(MlflowHttp("http://127.0.0.1:9"))
