"""The report of a run: one self-contained HTML page, a short markdown version, pictures. Owner of matplotlib."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dsol_core import metrics as measures
from dsol_core.benchmarks import BASELINES, MODEL, Benchmark
from dsol_core.config import ExperimentConfig
from dsol_core.dictionary import ObjectDictionary
from dsol_core.operating import OperatingPoint
from dsol_core.protocols import Protocol
from dsol_core.scoring import Classes
from dsol_core.types import Estimate
from tasks.adapters import gallery, images, report_rules, report_sections, tables
from tasks.adapters.gallery import Picture
from tasks.adapters.page import BASELINE_COLOURS
from tasks.adapters.report_sections import MEANINGS
from tasks.adapters.store import Artifact

_INK = "#010203"  # replaced by the page's own text colour
_TINTS = ("#14b8a6", *BASELINE_COLOURS)
_REASONS = 12  # listed of each step, the rest is summed up


@dataclass(frozen=True)
class Report:
    """All that the report shows.

    Attributes:
        name: of the data.
        experiment: its settings.
        metrics: of the model on test frames, "<data>-<subset>/<metric>".
        validation: the same on validation frames.
        baselines: metric -> baseline -> estimate.
        left_out: {"metric", "reason"} of what could not be measured.
        benchmarks: the scored test frames by subset.
        entries: the dictionary.
        classes: of its entries.
        centre: which centre box was chosen.
        parents: the artifacts behind it, by role, in order.
        pictures: of the gallery.
        rules: records whose evaluators' rules the test frames were scored by too, by subset.
        point: from which score on something sounds; None where nothing tells.
    """

    name: str
    experiment: ExperimentConfig
    metrics: Mapping[str, Estimate]
    validation: Mapping[str, Estimate]
    baselines: Mapping[str, Mapping[str, Estimate]]
    left_out: Sequence[Mapping[str, str]]
    benchmarks: Mapping[str, Benchmark]
    entries: ObjectDictionary
    classes: Classes
    centre: str | None
    parents: Mapping[str, Artifact]
    pictures: Sequence[Picture]
    rules: Mapping[str, Protocol] = field(default_factory=dict)
    point: OperatingPoint | None = None

    def of(self, subset: str) -> dict[str, Estimate]:
        """Return a benchmark's metrics by short name, in the order of `MEANINGS`."""
        start = f"{self.name}-{subset}/"
        found = {key[len(start) :]: one for key, one in self.metrics.items() if key.startswith(start)}
        return {name: found[name] for name in MEANINGS if name in found}

    def losses(self) -> list[tuple[str, str, int]]:
        """Return (step, reason, count) of all that the steps dropped, the largest first within a step."""
        found = []
        for artifact in self.parents.values():
            dropped = artifact.record.get("rows", {}).get("dropped", {})
            ordered = sorted(dropped.items(), key=lambda pair: (-pair[1], pair[0]))
            found += [(artifact.step, reason, count) for reason, count in ordered[:_REASONS] if count]
            rest = sum(count for _, count in ordered[_REASONS:])
            found += [(artifact.step, f"{len(ordered) - _REASONS} other reasons", rest)] if rest else []
        return found


def write(folder: Path, report: Report) -> None:
    """Write report.html, report.md and pictures/*.png."""
    page = report_sections.html(report, _success_plot(report), _training(report))
    (folder / "report.html").write_text(page, encoding="utf-8")
    (folder / "report.md").write_text(markdown(report), encoding="utf-8")
    (folder / "pictures").mkdir()
    numbers: Counter[tuple[str, str]] = Counter()
    for one in report.pictures:
        numbers[one.benchmark, one.rank] += 1
        name = f"{one.benchmark}-{one.rank}-{numbers[one.benchmark, one.rank]}.png"
        (folder / "pictures" / name).write_bytes(images.encode_png(gallery.strip(one)))


def markdown(report: Report) -> str:
    """Return the short version: metrics with intervals and baselines, losses, what was left out."""
    lines = [f"# {report.name}", "", "Test frames; intervals are 95 %, bootstrapped over videos.", ""]
    lines += ["| metric | value | 95 % | n | " + " | ".join(BASELINES) + " |", "|---" * (4 + len(BASELINES)) + "|"]
    ordered = [f"{report.name}-{subset}/{name}" for subset in report.benchmarks for name in report.of(subset)]
    ordered += report_rules.keys(report)
    for key in ordered:
        one = report.metrics[key]
        rivals = [report.baselines.get(key, {}).get(name) for name in BASELINES]
        shown = " | ".join(f"{rival.value:.3f}" if rival else "" for rival in rivals)
        lines.append(f"| {key} | {one.value:.3f} | {one.low:.3f} to {one.high:.3f} | {one.n} | {shown} |")
    losses = [f"- {role}: {count} dropped, {reason}" for role, reason, count in report.losses()]
    lines += ["", "Data losses:", *(losses or ["- none"]), "", "Left out:"]
    lines += [f"- {one['metric']}: {one['reason']}" for one in report.left_out] or ["- nothing"]
    return "\n".join(lines) + "\n"


def _success_plot(report: Report) -> str:
    shown = {name: one for name, one in report.benchmarks.items() if _known(one.ious(MODEL))}
    if not shown:
        return ""
    figure = Figure(figsize=(3.6 * max(len(shown), 2), 2.6), layout="constrained")
    for place, (name, benchmark) in enumerate(shown.items()):
        axes = figure.add_subplot(1, max(len(shown), 2), place + 1)
        for predictor, tint in zip((MODEL, *BASELINES), _TINTS, strict=True):
            ious = benchmark.ious(predictor)
            if _known(ious):
                width, curve = 2.2 if predictor == MODEL else 1.2, measures.success_curve(ious)
                order = 3 if predictor == MODEL else 2
                axes.plot(measures.SUCCESS_AT, curve, color=tint, linewidth=width, label=predictor, zorder=order)
        axes.set(
            title=f"{name}: frames that reach an IoU", xlim=(0, 1), ylim=(0, 1.02), xlabel="IoU (mean over classes)"
        )
        _calm(axes)
    lines = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
    known = [name for name in (MODEL, *BASELINES) if name in lines]
    figure.legend(
        [lines[name] for name in known],
        known,
        ncols=5,
        loc="outside lower center",
        frameon=False,
        fontsize=8,
        labelcolor=_INK,
    )
    return f'<h3>Success curves</h3><figure class="plot box">{_svg(figure)}</figure>'


def _known(ious: Any) -> bool:
    return len(ious) > 0 and not bool(np.isnan(ious).all())


def _calm(axes: Any) -> None:
    axes.title.set(fontsize=9, color=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#8b93a1")
    axes.tick_params(colors=_INK, labelsize=7, length=2, color="#8b93a1")
    axes.xaxis.label.set(fontsize=8, color=_INK)
    axes.grid(alpha=0.18, color="#8b93a1", linewidth=0.6)


def _svg(figure: Any) -> str:
    """Return a figure as SVG whose text takes the page's colour; equal figures give equal text."""
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    target = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "dsol", "svg.fonttype": "none", "font.family": "sans-serif"}):
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(target, metadata={"Date": None, "Creator": None})
    drawn = target.getvalue()
    return drawn[drawn.index("<svg") :].replace(_INK, "currentColor")


def _training(report: Report) -> str:
    parts = []
    for role, title in (("stage_one", "Stage one"), ("stage_two", "Stage two")):
        path = report.parents[role].folder / "history.parquet"
        curves: dict[str, list[tuple[int, float]]] = {}
        for row in tables.read(path) if path.is_file() else ():
            curves.setdefault(row["name"], []).append((row["epoch"], row["value"]))
        if curves:
            parts.append(f'<h3>{title}</h3><figure class="plot box">{_svg(_curves(curves))}</figure>')
    return "".join(parts)


def _curves(curves: Mapping[str, Sequence[tuple[int, float]]]) -> Any:
    columns = 4
    lines = -(-len(curves) // columns)
    figure = Figure(figsize=(10.4, 1.75 * lines), layout="constrained")
    for place, (name, points) in enumerate(sorted(curves.items())):
        axes = figure.add_subplot(lines, columns, place + 1)
        points = sorted(points)
        epochs, values = [x for x, _ in points], [y for _, y in points]
        axes.plot(epochs, values, color=_TINTS[0], linewidth=1.6, marker="o", markersize=2.6)
        axes.set_title(name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _calm(axes)
    return figure
