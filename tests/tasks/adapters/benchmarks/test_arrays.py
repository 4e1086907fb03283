"""Benchmarks whose annotations are arrays: MUSIC-Synthetic (.npy) and VGGSound-Instruments (pickled masks)."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsol_core import truths
from dsol_core.canvas import within
from dsol_core.config import Compute
from dsol_core.protocols import Maps, Picture, Sound
from dsol_core.types import DataError
from tasks.adapters import benchmarks, prediction_files
from tasks.adapters.benchmarks import vggsound_instruments
from tasks.evaluate_benchmark import evaluate


@pytest.fixture
def synthetic(tmp_path: Path) -> Path:
    """The archive's layout: a training set, a test set of two pictures."""
    for part in ("train/train/box", "test1/box", "test1/video"):
        (tmp_path / part).mkdir(parents=True)
    rows = [[0.06, 0.11, 0.35, 0.30, 11], [0.55, 0.6, 0.3, 0.3, 3]]
    np.save(tmp_path / "train/train/box/9.npy", np.array(rows))
    np.save(tmp_path / "test1/box/1.npy", np.array(rows))
    np.save(tmp_path / "test1/box/2.npy", np.array([*rows, [0.0, 0.0, 0.1, 0.1, 11]], dtype=np.float32))
    return tmp_path


def test_music_synthetic_is_read_from_its_test_folder(synthetic: Path) -> None:
    for folder in (synthetic, synthetic / "test1", synthetic / "test1/box"):
        first, second = benchmarks.read_items("music-synthetic", folder).items
        assert (first.key, first.pictures, first.sounds) == ("1", (Picture("1"),), (Sound("1", None, None),))
        assert [source.category for source in first.sources] == ["violin", "acoustic_guitar"]
        assert first.sources[0].boxes == ((0.06, 0.11, 0.35, 0.30),)
        assert [len(source.boxes) for source in second.sources] == [2, 1]


def test_other_arrays_do_not_pass_for_the_test_sets_boxes(synthetic: Path) -> None:
    (synthetic / "test2/box").mkdir(parents=True)
    np.save(synthetic / "test2/box/1.npy", np.zeros((1, 5)))
    with pytest.raises(
        DataError, match=r"expected one folder test1/box with \.npy files, found .*test1/box, .*test2/b"
    ):
        benchmarks.read_items("music-synthetic", synthetic)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([0.1, 0.1, 0.2, 0.2, 1], r"shape \(5,\); expected rows of x, y, width, height"),
        ([[0.1, 0.1, 0.2, 0.2]], r"shape \(1, 4\)"),
        (np.zeros((0, 5)), r"shape \(0, 5\)"),
        ([[0.1, 0.1, 0.2, 0.2, 0]], "has category 0; expected one of 1 cello"),
        ([[0.1, 0.1, 0.2, 0.2, 1.5]], "has category 1.5"),
        ([[0.6, 0.1, 0.9, 0.4, 1]], "beyond the frame"),
        ([[10, 10, 90, 90, 1]], "look like pixels"),
    ],
)
def test_box_arrays_are_refused_where_they_are_wrong(synthetic: Path, rows: Any, words: str) -> None:
    np.save(synthetic / "test1/box/2.npy", np.array(rows))
    with pytest.raises(DataError, match=words) as caught:
        benchmarks.read_items("music-synthetic", synthetic)
    assert "2.npy" in str(caught.value)


@pytest.fixture
def instruments(tmp_path: Path, annotations: Path) -> Path:
    """The real lists, with a made mask for every sample: the upper left corner, as large as its number."""
    source = annotations / "vggsound_instruments"
    for name in ("vgginstruments_test.csv", "vgginstruments_multi_test.csv"):
        (tmp_path / name).write_text((source / name).read_text())
    (tmp_path / "masks").mkdir()
    for line in (source / "vgginstruments_test.csv").read_text().split():
        sample = line.split(",")[0]
        mask = np.zeros((16, 12), dtype=np.uint8)
        mask[: 1 + int(sample[6:]) // 40, :6] = 255
        (tmp_path / f"masks/{sample}.pkl").write_bytes(pickle.dumps(mask))
    return tmp_path


def test_the_lists_hold_what_is_known_of_them(instruments: Path) -> None:
    items = benchmarks.read_items("vggsound-instruments", instruments).items
    assert len(items) == 446
    classes = {source.category for item in items for source in item.sources}
    assert len(classes) == 36 and set(vggsound_instruments.CLASSES) - classes == {"erhu"}
    pairs = benchmarks.read_items("vggsound-instruments-multi", instruments).items
    assert len(pairs) == 446 and pairs[0].key == "sample0000,sample0190"
    assert [source.category for source in pairs[0].sources] == ["accordion", "steel_guitar"]
    assert pairs[0].pictures == (Picture("sample0000"), Picture("sample0190"))
    assert pairs[0].sounds == (Sound("sample0000", None, 3.0), Sound("sample0190", None, 3.0))
    assert [source.picture for source in pairs[0].sources] == [0, 1]


def test_the_classes_are_those_of_the_training_list(annotations: Path) -> None:
    import gzip

    lines = gzip.decompress((annotations / "vggsound_instruments/vgginstruments_train.txt.gz").read_bytes()).decode()
    rows = [line.split(",") for line in lines.split()]
    assert len(rows) == 33934
    assert tuple(sorted({category for _, category in rows})) == vggsound_instruments.CLASSES


def test_masks_reach_the_grid_by_nearest_neighbour(instruments: Path) -> None:
    protocol = benchmarks.find("vggsound-instruments")
    item = benchmarks.read_items(protocol, instruments).items[0]
    (target,) = truths.by_canvas(item, protocol.correct)
    assert target.weights.dtype == bool and target.weights[:14, :112].all() and target.weights.sum() == 14 * 112


def test_the_branch_that_mixes_nothing_leaves_the_first_source_alone(instruments: Path) -> None:
    reading = benchmarks.read_items("vggsound-instruments-multi", instruments, "reference")
    assert reading.left_out == {"second source of a pair (sources, not items)": 446}
    assert {(len(item.pictures), len(item.sounds), len(item.sources)) for item in reading} == {(1, 1, 1)}
    item = reading.items[0]
    assert item.key == "sample0000,sample0190"  # one prediction file serves both modes
    both = Maps(item.key, np.arange(8.0).reshape(1, 2, 4), ("accordion",), (None,))
    assert within(item, both).maps.tolist() == [[[0, 1], [4, 5]]], "what it says about the first picture"
    (pair,) = [one for one in benchmarks.read_items("vggsound-instruments-multi", instruments) if one.key == item.key]
    assert within(pair, both) is both
    with pytest.raises(DataError, match=r"maps of shape \(1, 2, 3\); expected .* its 2 pictures side by side"):
        within(item, replace(both, maps=both.maps[:, :, :3]))


def test_the_reference_mode_of_pairs_scores_the_left_half_of_a_files_maps(tmp_path: Path) -> None:
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[2:14, 8:] = 1
    for number in range(3):
        (tmp_path / f"sample{number:04d}.pkl").write_bytes(pickle.dumps(mask))
    pairs = [(f"sample{number:04d}", f"sample{(number + 1) % 3:04d}") for number in range(3)]
    lines = [f"{first},violin,{second},piano\n" for first, second in pairs]
    (tmp_path / "vgginstruments_multi_test.csv").write_text("".join(lines))

    def scored(right: Any) -> dict[str, float]:
        maps = np.concatenate([mask.astype(np.float32), right], axis=1)[None]
        path = tmp_path / "maps.parquet"
        prediction_files.write_predictions(path, [Maps(",".join(pair), maps, ("violin",), (1.0,)) for pair in pairs])
        asked = {"modes": ["reference"], "out": tmp_path / "out", "compute": Compute(workers=0), "track": False}
        done = evaluate("vggsound-instruments-multi", tmp_path, predictions=path, resamples=2, **asked)
        return {name: one["value"] for name, one in done["modes"]["reference"]["metrics"].items()}

    dark, bright = (scored(np.full((16, 16), value, np.float32)) for value in (0.0, 2.0))
    assert dark == bright and dark["ciou@0.1"] == 1, "what it says about the other picture does not count"


class Trap:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('ran')",)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros(7), r"shape \(7,\)"),
        (np.zeros((2, 3, 4)), r"shape \(2, 3, 4\)"),
        (np.arange(12).reshape(3, 4), "with 12 values; expected a mask"),
        (np.array([[1, 2], [2, 1]]), "with 2 values"),
        (Trap(), "so it is not read"),
        ({"mask": np.zeros((2, 2))}, "is not read"),
    ],
)
def test_what_is_no_mask_is_refused_by_name(instruments: Path, value: Any, words: str) -> None:
    (instruments / "masks/sample0003.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(DataError, match=words) as caught:
        benchmarks.read_items("vggsound-instruments", instruments)
    assert "sample0003.pkl" in str(caught.value)


def test_missing_and_doubled_masks_and_unknown_classes_are_refused(instruments: Path) -> None:
    np.save(instruments / "masks/sample0005.npy", np.ones((2, 2)))
    with pytest.raises(DataError, match=r"sample0005\.(npy|pkl) and .* are masks of one sample and differ"):
        benchmarks.read_items("vggsound-instruments", instruments)
    (instruments / "masks/sample0005.npy").unlink()
    (instruments / "masks/sample0005.pkl").unlink()
    with pytest.raises(DataError, match="lacks the masks of 1 of 446 samples, first sample0005"):
        benchmarks.read_items("vggsound-instruments-multi", instruments)
    (instruments / "vgginstruments_test.csv").write_text("sample0000,theremin\n")
    with pytest.raises(DataError, match="'sample0000' has class 'theremin'; expected one of accordion"):
        benchmarks.read_items("vggsound-instruments", instruments)
