"""Entry point of the group `inspect_ai`: registers the two hooks and imports nothing heavy."""

from inspect_ai.hooks import hooks

from inspect_mlflow.tracing import MlflowTracingHooks
from inspect_mlflow.tracking import MlflowTrackingHooks

hooks(name="mlflow_tracking", description="Runs, metrics and artifacts in MLflow.")(
    MlflowTrackingHooks
)
hooks(name="mlflow_tracing", description="Traces over OpenTelemetry to MLflow and OTLP.")(
    MlflowTracingHooks
)
