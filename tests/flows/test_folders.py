"""A user's own plain folders: no lists, no labels, any file names; then names, and a model used on a video."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.flows.servers import BIN, ROOT, dsol

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]

TINY = [
    "data.scenes.count=[32,4,4]",
    "stage_one.epochs=2",
    "stage_one.first_clustering=1",
    "stage_one.batch=16",
    "stage_one.cluster_range=[4,6]",
    "stage_two.epochs=1",
    "stage_two.batch=16",
    "evaluation.bootstrap=100",
    "evaluation.gallery=1",
]


@pytest.fixture(scope="module")
def folders(smoke: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos without lists, in odd places, under odd names, two of them broken."""
    mark = next(one["fingerprint"] for one in smoke["steps"] if one["name"] == "make_videos")
    made = Path(smoke["store"]) / "make_videos" / mark
    folder = tmp_path_factory.mktemp("mine")
    for kind in ("solo", "multi"):
        (folder / kind / "deep er").mkdir(parents=True)
        for number, path in enumerate(sorted((made / kind).glob("*.mp4"))):
            shutil.copy(path, folder / kind / ("deep er" if number % 2 else "") / f"Übung №{number}.mp4")
    (folder / "solo" / "empty.mp4").write_bytes(b"")
    (folder / "solo" / "text.mp4").write_text("this is not a video")
    return folder


@pytest.fixture(scope="module")
def trained(
    folders: Path, quiet_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    return run(folders, tmp_path_factory.mktemp("folders") / "store", quiet_environment)


def run(folders: Path, store: Path, env: dict[str, str]) -> dict[str, Any]:
    settings = [word for one in TINY for word in ("--set", one)]
    where = ["--solo", str(folders / "solo"), "--multi", str(folders / "multi"), "--store", str(store)]
    return dsol("run", "folders", *where, *settings, env=env, timeout=600)


def mark(summary: dict[str, Any], step: str) -> str:
    return str(next(one["fingerprint"] for one in summary["steps"] if one["name"] == step))


def test_it_trains_without_labels_and_says_what_it_left_out(trained: dict[str, Any]) -> None:
    assert trained["model"] == "models:/dsol/1"
    assert not [key for key in trained["metrics"] if "iou" in key], "nothing is measured that needs labels"
    assert trained["metrics"]["folders-solo/agreement"]["n"] > 0
    evaluate = Path(trained["report"]).parent
    assert any("iou" in one["metric"] for one in json.loads((evaluate / "left_out.json").read_text()))
    assert "cluster-00" in (evaluate / "report.html").read_text()
    videos = Path(trained["store"]) / "ingest_videos" / mark(trained, "ingest_videos") / "artifact.json"
    assert sum(json.loads(videos.read_text())["rows"]["dropped"].values()) >= 2


def test_names_reach_the_report_the_model_and_a_localised_video(
    trained: dict[str, Any], folders: Path, quiet_environment: dict[str, str], tmp_path: Path
) -> None:
    store = Path(trained["store"])
    dictionary = store / "build_dictionary" / mark(trained, "build_dictionary")
    dsol("name", str(dictionary), "cluster-00=cello", "cluster-01=flute", env=quiet_environment)
    named = run(folders, store, quiet_environment)
    assert {one["name"] for one in named["steps"] if one["state"] == "ran"} == {"evaluate", "register_model"}
    assert "cello" in Path(named["report"]).read_text()
    video = next((folders / "multi").glob("*.mp4"))
    words = ["localize", str(video), "--model", named["model"], "--store", str(store), "--out", str(tmp_path)]
    done = dsol(*words, "--threshold", "0.05", env=quiet_environment)
    from tasks.adapters import media, tables

    rows = list(tables.read(Path(done["table"])))
    assert {"cello", "flute"} <= {row["class"] for row in rows}
    assert media.probe(Path(done["video"])).duration == pytest.approx(media.probe(video).duration, abs=0.3)


def test_an_unknown_entry_is_refused(trained: dict[str, Any]) -> None:
    dictionary = Path(trained["store"]) / "build_dictionary" / mark(trained, "build_dictionary")
    command = [BIN / "dsol", "name", dictionary, "cluster-99=cello", "--json"]
    answer = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert "no entry 'cluster-99'" in json.loads(answer.stdout)["error"]
