"""Settings of an extraction: how clips are decoded and encoded, and which features are made."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, field_validator


class RunSettings(BaseModel):
    """How clips are decoded and encoded. No setting here changes a feature."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps` (the GPU of a Mac)."""
    runtime: Literal["auto", "torch", "openvino"] = "auto"
    """Library that runs the backbone. `auto` is OpenVINO on a CPU if it is installed, else PyTorch."""
    workers: int | None = Field(None, ge=1)
    """Worker processes; one per core by default."""
    batch_size: int | None = Field(None, ge=1)
    """Frames per forward pass of the backbone; snippets for a 3D network."""
    deadline_seconds: float = Field(60.0, gt=0)
    """Seconds without a decoded frame after which the worker of a clip is killed."""
    engine: Literal["local", "ray"] = "local"
    """What runs the workers: processes of this machine, or Ray on one machine or many."""
    address: str | None = None
    """Ray cluster: `host:port` of its head, or `auto`. By default Ray runs on this machine only."""
    downloads: Path | None = None
    """Folder for the videos of URLs. By default `.downloads` beside a cache; a report does not keep them."""
    download_bytes: int = Field(2 * 10**9, ge=1)
    """Size limit of one download."""
    download_seconds: float = Field(900.0, gt=0)
    """Time limit of one download, from the name look-up to the last byte."""
    download_networks: tuple[IPvAnyNetwork, ...] = ()
    """Networks that URLs may lead to in addition to public ones, such as `192.168.1.0/24`."""

    @field_validator("download_networks", mode="before")
    @classmethod
    def _split_networks(cls, value: object) -> object:
        return value.split(",") if isinstance(value, str) else value


class ExtractSettings(RunSettings):
    """Section `extract` of a settings file."""

    split_files: tuple[Path, ...] = ()
    """Split lists of UCF101 or HMDB51, or folders of them, that say which clips are in train and in test."""
    split_number: int | None = Field(None, ge=1)
    """Number of the split to use from a folder of lists."""
    split_absent: Literal["refuse", "ignore"] = "refuse"
    """What to do if a split list names clips that the source does not have."""
    label_map: Path | None = None
    """YAML file of `old: new` lines that rename, merge and drop classes."""
    frames: int | None = Field(None, ge=1)
    """Evenly spaced frames per clip, 12 by default. For a 3D network: frames per snippet, by default as in its
    training."""
    fps: float | None = Field(None, gt=0)
    """Frames per second, instead of a fixed number per clip. For a 3D network: within a snippet."""
    every: int | None = Field(None, ge=1)
    """Use every Nth frame instead."""
    all_frames: bool = False
    """Use every frame instead."""
    window_seconds: float | None = Field(None, gt=0)
    """For long videos: take `frames` in each window of this length, not in the whole video. Each frame is read once."""
    stride_seconds: float | None = Field(None, gt=0)
    """Seconds from the start of a window or snippet to the next start; half its length by default."""
    folder_fps: float = Field(25.0, gt=0)
    """Frames per second of image folders."""
    views: tuple[str, ...] = ("none",)
    """Augmentation views (names in VIEWS), cached as further tracks of each clip."""
    backbone: str = "mobilenet_v2"
    """A name in BACKBONES, `timm:NAME` or `clip:MODEL/TAG`."""
    weights: str = "auto"
    """`auto`, `random` or the path of a state dict."""
    fit: Literal["crop", "squash"] | None = None
    """How a frame becomes a square, by default as the backbone was trained. `squash` keeps all of a wide frame."""
    size: int | None = Field(None, ge=32, le=2048)
    """Side of the square input in pixels, by default the backbone's own. A larger size shows smaller objects; the cost
    grows with its square."""
    pooling: Literal["avg", "max", "avg+max"] = "avg"
    """How the last feature map is pooled to one vector."""
    reduce: str = "select:512"
    """`select:K`, `pca:K`, `pca-scaled:K`, `pca-whitened:K`, `random:K` or `none`."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format in which the backbone computes."""
    part_clips: int = Field(128, ge=1)
    """Clips per part, the unit in which a running job commits its work."""
    part_seconds: float = Field(30.0, gt=0)
    """Longest time between two commits of parts."""
