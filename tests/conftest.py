"""Fixtures: real servers for the whole session, a sink and a clean environment for each test."""

import os
import re
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.environment import FOREIGN_PREFIXES
from tests.support.servers import (
    JAEGER_VARIABLE,
    Jaeger,
    MlflowServer,
    find_jaeger,
    running_jaeger,
    running_mlflow,
)
from tests.support.sink import OtlpSink, running_sink


def pytest_configure() -> None:
    """Take Ctrl-C back where it is ignored, as in a script's background: evaluations inherit it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_jaeger_choice = {JAEGER_VARIABLE: os.environ.get(JAEGER_VARIABLE, "")}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take MLFLOW_*, OTEL_* and INSPECT_* away, so that tests don't depend on the caller's."""
    for name in list(os.environ):
        if name.startswith(FOREIGN_PREFIXES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A real `mlflow server` on SQLite."""
    with running_mlflow(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture
def experiment_name(request: pytest.FixtureRequest) -> str:
    """A name no experiment has yet, after the test's own."""
    test = re.sub(r"\W+", "-", request.node.name).strip("-")[:80]
    return f"{test}-{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def jaeger_binary() -> Path:
    """A Jaeger v2, which is a Collector too; the test is skipped where there is none."""
    binary = find_jaeger({**os.environ, **_jaeger_choice})
    if binary is None:
        pytest.skip(
            "no Jaeger v2 binary: run .ci/install-jaeger, or set "
            f"{JAEGER_VARIABLE} to the path of one"
        )
    return binary


@pytest.fixture(scope="session")
def jaeger(jaeger_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    """A real Jaeger v2."""
    with running_jaeger(jaeger_binary, tmp_path_factory.mktemp("jaeger")) as server:
        yield server


@pytest.fixture
def otlp_sink() -> Iterator[OtlpSink]:
    """An OTLP destination over HTTP and gRPC that keeps what it is sent."""
    with running_sink() as sink:
        yield sink
