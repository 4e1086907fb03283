"""Stage two trains against its teacher, resumes exactly, and predicts maps in [0, 1]."""

from __future__ import annotations

import copy
import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from dsol_core import stage_one, stage_two
from dsol_core.dictionary import NumpyKMeans
from dsol_core.pseudo_labels import fit_dictionary
from dsol_core.stage_two_net import Heard
from dsol_core.types import CheckpointError, DataError, LocalWorker
from tests.core.tiny_pairs import (
    CHANNELS,
    CLASSES,
    OURS,
    OURS_TWO,
    PAPER,
    PAPER_DICTIONARY,
    PAPER_TWO,
    DictionaryConfig,
    TinyPairs,
)

WORKER = LocalWorker()


@pytest.fixture(scope="module")
def recipes():
    """Trained stage ones with their dictionaries: name -> (stage-two config, net, dictionary, data)."""
    made = {}
    for name, first, entries, second in (
        ("ours", OURS, DictionaryConfig(), OURS_TWO),
        ("paper", PAPER, PAPER_DICTIONARY, PAPER_TWO),
    ):
        data = TinyPairs(first)
        state = stage_one.start(first, 40, 0, WORKER)
        for _ in range(5):
            stage_one.train_epoch(state, data, NumpyKMeans(), WORKER)
        made[name] = (second, state.net, fit_dictionary(state.net, data, entries, NumpyKMeans(), 0, WORKER)[0], data)
    return made


def started(recipe, **changes):
    config, net, entries, _ = recipe
    return stage_two.start(replace(config, **changes), net, entries, 12, 0, WORKER)


@pytest.mark.parametrize("name", ["ours", "paper"])
def test_losses_fall_and_the_teacher_stays(recipes, name):
    state, data = started(recipes[name]), recipes[name][3]
    before = {k: v.clone() for k, v in state.teacher.state_dict().items()}
    for _ in range(3):
        stage_two.train_epoch(state, data, WORKER)
    assert state.history[-1]["category"] < state.history[0]["category"]
    assert state.epoch == 3 and state.step == 18
    for key, value in state.teacher.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert torch.equal(state.net.dictionary, torch.from_numpy(recipes[name][2].centers))


def test_frozen_picture_branch_stays(recipes):
    for frozen in (True, False):
        state = started(recipes["ours"], freeze_visual=frozen)
        before = state.net.stage_one.project_visual[0].weight.clone()
        sound = state.net.stage_one.presence.weight.clone()
        scale = state.net.stage_one.scale.detach().clone()
        stage_two.train_epoch(state, recipes["ours"][3], WORKER)
        assert torch.equal(scale, state.net.stage_one.scale)
        assert torch.equal(before, state.net.stage_one.project_visual[0].weight) is frozen
        assert not torch.equal(sound, state.net.stage_one.presence.weight)


@pytest.mark.parametrize("name", ["ours", "paper"])
def test_resume_equals_the_run_without_interruption(recipes, name):
    data = recipes[name][3]
    whole = started(recipes[name])
    stage_two.train_epoch(whole, data, WORKER)
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    stage_two.train_epoch(whole, data, WORKER)
    again = started(recipes[name])
    again.load_state_dict(torch.load(file, weights_only=True))
    stage_two.train_epoch(again, data, WORKER)
    assert again.history == whole.history
    for (key, tensor), other in zip(whole.net.state_dict().items(), again.net.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), key


@pytest.mark.parametrize("name", ["ours", "paper"])
def test_predictions(recipes, name):
    _, _, entries, data = recipes[name]
    net = started(recipes[name]).net
    batch = next(iter(data.sequential()))
    predictions = stage_two.predict(net, batch, entries)
    assert [p.key for p in predictions] == list(batch.keys)
    first = predictions[0]
    assert first.maps.shape == first.visual.shape == (CLASSES, 4, 4)
    assert first.agnostic.shape == (4, 4) and first.sounding.shape == (CLASSES,)
    for prediction in predictions:
        for values in (prediction.maps, prediction.visual, prediction.agnostic, prediction.sounding):
            assert values.dtype == np.float32 and values.min() >= 0 and values.max() <= 1
    # One at a time gives the same.
    single = replace(batch, keys=batch.keys[:1], visual=batch.visual[:1], log_mels=batch.log_mels[:1])
    np.testing.assert_allclose(stage_two.predict(net, single, entries)[0].maps, first.maps, atol=1e-4)


def test_our_maps_show_the_object_and_hear_its_class(recipes):
    _, _, entries, data = recipes["ours"]
    state = started(recipes["ours"])
    batch = next(iter(data.sequential()))
    for row, prediction in enumerate(stage_two.predict(state.net, batch, entries)):
        assert prediction.maps.max() <= prediction.visual.max() + 1e-6
        best = np.unravel_index(prediction.maps.argmax(), prediction.maps.shape)
        assert best[0] == prediction.sounding.argmax()
        y, x = data.places[row]
        assert y <= best[1] <= y + 1 and x <= best[2] <= x + 1


def test_inner_maps_are_softmax_of_three_times_the_gated_product(recipes):
    """The authors' inference, cell by cell (method document, 8.4 and 8.6)."""
    _, _, entries, data = recipes["paper"]
    net = started(recipes["paper"]).net.eval()
    batch = next(iter(data.sequential()))
    seen, cells = net.stage_one.see(batch.visual, features=True)
    _, audio = net.stage_one.hear(batch.log_mels)
    got = stage_two.predict(net, batch, entries)[2].maps
    for y in range(4):
        for x in range(4):
            raw = net.dictionary @ seen[2, :, y, x]
            heat = torch.sigmoid(net.stage_one.scale * (cells[2, :, y, x] @ audio[2]))
            slow = torch.softmax(3 * (net.factor * raw + net.offset) * heat, 0)
            np.testing.assert_allclose(got[:, y, x], slow.detach().numpy(), atol=1e-4)


@pytest.mark.parametrize("gating", ["presence", "product", "min", "none"])
def test_gating_by_hand(recipes, gating, monkeypatch):
    net = started(recipes["ours"], gating=gating).net
    monkeypatch.setattr(net, "sounding", lambda maps, likely: likely)
    monkeypatch.setattr(net.stage_one, "audio_visual_map", lambda cells, audio: torch.full((1, 1, 1), 0.5))
    maps, nothing = torch.full((1, 3, 1, 1), 0.8), torch.zeros(1, 1)
    heard = Heard(nothing, nothing, nothing, torch.tensor([[0.5, 1.0, 0.0]]))
    expected = {"presence": [0.4, 0.8, 0.0], "product": [0.4] * 3, "min": [0.5] * 3, "none": [0.8] * 3}[gating]
    made = net.gate(maps, nothing, heard)
    assert made.maps.flatten().tolist() == pytest.approx(expected)
    assert made.sounding.tolist() == [[0.5, 1.0, 0.0]] and made.map.tolist() == [[[0.5]]]


def test_sounding_needs_both_hearing_and_seeing(recipes):
    """x = heard * sqrt(seen / clearest seen), then x^2 / (x^2 + 0.2^2), by hand."""
    net = started(recipes["ours"], seen_exponent=0.5, presence_midpoint=0.2, presence_power=2.0).net
    maps = torch.tensor([0.8, 0.2, 0.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    logits = torch.tensor([[0.0, 0.0, 9.0]])
    x = [0.5, 0.25, 0.0]
    expected = [v * v / (v * v + 0.04) for v in x]
    assert net.sounding(maps, torch.sigmoid(logits))[0].tolist() == pytest.approx(expected, abs=1e-5)
    heard = started(recipes["ours"], seen_exponent=0.0, presence_midpoint=None).net
    torch.testing.assert_close(heard.sounding(maps, torch.sigmoid(logits)), torch.sigmoid(logits))


def test_of_several_windows_the_mean_is_heard_and_the_first_one_seen_with(recipes):
    """Presence is averaged as a probability; the map of anything that sounds is of the picture's own window."""
    net = started(recipes["ours"], seen_exponent=0.0, presence_midpoint=None).net.eval()
    torch.manual_seed(3)
    windows = torch.randn(2, 3, 40, 16)
    alone = [net.hear(windows[:, place : place + 1]) for place in range(3)]
    heard = net.hear(windows)
    expected = torch.stack([torch.sigmoid(one.presence) for one in alone]).mean(0)
    torch.testing.assert_close(heard.likely, expected)
    seeing = started(recipes["ours"], seen_exponent=1.0).net.eval()
    out = seeing(torch.randn(2, CHANNELS, 4, 4), windows, features=True)
    torch.testing.assert_close(out.heard, seeing.hear(windows).likely)
    assert not torch.allclose(out.heard, out.sounding, atol=1e-3)
    assert not torch.allclose(heard.likely, torch.sigmoid(heard.presence), atol=1e-4)
    for ours, own in zip(heard[:3], alone[0][:3], strict=True):
        torch.testing.assert_close(ours, own)


def test_background_takes_its_share(recipes):
    net = started(recipes["ours"], background=0.2, map_temperature=0.5).net
    visual = torch.nn.functional.normalize(torch.randn(1, 16, 2, 2, generator=torch.Generator().manual_seed(0)), dim=1)
    cosines = torch.einsum("behw,ke->bkhw", visual, net.dictionary)
    total = (cosines / 0.5).exp()
    expected = total / (total.sum(1, keepdim=True) + np.exp(0.4))
    torch.testing.assert_close(net.class_maps(visual, visual), expected)
    whole = started(recipes["ours"], background=None).net.class_maps(visual, visual)
    torch.testing.assert_close(whole.sum(1), torch.ones(1, 2, 2))


def test_a_map_may_fill_the_range_from_0_to_1(recipes):
    net = started(recipes["ours"]).net.stage_one
    cells = torch.nn.functional.normalize(torch.randn(3, 16, 4, 4), dim=1)[:, : net.project_visual[2].out_channels]
    sounds = torch.nn.functional.normalize(torch.randn(3, cells.shape[1]), dim=1)
    cosines = torch.einsum("behw,be->bhw", cells, sounds)
    assert torch.allclose(net.audio_visual_map(cells, sounds), torch.sigmoid(net.scale * cosines))
    net.config = replace(net.config, map_law="minmax")
    made = net.audio_visual_map(cells, sounds).flatten(1)
    assert made.amin(1).tolist() == [0, 0, 0] and made.amax(1).tolist() == [1, 1, 1]
    assert made.argsort(1).tolist() == cosines.flatten(1).argsort(1).tolist()
    assert net.audio_visual_map(cells[:1] * 0, sounds[:1]).tolist() == [[[0.0] * 4] * 4]  # no range at all


def test_without_classes_every_entry_has_the_audio_visual_map(recipes):
    _, _, entries, data = recipes["ours"]
    net = started(recipes["ours"], class_maps="agnostic", gating="product").net
    for prediction in stage_two.predict(net, next(iter(data.sequential())), entries):
        assert np.ptp(prediction.agnostic) > 0
        for one in prediction.maps:
            np.testing.assert_array_equal(one, prediction.agnostic)


def test_another_dictionary_is_refused(recipes):
    config, net, entries, data = recipes["ours"]
    state = started(recipes["ours"])
    batch = next(iter(data.sequential()))
    with pytest.raises(CheckpointError, match="same run"):
        stage_two.predict(state.net, batch, replace(entries, centers=-entries.centers))
    with pytest.raises(CheckpointError, match="dictionary"):
        stage_two.start(config, net, recipes["paper"][2].named({}), 1, 0, WORKER) and stage_two.start(
            replace(config, class_maps="inner"), net, replace(entries, centers=entries.centers[:, :3]), 1, 0, WORKER
        )


def test_set_negatives_need_other_pictures(recipes):
    state = started(recipes["paper"])
    batch = replace(next(iter(recipes["paper"][3].train(0, 0))), other=None)
    with pytest.raises(DataError, match="other pictures"):
        stage_two._step(state, batch, 0, WORKER)


def practice_of(recipe):
    data = recipe[3]
    return stage_two.Practice(data, dict(zip(data.keys, (int(kind) for kind in data.classes), strict=True)), 6)


def deaf(recipe, **changes):
    """Stage two whose sound network is untrained, so that only the practice can teach it."""
    config, net, entries, _ = recipe
    fresh = copy.deepcopy(net)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for parameter in (*fresh.sound.parameters(), *fresh.presence.parameters()):
            if parameter.ndim > 1:
                torch.nn.init.kaiming_normal_(parameter)
    changed = replace(config, hearing_passes=3, hearing_rate=1e-2, hearing_noise=0.3, **changes)
    return stage_two.start(changed, fresh, entries, 12, 0, WORKER)


READ = {
    "windows": 1,
    "seen_exponent": 0.0,
    "presence_midpoint": None,
    "presence_power": 1.0,
    "test_scale": 2.0,
    "gating": "min",
    "background": None,
    "map_temperature": 0.5,
}


def weights_after(recipe, **changes):
    """Weights after a pass of practice and, where there are any, an epoch of scenes."""
    state = started((recipe[0], copy.deepcopy(recipe[1]), *recipe[2:]), **changes)
    for _ in range(state.config.hearing_passes + state.config.epochs):
        stage_two.train_epoch(state, recipe[3], WORKER, practice_of(recipe))
    return state.net.state_dict()


@pytest.mark.parametrize("epochs", [0, 1])
def test_settings_that_train_nothing(recipes, epochs):
    recipe = recipes["ours"]
    changed = replace(recipe[0], epochs=epochs, hearing_passes=1, **READ)
    kept = set() if epochs == 0 else {"background", "map_temperature"}
    default = type(changed)()
    for name in READ:
        assert getattr(stage_two.trained(changed), name) == getattr(changed if name in kept else default, name), name
    left_out = {name: value for name, value in READ.items() if name not in kept}
    plain = weights_after(recipe, epochs=epochs, hearing_passes=1)
    same = weights_after(recipe, epochs=epochs, hearing_passes=1, **left_out)
    for key, tensor in plain.items():
        assert torch.equal(tensor, same[key]), key


def test_settings_that_train(recipes):
    config = replace(recipes["ours"][0], epochs=1)
    assert stage_two.trained(replace(config, background=None)) != stage_two.trained(config)
    assert stage_two.trained(replace(config, hearing_gain=0.5)) != stage_two.trained(config)
    paper = recipes["paper"][0]
    assert stage_two.trained(replace(paper, gating="min")) != stage_two.trained(paper)
    assert stage_two.trained(replace(paper, test_scale=2.0)) == stage_two.trained(paper)


def test_practice_teaches_which_entries_sound_in_mixtures_and_none_in_noise(recipes):
    state, practice = deaf(recipes["ours"], epochs=0), practice_of(recipes["ours"])
    pictures = {k: v.clone() for k, v in state.net.stage_one.project_visual.state_dict().items()}
    batch = next(iter(practice.data.train(99, 0)))
    single = torch.eye(CLASSES)[[practice.entries[key] for key in batch.all_keys]]
    truth = stage_one.mixed_targets(single, batch).bool()
    heard = []
    for passes in range(4):
        state.net.eval()
        out = state.net(batch.visual, batch.log_mels, features=True, mixed=batch.mixed)
        logits = out.mixed_presence.detach()
        heard.append(float(logits[truth].mean() - logits[~truth].mean()))
        if passes < 3:
            stage_two.train_epoch(state, practice.data, WORKER, practice)
    assert heard[-1] > heard[0] + 2
    noisy = torch.full((1, 1, batch.log_mels.shape[2], batch.log_mels.shape[3]), -13.8)
    silence = torch.sigmoid(state.net.stage_one.presence(state.net.stage_one.hear(noisy)[0]))
    assert silence.max() < torch.sigmoid(logits[truth]).mean()
    for key, value in state.net.stage_one.project_visual.state_dict().items():
        assert torch.equal(value, pictures[key]), key


def test_what_practised_becomes_the_teacher_and_survives_a_restart(recipes):
    recipe = recipes["ours"]
    state, practice = deaf(recipe), practice_of(recipe)
    before = state.teacher.presence.weight.clone()
    for _ in range(2):
        stage_two.train_epoch(state, recipe[3], WORKER, practice)
    assert torch.equal(state.teacher.presence.weight, before)
    stage_two.train_epoch(state, recipe[3], WORKER, practice)
    assert torch.equal(state.teacher.presence.weight, state.net.stage_one.presence.weight) and state.step == 0
    file = io.BytesIO()
    torch.save(state.state_dict(), file)
    file.seek(0)
    again = deaf(recipe)
    again.load_state_dict(torch.load(file, weights_only=True))
    for one in (state, again):
        stage_two.train_epoch(one, recipe[3], WORKER, practice)
    assert again.history == state.history and "category" in state.history[-1]


def test_practice_needs_something_to_practise_with(recipes):
    with pytest.raises(DataError, match="hearing_passes is 3"):
        stage_two.train_epoch(deaf(recipes["ours"]), recipes["ours"][3], WORKER)
    known = practice_of(recipes["ours"])
    with pytest.raises(DataError, match=r"clips such as clip-\d+ are in no entry"):
        lost = replace(known, entries={})
        stage_two.train_epoch(deaf(recipes["ours"]), known.data, WORKER, lost)
    practice = practice_of(recipes["paper"])
    with pytest.raises(DataError, match="no mixtures"):
        stage_two.train_epoch(deaf(recipes["ours"]), practice.data, WORKER, practice)


def test_scenes_are_matched_with_stage_ones_pooling(recipes, monkeypatch):
    asked, plain = [], stage_two.losses.pair_scores
    monkeypatch.setattr(stage_two.losses, "pair_scores", lambda *words: asked.append(words[2:]) or plain(*words))
    config, net, entries, data = recipes["ours"]
    for pooling in ("max", "top", "learned"):
        first = replace(net.config, pooling=pooling)
        other = copy.deepcopy(net)
        other.config = first
        if pooling == "learned":
            other.log_sharpness = torch.nn.Parameter(torch.tensor(0.0))
        state = stage_two.start(config, other, entries, 12, 0, WORKER)
        stage_two._step(state, next(iter(data.train(0, 0))), 0, WORKER)
    assert asked[:2] == [(0.0, None), (0.25, None)]
    assert asked[2][1] == 1.0 and not asked[2][1].requires_grad  # it stays as stage one learnt it


def seeing(backbone, recipe, **changes):
    """Stage two with an untrained stage one, at rates and decays that would change whatever takes part."""
    net = stage_one.start(replace(OURS, backbone=replace(OURS.backbone, **backbone)), 40, 0, WORKER).net
    changed = replace(recipe[0], hearing_passes=1, freeze_visual=False, hearing_rate=1.0, weight_decay=1.0, **changes)
    entries = recipe[2]
    if changed.class_maps == "inner":
        entries = replace(entries, centers=np.ones((CLASSES, OURS.backbone.adapter), np.float32))
    return stage_two.start(changed, net, entries, 12, 0, WORKER)


@pytest.mark.parametrize(
    ("backbone", "changes", "parts"),
    [
        ({"trainable_blocks": 1}, {}, ("stage_one.upper", "stage_one.adapter", "stage_one.project_visual")),
        ({"frozen": False}, {"class_maps": "inner"}, ("stage_one.trunk", "stage_one.adapter", "factor", "offset")),
    ],
)
def test_practice_leaves_alone_what_only_sees(recipes, backbone, changes, parts):
    state = seeing(backbone, recipes["ours"], **changes)
    seen = {name: one for name, one in state.net.named_parameters() if name.startswith(parts)}
    assert all(one.requires_grad for one in seen.values())
    assert {part for part in parts if any(name.startswith(part) for name in seen)} == set(parts)
    before = {name: one.detach().clone() for name, one in seen.items()}
    practice = practice_of(recipes["ours"])
    batch = next(iter(practice.data.train(0, 0)))
    if state.net.stage_one.config.backbone.frozen:
        batch = replace(batch, visual=batch.visual[:, :80])
    else:
        batch = replace(batch, visual=torch.rand(len(batch.keys), 3, 64, 64), features=False)
    stage_two._hearing_step(state, batch, 0, WORKER, practice)
    for name, one in seen.items():
        assert torch.equal(one, before[name]), name


def test_practice_leaves_batch_statistics_of_pictures_alone(recipes):
    state = seeing({"norm": "batch"}, recipes["ours"])
    before = {name: one.clone() for name, one in state.net.named_buffers() if name.endswith("running_mean")}
    stage_two.train_epoch(state, None, WORKER, practice_of(recipes["ours"]))
    moved = {
        name.split(".")[1] for name, one in state.net.named_buffers() if name in before and (one != before[name]).any()
    }
    assert moved == {"sound"}
    assert "stage_one.adapter.main.1.running_mean" in before


@pytest.mark.parametrize(("gating", "moves"), [("product", True), ("min", True), ("none", False)])
def test_the_maps_factor_trains_where_a_loss_reads_the_map(recipes, gating, moves):
    state = started(recipes["paper"], matching="contrastive", gating=gating)
    before = state.net.stage_one.scale.detach().clone()
    stage_two.train_epoch(state, recipes["paper"][3], WORKER)
    assert torch.equal(before, state.net.stage_one.scale) is not moves
