import logging

import numpy as np
import pytest

from features.errors import SettingsError
from hazard.sequences import load_sequences, pad, thin
from tests.stage_two import as_cache, moving_sequences

DATA = moving_sequences()


def test_a_cache_becomes_the_sequences_it_holds():
    loaded = load_sequences(as_cache(DATA))
    np.testing.assert_allclose(loaded.x, DATA.x.astype(np.float16))
    np.testing.assert_array_equal(loaded.mask, DATA.mask)
    np.testing.assert_array_equal(loaded.y, DATA.y)
    assert loaded.labels == ("fight", "noFight") and loaded.groups_known


def test_labels_are_sorted_whatever_the_order_of_the_clips():
    label = np.where(DATA.y == 0, "zebra", "ant")
    loaded = load_sequences(as_cache(DATA, label=label))
    assert loaded.labels == ("ant", "zebra")
    assert [loaded.labels[k] for k in loaded.y] == label.tolist()


def test_long_tracks_are_thinned_evenly():
    assert thin(5, None).tolist() == [0, 1, 2, 3, 4]
    assert thin(9, 3).tolist() == [0, 4, 8]
    loaded = load_sequences(as_cache(DATA), max_steps=4)
    assert loaded.x.shape[1] == 4
    np.testing.assert_allclose(loaded.x[0, [0, -1]], DATA.x[0, [0, -1]].astype(np.float16))


def test_padding_is_zero_and_masked():
    x, mask = pad([np.ones((2, 3), np.float16), np.ones((1, 3), np.float16)])
    assert mask.tolist() == [[True, True], [True, False]]
    assert x[1, 1].tolist() == [0, 0, 0]


def test_unlabelled_clips_are_left_out_and_counted(caplog):
    label = np.where(np.arange(len(DATA)) < 5, "", np.where(DATA.y == 0, "a", "b"))
    with caplog.at_level(logging.WARNING):
        loaded = load_sequences(as_cache(DATA, label=label))
    assert len(loaded) == len(DATA) - 5
    assert "5 clips without a label" in caplog.text


def test_augmentation_views_are_left_out():
    view = np.where(np.arange(len(DATA)) % 2 == 0, "none", "flip")
    label = np.where(np.arange(len(DATA)) % 4 < 2, "a", "b")
    assert len(load_sequences(as_cache(DATA, view=view, label=label))) == len(DATA) // 2


def test_a_clip_without_a_group_is_its_own_group():
    group = DATA.groups.copy()
    group[3] = ""
    loaded = load_sequences(as_cache(DATA, group=group))
    assert loaded.groups[3] == loaded.paths[3]
    assert loaded.clips_without_group == 1 and not loaded.groups_known


@pytest.mark.parametrize(("label", "said"), [("", "no labelled clips"), ("walk", "two or more labels.*walk: 48")])
def test_too_few_labels_are_refused(label, said):
    with pytest.raises(SettingsError, match=said):
        load_sequences(as_cache(DATA, label=np.full(len(DATA), label)))
