"""Entry point of the group `inspect_ai`: registers the two hooks and imports nothing heavy.

At the end of a run Inspect calls them in this order, one after the other: while the first waits
for the delivery of spans, all but the last of the runs' updates is written.
"""

from inspect_ai.hooks import hooks

from inspect_mlflow.tracing import MlflowTracingHooks
from inspect_mlflow.tracking import MlflowTrackingHooks

hooks(name="mlflow_tracing", description="Traces over OpenTelemetry to MLflow and OTLP.")(
    MlflowTracingHooks
)
hooks(name="mlflow_tracking", description="Runs, metrics and artifacts in MLflow.")(
    MlflowTrackingHooks
)
