"""Losses against hand values and slow references."""

import math

import pytest
import torch
import torch.nn.functional as F

from dsol_core import losses
from dsol_core.types import DataError, ShapeError


def unit(*shape, seed=0, dim=1):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=dim)


def test_other_video_is_never_the_same_and_uniform():
    videos = ["a", "a", "b", "c"]
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([losses.other_video(videos, generator) for _ in range(600)])
    assert drawn.shape == (600, 4) and drawn.dtype == torch.int64
    for row, video in enumerate(videos):
        allowed = {i for i, v in enumerate(videos) if v != video}
        assert set(drawn[:, row].tolist()) == allowed
    assert (drawn[:, 0] == 2).float().mean() == pytest.approx(0.5, abs=0.08)
    with pytest.raises(DataError, match="one video"):
        losses.other_video(["a", "a"], generator)
    with pytest.raises(DataError, match=r"share one with c\+a"):
        losses.other_video(["a", "c+a", "c+d"], generator)
    scenes = ["a+b", "b+c", "c+d", "e"]
    shared = losses.same_video(scenes)
    assert shared.tolist() == [[bool({*one.split("+")} & {*other.split("+")}) for other in scenes] for one in scenes]
    drawn = torch.stack([losses.other_video(scenes, generator) for _ in range(50)])
    assert not shared[torch.arange(4).expand(50, 4), drawn].any()


def test_top_mean_by_hand():
    scores = torch.tensor([[1.0, 5.0, 3.0, 2.0]])
    assert losses.top_mean(scores, 0.0).item() == 5  # the maximum
    assert losses.top_mean(scores, 0.5).item() == 4
    assert losses.top_mean(scores, 1.0).item() == 2.75


def test_auto_pool_by_hand_and_between_the_mean_and_the_maximum():
    scores = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    got = losses.auto_pool(scores, torch.tensor(math.log(3.0)))
    torch.testing.assert_close(got, torch.tensor([0.75, 0.5]))  # weights 3/4 and 1/4
    torch.testing.assert_close(losses.auto_pool(scores, torch.tensor(0.0)), scores.mean(1))
    torch.testing.assert_close(losses.auto_pool(scores, torch.tensor(1e3)), scores.amax(1))
    visual, audio, sharpness = unit(3, 8, 4, 5), unit(2, 8, seed=1), torch.tensor(5.0)
    cosines = torch.einsum("bexy,ne->bnxy", visual, audio).flatten(2)
    torch.testing.assert_close(losses.pair_scores(visual, audio, 0.15, sharpness), losses.auto_pool(cosines, sharpness))


def test_tokens_share_out_the_cells_like_the_loop():
    cells, tokens, heat = unit(2, 8, 5), unit(3, 8, seed=1), 0.2
    got = losses.token_presence(cells, tokens, heat)
    for row in range(2):
        cosines = [[(cells[row, :, n] @ token).item() for token in tokens] for n in range(5)]
        shares = [[math.exp(c / heat) / sum(math.exp(d / heat) for d in one) for c in one] for one in cosines]
        shown = [
            sum(s[k] * c[k] for s, c in zip(shares, cosines, strict=True)) / sum(s[k] for s in shares) for k in range(3)
        ]
        torch.testing.assert_close(got[row], torch.log_softmax(torch.tensor(shown) / heat, 0))
    sound = losses.token_presence(cells[:, :, :1], tokens, heat)
    torch.testing.assert_close(sound, torch.log_softmax(cells[:, :, 0] @ tokens.T / heat, 1))


def test_shared_tokens_are_those_that_both_show_and_all_alike():
    seen = torch.log_softmax(torch.tensor([[9.0, 0, 0], [8, 1, 0], [8, 0, 1], [9, 0, 0], [8, 1, 0], [8, 0, 1]]), 1)
    heard = torch.log_softmax(torch.zeros(6, 3), 1)
    shared = losses.shared_tokens(seen, heard)
    torch.testing.assert_close(shared.sum(1), torch.ones(6))
    torch.testing.assert_close(shared.sum(0), torch.full((3,), 2.0), atol=0.1, rtol=0)  # though all look like the first
    assert shared.argmax(1).tolist() == [0, 1, 2, 0, 1, 2]
    both = losses.shared_tokens(torch.log(torch.tensor([[0.5, 0.5], [0.5, 0.5]])), torch.log(torch.eye(2) * 0.8 + 0.1))
    assert both.argmax(1).tolist() == [0, 1] and not both.requires_grad


def test_matching_by_hand():
    got = losses.matching(torch.tensor([0.9, 0.2]), torch.tensor([1, 0]))
    assert got.item() == pytest.approx(-(math.log(0.9) + math.log(0.8)) / 2, rel=1e-5)
    assert losses.matching(torch.tensor([0.0]), torch.tensor([1.0])).isfinite()
    with pytest.raises(ShapeError):
        losses.matching(torch.zeros(2), torch.zeros(3))


def test_pair_scores_equal_the_loop():
    visual, audio = unit(3, 8, 4, 5), unit(2, 8, seed=1)
    scores = losses.pair_scores(visual, audio, 0.15)
    assert scores.shape == (3, 2)
    for b in range(3):
        for n in range(2):
            cells = sorted(((visual[b, :, y, x] @ audio[n]).item() for y in range(4) for x in range(5)), reverse=True)
            assert scores[b, n].item() == pytest.approx(sum(cells[:3]) / 3, abs=1e-5)


def test_contrastive_equals_the_slow_one():
    scores, heat = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)), 0.5
    ignored = torch.zeros(4, 4, dtype=torch.bool)
    ignored[0, 2] = ignored[2, 0] = ignored[1, 1] = True
    slow = 0.0
    for i in range(4):
        for line, mask in ((scores[i], ignored[i]), (scores[:, i], ignored[:, i])):
            kept = [math.exp(line[j] / heat) for j in range(4) if j == i or not mask[j]]
            slow -= math.log(math.exp(scores[i, i] / heat) / sum(kept)) / 8
    assert losses.contrastive(scores, heat, ignored).item() == pytest.approx(slow, rel=1e-5)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        losses.contrastive(scores[order][:, order], heat, ignored[order][:, order]),
        losses.contrastive(scores, heat, ignored),
    )
    with pytest.raises(ShapeError, match="every picture"):
        losses.contrastive(torch.zeros(2, 3), 1.0)


def test_attention_pool_finds_the_matching_cell():
    audio = unit(2, 8)
    visual = unit(2, 8, 3, 3, seed=2)
    visual[0, :, 1, 2] = audio[0]
    pooled = losses.attention_pool(visual, audio, temperature=0.01)
    assert pooled.shape == (2, 8)
    torch.testing.assert_close(pooled.norm(dim=1), torch.ones(2))
    assert (pooled[0] @ audio[0]).item() > 0.99
    even = losses.attention_pool(visual, audio, temperature=1e6)
    torch.testing.assert_close(even, F.normalize(visual.mean((2, 3)), dim=1), atol=1e-4, rtol=0)


def test_presence_and_classification_by_hand():
    assert losses.presence(torch.zeros(2, 3), torch.tensor([[1.0, 0, 0], [0, 0, 1]])).item() == pytest.approx(
        math.log(2)
    )
    assert losses.classification(torch.zeros(2, 5), torch.tensor([1, 4])).item() == pytest.approx(math.log(5))


@pytest.mark.parametrize(("reduction", "count"), [("batch", 2), ("element", 6)])
def test_category_is_the_divergence_of_the_heard_from_the_seen(reduction, count):
    teacher = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    student = torch.tensor([[0.25, 0.5, 0.25], [0.2, 0.3, 0.5]])
    got = losses.category(student.log(), teacher, reduction=reduction)
    assert got.item() == pytest.approx(0.5 * math.log(2) / count, rel=1e-5)
    with pytest.raises(ShapeError):
        losses.category(student.log()[:1], teacher, reduction="batch")


def test_mosaic_matching_by_hand():
    matched = torch.full((1, 4, 4), 0.1)
    matched[0, 3, 0] = 0.8
    mismatched = torch.full((1, 4, 4), 0.2)
    mismatched[0, 0, 3] = 0.6
    positive = -math.log(0.8)
    quadrants = -(math.log(0.4) + 3 * math.log(0.8)) / 4
    got = losses.mosaic_matching(matched, mismatched, quadrants=True)
    assert got.item() == pytest.approx((positive + quadrants) / 2, rel=1e-5)
    got = losses.mosaic_matching(matched, mismatched, quadrants=False)
    assert got.item() == pytest.approx((positive - math.log(0.4)) / 2, rel=1e-5)
