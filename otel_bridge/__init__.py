"""Inspect AI evaluations as OpenTelemetry traces. Knows nothing of MLflow."""
