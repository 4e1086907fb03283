"""Stage two: what is seen sounding must agree with what is heard (paper section 3.3); inference on a batch.

Before the scenes the sound network practises hearing (ours): it hears mixtures of solo clips whose dictionary entries
are known, as mix-and-separate methods do, and noise in which nothing sounds. What it has then learnt is the teacher of
the scenes. The paper's teacher has heard single sources only, and a network that never heard a mixture names barely
more than one of its sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dsol_core import hearing, losses
from dsol_core.clustering import TrainingData, move
from dsol_core.config import StageTwoConfig
from dsol_core.dictionary import ObjectDictionary
from dsol_core.optimising import Means, learning_rate, make_optimizer, update
from dsol_core.stage_one import mismatched_map, mixed_targets, pooled_share
from dsol_core.stage_one_net import StageOneNet
from dsol_core.stage_two_net import StageTwoNet, StageTwoOutput, build_stage_two, seen_clearly
from dsol_core.types import AVBatch, CheckpointError, DataError, Prediction, Worker

# Parameters that the practice in hearing leaves as they are.
NOT_HEARING = (
    "factor",
    "offset",
    *(f"stage_one.{part}" for part in ("trunk", "upper", "adapter", "project_", "scale")),
)


def trained(config: StageTwoConfig) -> StageTwoConfig:
    """Return the config with the settings that no weight depends on at their defaults.

    They say how a trained network is read: how class maps are gated, how much sound is heard, how large a picture.
    """
    read = ["seen_exponent", "presence_midpoint", "presence_power", "test_scale"]
    if config.teacher == "presence":  # or else the gated maps are what is matched, and one window is all there is
        read += ["gating", "windows"]
    if config.epochs == 0:  # scenes are trained on by their class maps
        read += ["background", "map_temperature"]
    defaults: dict[str, Any] = {one.name: one.default for one in fields(config) if one.name in read}
    return replace(config, **defaults)


@dataclass
class StageTwoState:
    """Everything that training changes, and the frozen teacher.

    Attributes:
        config: of the stage.
        seed: of all random choices, together with the epoch.
        steps: optimizer steps of the whole training, for the learning rate.
        net: the student.
        teacher: stage one as it was, or as the practice in hearing left it.
        wrapped: the student, ready for data-parallel training.
        optimizer: of the student.
        epoch: epochs done.
        step: optimizer steps done.
        history: the statistics of each epoch.
    """

    config: StageTwoConfig
    seed: int
    steps: int
    net: StageTwoNet
    teacher: StageOneNet
    wrapped: Any
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers, strings, lists and dicts only (`torch.load(weights_only=True)` reads it)."""
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "steps": self.steps,
            "seed": self.seed,
            "history": [dict(row) for row in self.history],
            "teacher": self.teacher.state_dict() if 0 < self.config.hearing_passes <= self.epoch else None,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.net.load_state_dict(saved["net"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.epoch, self.step, self.steps, self.seed = (saved[k] for k in ("epoch", "step", "steps", "seed"))
        self.history = [dict(row) for row in saved["history"]]
        if saved["teacher"] is not None:
            self.teacher.load_state_dict(saved["teacher"])


@dataclass(frozen=True)
class Practice:
    """What the sound network practises with.

    Attributes:
        data: solo clips, with mixtures of them (`StageTwoConfig.hearing_mixtures` a clip).
        entries: key of each clip -> its entry of the dictionary.
        steps: batches of a pass, for the learning rate.
    """

    data: TrainingData
    entries: Mapping[str, int]
    steps: int


def start(
    config: StageTwoConfig, stage_one: StageOneNet, dictionary: ObjectDictionary, steps: int, seed: int, worker: Worker
) -> StageTwoState:
    """Make stage two from a trained stage one, which stays unchanged and becomes the teacher.

    Raises:
        CheckpointError: the dictionary does not fit the network.
    """
    teacher = stage_one.to(worker.device).eval()
    net = build_stage_two(config, teacher, torch.from_numpy(np.asarray(dictionary.centers, np.float32)))
    optimizer = make_optimizer(config, net.named_parameters(), teacher.config.backbone.block_rate)
    return StageTwoState(config, seed, max(1, steps), net, teacher, worker.wrap(net), optimizer)


def train_epoch(
    state: StageTwoState, data: TrainingData | None, worker: Worker, practice: Practice | None = None
) -> dict[str, float]:
    """Train one epoch: a pass over the solo clips while the practice lasts, then passes over the scenes.

    Args:
        state: of the training.
        data: the scenes; needed after the practice.
        worker: the cluster, or `LocalWorker()`.
        practice: needed where the config asks for hearing passes.

    Returns:
        Means over the epoch's batches, also appended to `state.history`.

    Raises:
        DataError: what the epoch needs was not given.
    """
    passes = state.config.hearing_passes
    practising = state.epoch < passes
    if practising and practice is None:
        raise DataError(f"stage_two.hearing_passes is {passes} and no solo clips are given; give some, or set it to 0")
    source = practice.data if practising and practice else data
    if source is None:
        raise DataError(f"epoch {state.epoch} of stage two trains on scenes and none are given; expected their batches")
    means = Means()
    state.net.train()
    for module in state.net.picture_branch() if practising else ():
        module.eval()  # what only sees keeps its batch statistics too
    for number, batch in enumerate(source.train(state.epoch, 0)):
        if practising and practice:
            means.add(_hearing_step(state, batch, number, worker, practice))
        else:
            means.add(_step(state, move(batch, worker.device), number, worker))
    state.epoch += 1
    if practising and state.epoch == passes:
        state.teacher.load_state_dict(state.net.stage_one.state_dict())
        state.step = 0  # the scenes have a learning rate cycle of their own
    state.history.append(means.result())
    return dict(state.history[-1])


def _hearing_step(
    state: StageTwoState, batch: AVBatch, number: int, worker: Worker, practice: Practice
) -> dict[str, Tensor]:
    """Learn which entries sound in single clips, in mixtures of two and in noise (none)."""
    config, first = state.config, state.net.stage_one.config
    batch, replaced = hearing.with_noise(batch, config.hearing_noise, first.audio, (state.seed, state.epoch, number))
    batch = move(batch, worker.device)
    out: StageTwoOutput = state.wrapped(batch.visual, batch.log_mels, features=batch.features, mixed=batch.mixed)
    if out.mixed_presence is None:
        raise DataError("the practice in hearing got no mixtures; its loader's recipe must make some")
    if missing := [key for key in batch.all_keys if key not in practice.entries]:
        raise DataError(f"{len(missing)} clips such as {missing[0]} are in no entry; run --force build_dictionary")
    targets = torch.tensor([practice.entries[key] for key in batch.all_keys], device=worker.device)
    single = F.one_hot(targets, len(state.net.dictionary)).float()
    both = mixed_targets(single, batch) * ~replaced.to(worker.device).unsqueeze(1)
    parts = {
        "presence": losses.presence(worker.gather(out.presence), single),
        "mixtures": losses.presence(worker.gather(out.mixed_presence), both),
    }
    loss = parts["presence"] + parts["mixtures"]
    rate = learning_rate(config, state.step, practice.steps * config.hearing_passes, config.hearing_rate)
    update(state, [state.optimizer], loss, out, NOT_HEARING, rate)
    return parts


def _step(state: StageTwoState, batch: AVBatch, number: int, worker: Worker) -> dict[str, Tensor]:
    config = state.config
    out: StageTwoOutput = state.wrapped(batch.visual, batch.log_mels, features=batch.features, other=batch.other)
    target = worker.gather(teach(state, batch))
    if config.teacher == "presence":
        presence = worker.gather(out.presence)
        seen = worker.gather(seen_clearly(out.class_maps))
        student = torch.sigmoid(presence) * seen + 1e-4
        sharp = target.pow(2)
        parts = {
            "category": losses.category(
                (student / student.sum(1, keepdim=True)).log(),
                sharp / sharp.sum(1, keepdim=True),
                reduction=config.reduction,
            ),
            "presence": losses.presence(presence, target),
        }
    else:
        pooled = worker.gather(out.gated.mean((2, 3)))
        parts = {"category": losses.category(F.log_softmax(pooled, 1), target, reduction=config.reduction)}
    parts["matching"] = config.matching_weight * _matching(state, out, batch, number, worker)
    loss = torch.stack(list(parts.values())).sum()
    gated = config.teacher == "softmax" and config.gating in ("product", "min")
    idle = () if gated or config.matching == "binary" else ("stage_one.scale",)  # no loss reads the map then
    update(state, [state.optimizer], loss, out, idle, learning_rate(config, state.step, state.steps))
    return parts


@torch.no_grad()
def teach(state: StageTwoState, batch: AVBatch) -> Tensor:
    """Return the frozen teacher's opinion of which entries sound, [B, K].

    "softmax" (code): a distribution from the class layer. "presence" (ours): heard times seen, 1 for the clearest.
    """
    teacher = state.teacher
    heard, _ = teacher.hear(batch.log_mels)
    if state.config.teacher == "softmax":
        return torch.softmax(teacher.class_audio(heard), 1)
    seen, visual = teacher.see(batch.visual, features=batch.features)
    clear = seen_clearly(state.net.class_maps(seen, visual))
    both = torch.sigmoid(teacher.presence(heard)) * clear
    return both / both.amax(1, keepdim=True).clamp_min(1e-6)


def _matching(state: StageTwoState, out: StageTwoOutput, batch: AVBatch, number: int, worker: Worker) -> Tensor:
    """Return the localisation loss of the global batch."""
    config, stage_one = state.config, state.net.stage_one.config
    visual, audio = worker.gather(out.visual), worker.gather(out.audio)
    if config.matching == "contrastive":
        ignored = losses.same_video(batch.all_video_ids).to(audio.device)
        scores = losses.pair_scores(visual, audio, pooled_share(stage_one), state.net.stage_one.sharpness())
        return losses.contrastive(scores, stage_one.temperature, ignored)
    if config.negatives == "set" and out.other_map is None:
        raise DataError('stage_two.negatives is "set" but the loader gave no other pictures (AVBatch.other)')
    seed = (state.seed * 1000 + state.epoch) * 100_003 + number
    mismatched = mismatched_map(out.other_map, out.scale, visual, audio, batch, seed, worker)
    return losses.mosaic_matching(worker.gather(out.map), mismatched, quadrants=config.quadrant_negatives)


@torch.no_grad()
def predict(net: StageTwoNet, batch: AVBatch, dictionary: ObjectDictionary) -> list[Prediction]:
    """Localise the entries of the dictionary in each row of a batch, in evaluation mode.

    Args:
        net: stage two.
        batch: of any size; only keys, `visual`, `log_mels` (with any number of windows) and `features` are used.
        dictionary: the one that the network was trained with.

    Raises:
        CheckpointError: it is another dictionary.
    """
    if net.dictionary.shape != np.shape(dictionary.centers) or not np.allclose(
        net.dictionary.cpu().numpy(), dictionary.centers, atol=1e-5
    ):
        raise CheckpointError(
            f"dictionary {np.shape(dictionary.centers)} is not the one that stage two was trained with "
            f"{tuple(net.dictionary.shape)}; take both from the same run"
        )
    net.eval()
    batch = move(batch, net.dictionary.device)
    out: StageTwoOutput = net(batch.visual, batch.log_mels, features=batch.features)
    shown = (net.shown(out.gated), net.shown(out.class_maps), out.map, out.sounding, out.heard)
    arrays = [t.float().cpu().numpy() for t in shown]
    return [Prediction(key, *(array[row] for array in arrays)) for row, key in enumerate(batch.keys)]
