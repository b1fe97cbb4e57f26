"""Whether a hook is on: from the environment, cached, cheap to ask, and never raising.

Inspect asks before every hook call, so the answer for a process that doesn't use us must cost
next to nothing: it looks at one or two variables and imports nothing.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from inspect_mlflow.config import MLflowSettings

logger = logging.getLogger("inspect_mlflow")

_SWITCHES: Final = {
    "tracking": ("INSPECT_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI"),
    "tracing": ("INSPECT_MLFLOW_TRACING_ENABLED", "MLFLOW_INSPECT_TRACING"),
}
_OTEL: Final = (
    "OTEL_SDK_DISABLED",
    "OTEL_TRACES_EXPORTER",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
)


@dataclass(frozen=True, slots=True)
class Activation:
    """The settings, and which hooks they turn on."""

    settings: MLflowSettings
    tracking: bool
    tracing: bool


_cache: tuple[tuple[str | None, ...], Activation] | None = None


def is_on(hook: Literal["tracking", "tracing"]) -> bool:
    """Whether the environment turns a hook on."""
    preferred, usual = _SWITCHES[hook]
    if not os.environ.get(usual) and not os.environ.get(preferred):
        return False
    return bool(getattr(activation(), hook))


def activation() -> Activation:
    """The activation of the environment as it is; each problem in it is logged once."""
    global _cache
    from inspect_mlflow.config import variables

    names = (*variables(), *_OTEL)
    values = tuple(map(os.environ.get, names))
    if _cache is None or _cache[0] != values:
        _cache = (values, _activate())
    return _cache[1]


def _activate() -> Activation:
    from inspect_mlflow.config import NO_SPANS, is_databricks, load_settings
    from otel_bridge.otlp import otlp_target, sdk_disabled

    settings, problems = load_settings()
    for problem in problems:
        off = " and ".join(problem.hooks)
        _say("%s. MLflow %s stays off for this evaluation.", problem.message, off)
    broken = {hook for problem in problems for hook in problem.hooks}
    tracing = settings.tracing_enabled and "tracing" not in broken and not sdk_disabled()
    try:
        otlp = otlp_target()
    except ValueError as error:
        otlp = None
        if tracing:
            _say("%s. MLflow tracing stays off for this evaluation.", error)
            tracing = False
    if tracing and is_databricks(settings.tracking_uri or ""):
        _say("%s", NO_SPANS)
        tracing = otlp is not None
    elif tracing and otlp is None and settings.tracking_uri is None:
        _say(
            "Tracing is on, but there is nowhere to send spans: set MLFLOW_TRACKING_URI "
            "or OTEL_EXPORTER_OTLP_ENDPOINT."
        )
        tracing = False
    return Activation(
        settings,
        tracking=settings.tracking_uri is not None and "tracking" not in broken,
        tracing=tracing,
    )


def _say(message: str, *args: object) -> None:
    """Warn; but not inside a sample, whose hooks would be given the warning as an event."""
    from inspect_mlflow.session import running_sample

    logger.log(logging.WARNING if running_sample() is None else logging.DEBUG, message, *args)
