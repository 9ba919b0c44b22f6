import logging

import numpy as np
import pytest

from features.errors import SettingsError
from hazard.data.sequences import load_sequences, pad_tracks, subsample_steps
from tests.helpers.data.sequences import add_noisy_views, make_cache, make_moving_sequences

DATA = make_moving_sequences()


def test_a_cache_becomes_the_sequences_it_holds():
    loaded = load_sequences(make_cache(DATA))
    np.testing.assert_allclose(loaded.x, DATA.x.astype(np.float16))
    np.testing.assert_array_equal(loaded.mask, DATA.mask)
    np.testing.assert_array_equal(loaded.y, DATA.y)
    assert loaded.labels == ("fight", "noFight") and loaded.groups_known


def test_labels_are_sorted_whatever_the_order_of_the_clips():
    label = np.where(DATA.y == 0, "zebra", "ant")
    loaded = load_sequences(make_cache(DATA, label=label))
    assert loaded.labels == ("ant", "zebra")
    assert [loaded.labels[k] for k in loaded.y] == label.tolist()


def test_long_tracks_are_thinned_evenly():
    assert subsample_steps(5, None).tolist() == [0, 1, 2, 3, 4]
    assert subsample_steps(9, 3).tolist() == [0, 4, 8]
    loaded = load_sequences(make_cache(DATA), max_steps=4)
    assert loaded.x.shape[1] == 4
    np.testing.assert_allclose(loaded.x[0, [0, -1]], DATA.x[0, [0, -1]].astype(np.float16))


def test_padding_is_zero_and_masked():
    x, mask = pad_tracks([np.ones((2, 3), np.float16), np.ones((1, 3), np.float16)])
    assert mask.tolist() == [[True, True], [True, False]]
    assert x[1, 1].tolist() == [0, 0, 0]


def test_unlabelled_clips_are_left_out_and_counted(caplog):
    label = np.where(np.arange(len(DATA)) < 5, "", np.where(DATA.y == 0, "a", "b"))
    with caplog.at_level(logging.WARNING):
        loaded = load_sequences(make_cache(DATA, label=label))
    assert len(loaded) == len(DATA) - 5
    assert "5 clips without a label" in caplog.text


VIEWED = add_noisy_views(DATA, "crop", "flip")


def test_a_clip_stays_one_row_however_many_views_it_has():
    loaded = load_sequences(make_cache(VIEWED))
    assert len(loaded) == len(DATA) and loaded.view_names == ("none", "crop", "flip")
    np.testing.assert_allclose(loaded.x, DATA.x.astype(np.float16))
    for view, original in zip(loaded.views, VIEWED.views, strict=True):
        np.testing.assert_allclose(view.x, original.x.astype(np.float16))
        np.testing.assert_array_equal(view.mask, DATA.mask)
    taken = loaded.take(np.array([5, 2]))
    np.testing.assert_array_equal(taken.views[1].x, loaded.views[1].x[[5, 2]])


@pytest.mark.parametrize(
    ("asked", "loaded"),
    [(["flip"], ("none", "flip")), (["flip", "none", "crop"], ("none", "crop", "flip")), ([], ("none",))],
)
def test_views_are_loaded_by_name(asked, loaded):
    assert load_sequences(make_cache(VIEWED), views=asked).view_names == loaded


def test_a_view_that_a_clip_has_not_is_its_plain_track():
    view = np.repeat(["none", "crop", "flip"], len(DATA))
    view[2 * len(DATA) + 3] = "elsewhere"
    loaded = load_sequences(make_cache(VIEWED, view=view), views=["flip"])
    np.testing.assert_array_equal(loaded.views[0].x[3], loaded.x[3])
    assert (loaded.views[0].x[4] != loaded.x[4]).any()


def test_a_view_that_the_cache_does_not_hold_is_refused():
    with pytest.raises(SettingsError, match="no view 'flp'; did you mean 'flip'"):
        load_sequences(make_cache(VIEWED), views=["flp"])


def test_a_clip_without_a_group_is_its_own_group():
    group = DATA.groups.copy()
    group[3] = ""
    loaded = load_sequences(make_cache(DATA, group=group))
    assert loaded.groups[3] == loaded.paths[3]
    assert loaded.clips_without_group == 1 and not loaded.groups_known


@pytest.mark.parametrize(("label", "said"), [("", "no labelled clips"), ("walk", "two or more labels.*walk: 48")])
def test_too_few_labels_are_refused(label, said):
    with pytest.raises(SettingsError, match=said):
        load_sequences(make_cache(DATA, label=np.full(len(DATA), label)))


def test_durations_are_the_cache_s_and_unknown_where_it_does_not_know():
    data = make_moving_sequences(clips=6, groups=3)
    seconds = np.array([2.0, 0, np.nan, 1.5, 2, 2])
    loaded = load_sequences(make_cache(data, duration=seconds))
    np.testing.assert_array_equal(loaded.durations, [2, np.nan, np.nan, 1.5, 2, 2])
    np.testing.assert_array_equal(loaded.take(np.array([3, 0])).durations, [1.5, 2])


def test_an_import_that_took_a_row_for_a_second_does_not_know_how_long_clips_are():
    data = make_moving_sequences(clips=6, groups=3)
    cache = make_cache(data, duration=np.where(np.arange(6) < 3, data.mask.sum(1), 2.5))
    cache.spec = cache.spec.model_copy(update={"weights": "imported"})
    assert np.isnan(load_sequences(cache).durations).tolist() == [True] * 3 + [False] * 3
