"""YAML and overrides to validated, frozen settings."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, field_validator


class RunSettings(BaseModel):
    """How clips are decoded and encoded: nothing here changes a feature."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    runtime: Literal["auto", "torch", "openvino"] = "auto"
    """What runs the backbone; `auto` is OpenVINO on a CPU where it is installed."""
    workers: int | None = Field(None, ge=1)
    """Worker processes; one a core by default."""
    batch_size: int | None = Field(None, ge=1)
    """Frames, of a 3D network snippets, that go through the backbone at once."""
    deadline_seconds: float = Field(60.0, gt=0)
    """How long a clip may go without a single decoded frame before its worker is killed."""
    engine: Literal["local", "ray"] = "local"
    """Who runs the workers: this machine's own processes, or Ray, on one machine or many."""
    address: str | None = None
    """The Ray cluster: `host:port` of its head, or `auto`; Ray on this machine alone by default."""
    downloads: Path | None = None
    """Where the videos of addresses (URLs) are kept: `.downloads` beside a cache by default, nowhere for a report."""
    download_bytes: int = Field(2 * 10**9, ge=1)
    """The largest video that is fetched."""
    download_seconds: float = Field(900.0, gt=0)
    """How long one video may take to come, from the look-up to the last byte."""
    download_networks: tuple[IPvAnyNetwork, ...] = ()
    """Networks that addresses may lead to besides public ones, such as `192.168.1.0/24`."""

    @field_validator("download_networks", mode="before")
    @classmethod
    def _split_networks(cls, value: object) -> object:
        return value.split(",") if isinstance(value, str) else value


class ExtractSettings(RunSettings):
    """Section `extract` of a settings file."""

    split_files: tuple[Path, ...] = ()
    """UCF101's or HMDB51's split lists, or their folders: who is in train and in test."""
    split_number: int | None = Field(None, ge=1)
    """Which of the splits in a folder of lists."""
    split_absent: Literal["refuse", "ignore"] = "refuse"
    """What to do about clips that a split list names and the source does not have."""
    label_map: Path | None = None
    """A YAML file of `old: new` lines that renames, merges and drops classes."""
    frames: int | None = Field(None, ge=1)
    """Evenly spaced frames a clip, 12 by default; of a 3D network: frames a snippet, as it was trained by default."""
    fps: float | None = Field(None, gt=0)
    """Frames a second instead of a fixed number a clip; of a 3D network: within a snippet."""
    every: int | None = Field(None, ge=1)
    """One frame in so many instead."""
    all_frames: bool = False
    """Each frame instead."""
    window_seconds: float | None = Field(None, gt=0)
    """Long videos: `frames` in each window of this length instead of in the whole; each frame is read once."""
    stride_seconds: float | None = Field(None, gt=0)
    """From one window's or snippet's start to the next; half of its length by default."""
    folder_fps: float = Field(25.0, gt=0)
    """Frames a second of folders of images."""
    views: tuple[str, ...] = ("none",)
    """Augmentation views, names in VIEWS, cached as further tracks of each clip."""
    backbone: str = "mobilenet_v2"
    """A name in BACKBONES, `timm:NAME` or `clip:MODEL/TAG`."""
    weights: str = "auto"
    """`auto`, `random` or the path of a state dict."""
    fit: Literal["crop", "squash"] | None = None
    """How a frame becomes a square: the backbone's own way by default; `squash` shows all of a wide picture."""
    size: int | None = Field(None, ge=32, le=2048)
    """Side of the square in pixels, the backbone's own by default: larger shows smaller things and costs its square."""
    pooling: Literal["avg", "max", "avg+max"] = "avg"
    """How the last feature map becomes one vector."""
    reduce: str = "select:512"
    """`select:K`, `pca:K`, `pca-scaled:K`, `pca-whitened:K`, `random:K` or `none`."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the backbone."""
    part_clips: int = Field(128, ge=1)
    """Clips that are committed together."""
    part_seconds: float = Field(30.0, gt=0)
    """A part is committed at least this often."""
