"""What the stages ask of the loader."""

from __future__ import annotations

from dsol_core.config import StageOneConfig, StageTwoConfig
from tasks.adapters.inputs import Recipe


def test_recipes_follow_the_stages_configuration():
    first = StageOneConfig(
        matching="binary", negatives="set", batch=16, mixtures=1, mixture_gain=0.4, neighbour_seconds=False
    )
    assert Recipe.stage_one(first, 5) == Recipe(first.audio, first.image, 16, 5, False, 1, 0.4, True)
    second = StageTwoConfig(batch=12, matching="binary", negatives="set")
    assert Recipe.stage_two(second, first, 6) == Recipe(first.audio, first.image, 12, 6, other=True)
    assert not Recipe.stage_two(StageTwoConfig(), first, 0).other
    practice = StageTwoConfig(hearing_mixtures=3, hearing_gain=0.7, hearing_mixing="waveform")
    heard = Recipe.stage_two(second, first, 6).hearing(practice)
    assert heard == Recipe(first.audio, first.image, 12, 6, True, 3, 0.7, False, "waveform")
    assert not Recipe.stage_one(StageOneConfig(negatives="set"), 0).other
