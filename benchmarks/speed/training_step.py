"""One matching step of stage one at the paper's size: ours against the reference's form, and against the matmul peak.

Ours is what the product does: `stage_one.train_epoch` on one batch of a preset. The reference's form pushes the matched
and the mismatched picture of each pair, and its sound twice, through both networks (`_reference_step.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity
from torch.utils.flop_counter import FlopCounterMode

from dsol_core import losses, stage_one
from dsol_core.config import StageOneConfig
from dsol_core.types import AVBatch, LocalWorker, Worker
from speed import Ratio, Size, Stage, Value
from speed._reference_step import ReferenceStep

SAME = 1e-4  # largest difference of the two forms' losses
TABLE = 14  # rows of the profile


@dataclass(frozen=True)
class Case:
    """One recipe of ours.

    Attributes:
        name: of the rows.
        about: what it is; Markdown.
        config: of stage one.
        target: of the ratio to the reference's form.
        same: whether both forms give the same loss, which is then asserted; None: they are different methods.
        profiled: whether its profile is shown.
    """

    name: str
    about: str
    config: StageOneConfig
    target: float | None = None
    same: bool | None = True
    profiled: bool = False


def cases(size: Size) -> list[Case]:
    """Return music_paper, its variants and music_ours."""
    paper, ours = _config("music_paper", size), _config("music_ours", size)
    inside = replace(paper, negatives="batch")
    alone = replace(inside, backbone=replace(paper.backbone, norm="group"))
    cached = replace(alone, backbone=replace(alone.backbone, frozen=True))
    mixed = f"{ours.mixtures} mixtures a pair" if ours.mixtures else "no mixtures"
    return [
        Case(
            "negatives of the batch",
            "Preset music_paper with `stage_one.negatives=batch` (the mismatched picture is another one of the batch, "
            "whose features are there already) and `backbone.norm=group`: what a row gives does not depend on the rows "
            "beside it, so both forms have the same loss.",
            alone,
            target=2.0,
            profiled=True,
        ),
        Case(
            "negatives of the batch, batch norm",
            "The same with the preset's batch norm: mean and deviation of B pictures differ from those of the same "
            "pictures with repetitions, and so does the loss.",
            inside,
            same=False,
        ),
        Case(
            "negatives of the set",
            "Preset music_paper as it stands: each pair brings a picture of another video. Both forms see the same 2B "
            "pictures; ours hears each sound once.",
            paper,
        ),
        Case(
            "negatives of the batch, cached trunk",
            "As the first with `backbone.frozen=true`: the picture trunk's output comes from shards; what is left is "
            "the paper's ResNet-18 for sounds, which alone has a tenth of the reference's operations: to be 15 times "
            "as fast it would have to run near the limit. The reference trains both trunks.",
            cached,
            target=15.0,
        ),
        Case(
            "music_ours, cached trunk",
            f"Preset music_ours: cached EfficientNet-Lite0, slim sound trunk, {mixed}, all its losses. The "
            "reference's form is the paper's pair of ResNet-18: another method with another loss.",
            ours,
            target=15.0,
            same=None,
        ),
    ]


def _config(preset: str, size: Size) -> StageOneConfig:
    from flows import presets

    config = presets.load(preset).stage_one
    return replace(
        config,
        batch=size.of(config.batch, 4),
        image=replace(config.image, side=size.of(config.image.side, 64)),
        audio=replace(config.audio, standardise=False),  # measured in a pass before training, not in its steps
        backbone=replace(config.backbone, visual_weights=None),  # random ones cost the same
    )


def stages(size: Size) -> Iterator[Stage]:
    """Yield a stage for each case."""
    torch.set_num_threads(size.threads)
    for case in cases(size):
        yield stage_of(case, size)


def stage_of(case: Case, size: Size) -> Stage:
    """Make both forms, compare their losses, and return what is to be timed.

    Raises:
        SystemExit: the losses differ where they must not.
    """
    forms = Forms(case.config, _config("music_paper", size), size.seed)
    ours, reference = forms.our_loss(), forms.reference_loss()  # of the first step, from the same weights
    if case.same and not abs(ours - reference) <= SAME:
        raise SystemExit(
            f"{case.name}: loss {ours:.6f} of ours, {reference:.6f} of the reference's form; expected the same"
        )
    name = f"training step, {case.name}"
    bound = SAME if case.same else None
    flops = operations(forms)
    config = case.config
    return Stage(
        title=f"Training step: {case.name}",
        unit="pairs/s",
        about=f"{case.about} Batch {config.batch}, {config.image.side} px, float32, random inputs and weights. A step "
        f"of ours has {flops / 1e9:,.1f} GFLOP in convolutions and matrix products; the limit is the time that the "
        "product of two large matrices takes for as many, in the faster of torch's two libraries.",
        ways={
            "ours": forms.ours,
            "limit": lambda: matmul_limit(flops / config.batch, size.of(2048, 256)),
            "plain": forms.reference,
        },
        ratios=[
            Ratio(f"{name} / reference's form", of="ours", to="plain", target=case.target),
            Ratio(f"{name} / matmul peak", of="ours", to="limit", target=None),
        ],
        values=[]
        if case.same is None
        else [Value(f"{name}: difference of the losses", lambda: abs(ours - reference), bound)],
        notes=(lambda: profile(forms)) if case.profiled else None,
        repeats=size.of(3, 1),
        warm_up=0,  # the first losses were
    )


@dataclass(frozen=True)
class OneBatch:
    """Training data of one batch; satisfies `dsol_core.clustering.TrainingData`."""

    batch: AVBatch

    def train(self, epoch: int, part: int) -> Iterable[AVBatch]:
        """Give the batch."""
        return [self.batch]

    def sequential(self) -> Iterable[AVBatch]:
        """Give nothing: nothing is clustered here."""
        return []


class NoClustering:
    """Stands where a step that clusters nothing wants a k-means."""

    def fit(self, x: Any, k: int, seed: int, *, spherical: bool = True, restarts: int = 1) -> tuple[Any, Any]:
        """Refuse."""
        raise AssertionError("the measured epoch was to cluster nothing")


class Forms:
    """Our step and the reference's, on the same pairs and, where the networks are the same, from the same weights."""

    def __init__(self, config: StageOneConfig, paper: StageOneConfig, seed: int, worker: Worker | None = None) -> None:
        self.config, generator = config, torch.Generator().manual_seed(seed)
        self.worker: Worker = worker or LocalWorker()
        device = self.worker.device
        self.state = stage_one.start(config, 10**6, seed, self.worker)
        own = self.state.net if config.recipe == "paper" else stage_one.start(paper, 1, seed, self.worker).net
        self.plain = ReferenceStep(own)
        count, side = config.batch, config.image.side
        self.pictures, drawn = torch.randn(2, count, 3, side, side, generator=generator).to(device)
        length = 1 + paper.audio.sample_rate_hz // paper.audio.hop
        self.sounds = torch.randn(count, 1, length, paper.audio.mel_bins, generator=generator).to(device)
        keys = tuple(f"{row:03d}" for row in range(count))
        picks = losses.other_video(keys, torch.Generator().manual_seed(0))  # as the first step of seed 0 draws them
        self.others = self.pictures[picks.to(device)] if config.negatives == "batch" else drawn
        self.data = OneBatch(self._batch(keys, generator, device))
        self.state.labels = {key: row % config.clusters for row, key in enumerate(keys)}

    def _batch(self, keys: tuple[str, ...], generator: torch.Generator, device: Any) -> AVBatch:
        config, extra = self.config, {}
        visual = self.pictures
        if config.backbone.frozen:
            with torch.no_grad():
                visual = self.state.net.eval().trunk(self.pictures).contiguous()
        if config.negatives == "set":
            extra["other"] = self.others
        sounds = self.sounds
        if config.recipe != "paper":
            steps = 1 + config.audio.sample_rate_hz // config.audio.hop
            sounds = torch.randn(len(keys), 1, steps, config.audio.mel_bins, generator=generator).to(device)
        many = config.mixtures
        if many:
            extra["mixed"] = sounds.repeat_interleave(many, 0)
            extra["all_mixed_partners"] = tuple((row + 1) % len(keys) for row in range(len(keys)) for _ in range(many))
        return AVBatch(keys, keys, keys, keys, visual, sounds, config.backbone.frozen, **extra)

    def our_loss(self) -> float:
        """Make one step of ours and return its matching loss."""
        self.state.epoch = 0
        return stage_one.train_epoch(self.state, self.data, NoClustering(), self.worker)["matching"]

    def reference_loss(self) -> float:
        """Make one step of the reference's form and return its loss."""
        return self.plain(self.pictures, self.others, self.sounds)

    def ours(self) -> float:
        """Make one step of ours; return the pairs."""
        self.our_loss()
        return self.config.batch

    def reference(self) -> float:
        """Make one step of the reference's form; return the pairs."""
        self.reference_loss()
        return self.config.batch


def operations(forms: Forms) -> int:
    """Count the operations of the convolutions and matrix products of one step of ours, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        forms.ours()
    return int(counter.get_total_flops())


@cache
def operations_of_a_pair(preset: str) -> float:
    """Count the operations of a step of a preset as it stands, its picture trunk cached where that is frozen, a pair.

    A batch of two stands for its batch; only the scores of all pairs of a batch, a small part, grow faster.
    """
    whole = Size(quick=False, threads=torch.get_num_threads(), folder=Path())
    config = replace(_config(preset, whole), batch=2)
    return operations(Forms(config, replace(_config("music_paper", whole), batch=2), seed=0)) / 2


def matmul_limit(flops_per_pair: float, side: int) -> tuple[float, float]:
    """Multiply float32 matrices of `side` for a while; return pairs of as many operations, and the seconds.

    Once by BLAS and once as a 1x1 convolution, which oneDNN multiplies: either may be the faster one on a machine.
    """
    left, right = torch.randn(2, side, side)
    cells, weight = left.t().reshape(1, side, side, 1).contiguous(), right.reshape(side, side, 1, 1)
    out = left @ right
    found = [_rate(lambda: torch.mm(left, right, out=out), side), _rate(lambda: F.conv2d(cells, weight), side)]
    done, seconds = max(found, key=lambda one: one[0] / one[1])
    return done * 2 * side**3 / flops_per_pair, seconds


@torch.no_grad()
def _rate(multiply: Callable[[], Any], side: int) -> tuple[int, float]:
    """Return how many products are made for about half a second, and the seconds."""
    multiply()
    started, done = time.perf_counter(), 0
    while done < 3 or (time.perf_counter() - started < 0.5 and side > 1000):
        multiply()
        done += 1
    return done, time.perf_counter() - started


def profile(forms: Forms) -> str:
    """Return where the time of one step of ours goes, by `torch.profiler`, as a Markdown table."""
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profiler:
        forms.ours()
    rows = sorted(profiler.key_averages(), key=lambda row: -row.self_cpu_time_total)
    whole = sum(row.self_cpu_time_total for row in rows)
    lines = [
        "`torch.profiler`, one step of ours, time in the operation itself:",
        "",
        "| operation | calls | ms | share |",
    ]
    lines.append("| --- | --- | --- | --- |")
    for row in rows[:TABLE]:
        own = row.self_cpu_time_total
        lines.append(f"| `{row.key}` | {row.count} | {own / 1e3:,.1f} | {own / whole:.1%} |")
    rest = sum(row.self_cpu_time_total for row in rows[TABLE:])
    return "\n".join([*lines, f"| {len(rows) - TABLE} others | | {rest / 1e3:,.1f} | {rest / whole:.1%} |"])
