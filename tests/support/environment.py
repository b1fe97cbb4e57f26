"""The environment that tests and the processes they start see."""

import os
from collections.abc import Mapping

FOREIGN_PREFIXES = ("MLFLOW_", "OTEL_", "INSPECT_")
"""Variables that would make a test depend on the machine it runs on."""


def clean_environ(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give the caller's environment without MLFLOW_*, OTEL_* and INSPECT_*, plus `extra`.

    Proxies are told to leave loopback addresses alone.
    """
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_PREFIXES)
    }
    environ["NO_PROXY"] = environ["no_proxy"] = "127.0.0.1,localhost"
    environ.update(extra or {})
    return environ
