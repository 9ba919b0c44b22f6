"""Frames of a clip, from a video file or a folder of images."""

from collections.abc import Callable

from features.types import Clip, FrameBatch
from features.video.decoder import FrameData, Image, read_frames
from features.video.image_folder import read_image_folder
from features.video.sampling import RowSampler


def read_clip(
    clip: Clip,
    sampler: RowSampler,
    prepare: Callable[[Image], FrameData],
    *,
    make_thumbnail: Callable[[Image], bytes] = lambda image: b"",
    folder_fps: float = 25.0,
    report_alive: Callable[[], None] = lambda: None,
) -> FrameBatch:
    """Read the frames of a clip, which may be a part of its file, as `read_frames` does. Raises ClipError."""
    span = (clip.start_seconds, float("inf") if clip.end_seconds is None else clip.end_seconds)
    if clip.file.is_dir():
        return read_image_folder(
            clip.file,
            sampler,
            prepare,
            span=span,
            make_thumbnail=make_thumbnail,
            folder_fps=folder_fps,
            report_alive=report_alive,
        )
    return read_frames(clip.file, sampler, prepare, span=span, make_thumbnail=make_thumbnail, report_alive=report_alive)
