"""A writer of MP4 files that browsers play: H.264, yuv420p, index in front, any frame rate, copied or AAC audio."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import av.error
import cv2
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer

from features.utils.files import is_disk_full
from features.video.decoder import Image

AudioMode = Literal["copy", "encode", "none"]

TIME_BASE = Fraction(1, 90_000)
_AUDIO_MODE_FALLBACKS: tuple[AudioMode, ...] = ("copy", "encode", "none")
COPIED_AUDIO_CODECS = ("aac", "mp3", "opus")
"""Audio codecs that fit MP4 and that browsers play; such audio is copied."""
COPIED_AUDIO_CONTAINERS = ("mov,mp4", "matroska")
"""Containers whose headers describe the audio completely; in others each packet describes itself."""
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_BT601_COLOR_CODE = 6  # SMPTE 170M: the matrix, primaries and curve of OpenCV's conversion

X264_OPTIONS = {"preset": "superfast", "crf": "23", "profile": "high"}
"""Several times faster than real time, with small files; not meant for further editing."""


def choose_audio_mode(audio_stream: AudioStream | None) -> AudioMode:
    """Return whether an audio stream is copied, encoded or left out."""
    if audio_stream is None:
        return "none"
    is_copyable = audio_stream.codec_context.name.removesuffix("float") in COPIED_AUDIO_CODECS
    return (
        "copy" if is_copyable and audio_stream.container.format.name.startswith(COPIED_AUDIO_CONTAINERS) else "encode"
    )


@dataclass
class Mp4Writer:
    """An MP4 file that is being written. Frames must come in order of time, and so must audio packets."""

    file: Path
    audio_stream: AudioStream | None = None
    """The stream whose packets will be written."""
    audio_mode: AudioMode = "none"
    threads: int = 1
    tags: Mapping[str, str] = field(default_factory=dict)
    frame_rate: int = 30
    """Approximate frames per second, for the encoder's planning; the times of frames come from `write_frame`."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Encoder options in addition to X264_OPTIONS."""
    _container: OutputContainer | None = None
    _video: Any = None
    _audio: Any = None
    _pending: tuple[int, av.VideoFrame] | None = None
    _durations: dict[int, int] = field(default_factory=dict)
    _last_audio_seconds: float = -1e9

    def write_frame(self, seconds: float, image: Image) -> None:
        """Write a frame (H, W, 3), RGB and of even size, that appears at this second."""
        if self._container is None:
            self._open(image.shape[1], image.shape[0])
        tick = round(seconds / TIME_BASE)
        if self._pending is not None:
            tick = max(tick, self._pending[0] + 1)
            self._flush_pending(tick)
        planes = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), np.uint8)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = tick, TIME_BASE
        self._pending = (tick, frame)

    def write_audio_packet(self, seconds: float, packet: av.Packet) -> None:
        """Write an audio packet that begins at this second. Skip damaged ones and times that go back."""
        if self._container is None or self._audio is None or seconds <= self._last_audio_seconds:
            return
        self._last_audio_seconds = seconds
        try:
            if self.audio_mode == "copy":
                self._copy_audio_packet(seconds, packet)
            else:
                self._encode_audio_packet(seconds, packet)
        except (av.error.FFmpegError, ValueError) as error:
            if isinstance(error, OSError) and is_disk_full(error):
                raise

    def finish(self, seconds: float) -> None:
        """Complete the file; the last frame is shown until this second."""
        assert self._container is not None, "no frame was written"
        if self._pending is not None:
            self._flush_pending(max(round(seconds / TIME_BASE), self._pending[0] + 1))
        self._mux_video(self._video.encode(None))
        if self.audio_mode == "encode" and self._audio is not None:
            with suppress(av.error.EOFError):
                self._container.mux(self._audio.encode(None))
        self._container.close()
        self._container = None

    def abandon(self) -> None:
        """Close a file that will not be finished."""
        if self._container is not None:
            with suppress(av.error.FFmpegError, OSError):
                self._container.close()
            self._container = None

    def _open(self, width: int, height: int) -> None:
        """Open the file with the requested audio mode, or the next one that works: some headers fit no muxer."""
        for mode in _AUDIO_MODE_FALLBACKS[_AUDIO_MODE_FALLBACKS.index(self.audio_mode) :]:
            self.audio_mode = mode
            try:
                self._start(width, height)
                return
            except (av.error.FFmpegError, ValueError):
                self.abandon()
                if mode == "none":
                    raise

    def _start(self, width: int, height: int) -> None:
        self._container = av.open(os.path.abspath(self.file), "w", format="mp4", options={"movflags": "+faststart"})
        self._container.metadata.update(self.tags)
        video: Any = self._container.add_stream("libx264", rate=self.frame_rate, options=self._encoder_options())
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        context = video.codec_context
        context.time_base, context.gop_size = TIME_BASE, 60
        context.colorspace = context.color_primaries = context.color_trc = _BT601_COLOR_CODE
        context.color_range = 1  # limited
        self._video, self._audio = video, self._add_audio_stream(self._container)
        self._container.start_encoding()

    def _encoder_options(self) -> dict[str, str]:
        return {**X264_OPTIONS, "threads": str(self.threads), **self.options}

    def _add_audio_stream(self, container: OutputContainer) -> Any:
        if self.audio_stream is None or self.audio_mode == "none":
            return None
        if self.audio_mode == "copy":
            return container.add_stream_from_template(self.audio_stream)
        source = self.audio_stream.codec_context
        audio: Any = container.add_stream("aac", rate=source.sample_rate if source.sample_rate in _AAC_RATES else 48000)
        audio.layout = "mono" if source.channels == 1 else "stereo"
        return audio

    def _flush_pending(self, until: int) -> None:
        assert self._pending is not None
        tick, frame = self._pending
        self._durations[tick] = until - tick
        self._pending = None
        self._mux_video(self._video.encode(frame))

    def _mux_video(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts or 0, packet.duration)
            self._container.mux(packet)  # type: ignore[union-attr]

    def _copy_audio_packet(self, seconds: float, packet: av.Packet) -> None:
        packet.pts = packet.dts = round(seconds / packet.time_base)
        packet.stream = self._audio
        self._container.mux(packet)  # type: ignore[union-attr]

    def _encode_audio_packet(self, seconds: float, packet: av.Packet) -> None:
        shift = seconds - float((packet.pts or 0) * packet.time_base)
        for frame in self.audio_stream.codec_context.decode(packet):  # type: ignore[union-attr]
            at = float((frame.pts or 0) * (frame.time_base or 0)) + shift
            frame.pts, frame.time_base = round(at * frame.sample_rate), Fraction(1, frame.sample_rate)
            if at >= 0:
                self._container.mux(self._audio.encode(frame))  # type: ignore[union-attr]
