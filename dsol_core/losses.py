"""Losses as functions of tensors, and the choice of negatives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from dsol_core.types import DataError, ShapeError

BALANCING = 3  # rounds of Sinkhorn's algorithm (SwAV)


def other_video(video_ids: Sequence[str], generator: Generator) -> Tensor:
    """Choose for each row another row of a different video, uniformly.

    Args:
        video_ids: of the rows (B).
        generator: draws the choice.

    Returns:
        int64 [B].

    Raises:
        DataError: all rows are of one video.
    """
    chosen = []
    for row, same in enumerate(same_video(video_ids)):
        others = (~same).nonzero().flatten().tolist()
        if not others:
            raise DataError(
                f"all {len(video_ids)} rows are of one video or share one with {video_ids[row]}; negatives need rows "
                "of other videos in a batch: give a larger batch or more videos"
            )
        chosen.append(others[int(torch.randint(len(others), (1,), generator=generator))])
    return torch.tensor(chosen)


def same_video(video_ids: Sequence[str]) -> Tensor:
    """Return which rows share a video, bool [B, B]: no negatives of each other.

    Args:
        video_ids: of the rows (B); those of a scene's videos are joined by "+".
    """
    videos = [one.split("+") for one in video_ids]
    places = {name: place for place, name in enumerate(dict.fromkeys(name for some in videos for name in some))}
    made_of = np.zeros((len(videos), len(places)), np.float32)
    for row, some in enumerate(videos):
        made_of[row, [places[name] for name in some]] = 1
    return torch.from_numpy(made_of @ made_of.T > 0)


def top_mean(scores: Tensor, share: float) -> Tensor:
    """Average the largest `share` of the last dimension, [..., N] -> [...]; at least one value, so 0 is the maximum."""
    count = max(1, math.floor(share * scores.shape[-1]))
    return scores.topk(count, dim=-1).values.mean(-1)


def auto_pool(scores: Tensor, sharpness: Tensor) -> Tensor:
    """Average the last dimension with the weights softmax(sharpness * scores), [..., N] -> [...].

    Between the mean (0) and the maximum (infinity), as in McFee 2018, arXiv 1804.10070.

    Args:
        scores: [..., N].
        sharpness: scalar.
    """
    return (torch.softmax(sharpness * scores, -1) * scores).sum(-1)


def pool(scores: Tensor, share: float, sharpness: Tensor | None) -> Tensor:
    """Pool the last dimension: by `auto_pool` where there is a sharpness, else by `top_mean`."""
    return top_mean(scores, share) if sharpness is None else auto_pool(scores, sharpness)


def matching(scores: Tensor, matched: Tensor) -> Tensor:
    """Binary cross-entropy of scores [B] in (0, 1) against 1 for a picture and its own sound, 0 for others (eq. 2)."""
    if scores.shape != matched.shape:
        raise ShapeError(f"scores {tuple(scores.shape)} and targets {tuple(matched.shape)} differ; expected both [B]")
    return F.binary_cross_entropy(scores.clamp(1e-6, 1 - 1e-6), matched.to(scores.dtype))


def pair_scores(visual: Tensor, audio: Tensor, share: float, sharpness: Tensor | None = None) -> Tensor:
    """Score every picture with every sound: the cells' cosines, pooled.

    Args:
        visual: [B, E, h, w] unit vectors.
        audio: [N, E] unit vectors.
        share: of the cells, the best of which are averaged; 0: the best one.
        sharpness: scalar, of `auto_pool` in place of that; or None.

    Returns:
        [B, N] in [-1, 1].
    """
    cosines = torch.einsum("behw,ne->bnhw", visual, audio).flatten(2)
    return pool(cosines, share, sharpness)


def contrastive(scores: Tensor, temperature: float, ignored: Tensor | None = None) -> Tensor:
    """InfoNCE in both directions; row i and column i belong together.

    Args:
        scores: [B, B].
        temperature: divides the scores.
        ignored: bool [B, B], pairs that leave the denominators (the diagonal always stays).

    Returns:
        Scalar.
    """
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1]:
        raise ShapeError(f"scores have shape {tuple(scores.shape)}; expected [B, B], every picture with every sound")
    logits = scores / temperature
    if ignored is not None:
        own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        logits = logits.masked_fill(ignored & ~own, -1e4)
    target = torch.arange(len(scores), device=scores.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def attention_pool(visual: Tensor, audio: Tensor, temperature: float = 0.1) -> Tensor:
    """Average each picture's cells with weights softmax(cosine with its sound / temperature).

    Args:
        visual: [B, E, h, w] unit vectors.
        audio: [B, E] unit vectors.
        temperature: sharpness of the weights.

    Returns:
        [B, E] unit vectors: the object that matches the sound.
    """
    cosines = torch.einsum("behw,be->bhw", visual, audio)
    weights = torch.softmax(cosines.flatten(1) / temperature, 1).view_as(cosines)
    return F.normalize(torch.einsum("behw,bhw->be", visual, weights), dim=1)


def token_presence(cells: Tensor, tokens: Tensor, temperature: float) -> Tensor:
    """Say which token each row shows: the cells are shared out among the tokens, each looks at its share.

    Args:
        cells: [B, E, N] unit vectors, of a picture or (N = 1) of a sound.
        tokens: [K, E] unit vectors.
        temperature: of the shares and of the result.

    Returns:
        [B, K] log-probabilities.
    """
    cosines = torch.einsum("ben,ke->bkn", cells, tokens)
    shares = torch.softmax(cosines / temperature, 1)
    shown = (shares * cosines).sum(2) / shares.sum(2).clamp_min(1e-6)
    return torch.log_softmax(shown / temperature, 1)


@torch.no_grad()
def shared_tokens(seen: Tensor, heard: Tensor) -> Tensor:
    """Give each row the tokens that picture and sound show together, so that a batch shows all tokens alike.

    The balance (Sinkhorn's, as in SwAV, arXiv 2006.09882) keeps all rows from ending at one token.

    Args:
        seen: [B, K] log-probabilities.
        heard: [B, K] log-probabilities.

    Returns:
        [B, K] probabilities.
    """
    log = seen + heard
    for _ in range(BALANCING):
        log = torch.log_softmax(log - torch.logsumexp(log, 0, keepdim=True), 1)
    return log.exp()


def classification(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits [B, K] against pseudo-labels: int64 [B], or probabilities [B, K]."""
    return F.cross_entropy(logits, labels)


def presence(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of presence logits [B, K] against which entries sound, [B, K] in [0, 1]."""
    return F.binary_cross_entropy_with_logits(logits, target)


def category(student: Tensor, teacher: Tensor, *, reduction: Literal["batch", "element"]) -> Tensor:
    """KL(teacher || student) of category distributions (paper eq. 9; the paper names them in the other order).

    Args:
        student: [B, K] log-probabilities of what is seen sounding.
        teacher: [B, K] probabilities of what is heard; rows sum to 1.
        reduction: mean over the batch, or over all B * K elements as the authors' code does.

    Returns:
        Scalar.
    """
    if student.shape != teacher.shape:
        raise ShapeError(f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} differ; expected [B, K]")
    divergence = F.kl_div(student, teacher, reduction="sum")
    return divergence / (len(student) if reduction == "batch" else student.numel())


def mosaic_matching(matched: Tensor, mismatched: Tensor, *, quadrants: bool) -> Tensor:
    """Binary matching loss of stage two: one cell of a matched frame must respond, none of a mismatched one.

    Args:
        matched: maps [B, h, w] in (0, 1).
        mismatched: maps [B', h, w] in (0, 1).
        quadrants: the largest value of each quadrant of a mismatched frame must be low (code: frames are 2x2
            mosaics), instead of only the largest of all.

    Returns:
        Scalar, mean of the two sides.
    """
    positive = matched.flatten(1).amax(1)
    size = 2 if quadrants else 1
    negative = F.adaptive_max_pool2d(mismatched.unsqueeze(1), size).flatten()
    return 0.5 * (matching(positive, torch.ones_like(positive)) + matching(negative, torch.zeros_like(negative)))
