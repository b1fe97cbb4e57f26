"""What an import pulls in."""

import subprocess
import sys

from tests.support.environment import clean_environ


def test_the_registry_is_light() -> None:
    program = (
        "import inspect_mlflow._registry, sys; "
        "print('mlflow' in sys.modules, 'opentelemetry.sdk' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=clean_environ(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["False", "False"]
