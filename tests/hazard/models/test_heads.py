from dataclasses import replace

import pytest
import torch

from hazard.models.heads import HEADS
from hazard.models.heads.base import HeadOptions
from hazard.models.heads.pooled_ridge import fit_pooled_ridge, pool_for_ridge
from hazard.models.heads.step_pooling import POOLINGS, LastPooling
from hazard.models.pooling import step_differences
from tests.helpers.data.sequences import WIDTH, make_moving_sequences

DATA = make_moving_sequences()
X, MASK, Y = torch.from_numpy(DATA.x), torch.from_numpy(DATA.mask), torch.from_numpy(DATA.y)
RIDGE = fit_pooled_ridge(pool_for_ridge(X, MASK), Y, 3)[0]
OPTIONS = HeadOptions(hidden_size=8, projection=8)
VARIANTS = {name: (name, OPTIONS) for name in HEADS}
VARIANTS |= {f"lstm, {name}": ("lstm", replace(OPTIONS, pooling=name)) for name in POOLINGS}
VARIANTS |= {
    "both ways, last": ("bilstm_attention", replace(OPTIONS, pooling="last")),
    "no pooled path": ("lstm", replace(OPTIONS, pooled_path=False)),
    "mean, no pooled path": ("mean", replace(OPTIONS, pooled_path=False)),
}
"""Name → head and options."""


def build(variant):
    name, options = VARIANTS[variant]
    return HEADS[name](WIDTH, 3, options)


@pytest.fixture(params=VARIANTS)
def head(request):
    torch.manual_seed(0)
    built = build(request.param)
    built.fit_statistics(X, MASK, RIDGE)
    for parameter in built.parameters():  # zero weights would hide a path
        torch.nn.init.normal_(parameter, std=0.3)
    return built.eval()


def test_one_row_of_logits_a_clip(head):
    assert head(X, MASK).shape == (len(X), 3)
    assert head(X, MASK).isfinite().all()


def test_logits_do_not_depend_on_padding(head):
    longer = torch.cat([X, torch.full((len(X), 5, WIDTH), 1e3)], dim=1)
    mask = torch.cat([MASK, torch.zeros(len(X), 5, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(head(longer, mask), head(X, MASK), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        head.attention(longer, mask)[:, : X.shape[1]], head.attention(X, MASK), atol=1e-5, rtol=0
    )


def test_logits_do_not_depend_on_the_other_clips(head):
    alone = torch.cat(
        [head(X[i : i + 1, : int(MASK[i].sum())], MASK[i : i + 1, : int(MASK[i].sum())]) for i in range(len(X))]
    )
    torch.testing.assert_close(alone, head(X, MASK), atol=1e-5, rtol=0)


def test_attention_is_a_weighted_mean_of_real_steps(head):
    weights = head.attention(X, MASK)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(X)))
    assert (weights[~MASK] == 0).all() and (weights >= 0).all()


def test_a_clip_of_one_step_has_logits(head):
    assert head(X[:, :1], MASK[:, :1]).isfinite().all()


def test_a_longer_clip_than_any_in_training_has_logits(head):
    x, mask = X.repeat(1, 40, 1), torch.ones(len(X), 40 * X.shape[1], dtype=torch.bool)
    assert head(x, mask).isfinite().all()


def test_a_clip_without_a_real_step_spoils_no_other(head):
    mask = torch.cat([MASK[:1] & False, MASK[1:]])
    logits = head(X, mask)
    assert logits.isfinite().all()
    torch.testing.assert_close(logits[1:], head(X[1:], MASK[1:]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", HEADS)
def test_the_order_of_the_steps_counts_for_all_heads_but_mean(name):
    """The pooled ridge sees the same backwards, and so does a mean of the features alone."""
    torch.manual_seed(0)
    head = HEADS[name](WIDTH, 3, replace(OPTIONS, inputs=("features",))).eval()
    head.fit_statistics(X, MASK, RIDGE)
    for parameter in head.parameters():  # an untrained head is its pooled ridge
        torch.nn.init.normal_(parameter, std=0.3)
    full = MASK.all(1)
    forward, backward = head(X[full], MASK[full]), head(X[full].flip(1), MASK[full])
    assert torch.allclose(forward, backward, atol=1e-4) == (name == "mean")


def test_every_weight_learns(head):
    head.train()
    head(X, MASK).square().sum().backward()
    still = [name for name, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still


def test_statistics_are_saved_with_the_weights(head, request):
    fresh = build(request.node.callspec.params["head"])
    fresh.load_state_dict(head.state_dict())
    torch.testing.assert_close(fresh.eval()(X, MASK), head(X, MASK))


@pytest.mark.parametrize(
    "inputs",
    [
        ("features",),
        ("absolute_differences",),
        ("differences", "features"),
        ("second_differences", "absolute_second_differences"),
    ],
)
@pytest.mark.parametrize("name", HEADS)
def test_any_choice_of_inputs(name, inputs):
    head = HEADS[name](WIDTH, 2, HeadOptions(hidden_size=4, projection=4, inputs=inputs, layers=2))
    head.fit_statistics(X, MASK, None)
    assert head(X, MASK).shape == (len(X), 2)


@pytest.mark.parametrize("changes", [{"projection": 0}, {"bidirectional": True}])
@pytest.mark.parametrize("name", HEADS)
def test_any_shape(name, changes):
    head = HEADS[name](WIDTH, 2, HeadOptions(**{"hidden_size": 4, "projection": 4} | changes))
    head.fit_statistics(X, MASK, None)
    assert head(X, MASK).shape == (len(X), 2)


def test_the_last_state_of_both_directions_is_that_of_torch():
    lstm = torch.nn.LSTM(WIDTH, 4, bidirectional=True, batch_first=True)
    full = MASK.all(1)
    hidden, (last, _) = lstm(X[full])
    pooled = LastPooling(8, backward=4)(hidden, MASK[full])
    torch.testing.assert_close(pooled, torch.cat([last[0], last[1]], dim=1))


def test_without_the_pooled_path_a_head_has_no_ridge():
    with_ridge, without = (HEADS["lstm"](WIDTH, 3, replace(OPTIONS, pooled_path=on)) for on in (True, False))
    assert {name for name in with_ridge.state_dict() if name.startswith("pooled.")}
    assert not {name for name in without.state_dict() if name.startswith("pooled.")}


def test_differences_by_hand():
    x = torch.tensor([[[1.0], [3.0], [0.0], [9.0]]])
    mask = torch.tensor([[True, True, True, False]])
    step, real = step_differences(x, mask)
    assert step.flatten().tolist() == [0, 2, -3, 0]
    assert real.flatten().tolist() == [False, True, True, False]
