"""Augmentation views, from pixels to the tracks of a cache."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from features.cache.hdf5 import read_cache
from features.cli.manage import features as features_commands
from features.errors import SettingsError
from features.spec import Sampling
from features.video.sampling import select_rows
from features.video.views import VIEWS, apply_view, check_views, jitter_seed, view_seed
from tests.conftest import Run
from tests.helpers.data.videos import write_textured

PIXEL_VIEWS = [name for name, view in VIEWS.items() if view.make_transform]
EVEN = Sampling()


def textured(count: int = 3, side: int = 64) -> np.ndarray:
    """Return one frame `count` times (N, S, S, 3), smooth enough to be rotated and resized, and nowhere dark."""
    coarse = np.random.default_rng(0).integers(80, 256, (8, 8, 3), np.uint8)
    return np.stack([coarse.repeat(side // 8, 0).repeat(side // 8, 1)] * count)


@pytest.mark.parametrize("name", [*PIXEL_VIEWS, "flip+crop", "crop:2", "flip+rotate:7"])
def test_a_view_is_decided_by_its_name_and_the_clip(name: str) -> None:
    frames = textured()
    before = torch.random.get_rng_state()
    first, again = (apply_view(name, frames, "digest") for _ in "ab")
    np.testing.assert_array_equal(first, again)
    assert torch.equal(torch.random.get_rng_state(), before)  # the global random state is unchanged
    assert first.shape == frames.shape
    assert first.dtype == np.uint8
    assert (first != frames).any()
    assert (first == first[0]).all()  # all frames of a clip are changed alike
    if name != "flip":
        assert (apply_view(name, frames, "another") != first).any()


def test_draws_differ_by_number_and_by_name() -> None:
    frames = textured()
    assert (apply_view("crop", frames, "d") != apply_view("crop:2", frames, "d")).any()
    assert len({view_seed(name, digest) for name in ("crop", "crop:2", "rotate") for digest in ("d", "e")}) == 6


def test_flip_mirrors_and_the_plain_view_is_the_very_frames() -> None:
    frames = textured()
    np.testing.assert_array_equal(apply_view("flip", frames, "d"), frames[:, :, ::-1])
    np.testing.assert_array_equal(apply_view("none", frames, "d"), frames)
    np.testing.assert_array_equal(apply_view("jitter", frames, "d"), frames)
    twice = apply_view("flip", apply_view("flip+crop", frames, "d"), "d")
    assert (twice != frames).any()


@pytest.mark.parametrize("digest", list("abcdefgh"))
def test_a_turned_picture_has_no_empty_corners(digest: str) -> None:
    turned = apply_view("rotate", textured(1), digest)
    assert turned.min() >= 75


def test_colours_stay_those_of_a_picture() -> None:
    frames = textured()
    for digest in "abcdef":
        changed = apply_view("colour", frames, digest).astype(int)
        assert 0.5 < changed.mean() / frames.mean() < 1.5


def test_the_plain_view_is_always_there_and_order_means_nothing() -> None:
    assert check_views([], EVEN) == ("none",)
    assert check_views(["jitter", "flip", "flip"], EVEN) == check_views(["none", "flip", "jitter"], EVEN)
    assert check_views(["flip+crop:2", "none"], EVEN) == ("none", "flip+crop:2")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("flp", "unknown view 'flp'; did you mean 'flip'"),
        ("flip+rotat", r"unknown view 'rotat' in 'flip\+rotat'; did you mean 'rotate'"),
        ("xyz", "choose one of: none, flip, crop"),
        ("", "choose one of"),
        ("crop:", "must end in a number"),
        ("crop:x", "must end in a number"),
        ("none+flip", "cannot be combined"),
        ("none:2", "cannot be combined"),
    ],
)
def test_wrong_names_are_refused(name: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        check_views(["none", name], EVEN)


def test_jitter_of_every_frame_is_refused() -> None:
    with pytest.raises(SettingsError, match="every frame already"):
        check_views(["flip+jitter"], Sampling(kind="all", frames=None))


def test_jitter_reads_other_instants_of_the_same_segments() -> None:
    times = np.arange(240) / 24
    plain = select_rows(times, 0, 10, EVEN)[:, 0]
    seed = jitter_seed("flip+jitter", "digest")
    jittered = select_rows(times, 0, 10, EVEN, seed=seed)[:, 0]
    assert jitter_seed("flip", "digest") is None
    assert (jittered != plain).any()
    assert (jittered // 20 == np.arange(12)).all()  # one in each twelfth of the clip, as in the plain view
    np.testing.assert_array_equal(jittered, select_rows(times, 0, 10, EVEN, seed=seed)[:, 0])


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("moving")
    for number, label in enumerate(("calm", "wild")):
        (root / label).mkdir()
        for i in range(2):
            write_textured(root / label / f"{i}.mp4", 30, seed=10 * number + i)
    return root


def tracks(output: Path, view: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Paths, features and times of all tracks of a view."""
    cache = read_cache(output)
    rows = np.flatnonzero(cache.clips.view == view)
    steps = [np.arange(s, s + n) for s, n in zip(cache.clips.start[rows], cache.clips.length[rows], strict=True)]
    where = np.concatenate(steps)
    return cache.clips.path[rows].tolist(), cache.features[where], cache.times[where]


def test_views_from_the_command_line_to_the_cache(moving: Path, tmp_path: Path, extract: Run, run: Run) -> None:
    clips = Path(shutil.copytree(moving, tmp_path / "clips"))
    plain, output = tmp_path / "plain.h5", tmp_path / "views.h5"
    few = ("--frames", 4, "--reduce", "select:64")
    assert extract(clips, "-o", plain, *few).code == 0
    first = extract(clips, "-o", output, *few, "--views", "none,flip,jitter")
    assert (first.code, "4 clips in 3 views" in first.out) == (0, True)

    # Other views do not change the original view: not its features, its times or the reduction fitted on it.
    paths, none, times = tracks(output, "none")
    for mine, theirs in zip((paths, none, times), tracks(plain, "none"), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert read_cache(output).reduction.digest == read_cache(plain).reduction.digest  # type: ignore[union-attr]
    assert tracks(output, "flip")[0] == tracks(output, "jitter")[0] == paths
    assert (tracks(output, "flip")[1] != none).any()
    np.testing.assert_array_equal(tracks(output, "flip")[2], times)
    assert (tracks(output, "jitter")[2] != times).any()

    # A second run continues: clips keep all their views, in whatever order the views are named.
    shutil.copy(clips / "wild" / "0.mp4", clips / "wild" / "new.mp4")
    again = extract(clips, "-o", output, *few, "--views", "jitter,flip")
    assert "1 extracted, 4 kept" in again.out
    assert len(tracks(output, "jitter")[0]) == 5

    # Other views are other features: the run is rejected, names the field, and changes nothing.
    content = output.read_bytes()
    refused = extract(moving, "-o", output, *few, "--views", "none,flip")
    assert (refused.code, "views: none,flip,jitter, not none,flip" in refused.err) == (4, True)
    assert output.read_bytes() == content

    facts = json.loads(run(features_commands, "inspect", output, "--json").out)
    assert (facts["clips"], facts["tracks"], facts["views"]) == (5, 15, {"none": 5, "flip": 5, "jitter": 5})
    assert "5 none, 5 flip, 5 jitter" in run(features_commands, "inspect", output).out


def test_an_unknown_view_is_one_line(moving: Path, tmp_path: Path, extract: Run) -> None:
    refused = extract(moving, "-o", tmp_path / "c.h5", "--views", "none,flipp")
    assert refused.code == 2
    assert refused.err.strip() == "error: unknown view 'flipp'; did you mean 'flip'?"
