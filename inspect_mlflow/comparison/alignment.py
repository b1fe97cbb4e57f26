"""Pairs the samples of two evaluations and turns their scores into numbers: pure functions."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from inspect_ai.scorer import Value

from inspect_mlflow.comparison.loading import LoadedEval, SampleRecord

__all__ = [
    "Alignment",
    "Column",
    "ScoreName",
    "align",
    "number",
    "score_columns",
]

Floats = npt.NDArray[np.float64]
Key = tuple[str, int]
ToFloat = Callable[[Value], float | None]

_LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
_WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}


@dataclass(frozen=True, order=True)
class ScoreName:
    """What is compared: a scorer, or one key of a scorer whose scores are dicts."""

    scorer: str
    key: str | None = None

    @property
    def label(self) -> str:
        """``scorer`` or ``scorer/key``."""
        return self.scorer if self.key is None else f"{self.scorer}/{self.key}"


@dataclass(frozen=True)
class Column:
    """One score of one run: a number or NaN per aligned row, and what was left out."""

    values: Floats
    unscored: int
    """Sample executions of the run without a usable number, wherever they are."""


@dataclass(frozen=True)
class Alignment:
    """The sample executions of two runs, one row per (id, epoch), in a fixed order.

    Parameters
    ----------
    keys
        Id as text, and epoch.
    baseline, candidate
        Record of each row, None where the run has none.
    groups
        Index of each row's id; epochs of one sample share it.
    group_count
        Number of ids.
    """

    keys: Sequence[Key]
    baseline: Sequence[SampleRecord | None]
    candidate: Sequence[SampleRecord | None]
    groups: npt.NDArray[np.intp]
    group_count: int
    aligned: int = field(default=0)
    missing: int = field(default=0)
    new: int = field(default=0)


def align(baseline: LoadedEval, candidate: LoadedEval) -> Alignment:
    """Pair two runs' samples by ``(str(id), epoch)``.

    Parameters
    ----------
    baseline, candidate
        Loaded evaluations.

    Returns
    -------
    Alignment
        Rows sorted by id (whole numbers by value, then text) and epoch.

    Raises
    ------
    ValueError
        A log has no samples or has one twice, or the logs have no sample id in common.
    """
    names, other_names = _names(baseline), _names(candidate)
    ids, other_ids = set(names), set(other_names)
    if ids.isdisjoint(other_ids):
        raise ValueError(
            f"no sample in common: {baseline.name!r} has ids {_some(ids)}, "
            f"{candidate.name!r} has ids {_some(other_ids)}"
        )
    order = sorted(ids | other_ids, key=_natural)
    left: list[SampleRecord | None]
    right: list[SampleRecord | None]
    sizes = len(baseline.samples), len(candidate.samples)
    if (len(ids), len(other_ids)) == sizes and _first_epochs(baseline, candidate):
        # By far the most common case, and texts are faster keys than pairs.
        by_name = dict(zip(names, baseline.samples, strict=True))
        other_by_name = dict(zip(other_names, candidate.samples, strict=True))
        left = [by_name.get(name) for name in order]
        right = [other_by_name.get(name) for name in order]
        keys = [(name, 1) for name in order]
        groups = np.arange(len(order), dtype=np.intp)
    else:
        first, second = _index(baseline, names), _index(candidate, other_names)
        ranks = {name: rank for rank, name in enumerate(order)}
        ranked = sorted((ranks[key[0]], key[1], key) for key in first.keys() | second.keys())
        keys = [key for _, _, key in ranked]
        left = [first.get(key) for key in keys]
        right = [second.get(key) for key in keys]
        groups = np.array([rank for rank, _, _ in ranked], dtype=np.intp)
    both = sizes[0] + sizes[1] - len(keys)
    return Alignment(
        keys=keys,
        baseline=left,
        candidate=right,
        groups=groups,
        group_count=len(order),
        aligned=both,
        missing=sizes[0] - both,
        new=sizes[1] - both,
    )


def _names(run: LoadedEval) -> list[str]:
    if not run.samples:
        reason = "the sample filter left none" if run.filtered else "it may hold only a header"
        raise ValueError(f"{run.name!r} has no samples to compare ({reason})")
    return [str(record.id) for record in run.samples]


def _first_epochs(*runs: LoadedEval) -> bool:
    return all(record.epoch == 1 for run in runs for record in run.samples)


def _index(run: LoadedEval, names: Sequence[str]) -> dict[Key, SampleRecord]:
    keys = [(name, record.epoch) for name, record in zip(names, run.samples, strict=True)]
    index = dict(zip(keys, run.samples, strict=True))
    if len(index) != len(keys):
        twice = [
            f"{key[0]!r} (epoch {key[1]})" for key, count in Counter(keys).items() if count > 1
        ]
        more = f" and {len(twice) - 5} more" if len(twice) > 5 else ""
        raise ValueError(f"duplicate sample ids in {run.name!r}: {', '.join(twice[:5])}{more}")
    return index


def score_columns(records: Iterable[SampleRecord]) -> list[ScoreName]:
    """List the scores that a run's samples carry; a dict score counts once per key.

    Parameters
    ----------
    records
        Samples of one run.

    Returns
    -------
    list of ScoreName
        In order of appearance.
    """
    seen: dict[ScoreName, None] = {}
    plain: set[str] = set()
    dicts: dict[str, set[str]] = {}
    for record in records:
        for name, score in record.scores.items():
            value = score.value
            if type(value) is dict:
                known = dicts.setdefault(name, set())
                if not known.issuperset(value):
                    known.update(value)
                    seen.update(dict.fromkeys(ScoreName(name, key) for key in value))
            elif name not in plain:
                plain.add(name)
                seen[ScoreName(name)] = None
    # An unscored sample of a dict scorer carries a plain NaN: no score of its own.
    return [score for score in seen if score.key is not None or score.scorer not in dicts]


def column(
    records: Sequence[SampleRecord | None],
    score: ScoreName,
    to_float: ToFloat | None,
    unmapped: Counter[str],
) -> Column:
    """Read one score of one run as numbers.

    Parameters
    ----------
    records
        One entry per aligned row.
    score
        The scorer, or its key.
    to_float
        Converts a score value, None for one that is no number; `number` by default.
    unmapped
        Counts the values that mean nothing as a number.

    Returns
    -------
    Column
        NaN for absent, errored, missing, NaN, infinite and unmapped scores.
    """
    name, key = score.scorer, score.key
    memo: dict[Any, float] = {}
    values: list[float] = []
    present = 0
    nan = math.nan
    for record in records:
        if record is None:
            values.append(nan)
            continue
        present += 1
        found = None if record.errored else record.scores.get(name)
        value: Any = None if found is None else found.value
        if key is not None:
            value = value.get(key) if type(value) is dict else None
        if value is None:
            values.append(nan)
            continue
        if to_float is None:
            kind = type(value)
            if kind is float:
                if math.isinf(value):
                    unmapped[repr(value)] += 1
                    value = nan
                values.append(value)
                continue
            if kind is str and value in memo:
                result = memo[value]
                if result != result:
                    unmapped[repr(value)] += 1
                values.append(result)
                continue
        converted = (to_float or number)(value)
        result = nan if converted is None else float(converted)
        if not math.isfinite(result):
            if not (isinstance(value, float) and math.isnan(value)):
                unmapped[_short(value)] += 1
            result = nan
        if type(value) is str:
            memo[value] = result
        values.append(result)
    array = np.array(values, dtype=np.float64)
    return Column(array, present - int(np.isfinite(array).sum()))


def number(value: Value) -> float | None:
    """Read a score value as a number, as Inspect's ``value_to_float()`` does where that is defined.

    Parameters
    ----------
    value
        Score value.

    Returns
    -------
    float or None
        C, P, I and N as 1, 0.5, 0 and 0; yes/true and no/false as 1 and 0; numbers, booleans and
        texts that spell a finite number as that number; None for anything else.

    Examples
    --------
    >>> number("C"), number("0.7"), number(True), number("pass")
    (1.0, 0.7, 1.0, None)
    """
    if isinstance(value, bool | int | float):
        return _finite(value)
    if not isinstance(value, str):
        return None
    if value in _LETTERS:
        return _LETTERS[value]
    lowered = value.lower()
    return _WORDS[lowered] if lowered in _WORDS else _finite(value)


def _finite(value: str | float) -> float | None:
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def group_means(values: Floats, groups: npt.NDArray[np.intp], count: int) -> Floats:
    """Average the epochs of every id, leaving unscored ones out.

    Parameters
    ----------
    values
        One number or NaN per row.
    groups
        Index of each row's id.
    count
        Number of ids.

    Returns
    -------
    numpy.ndarray
        One mean per id, NaN for an id without any number.
    """
    scored = np.isfinite(values)
    sums = np.bincount(groups[scored], weights=values[scored], minlength=count)
    sizes = np.bincount(groups[scored], minlength=count)
    with np.errstate(invalid="ignore"):
        means: Floats = sums / sizes
    return means


def _natural(name: str) -> tuple[int, int, str]:
    # Inspect keeps "1" and "01" apart, so the text decides between equal numbers. int() takes
    # more than ASCII digits, and is slow on very long ones.
    if name.isascii() and name.isdigit() and len(name) < 19:
        return 0, int(name), name
    return 1, 0, name


def _some(ids: Iterable[str]) -> str:
    chosen = sorted(ids, key=_natural)
    more = ", …" if len(chosen) > 3 else ""
    return ", ".join(repr(name) for name in chosen[:3]) + more


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
