"""Inspect AI evaluations in MLflow."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspect_mlflow.comparison import (
        ComparisonResult,
        MetricComparison,
        SampleComparison,
        compare_evals,
    )
    from inspect_mlflow.scout import import_mlflow_traces
    from inspect_mlflow.tracing import MlflowTracingHooks
    from inspect_mlflow.tracking import MlflowTrackingHooks

__all__ = [
    "ComparisonResult",
    "MetricComparison",
    "MlflowTracingHooks",
    "MlflowTrackingHooks",
    "SampleComparison",
    "compare_evals",
    "import_mlflow_traces",
]

_HOMES = {
    "ComparisonResult": "inspect_mlflow.comparison",
    "MetricComparison": "inspect_mlflow.comparison",
    "SampleComparison": "inspect_mlflow.comparison",
    "compare_evals": "inspect_mlflow.comparison",
    "MlflowTracingHooks": "inspect_mlflow.tracing",
    "import_mlflow_traces": "inspect_mlflow.scout",
    "MlflowTrackingHooks": "inspect_mlflow.tracking",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
