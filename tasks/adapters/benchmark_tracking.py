"""Scores of a benchmark -> MLflow: a run an evaluation, metric keys such as `vgg-ss.correct.iou_at_0.5`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dsol_core.protocols import Mode
from tasks.adapters.benchmark_scores import Result
from tasks.adapters.tracking import Tracker
from tasks.adapters.tracking_store import tracking_uri, without_password

EXPERIMENT = "dsol benchmarks"


def metric_keys(benchmark: str, results: Mapping[Mode, Result]) -> dict[str, Any]:
    """Return what is logged: key -> {"value", "low", "high", "n"}, or a number.

    Keys are `<benchmark>.<mode>.<metric>`, `<benchmark>.<mode>.<predictor>.<metric>` for the predictors beside the
    system, and `<benchmark>.<mode>.coverage`.
    """
    found: dict[str, Any] = {}
    for mode, one in results.items():
        start = f"{benchmark}.{mode}"
        found[f"{start}.coverage"] = one.coverage
        for predictor, metrics in {"": one.metrics, **one.beside}.items():
            place = f"{start}.{predictor.replace(' ', '_')}" if predictor else start
            found |= {f"{place}.{_word(name)}": asdict(value) for name, value in metrics.items()}
    return found


def tell_mlflow(store: Path, benchmark: str, summary: dict[str, Any], results: Mapping[Mode, Result]) -> dict[str, Any]:
    """Log an evaluation; a store that cannot be reached costs a warning.

    Returns:
        {"uri", "run_id" (None where nothing was logged), "complete"}.
    """
    tracker = Tracker(tracking_uri(store), EXPERIMENT)
    params: dict[str, Any] = {"benchmark": benchmark, "modes": ",".join(results)}
    params |= {key: str(summary[key]) for key in ("model", "predictions") if key in summary}
    tags = {"dsol.benchmark": benchmark, "dsol.fingerprint": summary["fingerprint"], "dsol.folder": summary["folder"]}
    tracker.start(f"evaluate {benchmark}", tags, params)
    tracker.finish({**summary, "metrics": metric_keys(benchmark, results)})
    place = without_password(tracker.uri)
    return {"uri": place, "run_id": tracker.run_id, "complete": tracker.run_id is not None and not tracker.untracked}


def _word(metric: str) -> str:
    """Return "ciou@0.3.per_source" for "ciou@0.3 (per source)"."""
    name, _, beside = metric.partition(" (")
    return f"{name}.{beside.rstrip(')').replace(' ', '_')}" if beside else name
