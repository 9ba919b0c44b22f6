"""Whether browsers play a video as it is; where they do not, an MP4 of it that they play."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from features.utils.files import is_disk_full, make_scratch_folder, make_write_error, move_into_place
from features.video.container import open_video
from hazard.rendering.mp4_writer import Mp4Writer, choose_audio_mode
from hazard.rendering.playback import AudioPacket, EndOfPlayback, MediaItem, PlayedFrame, fit_size, open_playback
from hazard.utils.prefetch import prefetch

PLAYABLE_CODECS = {"video/mp4": ("h264", "av1", "vp9"), "video/webm": ("vp8", "vp9", "av1")}
PLAYABLE_PIXEL_FORMATS = ("yuv420p", "yuvj420p")
"""Eight bits and quarter colour: other H.264 is for professionals' players."""
PLAYABLE_AUDIO_CODECS = ("aac", "mp3", "mp3float", "opus", "vorbis", "flac")
MAX_LONG_SIDE, MAX_SHORT_SIDE = 1280, 720
"""Sides of what is made anew: a page shows no more, and others wait meanwhile."""
_QUICKTIME_BRAND = "qt"
_HEADER_BYTES = 4096


def find_media_type(file: Path) -> str:
    """`video/mp4` or `video/webm` where every browser of today plays the file; else empty. Raises ClipError."""
    with open_video(file) as (container, stream):
        kind = _container_media_type(file, container.format.name, container.metadata.get("major_brand", ""))
        codec = stream.codec_context
        is_played = (
            codec.name.removeprefix("lib") in _playable_decoders(kind) and codec.pix_fmt in PLAYABLE_PIXEL_FORMATS
        )
        is_heard = all(
            s.codec_context and s.codec_context.name in PLAYABLE_AUDIO_CODECS for s in container.streams.audio
        )
        return kind if is_played and is_heard else ""


def _playable_decoders(kind: str) -> tuple[str, ...]:
    """FFmpeg calls some decoders after the library that they are: libdav1d is AV1."""
    return (*PLAYABLE_CODECS.get(kind, ()), *(("dav1d",) if kind else ()))


def _container_media_type(file: Path, name: str, brand: str) -> str:
    if name.startswith("mov,mp4"):
        return "" if brand.strip() == _QUICKTIME_BRAND else "video/mp4"
    if name.startswith("matroska"):
        with open(file, "rb") as opened:
            return "video/webm" if b"webm" in opened.read(_HEADER_BYTES) else ""
    return ""


def write_preview(source: Path, target: Path, *, report_alive: Callable[[], None]) -> None:
    """An MP4 of a video, written whole or not at all. Raises ClipError and EnvironmentStopped."""
    with make_scratch_folder(target) as scratch:
        with (
            open_playback(source, partial(fit_size, max_long_side=MAX_LONG_SIDE, max_short_side=MAX_SHORT_SIDE)) as (
                sound,
                pieces,
            ),
            prefetch(pieces) as coming,
        ):
            movie = Mp4Writer(scratch / "video.mp4", audio_stream=sound, audio_mode=choose_audio_mode(sound))
            try:
                for piece in coming:
                    report_alive()
                    _write_piece(movie, piece)
            except OSError as error:
                raise (make_write_error(error, target) if is_disk_full(error) else error) from error
            finally:
                movie.abandon()
        move_into_place(scratch / "video.mp4", target)


def _write_piece(movie: Mp4Writer, piece: MediaItem) -> None:
    match piece:
        case PlayedFrame(seconds, image):
            movie.write_frame(seconds, image)
        case AudioPacket(seconds, packet):
            movie.write_audio_packet(seconds, packet)
        case EndOfPlayback(seconds):
            movie.finish(seconds)
