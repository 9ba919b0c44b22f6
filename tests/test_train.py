import dataclasses
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from features.config import load_settings
from features.errors import SettingsError
from hazard.config import TrainSettings
from hazard.heads import HEADS
from hazard.splits import Fold, grouped_folds
from hazard.train import fit_head, pick_device, predict_head
from hazard.types import View
from tests.stage_two import moving_sequences

DATA = moving_sequences(clips=80, groups=20)
FOLD = grouped_folds(DATA, 4, seed=0)[0]
QUICK = TrainSettings(hidden_size=8, projection=8, members=2, epochs=12, lr=1e-2, device="cpu")


def settings(name, **changes):
    return QUICK.model_copy(update={"head": name} | changes)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_finds_planted_motion(name):
    head, _ = fit_head(DATA, FOLD, settings(name))
    probs = predict_head(head, DATA.x[FOLD.test], DATA.mask[FOLD.test])
    assert roc_auc_score(DATA.y[FOLD.test], probs[:, 1]) > 0.85


@pytest.mark.parametrize("name", HEADS)
def test_the_seed_decides_every_weight(name):
    first, again, other = (
        fit_head(DATA, FOLD, settings(name, epochs=2, seed=seed))[0].state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", HEADS)
def test_the_test_part_changes_nothing(name):
    """Other features and labels in the test part must leave every weight as it was."""
    y, x = DATA.y.copy(), DATA.x.copy()
    y[FOLD.test], x[FOLD.test] = 1 - y[FOLD.test], 100.0
    first = fit_head(DATA, FOLD, settings(name, epochs=3))[0].state_dict()
    second = fit_head(dataclasses.replace(DATA, x=x, y=y), FOLD, settings(name, epochs=3))[0].state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def views_of(x):
    return (View("shaken", np.where(DATA.mask[..., None], x, 0).astype(np.float32), DATA.mask),)


def test_training_draws_from_every_view():
    """Plain training clips that show nothing but noise, and a view that shows all: only who sees the view learns."""
    noise = np.random.default_rng(0).normal(size=DATA.x.shape).astype(np.float32)
    noise[FOLD.val] = DATA.x[FOLD.val]
    data = dataclasses.replace(DATA, x=np.where(DATA.mask[..., None], noise, 0))
    for views, low, high in (((), 0.0, 0.75), (views_of(DATA.x) * 3, 0.85, 1.0)):
        head, _ = fit_head(
            dataclasses.replace(data, views=views), FOLD, settings("lstm", members=1, epochs=20, patience=20)
        )
        probs = predict_head(head, DATA.x[FOLD.test], DATA.mask[FOLD.test])
        assert low <= roc_auc_score(DATA.y[FOLD.test], probs[:, 1]) <= high


def test_views_change_training_by_the_seed_and_never_validation_or_the_test_part():
    def weights(noise, rows, seed=1):
        x = DATA.x.copy()
        x[rows] += noise
        data = dataclasses.replace(DATA, views=views_of(x))
        head, history = fit_head(data, FOLD, settings("lstm", members=1, epochs=3, seed=seed))
        return head.state_dict(), [epoch.val_loss for epoch in history]

    def alike(first, second):
        return all(torch.equal(first[0][key], second[0][key]) for key in first[0]) and first[1] == second[1]

    kept_out = np.concatenate([FOLD.val, FOLD.test])
    plain = weights(0.5, FOLD.train)
    assert alike(plain, weights(0.5, FOLD.train))
    assert not alike(plain, weights(0.0, FOLD.train))
    assert alike(weights(0.0, FOLD.train), weights(100.0, kept_out))


def test_the_best_epoch_is_kept_and_training_stops_after_patience():
    seen = []
    head, history = fit_head(
        DATA, FOLD, settings("lstm", members=1, epochs=60, patience=3, lr=0.1), progress=lambda *row: seen.append(row)
    )
    losses = [epoch.val_loss for epoch in history]
    best = int(np.argmin(losses))
    assert [epoch.best for epoch in history] == [number == best for number in range(len(history))]
    assert len(history) == best + 1 + 3 < 60
    assert seen == [(epoch.epoch, epoch.val_loss) for epoch in history]
    logits = head(torch.from_numpy(DATA.x[FOLD.val]), torch.from_numpy(DATA.mask[FOLD.val]))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(DATA.y[FOLD.val])).item()
    assert loss == pytest.approx(losses[best], rel=1e-4)


def test_without_clips_to_spare_every_epoch_is_run():
    everything = np.arange(len(DATA))
    one = dataclasses.replace(DATA, groups=np.full(len(DATA), "one"))
    _, history = fit_head(one, Fold(everything, everything[:0], everything[:0]), settings("lstm", members=1, epochs=4))
    assert len(history) == 4 and history[-1].best and math.isnan(history[-1].val_loss)


def test_bf16_trains_too():
    head, history = fit_head(DATA, FOLD, settings("lstm", members=1, epochs=2, precision="bf16"))
    assert all(math.isfinite(epoch.train_loss) for epoch in history)
    assert next(head.parameters()).dtype == torch.float32


def test_a_device_that_is_not_there():
    with pytest.raises(SettingsError, match="cuda:7 is not there"):
        pick_device("cuda:7")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("head=lstmm", "did you mean 'lstm'"),
        ("baseline=svm_linear", "linear_svm"),
        ("inputs=[speed]", "unknown input"),
        ("inputs=[]", "one or more"),
        ("hiden_size=3", "did you mean 'hidden_size'"),
        ("epochs=0", "epochs"),
        ("lr=-1", "lr"),
        ("device=tpu", "device"),
    ],
)
def test_wrong_settings_are_named(override, said):
    with pytest.raises(SettingsError, match=said):
        load_settings(TrainSettings, "train", overrides=[override])


def test_members_stop_together():
    _, history = fit_head(DATA, FOLD, settings("lstm", members=3, epochs=4))
    assert sorted({epoch.member for epoch in history}) == [0, 1, 2]
    assert len({epoch.epoch for epoch in history if epoch.best}) == 1


def test_a_label_that_training_never_shows_is_unlikely():
    data = dataclasses.replace(DATA, labels=("fight", "noFight", "zebra"))
    head, _ = fit_head(data, FOLD, settings("lstm", epochs=2, lr=1e-3))
    assert predict_head(head, data.x, data.mask)[:, 2].mean() < 0.1
