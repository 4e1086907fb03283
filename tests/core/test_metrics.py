from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, normalized_mutual_info_score

from dsol_core import agreement, metrics
from dsol_core.maps import boxes_to_mask
from dsol_core.types import Box, DataError, ShapeError

SEEDS = st.integers(0, 2**32 - 1)


def slow_iou(predicted: np.ndarray, truth: np.ndarray) -> float:
    hit = whole = 0.0
    for p, g in zip(predicted.ravel(), truth.ravel(), strict=True):
        hit += p * g
        whole += g + p * (g == 0)
    return hit / whole if whole else 0.0


@given(SEEDS)
def test_iou_equals_the_slow_sum_with_boxes_and_with_consensus_maps(seed: int) -> None:
    generator = np.random.default_rng(seed)
    predicted = generator.random((3, 5, 6)) < generator.random()
    for truth in (generator.random((3, 5, 6)) < 0.4, generator.choice([0, 0.5, 1], (3, 5, 6))):
        found = metrics.iou(predicted, truth)
        assert found.dtype == np.float64
        assert np.allclose(found, [slow_iou(p, g) for p, g in zip(predicted, truth, strict=True)], atol=1e-15)
        flipped = metrics.iou(predicted[:, ::-1], truth[:, ::-1])
        assert np.allclose(flipped, found)


def test_iou_by_hand() -> None:
    predicted, truth = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    predicted[:2], truth[:, :2] = True, True
    assert metrics.iou(predicted, truth) == pytest.approx(4 / 12)
    assert metrics.iou(predicted & False, truth & False) == 0
    assert metrics.iou(predicted, truth & False) == 0


def test_mean_where_averages_the_sounding_classes_only() -> None:
    values = np.array([[0.2, 0.9, 0.4], [0.1, 0.2, 0.3]])
    chosen = np.array([[True, False, True], [False, False, False]])
    assert metrics.mean_where(values, chosen)[0] == pytest.approx(0.3)
    assert np.isnan(metrics.mean_where(values, chosen)[1])


def test_exactly_three_tenths_fails_at_three_tenths_as_in_the_reference() -> None:
    assert metrics.SUCCESS_AT[6] == 0.05 * 6 > 0.3
    assert metrics.success([0.3, 0.05 * 6, 0.5, np.nan], 0.3)[:3].tolist() == [0, 1, 1]
    assert np.isnan(metrics.success([np.nan], 0.3))
    assert metrics.success([0.5, 0.4999], 0.5).tolist() == [1, 0]
    with pytest.raises(DataError, match=r"0\.33"):
        metrics.success([0.5], 0.33)


def slow_auc(ious: list[float]) -> float:
    shares = [sum(value >= 0.05 * i for value in ious) / len(ious) for i in range(21)]
    return sum((shares[i] + shares[i + 1]) / 2 * 0.05 for i in range(20))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_auc_is_the_trapezoid_of_the_success_curve(ious: list[float]) -> None:
    terms = metrics.auc_terms(ious)
    assert terms.mean() == pytest.approx(slow_auc(ious), abs=1e-12)
    curve = metrics.success_curve(ious)
    assert curve[0] == 1 and (np.diff(curve) <= 0).all()
    assert (curve[:-1] + curve[1:]).sum() * 0.025 == pytest.approx(terms.mean(), abs=1e-12)


def test_auc_by_hand() -> None:
    assert metrics.auc_terms([0.0, 1.0]).tolist() == pytest.approx([0.025, 1.0])
    assert metrics.auc_terms([0.31]).tolist() == pytest.approx([0.025 + 6 * 0.05])
    assert np.isnan(metrics.auc_terms([np.nan])).all()


def test_nsa_by_hand_uses_an_absolute_level_that_counts_as_dark() -> None:
    maps = np.array([[[0.9, 0.2], [0.1, 0.3]], [[0.2, 0.2], [0.1, 0.0]], [[0.3, 0.3], [0.3, 0.1]]])
    assert metrics.nsa(maps, [False, True, True]) == pytest.approx((1 + 0.25) / 2)
    assert metrics.nsa(maps, [True, False, False], 0.1) == pytest.approx(0.25)
    assert np.isnan(metrics.nsa(maps, [False, False, False]))
    assert metrics.nsa(np.full((11, 4, 4), 1 / 11), np.ones(11, bool)) == 1  # the reference's flaw: silence for free
    with pytest.raises(ShapeError, match=r"\(2,\)"):
        metrics.nsa(maps, [True, False])


@given(SEEDS, st.floats(0, 1), st.floats(0, 1))
def test_nsa_rises_with_its_level_and_ignores_the_order_of_entries(seed: int, one: float, two: float) -> None:
    generator = np.random.default_rng(seed)
    maps, silent = generator.random((5, 4, 4)), np.array([True, True, False, True, False])
    low, high = sorted((one, two))
    assert metrics.nsa(maps, silent, low) <= metrics.nsa(maps, silent, high)
    order = generator.permutation(5)
    assert metrics.nsa(maps[order], silent[order], low) == pytest.approx(metrics.nsa(maps, silent, low))
    slow = np.mean([np.mean([value <= low for value in m.ravel()]) for m, s in zip(maps, silent, strict=True) if s])
    assert metrics.nsa(maps, silent, low) == pytest.approx(slow)


def test_off_share_by_hand() -> None:
    mask, where = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    where[:2], mask[0, :2], mask[3] = True, True, True
    assert metrics.off_share(mask, where) == pytest.approx(6 / 8)
    assert np.isnan(metrics.off_share(mask, where & False))


def test_top_recall_by_hand_and_fair_to_ties() -> None:
    assert metrics.top_recall([0.9, 0.1, 0.8, 0.3], [True, True, False, False], 2) == 0.5
    assert metrics.top_recall([0.9, 0.1, 0.8, 0.3], [False, False, True, False], 2) == 1
    assert metrics.top_recall([0.5] * 11, np.arange(11) < 2, 2) == pytest.approx(2 / 11)
    assert metrics.top_recall([0.9, 0.9, 0.9], [True, True, True], 2) == pytest.approx(1)
    assert np.isnan(metrics.top_recall([0.9, 0.1], [False, False], 2))


@given(SEEDS)
def test_top_recall_equals_sorting_and_ignores_the_order_of_classes(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores, sounding = generator.permutation(8) / 8, generator.permutation(np.arange(8) < 2)
    best = set(sorted(range(8), key=lambda i: -scores[i])[:2])
    assert metrics.top_recall(scores, sounding, 2) == len(best & set(np.nonzero(sounding)[0])) / 2
    order = generator.permutation(8)
    assert metrics.top_recall(scores[order], sounding[order], 2) == metrics.top_recall(scores, sounding, 2)


def table(clusters: np.ndarray, labels: np.ndarray) -> np.ndarray:
    counts = np.zeros((5, 4))
    np.add.at(counts, (clusters, labels), 1)
    return counts


@given(SEEDS, st.integers(2, 60))
def test_nmi_and_purity_agree_with_scikit_learn_counting_and_the_dictionary(seed: int, size: int) -> None:
    generator = np.random.default_rng(seed)
    clusters, labels = generator.integers(5, size=size), generator.integers(4, size=size)
    counts, names = table(clusters, labels), [f"class{label}" for label in labels]
    assert agreement.table_nmi(counts) == pytest.approx(normalized_mutual_info_score(labels, clusters), abs=1e-9)
    assert agreement.table_nmi(counts) == pytest.approx(agreement.nmi(clusters, names), abs=1e-9)
    slow = sum(max(np.sum((clusters == k) & (labels == c)) for c in range(4)) for k in range(5)) / size
    assert agreement.table_purity(counts) == pytest.approx(slow)
    assert agreement.purity(clusters, names) == pytest.approx(slow)
    shuffled = counts[generator.permutation(5)][:, generator.permutation(4)]
    assert agreement.table_nmi(np.stack([counts, shuffled * 3])) == pytest.approx(
        [agreement.table_nmi(counts)] * 2, abs=1e-9
    )


def test_evenness_by_hand() -> None:
    assert agreement.evenness([[5, 5, 5, 5], [7, 0, 0, 0], [1, 1, 0, 0]]) == pytest.approx([1, 0, 0.5])
    assert agreement.evenness([3]) == 0


def test_the_mean_keeps_its_value_skips_nan_and_is_deterministic() -> None:
    values, groups = [0.0, 1.0, np.nan, 1.0, 0.0, 1.0], ["a", "a", "b", "c", "d", "e"]
    one = metrics.mean_estimate(values, groups, seed=3)
    assert one == metrics.mean_estimate(values, groups, seed=3)
    assert one is not None and one.value == 0.6 and one.n == 5
    assert 0 <= one.low <= 0.6 <= one.high <= 1
    assert metrics.mean_estimate([np.nan], ["a"], seed=0) is None
    with pytest.raises(DataError):
        metrics.bootstrap(np.zeros((0, 1)), [], lambda sums: sums[:, 0], seed=0)


def test_the_interval_is_that_of_independent_videos_not_of_frames() -> None:
    generator = np.random.default_rng(0)
    means = generator.random(100)
    values, groups = np.repeat(means, 25), np.repeat(np.arange(100), 25).tolist()
    found = metrics.mean_estimate(values, groups, seed=0, resamples=2000)
    assert found is not None
    expected = 2 * 1.96 * means.std() / np.sqrt(100)
    assert found.high - found.low == pytest.approx(expected, rel=0.1)  # frames alone would give a fifth of it


def test_blocks_of_draws_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    values, groups = np.random.default_rng(1).random(40), [i // 2 for i in range(40)]
    whole = metrics.mean_estimate(values, groups, seed=5, resamples=100)
    monkeypatch.setattr(metrics, "_BLOCK", 20 * 7)
    assert metrics.mean_estimate(values, groups, seed=5, resamples=100) == whole


def test_a_bootstrap_of_nmi_keeps_its_value() -> None:
    generator = np.random.default_rng(2)
    labels = generator.integers(4, size=300)
    clusters = np.where(generator.random(300) < 0.8, labels, generator.integers(5, size=300))
    hot = np.zeros((300, 20))
    hot[np.arange(300), clusters * 4 + labels] = 1
    found = metrics.bootstrap(
        hot, list(range(300)), lambda sums: agreement.table_nmi(sums.reshape(-1, 5, 4)), seed=0, resamples=200
    )
    assert found.value == pytest.approx(normalized_mutual_info_score(labels, clusters))
    assert found.low < found.value < found.high


# The golden numbers of the published annotation files: whole frame, and a centred disk of half its area.

SIDE = 224


def disk() -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    distance = (rows - 111.5) ** 2 + (columns - 111.5) ** 2
    return np.asarray(distance <= np.sort(distance, axis=None)[distance.size // 2 - 1])


SHAPES = {"whole": np.ones((SIDE, SIDE), bool), "disk": disk()}
Boxes = tuple[Box, ...]


@cache
def overlap(shape: str, boxes: Boxes) -> float:
    return float(metrics.iou(SHAPES[shape], boxes_to_mask(boxes, (SIDE, SIDE))))


def golden(frames: list[list[Boxes]], shape: str) -> Any:
    """Rates at 0.3 and 0.5 and AUC, in percent, of frames given as the boxes of each of their classes."""
    ious = [float(np.mean([overlap(shape, boxes) for boxes in frame])) for frame in frames]
    return [
        100 * float(v.mean()) for v in (metrics.success(ious, 0.3), metrics.success(ious, 0.5), metrics.auc_terms(ious))
    ]


def published(*values: float) -> Any:
    """Two decimals, and a unit in the last for means that lie on the edge of rounding."""
    return pytest.approx(values, abs=0.0101)


def box(values: list[float], *, corners: bool = False) -> Boxes:
    x, y, right, bottom = values if corners else (*values[:2], values[0] + values[2], values[1] + values[3])
    x, y, right, bottom = (min(1.0, max(0.0, v)) for v in (x, y, right, bottom))
    return (Box(x, y, right - x, bottom - y),) if right > x and bottom > y else ()


def read(path: Path) -> Any:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return json.load(file)


def test_the_disk_has_the_published_area() -> None:
    assert disk().sum() == 25100


def music(path: Path) -> list[list[Boxes]]:
    frames = []
    for frame in read(path).values():
        classes: dict[int, Boxes] = {}
        for one in frame["bbox"]:
            classes[one["category_id"]] = classes.get(one["category_id"], ()) + box(one["normbox"])
        if classes:
            frames.append(list(classes.values()))
    return frames


def test_golden_music_solo(shared_dir: Path) -> None:
    frames = music(shared_dir / "annotations/music/solotest.json.gz")
    assert len(frames) == 12356
    assert golden(frames, "whole") == published(43.29, 15.35, 33.22)
    assert golden(frames, "disk") == published(76.11, 24.89, 39.06)


def test_golden_music_duet(shared_dir: Path) -> None:
    frames = music(shared_dir / "annotations/music/duettest.json.gz")
    both = [frame for frame in frames if len(frame) == 2]
    assert (len(frames), len(both)) == (10284, 4751)
    assert golden(frames, "whole") == published(6.49, 1.74, 16.12)
    assert golden(frames, "disk") == published(18.65, 4.15, 22.34)
    assert golden(both, "whole") == published(1.05, 0.06, 12.63)
    assert golden(both, "disk") == published(16.54, 0.32, 20.39)


def test_golden_vggss(shared_dir: Path) -> None:
    images = read(shared_dir / "annotations/vggss/vggss.json")
    frames = [[tuple(b for values in one["bbox"] for b in box(values, corners=True))] for one in images]
    assert len(frames) == 5158
    assert golden(frames, "whole")[1:] == published(21.95, 31.25)
    assert golden(frames, "disk") == published(60.10, 34.02, 37.44)
    areas = [boxes_to_mask(frame[0], (SIDE, SIDE)).mean() for frame in frames]
    assert 100 * np.mean(areas) == pytest.approx(31.24, abs=0.005)


@given(SEEDS, st.sampled_from([2, 5, 10**6]))
def test_average_precision_equals_scikit_learns(seed: int, levels: int) -> None:
    generator = np.random.default_rng(seed)
    scores = (np.round(generator.standard_normal((20, 30)) * levels) / levels).astype(np.float32)
    scores[generator.random(scores.shape) < 0.2] = -0.0  # equal to 0.0, in other bits
    truth = generator.random(scores.shape) < generator.random()
    truth[0, 0] = True
    found = metrics.average_precision(scores, truth)
    assert found == pytest.approx(average_precision_score(truth.ravel(), scores.ravel()), abs=1e-12)
    assert metrics.average_precision(scores * 3 + 1, truth) == pytest.approx(found, abs=1e-9)  # only the order counts
    shuffled = generator.permutation(scores.size)
    assert metrics.average_precision(scores.ravel()[shuffled], truth.ravel()[shuffled]) == found


def test_average_precision_by_hand() -> None:
    """Scores 4 3 2 1, true at 4 and 2: precision 1 at the first hit, 2/3 at the second."""
    assert metrics.average_precision(np.array([4, 3, 2, 1]), np.array([1, 0, 1, 0], bool)) == pytest.approx(5 / 6)
    assert metrics.average_precision(np.array([1, 1, 1, 1]), np.array([1, 0, 1, 0], bool)) == pytest.approx(1 / 2)
    assert metrics.average_precision(np.array([4, 3]), np.array([0, 0], bool)) == 0
