#!/bin/sh
# The same spans to MLflow and to Jaeger (or any other OTLP endpoint), with the same ids.
#   mlflow server --port 5000        in one terminal
#   jaeger                           in another; it takes OTLP on 4317 (grpc) and 4318 (http)
# Arguments go to `inspect eval`, e.g. --model openai/gpt-4o; without any, a mock model answers.
set -eu
export MLFLOW_TRACKING_URI="${MLFLOW_TRACKING_URI:-http://localhost:5000}"
export MLFLOW_INSPECT_TRACING=true
export OTEL_EXPORTER_OTLP_ENDPOINT="${OTEL_EXPORTER_OTLP_ENDPOINT:-http://localhost:4318}"
cd "$(dirname "$0")"
if [ $# -eq 0 ]; then set -- -T mock=true; fi
exec inspect eval quickstart.py "$@"
