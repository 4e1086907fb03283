from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from dsol_core import audio, negatives, stage_two
from dsol_core.config import BackboneConfig, ImageConfig, StageOneConfig, StageTwoConfig
from dsol_core.dictionary import ObjectDictionary
from dsol_core.negatives import BY_CATEGORY, BY_VIDEO, Candidate
from dsol_core.stage_one_net import build_stage_one
from dsol_core.stage_two_net import build_stage_two
from dsol_core.types import AVBatch, UsageError


def candidate(key: str, video: str, heard: str, visible: str | None) -> Candidate:
    return Candidate(key, frozenset({video}), frozenset(heard), None if visible is None else frozenset(visible))


def test_noise_has_the_usual_level_and_depends_on_the_key_alone() -> None:
    assert not negatives.waveform("silence", "a", 16000).any()
    noise = negatives.waveform("noise", "a", 16000)
    assert noise.dtype == torch.float32 and noise.abs().max() <= 1
    assert float(noise.pow(2).mean().sqrt()) == pytest.approx(audio.LEVEL, rel=0.03)
    assert torch.equal(noise, negatives.waveform("noise", "a", 16000))
    assert not torch.equal(noise, negatives.waveform("noise", "b", 16000))
    with pytest.raises(UsageError, match="offscreen"):
        negatives.waveform("offscreen", "a", 16000)


def test_an_off_screen_sound_is_of_nothing_in_the_picture() -> None:
    item = candidate("i", "v", "ab", "abcd")
    assert item.rule(candidate("o", "w", "e", "e")) == BY_CATEGORY
    assert item.rule(candidate("o", "w", "ec", "ec")) is None  # c is there, silent
    assert item.rule(candidate("o", "v", "e", "e")) is None  # the same video
    assert item.rule(candidate("o", "w", "", None)) == BY_VIDEO
    bare = candidate("i", "v", "a", None)
    assert bare.rule(candidate("o", "w", "b", None)) == BY_VIDEO
    assert bare.rule(candidate("o", "w", "a", None)) is None
    assert candidate("i", "v", "", None).rule(candidate("o", "w", "", None)) == BY_VIDEO


def test_the_partner_depends_on_keys() -> None:
    others = [candidate(f"k{i:02d}", f"v{i}", "abcde"[i % 5], "abcde"[i % 5]) for i in range(12)]
    chosen = set()
    for item in others:
        found = negatives.partner(item, others)
        assert found is not None
        assert found[1] == BY_CATEGORY and not found[0].heard & item.heard
        chosen.add(found[0].key)
    assert len(chosen) > 3
    assert negatives.partner(others[0], others[:1]) is None
    assert negatives.partner(others[0], []) is None


VARIANTS = [
    StageTwoConfig(),
    StageTwoConfig(hearing_passes=0, teacher="softmax", gating="min", windows=1),
    StageTwoConfig(hearing_passes=0, class_maps="inner", gating="product", teacher="softmax", windows=1),
]


@pytest.mark.parametrize(("config", "frozen"), itertools.product(VARIANTS, [True, False]))
def test_listening_to_the_own_sound_gives_the_prediction(config: StageTwoConfig, frozen: bool) -> None:
    trunk = BackboneConfig(visual="resnet10t", visual_weights=None, embedding=16, adapter=8, frozen=frozen)
    first = StageOneConfig(clusters=3, image=ImageConfig(side=32), backbone=trunk)
    torch.manual_seed(0)
    one = build_stage_one(first)
    centers = torch.randn(3, 16 if config.class_maps == "cosine" else one.channels)
    net = build_stage_two(config, one, centers)
    mels = audio.log_mel(0.1 * torch.randn(4, 16000), first.audio)
    keys = tuple("abcd")
    batch = AVBatch(keys, keys, keys, keys, torch.randn(4, 3, 32, 32), mels)
    entries = ObjectDictionary(centers.numpy(), np.ones(3, np.int64), ("a", "b", "c"))
    expected = stage_two.predict(net, batch, entries)
    seen = negatives.trunk_once(net, batch)
    assert seen.features and negatives.trunk_once(net, seen) is seen
    for one_of, again in zip(expected, stage_two.predict(net, seen, entries), strict=True):
        assert np.array_equal(one_of.maps, again.maps) and np.array_equal(one_of.sounding, again.sounding)
    looked = negatives.look(net, seen)
    rows = [3, 1]
    sounding, peaks = negatives.listen(net, looked, mels[rows], rows)
    assert sounding.shape == (2, 3) and peaks.dtype == np.float32
    for place, row in enumerate(rows):
        assert np.allclose(sounding[place], expected[row].sounding, atol=1e-6)
        assert peaks[place] == pytest.approx(expected[row].maps.max(), rel=1e-5)
    assert np.array_equal(negatives.look(net, replace(seen, log_mels=mels * 0)).class_maps, looked.class_maps)
