"""Artifacts of a task's run: tables of a finished log, and the log itself."""

from inspect_mlflow.artifacts.manager import ArtifactManager

__all__ = ["ArtifactManager"]
