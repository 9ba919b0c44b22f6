import json

import pytest

from hazard.experiments.run import train_run
from hazard.models.auto_size import resolve_sizes
from hazard.models.settings import TrainSettings
from tests.helpers.data.sequences import make_cache, make_moving_sequences

SIZES = ("hidden_size", "projection", "dropout", "members", "batch_size", "epochs", "patience")


def chosen(clips, classes=2, **given):
    settings = resolve_sizes(TrainSettings(**given), clips=clips, classes=classes)
    return tuple(getattr(settings, name) for name in SIZES)


@pytest.mark.parametrize(
    ("clips", "classes", "expected"),
    [
        (1, 2, (64, 64, 0.3, 2, 32, 1_500, 300)),
        (200, 2, (64, 64, 0.3, 2, 32, 300, 60)),
        (999, 101, (64, 64, 0.3, 2, 32, 60, 12)),
        (1_000, 10, (64, 64, 0.3, 2, 32, 60, 12)),
        (3_570, 101, (128, 128, 0.3, 2, 32, 30, 6)),
        (4_999, 200, (256, 256, 0.3, 2, 32, 30, 6)),
        (9_537, 101, (256, 256, 0.3, 1, 256, 50, 10)),
    ],
)
def test_sizes_follow_the_data(clips, classes, expected):
    assert chosen(clips, classes) == expected


def test_more_clips_never_make_a_head_smaller():
    rows = [chosen(clips) for clips in range(0, 20_000, 250)]
    for size, ascending in zip(range(5), (True, True, False, False, True), strict=True):
        column = [row[size] for row in rows]
        assert column == sorted(column, reverse=not ascending)


@pytest.mark.parametrize("name", SIZES)
def test_what_is_given_stays(name):
    sizes = {"hidden_size": 7, "projection": 0, "dropout": 0.0, "members": 2, "batch_size": 3}
    given = (sizes | {"epochs": 4, "patience": 5})[name]
    for clips in (0, 9_537):
        assert chosen(clips, **{name: given})[SIZES.index(name)] == given


def test_all_else_stays_and_a_second_time_changes_nothing():
    settings = TrainSettings(head="gru", epochs=3, seed=9, positive_label="fall")
    first = resolve_sizes(settings, clips=200, classes=2)
    assert resolve_sizes(first, clips=20_000, classes=101) == first
    assert first.model_dump(exclude=set(SIZES)) == settings.model_dump(exclude=set(SIZES))


@pytest.mark.parametrize(("head", "layers"), [("tcn", 2), ("lstm", 1)])
def test_layers_depend_on_the_head_unless_they_are_given(head, layers):
    sized = resolve_sizes(TrainSettings(head="gru"), clips=200, classes=2).for_model("head", head)
    assert sized.head_options.layers == layers
    assert resolve_sizes(TrainSettings(head=head, layers=3), clips=200, classes=2).head_options.layers == 3


def test_the_saved_model_names_its_sizes(tmp_path):
    train_run(
        make_cache(make_moving_sequences()),
        TrainSettings(epochs=1, members=1, device="cpu"),
        tmp_path,
        echo=lambda line: None,
    )
    saved = json.loads((tmp_path / "model.json").read_text())["settings"]
    assert {name: saved[name] for name in SIZES} == dict(zip(SIZES, (64, 64, 0.3, 1, 32, 1, 300), strict=True))
