"""Data types that pass between the modules of stage one.

Shape legend, used everywhere: N frames, H height, W width, R rows of a cache, D feature width,
B batch, T steps, K classes, V views. A row of a cache and a step of a sequence are one sampled frame, or one snippet
of a 3D network. Time is float seconds, taken from the stream itself.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import ClipError

Span = tuple[float, float]
"""Part [start, end) of a video, in seconds since its first frame."""

SPLITS = ("train", "val", "test")

SPLIT_ALIASES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
"""Accepted names of splits, and the split that each of them means."""


@dataclass(frozen=True)
class Clip:
    """One clip as the user named it. `path` is its identity: relative, with forward slashes.

    `file` is a video or a folder of images. `start_seconds` and `end_seconds` limit the clip to a part of an untrimmed
    video; `path` then ends in a media fragment such as `#t=12,15.5` (W3C Media Fragments 1.0). `digest` (sha256 of the
    file), `size_bytes` and `mtime_ns` are known once the file was read.
    """

    path: str
    file: Path
    label: str = ""
    group: str = ""
    split: str = ""
    digest: str = ""
    size_bytes: int = -1
    mtime_ns: int = -1
    start_seconds: float = 0.0
    end_seconds: float | None = None

    @property
    def is_part(self) -> bool:
        """Whether the clip is only a part of its file."""
        return self.start_seconds > 0 or self.end_seconds is not None

    @property
    def file_path(self) -> str:
        """`path` without the time fragment."""
        return self.path.rpartition("#t=")[0] if self.is_part else self.path


@dataclass(frozen=True)
class FrameBatch:
    """Preprocessed frames of one clip, each stored once, and the frames of each row of a view or window.

    `times` begin at the start of the clip, which may be a part of its file. `decoded_share` is the share of the clip's
    frames that could be decoded. `size` is the upright (width, height) of the frames before preprocessing. `rows` maps
    the name of a view or the span of a window to frame numbers (R, L), with L frames per row. If frames are processed
    as they are decoded, `data` holds their numbers instead of their pixels.
    """

    data: NDArray[Any]  # uint8 (N, H, W, 3) RGB, or int64 (N,) numbers
    times: NDArray[np.float64]  # (N,) seconds
    duration: float
    size: tuple[int, int]
    rows: Mapping[str | Span, NDArray[np.int64]]
    decoded_share: float = 1.0
    thumbnails: tuple[bytes, ...] = ()  # small JPEGs, one per frame; empty if they are not needed

    def __post_init__(self) -> None:
        is_pixels = self.data.ndim == 4 and self.data.shape[-1] == 3 and self.data.dtype == np.uint8
        if not is_pixels and not (self.data.ndim == 1 and self.data.dtype == np.int64):
            raise ValueError(f"expected uint8 frames (N, H, W, 3), got {self.data.dtype} {self.data.shape}")
        if self.times.shape != self.data.shape[:1]:
            raise ValueError(f"expected times ({len(self.data)},), got {self.times.shape}")
        for name, rows in self.rows.items():
            if rows.ndim != 2 or (rows.size and not 0 <= rows.min() <= rows.max() < len(self.data)):
                raise ValueError(f"'{name}': expected rows (R, L) of frame numbers below {len(self.data)}")


@dataclass(frozen=True)
class FeatureTrack:
    """Features of one clip and one view, ordered by time."""

    clip: Clip
    features: NDArray[np.float16]  # (N, D)
    times: NDArray[np.float64]  # (N,)
    duration: float
    view: str = "none"
    decoded_share: float = 1.0

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.features.dtype != np.float16:
            raise ValueError(f"expected float16 features (N, D), got {self.features.dtype} {self.features.shape}")
        if self.times.shape != self.features.shape[:1]:
            raise ValueError(f"expected times ({len(self.features)},), got {self.times.shape}")
        if not np.isfinite(self.features).all():
            raise ValueError("features hold NaN or infinity")

    @property
    def status(self) -> str:
        """`ok`, or `partial` if the clip could not be decoded to its end."""
        return "ok" if self.decoded_share >= 1.0 else "partial"


@dataclass(frozen=True)
class WindowTracks:
    """Features of the overlapping windows of one long video, with each row stored once."""

    clip: Clip
    features: NDArray[np.float16]  # (N, D)
    times: NDArray[np.float64]  # (N,) seconds since the clip's start
    spans: NDArray[np.float64]  # (B, 2) seconds since the file's start
    rows: tuple[NDArray[np.int64], ...]  # B arrays (R,): the rows of each window among the N
    duration: float
    decoded_share: float = 1.0

    def __post_init__(self) -> None:
        if self.spans.shape != (len(self.rows), 2) or self.times.shape != self.features.shape[:1]:
            raise ValueError(f"expected one span and its rows per window, got {self.spans.shape} and {len(self.rows)}")

    @property
    def status(self) -> str:
        """`ok`, or `partial` if the video could not be decoded to its end."""
        return "ok" if self.decoded_share >= 1.0 else "partial"


@dataclass(frozen=True)
class Failure:
    """One entry of the failure table: a clip that could not be used, the stage at which it failed, and why."""

    clip: Clip
    stage: str
    reason: str

    @classmethod
    def from_error(cls, clip: Clip, error: Exception) -> "Failure":
        """Return the failure for any error raised while a clip was processed, so that no error ends the job."""
        if isinstance(error, ClipError):
            return cls(clip, error.stage, error.reason)
        if isinstance(error, MemoryError):
            return cls(clip, "decode", "out of memory")
        return cls(clip, "internal", f"{type(error).__name__}: {error}".splitlines()[0])


VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp")
) | {".ogv", ".asf", ".vob", ".mxf"}


@dataclass(frozen=True)
class Thumbnail:
    """A small JPEG of a frame."""

    seconds: float
    jpeg: bytes


@dataclass(frozen=True)
class ExtractedClip:
    """Features of a clip, one track per view with the original view first, and the time that extraction took.

    A long video has `windows` instead, and a track of the whole video only if that was requested.
    """

    tracks: tuple[FeatureTrack, ...]
    decode_seconds: float
    encode_seconds: float
    thumbnails: tuple[Thumbnail, ...] = ()
    windows: WindowTracks | None = None

    @property
    def clip(self) -> Clip:
        """Clip that the features belong to."""
        return self.windows.clip if self.windows else self.tracks[0].clip

    def all_tracks(self) -> Iterator[FeatureTrack]:
        """Yield the tracks, then each window as a track of its own, as a cache stores them."""
        yield from self.tracks
        if self.windows:
            yield from split_window_tracks(self.windows)


@dataclass(frozen=True)
class UnchangedClip:
    """A clip whose file has a new modification time but the same content."""

    clip: Clip


def split_window_tracks(windows: WindowTracks) -> Iterator[FeatureTrack]:
    """Yield each window as a track of its own, with times since its own start.

    Extracting that part of the video as a clip would give the same track.
    """
    for (start, end), rows in zip(windows.spans.tolist(), windows.rows, strict=True):
        yield FeatureTrack(
            clip=make_window_clip(windows.clip, (start, end)),
            features=windows.features[rows],
            times=(windows.times[rows] + windows.clip.start_seconds - start).clip(0),
            duration=end - start,
            decoded_share=windows.decoded_share,
        )


def add_time_fragment(path: str, start_seconds: float, end_seconds: float | None) -> str:
    """Return the identity of a part of a video, such as `a.mp4#t=12,15.5` (W3C Media Fragments 1.0)."""
    if not start_seconds and end_seconds is None:
        return path
    times = (start_seconds,) if end_seconds is None else (start_seconds, end_seconds)
    return f"{path}#t={','.join(format_seconds(time) for time in times)}"


def format_seconds(seconds: float) -> str:
    """Return seconds as text, to the microsecond and without trailing zeros. Identities and manifests use this form."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


Outcome = ExtractedClip | Failure | UnchangedClip


def make_window_clip(clip: Clip, span: Span) -> Clip:
    """Return a window of a video as a clip of its own, in the group of the video.

    It has no label, because the label of the video need not hold in each window.
    """
    start, end = span
    return replace(
        clip,
        path=add_time_fragment(clip.file_path, start, end),
        label="",
        group=clip.group or clip.file_path,
        start_seconds=start,
        end_seconds=end,
    )
