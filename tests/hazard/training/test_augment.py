import numpy as np
import pytest
import torch

from hazard.models.settings import AugmentOptions
from hazard.training.augment import TrainingBatch, augment

STEPS, WIDTH, CLIPS = 10, 6, 400
LENGTHS = torch.arange(CLIPS) % STEPS + 1


def numbered():
    """Make clips in which step t of clip b is b + t / 100 in every channel, so that each step can be recognised."""
    mask = torch.arange(STEPS) < LENGTHS[:, None]
    x = (1 + torch.arange(CLIPS)[:, None] + torch.arange(STEPS) / 100).unsqueeze(-1).expand(-1, -1, WIDTH)
    return TrainingBatch(x * mask.unsqueeze(-1), mask, torch.arange(CLIPS) % 3)


def shown(**options):
    random = torch.Generator().manual_seed(1)
    return augment(numbered(), AugmentOptions(**options), random, classes=3, fill_value=-1.0)


@pytest.mark.parametrize(
    "options", [{"temporal_crop": 0.5}, {"frame_dropout": 0.4}, {"temporal_crop": 0.3, "frame_dropout": 0.3}]
)
def test_steps_that_are_cut_leave_a_packed_clip(options):
    before, after = numbered(), shown(**options)
    lengths = after.mask.sum(1)
    assert torch.equal(after.mask, torch.arange(STEPS) < lengths[:, None])  # True first, False after
    assert (lengths >= 1).all() and (lengths <= LENGTHS).all() and (lengths < LENGTHS).any()
    assert not after.x[~after.mask].any()
    for b in range(CLIPS):
        steps = after.x[b, : lengths[b], 0].tolist()
        assert steps == sorted(steps) and set(steps) <= set(before.x[b, : LENGTHS[b], 0].tolist())
    assert torch.equal(after.y, before.y)


def test_a_crop_is_one_stretch_of_two_steps_or_more():
    after = shown(temporal_crop=0.9)
    lengths = after.mask.sum(1)
    assert (lengths >= LENGTHS.clamp(max=2)).all()
    steps = after.x[:, 1:, 0] - after.x[:, :-1, 0]
    assert torch.allclose(steps[after.mask[:, 1:]], torch.tensor(0.01), atol=1e-3)
    assert len(after.x[LENGTHS == STEPS][:, 0, 0].frac().unique()) > 3  # it starts anywhere


def test_as_many_steps_are_dropped_as_was_asked_for():
    long = LENGTHS == STEPS
    assert shown(frame_dropout=0.3).mask[long].float().mean() == pytest.approx(0.7, abs=0.05)


def test_a_hidden_channel_is_hidden_in_the_whole_clip():
    before, after = numbered(), shown(feature_dropout=0.25)
    hidden = (after.x == -1.0).any(1)  # (B, D)
    assert hidden.float().mean() == pytest.approx(0.25, abs=0.03)
    expected = torch.where(hidden[:, None] & before.mask.unsqueeze(-1), -1.0, before.x)
    assert torch.equal(after.x, expected) and torch.equal(after.mask, before.mask)


def test_mixed_clips_have_mixed_labels():
    before, after = numbered(), shown(mixup=0.4)
    assert torch.allclose(after.y.sum(1), torch.ones(CLIPS))
    share = after.y.max(1).values
    share = share[share < 1].unique()
    assert len(share) == 1  # one share a batch
    assert (after.mask.sum(1) >= LENGTHS).all() and not after.x[~after.mask].any()
    both = before.mask & after.mask
    low, high = before.x[before.mask].min(), before.x.max()
    assert (after.x[both] >= low - 1e-4).all() and (after.x[both] <= high + 1e-4).all()
    lone = after.mask & ~before.mask  # the clip has ended, the other stands alone
    assert (after.x[lone].frac() > 0).any() and (after.x[lone] >= low - 1e-4).all()


@pytest.mark.parametrize("name", ["temporal_crop", "frame_dropout", "feature_dropout", "mixup"])
def test_the_generator_decides(name):
    assert torch.equal(shown(**{name: 0.5}).x, shown(**{name: 0.5}).x)
    assert not torch.equal(shown(**{name: 0.5}).x, numbered().x)
    assert not AugmentOptions().is_enabled and AugmentOptions(**{name: 0.5}).is_enabled
    assert np.array_equal(shown().x, numbered().x)
