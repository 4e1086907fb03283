"""Metrics as functions of masks, maps and probabilities; intervals by resampling videos.

Every metric here is a mean of one value an item (AUC too: the trapezoid of the success curve is linear), so that
items can be scored one by one and intervals come from resampling their values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from dsol_core.types import DataError, Estimate, ShapeError

# Success thresholds as the authors' code computes them: 0.05 * 6 is 0.30000000000000004, so exactly 0.3 fails there.
SUCCESS_AT = 0.05 * np.arange(21)
_BLOCK = 2_000_000  # counts drawn at a time by the bootstrap


def iou(predicted: Any, truth: Any) -> Any:
    """Return the intersection over union, in the form that also takes consensus maps (Senocak 2018).

    sum(P * G) / (sum(G) + sum(P * [G == 0])).

    Args:
        predicted: bool [..., H, W].
        truth: bool or float in [0, 1], same shape or broadcast against it.

    Returns:
        float64 [...]; 0 where both are empty.
    """
    predicted, truth = np.asarray(predicted, dtype=bool), np.asarray(truth)
    if truth.dtype == bool:  # the same numbers, faster
        hit, whole = area(predicted & truth), area(predicted | truth)
    else:
        weight = truth.astype(np.float64)
        hit = np.where(predicted, weight, 0.0).sum((-2, -1))
        whole = weight.sum((-2, -1)) + (predicted & (truth == 0)).sum((-2, -1))
    return np.divide(hit, whole, out=np.zeros(np.shape(hit)), where=whole > 0)


def mean_where(values: Any, chosen: Any) -> Any:
    """Average over the last axis where `chosen`: CIoU of a scene is its sounding classes' mean IoU (paper, section 4).

    Args:
        values: float [..., C].
        chosen: bool [..., C].

    Returns:
        float64 [...]; NaN where nothing is chosen.
    """
    values, chosen = np.asarray(values, dtype=np.float64), np.asarray(chosen, dtype=bool)
    count = chosen.sum(-1)
    total = np.where(chosen, values, 0.0).sum(-1)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def success(ious: Any, at: float) -> Any:
    """Return 1.0 where an item reaches a success threshold, 0.0 where not, NaN where it has no value.

    Args:
        ious: float [N].
        at: a multiple of 0.05; compared as `0.05 * i`, like the reference.

    Raises:
        DataError: `at` is none of the 21 thresholds.
    """
    place = round(at * 20)
    if not 0 <= place <= 20 or abs(at - place / 20) > 1e-9:
        raise DataError(f"success threshold {at:g} is not one of 0, 0.05 ... 1; the reference knows only these")
    ious = np.asarray(ious, dtype=np.float64)
    return np.where(np.isnan(ious), np.nan, (ious >= SUCCESS_AT[place]).astype(np.float64))


def success_curve(ious: Any) -> Any:
    """Return the share of items that reach each of the 21 thresholds, float64 [21]; NaN items are left out."""
    ious = np.asarray(ious, dtype=np.float64)
    ious = ious[~np.isnan(ious)]
    return (ious[:, None] >= SUCCESS_AT).mean(0) if len(ious) else np.full(len(SUCCESS_AT), np.nan)


def auc_terms(ious: Any) -> Any:
    """Return each item's part of the area under the success curve; their mean is the reference's AUC.

    0.05 * (s_0 / 2 + s_1 + ... + s_19 + s_20 / 2) with s_i = [iou >= 0.05 * i].

    Args:
        ious: float [N].

    Returns:
        float64 [N] in [0, 1]; NaN where there is no value.
    """
    ious = np.asarray(ious, dtype=np.float64)
    weights = np.full(len(SUCCESS_AT), 0.05)
    weights[[0, -1]] = 0.025
    return np.where(np.isnan(ious), np.nan, (ious[..., None] >= SUCCESS_AT) @ weights)


def nsa(maps: Any, silent: Any, level: float = 0.2) -> Any:
    """Return the share of the silent entries' area that stays dark: non-sounding area (paper, section 4).

    Args:
        maps: [..., K, H, W] in [0, 1].
        silent: bool [..., K], the entries that do not sound.
        level: absolute; a pixel up to it is dark (code: 0.2 on maps that are a softmax over the entries).

    Returns:
        float64 [...]; NaN where no entry is silent.
    """
    maps = np.asarray(maps)
    if np.shape(silent) != maps.shape[:-2]:
        raise ShapeError(f"silent flags {np.shape(silent)} do not fit maps {maps.shape}; expected {maps.shape[:-2]}")
    return mean_where(share(maps <= level), silent)


def area(masks: Any) -> Any:
    """Return how many pixels of each bool mask [..., H, W] are set, int64 [...]."""
    # numpy counts one mask at a time many times as fast as along axes
    flat = masks.reshape(math.prod(masks.shape[:-2]), *masks.shape[-2:])
    return np.array([np.count_nonzero(mask) for mask in flat], np.int64).reshape(masks.shape[:-2])


def share(masks: Any) -> Any:
    """Return the share of the pixels of each bool mask [..., H, W] that are set, float64 [...]."""
    return area(masks) / (masks.shape[-2] * masks.shape[-1])


def average_precision(scores: Any, truth: Any) -> float:
    """Return the average precision of ranking pixels: sum of (R_j - R_{j-1}) * P_j over the distinct scores.

    Args:
        scores: float32 (or what fits into it), any shape.
        truth: bool, same shape.

    Returns:
        in [0, 1]; 0 where nothing is true.
    """
    flat, label = np.ravel(scores).astype(np.float32) + np.float32(0), np.ravel(truth)
    bits = flat.view(np.uint32)  # as integers, negative floats run backwards
    order = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
    ranked = np.sort(order << np.uint64(1) | label)[::-1]  # one sort of integers that carry their label
    last = np.flatnonzero(np.diff(ranked >> np.uint64(1), append=np.uint64(0)))  # of each run of equal scores
    hits = np.cumsum(ranked & np.uint64(1))[last].astype(np.float64)
    if not hits[-1]:
        return 0.0
    return float((np.diff(hits, prepend=0.0) * hits / (last + 1)).sum() / hits[-1])


def off_share(masks: Any, where: Any) -> Any:
    """Return the share of the pixels `where` that a mask leaves off.

    Args:
        masks: bool [..., H, W].
        where: bool, same shape or broadcast against it.

    Returns:
        float64 [...]; NaN where no pixel is asked for.
    """
    where = np.broadcast_to(np.asarray(where, dtype=bool), np.shape(masks))
    count, off = area(where), area(where & ~np.asarray(masks, dtype=bool))
    return np.divide(off, count, out=np.full(np.shape(off), np.nan), where=count > 0)


def top_recall(scores: Any, sounding: Any, k: int) -> Any:
    """Return the share of the sounding classes among the k that score highest, ties broken evenly.

    Args:
        scores: float [..., C].
        sounding: bool [..., C].
        k: how many classes may be named; where fewer sound, those can all be found, where more, only k of them.

    Returns:
        float64 [...] in [0, 1]; NaN where nothing sounds.
    """
    scores, sounding = np.asarray(scores, dtype=np.float64), np.asarray(sounding, dtype=bool)
    above = (scores[..., None, :] > scores[..., :, None]).sum(-1)
    equal = (scores[..., None, :] == scores[..., :, None]).sum(-1)
    chance = np.clip((k - above) / equal, 0, 1)  # of being in the top k when ties are broken at random
    found, count = np.where(sounding, chance, 0.0).sum(-1), np.minimum(sounding.sum(-1), k)
    return np.divide(found, count, out=np.full(np.shape(found), np.nan), where=count > 0)


def bootstrap(
    contributions: Any,
    groups: Sequence[Hashable],
    statistic: Callable[[Any], Any],
    *,
    seed: int,
    resamples: int = 1000,
) -> Estimate:
    """Estimate a statistic of summed contributions with its 95 % interval, resampling groups.

    Frames of one video look alike, so whole groups are drawn with replacement, never single items.

    Args:
        contributions: float [N, M], what each item adds to the M sums.
        groups: of each item (N), such as its video.
        statistic: sums [R, M] -> [R], each in [0, 1].
        seed: of the draws; equal groups and seed give equal draws, so that two models are compared on the same ones.
        resamples: R.

    Raises:
        DataError: there is no item.
    """
    contributions = np.asarray(contributions, dtype=np.float64)
    if not len(contributions):
        raise DataError("no item to estimate from; leave the metric out instead")
    number = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    sums = np.zeros((len(number), contributions.shape[1]))
    np.add.at(sums, [number[group] for group in groups], contributions)
    generator = np.random.default_rng(seed)
    even, block, drawn = np.full(len(sums), 1 / len(sums)), max(1, _BLOCK // len(sums)), []
    for start in range(0, resamples, block):
        counts = generator.multinomial(len(sums), even, size=min(block, resamples - start))
        drawn.append(statistic(counts @ sums))
    value, found = float(statistic(sums.sum(0, keepdims=True))[0]), np.concatenate(drawn)
    # Statistics such as NMI grow when videos repeat: move the draws so that their mean is the value.
    moved = np.clip(found - (found.mean() - value), 0, 1)
    low, high = np.quantile(moved, (0.025, 0.975))
    return Estimate(value, float(min(low, value)), float(max(high, value)), len(contributions))


def mean_estimate(values: Any, groups: Sequence[Hashable], *, seed: int, resamples: int = 1000) -> Estimate | None:
    """Estimate the mean of the items that have a value (not NaN); None where none has. See `bootstrap`."""
    values = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(values)
    if not known.any():
        return None
    chosen = [group for group, keep in zip(groups, known, strict=True) if keep]
    columns = np.stack([values[known], np.ones(int(known.sum()))], 1)
    return bootstrap(columns, chosen, lambda sums: sums[:, 0] / sums[:, 1], seed=seed, resamples=resamples)
