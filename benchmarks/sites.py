"""Cameras and a model to watch them with, for benchmarks: files as if live, played again and again."""

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import click

from features.backbones.weights import find_weights
from features.errors import UserFacingError
from features.live.source import Camera
from hazard.inference.settings import InferSettings
from hazard.inference.windowing import choose_windows
from hazard.models.input_spec import read_input_spec
from hazard.monitor.cameras import CameraSettings
from hazard.monitor.live_windows import make_window_grid
from hazard.synthetic.clips import draw_dataset
from hazard.synthetic.recordings import draw_recording, plant_evenly
from hazard.synthetic.scenes import make_scene

ROOT = Path(__file__).resolve().parent.parent
SIZE, RATE, SECONDS = (640, 360), 30, 60
DRAWN = 4
"""Different recordings; more cameras show them again."""
VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".mpg", ".ts")


class Repeated(CameraSettings):
    """A file as if live, again and again."""

    @property
    def camera(self) -> Camera:
        return replace(super().camera, is_repeated=True)


@dataclass(frozen=True)
class Site:
    """What is watched, and by what model."""

    cameras: tuple[CameraSettings, ...]
    model: Path
    runtime: str

    def settings(self, fps: float | None) -> InferSettings:
        """Those that look at so many frames a second of each camera; None: as the model was trained.

        A model of N frames a clip has windows that are the shorter for it, and costs what it costs.
        """
        usual = InferSettings(runtime=self.runtime)
        if fps is None:
            return usual
        source = read_input_spec(self.model)
        if source.spec.sampling.kind != "even":
            raise click.ClickException("the model looks at a fixed number of frames a second; leave --fps out")
        return usual.model_copy(update={"window_seconds": (source.spec.sampling.frames or 1) / fps})

    def usual_fps(self) -> float:
        """Frames a second of each camera as the model was trained."""
        source = read_input_spec(self.model)
        return make_window_grid(source, choose_windows(source, InferSettings())).fps

    @property
    def is_scalable(self) -> bool:
        """Whether the model may look at more frames a second, or fewer."""
        return read_input_spec(self.model).spec.sampling.kind == "even"


def some_site(cameras: int, videos: Path | None, model: Path | None, runtime: str, folder: Path) -> Site:
    """Cameras that show videos, drawn ones unless others are given, and a model trained on the spot unless one is."""
    files = _videos(videos) if videos else _drawn(min(cameras, DRAWN), folder)
    named = [Repeated(name=f"camera-{i + 1}", source=str(files[i % len(files)].resolve())) for i in range(cameras)]
    return Site(tuple(named), (model or _trained(folder)).resolve(), runtime)


def _videos(folder: Path) -> list[Path]:
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in VIDEOS)
    if not found:
        raise click.ClickException(f"{folder}: there is no video")
    return found


def _drawn(count: int, folder: Path) -> list[Path]:
    click.echo(f"drawing {count} recordings of {SECONDS} s, {SIZE[0]}x{SIZE[1]}, {RATE} frames a second")
    for seed in range(count):
        draw_recording(
            folder / f"{seed}.mp4",
            events=plant_evenly(6, seconds=SECONDS, actions=("fight", "fall"), duration_range=(3, 5), seed=seed),
            seconds=SECONDS,
            seed=seed,
            scene=make_scene(100 + seed, size=SIZE, frame_rate=RATE),
            frame_rate=RATE,
        )
    return [folder / f"{seed}.mp4" for seed in range(count)]


def _trained(folder: Path) -> Path:
    """A small model, in other processes: what training holds is not what watching does."""
    weights = _weights()
    click.echo(f"training a model on drawn clips, with {'pretrained' if weights else 'RANDOM'} weights (as fast)")
    drawn = {"normal": ["walk", "run"], "hazardous": ["fight", "fall"]}
    clips = draw_dataset(folder / "clips", classes=drawn, clips_per_class=24, scenes=4)
    for command in (
        ["extract_features.py", clips, "-o", folder / "c.h5", "--weights", weights or "random", "--frames", "12"],
        ["train_temporal.py", folder / "c.h5", "-o", folder / "model", "--set", "members=1", "--epochs", "20"],
    ):
        ran = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True)
        if ran.returncode:
            raise click.ClickException(ran.stderr)
    return folder / "model"


def _weights() -> Path | None:
    try:
        return find_weights("mobilenet_v2", "auto") if os.environ.get("FEATURES_WEIGHTS") else None
    except UserFacingError:
        return None
