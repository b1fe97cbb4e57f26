"""MLflow's autologging of model providers, for the time of an evaluation.

Traces made meanwhile in the evaluation go to its MLflow and experiment, wherever MLflow's or
OpenTelemetry's variables would send them. MLflow has one tracer provider for the process, so a
processor in it tells the evaluation's traces from others by a context variable.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar, Token
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from inspect_mlflow.connection import Connection, ConnectionFailed

if TYPE_CHECKING:
    from mlflow.entities import TraceInfo
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider

logger = logging.getLogger("inspect_mlflow")

PROVIDERS: Final = {
    "openai": "openai",
    "anthropic": "anthropic",
    "langchain": "langchain_core",
    "litellm": "litellm",
    "mistral": "mistralai",
    "groq": "groq",
    "gemini": "google.genai",
    "bedrock": "boto3",
}
"""Provider, which is also the name of MLflow's flavour → the module of its SDK."""
OPEN_SECONDS: Final = 3.0
"""How long the first sample may be kept waiting for a server that does not answer."""
DATABASE_SECONDS: Final = 30.0
"""How long for a database, which MLflow may first have to fill with tables."""


def installed_providers(names: Iterable[str]) -> list[str]:
    """Those of the providers whose SDK and MLflow flavour are installed.

    Names that are no provider's are named in one warning.
    """
    wanted = list(dict.fromkeys(name.strip().lower() for name in names))
    unknown = [name for name in wanted if name not in PROVIDERS]
    if unknown:
        logger.warning(
            "INSPECT_MLFLOW_AUTOLOG_MODELS: there is no provider %s; there are %s.",
            " or ".join(map(repr, unknown)),
            ", ".join(PROVIDERS),
        )
    return [
        name
        for name in wanted
        if name in PROVIDERS and _has_flavour(name) and _is_installed(PROVIDERS[name])
    ]


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package it would be in
        return False


def _has_flavour(name: str) -> bool:
    """Whether MLflow has it; looked up in its folder, since importing MLflow takes seconds."""
    spec = find_spec("mlflow")
    folders = (spec.submodule_search_locations if spec is not None else None) or []
    return any((Path(folder) / name / "__init__.py").exists() for folder in folders)


class Autolog:
    """The providers enabled for one evaluation, and where their traces go."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._enabled: list[Callable[..., None]] = []
        self._route: _Route | None = None
        self._token: Token[_Route | None] | None = None

    def enable(self, providers: Sequence[str]) -> bool:
        """Enable providers that the user has not enabled. Blocks: imports MLflow and the SDKs.

        Somebody else opens the connection meanwhile.
        Returns whether any was: then `enter` and, at the end, `leave` and `disable`.
        """
        seconds = OPEN_SECONDS if self._connection.is_http else DATABASE_SECONDS
        if not self._connection.settled(seconds):
            logger.info("MLflow's autologging stays off: it takes too long to answer")
            reason = f"no answer within {seconds:g} seconds"
            self._connection.on_trouble(self._connection.name, reason)
            return False
        try:
            _, experiment_id = self._connection.open()
        except ConnectionFailed:  # reported by the writer
            return False
        try:
            self._route = _Route(self._connection.uri, experiment_id)
            self._route.install()
        except Exception as error:  # of MLflow's insides, which may be others one day
            logger.warning("MLflow's autologging stays off: %s", error)
            return False
        for name in providers:
            try:
                self._enable(name)
            except Exception as error:  # of the SDK, or of MLflow's code that patches it
                logger.warning("MLflow's autologging of %s stays off: %s", name, error)
        if not self._enabled:
            self._route.remove()
        return bool(self._enabled)

    def _enable(self, name: str) -> None:
        is_disabled: Any = import_module("mlflow.utils.autologging_utils").autologging_is_disabled
        flavour: Any = import_module(f"mlflow.{name}")
        if is_disabled(name):
            flavour.autolog(silent=True)
            self._enabled.append(flavour.autolog)

    def enter(self) -> None:
        """From here on this context, and those made in it, are the evaluation's."""
        self._token = _here.set(self._route)

    def leave(self) -> None:
        """Undo `enter`."""
        if self._token is not None:
            try:
                _here.reset(self._token)
            except ValueError:  # entered in another context, which has ended with it
                _here.set(None)

    def disable(self, timeout: float) -> None:
        """Disable what was enabled, and wait for its traces, at most `timeout` seconds. Blocks."""
        for autolog in self._enabled:
            try:
                autolog(disable=True, silent=True)
            except Exception as error:  # of MLflow's code that patches the SDK
                logger.warning("MLflow's autologging can't be disabled: %s", error)
        if self._route is not None:
            self._route.remove()
            flush = threading.Thread(target=self._route.flush, daemon=True)
            flush.start()
            flush.join(timeout)


class _Route:
    """A span processor in front of MLflow's own: traces of the evaluation go to its MLflow.

    Duck-typed, because the tracing SDK is imported only when there is something to enable.
    """

    def __init__(self, uri: str, experiment_id: str) -> None:
        # MLflow has no public way to give a trace another server than the process's
        self._mlflow: Any = import_module("mlflow.tracing.provider")
        self._experiment_id = experiment_id
        self._ours = self._mlflow._get_mlflow_span_processor(tracking_uri=uri)
        self._ours.span_exporter._client._get_artifact_repo_for_trace = partial(_artifacts_at, uri)
        self._theirs: Sequence[SpanProcessor] | None = None
        self._traces: set[int] = set()
        self._provider: TracerProvider | None = None
        self._is_new = False

    def install(self) -> None:
        """Take the place of the processors of MLflow's tracer provider."""
        from mlflow.tracing.processor.base_mlflow import BaseMlflowSpanProcessor
        from mlflow.tracing.processor.otel import OtelSpanProcessor
        from opentelemetry.sdk.trace import TracerProvider

        wrapper = self._mlflow.provider
        if self._mlflow.MLFLOW_USE_DEFAULT_TRACER_PROVIDER.get():
            # not yet made: MLflow would open the store that its variables name, or make one
            wrapper.once.do_once(self._make_provider)
        else:
            wrapper.get_or_init_tracer(__name__)
        current = wrapper.get()
        if not isinstance(current, TracerProvider):
            return  # tracing is disabled
        self._provider = current
        if not self._is_new:
            active: Any = current._active_span_processor
            kinds = (BaseMlflowSpanProcessor, OtelSpanProcessor)
            self._theirs = [p for p in active._span_processors if isinstance(p, kinds)]
            others = [p for p in active._span_processors if not isinstance(p, kinds)]
            active._span_processors = (*others, self)

    def _make_provider(self) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        self._is_new = True
        sampler = self._mlflow._get_trace_sampler()
        provider = TracerProvider(resource=Resource({}), sampler=sampler)
        provider.add_span_processor(cast("SpanProcessor", self))
        self._mlflow.provider.set(provider)

    def remove(self) -> None:
        """Give the processors their place back."""
        if self._provider is None:
            return
        wrapper = self._mlflow.provider
        active: Any = self._provider._active_span_processor
        others = [p for p in active._span_processors if p is not self]
        active._span_processors = (*others, *(self._theirs or ()))
        if self._is_new and wrapper.get() is self._provider:
            wrapper.reset()  # the next trace initialises it as if we had not been
        self._provider = None

    def flush(self) -> None:
        """Wait until the evaluation's traces are sent."""
        from mlflow.tracing.export.utils import flush_exporter

        self._ours.force_flush()
        flush_exporter(self._ours.span_exporter)

    # --- a span processor ----------------------------------------------------------------------

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """A span starts: if it is a trace's first, its context says whose the trace is."""
        from mlflow.tracing.constant import SpanAttributeKey

        trace_id = span.get_span_context().trace_id
        if span.parent is None and _here.get() is self:
            self._traces.add(trace_id)
            span.set_attribute(SpanAttributeKey.EXPERIMENT_ID, json.dumps(self._experiment_id))
        for processor in self._processors(trace_id):
            processor.on_start(span, parent_context)

    def _on_ending(self, span: Span) -> None:
        for processor in self._processors(span.get_span_context().trace_id):
            processor._on_ending(span)

    def on_end(self, span: ReadableSpan) -> None:
        """A span has ended."""
        for processor in self._processors(span.context.trace_id):
            processor.on_end(span)

    def shutdown(self) -> None:
        """Shut down all."""
        for processor in (self._ours, *(self._theirs or ())):
            processor.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Flush all."""
        flushed = [p.force_flush(timeout_millis) for p in (self._ours, *(self._theirs or ()))]
        return all(flushed)

    def _processors(self, trace_id: int) -> Sequence[Any]:
        if trace_id in self._traces:
            return (self._ours,)
        if self._theirs is None:
            self._theirs = self._mlflow._get_span_processors()
        return self._theirs


def _artifacts_at(uri: str, trace_info: TraceInfo) -> Any:
    """Where a trace's attachments are kept: MLflow would ask the server of its own variables."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.tracing.utils.artifact_utils import get_artifact_uri_for_trace

    return get_artifact_repository(get_artifact_uri_for_trace(trace_info), tracking_uri=uri)


_here: ContextVar[_Route | None] = ContextVar("inspect_mlflow_traces", default=None)
