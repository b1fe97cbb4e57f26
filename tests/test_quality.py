"""The house rules that tools can check: style, types, and what an import pulls in."""

import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

REGISTRY_HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pypi", "python", "org"),
        ("files", "pythonhosted", "org"),
        ("anaconda", "org"),
        ("proxy", "golang", "org"),
        ("sum", "golang", "org"),
        ("registry", "npmjs", "org"),
        ("crates", "io"),
    )
)
"""Hosts no file may name, this one included: the registry is the machine's affair."""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def expect_clean(finished: subprocess.CompletedProcess[str], remedy: str) -> None:
    if finished.returncode:
        pytest.fail(
            f"{' '.join(finished.args[2:])} found something; {remedy}\n"
            f"{finished.stdout}{finished.stderr}",
            pytrace=False,
        )


def test_ruff_check() -> None:
    expect_clean(run(sys.executable, "-m", "ruff", "check", "."), "try ruff check --fix.")


def test_ruff_format() -> None:
    expect_clean(run(sys.executable, "-m", "ruff", "format", "--check", "."), "run ruff format.")


@pytest.mark.timeout(900)
def test_mypy() -> None:
    expect_clean(run(sys.executable, "-m", "mypy"), "its settings are in pyproject.toml.")


def tracked_files() -> list[Path]:
    listed = run("git", "ls-files", "-z")
    assert listed.returncode == 0, f"git ls-files failed: {listed.stderr}"
    paths = [REPOSITORY / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_no_file_names_a_package_registry() -> None:
    named = [
        f"{path.relative_to(REPOSITORY)} names {host}"
        for path in tracked_files()
        for host in REGISTRY_HOSTS
        if host.encode() in path.read_bytes()
    ]
    assert named == []


def modules_of(package: str) -> list[str]:
    """Name the package and all modules below it, from its files, without importing anything."""
    root = REPOSITORY / package
    names = [package]
    for folder in [root, *(path for path in root.rglob("*") if (path / "__init__.py").exists())]:
        prefix = ".".join(folder.relative_to(REPOSITORY).parts)
        names += [f"{prefix}.{module.name}" for module in pkgutil.iter_modules([str(folder)])]
    return sorted(set(names))


def loaded_after_importing(modules: list[str]) -> set[str]:
    """Import modules in a new interpreter and name all it has loaded then."""
    program = (
        "import importlib, json, sys\n"
        "for name in json.loads(sys.argv[1]): importlib.import_module(name)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program, json.dumps(modules)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, f"importing {modules} failed:\n{finished.stderr}"
    return set(json.loads(finished.stdout.splitlines()[-1]))


def among(loaded: set[str], package: str) -> list[str]:
    return sorted(name for name in loaded if name == package or name.startswith(f"{package}."))


def test_otel_bridge_knows_nothing_of_mlflow() -> None:
    modules = modules_of("otel_bridge")
    assert len(modules) > 1
    loaded = loaded_after_importing(modules)
    assert set(modules) <= loaded
    assert among(loaded, "mlflow") == []
    assert among(loaded, "inspect_mlflow") == []


@pytest.mark.parametrize("module", ["inspect_mlflow", "inspect_mlflow._registry"])
def test_registering_the_hooks_loads_nothing_heavy(module: str) -> None:
    loaded = loaded_after_importing([module])
    for heavy in ("mlflow", "opentelemetry.sdk", "scipy", "pandas", "inspect_scout"):
        assert among(loaded, heavy) == [], f"{module} pulls in {heavy}"
