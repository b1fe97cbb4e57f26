"""The settings, read from the environment."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from otel_bridge.values import Capture

HookName = Literal["tracking", "tracing"]
_BOTH: Final[tuple[HookName, ...]] = ("tracking", "tracing")
NO_SPANS: Final = "MLflow on Databricks takes no spans from here: it gets runs, but no traces."


def _env(*names: str) -> AliasChoices:
    """The variables of a setting; the first that is set wins."""
    return AliasChoices(*names)


class MLflowSettings(BaseSettings):
    """What the two hooks do, from the environment or from keyword arguments.

    Every setting has a variable under the prefix `INSPECT_MLFLOW_`; some also have one of
    MLflow's own or an older one, which the prefixed variable overrules.

    Raises
    ------
    pydantic.ValidationError
        If a value is not one of those accepted. `load_settings` turns that into messages.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True)

    tracking_uri: str | None = Field(
        None, validation_alias=_env("INSPECT_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI")
    )
    """Where MLflow is: `http(s)://…`, or a database such as `sqlite:///mlflow.db`."""
    experiment_name: str = Field(
        "inspect_ai",
        max_length=500,
        validation_alias=_env("INSPECT_MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_NAME"),
    )
    """The experiment; created if there is none of that name."""
    experiment_id: str | None = Field(None, validation_alias=_env("MLFLOW_EXPERIMENT_ID"))
    """The experiment by its id, instead of its name."""
    tracing_enabled: bool = Field(
        False, validation_alias=_env("INSPECT_MLFLOW_TRACING_ENABLED", "MLFLOW_INSPECT_TRACING")
    )
    """Turns the tracing hook on."""
    log_artifacts: bool = Field(
        True,
        validation_alias=_env("INSPECT_MLFLOW_LOG_ARTIFACTS", "MLFLOW_INSPECT_LOG_ARTIFACTS"),
    )
    """Tables and logs as artifacts of the runs."""
    autolog_enabled: bool = Field(True, validation_alias=_env("INSPECT_MLFLOW_AUTOLOG_ENABLED"))
    """MLflow's autologging of model providers, for the time of an evaluation."""
    autolog_models: Annotated[tuple[str, ...], NoDecode] = Field(
        ("openai", "anthropic", "langchain", "litellm"),
        validation_alias=_env("INSPECT_MLFLOW_AUTOLOG_MODELS"),
    )
    """Which providers: comma-separated, or a JSON array."""
    trace_scope: Literal["auto", "run", "sample"] = Field(
        "auto", validation_alias=_env("INSPECT_MLFLOW_TRACE_SCOPE")
    )
    """`run`: one trace per run. `sample`: one per sample. `auto`: by the size of the task."""
    capture_media: bool = Field(False, validation_alias=_env("INSPECT_MLFLOW_CAPTURE_MEDIA"))
    """Inline images, audio and files in spans, instead of their type, size and hash."""
    max_value_bytes: int = Field(
        1_000_000, ge=1_000, validation_alias=_env("INSPECT_MLFLOW_MAX_VALUE_BYTES")
    )
    """Larger values are cut, inside their JSON. Bytes."""
    history_bytes: int = Field(64_000, ge=0, validation_alias=_env("INSPECT_MLFLOW_HISTORY_BYTES"))
    """How much earlier conversation a model span repeats. Bytes."""
    flush_timeout: float = Field(
        60, ge=0, allow_inf_nan=False, validation_alias=_env("INSPECT_MLFLOW_FLUSH_TIMEOUT")
    )
    """How long an evaluation may wait at its end for what is still to be sent. Seconds."""
    capture_content: bool = Field(
        True, validation_alias=_env("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT")
    )
    """Prompts, completions, tool arguments and results in spans and assessments."""

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Arguments have the names of fields, which are no names of variables."""
        given = {name: value for name, value in values.items() if name in cls.model_fields}
        found = {name: value for name, value in values.items() if name not in given}
        return found | {_variables(name)[0]: value for name, value in given.items()}

    @field_validator("tracking_uri")
    @classmethod
    def _known_store(cls, uri: str | None) -> str | None:
        if uri is None or re.match(r"(https?|[a-z0-9+]*sql[a-z0-9+]*)://.", uri):
            return uri
        if is_databricks(uri):
            return uri
        raise ValueError("accepted are http(s)://… and databases such as sqlite:///mlflow.db")

    @field_validator("experiment_id")
    @classmethod
    def _unless_ours_is_named(cls, experiment_id: str | None) -> str | None:
        """A name under the package's prefix wins over the id that is meant for MLflow."""
        from_mlflow = experiment_id == os.environ.get("MLFLOW_EXPERIMENT_ID")
        named = os.environ.get("INSPECT_MLFLOW_EXPERIMENT_NAME")
        return None if from_mlflow and named else experiment_id

    @field_validator("autolog_models", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        text = value.strip()
        if text.startswith("["):
            try:
                return tuple(json.loads(text))
            except json.JSONDecodeError as error:
                raise ValueError("accepted are comma-separated names or a JSON array") from error
        return tuple(name.strip() for name in text.split(",") if name.strip())

    @field_validator("trace_scope", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("capture_content", mode="before")
    @classmethod
    def _capture(cls, value: Any) -> Any:
        """The convention's modes. Spans carry content in the modes that put it on spans."""
        modes = {"no_content": False, "event_only": False}
        modes |= {"span_only": True, "span_and_event": True}
        return modes.get(value.strip().lower(), value) if isinstance(value, str) else value

    @property
    def capture(self) -> Capture:
        """What of the content spans carry."""
        return Capture(
            content=self.capture_content,
            media=self.capture_media,
            max_value_bytes=self.max_value_bytes,
            history_bytes=self.history_bytes,
        )

    @property
    def experiment(self) -> str:
        """The experiment, as messages say it."""
        return self.experiment_id or self.experiment_name


@dataclass(frozen=True, slots=True)
class Problem:
    """A value that is not accepted, and the hooks that stay off because of it."""

    hooks: tuple[HookName, ...]
    message: str


_CONCERNS: Final[Mapping[str, tuple[HookName, ...]]] = {
    "tracing_enabled": ("tracing",),
    "trace_scope": ("tracing",),
    "capture_media": ("tracing",),
    "max_value_bytes": ("tracing",),
    "history_bytes": ("tracing",),
    "log_artifacts": ("tracking",),
    "autolog_enabled": ("tracking",),
    "autolog_models": ("tracking",),
}
_ACCEPTED: Final[Mapping[str, str]] = {
    "bool": "true or false (also 1/0, yes/no, on/off)",
    "int": "a whole number",
    "float": "a number of seconds",
}


def variables() -> tuple[str, ...]:
    """The names of all variables that settings are read from."""
    return tuple(name for field in MLflowSettings.model_fields for name in _variables(field))


def load_settings(**overrides: Any) -> tuple[MLflowSettings, list[Problem]]:
    """Settings from the environment; a bad value is left at its default and named.

    `overrides` win over the environment (by field name); of the experiment's name and id, the one
    that is given. Never raises for a value of the environment.
    """
    if overrides.get("experiment_name"):
        overrides.setdefault("experiment_id", None)
    try:
        return MLflowSettings(**overrides), []
    except ValidationError as error:
        problems: dict[str, Problem] = {}
        for detail in error.errors():
            field = _field(str(detail["loc"][0]))
            if field is None or field in problems:
                continue
            problems[field] = _problem(field, detail, given=field in overrides)
        defaults = {name: MLflowSettings.model_fields[name].default for name in problems}
        return MLflowSettings(**{**overrides, **defaults}), list(problems.values())


def _variables(field: str) -> tuple[str, ...]:
    alias = MLflowSettings.model_fields[field].validation_alias
    assert isinstance(alias, AliasChoices)
    return tuple(str(choice) for choice in alias.choices)


def _field(location: str) -> str | None:
    for name in MLflowSettings.model_fields:
        if location in _variables(name):
            return name
    return None


def _problem(field: str, detail: Any, *, given: bool) -> Problem:
    """`given`: by whoever calls, and not by the environment."""
    variables = [] if given else [v for v in _variables(field) if os.environ.get(v)]
    name = field if given else (variables or _variables(field))[0]
    value = redact(str(os.environ[name] if variables else detail["input"]))
    kind = str(detail["type"]).partition("_")[0]
    accepted = f"accepted: {_ACCEPTED[kind]}" if kind in _ACCEPTED else ""
    message = accepted or str(detail["msg"]).removeprefix("Value error, ")
    if field == "capture_content":
        message = "accepted: NO_CONTENT, SPAN_ONLY, EVENT_ONLY, SPAN_AND_EVENT, true, false"
    return Problem(_CONCERNS.get(field, _BOTH), f"{name}={value!r}: {message}")


def is_databricks(uri: str) -> bool:
    """Whether that is MLflow on Databricks. It takes runs, but no spans as they are sent here."""
    return uri == "databricks" or uri.startswith(("databricks://", "databricks-uc"))


def redact(uri: str) -> str:
    """An address without the passwords and tokens in it."""
    uri = re.sub(r"(://[^/@:]*):(?:[^/]*|(?!\d+/)[^@]*)@", r"\1:***@", uri)
    uri = re.sub(r"^(https?://)[^/@:]+@", r"\1***@", uri)
    return re.sub(r"(?i)([?&][^=&#]*(?:password|token|secret|key)[^=&#]*=)[^&#]*", r"\1***", uri)
