"""Trained recipes side by side: seeds averaged, intervals over videos, differences paired item by item. Not a step."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dsol_core import metrics
from dsol_core.benchmarks import BASELINES, MODEL, SCENE, SOLO, UNLABELLED, Benchmark
from dsol_core.types import DataError, Estimate
from tasks.adapters import tables
from tasks.adapters.provenance import told
from tasks.adapters.store import Artifact

RESAMPLES = 1000
GLANCE = ("iou@0.5", "ciou@0.3", "sciou@0.3", "silent_nsa", "audio_top2")  # the metrics that tell most
_WITHOUT_ITEMS = ("nmi", "purity")  # metrics of the dictionary, not of test items


@dataclass(frozen=True)
class Trained:
    """One recipe trained from one seed.

    Attributes:
        row: what it is called in the table.
        seed: of training.
        report: artifact of `evaluate`.
        stage_one: artifact of `train_stage_one`, for the curve.
        steps: the run's steps: name, state, seconds of those that ran now, or ran when they were made.
        videos: artifact of `make_videos`; None where the videos are the user's own.
    """

    row: str
    seed: int
    report: Artifact
    stage_one: Artifact
    steps: Sequence[Mapping[str, Any]]
    videos: Artifact | None = None

    @cached_property
    def benchmarks(self) -> dict[str, Benchmark]:
        """The test items by the name of their benchmark."""
        made: dict[str, Benchmark] = {}
        prefix = self.report.record["config"]["name"]
        for row in tables.read(self.report.file("items.parquet")):
            if row["split"] == "test":
                one = made.setdefault(f"{prefix}-{row['subset']}", Benchmark(row["subset"]))
                known = {name: row[name] for name in tables.ITEM_VALUES if row[name] is not None}
                one.add(row["item"], row["video_ids"], {MODEL: known})
        return made

    def parts(self, key: str) -> dict[str, float]:
        """Return each test item's part of a metric "<benchmark>/<metric>"; the metric is their mean."""
        name, _, metric = key.partition("/")
        one = self.benchmarks[name]
        return dict(zip(one.items, one.parts(MODEL, metric), strict=True))


class Comparison:
    """Rows of trained recipes over the same test items.

    Args:
        runs: every row's seeds; the first row is what the others are compared with.

    Raises:
        DataError: there is none, or the runs were tested on different items.
    """

    def __init__(self, runs: Sequence[Trained]) -> None:
        if not runs:
            raise DataError("nothing to compare; expected at least one trained row")
        self.runs = list(runs)
        self.rows = list(dict.fromkeys(one.row for one in runs))
        first = runs[0]
        for one in runs:
            for name, benchmark in first.benchmarks.items():
                if name not in one.benchmarks or one.benchmarks[name].items != benchmark.items:
                    raise DataError(
                        f"{one.row} (seed {one.seed}) was tested on other items of {name} than {first.row}; compare "
                        "rows over the same data"
                    )

    @property
    def keys(self) -> list[str]:
        """Metrics that have items, "<benchmark>/<metric>"; of data without labels those that need none."""

        def found(wanted: Callable[[Benchmark], Sequence[str]]) -> list[str]:
            return [
                f"{name}/{metric}"
                for name, benchmark in self.runs[0].benchmarks.items()
                for metric in wanted(benchmark)
                if not np.isnan(benchmark.parts(MODEL, metric)).all()
            ]

        return found(lambda one: SOLO if one.solo else SCENE) or found(lambda _: UNLABELLED)

    def of(self, row: str) -> list[Trained]:
        """Return a row's seeds."""
        return [one for one in self.runs if one.row == row]

    def values(self, row: str, key: str) -> list[float]:
        """Return a metric's value of each seed."""
        return [float(np.nanmean(list(one.parts(key).values()))) for one in self.of(row)]

    def items(self, row: str, key: str, seeds: Collection[int] = ()) -> Any:
        """Return each test item's part of a metric, averaged over the row's seeds, or these of them, float64 [N]."""
        chosen = [one for one in self.of(row) if not seeds or one.seed in seeds]
        return np.mean([list(one.parts(key).values()) for one in chosen], axis=0)

    def estimate(self, row: str, key: str) -> Estimate:
        """Return the mean over seeds with its interval over the test videos."""
        return self._bootstrap(self.items(row, key), key)

    def difference(self, row: str, key: str) -> Estimate:
        """Return how much a row is above the first one, paired by item, with its interval over the test videos.

        Of the seeds, those count that both rows have, so that a row of one seed is compared with that one; all, where
        they share none.
        """
        first = self.rows[0]
        shared = {one.seed for one in self.of(row)} & {one.seed for one in self.of(first)}
        halves = (self.items(row, key, shared) - self.items(first, key, shared) + 1) / 2  # bootstrapped in [0, 1]
        one = self._bootstrap(halves, key)
        return Estimate(2 * one.value - 1, 2 * one.low - 1, 2 * one.high - 1, one.n)

    def _bootstrap(self, values: Any, key: str) -> Estimate:
        groups = self.runs[0].benchmarks[key.partition("/")[0]].groups
        found = metrics.mean_estimate(values, groups, seed=0, resamples=RESAMPLES)
        assert found is not None
        return found

    def baselines(self) -> dict[str, dict[str, Any]]:
        """Return metric -> baseline -> estimate, of the first run's test items."""
        known: dict[str, dict[str, Any]] = json.loads(self.runs[0].report.file("baselines.json").read_text())
        return known

    def dictionary(self, row: str, metric: str) -> list[float]:
        """Return NMI or purity of each seed's dictionary; empty without labels."""
        found = []
        for one in self.of(row):
            known = json.loads(one.report.file("metrics.json").read_text())
            found += [value["value"] for key, value in known.items() if key.endswith(f"/{metric}")]
        return found

    def negatives(self, row: str) -> dict[str, list[float]]:
        """Return each seed's rates of detection and of false alarms, "<data>-negatives/<rate>" -> values."""
        found: dict[str, list[float]] = {}
        for one in self.of(row):
            for key, value in json.loads(one.report.file("metrics.json").read_text()).items():
                if "-negatives/" in key:
                    found.setdefault(key, []).append(value["value"])
        return found

    def curve(self, row: str) -> list[float]:
        """Return the matching loss of each epoch of stage one, averaged over the seeds."""
        seeds = []
        for one in self.of(row):
            history = tables.read(one.stage_one.file("history.parquet"))
            seeds.append([r["value"] for r in sorted(history, key=lambda r: r["epoch"]) if r["name"] == "matching"])
        return [statistics.mean(values) for values in zip(*seeds, strict=True)]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as a JSON value."""
        return {
            row: {
                "seeds": [one.seed for one in self.of(row)],
                "metrics": {key: vars(self.estimate(row, key)) | {"seeds": self.values(row, key)} for key in self.keys},
                "differences": {key: vars(self.difference(row, key)) for key in self.keys}
                if row != self.rows[0]
                else {},
                **{name: self.dictionary(row, name) for name in _WITHOUT_ITEMS},
                "negatives": self.negatives(row),
                "matching_loss": self.curve(row),
                "fingerprints": [one.report.fingerprint for one in self.of(row)],
            }
            for row in self.rows
        }


def page(comparison: Comparison, title: str, command: str) -> str:
    """Write a comparison as Markdown.

    Args:
        comparison: of trained rows.
        title: of the page.
        command: that makes the page again.
    """
    made = comparison.runs[0].report.record["provenance"]
    seeds = "; ".join(f"{row}: {', '.join(str(one.seed) for one in comparison.of(row))}" for row in comparison.rows)
    return "\n".join(
        [
            f"# {title}",
            "",
            f"    {command}",
            "",
            f"{told(made)} Seeds of training: {seeds}. Test split; every row has the same items.",
            "",
            *_glance(comparison),
            "Each cell: mean over the seeds (single seeds), below it the 95 % interval over the test videos.",
            "",
            *_metrics(comparison),
            *_negatives(comparison),
            *_differences(comparison),
            *_baselines(comparison),
            *_curves(comparison),
            *_sources(comparison),
            *_seconds(comparison),
        ]
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows]]
    return [*lines, ""]


def _glance(comparison: Comparison) -> list[str]:
    """Tell the leading metrics with one line a row of the comparison."""
    keys = [key for key in comparison.keys if key.partition("/")[2] in GLANCE] or comparison.keys
    rows = []
    for row in comparison.rows:
        cells = []
        for key in keys:
            away = comparison.difference(row, key)
            mark = "**" if away.low > 0 or away.high < 0 else ""
            cells.append(f"{mark}{comparison.estimate(row, key).value:.3f}{mark}")
        nmi = comparison.dictionary(row, "nmi")
        rows.append([row, *cells, f"{statistics.mean(nmi):.3f}" if nmi else ""])
    return [
        "At a glance, means over the seeds; bold where the interval of the paired difference to "
        f"`{comparison.rows[0]}`, of the seeds that both have, is without 0:",
        "",
        *_table(["row", *(key.replace("/", "<br>") for key in keys), "dictionary<br>nmi"], rows),
    ]


def _metrics(comparison: Comparison) -> list[str]:
    rows = []
    for key in comparison.keys:
        cells = []
        for row in comparison.rows:
            one, seeds = comparison.estimate(row, key), comparison.values(row, key)
            single = f" ({_listed(seeds)})" if len(seeds) > 1 else ""
            cells.append(f"{one.value:.3f}{single}<br>{one.low:.3f} - {one.high:.3f}")
        rows.append([key, *cells, str(comparison.estimate(comparison.rows[0], key).n)])
    for name in _WITHOUT_ITEMS:
        found = [comparison.dictionary(row, name) for row in comparison.rows]
        if all(found):
            cells = [f"{statistics.mean(values):.3f} ({_listed(values)})" for values in found]
            rows.append([f"dictionary/{name}", *cells, ""])
    return _table(["metric", *comparison.rows, "n"], rows)


def _negatives(comparison: Comparison) -> list[str]:
    known = {row: comparison.negatives(row) for row in comparison.rows}
    keys = list(dict.fromkeys(key for found in known.values() for key in found))
    if not keys:
        return []
    rows = []
    for key in keys:
        values = [found.get(key, []) for found in known.values()]
        rows.append([key, *(f"{statistics.mean(one):.3f} ({_listed(one)})" if one else "" for one in values)])
    return [
        "Does anything sound? Test pictures with their own sound (`detected`) and with negative audio, at the one "
        "threshold that separates them best on validation with silence and noise dark:",
        "",
        *_table(["rate", *comparison.rows], rows),
    ]


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def _differences(comparison: Comparison) -> list[str]:
    first, *others = comparison.rows
    if not others:
        return []
    rows = []
    for key in comparison.keys:
        found = [comparison.difference(row, key) for row in others]
        rows.append([key, *(f"{one.value:+.3f}<br>{one.low:+.3f} to {one.high:+.3f}" for one in found)])
    return [
        f"Differences to `{first}`, paired by item (95 % interval over the test videos):",
        "",
        *_table(["metric", *others], rows),
    ]


def _baselines(comparison: Comparison) -> list[str]:
    known = comparison.baselines()
    names = [name for name in BASELINES if any(name in found for found in known.values())]
    rows = []
    for key in comparison.keys:
        cells = [known.get(key, {}).get(name) for name in names]
        rows.append(
            [key, *(f"{one['value']:.3f}<br>{one['low']:.3f} - {one['high']:.3f}" if one else "" for one in cells)]
        )
    return [
        "Without learning, on the same items (`visual only`: the first run's maps without listening):",
        "",
        *_table(["metric", *names], rows),
    ]


def _curves(comparison: Comparison) -> list[str]:
    curves = {row: comparison.curve(row) for row in comparison.rows}
    lines = [f"- {row}: {' '.join(f'{value:.2f}' for value in values)}" for row, values in curves.items()]
    return ["Matching loss of stage one, epoch by epoch:", "", *lines, ""]


def _sources(comparison: Comparison) -> list[str]:
    """Tell what limits the test of photographs and recordings, from the sources.json of the videos."""
    videos = comparison.runs[0].videos
    if videos is None or "sources.json" not in videos.files():
        return []
    known = json.loads(videos.file("sources.json").read_text())
    shared = [name for name, one in known["classes"].items() if one["test_notes_in_training"]]
    phrases = known["classes_without_uninterrupted_test"]
    return [
        "What the videos are made of (`sources.json` of make_videos):",
        "",
        f"- classes without an uninterrupted test recording: {', '.join(phrases) or 'none'}",
        f"- classes whose training phrases may hold notes of the test: {', '.join(shared) or 'none'}",
        f"- files and videos left out because they could not be used: {len(known.get('dropped', []))}",
        "",
    ]


def _seconds_of(record: Mapping[str, Any]) -> float:
    """Return the seconds of a step, and of the training whose weights it took."""
    return float(record["seconds"] + record["notes"].get("trained_with", {}).get("seconds", 0.0))


def _seconds(comparison: Comparison) -> list[str]:
    lines = ["Seconds of each step when it was made:", ""]
    for one in comparison.runs:
        store = one.report.folder.parents[1]
        parts = [(s["name"], store / s["name"] / str(s["fingerprint"]) / "artifact.json") for s in one.steps]
        records = [(name, json.loads(path.read_text())) for name, path in parts if path.exists()]
        took = [f"{name} {_seconds_of(made):.0f}" for name, made in records]
        lines.append(f"- {one.row}, seed {one.seed}: {', '.join(took)}")
    return [*lines, ""]


def write(comparison: Comparison, out: Path, title: str, command: str) -> None:
    """Write the page, and its figures as JSON beside it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(comparison, title, command))
    out.with_suffix(".json").write_text(json.dumps(comparison.as_dict(), indent=1))
