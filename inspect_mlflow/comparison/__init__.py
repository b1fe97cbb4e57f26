"""Compare two evaluations of the same samples, with statistics that hold up.

Importing this package is light; scipy and Inspect are loaded with `compare_evals`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from inspect_mlflow.comparison.results import (
    AlignmentCounts,
    ComparisonResult,
    MetricComparison,
    SampleComparison,
    UsageComparison,
)

if TYPE_CHECKING:
    from inspect_mlflow.comparison.compare import ChangedContentError, compare_evals
    from inspect_mlflow.comparison.gates import GateResult, evaluate_gates
    from inspect_mlflow.comparison.loading import UnreadableLogError
    from inspect_mlflow.comparison.mlflow_run import log_comparison

__all__ = [
    "AlignmentCounts",
    "ChangedContentError",
    "ComparisonResult",
    "GateResult",
    "MetricComparison",
    "SampleComparison",
    "UnreadableLogError",
    "UsageComparison",
    "compare_evals",
    "evaluate_gates",
    "log_comparison",
]

_HOMES = {
    "ChangedContentError": "inspect_mlflow.comparison.compare",
    "GateResult": "inspect_mlflow.comparison.gates",
    "UnreadableLogError": "inspect_mlflow.comparison.loading",
    "compare_evals": "inspect_mlflow.comparison.compare",
    "evaluate_gates": "inspect_mlflow.comparison.gates",
    "log_comparison": "inspect_mlflow.comparison.mlflow_run",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for (PEP 562)."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
