"""shards + stage two + dictionary -> predictions.parquet: maps and sounding probabilities of val and test frames.

`negatives.parquet` beside it: what the model says about the pictures with several objects when it hears silence, noise,
or the sound of something that is not in the picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dsol_core.config import StageTwoConfig
from tasks.adapters.steps import Run, StepOutput, step
from tasks.adapters.store import Artifact

if TYPE_CHECKING:
    from dsol_core.types import Prediction
    from tasks.adapters.negatives import OffScreen
    from tasks.adapters.shards import Sample, Shard

Row = dict[str, Any]
BATCH = 32  # frames that go through the network together
GROUP = 256  # rows of a row group: what is held in memory


@dataclass(frozen=True)
class Job:
    """One shard to predict, the files of both networks and of the dictionary, and its pictures' off-screen sounds."""

    folder: Path
    shard: Shard
    first: Path
    model: Path
    dictionary: Path
    offscreen: Mapping[str, OffScreen] = field(default_factory=dict)


class Predicted(NamedTuple):
    """Rows of a shard for `predictions.parquet` and `negatives.parquet`."""

    rows: list[Row]
    negatives: list[Row]


@step
def predict_maps(
    run: Run, shards: Artifact, stage_one: Artifact, stage_two: Artifact, dictionary: Artifact
) -> Artifact:
    """Read shards, models and dictionary, write one row a frame of the solo, multi and grid shards of val and test.

    The class maps are stage two's, the map of "anything that sounds" is stage one's, as in the paper's protocols.
    """

    def write(out: StepOutput) -> None:
        from dsol_core import checkpoint
        from tasks.adapters import negatives, tables
        from tasks.adapters.cluster import map_tasks
        from tasks.adapters.features import SPLITS, trunk_features
        from tasks.adapters.shards import read_manifest

        model = stage_two.file("model.safetensors")
        trained = checkpoint.load(model)
        assert isinstance(trained.config, StageTwoConfig)
        source = trunk_features(run, shards, trained.stage_one, "evaluation", trained.config.test_scale)
        content, known = read_manifest(source.folder)
        listed = [shard for shard in known if shard.split in SPLITS["evaluation"]]
        entries = dictionary.file("dictionary.safetensors")
        first = stage_one.file("model.safetensors")
        sounds = negatives.offscreen(source.folder, content, listed)
        jobs = [Job(source.folder, one, first, model, entries, sounds.get(one.path, {})) for one in listed]
        total = sum(shard.samples for shard in listed)
        asked: list[Row] = []  # a few numbers a picture

        def rows() -> Iterator[Row]:
            done = 0
            for part in map_tasks(predict_shard, jobs, compute=run.compute):
                yield from part.rows
                asked.extend(part.negatives)
                done += len(part.rows)
                out.progress(done, total, "predicting")

        written = tables.write(out.folder / "predictions.parquet", "predictions", rows(), group=GROUP)
        tables.write(out.folder / "negatives.parquet", "negatives", asked)
        out.rows(read=total, written=written, dropped={"damaged sample": total - written} if written < total else {})

    parents = {"shards": shards, "stage_one": stage_one, "stage_two": stage_two, "dictionary": dictionary}
    return run.step("predict_maps", {}, parents, write)


def predict_shard(job: Job) -> Predicted:
    """Predict every whole sample of a shard; pictures with several objects with negative sounds too."""
    from dataclasses import replace

    from dsol_core import image, stage_one, stage_two
    from dsol_core.negatives import SUBSETS, trunk_once
    from tasks.adapters import negatives
    from tasks.adapters.inputs import Recipe, evaluation_batch
    from tasks.adapters.shards import ShardReader

    first, net, entries = _networks(job.first, job.model, job.dictionary)
    asks = job.shard.subset in SUBSETS
    scale = net.config.test_scale if asks else 1
    front = image.scaled(first.config.image, scale, first.config.backbone.visual_stride)
    recipe = Recipe(first.config.audio, front, BATCH, windows=net.config.windows)
    reader = ShardReader(job.folder, (job.shard.subset,), job.shard.split)
    samples, made = reader.of(job.shard), Predicted([], [])
    while group := list(islice(samples, BATCH)):
        batch = evaluation_batch(group, recipe, reader.content)
        seen = trunk_once(net, batch) if asks else batch
        predictions = stage_two.predict(net, seen, entries)
        for sample, prediction, heat in zip(group, predictions, stage_one.localise(first, batch), strict=True):
            made.rows.append(_row(job.shard, sample, replace(prediction, agnostic=heat)))
        if asks:
            made.negatives.extend(negatives.predict(net, seen, group, job.offscreen, job.shard, reader.content, recipe))
    return made


@lru_cache(maxsize=1)
def _networks(first: Path, model: Path, dictionary: Path) -> tuple[Any, Any, Any]:
    from dsol_core import checkpoint

    entries = checkpoint.load_dictionary(dictionary)
    return checkpoint.load(first).network(), checkpoint.load(model).network(), entries


def _row(shard: Shard, sample: Sample, prediction: Prediction) -> Row:
    meta = sample.meta
    return {
        "item": sample.key,
        "subset": shard.subset,
        "split": shard.split,
        **{name: meta[name] for name in ("video_ids", "categories", "boxes", "height", "width")},
        "maps": prediction.maps.astype("float32").ravel(),  # see tables.SCHEMAS
        "visual": prediction.visual.astype("float16").ravel(),
        "agnostic": prediction.agnostic.astype("float16").ravel(),
        "sounding": prediction.sounding,
        "heard": prediction.heard,
    }
