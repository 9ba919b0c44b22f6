import copy

import pytest
import torch
from torch import nn

from hazard.models.settings import OptimizerOptions
from hazard.training.optimizer import Optimizer, learning_rate


def a_head():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def test_the_rate_warms_up_in_a_line_and_falls_along_a_cosine():
    options = OptimizerOptions(lr=1.0, warmup=0.2)
    rates = [learning_rate(step, 100, options) for step in range(100)]
    assert max(rates) == rates[20] == 1.0
    assert rates[:20] == pytest.approx([(step + 1) / 21 for step in range(20)])
    assert rates[60] == pytest.approx(0.5) and rates[99] < 0.001
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_without_warm_up_the_schedule_is_the_cosine_of_torch():
    weight = nn.Parameter(torch.zeros(1))
    adam = torch.optim.AdamW([weight], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 50)
    for step in range(50):
        assert learning_rate(step, 50, OptimizerOptions(lr=0.1)) == pytest.approx(adam.param_groups[0]["lr"])
        adam.step()
        schedule.step()


def test_matrices_decay_and_biases_and_norms_do_not():
    head = a_head()
    before = copy.deepcopy(head.state_dict())
    optimiser = Optimizer(head, OptimizerOptions(lr=0.1, weight_decay=0.5), steps=1000)
    optimiser.step(sum(weight.sum() * 0 for weight in head.parameters()))
    for name, weight in head.state_dict().items():
        expected = before[name] * (0.95 if weight.ndim > 1 else 1)
        assert torch.allclose(weight, expected, atol=1e-6), name


def loss_of(head):
    return head(torch.ones(2, 3)).square().sum()


def test_averaged_weights_lag_behind_and_are_there_in_the_block_alone():
    head = a_head()
    optimiser = Optimizer(head, OptimizerOptions(lr=0.05, weight_decay=0, ema=0.9), steps=1000)
    start = loss_of(head).item()
    for _ in range(10):
        optimiser.step(loss_of(head))
    moving = copy.deepcopy(head.state_dict())
    with optimiser.use_ema_weights():
        assert loss_of(head).item() > loss_of_state(moving) and loss_of(head).item() < start
    assert all(torch.equal(head.state_dict()[name], moving[name]) for name in moving)


def loss_of_state(state):
    head = a_head()
    head.load_state_dict(state)
    return loss_of(head).item()


def test_it_goes_on_from_its_tensors():
    options = OptimizerOptions(lr=0.05, warmup=0.1, ema=0.9)
    first = a_head()
    one = Optimizer(first, options, steps=20)
    for _ in range(5):
        one.step(loss_of(first))
    second = copy.deepcopy(first)
    two = Optimizer(second, options, steps=20)
    two.load(one.state_tensors(), steps_taken=5)
    for head, optimiser in ((first, one), (second, two)):
        for _ in range(5):
            optimiser.step(loss_of(head))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(one.ema_weights, two.ema_weights, strict=True))
