"""Renders a comparison as text, Markdown, JSON and JUnit XML (pure)."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from xml.etree import ElementTree

from inspect_mlflow.comparison.gates import GateResult
from inspect_mlflow.comparison.results import (
    ComparisonResult,
    MetricComparison,
    SampleComparison,
    UsageComparison,
)

__all__ = [
    "headline",
    "interval_text",
    "number_text",
    "p_text",
    "render_json",
    "render_junit",
    "render_markdown",
    "render_text",
    "sample_text",
    "tested_metrics",
    "to_dict",
    "untested_metrics",
    "usage_rows",
]

_LISTED = 10
_MINUS = "−"
_NONE = "–"
_UNITS = {
    "cost": "cost per sample (USD)",
    "input_tokens": "input tokens per sample",
    "output_tokens": "output tokens per sample",
    "total_tokens": "tokens per sample",
    "total_time": "time per sample (s)",
    "working_time": "working time per sample (s)",
}


# --- wording shared by all formats -------------------------------------------------------------


def number_text(value: float | None, sign: bool = False) -> str:
    """Write a number with three decimals, or three digits where those would say nothing."""
    if value is None or math.isnan(value):
        return _NONE
    size = abs(value)
    text = f"{size:.3f}" if value == 0 or 0.001 <= size < 10_000 else f"{size:.3g}"
    if value < 0:
        return _MINUS + text
    return f"+{text}" if sign and value > 0 else text


def p_text(value: float | None) -> str:
    """Write a p-value with as many digits as matter."""
    if value is None:
        return _NONE
    if value < 0.001:
        return "<0.001"
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}"


def interval_text(lower: float | None, upper: float | None) -> str:
    """Write an interval, or a dash where there is none."""
    if lower is None or upper is None:
        return _NONE
    return f"[{number_text(lower, True)}, {number_text(upper, True)}]"


def percent_text(value: float | None) -> str:
    """Write a fraction as a percentage with its sign."""
    if value is None:
        return _NONE
    text = f"{abs(value) * 100:.1f} %"
    return f"{_MINUS}{text}" if value < 0 else f"+{text}" if value > 0 else text


def tested_metrics(result: ComparisonResult) -> list[MetricComparison]:
    """Metrics with a p-value."""
    return [metric for metric in result.metrics if metric.p_value is not None]


def untested_metrics(result: ComparisonResult) -> list[MetricComparison]:
    """Metrics that are values only."""
    return [metric for metric in result.metrics if metric.p_value is None]


def headline(result: ComparisonResult) -> list[str]:
    """Say the outcome of every tested score in one sentence each."""
    lines = []
    for metric in tested_metrics(result):
        change = f"{number_text(metric.delta, True)} {interval_text(*_ends(metric))}"
        if metric.ci_lower is None:
            change = number_text(metric.delta, True)
        evidence = f"{change}, p {_equals(metric.p_value)}"
        if metric.significant:
            word = "better" if metric.delta > 0 else "WORSE"
            holm = metric.p_value_holm
            if holm is not None and holm >= result.significance:
                evidence += f" (not after Holm's correction for several scores: p {_equals(holm)})"
            lines.append(f"{metric.label} is {word}: {evidence}")
        else:
            lines.append(f"{metric.label}: no significant difference, {evidence}")
    return lines


def _equals(value: float | None) -> str:
    text = p_text(value)
    return text.replace("<", "< ") if text.startswith("<") else f"= {text}"


def _ends(metric: MetricComparison) -> tuple[float | None, float | None]:
    return metric.ci_lower, metric.ci_upper


def sample_text(sample: SampleComparison, epochs: bool) -> str:
    """Name a sample, its scorer and its two scores."""
    epoch = f" epoch {sample.epoch}" if epochs and sample.epoch else ""
    changed = "  (content changed)" if sample.content_changed else ""
    return (
        f"{sample.id}{epoch}  {sample.scorer}  {number_text(sample.baseline_score)} → "
        f"{number_text(sample.candidate_score)}  ({number_text(sample.delta, True)}){changed}"
    )


def has_epochs(result: ComparisonResult) -> bool:
    """Whether any sample has an epoch beyond the first."""
    return any(sample.epoch != 1 for sample in result.samples)


def counts_text(result: ComparisonResult) -> str:
    """Say how many samples were compared and how they moved."""
    parts = [
        f"{result.aligned_count} in both runs",
        f"{result.missing_count} in the baseline only",
        f"{result.new_count} in the candidate only",
    ]
    return ", ".join(parts)


def directions_text(result: ComparisonResult) -> str:
    """Count the improved, regressed and unchanged scores."""
    text = (
        f"{len(result.improvements)} improved, {len(result.regressions)} regressed, "
        f"{len(result.unchanged)} unchanged"
    )
    if result.regression_threshold:
        text += f" (threshold {result.regression_threshold:g})"
    if result.win_rate is not None:
        text += f"; win rate {result.win_rate * 100:.1f} %"
    return text


def power_lines(result: ComparisonResult) -> list[str]:
    """Say what this comparison could have found, and how many samples its difference needs."""
    lines = []
    for metric in tested_metrics(result):
        if metric.detectable_delta is None:
            continue
        line = (
            f"{metric.label}: {metric.n} samples find a true difference of "
            f"{number_text(metric.detectable_delta)} with {metric.power * 100:.0f} % power"
        )
        if not metric.significant and metric.delta:
            needed = metric.required_samples(metric.delta)
            if needed is not None:
                line += f"; one of {number_text(abs(metric.delta))} needs {needed}"
        lines.append(line)
    return lines


def unscored_lines(result: ComparisonResult) -> list[str]:
    """Say how many samples went without a usable score."""
    seen: dict[str, str] = {}
    for metric in tested_metrics(result):
        if metric.baseline_unscored or metric.candidate_unscored:
            seen[metric.scorer] = (
                f"{metric.scorer}: {metric.baseline_unscored} unscored in the baseline, "
                f"{metric.candidate_unscored} in the candidate, left out"
            )
    return list(seen.values())


def usage_rows(result: ComparisonResult) -> list[tuple[str, UsageComparison]]:
    """Pick the usage figures worth reading, with their titles."""
    wanted = ("cost", "total_tokens", "total_time")
    by_name = {usage.name: usage for usage in result.usage}
    return [(_UNITS[name], by_name[name]) for name in wanted if name in by_name]


def title(result: ComparisonResult) -> str:
    """Name what was compared."""
    tasks = dict.fromkeys((result.baseline_task, result.candidate_task))
    return f"{' / '.join(tasks)}: {result.baseline_model} → {result.candidate_model}"


# --- text --------------------------------------------------------------------------------------


def render_text(result: ComparisonResult, gates: Sequence[GateResult] = ()) -> str:
    """Render a comparison as plain text.

    Parameters
    ----------
    result
        The comparison.
    gates
        Outcomes of gates to add.

    Returns
    -------
    str
        Lines of at most about 110 characters, besides names.
    """
    lines = [title(result), ""]
    lines += [f"  baseline   {result.baseline_log}", f"  candidate  {result.candidate_log}", ""]
    lines += [f"  {note}" for note in result.notes if note.startswith("CHANGED")]
    lines += [f"  {line}" for line in headline(result)]
    lines += ["", f"Samples  {counts_text(result)}", f"Scores   {directions_text(result)}"]
    tested, untested = tested_metrics(result), untested_metrics(result)
    if tested:
        lines += ["", *_columns(_metric_header(result), [_metric_row(m) for m in tested])]
        lines.append(
            "  * significant. d: Cohen's d. detects: smallest true difference found with "
            f"{tested[0].power * 100:.0f} % power."
        )
    if untested:
        rows = [[m.label, *_values(m), number_text(m.delta, True)] for m in untested]
        lines += ["", *_columns(["Without a test", "baseline", "candidate", "delta"], rows)]
        lines += [f"  {m.label}: {m.note}" for m in untested if m.note]
    lines += _regression_lines(result)
    if usage_rows(result):
        rows = [
            [
                name,
                number_text(usage.baseline_mean),
                number_text(usage.candidate_mean),
                number_text(usage.delta, True),
                percent_text(usage.relative_delta),
                interval_text(usage.ci_lower, usage.ci_upper),
            ]
            for name, usage in usage_rows(result)
        ]
        header = ["Usage", "baseline", "candidate", "delta", "", _confidence(result)]
        lines += ["", *_columns(header, rows)]
    remarks = [note for note in result.notes if not note.startswith("CHANGED")]
    remarks += unscored_lines(result) + power_lines(result)
    if remarks:
        lines += ["", "Notes", *(f"  {note}" for note in remarks)]
    for gate in gates:
        state = "passed" if gate.passed else "FAILED"
        lines += ["", f"Gate {gate.name} {state}: {gate.message}"]
        lines += [f"  {line}" for line in _listing(gate.samples, result)]
    return "\n".join(lines) + "\n"


def _metric_header(result: ComparisonResult) -> list[str]:
    head = ["Metric", "baseline", "candidate", "delta", _confidence(result), "p"]
    return [*head, "p (Holm)", "d", "n", "detects"]


def _confidence(result: ComparisonResult) -> str:
    return f"{(1 - result.significance) * 100:.4g} % interval"


def _values(metric: MetricComparison) -> list[str]:
    return [number_text(metric.baseline_value), number_text(metric.candidate_value)]


def _metric_row(metric: MetricComparison) -> list[str]:
    return [
        metric.label,
        *_values(metric),
        number_text(metric.delta, True),
        interval_text(*_ends(metric)),
        p_text(metric.p_value) + (" *" if metric.significant else ""),
        p_text(metric.p_value_holm),
        number_text(metric.effect_size, True),
        _NONE if metric.n is None else str(metric.n),
        number_text(metric.detectable_delta),
    ]


def _columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out a table: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return "  ".join((first, *rest)).rstrip()

    rule = "  ".join("─" * width for width in widths)
    return [line(header), rule, *(line(row) for row in rows)]


def _regression_lines(result: ComparisonResult) -> list[str]:
    worse = result.regressions
    if not worse:
        return ["", "No sample scored worse."]
    head = f"Regressions ({len(worse)}), worst first"
    return ["", head, *(f"  {line}" for line in _listing(worse, result))]


def _listing(samples: Sequence[SampleComparison], result: ComparisonResult) -> list[str]:
    epochs = has_epochs(result)
    lines = [sample_text(sample, epochs) for sample in samples[:_LISTED]]
    if len(samples) > _LISTED:
        lines.append(f"and {len(samples) - _LISTED} more")
    return lines


# --- Markdown ----------------------------------------------------------------------------------


def render_markdown(
    result: ComparisonResult, gates: Sequence[GateResult] = (), folds: bool = True
) -> str:
    """Render a comparison as GitHub-flavoured Markdown.

    Parameters
    ----------
    result
        The comparison.
    gates
        Outcomes of gates to add.
    folds
        Add what is folded away at first: metrics without a test, and regressions.

    Returns
    -------
    str
        Fit for a pull request's comment; long lists of samples are folded.
    """
    lines = [f"### {_md(title(result))}", ""]
    for gate in gates:
        state = "✅ passed" if gate.passed else "❌ **failed**"
        lines.append(f"- Gate {_md(gate.name)}: {state}. {_md(gate.message)}")
    lines += [f"- ⚠️ {_md(note)}" for note in result.notes if note.startswith("CHANGED")]
    lines += [f"- {_md(line)}" for line in headline(result)]
    lines += ["", f"**Samples:** {counts_text(result)}. **Scores:** {directions_text(result)}.", ""]
    tested, untested = tested_metrics(result), untested_metrics(result)
    if tested:
        rows = [_metric_row(metric) for metric in tested]
        lines += [*_md_table(_metric_header(result), rows), ""]
    if untested and folds:
        rows = [[m.label, *_values(m), number_text(m.delta, True), m.note or ""] for m in untested]
        header = ["Without a test", "baseline", "candidate", "delta", ""]
        table = _md_table(header, rows)
        lines += ["<details><summary>Metrics without a test</summary>", "", *table, ""]
        lines += ["</details>", ""]
    worse = result.regressions
    if worse and folds:
        epochs = has_epochs(result)
        header = ["Sample", *(["epoch"] if epochs else []), "scorer", "baseline", "candidate"]
        rows = [
            [
                str(sample.id),
                *([str(sample.epoch)] if epochs else []),
                sample.scorer,
                number_text(sample.baseline_score),
                number_text(sample.candidate_score),
                number_text(sample.delta, True),
            ]
            for sample in worse[:50]
        ]
        fold = f"<details><summary>{len(worse)} regressions, worst first</summary>"
        lines += [fold, "", *_md_table([*header, "delta"], rows), ""]
        if len(worse) > 50:
            lines += [f"and {len(worse) - 50} more", ""]
        lines += ["</details>", ""]
    if usage_rows(result):
        rows = [
            [
                name,
                number_text(usage.baseline_mean),
                number_text(usage.candidate_mean),
                f"{number_text(usage.delta, True)} ({percent_text(usage.relative_delta)})",
                interval_text(usage.ci_lower, usage.ci_upper),
            ]
            for name, usage in usage_rows(result)
        ]
        header = ["Usage", "baseline", "candidate", "delta", _confidence(result)]
        lines += [*_md_table(header, rows), ""]
    remarks = [note for note in result.notes if not note.startswith("CHANGED")]
    remarks += unscored_lines(result) + power_lines(result)
    lines += [f"- {_md(note)}" for note in remarks]
    lines += [
        "",
        f"<sub>baseline {_md(result.baseline_log)}, candidate {_md(result.candidate_log)}</sub>",
    ]
    return "\n".join(lines) + "\n"


def _md_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(_md(cell) for cell in cells) + " |"

    rule = "|---|" + "---:|" * (len(header) - 1)
    return [line(header), rule, *(line(row) for row in rows)]


def _md(text: str) -> str:
    """Escape what Markdown and HTML would take for markup; names come from anywhere."""
    text = re.sub(r"\s+", " ", text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#|~!@])", r"\\\1", text)


# --- JSON --------------------------------------------------------------------------------------


def to_dict(result: ComparisonResult, gates: Sequence[GateResult] = ()) -> dict[str, Any]:
    """Turn a comparison into JSON-ready values.

    Parameters
    ----------
    result
        The comparison.
    gates
        Outcomes of gates to add.

    Returns
    -------
    dict
        The result's fields and derived counts; no NaN and no infinity.
    """
    values = asdict(result)
    values["counts"] = {
        "aligned": result.aligned_count,
        "missing": result.missing_count,
        "new": result.new_count,
        "improved": len(result.improvements),
        "regressed": len(result.regressions),
        "unchanged": len(result.unchanged),
        **{
            name: value
            for name, value in (asdict(result.counts) if result.counts else {}).items()
            if name.endswith(("errored", "invalidated"))
        },
    }
    values["win_rate"] = result.win_rate
    values["gates"] = [asdict(gate) for gate in gates]
    finite: dict[str, Any] = _finite(values)
    return finite


def render_json(result: ComparisonResult, gates: Sequence[GateResult] = ()) -> str:
    """Render a comparison as a JSON document.

    Parameters
    ----------
    result
        The comparison.
    gates
        Outcomes of gates to add.

    Returns
    -------
    str
        Strict JSON, indented by two spaces.
    """
    return json.dumps(to_dict(result, gates), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# --- JUnit -------------------------------------------------------------------------------------


@dataclass
class _Suite:
    element: ElementTree.Element
    tests: int = 0
    failures: int = 0
    skipped: int = 0

    def close(self) -> None:
        for name in ("tests", "failures", "skipped"):
            self.element.set(name, str(getattr(self, name)))
        self.element.set("errors", "0")


def render_junit(result: ComparisonResult, gates: Sequence[GateResult] = ()) -> str:
    """Render a comparison as JUnit XML.

    One suite holds the gates; one per scorer holds its samples, where a regressed epoch fails if a
    failed gate lists its sample, and is skipped if only one run scored it. So the file fails when a
    gate does.

    Parameters
    ----------
    result
        The comparison.
    gates
        Outcomes of the gates that decide what fails.

    Returns
    -------
    str
        An XML document.
    """
    root = ElementTree.Element("testsuites", name=_xml(title(result)))
    suites: list[_Suite] = []

    def open_suite(name: str) -> _Suite:
        suites.append(_Suite(ElementTree.SubElement(root, "testsuite", name=_xml(name))))
        return suites[-1]

    failing = {
        (sample.scorer, str(sample.id))
        for gate in gates
        if not gate.passed
        for sample in gate.samples
    }
    epochs = has_epochs(result)
    gate_suite = open_suite("gates")
    for gate in gates:
        case = ElementTree.SubElement(
            gate_suite.element, "testcase", classname="gates", name=_xml(gate.name)
        )
        gate_suite.tests += 1
        if not gate.passed:
            gate_suite.failures += 1
            failure = ElementTree.SubElement(case, "failure", message=_xml(gate.message))
            failure.text = _xml("\n".join(sample_text(s, epochs) for s in gate.samples))
    by_scorer: dict[str, list[SampleComparison]] = {}
    for sample in result.samples:
        by_scorer.setdefault(sample.scorer, []).append(sample)
    for scorer, samples in by_scorer.items():
        suite = open_suite(scorer)
        properties = ElementTree.SubElement(suite.element, "properties")
        for metric in result.metrics:
            if metric.scorer == scorer:
                for name, value in _properties(metric):
                    ElementTree.SubElement(properties, "property", name=_xml(name), value=value)
        for sample in samples:
            name = f"{sample.id} (epoch {sample.epoch})" if epochs else str(sample.id)
            case = ElementTree.SubElement(
                suite.element, "testcase", classname=_xml(scorer), name=_xml(name)
            )
            suite.tests += 1
            if sample.direction == "regressed" and (scorer, str(sample.id)) in failing:
                suite.failures += 1
                message = f"{sample.direction} by {number_text(sample.delta, True)}"
                failure = ElementTree.SubElement(case, "failure", message=_xml(message))
                failure.text = _xml(sample_text(sample, epochs))
            elif sample.direction in ("new", "missing"):
                suite.skipped += 1
                missing = "baseline" if sample.direction == "new" else "candidate"
                reason = f"{sample.note or 'no score'} in the {missing}"
                ElementTree.SubElement(case, "skipped", message=_xml(reason))
            else:
                output = ElementTree.SubElement(case, "system-out")
                output.text = _xml(f"{sample.direction}: {sample_text(sample, epochs)}")
    for suite in suites:
        suite.close()
    root.set("tests", str(sum(suite.tests for suite in suites)))
    root.set("failures", str(sum(suite.failures for suite in suites)))
    root.set("errors", "0")
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _properties(metric: MetricComparison) -> list[tuple[str, str]]:
    name = metric.label.removeprefix(f"{metric.scorer} ")
    found = [
        ("baseline", metric.baseline_value),
        ("candidate", metric.candidate_value),
        ("delta", metric.delta),
        ("ci_lower", metric.ci_lower),
        ("ci_upper", metric.ci_upper),
        ("p_value", metric.p_value),
    ]
    return [(f"{name}.{what}", repr(value)) for what, value in found if value is not None]


def _xml(text: str) -> str:
    """Replace the characters that XML 1.0 cannot hold."""
    return re.sub(
        r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]", "\N{REPLACEMENT CHARACTER}", text
    )
