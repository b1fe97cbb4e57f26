"""Tests of inspect_mlflow and otel_bridge."""
