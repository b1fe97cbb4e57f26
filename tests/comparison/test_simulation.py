"""A short form of the simulation; `python -m tests.comparison.simulation` runs the long one."""

import math

import pytest

from tests.comparison.simulation import EPOCHS, GENERATORS, simulate

RUNS = 300


@pytest.mark.parametrize("epochs", EPOCHS)
@pytest.mark.parametrize("generator", GENERATORS)
def test_false_positives_and_coverage(generator: str, epochs: int) -> None:
    # Limits lie three standard errors beyond 0.06 and 0.93, for this number of runs.
    slack = 3 * math.sqrt(0.06 * 0.94 / RUNS)
    for n in (5, 20):
        for effect in (0.0, 0.5):
            cell = simulate(generator, effect, n, epochs, RUNS)
            assert cell.disagreements == 0
            assert cell.coverage >= 0.93 - slack, cell
            if not effect:
                assert cell.significant <= 0.06 + slack, cell
