"""Benchmarks: `python -m tests.benchmarks` prints a table of ratios measured in one run."""
