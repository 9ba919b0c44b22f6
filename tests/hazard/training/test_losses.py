import pytest
import torch
from torch.nn import functional as F

from hazard.models.settings import LossOptions
from hazard.training.losses import class_weights, training_loss

LOGITS = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0] * 20 + [1] * 8 + [2] * 2)


def test_rare_labels_weigh_as_much_as_common_ones_together():
    weights = class_weights(Y, 4)
    each = [weights[Y[k == Y]].sum().item() for k in range(4)]
    assert each == pytest.approx([10, 10, 10, 0])  # nobody has label 3
    assert weights[Y].mean().item() == pytest.approx(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, class_weights(Y, 4)])
def test_shares_of_labels_cost_what_labels_do(smoothing, weights):
    options = LossOptions(label_smoothing=smoothing)
    hard = training_loss(LOGITS, Y, options, weights)
    assert training_loss(LOGITS, F.one_hot(Y, 4).float(), options, weights).item() == pytest.approx(
        hard.item(), rel=1e-5
    )
    if weights is None:
        assert hard.item() == pytest.approx(F.cross_entropy(LOGITS, Y, label_smoothing=smoothing).item())


def test_a_focal_loss_without_gamma_is_the_cross_entropy():
    plain = training_loss(LOGITS, Y, LossOptions())
    assert training_loss(LOGITS, Y, LossOptions(kind="focal", gamma=0)).item() == pytest.approx(plain.item(), rel=1e-5)


def test_a_focal_loss_cares_less_for_what_is_sure():
    focal, plain = LossOptions(kind="focal", label_smoothing=0), LossOptions(label_smoothing=0)
    sure, unsure = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    shares = [
        training_loss(x, torch.tensor([0]), focal) / training_loss(x, torch.tensor([0]), plain) for x in (sure, unsure)
    ]
    p = sure.softmax(1)[0, 0]
    assert shares[0].item() == pytest.approx(((1 - p) ** 2).item(), rel=1e-4)
    assert shares[1].item() == pytest.approx(0.25)
