"""Configurations that cannot work are refused where they are made, naming value, expectation and field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dsol_core.config import (
    AudioConfig,
    BackboneConfig,
    ClipsConfig,
    DictionaryConfig,
    EvaluationConfig,
    ExperimentConfig,
    ImageConfig,
    ScenesConfig,
    StageOneConfig,
    StageTwoConfig,
    VideosConfig,
)
from dsol_core.scoring import rules_of
from dsol_core.types import DataError


@pytest.mark.parametrize(
    ("make", "wrong", "message"),
    [
        (StageTwoConfig, {"epochs": -1}, r"stage_two\.epochs is -1; expected 0 or more"),
        (StageTwoConfig, {"hearing_passes": -1}, r"stage_two\.hearing_passes is -1; expected 0 or more"),
        (StageTwoConfig, {"teacher": "softmax"}, r'hearing_passes is 5 with teacher "softmax"; .* or 0 passes'),
        (StageTwoConfig, {"windows": 2}, r"stage_two\.windows is 2; expected 1 or 3"),
        (StageTwoConfig, {"teacher": "softmax", "hearing_passes": 0}, r"windows is 3 .* or 1 window"),
        (StageTwoConfig, {"hearing_noise": 1.0}, r"stage_two\.hearing_noise is 1\.0; expected a share in \[0, 1\)"),
        (
            StageTwoConfig,
            {"presence_midpoint": 0.0},
            r"presence_midpoint is 0, presence_power 4; expected both above 0",
        ),
        (StageTwoConfig, {"presence_power": 0.0}, r"presence_midpoint is 0\.15, presence_power 0; expected both"),
        (StageTwoConfig, {"batch": 1}, r"stage_two\.batch is 1; expected at least 2"),
        (BackboneConfig, {"trainable_blocks": -1}, r"backbone\.trainable_blocks is -1 with frozen true; expected 0"),
        (BackboneConfig, {"trainable_blocks": 1, "frozen": False}, r"trainable_blocks is 1 with frozen false"),
        (ClipsConfig, {"side": 15}, r"clips\.side is 15; expected at least 16"),
        (ClipsConfig, {"duration": 0.0}, r"clips\.duration is 0 s; expected more than 0"),
        (ClipsConfig, {"duration": -1.0}, r"clips\.duration is -1 s"),
        (ClipsConfig, {"frames_per_clip": 0}, r"clips\.frames_per_clip is 0; expected at least 1"),
        (ClipsConfig, {"duration": 2.0, "context": 1.9}, r"clips\.context is 1\.9 s; .* clips\.duration = 2 s"),
        (ImageConfig, {"brightness": 1.5}, r"image\.brightness is 1\.5; expected 0 to 1"),
        (ImageConfig, {"saturation": -0.1}, r"image\.saturation is -0\.1; expected 0 to 1"),
        (StageOneConfig, {"matching": "tokens", "prototype_weight": 0.0}, r"prototype_weight 0 .* never train"),
        (StageOneConfig, {"matching": "tokens", "cluster_space": "trunk"}, r'cluster_space "trunk"; .* "joint"'),
        (VideosConfig, {"split": (0.0, 0.0, 0.0)}, r"videos\.split is \(0\.0, 0\.0, 0\.0\); expected three shares"),
        (VideosConfig, {"split": (0.8, -0.1, 0.3)}, r"videos\.split is .*expected three shares"),
        (ScenesConfig, {"sounding": 5}, r"scenes\.sounding is 5; expected 1 to 4"),
        (ScenesConfig, {"sounding": 0}, r"scenes\.sounding is 0; expected 1 to 4"),
        (ScenesConfig, {"gain": (1.2, 0.8)}, r"scenes\.gain is \(1\.2, 0\.8\); expected the smallest"),
        (ScenesConfig, {"gain": (0.0, 1.0)}, r"scenes\.gain is .*above 0"),
        (ImageConfig, {"crop": 1.0}, r"image\.crop is 1; expected a share from 0 to below 1"),
        (ImageConfig, {"crop": -0.1}, r"image\.crop is -0\.1"),
        (ImageConfig, {"zoom_out": 0.0}, r"image\.zoom_out is 0; expected a size above 0, at most 1"),
        (ImageConfig, {"zoom_out": 1.1}, r"image\.zoom_out is 1\.1"),
        (StageOneConfig, {"learning_rate": 0.0}, r"stage_one\.learning_rate is 0; expected more than 0"),
        (StageOneConfig, {"temperature": 0.0}, r"stage_one\.temperature is 0; expected more than 0"),
        (StageOneConfig, {"mixtures": -1}, r"stage_one\.mixtures is -1; expected 0 or more"),
        (StageTwoConfig, {"learning_rate": -1.0}, r"stage_two\.learning_rate is -1; expected more than 0"),
        (StageTwoConfig, {"hearing_rate": 0.0}, r"stage_two\.hearing_rate is 0; expected more than 0"),
        (StageTwoConfig, {"map_temperature": 0.0}, r"stage_two\.map_temperature is 0; expected more than 0"),
        (EvaluationConfig, {"bootstrap": 0}, r"evaluation\.bootstrap is 0; expected at least 1"),
        (
            ExperimentConfig,
            {"stage_one": StageOneConfig(audio=AudioConfig(sample_rate_hz=22050))},
            r"stage_one\.audio\.sample_rate_hz is 22050; shards hold 16000 Hz",
        ),
        (
            ExperimentConfig,
            {"stage_one": StageOneConfig(map_law="minmax", matching="binary")},
            r'map_law is "minmax" and stage_one match "binary".* expected map_law "sigmoid"',
        ),
        (ExperimentConfig, {"seed": -1}, r"seed is -1; expected 0 or more"),
        (
            ExperimentConfig,
            {"stage_one": StageOneConfig(first_labels="none", first_clustering=7, epochs=7)},
            r"stage_one\.epochs is 7 and stage_one\.first_clustering 7; expected more epochs",
        ),
        (
            ExperimentConfig,
            {"stage_one": StageOneConfig(epochs=3), "dictionary": DictionaryConfig(recompute=False)},
            r"stage_one\.epochs is 3 and stage_one\.first_clustering 3; expected more epochs",
        ),
        (
            StageOneConfig,
            {"classification_passes": 1, "epochs": 4, "first_clustering": 4},
            r"stage_one\.epochs is 4; .* more than first_clustering = 4",
        ),
    ],
)
def test_what_cannot_work_is_refused(make: Callable[..., Any], wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(**wrong)


@pytest.mark.parametrize(
    ("make", "edge"),
    [
        (StageTwoConfig, {"epochs": 1, "batch": 2}),
        (BackboneConfig, {"trainable_blocks": 1, "frozen": True}),
        (ClipsConfig, {"side": 16, "duration": 2.0, "context": 2.0, "frames_per_clip": 1}),
        (ExperimentConfig, {"seed": 0}),
        (ImageConfig, {"brightness": 1.0, "saturation": 0.0, "crop": 0.0, "zoom_out": 1.0}),
        (ScenesConfig, {"gain": (1.0, 1.0)}),
        (StageOneConfig, {"classification_passes": 1, "epochs": 5, "first_clustering": 4}),
        (StageOneConfig, {"classification_passes": 0, "epochs": 1, "first_clustering": 4}),
    ],
)
def test_the_smallest_values_that_work_are_kept(make: Callable[..., Any], edge: dict[str, Any]) -> None:
    made = make(**edge)
    assert {name: getattr(made, name) for name in edge} == edge


def test_multi_source_frames_may_have_settings_of_their_own() -> None:
    both = EvaluationConfig(scene_threshold=0.5, multi_threshold=0.2)
    assert [rules_of(subset, both).scene_threshold for subset in ("solo", "grid", "duet")] == [0.5, 0.5, 0.2]
    assert rules_of("duet", EvaluationConfig(scene_threshold=0.4)).scene_threshold == 0.4
    with pytest.raises(DataError, match="subsets is empty"):
        StageTwoConfig(subsets=())
