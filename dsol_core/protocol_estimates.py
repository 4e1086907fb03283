"""Scores of a benchmark's items -> its metrics, each with a 95 % interval over videos.

The metrics are those of the protocol's record, under the same names, and after them what stands beside them, named
"ciou@0.3 (oracle)": the same metric over another column of `protocol_scores.Scores.values`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from dsol_core import extended, metrics
from dsol_core.protocol_scores import Scores
from dsol_core.protocols import Protocol, Switches
from dsol_core.types import Estimate, UsageError

_MAIN = {"frame": "ciou", "source": "source", "union": "union"}  # of several sources
BESIDE = {  # name in brackets -> column
    "per frame": "ciou",
    "per source": "source",
    "union": "union",
    "per map": "per_map",
    "oracle": "oracle",
    "source-wise": "source_wise",
}
_OF_CONFIDENCE: dict[str, Callable[..., float]] = {"ap": extended.average_precision, "max_f1": extended.max_f1}


def main_column(protocol: Protocol, switches: Switches) -> str:
    """Return the column of `Scores.values` that the protocol's success rates are about."""
    return _MAIN[switches.aggregate] if protocol.kind == "multi" else "iou"


def estimates(
    scores: Scores, protocol: Protocol, switches: Switches, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """Return every metric that can be had.

    Args:
        scores: of the items.
        protocol: the record.
        switches: those that the items were scored under.
        resamples: of the bootstrap; the videos are drawn, never single items.
        seed: of the draws.

    Returns:
        Metric -> estimate as a fraction; `n` counts items, or sources where each is a sample. A metric that no item
        has a value for is left out.
    """
    found = {}
    for name in (*protocol.metrics, *beside(scores, protocol, switches)):
        if protocol.kind == "extended" and name in _OF_CONFIDENCE:
            one = _by_confidence(scores, name, switches, resamples, seed)
        else:
            one = metrics.mean_estimate(*parts(scores, name, protocol, switches), seed=seed, resamples=resamples)
        if one is not None:
            found[name] = one
    return found


def beside(scores: Scores, protocol: Protocol, switches: Switches) -> list[str]:
    """Return the names of what is reported beside the main metric: the first of the record over other columns."""
    main = main_column(protocol, switches)
    rates = [name for name in protocol.metrics if "@" in name][:1]
    return [
        f"{rate} ({name})"
        for rate in rates
        for name, column in BESIDE.items()
        if column != main and column in scores.values
    ]


def parts(scores: Scores, metric: str, protocol: Protocol, switches: Switches) -> tuple[Any, list[Hashable]]:
    """Return what a metric is the mean of, one value a sample, and the group of each.

    Args:
        scores: of the items.
        metric: as the record or `beside` names it; not the extended sets' "ap" and "max_f1", which are no means.
        protocol: the record.
        switches: those that the items were scored under.

    Returns:
        float64 [n], NaN where a sample has none; a sample is an item, or a source (a column after the other in each
        item's row). Groups [n].

    Raises:
        UsageError: no such metric.
    """
    name, _, other = metric.partition(" (")
    column = BESIDE.get(other.rstrip(")"), "") if other else main_column(protocol, switches)
    column = name if name in ("nsa", "ap") else column
    kind, _, at = name.partition("@")
    values = scores.values.get(column)
    if values is None:
        return np.full(len(scores.keys), np.nan), list(scores.groups)
    flat = values.reshape(-1)
    groups: list[Hashable] = [group for group in scores.groups for _ in range(values[:1].size)]
    if kind in ("nsa", "ap") or (at and switches.value == "mean"):
        return flat, groups
    if kind == "auc":
        return metrics.auc_terms(flat), groups
    if kind == "loc_acc":
        return metrics.success(flat, extended.LOCATED), groups
    if kind in ("iou", "ciou") and at:
        return metrics.success(flat, float(at)), groups
    raise UsageError(f"metric {metric!r} is unknown; expected iou@t, ciou@t, auc, nsa, ap, max_f1 or loc_acc")


def _by_confidence(scores: Scores, name: str, switches: Switches, resamples: int, seed: int) -> Estimate | None:
    """Estimate AP or max-F1 of an extended set; positives whose truth was left out take no part."""
    values = scores.values
    if "confidence" not in values:
        return None
    positive = values["positive"] > 0
    known = ~positive | ~np.isnan(values.get("iou", np.full(len(positive), np.nan)))
    if not known.any():
        return None
    order = np.flatnonzero(known)  # of the items, for all predictors: equal draws of equal groups
    ious = values["iou"][order] if "iou" in values else np.zeros(len(order))
    confidences, positives = values["confidence"][order], positive[order]

    def statistic(places: Any) -> float:
        return _OF_CONFIDENCE[name](
            ious[places],
            confidences[places],
            positives[places],
            misplaced_is_miss=switches.misplaced_is_miss,
            all_thresholds=switches.all_thresholds,
        )

    groups = [scores.groups[place] for place in order]
    return extended.bootstrap(statistic, groups, seed=seed, resamples=resamples)
