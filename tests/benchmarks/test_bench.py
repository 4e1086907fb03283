import importlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("bench")


def stage(bench: Any, order: list[str]) -> Any:
    def way(name: str, seconds: float) -> Any:
        return lambda: order.append(name) or (10, seconds)

    speed = bench.speed
    return speed.Stage(
        title="Stage",
        unit="x/s",
        about="about",
        ways={"ours": way("ours", 1.0), "plain": way("plain", 4.0)},
        ratios=[speed.Ratio("ours / plain", "ours", "plain", 4.0), speed.Ratio("no bound", "plain", "ours", None)],
        values=[speed.Value("files", lambda: 11, 10.0)],
    )


def test_ways_take_turns_and_ratios_are_judged(bench: Any) -> None:
    order: list[str] = []
    part = bench.measure_stage(stage(bench, order), 2)
    assert order == ["ours", "plain", "ours", "plain", "plain", "ours"]  # a warm-up, two turns
    assert part["speeds"] == {"ours": [10.0, 10.0], "plain": [2.5, 2.5]}
    judged = {row["name"]: (row["ratio"], row["holds"]) for row in part["rows"]}
    assert judged == {"ours / plain": (4.0, True), "no bound": (0.25, None), "files": (11.0, False)}


def test_a_module_measured_again_replaces_its_rows_and_leaves_the_others(bench: Any, tmp_path: Path) -> None:
    part = bench.measure_stage(stage(bench, []), 1)
    part |= {"command": "python x", "machine": "Machine.", "threads": 2, "quick": False}
    bench.speed_page.update(tmp_path, "one", [part])
    bench.speed_page.update(tmp_path, "two", [part | {"title": "Other"}])
    bench.speed_page.update(tmp_path, "one", [part | {"rows": part["rows"][:1], "title": "Again"}])
    rows = json.loads((tmp_path / "speed.json").read_text())
    assert [row["module"] for row in rows] == ["one", "two", "two", "two"]
    assert all({"name", "ratio", "target", "holds", "command"} <= set(row) for row in rows)
    page = (tmp_path / "speed.md").read_text()
    assert "## Again" in page and "## Other" in page and "## Stage" not in page
    assert page.count("| ours / plain | 4.00 |") == 2 and "| files | 11.0 |  | at most 10.0 | **no** |" in page


def test_every_module_of_the_folder_can_be_measured(bench: Any) -> None:
    names = bench.module_names()
    assert {"decoding", "loading"} <= set(names)
    assert all(callable(importlib.import_module(f"speed.{name}").stages) for name in names)


@pytest.mark.slow
def test_the_loader_is_measured(bench: Any, tmp_path: Path) -> None:
    (stage,) = importlib.import_module("speed.loading").stages(bench.Size(True, 1, tmp_path))
    speeds = {name: bench.one_speed(way) for name, way in stage.ways.items()}
    assert set(speeds) >= {"ours", "limit", "plain"} and min(speeds.values()) > 0


def test_the_modules_of_the_usage_exist(bench: Any) -> None:
    said = re.search(r"bench\.py ((?:\w+ )+) *# these modules", bench.__doc__)
    assert said and set(said[1].split()) <= set(bench.module_names())


def test_the_shards_of_a_benchmark_are_those_of_the_loader(bench: Any, tmp_path: Path) -> None:
    from tasks.adapters import images, shards

    write = importlib.import_module("speed._shards").write
    jpeg = images.encode_jpeg(np.zeros((16, 16, 3), np.uint8), 92)
    sounds = [np.arange(length).astype(np.int16) for length in (16000, 48000, *[16000] * 255)]
    write(tmp_path / "new", ((jpeg, sound) for sound in sounds), 16)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "shards.json",
        "solo-train-00000.tar",
        "solo-train-00001.tar",
    ]
    _, listed = shards.read_manifest(tmp_path / "new")
    assert [one.samples for one in listed] == [256, 1]
    alone, amid = list(shards.read_shard(tmp_path / "new" / listed[0].path))[:2]
    assert [int(shards.windows(one)[0][0]) for one in (alone, amid)] == [0, 16000], "the second in the middle"
    assert alone.members["frame0.jpg"] == jpeg and alone.key != amid.key and alone.video != amid.video
