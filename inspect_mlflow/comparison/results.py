"""The outcome of a comparison: plain frozen dataclasses that need nothing but the standard library.

Scores are in the scorer's own units, p-values and shares are fractions, money is in US dollars and
times are in seconds.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "AlignmentCounts",
    "ComparisonResult",
    "Direction",
    "MetricComparison",
    "SampleComparison",
    "UsageComparison",
]

ROUNDING = 1e-12
"""Share of a number that is floating-point noise (0.1 + 0.2 against 0.3)."""

Direction = Literal["improved", "regressed", "unchanged", "new", "missing"]


@dataclass(frozen=True)
class SampleComparison:
    """One scorer's verdict on one sample execution (id and epoch) in both runs.

    Parameters
    ----------
    id
        Sample id as the log has it (the baseline's where both have the sample).
    epoch
        Epoch, from 1; 0 for the mean over several, as gates list it.
    scorer
        Scorer; for one key of a dict score ``scorer/key``.
    baseline_score, candidate_score
        Scores as numbers; None where the run has no usable score.
    delta
        Candidate - baseline; None unless both are scored.
    direction
        ``improved`` or ``regressed`` by more than the threshold, ``unchanged``, or scored by one
        run only: ``new`` (candidate) or ``missing`` (baseline).
    content_changed
        True when input, target or choices differ between the runs, None when not compared.
    note
        Why a score is missing: ``absent``, ``errored`` or ``unscored``.
    """

    id: int | str
    epoch: int
    scorer: str
    baseline_score: float | None
    candidate_score: float | None
    delta: float | None
    direction: Direction
    content_changed: bool | None = None
    note: str | None = None


@dataclass(frozen=True)
class MetricComparison:
    """One metric of one scorer in both runs.

    Parameters
    ----------
    name
        Metric, such as ``accuracy``.
    scorer
        Scorer; for one key of a dict score ``scorer/key``.
    baseline_value, candidate_value, delta
        Values over the samples scored in both runs, and candidate - baseline.
    relative_delta
        ``delta`` as a fraction of the baseline's size; None when that is 0.
    significant
        Whether ``p_value`` is below the significance level.
    p_value
        Two-sided; None where the metric is no mean of per-sample means.
    ci_lower, ci_upper
        Confidence interval of ``delta``; both None where none can be given.
    effect_size
        Cohen's d of the paired differences.
    method
        ``mcnemar-exact``, ``sign-flip-exact`` or ``paired-t``; None without a test.
    standard_error
        Standard error of ``delta``, clustered by sample id.
    p_value_holm
        ``p_value`` adjusted (Holm) for the number of scores tested in this comparison.
    hedges_g
        ``effect_size`` with the small-sample correction.
    odds_ratio
        Gained over lost samples, for scores of 0 and 1; None when none was lost.
    cohens_h
        Arcsine difference of the two proportions, for scores of 0 and 1.
    n
        Sample ids scored in both runs.
    gained, lost
        Ids whose mean rose, and fell.
    baseline_unscored, candidate_unscored
        Sample executions of either run without a usable score.
    baseline_interval, candidate_interval
        Confidence interval of each run's own value.
    baseline_logged, candidate_logged
        The values the logs themselves report, over all their samples.
    confidence
        Confidence level of the intervals.
    power
        Power that ``detectable_delta`` refers to.
    detectable_delta
        Smallest true difference found with that power, given ``n`` and the observed spread.
    reducer
        Epoch reducer of the metric, where the log names one.
    key
        Key of a dict score.
    note
        What a reader has to know about these values.
    """

    name: str
    scorer: str
    baseline_value: float
    candidate_value: float
    delta: float
    relative_delta: float | None
    significant: bool
    p_value: float | None
    ci_lower: float | None
    ci_upper: float | None
    effect_size: float | None = None
    method: str | None = None
    standard_error: float | None = None
    p_value_holm: float | None = None
    hedges_g: float | None = None
    odds_ratio: float | None = None
    cohens_h: float | None = None
    n: int | None = None
    gained: int | None = None
    lost: int | None = None
    baseline_unscored: int = 0
    candidate_unscored: int = 0
    baseline_interval: tuple[float, float] | None = None
    candidate_interval: tuple[float, float] | None = None
    baseline_logged: float | None = None
    candidate_logged: float | None = None
    confidence: float = 0.95
    power: float = 0.8
    detectable_delta: float | None = None
    reducer: str | None = None
    key: str | None = None
    note: str | None = None

    @property
    def label(self) -> str:
        """Scorer and metric, and the epoch reducer where it is not the mean."""
        label = f"{self.scorer} {self.name}"
        return label if self.reducer in (None, "mean") else f"{label} ({self.reducer})"

    def required_samples(self, difference: float, power: float | None = None) -> int | None:
        """Samples needed to find a true difference, at the spread seen here.

        Parameters
        ----------
        difference
            In the units of the metric; not 0.
        power
            Probability of a significant result; `power` of this comparison by default.

        Returns
        -------
        int or None
            Number of sample ids, each with as many epochs as here; None where the spread is
            unknown or 0.

        Raises
        ------
        ValueError
            ``difference`` is 0 or ``power`` is not between 0 and 1.
        """
        # scipy takes a second to import, and a result read from elsewhere rarely needs it.
        from inspect_mlflow.comparison.statistics import required_samples

        if not self.standard_error or not self.n:
            return None
        needed = required_samples(
            difference,
            self.standard_error**2 * self.n,
            significance=1 - self.confidence,
            power=self.power if power is None else power,
        )
        return math.ceil(needed)


@dataclass(frozen=True)
class UsageComparison:
    """Cost, tokens or time per sample execution in both runs.

    Parameters
    ----------
    name
        ``cost``, ``input_tokens``, ``output_tokens``, ``total_tokens``, ``total_time`` or
        ``working_time``.
    unit
        ``USD``, ``tokens`` or ``s``.
    baseline_total, candidate_total
        Sums over each run's own sample executions that report it and did not error.
    baseline_mean, candidate_mean, delta
        Means over the ids that report it in both runs, epochs averaged, and candidate - baseline.
    p_value, ci_lower, ci_upper
        Of ``delta``, paired by id.
    n
        Ids that report it in both runs.
    """

    name: str
    unit: str
    baseline_total: float
    candidate_total: float
    baseline_mean: float
    candidate_mean: float
    delta: float
    p_value: float | None
    ci_lower: float | None
    ci_upper: float | None
    n: int

    @property
    def relative_delta(self) -> float | None:
        """``delta`` as a fraction of the baseline; None when that is 0."""
        return self.delta / abs(self.baseline_mean) if self.baseline_mean else None


@dataclass(frozen=True)
class AlignmentCounts:
    """Sample executions (id and epoch) by where they are, whether scored or not."""

    aligned: int
    missing: int
    new: int
    baseline_errored: int = 0
    candidate_errored: int = 0
    baseline_invalidated: int = 0
    candidate_invalidated: int = 0


@dataclass(frozen=True)
class ComparisonResult:
    """Everything a comparison of two evaluations found.

    Parameters
    ----------
    baseline_log, candidate_log
        Where the logs were read from.
    baseline_task, candidate_task, baseline_model, candidate_model
        Task and model names.
    metrics
        One entry per metric, scorer and key.
    samples
        One entry per sample execution and scorer that at least one run scored.
    notes
        What differs between the runs besides the scores, in sentences.
    usage
        Cost, tokens and latency.
    counts
        Alignment of all sample executions; derived from ``samples`` when absent.
    changed_content
        Id and epoch of the samples whose input, target or choices differ.
    unverified_content
        Samples in both runs whose content is longer than a summary holds, so that only its
        beginning was compared.
    significance
        Level below which a p-value counts as significant.
    regression_threshold
        Change of a sample's score up to which it counts as unchanged.
    baseline_run_id, candidate_run_id
        MLflow runs the logs came from.
    baseline_eval_id, candidate_eval_id
        Inspect's ids of the evaluations.
    mlflow_run_id
        MLflow run this comparison was logged to.
    uncompared
        Scores of the baseline that could not be compared, and why.

    Examples
    --------
    >>> result = ComparisonResult("a.eval", "b.eval", "t", "t", "m1", "m2", metrics=[], samples=[])
    >>> result.aligned_count, result.win_rate
    (0, None)
    """

    baseline_log: str
    candidate_log: str
    baseline_task: str
    candidate_task: str
    baseline_model: str
    candidate_model: str
    metrics: list[MetricComparison] = field(default_factory=list)
    samples: list[SampleComparison] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    usage: list[UsageComparison] = field(default_factory=list)
    counts: AlignmentCounts | None = None
    changed_content: list[tuple[int | str, int]] = field(default_factory=list)
    unverified_content: int = 0
    significance: float = 0.05
    regression_threshold: float = 0.0
    baseline_run_id: str | None = None
    candidate_run_id: str | None = None
    baseline_eval_id: str | None = None
    candidate_eval_id: str | None = None
    mlflow_run_id: str | None = None
    uncompared: dict[str, str] = field(default_factory=dict)

    @property
    def aligned_count(self) -> int:
        """Sample executions (id and epoch) in both runs."""
        return self._counts.aligned

    @property
    def missing_count(self) -> int:
        """Sample executions in the baseline only."""
        return self._counts.missing

    @property
    def new_count(self) -> int:
        """Sample executions in the candidate only."""
        return self._counts.new

    @property
    def improvements(self) -> list[SampleComparison]:
        """Improved samples, the largest gain first."""
        chosen = [sample for sample in self.samples if sample.direction == "improved"]
        return sorted(chosen, key=lambda sample: -(sample.delta or 0.0))

    @property
    def regressions(self) -> list[SampleComparison]:
        """Regressed samples, the largest loss first."""
        chosen = [sample for sample in self.samples if sample.direction == "regressed"]
        return sorted(chosen, key=lambda sample: sample.delta or 0.0)

    @property
    def unchanged(self) -> list[SampleComparison]:
        """Samples whose scores differ by no more than the threshold."""
        return [sample for sample in self.samples if sample.direction == "unchanged"]

    @property
    def win_rate(self) -> float | None:
        """Fraction of the samples scored in both runs where the candidate did better.

        With several scorers every scored pair counts once; None when there is none.
        """
        directions = [sample.direction for sample in self.samples]
        wins = directions.count("improved")
        pairs = wins + directions.count("regressed") + directions.count("unchanged")
        return wins / pairs if pairs else None

    @property
    def _counts(self) -> AlignmentCounts:
        if self.counts is not None:
            return self.counts
        places: dict[tuple[str, int], set[str]] = {}
        for sample in self.samples:
            places.setdefault((str(sample.id), sample.epoch), set()).add(sample.direction)
        paired = {"improved", "regressed", "unchanged"}
        # A sample one scorer missed and another scored in both runs is in both runs.
        aligned = [bool(seen & paired) or seen == {"new", "missing"} for seen in places.values()]
        rest = [seen for seen, both in zip(places.values(), aligned, strict=True) if not both]
        return AlignmentCounts(
            aligned=sum(aligned),
            missing=sum("missing" in seen for seen in rest),
            new=sum("new" in seen for seen in rest),
        )

    def summary(self) -> str:
        """Describe the comparison in plain text, for a person to read in a terminal.

        Returns
        -------
        str
            What was compared, the aligned counts, a table of the metrics, the regressions (worst
            first), cost and latency, and what differs between the runs.
        """
        from inspect_mlflow.comparison.report import render_text

        return render_text(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON-ready values, with the derived counts."""
        from inspect_mlflow.comparison.report import to_dict

        return to_dict(self)

    def to_json(self) -> str:
        """Return the comparison as a JSON document."""
        from inspect_mlflow.comparison.report import render_json

        return render_json(self)

    def to_markdown(self) -> str:
        """Return the comparison as GitHub-flavoured Markdown, for a pull request."""
        from inspect_mlflow.comparison.report import render_markdown

        return render_markdown(self)

    def to_html(self) -> str:
        """Return the comparison as one self-contained HTML page."""
        from inspect_mlflow.comparison.html import render_html

        return render_html(self)

    def to_junit(self) -> str:
        """Return the comparison as JUnit XML that fails where the regression gate does."""
        from inspect_mlflow.comparison.gates import evaluate_gates
        from inspect_mlflow.comparison.report import render_junit

        return render_junit(self, evaluate_gates(self, fail_on="regression"))
