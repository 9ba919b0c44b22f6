"""Drawn clips are reproducible, have the requested size and frame rate, and their scenes do not reveal the class."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from hazard.synthetic.clips import draw_clip, draw_dataset, render_clip, write_video
from hazard.synthetic.people import ACTIONS, HAZARDOUS_ACTIONS, LYING, STILL_POSES, compute_joints
from hazard.synthetic.scenes import make_scene
from tests.helpers.data.videos import decode_video

TIMES = [index / 12 for index in range(24)]
SMALL = 2  # a seed whose first two scenes are small pictures of different sizes


def grey_frames(count: int) -> Iterator[NDArray[np.uint8]]:
    return (np.full((48, 64, 3), 40 + 8 * index, np.uint8) for index in range(count))


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_draws_moving_people(action: str) -> None:
    scene = make_scene(3, size=(160, 120))
    frames = np.stack(list(render_clip(action, scene, TIMES, seed=5))).astype(int)
    assert frames.shape == (24, 120, 160, 3)
    moved = np.abs(frames[12:] - frames[:-12]).max(axis=(0, 3)) > 60
    assert 0.01 < moved.mean() < 0.8


@pytest.mark.parametrize("action", ACTIONS)
def test_same_seed_same_video(action: str, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        draw_clip(tmp_path / f"{name}.mp4", action, seed=seed, size=(96, 64), frame_rate=12, seconds=1)
    first, again, other = (decode_video(tmp_path / f"{name}.mp4")[0] for name in "abc")
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("size", [(160, 120), (90, 160)])
@pytest.mark.parametrize("frame_rate", [12, 29.97, Fraction(25)])
def test_size_rate_and_duration(size: tuple[int, int], frame_rate: float | Fraction, tmp_path: Path) -> None:
    draw_clip(tmp_path / "a.mp4", "fall", seed=0, size=size, frame_rate=frame_rate, seconds=1.5)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.codec_context.name) == (*size, "h264")
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert float(stream.average_rate or 0) == pytest.approx(float(frame_rate), rel=1e-4)
        assert float((stream.duration or 0) * (stream.time_base or 0)) == pytest.approx(1.5, abs=1 / float(frame_rate))
    assert decode_video(tmp_path / "a.mp4")[1][1] == pytest.approx(1 / float(frame_rate), abs=1e-4)


def test_variable_frame_rate_is_kept(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.5, 0.52, 1.25, 2.0]
    write_video(tmp_path / "a.mp4", grey_frames(6), times=times)
    frames, found = decode_video(tmp_path / "a.mp4")
    assert found == pytest.approx(times, abs=1e-4)
    assert frames.mean(axis=(1, 2, 3)) == pytest.approx([40 + 8 * index for index in range(6)], abs=3)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mkv", "libx264"), ("a.ts", "libx264"), ("a.avi", "mpeg4"), ("a.webm", "libvpx-vp9")]
)
def test_other_containers_and_codecs(name: str, codec: str, tmp_path: Path) -> None:
    write_video(tmp_path / name, grey_frames(10), frame_rate=10, codec=codec)
    frames, times = decode_video(tmp_path / name)
    assert len(frames) == 10
    assert np.diff(times) == pytest.approx(np.full(9, 0.1), abs=2e-3)


def test_manifest_uses_every_scene_for_every_class(tmp_path: Path) -> None:
    classes = {"normal": ["walk", "run"], "hazardous": ["fall", "fight"]}
    manifest = draw_dataset(tmp_path / "clips", classes=classes, clips_per_class=4, scenes=2, seed=SMALL)
    with manifest.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "group"]
    for label, actions in classes.items():
        own = [row for row in rows if row["label"] == label]
        assert sorted(row["group"] for row in own) == ["scene01", "scene01", "scene02", "scene02"]
        for group in ("scene01", "scene02"):
            assert {Path(row["path"]).stem.split("_")[0] for row in own if row["group"] == group} == set(actions)
    assert len({row["path"] for row in rows}) == 8
    sizes = {(row["group"], decode_video(manifest.parent / row["path"])[0].shape[1:]) for row in rows}
    assert len(sizes) == 2, "clips of one group share size and camera"


def test_nobody_sinks_or_floats() -> None:
    for pose in (*STILL_POSES, *LYING):
        assert compute_joints(pose)[:, 1].min() == pytest.approx(0.03)
    assert all(compute_joints(pose)[:4, 1].max() < 0.45 for pose in LYING)


def test_mistakes_are_named(tmp_path: Path) -> None:
    assert set(ACTIONS) >= HAZARDOUS_ACTIONS
    with pytest.raises(ValueError, match=r"'wakl'.*walk, run.*did you mean 'walk'"):
        draw_dataset(tmp_path, classes={"normal": ["wakl"]}, clips_per_class=1, scenes=1)
    with pytest.raises(ValueError, match=r"even.*161 x 120"):
        draw_clip(tmp_path / "a.mp4", "walk", seed=0, size=(161, 120))
    with pytest.raises(ValueError, match="either frame_rate or times"):
        write_video(tmp_path / "a.mp4", grey_frames(2))
