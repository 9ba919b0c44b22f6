"""The quick part of benchmarks/temporal_tasks.py: heads learn order, and what is seen, from few clips."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.temporal_tasks import draw_appearance, draw_order
from hazard.data.splits import Fold, make_inner_split
from hazard.models.heads import HEADS
from hazard.models.predictor import predict_probs
from hazard.models.settings import TrainSettings
from hazard.training.fit import fit
from hazard.types import Sequences

TRAIN, TEST = 300, 500
QUICK = TrainSettings(hidden_size=32, projection=32, members=1, epochs=60, device="cpu", jobs=1)


def make_task(x, y):
    names = np.array([f"clip{i}.mp4" for i in range(len(x))])
    labels = tuple(f"label{k}" for k in range(int(y.max()) + 1))
    data = Sequences(x, np.ones(x.shape[:2], bool), y, names, names, np.full(len(x), ""), labels)
    return data, Fold(*make_inner_split(data, np.arange(TRAIN), seed=0), test=np.arange(TRAIN, len(x)))


ORDER = make_task(*draw_order(TRAIN + TEST, np.random.default_rng(0), steps=8, width=16, strength=8.0))
APPEARANCE = make_task(
    *draw_appearance(TRAIN + TEST, np.random.default_rng(0), steps=8, width=64, classes=10, look=2.6)
)


def accuracy(task, **model):
    data, fold = task
    fitted, _ = fit(data, fold, QUICK.model_copy(update=model))
    probs = predict_probs(fitted, data.x[fold.test], data.mask[fold.test], len(data.labels))
    return float((probs.argmax(1) == data.y[fold.test]).mean())


@pytest.mark.parametrize("head", [name for name in HEADS if name != "mean"])
def test_every_head_that_looks_along_time_learns_which_event_came_first(head):
    assert accuracy(ORDER, head=head) > 0.9


def test_a_head_without_time_and_a_ridge_do_not():
    assert accuracy(ORDER, head="mean", epochs=2) < 0.65
    assert accuracy(ORDER, baseline="ridge") < 0.65


@pytest.mark.parametrize(
    "model", [{"head": "lstm"}, {"head": "mean"}, {"baseline": "ridge"}, {"baseline": "logistic_regression"}]
)
def test_labels_that_differ_in_appearance_alone_are_learned_too(model):
    """Statistics of movement are noise here: the size of the mean beside them must be chosen."""
    assert accuracy(APPEARANCE, **model) > 0.97


def test_features_of_a_cache_stay_float16_and_change_no_probability():
    data, fold = ORDER
    half = replace(data, x=data.x.astype(np.float16))
    whole = replace(data, x=half.x.astype(np.float32))
    quick = QUICK.model_copy(update={"epochs": 2})
    first, second = (fit(each, fold, quick)[0] for each in (half, whole))
    np.testing.assert_array_equal(
        predict_probs(first, half.x, half.mask, 2), predict_probs(second, whole.x, whole.mask, 2)
    )
