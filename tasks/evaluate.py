"""predictions + annotations -> metrics.json, baselines.json, items.parquet, report.html: how good the maps are.

Test frames make `metrics.json`, validation frames `validation.json` (what settings are chosen on). `left_out.json`
says which metrics could not be had and why. Test frames are also scored under the rules of the published evaluators
("<data>-grid.reference/..." and "<data>-grid.correct/..."), and pictures that hear what is not there make
"<data>-negatives/...".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from dsol_core.config import ExperimentConfig
from dsol_core.types import DataError
from tasks.adapters.names import given_names
from tasks.adapters.steps import Run, StepOutput, step
from tasks.adapters.store import Artifact, write_json

if TYPE_CHECKING:
    from dsol_core.benchmarks import Benchmark, Frame, Judge
    from dsol_core.dictionary import ObjectDictionary
    from dsol_core.operating import Detections
    from dsol_core.own_protocols import Rules
    from dsol_core.types import Estimate
    from tasks.adapters.report import Report

Estimates = dict[str, "Estimate"]


class Data(Protocol):
    """What the data steps made."""

    @property
    def videos(self) -> Artifact:
        """Of ingest_videos."""

    @property
    def clips(self) -> Artifact:
        """Of index_clips."""

    @property
    def scenes(self) -> Artifact:
        """Of mix_scenes."""

    @property
    def shards(self) -> Artifact:
        """Of write_shards."""


@step
def evaluate(
    run: Run,
    predictions: Artifact,
    data: Data,
    stage_one: Artifact,
    dictionary: Artifact,
    stage_two: Artifact,
    experiment: ExperimentConfig,
) -> Artifact:
    """Read predictions and what is annotated, write metrics with intervals, baselines, items and the report."""
    parents = {
        "videos": data.videos,
        "clips": data.clips,
        "scenes": data.scenes,
        "shards": data.shards,
        "stage_one": stage_one,
        "dictionary": dictionary,
        "stage_two": stage_two,
        "predictions": predictions,
    }

    names = given_names(dictionary)

    def write(out: StepOutput) -> None:
        from dsol_core import checkpoint
        from tasks.adapters import report

        entries = checkpoint.load_dictionary(dictionary.file("dictionary.safetensors")).named(names)
        judge = make_judge(entries, experiment)
        made = score_items(out, predictions, judge, experiment)
        content = Results(parents, experiment, entries, judge, made).content()
        write_json(out.folder / "metrics.json", plain(content.metrics))
        write_json(out.folder / "validation.json", plain(content.validation))
        write_json(out.folder / "baselines.json", {key: plain(one) for key, one in content.baselines.items()})
        write_json(out.folder / "left_out.json", content.left_out)
        out.metrics({name: one.value for name, one in content.metrics.items()})
        out.progress(1, 1, "drawing the report")
        report.write(out.folder, content)

    data_names = {"name": experiment.data.name, "multi": experiment.data.multi_name}
    config = {"evaluation": experiment.evaluation, **data_names, "names": names}
    return run.step("evaluate", config, parents, write)


def make_judge(entries: ObjectDictionary, experiment: ExperimentConfig) -> Judge:
    """Return who scores frames by this dictionary."""
    from dsol_core.benchmarks import Judge
    from dsol_core.scoring import Classes

    classes = Classes.of(entries.names, entries.categories)
    return Judge(classes, entries.categories is not None, experiment.evaluation)


def plain(values: Mapping[str, Estimate]) -> dict[str, Any]:
    """Make estimates JSON."""
    return {name: asdict(one) for name, one in values.items()}


def read_frame(row: Mapping[str, Any]) -> Frame:
    """Make a frame of a row of predictions.parquet.

    Raises:
        DataError: the maps are not square, do not fit each other or hold NaN.
    """
    import numpy as np

    from dsol_core.benchmarks import Frame
    from dsol_core.scoring import Answer
    from tasks.adapters import tables

    sounding, heard = (np.array(row[name], dtype=np.float64) for name in ("sounding", "heard"))
    side, size = math.isqrt(len(row["agnostic"])), (len(sounding), len(row["agnostic"]))
    if side**2 != size[1] or not len(row["maps"]) == len(row["visual"]) == size[0] * size[1]:
        raise DataError(
            f"item {row['item']}: {len(row['maps'])}, {len(row['visual'])} and {size[1]} values for {size[0]} entries "
            "are no square maps; run --force predict_maps"
        )
    maps, visual, agnostic = (np.array(row[name], dtype=np.float32) for name in ("maps", "visual", "agnostic"))
    if not all(np.isfinite(values).all() for values in (maps, visual, agnostic, sounding, heard)):
        raise DataError(
            f"item {row['item']} has maps that are not finite: training diverged; lower the learning rate and run "
            "--from train_stage_one"
        )
    shape = (len(sounding), side, side)
    answer = Answer(maps.reshape(shape), agnostic.reshape(side, side), sounding, heard)
    boxes = tuple(tables.box(one) for one in row["boxes"] or ())
    return Frame(answer, visual.reshape(shape), boxes, tuple(row["categories"] or ()))


class Scored(NamedTuple):
    """What the rows of the predictions add up to.

    Attributes:
        benchmarks: by split and subset's name.
        rules: the test frames under the published evaluators' rules.
        detections: by split: whether anything sounds, with the pictures' own and with negative sounds.
        notes: by split: by which rule the off-screen sounds were chosen -> how many.
    """

    benchmarks: dict[tuple[str, str], Benchmark]
    rules: Rules
    detections: dict[str, Detections]
    notes: dict[str, Counter[str]]


def score_items(out: StepOutput, predictions: Artifact, judge: Judge, experiment: ExperimentConfig) -> Scored:
    """Score every frame once, write items.parquet and return the scores."""
    from dsol_core.benchmarks import Benchmark
    from dsol_core.own_protocols import Rules, records
    from tasks.adapters import negative_scores, tables

    path, data = predictions.file("predictions.parquet"), experiment.data
    total, made = tables.count(path), dict[tuple[str, str], Benchmark]()
    protocols = records(data.name, data.multi_name, experiment.evaluation)
    rules = Rules(protocols, judge.classes, labelled=judge.labelled)
    detections, notes = negative_scores.read(predictions)

    def rows() -> Iterator[dict[str, Any]]:
        for done, row in enumerate(tables.read(path, batch=64)):
            subset = data.multi_name if row["subset"] == "multi" else row["subset"]
            benchmark = made.setdefault((row["split"], subset), Benchmark(subset))
            frame = read_frame(row)
            judge.score(benchmark, row["item"], row["video_ids"], frame, baselines=row["split"] == "test")
            if row["split"] == "test":
                rules.add(subset, row["item"], row["video_ids"], frame)
            negative_scores.add_positive(detections, row, frame)
            yield _item_row(benchmark, row, judge)
            out.progress(done + 1, total, "scoring")

    written = tables.write(out.folder / "items.parquet", "items", rows())
    if not written:
        raise DataError("predictions.parquet is empty; expected frames of the val and test splits, see data.videos")
    out.rows(read=total, written=written)
    return Scored(made, rules, detections, notes)


def _item_row(benchmark: Benchmark, row: Mapping[str, Any], judge: Judge) -> dict[str, Any]:
    from dsol_core.benchmarks import MODEL

    values = {name: column[-1] for name, column in benchmark.values[MODEL].items() if not math.isnan(column[-1])}
    loudest = judge.classes.names[judge.classes.of_entry[benchmark.loudest[-1]]]
    kept = {name: row[name] for name in ("item", "split", "video_ids")}
    return {**kept, "subset": benchmark.subset, **values, "loudest": loudest}


class Results:
    """What the scored items add up to."""

    def __init__(
        self,
        parents: Mapping[str, Artifact],
        experiment: ExperimentConfig,
        entries: ObjectDictionary,
        judge: Judge,
        scored: Scored,
    ) -> None:
        from dsol_core.benchmarks import best_centre
        from dsol_core.operating import choose

        made = scored.benchmarks
        self.parents, self.experiment, self.entries, self.judge = parents, experiment, entries, judge
        self.centre = best_centre(made.get(("val", "solo")))
        order = ("solo", "grid", experiment.data.multi_name)
        self.splits = {
            split: {name: made[split, name].with_centre(self.centre) for name in order if (split, name) in made}
            for split in ("val", "test")
        }
        self.rules = scored.rules.estimates(experiment.evaluation.bootstrap)
        self.scored, self.point = scored, choose(scored.detections["val"])

    def metrics(self, split: str) -> Estimates:
        """Return the model's estimates of a split by "<data>-<subset>/<metric>"."""
        from dsol_core.benchmarks import MODEL

        found: Estimates = {}
        for name, benchmark in self.splits[split].items():
            resamples = self.experiment.evaluation.bootstrap
            found |= {self.key(name, m): one for m, one in benchmark.estimates(MODEL, resamples).items()}
            found[self.key(name, "evenness")] = benchmark.evenness(len(self.entries.names), resamples)
        return found

    def key(self, subset: str, metric: str) -> str:
        """Return a metric's name."""
        return f"{self.experiment.data.name}-{subset}/{metric}"

    def baselines(self) -> dict[str, Estimates]:
        """Return the baselines of the test split by metric."""
        from dsol_core.benchmarks import BASELINES

        found: dict[str, Estimates] = {}
        for name, benchmark in self.splits["test"].items():
            for baseline in BASELINES:
                for metric, one in benchmark.estimates(baseline, self.experiment.evaluation.bootstrap).items():
                    found.setdefault(self.key(name, metric), {})[baseline] = one
        return found

    def dictionary_quality(self) -> Estimates:
        """Return NMI and purity of the training clips' clusters; nothing without labels."""
        from dsol_core.benchmarks import dictionary_quality
        from tasks.adapters import tables

        if not self.judge.labelled:
            return {}
        rows = tables.read(self.parents["dictionary"].file("clusters.parquet"))
        clusters = {row["key"]: int(row["cluster"]) for row in rows}
        clips = tables.clips(self.parents["clips"].file("clips.parquet"))
        labels = {one.id: (one.video_id, one.categories[0]) for one in clips if one.id in clusters and one.categories}
        found = dictionary_quality(clusters, labels, self.experiment.evaluation.bootstrap)
        return {self.key("solo", name): one for name, one in found.items()}

    def negatives(self, split: str) -> Estimates:
        """Return the rates of a split at the operating threshold; of validation frames the threshold itself too."""
        from dsol_core.operating import rates
        from dsol_core.types import Estimate

        if self.point is None:
            return {}
        found = rates(self.scored.detections[split], self.point, self.experiment.evaluation.bootstrap)
        if split == "val":  # it is chosen, not estimated: its interval is itself
            at = self.point.threshold
            found[f"threshold.{self.point.score}"] = Estimate(at, at, at, self.point.n)
        return {self.key("negatives", name): one for name, one in found.items()}

    def left_out(self) -> list[dict[str, str]]:
        """Return the metrics that could not be had, with the reason."""
        from tasks.adapters import negative_scores

        found = [
            {"metric": self.key(name, metric), "reason": reason}
            for name, benchmark in self.splits["test"].items()
            for metric, reason in benchmark.left_out().items()
        ]
        side = self.experiment.evaluation.side
        for name, benchmark in self.splits["test"].items():
            for category, count in sorted(benchmark.too_thin.items()):
                reason = f"{count} box(es) of {category} cover no pixel of the {side} x {side} grid; they are left out"
                found.append({"metric": self.key(name, "iou@0.5" if benchmark.solo else "ciou@0.3"), "reason": reason})
        for name in ("solo", "grid", self.experiment.data.multi_name):
            if name not in self.splits["test"]:
                found.append({"metric": self.key(name, "*"), "reason": "no frames of it in the test split"})
        if not self.judge.labelled:
            reason = "the training clips have no labels"
            found += [{"metric": self.key("solo", name), "reason": reason} for name in ("nmi", "purity")]
        if self.centre is None:
            reason = "no boxes on validation solos to choose its size on"
            found.append({"metric": self.key("solo", "centre box"), "reason": reason})
        unscored = self.scored.rules.left_out(self.rules)
        heard, sources = self.scored.detections["test"], self.scored.notes["test"]
        unscored |= negative_scores.left_out(self.key("negatives", ""), heard, sources, self.point)
        return found + [{"metric": metric, "reason": reason} for metric, reason in unscored.items()]

    def content(self) -> Report:
        """Return all that the report shows."""
        from tasks.adapters import gallery, report

        metrics = self.metrics("test") | self.dictionary_quality() | self.rules | self.negatives("test")
        scenes = gallery.choose(self.splits["test"], self.experiment.evaluation.gallery)
        rows = gallery.find_rows(self.parents["predictions"].file("predictions.parquet"), scenes)
        frames = {item: (row, read_frame(row)) for item, row in rows.items()}
        return report.Report(
            name=self.experiment.data.name,
            experiment=self.experiment,
            metrics=metrics,
            validation=self.metrics("val") | self.negatives("val"),
            baselines=self.baselines(),
            left_out=self.left_out(),
            benchmarks=self.splits["test"],
            entries=self.entries,
            classes=self.judge.classes,
            centre=self.centre,
            parents=self.parents,
            rules=self.scored.rules.protocols,
            point=self.point,
            pictures=gallery.draw(scenes, frames, self.parents["shards"].folder, self.judge),
        )
