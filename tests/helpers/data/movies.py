"""Plain videos with sound, and a decoder that shows what is in the videos that the project writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from hazard.events.decision import Decision, decide_clip
from hazard.events.rule import EventRule
from hazard.types import ClipPrediction, WindowPredictions

GREY = 90
RATE = 48000
DECISION = Decision(("fight", "calm"), "fight", 0.6, (EventRule("fight", 0, 0.6, 0.5),))


def write_movie(
    path: Path,
    count: int = 50,
    *,
    times: Sequence[float] | None = None,
    size: tuple[int, int] = (160, 120),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
    sound: str = "aac",
) -> Path:
    """Write a video of grey frames whose left half gets brighter, with a tone as sound.

    It has 25 frames per second unless `times` gives the second of each frame.
    """
    times = [i / 25 for i in range(count)] if times is None else times
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25)
        stream.codec_context.thread_count = 1
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        if path.suffix != ".avi":
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        audio = file.add_stream(sound, rate=RATE) if sound else None
        for i, seconds in enumerate(times):
            image = np.full((size[1], size[0], 3), GREY, np.uint8)
            image[:, : size[0] // 2] = GREY + i % 150
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(seconds * 1000), Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if audio is not None:
            tone = 8000 * np.sin(np.arange(round((times[-1] + 0.04) * RATE)) * 0.055)
            heard = av.AudioFrame.from_ndarray(tone.astype(np.int16)[None], format="s16", layout="mono")
            heard.rate = RATE
            file.mux(audio.encode(heard))
            file.mux(audio.encode(None))
    return path


@dataclass(frozen=True)
class DecodedVideo:
    """A decoded video."""

    codec: str
    pix_fmt: str
    size: tuple[int, int]
    duration: float
    times: list[float]
    images: list[np.ndarray]
    sound: str
    sound_seconds: float
    has_index_in_front: bool

    def find_banner_times(self) -> list[float]:
        """Return the times in seconds of the frames with an orange banner at the top."""
        tops = [image[1, 4:-4].astype(int).mean(axis=0) for image in self.images]
        return [time for time, (red, _, blue) in zip(self.times, tops, strict=True) if red - blue > 60]


def inspect_video(path: Path) -> DecodedVideo:
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        heard = list(file.decode(audio=0)) if file.streams.audio else []
        file.seek(0)
        frames = list(file.decode(video=0))
        data = path.read_bytes()
        return DecodedVideo(
            codec=stream.codec_context.name,
            pix_fmt=stream.codec_context.pix_fmt,
            size=(stream.width, stream.height),
            duration=float(stream.duration * stream.time_base),
            times=[frame.time for frame in frames],
            images=[frame.to_ndarray(format="rgb24") for frame in frames],
            sound=file.streams.audio[0].codec_context.name if heard else "",
            sound_seconds=sum(frame.samples / frame.sample_rate for frame in heard),
            has_index_in_front=data.index(b"moov") < data.index(b"mdat"),
        )


def make_decided_clip(
    source: Path, probabilities: Sequence[float], *, window: float = 0.5, path: str = "", **more
) -> ClipPrediction:
    """Return a decided clip whose windows, back to back, have these probabilities of a fight."""
    starts = np.arange(len(probabilities)) * window
    spans = np.stack([starts, starts + window], axis=1)
    probs = np.stack([probabilities, 1 - np.array(probabilities)], axis=1)
    fields = {"status": "ok", "file": str(source), "duration": float(spans[-1, 1])} | more
    return decide_clip(ClipPrediction(path or source.name, windows=WindowPredictions(spans, probs), **fields), DECISION)
