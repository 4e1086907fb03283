"""Every preset loads; wrong ones are refused by name."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from dsol_core.types import UsageError
from flows import presets


@pytest.mark.parametrize("recipe", presets.recipes())
@pytest.mark.parametrize("preset", presets.names())
def test_every_preset_loads_with_every_recipe(preset: str, recipe: str) -> None:
    assert presets.load(preset, recipe=recipe).stage_one.recipe == recipe


def test_overrides_win_over_the_preset_and_are_typed() -> None:
    experiment = presets.load("smoke", seed=7, overrides={"stage_one.epochs": "5", "data.scenes.count": "[1, 2, 3]"})
    assert experiment.stage_one.epochs == 5
    assert experiment.data.scenes.count == (1, 2, 3)
    assert experiment.seed == 7
    assert experiment.stage_one.batch == 16, "the preset's own values stay"


def test_a_preset_can_speak_to_one_recipe_alone() -> None:
    gates = {
        name: (two.seen_exponent, two.presence_midpoint, two.map_temperature, two.background)
        for name in ("ours", "class_tokens")
        for two in [presets.load("real_av", recipe=name).stage_two]
    }
    assert gates == {"ours": (2.0, 0.03, 0.05, None), "class_tokens": (0.0, None, 0.2, None)}


@pytest.mark.parametrize("empty", ["recipes:", "recipes: {ours: }"])
def test_an_empty_section_for_recipes_changes_nothing(tmp_path: Path, empty: str) -> None:
    (tmp_path / "mine.yaml").write_text(f"data: {{name: mine}}\n{empty}\n")
    (tmp_path / "plain.yaml").write_text("data: {name: mine}\n")
    assert presets.load(str(tmp_path / "mine.yaml")) == presets.load(str(tmp_path / "plain.yaml"))


def test_empty_sections_are_empty_and_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("stage_one:\ndata:\n  clips:\nregistry:\n")
    made = presets.load(str(path))
    assert made.stage_one == presets.load("demo").stage_one and made.registry is None
    assert presets.load(str(path), recipe="paper").stage_one.matching == "binary", "the recipe's section stays"
    assert presets.load("demo", recipe="paper", overrides={"stage_one": ""}).stage_one.recipe == "paper"
    for content, said in (
        (b"recipes: [ours]", r"recipes is \['ours'\]; expected"),
        (b"recipes: {ours: 3}", r"recipes is \{'ours': 3\}; expected"),
        ("data: {name: flûte}".encode("latin-1"), "is not YAML"),
    ):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=said):
            presets.load(str(path))


def test_auto_is_a_number_of_classes_to_be_estimated() -> None:
    assert presets.load("demo", overrides={"stage_one.clusters": "auto"}).stage_one.clusters == 0
    assert presets.load("folders").stage_one.clusters == 0, "nobody knows it of videos without labels"


def test_seed_changes_training_and_not_the_data() -> None:
    one, two = presets.load("demo", seed=1), presets.load("demo", seed=2)
    assert one.data == two.data and one.seed != two.seed


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("stage_one.epohcs", "3", r"unknown key stage_one.epohcs; did you mean stage_one.epochs\?"),
        ("stage_one.epochs", "many", "stage_one.epochs is 'many'"),
        ("stage_one.clusters", "1", "stage_one.clusters is 1; expected at least 2"),
        ("stage_one.pooling", "min", "'max', 'top' or 'learned'"),
    ],
)
def test_wrong_settings_are_named(key: str, value: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        presets.load("demo", overrides={key: value})


def test_unknown_presets_and_recipes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no preset 'dmeo'; expected one of demo"):
        presets.load("dmeo")
    with pytest.raises(UsageError, match="no recipe 'theirs'"):
        presets.load("demo", recipe="theirs")
    (tmp_path / "typo.yaml").write_text("recipes: {ous: {seed: 1}}\n")
    with pytest.raises(UsageError, match="no recipe 'ous'"):
        presets.load(str(tmp_path / "typo.yaml"))
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UsageError, match="holds a list"):
        presets.load(str(tmp_path / "list.yaml"))


def test_a_yaml_file_of_the_user_is_a_preset(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("recipe: ours\ndata: {name: mine}\n")
    assert presets.load(str(tmp_path / "mine.yaml")).data.name == "mine"


@pytest.mark.parametrize("preset", presets.names())
def test_the_papers_recipe_is_the_papers_whatever_the_preset(preset: str) -> None:
    one, two = (getattr(presets.load(preset, recipe="paper"), name) for name in ("stage_one", "stage_two"))
    code = {"first_labels": "none", "cluster_unit": "clip", "classification_passes": 3, "align_labels": False}
    code |= {"matching": "binary", "pooling": "max", "negatives": "set", "cluster_space": "trunk", "mixtures": 0}
    assert {name: getattr(one, name) for name in code} == code
    assert (two.gating, two.reduction, two.quadrant_negatives, two.class_maps) == ("product", "element", True, "inner")
    if preset != "smoke":
        assert (one.epochs, one.first_clustering, one.learning_rate, two.epochs) == (15, 1, 1e-4, 5)


def test_the_repaired_paper_differs_from_the_paper_in_its_repairs_only() -> None:
    paper, fixed = (asdict(presets.load("demo", recipe=name)) for name in ("paper", "paper_fixed"))
    changed = {
        f"{part}.{key}" for part in ("stage_one", "dictionary", "stage_two") for key in paper[part]
        if paper[part][key] != fixed[part][key]
    }  # fmt: skip
    assert changed == {
        *(f"stage_one.{key}" for key in ("recipe", "audio", "mask_mean")),
        "dictionary.recompute",
        *(f"stage_two.{key}" for key in ("reduction", "freeze_visual")),
    }
    assert fixed["stage_one"]["audio"] == asdict(presets.load("demo", recipe="ours").stage_one.audio)
