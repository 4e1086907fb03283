"""Two sections of the report: the published evaluators' rules, and pictures that hear what is not there. HTML."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from dsol_core.protocols import MODES, MaskRule, Protocol
from tasks.adapters import page

if TYPE_CHECKING:
    from dsol_core.types import Estimate
    from tasks.adapters.report import Report

RATES = {
    "detected": "pictures whose own sound is detected",
    "false_alarm_silence": "pictures that seem to sound in silence",
    "false_alarm_noise": "pictures that seem to sound when white noise is heard",
    "false_alarm_offscreen": "pictures that seem to sound when something is heard that is not in them",
}
_SCORES = {"peak": "the highest value of its gated maps", "sounding": "the highest probability of an entry"}


def keys(report: Report) -> list[str]:
    """Return the names of the metrics that the two sections show, in order."""
    wanted = [f"{report.name}-negatives/{name}" for name in RATES]
    wanted += [f"{one.name}.{mode}/{name}" for one in report.rules.values() for name in one.metrics for mode in MODES]
    return [key for key in wanted if key in report.metrics]


def rules(report: Report) -> str:
    """Return the metrics in both modes of the records, and in which switches these differ; "" where there are none."""
    rows, told = [], []
    for protocol in report.rules.values():
        found = [
            (name, [report.metrics.get(f"{protocol.name}.{mode}/{name}") for mode in MODES])
            for name in protocol.metrics
        ]
        own = [[page.text(protocol.name), page.text(name), *map(_value, pair)] for name, pair in found if any(pair)]
        rows += own
        told += _switches(protocol) if own else []
    if not rows:
        return ""
    intro = (
        "Test frames as DSOL's evaluator would score them, bug for bug (<b>reference</b>), and by ours on its grid of "
        "224 x 224 pixels (<b>correct</b>). Both read the same maps; only the switches below differ."
    )
    heads = ["record", "metric", *(f"{mode} (95 %)" for mode in MODES)]
    switches = page.table(["record", "switch", *MODES], told)
    return page.paragraph(intro) + page.table(heads, rows, numbers=(2, 3)) + page.details("Switches", switches)


def _value(one: Estimate | None) -> str:
    return f"<b>{one.value:.3f}</b> ({one.low:.3f} – {one.high:.3f})" if one else ""


def _switches(protocol: Protocol) -> list[list[str]]:
    name = page.text(protocol.name)
    return [[name, page.text(switch), *map(_shown, pair)] for switch, pair in protocol.differences().items()]


def _shown(value: Any) -> str:
    if isinstance(value, MaskRule):
        return page.text(f"{value.kind} {'>' if value.strict else '>='} {value.level:g}")
    return page.text(asdict(value) if is_dataclass(value) and not isinstance(value, type) else value)


def negatives(report: Report) -> str:
    """Return the rates at the operating threshold and what it is; "" where there is none."""
    point = report.point
    named = {name: f"{report.name}-negatives/{name}" for name in RATES}
    found = {name: report.metrics[key] for name, key in named.items() if key in report.metrics}
    if point is None or not found:
        return ""
    accuracies = ", ".join(f"{_SCORES[name]} {value:.3f}" for name, value in point.accuracies.items())
    intro = (
        "Does anything in the picture sound? Each picture with several objects is asked with its own sound and with "
        f"sounds that are not of it. It sounds where {_SCORES[point.score]} is at least <b>{point.threshold:.6g}</b>: "
        "score and threshold have the highest balanced accuracy on validation pictures, where the three kinds of "
        f"negatives weigh the same ({accuracies}), with silence and noise dark in at least 99 of 100."
    )
    rows = []
    for name, one in found.items():
        known = report.validation.get(named[name])
        bar = page.interval(one.value, one.low, one.high, {})
        label = f'<span title="{page.text(RATES[name])}">{page.text(name)}</span>'
        interval, validation = f"{one.low:.3f} – {one.high:.3f}", f"{known.value:.3f}" if known else ""
        rows.append([label, page.text(RATES[name]), bar, f"<b>{one.value:.3f}</b>", interval, f"{one.n:,}", validation])
    heads = ["rate", "share of", "", "value", "95 %", "n", "validation"]
    return page.paragraph(intro) + page.table(heads, rows, numbers=range(3, len(heads)), wide=1)
