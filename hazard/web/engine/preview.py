"""The check whether browsers can play a video, and the MP4 copy that is written if they cannot."""

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
"""8-bit 4:2:0. Browsers do not play other H.264 formats."""
PLAYABLE_AUDIO_CODECS = ("aac", "mp3", "mp3float", "opus", "vorbis", "flac")
MAX_LONG_SIDE, MAX_SHORT_SIDE = 1280, 720
"""The largest size of the copy, in pixels. The page shows no more, and a larger copy would take longer to make."""
_QUICKTIME_BRAND = "qt"
_HEADER_BYTES = 4096


def find_media_type(file: Path) -> str:
    """Return `video/mp4` or `video/webm` if every current browser plays the file, else "". Raises ClipError."""
    with open_video(file) as (container, stream):
        kind = _container_media_type(file, container.format.name, container.metadata.get("major_brand", ""))
        codec = stream.codec_context
        has_playable_video = (
            codec.name.removeprefix("lib") in _playable_decoders(kind) and codec.pix_fmt in PLAYABLE_PIXEL_FORMATS
        )
        has_playable_audio = all(
            s.codec_context and s.codec_context.name in PLAYABLE_AUDIO_CODECS for s in container.streams.audio
        )
        return kind if has_playable_video and has_playable_audio else ""


def _playable_decoders(kind: str) -> tuple[str, ...]:
    """Return the playable decoders of a media type. FFmpeg names some after their library: libdav1d decodes AV1."""
    return (*PLAYABLE_CODECS.get(kind, ()), *(("dav1d",) if kind else ()))


def _container_media_type(file: Path, name: str, brand: str) -> str:
    if name.startswith("mov,mp4"):
        return "" if brand.strip() == _QUICKTIME_BRAND else "video/mp4"
    if name.startswith("matroska"):
        with open(file, "rb") as handle:
            return "video/webm" if b"webm" in handle.read(_HEADER_BYTES) else ""
    return ""


def write_preview(source: Path, target: Path, *, report_alive: Callable[[], None]) -> None:
    """Write an MP4 copy of a video, completely or not at all. Raises ClipError and RuntimeEnvironmentError."""
    with make_scratch_folder(target) as scratch:
        with (
            open_playback(source, partial(fit_size, max_long_side=MAX_LONG_SIDE, max_short_side=MAX_SHORT_SIDE)) as (
                audio_stream,
                items,
            ),
            prefetch(items) as ready_items,
        ):
            writer = Mp4Writer(
                scratch / "video.mp4", audio_stream=audio_stream, audio_mode=choose_audio_mode(audio_stream)
            )
            try:
                for item in ready_items:
                    report_alive()
                    _write_item(writer, item)
            except OSError as error:
                raise (make_write_error(error, target) if is_disk_full(error) else error) from error
            finally:
                writer.abandon()
        move_into_place(scratch / "video.mp4", target)


def _write_item(writer: Mp4Writer, item: MediaItem) -> None:
    match item:
        case PlayedFrame(seconds, image):
            writer.write_frame(seconds, image)
        case AudioPacket(seconds, packet):
            writer.write_audio_packet(seconds, packet)
        case EndOfPlayback(seconds):
            writer.finish(seconds)
