"""Whether browsers play a video as it is; where they do not, an MP4 of it that they play."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from features.utils.files import is_full, move_whole, scratch_folder, stopped
from features.video.container import opened_video
from hazard.rendering.mp4_writer import Mp4, sound_mode
from hazard.rendering.playback import End, Piece, Shot, Sound, played, within
from hazard.utils.prefetch import ahead

CODECS = {"video/mp4": ("h264", "av1", "vp9"), "video/webm": ("vp8", "vp9", "av1")}
PIXELS = ("yuv420p", "yuvj420p")
"""Eight bits and quarter colour: other H.264 is for professionals' players."""
SOUNDS = ("aac", "mp3", "mp3float", "opus", "vorbis", "flac")
LONGEST, SHORTEST = 1280, 720
"""Sides of what is made anew: a page shows no more, and others wait meanwhile."""
_QUICKTIME = "qt"
_HEADER = 4096


def media_type(file: Path) -> str:
    """`video/mp4` or `video/webm` where every browser of today plays the file; else empty. Raises ClipError."""
    with opened_video(file) as (container, stream):
        kind = _container(file, container.format.name, container.metadata.get("major_brand", ""))
        codec = stream.codec_context
        is_played = codec.name.removeprefix("lib") in _decoders(kind) and codec.pix_fmt in PIXELS
        is_heard = all(s.codec_context and s.codec_context.name in SOUNDS for s in container.streams.audio)
        return kind if is_played and is_heard else ""


def _decoders(kind: str) -> tuple[str, ...]:
    """FFmpeg calls some decoders after the library that they are: libdav1d is AV1."""
    return (*CODECS.get(kind, ()), *(("dav1d",) if kind else ()))


def _container(file: Path, name: str, brand: str) -> str:
    if name.startswith("mov,mp4"):
        return "" if brand.strip() == _QUICKTIME else "video/mp4"
    if name.startswith("matroska"):
        with open(file, "rb") as opened:
            return "video/webm" if b"webm" in opened.read(_HEADER) else ""
    return ""


def write_preview(source: Path, target: Path, *, alive: Callable[[], None]) -> None:
    """An MP4 of a video, written whole or not at all. Raises ClipError and EnvironmentStopped."""
    with scratch_folder(target) as scratch:
        with (
            played(source, partial(within, longest=LONGEST, shortest=SHORTEST)) as (sound, pieces),
            ahead(pieces) as coming,
        ):
            movie = Mp4(scratch / "video.mp4", sound=sound, mode=sound_mode(sound))
            try:
                for piece in coming:
                    alive()
                    _put(movie, piece)
            except OSError as error:
                raise (stopped(error, target) if is_full(error) else error) from error
            finally:
                movie.abandon()
        move_whole(scratch / "video.mp4", target)


def _put(movie: Mp4, piece: Piece) -> None:
    match piece:
        case Shot(seconds, image):
            movie.show(seconds, image)
        case Sound(seconds, packet):
            movie.hear(seconds, packet)
        case End(seconds):
            movie.finish(seconds)
