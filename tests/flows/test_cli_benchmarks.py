"""`dsol benchmarks` and `dsol evaluate`: tables, JSON, exit status."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dsol_core.protocols import Maps
from flows import cli
from tasks.adapters import images
from tasks.adapters.prediction_files import write_predictions
from tests.tasks.benchmark_media import KEYS, write_annotations

runner = CliRunner()


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Annotations, and maps of four of the seven items and of an unknown one."""
    maps = np.zeros((1, 4, 4), np.float32)
    maps[:, :, :2] = 1
    path = tmp_path / "maps.parquet"
    write_predictions(path, (Maps(key, maps, (None,), (None,)) for key in [*KEYS[:4], "unknown"]))
    return write_annotations(tmp_path / "annotations"), path


def invoke(*words: object) -> tuple[int, str, str]:
    answer = runner.invoke(cli.app, [str(word) for word in words])
    return answer.exit_code, answer.stdout, answer.stderr


def test_the_list_says_what_each_benchmark_needs() -> None:
    status, out, _ = invoke("benchmarks", "--json")
    rows = json.loads(out)["benchmarks"]
    assert status == 0 and len(rows) >= 13
    assert {"vgg-ss", "music-duet", "flickr-soundnet", "vggsound-instruments"} <= {row["name"] for row in rows}
    for row in rows:
        assert row["media"] and row["annotations"] and row["measures"] and row["trap"]
        assert row["on_disk"] is None and row["annotations_state"] == ""
    status, out, _ = invoke("benchmarks")
    assert status == 0 and "vgg-ss" in out and "mind:" in out


def test_the_list_counts_what_is_on_disk(files: tuple[Path, Path], tmp_path: Path) -> None:
    for folder, name, data in (
        ("frames", f"{KEYS[0]}.jpg", images.encode_jpeg(np.zeros((8, 8, 3), np.uint8), 90)),
        ("audio", f"{KEYS[0]}.wav", b"not opened"),
        ("frames", f"{KEYS[1]}.jpg", b"its sound is missing"),
    ):
        (tmp_path / "media" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "media" / folder / name).write_bytes(data)
    words = ("benchmarks", "--annotations", files[0], "--data", tmp_path / "media")
    _, out, _ = invoke(*words, "--json")
    rows = {row["name"]: row for row in json.loads(out)["benchmarks"]}
    one = rows["vgg-ss"]
    assert (one["items"], one["on_disk"], one["videos"]) == (7, 1, 7)
    assert one["missing"] == {"no file": 6} and one["annotations_state"] == "found"
    assert "flickr_test.csv" in rows["flickr-soundnet"]["annotations_state"]
    status, out, _ = invoke(*words)
    assert status == 0 and "1 of 7" in out and "missing media: no file 6" in out
    assert invoke("benchmarks", "--data", tmp_path)[0] == 2


def test_evaluate_prints_numbers_with_interval_coverage_and_baselines(files: tuple[Path, Path], tmp_path: Path) -> None:
    words = ("evaluate", "vgg-ss", "--annotations", files[0], "--predictions", files[1], "--workers", 0, "--no-track")
    status, out, err = invoke(*words, "--store", tmp_path)
    assert status == 0, err
    for text in ("VGG-SS, reference: 4 of 7 items (57.1%)  PARTIAL: 3 items are missing", "VGG-SS, correct", "iou@0.5"):
        assert text in out
    for text in ("75.00", "centred disk", "whole frame", "ceiling", "missing: no prediction 3", "does not have: 1"):
        assert text in out
    status, out, _ = invoke(*words, "--store", tmp_path, "--mode", "correct", "--json")
    done = json.loads(out)
    assert status == 0 and list(done["modes"]) == ["correct"] and done["modes"]["correct"]["partial"] is True
    assert (Path(done["folder"]) / "scores.json").is_file() and (Path(done["folder"]) / "missing.parquet").is_file()


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("nonsense",), 2),
        (("vgg-ss", "--mode", "both sides"), 2),
        (("vgg-ss", "--map", "cello"), 2),
        (("vgg-ss", "--map", "cello=playing cello"), 2),  # the file names no class
        (("vgg-ss", "--model", "models:/a@b"), 2),  # and --predictions
        (("flickr-soundnet",), 1),  # its annotations are not there
    ],
)
def test_exit_status(files: tuple[Path, Path], words: tuple[str, ...], status: int) -> None:
    given = ("--annotations", files[0], "--predictions", files[1], "--workers", 0, "--no-track")
    assert invoke("evaluate", *words, *given)[0] == status


def test_bad_maps_fail_and_say_so_as_json(files: tuple[Path, Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.parquet"
    write_predictions(bad, [Maps(KEYS[0], np.full((1, 2, 2), np.nan, np.float32), (None,), (None,))])
    given = ("--annotations", files[0], "--predictions", bad, "--store", tmp_path, "--workers", 0, "--no-track")
    status, out, err = invoke("evaluate", "vgg-ss", *given, "--json")
    assert status == 1 and "number 0 of the map is nan" in json.loads(out)["error"]
    assert json.loads(out)["kind"] == "DataError" and "error:" in err
