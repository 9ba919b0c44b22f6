"""The types that travel through stage one.

Shape legend, used everywhere: N frames, H height, W width, R rows of a cache, D feature width,
B batch, T steps, K classes, V views. Time is float seconds taken from the stream itself.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import ClipError

Span = tuple[float, float]
"""The part [start, end) of a video, in seconds since its first frame."""

SPLITS = ("train", "val", "test")

SPLIT_ALIASES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
"""What people call them."""


@dataclass(frozen=True)
class Clip:
    """One clip as the user named it. `path` is its identity: relative, with forward slashes.

    `file` is a video, or a folder of images. `start_seconds` and `end_seconds` are the part of an untrimmed video that
    is meant; `path` then ends in a media fragment such as `#t=12,15.5` (W3C Media Fragments 1.0). `digest` (sha256 of
    the file), `size_bytes` and `mtime_ns` are known once the file was read.
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
        """Whether a part of its file is meant."""
        return self.start_seconds > 0 or self.end_seconds is not None

    @property
    def file_path(self) -> str:
        """`path` without the part that is meant."""
        return self.path.rpartition("#t=")[0] if self.is_part else self.path


@dataclass(frozen=True)
class FrameBatch:
    """Preprocessed frames of one clip, each once, and which of them make the rows of each view or window.

    `times` begin with the clip, which may be a part of its file. `decoded_share` is the share of the clip's frames that
    could be decoded; `size` is the upright (width, height) of the frames before preprocessing. `rows` has (R, L) frame
    numbers, L frames a row, by the name of a view or the span of a window. Whoever handles frames as they come keeps
    a number of each instead of its pixels.
    """

    data: NDArray[Any]  # uint8 (N, H, W, 3) RGB, or int64 (N,) numbers
    times: NDArray[np.float64]  # (N,) seconds
    duration: float
    size: tuple[int, int]
    rows: Mapping[str | Span, NDArray[np.int64]]
    decoded_share: float = 1.0
    thumbnails: tuple[bytes, ...] = ()  # small JPEGs, one a frame, empty where nobody will look

    def __post_init__(self) -> None:
        is_pixels = self.data.ndim == 4 and self.data.shape[-1] == 3 and self.data.dtype == np.uint8
        if not is_pixels and not (self.data.ndim == 1 and self.data.dtype == np.int64):
            raise ValueError(f"expected uint8 frames (N, H, W, 3), got {self.data.dtype} {self.data.shape}")
        if self.times.shape != self.data.shape[:1]:
            raise ValueError(f"expected {len(self.data)} times, got {self.times.shape}")
        for name, rows in self.rows.items():
            if rows.ndim != 2 or (rows.size and not 0 <= rows.min() <= rows.max() < len(self.data)):
                raise ValueError(f"'{name}': expected rows (R, L) of frame numbers below {len(self.data)}")


@dataclass(frozen=True)
class FeatureTrack:
    """Features of one clip and one view, in time order."""

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
            raise ValueError(f"expected {len(self.features)} times, got {self.times.shape}")
        if not np.isfinite(self.features).all():
            raise ValueError("features hold NaN or infinity")

    @property
    def status(self) -> str:
        """`ok`, or `partial` where the clip could not be decoded to its end."""
        return "ok" if self.decoded_share >= 1.0 else "partial"


@dataclass(frozen=True)
class WindowTracks:
    """Features of the overlapping windows of one long video, each row held once."""

    clip: Clip
    features: NDArray[np.float16]  # (N, D)
    times: NDArray[np.float64]  # (N,) seconds since the clip's start
    spans: NDArray[np.float64]  # (B, 2) seconds since the file's start
    rows: tuple[NDArray[np.int64], ...]  # B of (R,), which of the N are a window's
    duration: float
    decoded_share: float = 1.0

    def __post_init__(self) -> None:
        if self.spans.shape != (len(self.rows), 2) or self.times.shape != self.features.shape[:1]:
            raise ValueError(f"expected a span and rows a window, got {self.spans.shape} and {len(self.rows)}")

    @property
    def status(self) -> str:
        """As a `FeatureTrack`'s."""
        return "ok" if self.decoded_share >= 1.0 else "partial"


@dataclass(frozen=True)
class Failure:
    """One entry of the failure ledger."""

    clip: Clip
    stage: str
    reason: str

    @classmethod
    def from_error(cls, clip: Clip, error: Exception) -> "Failure":
        """What an error, of whatever kind, makes of a clip: it must never end the job."""
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
    """A clip's raw features, one track a view, the plain one first, and what it took to get them.

    A long video has its windows instead, and the plain track beside them where somebody asked for it.
    """

    tracks: tuple[FeatureTrack, ...]
    decode_seconds: float
    encode_seconds: float
    thumbnails: tuple[Thumbnail, ...] = ()
    windows: WindowTracks | None = None

    @property
    def clip(self) -> Clip:
        """What was extracted."""
        return self.windows.clip if self.windows else self.tracks[0].clip

    def all_tracks(self) -> Iterator[FeatureTrack]:
        """The tracks, and each window as a track of its own: what a cache holds."""
        yield from self.tracks
        if self.windows:
            yield from split_window_tracks(self.windows)


@dataclass(frozen=True)
class UnchangedClip:
    """A clip whose file was touched but whose content is what it was."""

    clip: Clip


def split_window_tracks(windows: WindowTracks) -> Iterator[FeatureTrack]:
    """Each window as a track of its own, its times since its own start: what extracting that part would give."""
    for (start, end), rows in zip(windows.spans.tolist(), windows.rows, strict=True):
        yield FeatureTrack(
            clip=make_window_clip(windows.clip, (start, end)),
            features=windows.features[rows],
            times=(windows.times[rows] + windows.clip.start_seconds - start).clip(0),
            duration=end - start,
            decoded_share=windows.decoded_share,
        )


def add_time_fragment(path: str, start_seconds: float, end_seconds: float | None) -> str:
    """The identity of a part of a video: a media fragment such as `a.mp4#t=12,15.5` (W3C Media Fragments 1.0)."""
    if not start_seconds and end_seconds is None:
        return path
    times = (start_seconds,) if end_seconds is None else (start_seconds, end_seconds)
    return f"{path}#t={','.join(format_seconds(time) for time in times)}"


def format_seconds(seconds: float) -> str:
    """To the microsecond, and no longer than need be: identities and manifests say it alike."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


Outcome = ExtractedClip | Failure | UnchangedClip


def make_window_clip(clip: Clip, span: Span) -> Clip:
    """A window of a video as a clip of its own, in the video's group; without its label, which need not hold there."""
    start, end = span
    return replace(
        clip,
        path=add_time_fragment(clip.file_path, start, end),
        label="",
        group=clip.group or clip.file_path,
        start_seconds=start,
        end_seconds=end,
    )
