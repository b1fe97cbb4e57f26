"""False positives and coverage of `compare_paired`, by simulation with the function itself.

    python -m tests.comparison.simulation --runs 20000 --jobs 2

Every simulated sample has a difficulty u ~ N(0, 1) that both runs share, each run adds its own
deviation v ~ N(0, 0.5) on that sample, which its epochs share, and every epoch its own draw:

- ``binary``: Bernoulli(logistic(shift + 1.5 u + v)), the score is 0 or 1;
- ``hard-binary``: the same three logits lower, so that few samples are ever right;
- ``ordinal``: 0.7 u + v + N(0, 0.7) cut at -1, -0.3, 0.3 and 1 into 0, 0.25, 0.5, 0.75 and 1;
- ``grades``: the same cut at -0.8 and 0.8 into 0, 0.5 and 1;
- ``continuous``: u + v + N(0, 1);
- ``skewed``: u + exponential(1) times exp(0.5 v), for both runs;
- ``mixed``: as ``continuous``, but a deterministic task: 7 of 10 samples never differ.

The effect shifts the candidate: by 0.8 logits (binary), 0.5 (the others).
"""

import argparse
import json
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from inspect_mlflow.comparison.statistics import (
    compare_paired,
    paired_differences,
    paired_t_interval,
)

Floats = npt.NDArray[np.float64]
Generator = Callable[[np.random.Generator, tuple[int, int, int], float], tuple[Floats, Floats]]

SIZES = (5, 10, 20, 50, 200)
EPOCHS = (1, 5)


@dataclass(frozen=True)
class Cell:
    """One row of the simulation: what was drawn, and how often the comparison erred."""

    generator: str
    effect: float
    n: int
    epochs: int
    runs: int
    true_delta: float
    significant: float
    """Share of runs with p < 0.05; under no effect, the false-positive rate."""
    coverage: float
    """Share of the given intervals that hold the true difference."""
    student_coverage: float
    """The same for Student's interval with one degree of freedom less than samples throughout,
    widened to 0 where the p-value asks for it."""
    given: float
    """Share of runs with an interval."""
    disagreements: int
    """Runs whose interval and p-value say different things about 0."""


def _latent(
    rng: np.random.Generator, shape: tuple[int, int, int], scale: float
) -> tuple[Floats, Floats]:
    """Shared difficulty plus each run's own deviation, for (runs, samples, epochs)."""
    runs, samples, _ = shape
    shared = scale * rng.standard_normal((runs, samples, 1))
    return tuple(shared + 0.5 * rng.standard_normal((runs, samples, 1)) for _ in "ab")  # type: ignore[return-value]


def _binary(base: float) -> Generator:
    def draw(
        rng: np.random.Generator, shape: tuple[int, int, int], effect: float
    ) -> tuple[Floats, Floats]:
        first, second = _latent(rng, shape, 1.5)
        sides = (first + base, second + base + 1.6 * effect)
        drawn = [(rng.random(shape) < 1 / (1 + np.exp(-side))).astype(float) for side in sides]
        return drawn[0], drawn[1]

    return draw


def _cut(cuts: Sequence[float]) -> Generator:
    def draw(
        rng: np.random.Generator, shape: tuple[int, int, int], effect: float
    ) -> tuple[Floats, Floats]:
        first, second = _latent(rng, shape, 0.7)
        sides = (first, second + effect)
        drawn = [
            np.digitize(side + 0.7 * rng.standard_normal(shape), cuts) / len(cuts) for side in sides
        ]
        return drawn[0], drawn[1]

    return draw


def _continuous(
    rng: np.random.Generator, shape: tuple[int, int, int], effect: float
) -> tuple[Floats, Floats]:
    first, second = _latent(rng, shape, 1.0)
    return (
        first + rng.standard_normal(shape),
        second + effect + rng.standard_normal(shape),
    )


def _skewed(
    rng: np.random.Generator, shape: tuple[int, int, int], effect: float
) -> tuple[Floats, Floats]:
    runs, samples, _ = shape
    shared = rng.standard_normal((runs, samples, 1))
    sides = [
        shared
        + rng.exponential(1.0, shape) * np.exp(0.25 * rng.standard_normal((runs, samples, 1)))
        for _ in "ab"
    ]
    return sides[0], sides[1] + effect


def _mixed(
    rng: np.random.Generator, shape: tuple[int, int, int], effect: float
) -> tuple[Floats, Floats]:
    first, second = _continuous(rng, shape, effect)
    same = rng.random((*shape[:2], 1)) < 0.7
    return first, np.where(same, first, second)


GENERATORS: dict[str, Generator] = {
    "binary": _binary(0.0),
    "hard-binary": _binary(-3.0),
    "ordinal": _cut((-1.0, -0.3, 0.3, 1.0)),
    "grades": _cut((-0.8, 0.8)),
    "continuous": _continuous,
    "skewed": _skewed,
    "mixed": _mixed,
}


def simulate(generator: str, effect: float, n: int, epochs: int, runs: int) -> Cell:
    """Run one cell; the seed follows from the cell, so that a cell can be repeated alone."""
    draw = GENERATORS[generator]
    seed = zlib.crc32(f"{generator}/{effect}/{n}/{epochs}".encode())
    rng = np.random.default_rng(seed)
    true_delta = 0.0
    if effect:
        first, second = draw(np.random.default_rng(1), (1, 4_000_000, 1), effect)
        true_delta = float((second - first).mean())
    significant = covered = given = disagreements = student = 0
    known: dict[tuple[int, int], tuple[float, tuple[float, float] | None]] = {}
    block = max(1, min(runs, 2_000_000 // (n * epochs)))
    for start in range(0, runs, block):
        baseline, candidate = (
            side.mean(axis=2) for side in draw(rng, (min(block, runs - start), n, epochs), effect)
        )
        for one, other in zip(baseline, candidate, strict=True):
            binary = bool(np.isin(one, (0, 1)).all() and np.isin(other, (0, 1)).all())
            # An exact McNemar comparison depends on nothing but its two counts.
            key = (int((other > one).sum()), int((other < one).sum()))
            if binary and key in known:
                p_value, interval = known[key]
            else:
                found = compare_paired(one, other)
                p_value, interval = found.p_value, found.interval
                if binary:
                    known[key] = p_value, interval
            significant += p_value < 0.05
            if interval is not None:
                given += 1
                plain = interval
                if not binary:
                    student_interval = paired_t_interval(paired_differences(one, other))
                    assert student_interval is not None
                    plain = student_interval
                    if p_value >= 0.05:
                        plain = min(plain[0], 0.0), max(plain[1], 0.0)
                student += plain[0] <= true_delta <= plain[1]
                covered += interval[0] <= true_delta <= interval[1]
                disagreements += (interval[0] > 0 or interval[1] < 0) != (p_value < 0.05)
    return Cell(
        generator=generator,
        effect=effect,
        n=n,
        epochs=epochs,
        runs=runs,
        true_delta=true_delta,
        significant=significant / runs,
        coverage=covered / given if given else float("nan"),
        student_coverage=student / given if given else float("nan"),
        given=given / runs,
        disagreements=disagreements,
    )


def _simulate(arguments: tuple[str, float, int, int, int]) -> Cell:
    return simulate(*arguments)


def main() -> None:
    """Simulate all cells and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--effects", type=float, nargs="*", default=[0.0, 0.5])
    parser.add_argument("--generators", nargs="*", default=list(GENERATORS))
    options = parser.parse_args()
    cells = [
        (generator, effect, n, epochs, options.runs)
        for effect in options.effects
        for generator in options.generators
        for epochs in EPOCHS
        for n in SIZES
    ]
    results = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for cell in pool.map(_simulate, cells):
            print(json.dumps(asdict(cell)), flush=True)
            results.append(cell)
    null = [cell for cell in results if not cell.effect]
    if null:
        worst = max(null, key=lambda cell: cell.significant)
        print(f"highest false-positive rate: {worst.significant:.4f} ({worst})")
    given = [cell for cell in results if cell.given]
    least = min(given, key=lambda cell: cell.coverage)
    print(f"lowest coverage: {least.coverage:.4f} ({least})")
    print(f"disagreements: {sum(cell.disagreements for cell in results)}")


if __name__ == "__main__":
    main()
