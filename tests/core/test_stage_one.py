"""Stage one learns, resumes exactly, and does not depend on the number of workers."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from dsol_core import agreement, optimising, stage_one
from dsol_core.config import DictionaryConfig
from dsol_core.dictionary import NumpyKMeans
from dsol_core.pseudo_labels import fit_dictionary
from dsol_core.stage_one_net import build_stage_one
from dsol_core.types import DataError, LocalWorker
from tests.core.tiny_pairs import CHANNELS, CLASSES, OURS, PAPER, TOKENS, TinyPairs

WORKER = LocalWorker()


def started(config, steps=40, seed=0):
    return stage_one.start(config, steps, seed, WORKER)


def trained(config, epochs, data=None):
    data = data or TinyPairs(config)
    state = started(config)
    for _ in range(epochs):
        stage_one.train_epoch(state, data, NumpyKMeans(), WORKER)
    return state, data


@pytest.mark.parametrize("config", [OURS, PAPER], ids=["ours", "paper"])
def test_learns_the_classes_without_labels(config):
    state, data = trained(config, 6)
    truth = [str(kind) for kind in data.classes]
    clusters = [state.labels[key] for key in data.keys]
    assert agreement.nmi(clusters, truth) > 0.9
    assert state.history[-1]["matching"] < 0.85 * state.history[0]["matching"]
    assert len(state.history) == state.epoch == 6
    if config is OURS:
        assert set(state.history[-1]) >= {"matching", "prototypes", "presence", "relabelled", "smallest_cluster"}
    else:
        assert state.history[-1]["classification"] < 2 * np.log(CLASSES)


def test_the_map_points_at_the_object():
    state, data = trained(OURS, 6)
    batch = next(iter(data.sequential()))
    state.net.eval()
    out = state.net(batch.visual, batch.log_mels, features=True)
    for row, (y, x) in enumerate(data.places[: len(batch.keys)]):
        best = int(out.map[row].flatten().argmax())
        assert y <= best // 4 <= y + 1 and x <= best % 4 <= x + 1


@pytest.mark.parametrize("config", [OURS, PAPER, TOKENS], ids=["ours", "paper", "tokens"])
def test_resume_equals_the_run_without_interruption(config):
    whole, data = trained(config, 3)
    first, _ = trained(config, 2, data)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    again = started(config)
    again.load_state_dict(torch.load(file, weights_only=True))
    stage_one.train_epoch(again, data, NumpyKMeans(), WORKER)
    assert again.history == whole.history and again.labels == whole.labels and again.step == whole.step
    for (name, tensor), other in zip(whole.net.state_dict().items(), again.net.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name


def test_seed_decides_everything():
    first, data = trained(OURS, 1)
    same, _ = trained(OURS, 1, data)
    other = started(OURS, seed=1)
    assert first.history == same.history
    assert not torch.equal(other.net.prototypes, started(OURS).net.prototypes)


def test_measures_log_mels_like_numpy():
    state, data = started(OURS), TinyPairs(OURS)
    stage_one.measure_log_mels(state.net, data, WORKER)
    np.testing.assert_allclose(state.net.mel_mean.numpy(), data.mels.mean((0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(state.net.mel_deviation.numpy(), data.mels.std((0, 1, 2)), atol=1e-3)
    with pytest.raises(DataError, match="no rows"):
        stage_one.measure_log_mels(state.net, TinyPairs(OURS, count=0), WORKER)


def test_labels_keep_their_numbers():
    state, _ = trained(OURS, 5)
    assert state.history[-1]["relabelled"] < 0.1


def test_row_without_a_cluster_is_named():
    state, data = trained(OURS, 2)
    del state.labels[data.keys[5]]
    with pytest.raises(DataError, match="clip-005"):
        stage_one._targets(state, next(iter(TinyPairs(OURS).sequential())), "cpu")


def test_learning_rate_schedules():
    rates = [optimising.learning_rate(OURS, step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(OURS.learning_rate / 25) and max(rates) == pytest.approx(OURS.learning_rate)
    assert rates.index(max(rates)) == 20 and rates[-1] == pytest.approx(0, abs=1e-12)
    assert rates[21:] == sorted(rates[21:], reverse=True) and rates[:20] == sorted(rates[:20])
    assert optimising.learning_rate(PAPER, 77, 100) == PAPER.learning_rate


def test_unused_layers_do_not_move():
    state, _ = trained(replace(OURS, first_labels="none"), 1)
    fresh = started(OURS)
    assert torch.equal(state.net.class_audio.weight, fresh.net.class_audio.weight)
    assert torch.equal(state.net.presence.weight, fresh.net.presence.weight)  # no clusters in epoch 0
    assert torch.equal(state.net.scale, fresh.net.scale)  # nor does it decay
    paper, _ = trained(PAPER, 1)
    assert not torch.equal(paper.net.scale, fresh.net.scale)
    assert torch.equal(paper.net.prototypes, started(PAPER).net.prototypes)


def test_set_negatives_need_other_pictures():
    state = started(PAPER)
    batch = replace(next(iter(TinyPairs(PAPER).train(0, 0))), other=None)
    with pytest.raises(DataError, match="other pictures"):
        stage_one._matching_step(state, batch, 0, WORKER)


def test_batch_negatives_train_too():
    config = replace(PAPER, negatives="batch")
    state, _ = trained(config, 4)
    assert state.history[-1]["matching"] < state.history[0]["matching"]


class GlooWorker:
    """One of two processes; gathers differentiably."""

    device = "cpu"

    def __init__(self):
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()

    def gather(self, tensor):
        from torch.distributed.nn.functional import all_gather

        return torch.cat(all_gather(tensor.contiguous()))

    def share(self, make):
        values = [make() if self.rank == 0 else None]
        dist.broadcast_object_list(values)
        return values[0]

    def gather_objects(self, value):
        values = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def wrap(self, module):
        return torch.nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)


def one_of_two(rank, folder, config):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    worker, data = GlooWorker(), TinyPairs(config, rank=rank, world=2)
    state = stage_one.start(config, 40, 0, worker)
    for _ in range(3):
        stage_one.train_epoch(state, data, NumpyKMeans(), worker)
    if rank == 0:
        torch.save(state.state_dict(), f"{folder}/state.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("config", [OURS, PAPER, replace(OURS, pooling="learned")], ids=["ours", "paper", "learned"])
def test_two_workers_train_like_one(tmp_path, config):
    mp.spawn(one_of_two, (str(tmp_path), config), nprocs=2)
    two = torch.load(tmp_path / "state.pt", weights_only=True)
    one, _ = trained(config, 3)
    assert two["step"] == one.step
    assert dict(zip(two["label_keys"], two["label_clusters"], strict=True)) == one.labels
    for first, second in zip(one.history, two["history"], strict=True):
        assert first == pytest.approx(second, rel=2e-3, abs=2e-4)


def test_channels_of_the_tiny_pairs_are_those_of_the_trunk():
    assert started(OURS).net.trunk.channels == CHANNELS


@pytest.mark.parametrize("config", [OURS, replace(PAPER, recipe="ours")], ids=["contrastive", "binary"])
def test_a_learned_pooling_is_learnt(config):
    config = replace(config, pooling="learned")
    state, _ = trained(config, 2)
    first, last = (one.net.sharpness().item() for one in (started(config), state))
    assert first == pytest.approx(10) and abs(last / first - 1) > 0.005
    assert "log_sharpness" not in dict(started(OURS).net.named_parameters())


@pytest.mark.parametrize(("pooling", "share"), [("max", 0.0), ("top", 0.25)])
def test_the_pooling_decides_what_is_contrasted(pooling, share, monkeypatch):
    config, asked = replace(OURS, pooling=pooling), []
    state = started(config)
    plain = stage_one.losses.pair_scores
    monkeypatch.setattr(stage_one.losses, "pair_scores", lambda *words: asked.append(words[2:]) or plain(*words))
    stage_one._matching_step(state, next(iter(TinyPairs(config).train(0, 0))), 0, WORKER)
    assert asked == [(share, None)]


def test_trained_stages_of_the_trunk_have_a_rate_of_their_own():
    config = replace(OURS, backbone=replace(OURS.backbone, trainable_blocks=1, block_rate=0.25))
    state = started(config)
    upper = {id(one) for one in state.net.upper.parameters()}
    rest, blocks = state.optimizer.param_groups
    assert {id(one) for one in blocks["params"]} == upper and not upper & {id(one) for one in rest["params"]}
    before = {name: one.clone() for name, one in state.net.named_parameters()}
    data = TinyPairs(config)
    data.visual = data.visual[:, :80]  # what the fixed stages say
    stage_one.train_epoch(state, data, NumpyKMeans(), WORKER)
    assert blocks["lr"] == pytest.approx(0.25 * rest["lr"]) and rest["lr"] > 0
    moved = {name.split(".")[0] for name, one in state.net.named_parameters() if not torch.equal(one, before[name])}
    assert {"upper", "adapter", "sound"} <= moved and "trunk" not in moved
    assert len(started(OURS).optimizer.param_groups) == 1


@pytest.mark.parametrize("seed", [0, 2])
def test_tokens_become_the_classes_without_labels_or_clusters(seed):
    data, state = TinyPairs(TOKENS), started(TOKENS, seed=seed)
    for _ in range(6):
        stage_one.train_epoch(state, data, NumpyKMeans(), WORKER)
    assert state.labels is None and not state.net.centers.any() and "relabelled" not in state.history[-1]
    entries, found = fit_dictionary(state.net, data, DictionaryConfig(recompute=False), NumpyKMeans(), 0, WORKER)
    truth = dict(zip(data.keys, map(str, data.classes), strict=True))
    assert agreement.nmi(found.clusters, [truth[key] for key in found.keys]) > 0.6
    assert entries.counts.min() > 0, "a token that nothing shows"
    tokens = torch.nn.functional.normalize(state.net.prototypes.detach(), dim=1)
    np.testing.assert_allclose(entries.centers, tokens.numpy(), atol=1e-6)
    heard, _ = state.net.eval().hear(torch.from_numpy(data.mels).float())
    named, of = state.net.presence(heard).argmax(1).numpy(), dict(zip(found.keys, found.clusters.tolist(), strict=True))
    assert np.mean([of[key] == int(one) for key, one in zip(data.keys, named, strict=True)]) > 0.6  # by chance: 1 in 3


def test_classification_leaves_the_learned_pooling_alone():
    state, data = trained(replace(PAPER, pooling="learned"), 2)
    before = state.net.log_sharpness.clone()
    stage_one._classify(state, data, optimising.Means(), WORKER)
    assert torch.equal(state.net.log_sharpness, before)


def test_the_map_of_anything_is_of_the_first_window_of_sound():
    net = build_stage_one(OURS)
    batch = next(iter(TinyPairs(OURS).sequential()))
    several = replace(batch, log_mels=torch.cat([batch.log_mels, batch.log_mels.flip(0)], 1))
    own = stage_one.localise(net, batch)
    assert np.array_equal(stage_one.localise(net, several), own)
    assert not np.allclose(stage_one.localise(net, replace(batch, log_mels=several.log_mels[:, 1:])), own)
