import json

import pytest

from hazard.experiments.run import train_run
from hazard.models.auto_size import resolve_sizes
from hazard.models.settings import TrainSettings
from tests.helpers.data.sequences import make_cache, make_moving_sequences

SIZES = ("hidden_size", "projection", "dropout", "members", "batch_size")


def chosen(clips, classes=2, **given):
    settings = resolve_sizes(TrainSettings(**given), clips=clips, classes=classes)
    return tuple(getattr(settings, name) for name in SIZES)


@pytest.mark.parametrize(
    ("clips", "classes", "expected"),
    [
        (1, 2, (64, 64, 0.5, 5, 32)),
        (200, 2, (64, 64, 0.5, 5, 32)),
        (999, 101, (64, 64, 0.5, 5, 32)),
        (1_000, 10, (128, 128, 0.5, 3, 64)),
        (3_570, 51, (128, 128, 0.5, 3, 64)),
        (4_999, 200, (256, 256, 0.5, 3, 64)),
        (9_537, 101, (256, 256, 0.5, 1, 256)),
    ],
)
def test_sizes_follow_the_data(clips, classes, expected):
    assert chosen(clips, classes) == expected


def test_more_clips_never_make_a_head_smaller():
    rows = [chosen(clips) for clips in range(0, 20_000, 250)]
    for size, ascending in zip(range(len(SIZES)), (True, True, False, False, True), strict=True):
        column = [row[size] for row in rows]
        assert column == sorted(column, reverse=not ascending)


@pytest.mark.parametrize("name", SIZES)
def test_what_is_given_stays(name):
    given = {"hidden_size": 7, "projection": 0, "dropout": 0.0, "members": 2, "batch_size": 3}[name]
    for clips in (0, 9_537):
        assert chosen(clips, **{name: given})[SIZES.index(name)] == given


def test_all_else_stays_and_a_second_time_changes_nothing():
    settings = TrainSettings(head="gru", epochs=3, seed=9, positive_label="fall")
    first = resolve_sizes(settings, clips=200, classes=2)
    assert resolve_sizes(first, clips=20_000, classes=101) == first
    assert first.model_dump(exclude=set(SIZES)) == settings.model_dump(exclude=set(SIZES))


def test_the_saved_model_names_its_sizes(tmp_path):
    train_run(
        make_cache(make_moving_sequences()),
        TrainSettings(epochs=1, members=1, device="cpu"),
        tmp_path,
        echo=lambda line: None,
    )
    saved = json.loads((tmp_path / "model.json").read_text())["settings"]
    assert {name: saved[name] for name in SIZES} == dict(zip(SIZES, (64, 64, 0.5, 1, 32), strict=True))
