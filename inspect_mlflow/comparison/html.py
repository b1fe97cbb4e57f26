"""Renders a comparison as one self-contained HTML page with an inline SVG plot (pure)."""

import html
import math
from collections.abc import Sequence

from inspect_mlflow.comparison.gates import GateResult
from inspect_mlflow.comparison.report import (
    counts_text,
    directions_text,
    has_epochs,
    interval_text,
    number_text,
    p_text,
    percent_text,
    power_lines,
    tested_metrics,
    title,
    unscored_lines,
    untested_metrics,
    usage_rows,
)
from inspect_mlflow.comparison.results import (
    ComparisonResult,
    MetricComparison,
    SampleComparison,
)

__all__ = ["render_html"]

_LISTED = 500

_STYLE = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1a2130;--dim:#5d6779;--line:#dfe3ea;
--good:#0d7a4f;--bad:#bf2f2b;--flat:#5d6779;--good-bg:#e4f4ec;--bad-bg:#fbe9e8;--warn-bg:#fff4d6;
--warn:#7a5300}
@media (prefers-color-scheme:dark){:root{--bg:#12151b;--card:#1b2029;--ink:#e7eaf0;--dim:#9aa4b5;
--line:#313845;--good:#4cc38a;--bad:#ff8b84;--flat:#9aa4b5;--good-bg:#16332a;--bad-bg:#3d2022;
--warn-bg:#3a2f12;--warn:#f2cc6b}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1180px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:24px;line-height:1.25;margin:0 0 12px;overflow-wrap:anywhere}
h2{font-size:16px;margin:0 0 12px}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px 20px;
margin:16px 0;overflow-x:auto}
dl.source{display:grid;grid-template-columns:max-content 1fr;gap:2px 14px;margin:0;color:var(--dim)}
dl.source dt{font-weight:600}dl.source dd{margin:0;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:12px;margin:16px 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 16px}
.tile b{display:block;font-size:24px;line-height:1.2;font-variant-numeric:tabular-nums}
.tile span{color:var(--dim);font-size:13px}
.good{color:var(--good)}.bad{color:var(--bad)}.dim{color:var(--dim)}
.badge{display:inline-block;border-radius:99px;padding:1px 10px;font-size:13px;font-weight:600;
background:var(--bg);color:var(--flat);white-space:nowrap}
.badge.good{background:var(--good-bg);color:var(--good)}
.badge.bad{background:var(--bad-bg);color:var(--bad)}
.warn{background:var(--warn-bg);color:var(--warn);border-color:transparent;font-weight:600}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th{font-size:12.5px;color:var(--dim);font-weight:600;text-align:right;white-space:nowrap}
td{text-align:right;white-space:nowrap}
th,td{padding:6px 9px;border-bottom:1px solid var(--line)}
tr:last-child td{border-bottom:0}
th:first-child,td:first-child{text-align:left;padding-left:0;white-space:normal;
overflow-wrap:break-word;min-width:170px}
td.text,th.text{text-align:left;white-space:normal}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--ink);font:13px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif}
svg .axis{fill:var(--dim);font-size:12px}
svg .grid{stroke:var(--line)}svg .zero{stroke:var(--dim);stroke-dasharray:4 3}
svg .good{fill:var(--good);stroke:var(--good)}svg .bad{fill:var(--bad);stroke:var(--bad)}
svg .flat{fill:var(--flat);stroke:var(--flat)}
ul{margin:0;padding-left:20px}li{margin:3px 0}
details summary{cursor:pointer;font-weight:600}details table{margin-top:12px}
p.note{color:var(--dim);font-size:13px;margin:12px 0 0}
"""


def render_html(result: ComparisonResult, gates: Sequence[GateResult] = ()) -> str:
    """Render a comparison as a page that needs nothing else: no script, no external resource.

    Parameters
    ----------
    result
        The comparison.
    gates
        Outcomes of gates to add.

    Returns
    -------
    str
        An HTML document for light and dark displays.
    """
    heading = _e(title(result))
    warnings = [note for note in result.notes if note.startswith("CHANGED")]
    remarks = [note for note in result.notes if note not in warnings]
    remarks += unscored_lines(result) + power_lines(result)
    parts = [
        f"<h1>{heading}</h1>",
        '<dl class="source">',
        f"<dt>Baseline</dt><dd>{_e(result.baseline_model)} · {_e(result.baseline_log)}</dd>",
        f"<dt>Candidate</dt><dd>{_e(result.candidate_model)} · {_e(result.candidate_log)}</dd>",
        "</dl>",
        *(f'<section class="warn">{_e(note)}</section>' for note in warnings),
        _tiles(result),
        _gates(gates),
        _metrics(result),
        _list("Notes", remarks),
        _samples("Regressions, worst first", result.regressions, result, opened=True),
        _usage(result),
        _samples("Improvements, largest first", result.improvements, result, opened=False),
        _untested(result),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{heading}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _e(text: object) -> str:
    return html.escape(str(text))


def _tone(metric: MetricComparison) -> str:
    if not metric.significant:
        return "flat"
    return "good" if metric.delta > 0 else "bad"


def _signed(value: float | None) -> str:
    if not value:
        return ""
    return "good" if value > 0 else "bad"


def _tiles(result: ComparisonResult) -> str:
    win = "–" if result.win_rate is None else f"{result.win_rate * 100:.1f} %"
    tiles = [
        (str(result.aligned_count), "samples in both", ""),
        (str(len(result.improvements)), "scores improved", "good" if result.improvements else ""),
        (str(len(result.regressions)), "scores regressed", "bad" if result.regressions else ""),
        (str(len(result.unchanged)), "scores unchanged", ""),
        (win, "win rate", ""),
        (f"{result.missing_count} / {result.new_count}", "only in baseline / candidate", ""),
    ]
    cells = "".join(
        f'<div class="tile"><b class="{tone}">{value}</b><span>{name}</span></div>'
        for value, name, tone in tiles
    )
    hint = _e(f"{counts_text(result)}; {directions_text(result)}")
    return f'<div class="tiles" title="{hint}">{cells}</div>'


def _gates(gates: Sequence[GateResult]) -> str:
    if not gates:
        return ""
    items = "".join(
        f'<li><span class="badge {"good" if gate.passed else "bad"}">'
        f"{'passed' if gate.passed else 'failed'}</span> {_e(gate.name)}: {_e(gate.message)}</li>"
        for gate in gates
    )
    return f"<section><h2>Gates</h2><ul>{items}</ul></section>"


def _metrics(result: ComparisonResult) -> str:
    metrics = tested_metrics(result)
    if not metrics:
        return ""
    level = f"{(1 - result.significance) * 100:.4g} % interval"
    rows = []
    for metric in metrics:
        tone = _tone(metric)
        word = {"good": "better", "bad": "worse", "flat": "not shown"}[tone]
        effect = metric.effect_size
        rows.append(
            f"<tr><td>{_e(metric.label)}</td><td>{number_text(metric.baseline_value)}</td>"
            f"<td>{number_text(metric.candidate_value)}</td>"
            f'<td class="{tone}"><b>{number_text(metric.delta, True)}</b></td>'
            f"<td>{interval_text(metric.ci_lower, metric.ci_upper)}</td>"
            f"<td>{p_text(metric.p_value)}</td><td>{p_text(metric.p_value_holm)}</td>"
            f"<td>{number_text(effect, True)}</td><td>{metric.n or '–'}</td>"
            f"<td>{number_text(metric.detectable_delta)}</td>"
            f'<td><span class="badge {tone}">{word}</span></td></tr>'
        )
    heads = ["Metric", "Baseline", "Candidate", "Delta", level, "p", "p (Holm)", "Cohen’s d", "n"]
    heads += ["Detects", "Difference"]
    head = "".join(f"<th>{_e(name)}</th>" for name in heads)
    power = f"{metrics[0].power * 100:.0f} %"
    return (
        f"<section><h2>Difference, candidate − baseline, with {_e(level)}</h2>{_plot(metrics)}"
        f"</section><section><h2>Metrics</h2><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
        f'<p class="note">n: sample ids scored in both runs, epochs averaged. Detects: smallest '
        f"true difference found with {power} power. p (Holm): adjusted for the number of scores. "
        "Difference: better or worse where the interval excludes 0."
        "</p></section>"
    )


def _plot(metrics: Sequence[MetricComparison]) -> str:
    """Draw every delta as a point on its interval, around a line at zero."""
    width, left, right, row, top = 1000, 250, 110, 34, 14
    bottom = top + row * len(metrics)
    ends = [0.0]
    for metric in metrics:
        ends += [metric.delta]
        ends += [end for end in (metric.ci_lower, metric.ci_upper) if end is not None]
    low, high = min(ends), max(ends)
    pad = (high - low or 1.0) * 0.06
    low, high = low - pad, high + pad
    scale = (width - left - right) / (high - low)

    def x(value: float) -> str:
        return f"{left + (value - low) * scale:.1f}"

    shapes = []
    for tick in _ticks(low, high):
        kind = "zero" if tick == 0 else "grid"
        shapes.append(
            f'<line class="{kind}" x1="{x(tick)}" x2="{x(tick)}" y1="{top}" y2="{bottom}"/>'
            f'<text class="axis" x="{x(tick)}" y="{bottom + 18}" text-anchor="middle">'
            f"{_e(_tick_text(tick))}</text>"
        )
    for position, metric in enumerate(metrics):
        y = top + row * position + row / 2
        tone = _tone(metric)
        label = metric.label if len(metric.label) <= 34 else f"{metric.label[:33]}…"
        shapes.append(f'<text x="{left - 14}" y="{y + 4.5}" text-anchor="end">{_e(label)}</text>')
        if metric.ci_lower is not None and metric.ci_upper is not None:
            a, b = x(metric.ci_lower), x(metric.ci_upper)
            shapes.append(
                f'<g class="{tone}" stroke-width="2"><line x1="{a}" x2="{b}" y1="{y}" y2="{y}"/>'
                f'<line x1="{a}" x2="{a}" y1="{y - 5}" y2="{y + 5}"/>'
                f'<line x1="{b}" x2="{b}" y1="{y - 5}" y2="{y + 5}"/></g>'
            )
        interval = interval_text(metric.ci_lower, metric.ci_upper)
        shapes.append(
            f'<circle class="{tone}" cx="{x(metric.delta)}" cy="{y}" r="5"><title>'
            f"{_e(f'{metric.label}: {number_text(metric.delta, True)} {interval}')}"
            "</title></circle>"
            f'<text x="{width - right + 14}" y="{y + 4.5}">{number_text(metric.delta, True)}</text>'
        )
    return (
        f'<svg viewBox="0 0 {width} {bottom + 26}" role="img" '
        f'aria-label="Deltas with their confidence intervals">{"".join(shapes)}</svg>'
    )


def _ticks(low: float, high: float) -> list[float]:
    """About six round values between two ends."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step)
    return [round(index * step, 12) for index in range(first, math.floor(high / step) + 1)]


def _tick_text(value: float) -> str:
    text = f"{abs(value):g}"
    return f"−{text}" if value < 0 else f"+{text}" if value > 0 else "0"


def _samples(
    heading: str, samples: Sequence[SampleComparison], result: ComparisonResult, opened: bool
) -> str:
    if not samples:
        return ""
    epochs = has_epochs(result)
    rows = []
    for sample in samples[:_LISTED]:
        epoch = f"<td>{sample.epoch}</td>" if epochs else ""
        changed = ' <span class="badge">content changed</span>' if sample.content_changed else ""
        rows.append(
            f"<tr><td>{_e(sample.id)}{changed}</td>{epoch}"
            f'<td class="text">{_e(sample.scorer)}</td>'
            f"<td>{number_text(sample.baseline_score)}</td>"
            f"<td>{number_text(sample.candidate_score)}</td>"
            f'<td class="{_signed(sample.delta)}">{number_text(sample.delta, True)}</td></tr>'
        )
    epoch_head = "<th>Epoch</th>" if epochs else ""
    more = ""
    if len(samples) > _LISTED:
        more = f'<p class="note">and {len(samples) - _LISTED} more</p>'
    return (
        f"<section><details{' open' if opened else ''}><summary>{_e(heading)} ({len(samples)})"
        f'</summary><table><thead><tr><th>Sample</th>{epoch_head}<th class="text">Scorer</th>'
        "<th>Baseline</th><th>Candidate</th><th>Delta</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>{more}</details></section>"
    )


def _usage(result: ComparisonResult) -> str:
    rows = "".join(
        f"<tr><td>{_e(name)}</td><td>{number_text(usage.baseline_mean)}</td>"
        f"<td>{number_text(usage.candidate_mean)}</td><td>{number_text(usage.delta, True)}</td>"
        f"<td>{percent_text(usage.relative_delta)}</td>"
        f"<td>{interval_text(usage.ci_lower, usage.ci_upper)}</td>"
        f"<td>{p_text(usage.p_value)}</td><td>{usage.n}</td></tr>"
        for name, usage in usage_rows(result)
    )
    if not rows:
        return ""
    level = f"{(1 - result.significance) * 100:.4g} % interval"
    heads = ["", "Baseline", "Candidate", "Delta", "Relative", level, "p", "n"]
    head = "".join(f"<th>{_e(name)}</th>" for name in heads)
    return (
        "<section><h2>Cost, tokens and latency</h2><table><thead><tr>"
        f"{head}</tr></thead><tbody>{rows}</tbody></table></section>"
    )


def _untested(result: ComparisonResult) -> str:
    rows = "".join(
        f"<tr><td>{_e(metric.label)}</td><td>{number_text(metric.baseline_value)}</td>"
        f"<td>{number_text(metric.candidate_value)}</td>"
        f"<td>{number_text(metric.delta, True)}</td>"
        f'<td class="text dim">{_e(metric.note or "")}</td></tr>'
        for metric in untested_metrics(result)
    )
    if not rows:
        return ""
    return (
        "<section><details><summary>Metrics without a test</summary><table><thead><tr>"
        "<th>Metric</th><th>Baseline</th><th>Candidate</th><th>Delta</th><th></th></tr></thead>"
        f"<tbody>{rows}</tbody></table></details></section>"
    )


def _list(heading: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{_e(line)}</li>" for line in lines)
    return f"<section><h2>{_e(heading)}</h2><ul>{items}</ul></section>"
