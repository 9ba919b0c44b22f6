import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from features.encoders import devices
from features.errors import SettingsError
from features.utils.settings import load_settings
from hazard.data.splits import Fold, make_grouped_folds
from hazard.models.head_ensemble import pick_device, predict_head
from hazard.models.heads import HEADS
from hazard.models.settings import TrainSettings
from hazard.training.precision import uses_bf16
from hazard.training.trainer import fit_head, last_notable_gain
from hazard.types import SequenceView
from tests.helpers.data.sequences import make_moving_sequences

DATA = make_moving_sequences(clips=80, groups=20)
FOLD = make_grouped_folds(DATA, 4, seed=0)[0]
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
    """Changing features and labels of the test part must not change any weight."""
    y, x = DATA.y.copy(), DATA.x.copy()
    y[FOLD.test], x[FOLD.test] = 1 - y[FOLD.test], 100.0
    first = fit_head(DATA, FOLD, settings(name, epochs=3))[0].state_dict()
    second = fit_head(dataclasses.replace(DATA, x=x, y=y), FOLD, settings(name, epochs=3))[0].state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def views_of(x):
    return (SequenceView("shaken", np.where(DATA.mask[..., None], x, 0).astype(np.float32), DATA.mask),)


def test_training_draws_from_every_view():
    """The original training clips are noise and a view holds the signal: only a head that sees the view learns."""
    noise = np.random.default_rng(0).normal(size=DATA.x.shape).astype(np.float32)
    noise[FOLD.val] = DATA.x[FOLD.val]
    data = dataclasses.replace(DATA, x=np.where(DATA.mask[..., None], noise, 0))
    lowest = []
    for views in ((), views_of(DATA.x) * 3):
        one = settings("lstm", members=1, epochs=40, pooled_path=False, inputs=("differences", "absolute_differences"))
        head, history = fit_head(dataclasses.replace(data, views=views), FOLD, one)
        lowest.append(min(epoch.val_loss for epoch in history))
    assert lowest[0] > math.log(2) / 2 > 2 * lowest[1]
    probs = predict_head(head, DATA.x[FOLD.test], DATA.mask[FOLD.test])
    assert roc_auc_score(DATA.y[FOLD.test], probs[:, 1]) > 0.85


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
        DATA,
        FOLD,
        settings("lstm", members=1, epochs=60, patience=3, lr=0.1, pooled_path=False),
        progress=lambda *row: seen.append(row),
    )
    losses = [epoch.val_loss for epoch in history]
    best = int(np.argmin(losses))
    assert [epoch.best for epoch in history] == [number == best for number in range(len(history))]
    assert len(history) == last_notable_gain(math.inf, losses) + 3 < 60
    assert seen == [(epoch.epoch, epoch.val_loss) for epoch in history]
    logits = head(torch.from_numpy(DATA.x[FOLD.val]), torch.from_numpy(DATA.mask[FOLD.val]))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(DATA.y[FOLD.val])).item()
    assert loss == pytest.approx(losses[best], rel=1e-4)


def test_patience_counts_from_the_last_gain_that_validation_clips_can_tell():
    assert last_notable_gain(0.5, []) == 0
    assert last_notable_gain(0.5, [0.6, 0.4, 0.395, 0.392, 0.389, 0.385]) == 5
    assert last_notable_gain(0.5, [math.nan, 0.495]) == 0
    assert last_notable_gain(math.nan, [math.nan, 0.9, 0.9]) == 2


def test_a_head_that_training_makes_no_better_stays_its_pooled_ridge():
    """Clips that differ in motion alone are the ridge's, and steps that are far too large only do harm."""
    head, history = fit_head(DATA, FOLD, settings("lstm", members=1, epochs=5, lr=1.0))
    assert not any(epoch.best for epoch in history)
    x, mask = torch.from_numpy(DATA.x[FOLD.test]), torch.from_numpy(DATA.mask[FOLD.test])
    torch.testing.assert_close(head(x, mask), head.heads[0].pooled(x, mask).log_softmax(-1))


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
    with pytest.raises(SettingsError, match="cuda:7 does not exist"):
        pick_device("cuda:7")


def test_the_gpu_of_a_mac_is_used_only_if_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(devices, "METAL", Path.cwd())
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", lambda *size, device: None)
    assert (pick_device("mps").type, pick_device("auto").type == "mps") == ("mps", False)
    assert not uses_bf16("bf16", torch.device("mps"), hidden_size=512, batch_size=512)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(SettingsError, match="'mps' does not exist: no Apple GPU found"):
        pick_device("mps")


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
    _, history = fit_head(DATA, FOLD, settings("lstm", members=3, epochs=4, pooled_path=False))
    assert sorted({epoch.member for epoch in history}) == [0, 1, 2]
    assert len({epoch.epoch for epoch in history if epoch.best}) == 1


def test_a_label_that_training_never_shows_is_unlikely():
    data = dataclasses.replace(DATA, labels=("fight", "noFight", "zebra"))
    head, _ = fit_head(data, FOLD, settings("lstm", epochs=2, lr=1e-3))
    assert predict_head(head, data.x, data.mask)[:, 2].mean() < 0.1


def probs_of(settings, data=DATA, rows=slice(None), **options):
    head, _ = fit_head(data, FOLD, settings)
    return predict_head(head, data.x[FOLD.test][rows], data.mask[FOLD.test][rows], **options)


@pytest.mark.parametrize("name", HEADS)
def test_threads_and_batches_change_no_prediction(name):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = probs_of(settings(name, epochs=3))
        order = np.arange(len(one))[::-1]
        shuffled = probs_of(settings(name, epochs=3), rows=order, batch_size=3)
        torch.set_num_threads(2)
        two = probs_of(settings(name, epochs=3))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(one, two, atol=1e-5)
    np.testing.assert_allclose(one[order], shuffled, atol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_what_is_computed_once_changes_nothing(name, monkeypatch):
    kept = fit_head(DATA, FOLD, settings(name, epochs=3))[0]
    monkeypatch.setattr("hazard.training.device_data.MAX_FROZEN_CACHE_BYTES", 0)
    computed = fit_head(DATA, FOLD, settings(name, epochs=3))[0]
    weights = (head.state_dict() for head in (kept, computed))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*(w.values() for w in weights), strict=True))


def test_a_member_does_not_depend_on_the_others():
    alone, together = (fit_head(DATA, FOLD, settings("lstm", members=n, epochs=3, patience=3))[1] for n in (1, 2))
    assert [row.val_loss for row in alone] == [row.val_loss for row in together if row.member == 0]


def test_training_leaves_the_random_state_of_others_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit_head(DATA, FOLD, settings("lstm", epochs=1))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"warmup": 0.2},
        {"ema": 0.8},
        {"loss": "focal"},
        {"balance": "weights"},
        {"balance": "sampling"},
        {"temporal_crop": 0.3},
        {"frame_dropout": 0.2},
        {"feature_dropout": 0.2},
        {"mixup": 0.2},
    ],
    ids=str,
)
def test_every_option_of_training_changes_it_and_still_finds_the_motion(changes):
    y = DATA.y[FOLD.train]
    uneven = dataclasses.replace(FOLD, train=np.concatenate([FOLD.train[y == 0], FOLD.train[y == 1][:15]]))
    fits = [fit_head(DATA, uneven, settings("lstm", members=1, **more)) for more in ({}, changes)]
    probs = predict_head(fits[1][0], DATA.x[FOLD.test], DATA.mask[FOLD.test])
    assert roc_auc_score(DATA.y[FOLD.test], probs[:, 1]) > 0.75
    assert [row.val_loss for row in fits[0][1]] != [row.val_loss for row in fits[1][1]]


@pytest.mark.parametrize("balance", ["weights", "sampling"])
def test_balance_makes_a_rare_label_likelier(balance):
    def rare(**changes):
        y = DATA.y[FOLD.train]
        train = np.concatenate([FOLD.train[y == 0], FOLD.train[y == 1][:4]])
        fold = dataclasses.replace(FOLD, train=train, val=FOLD.val[:0], val_is_given=True)
        quick = settings("lstm", members=1, epochs=8, patience=8, pooled_path=False, **changes)
        head, _ = fit_head(DATA, fold, quick)
        return predict_head(head, DATA.x[FOLD.test], DATA.mask[FOLD.test])[:, 1].mean()

    assert rare(balance=balance) > rare() + 0.05


def test_training_that_diverges_is_said_in_one_line():
    x = DATA.x.copy()
    x[FOLD.val] = 1e30  # squares overflow
    with pytest.raises(SettingsError, match=r"diverged.*--lr"):
        fit_head(dataclasses.replace(DATA, x=x), FOLD, settings("lstm", members=1, epochs=2, pooled_path=False))


def test_bf16_is_not_used_where_it_would_be_emulated(monkeypatch, caplog):
    monkeypatch.setattr("hazard.training.precision.has_bf16", lambda device: False)
    plain, half = (
        fit_head(DATA, FOLD, settings("lstm", members=1, epochs=2, precision=p))[1] for p in ("fp32", "bf16")
    )
    assert plain == half and "no bf16 instructions" in caplog.text


def test_auto_is_bf16_for_wide_heads_alone(monkeypatch):
    monkeypatch.setattr("hazard.training.precision.has_bf16", lambda device: True)
    for hidden, expected in ((8, False), (256, True)):
        cpu = torch.device("cpu")
        assert uses_bf16("auto", cpu, hidden_size=hidden, batch_size=256) is expected
    assert not uses_bf16("fp32", cpu, hidden_size=256, batch_size=256)
