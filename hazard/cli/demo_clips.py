"""The clips of the demo: drawn or the user's own, divided into clips for training and clips for the report."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from features.curation.splitting import assign_splits
from features.errors import SettingsError
from features.sources.discover import find_clips
from features.types import Clip, format_seconds
from hazard.data.splits import find_split_groups
from hazard.synthetic.clips import draw_dataset
from hazard.synthetic.scenes import Scene, make_scene

CLASSES = {"normal": ("walk", "run"), "fight": ("fight",)}
CLIPS_PER_SCENE = 2  # of each class
CLIP_SECONDS = 2.5
SCENE_SIZE, FRAME_RATE = (256, 192), 12
REPORT_SHARE = 1 / 3
"""Share of the drawn scenes that the report shows and training does not use."""
OWN_SHARES = (0.8, 0.0, 0.2)
"""Shares of train, val and test in a folder without a split."""


@dataclass(frozen=True)
class DemoClips:
    """The two parts of the clips. No group has clips in both."""

    training: tuple[Clip, ...]
    report: tuple[Clip, ...]
    group_noun: str
    """What a group is called in the result: `scene`, `group` or `clip`."""

    @property
    def is_drawn(self) -> bool:
        """Whether the clips were drawn for the demo."""
        return self.group_noun == "scene"

    @property
    def training_groups(self) -> int:
        """Number of groups of the training clips."""
        return len(set(get_groups(self.training)))


def get_groups(clips: Sequence[Clip]) -> list[str]:
    """Return the group of each clip; a clip without a group is a group of its own."""
    return [clip.group or clip.path for clip in clips]


def draw_demo_clips(folder: Path, clips_per_class: int, seed: int) -> DemoClips:
    """Draw clips of walking, running and fighting people in many scenes; a third of the scenes is for the report.

    Random networks see motion best if the camera stands still and people are large, so the scenes are like that.
    """
    count = max(3, clips_per_class // CLIPS_PER_SCENE)
    scenes = [make_calm_scene(seed * 10_007 + number) for number in range(count)]
    manifest = draw_dataset(
        folder,
        classes=CLASSES,
        clips_per_class=clips_per_class,
        scenes=scenes,
        seed=seed,
        seconds=CLIP_SECONDS,
        progress=True,
    )
    clips = find_clips([manifest])
    names = sorted(set(get_groups(clips)))
    kept_aside = set(names[-max(1, round(REPORT_SHARE * count)) :])
    training = tuple(clip for clip in clips if clip.group not in kept_aside)
    return DemoClips(training, tuple(clip for clip in clips if clip.group in kept_aside), "scene")


def divide_own_clips(source: Path, seed: int) -> DemoClips:
    """Divide the user's labelled clips by their own split, or else into four parts for training and one for the report.

    The clips of val are used for training if there are clips of test. Raises SettingsError if there are fewer than two
    classes, if a group lies on both sides, or if there are too few groups to divide.
    """
    clips = [clip for clip in find_clips([source]) if clip.label]
    labels = sorted({clip.label for clip in clips})
    if len(labels) < 2:
        found = f"only the class '{labels[0]}'" if labels else "no clip with a label"
        raise SettingsError(
            f"{source} has {found}, but the demo needs clips of two or more classes: put them into one folder per "
            "class, such as fight/ and normal/"
        )
    noun = "group" if any(clip.group for clip in clips) else "clip"
    held_out = next((side for side in ("test", "val") if any(clip.split == side for clip in clips)), "")
    if not held_out or not any(clip.split == "train" for clip in clips):
        splits = assign_splits([clip.label for clip in clips], get_groups(clips), OWN_SHARES, seed=seed)
        clips = [replace(clip, split=split) for clip, split in zip(clips, splits, strict=True)]
        held_out = "test"
    sides = ["" if not clip.split else "report" if clip.split == held_out else "training" for clip in clips]
    if both := find_split_groups(np.array(get_groups(clips)), np.array(sides)):
        raise SettingsError(
            f"the split puts group '{both[0]}' into train and {held_out}; a group must stay on one side"
        )
    training, report = (
        tuple(clip for clip, side in zip(clips, sides, strict=True) if side == name) for name in ("training", "report")
    )
    divided = DemoClips(training, report, noun)
    if not report or divided.training_groups < 2 or len({clip.label for clip in training}) < 2:
        raise SettingsError(
            f"{source} has too few clips: {len(clips)} in {len(set(get_groups(clips)))} {noun}s. Training needs two "
            f"{noun}s and two classes or more, and the report one more {noun}"
        )
    return divided


def write_clips(clips: Sequence[Clip], manifest: Path) -> dict[str, Clip]:
    """Write a manifest of the clips; return them by the names that the commands give them."""
    has_parts = any(clip.is_part for clip in clips)
    manifest.parent.mkdir(parents=True, exist_ok=True)
    with open(manifest, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "label", "group", *(("start", "end") if has_parts else ())))
        for clip, group in zip(clips, get_groups(clips), strict=True):
            end = "" if clip.end_seconds is None else format_seconds(clip.end_seconds)
            part = (format_seconds(clip.start_seconds), end) if has_parts else ()
            path = os.path.relpath(clip.file, manifest.parent)
            writer.writerow((path, clip.label, group if clip.group else "", *part))
    by_file = {(clip.file.resolve(), clip.start_seconds, clip.end_seconds): clip for clip in clips}
    return {
        read.path: by_file[read.file.resolve(), read.start_seconds, read.end_seconds] for read in find_clips([manifest])
    }


def make_calm_scene(seed: int, *, size: tuple[int, int] = SCENE_SIZE) -> Scene:
    """Return a scene with large people, a camera that stands still and little noise; `size` is (width, height)."""
    scene = make_scene(seed, size=size, frame_rate=FRAME_RATE)
    return replace(
        scene,
        stature_pixels=0.9 * scene.stature_pixels,
        jitter_pixels=0.0,
        flicker=0.0,
        noise=min(scene.noise, 1.5),
    )
