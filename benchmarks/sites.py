"""Simulated cameras for benchmarks, which play files in real time again and again, and a model to watch them."""

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
"""Number of different recordings. Further cameras show the same ones again."""
VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".mpg", ".ts")


class RepeatedCamera(CameraSettings):
    """A camera that plays a file in real time again and again."""

    @property
    def camera(self) -> Camera:
        return replace(super().camera, is_repeated=True)


@dataclass(frozen=True)
class Site:
    """Cameras and the model that watches them."""

    cameras: tuple[CameraSettings, ...]
    model: Path
    runtime: str

    def settings(self, fps: float | None) -> InferSettings:
        """Return settings for `fps` frames per second of each camera, or as the model was trained if `fps` is None.

        A model with N frames per window gets shorter windows at a higher rate; the cost per frame stays the same.
        Raises ClickException if the model has a fixed rate.
        """
        usual = InferSettings(runtime=self.runtime)
        if fps is None:
            return usual
        source = read_input_spec(self.model)
        if source.spec.sampling.kind != "even":
            raise click.ClickException("the model reads a fixed number of frames per second; leave out --fps")
        return usual.model_copy(update={"window_seconds": (source.spec.sampling.frames or 1) / fps})

    def usual_fps(self) -> float:
        """Return the frames per second of each camera at the rate the model was trained with."""
        source = read_input_spec(self.model)
        return make_window_grid(source, choose_windows(source, InferSettings())).fps

    @property
    def is_scalable(self) -> bool:
        """Whether the frames per second of the model can be changed."""
        return read_input_spec(self.model).spec.sampling.kind == "even"


def make_site(cameras: int, videos: Path | None, model: Path | None, runtime: str, folder: Path) -> Site:
    """Return cameras and a model. Without `videos`, recordings are synthetic. Without `model`, a new one is trained."""
    files = _find_videos(videos) if videos else _draw_recordings(min(cameras, DRAWN), folder)
    named = [
        RepeatedCamera(name=f"camera-{i + 1}", source=str(files[i % len(files)].resolve())) for i in range(cameras)
    ]
    return Site(tuple(named), (model or _train_model(folder)).resolve(), runtime)


def _find_videos(folder: Path) -> list[Path]:
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in VIDEOS)
    if not found:
        raise click.ClickException(f"no video found in {folder}")
    return found


def _draw_recordings(count: int, folder: Path) -> list[Path]:
    click.echo(f"making {count} synthetic recordings of {SECONDS} s, {SIZE[0]}x{SIZE[1]}, {RATE} frames a second")
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


def _train_model(folder: Path) -> Path:
    """Train a small model and return its folder. Other processes do it, so that its memory is not counted."""
    weights = _find_weights()
    click.echo(f"training a model on synthetic clips with {'pretrained' if weights else 'random'} weights")
    drawn = {"normal": ["walk", "run"], "hazardous": ["fight", "fall"]}
    clips = draw_dataset(folder / "clips", classes=drawn, clips_per_class=24, scenes=4)
    for command in (
        ["extract_features.py", clips, "-o", folder / "c.h5", "--weights", weights or "random", "--frames", "12"],
        ["train_temporal.py", folder / "c.h5", "-o", folder / "model", "--set", "members=1", "--epochs", "20"],
    ):
        result = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True)
        if result.returncode:
            raise click.ClickException(result.stderr)
    return folder / "model"


def _find_weights() -> Path | None:
    try:
        return find_weights("mobilenet_v2", "auto") if os.environ.get("FEATURES_WEIGHTS") else None
    except UserFacingError:
        return None
