"""Inside a worker process: each kind of order, done."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import av.logging
import cv2
import numpy as np

from features.errors import ClipError, UserFacingError
from features.types import Clip, Extracted, Failure, Unchanged
from features.utils.files import write_atomically
from features.video.container import opened_video
from features.video.sampling import pick_rows
from features.video.windows import pick_windows
from hazard.events.decision import Decision, decide, decision_of
from hazard.inference.predict import predictions
from hazard.inference.result_store import Stamp, open_results
from hazard.inference.settings import InferSettings
from hazard.rendering.annotate import annotate_video
from hazard.types import ClipPrediction
from hazard.web.engine.answers import answer_of, confidence_of, segments_csv
from hazard.web.engine.messages import Alive, Annotate, Look, Looked, Open, Outcome, Preview
from hazard.web.engine.model_cache import Models, Opened
from hazard.web.engine.preview import media_type, write_preview
from hazard.web.jobs.progress import Reached
from hazard.web.jobs.store import FILES, VIDEO

if TYPE_CHECKING:
    from hazard.inference.zero_shot import Namer


ALMOST = 0.99
"""How far a video is whose frames are all looked at, while its answer is written."""


class Worker:
    """Does one order at a time."""

    def __init__(self, models: Mapping[str, Path], infer: InferSettings, scratch: Path) -> None:
        av.logging.set_level(None)
        cv2.setNumThreads(1)
        self._models = Models(models, infer, scratch)

    def do(self, order: Open | Look | Annotate | Preview, alive: Alive) -> Outcome:
        """What came of it. Whatever a video makes a library raise is the video's failure, never this process's end."""
        try:
            match order:
                case Open():
                    return self._models.get(order.model, alive).facts
                case Look():
                    return self._look(order, alive)
                case Annotate():
                    self._annotate(order, alive)
                case Preview():
                    self._preview(order, alive)
            return None
        except (ClipError, UserFacingError) as error:
            return error
        except MemoryError:
            return ClipError("decode", "out of memory")
        except Exception as error:
            return ClipError("internal", f"{type(error).__name__}: {error}".splitlines()[0])

    def _look(self, order: Look, alive: Alive) -> Looked:
        told = Reached(order.folder)
        told(0.0)
        opened = self._models.get(order.model, alive)
        video = order.folder / VIDEO
        clip = Clip(path=order.name, file=video)
        meter = _Meter(told, alive, *_wanted(video, opened))
        opened.counted.told = meter.encoded
        outcome = opened.look(clip, meter.decoded)
        assert not isinstance(outcome, Unchanged)
        if isinstance(outcome, Failure):
            raise ClipError(outcome.stage, outcome.reason)
        return _written(order, self._said(outcome, opened, clip, alive), opened.judge.decision)

    def _said(self, outcome: Extracted, opened: Opened, clip: Clip, alive: Alive) -> ClipPrediction:
        decision, namer = opened.judge.decision, opened.judge.namer
        found = decide(predictions([outcome], opened.judge.predictor)[0], decision)
        return replace(found, zero_shot=_names(clip, namer, alive)) if namer and found.is_unknown else found

    def _annotate(self, order: Annotate, alive: Alive) -> None:
        told = Reached(order.folder)
        told(0.0)
        with open_results(order.folder) as results:
            kept, noted = next(iter(results)), results.noted("decision")
            names = results.noted("zero_shot")
        decision = decision_of(noted)
        clip = replace(decide(kept, decision), zero_shot=tuple((name, p) for name, p in names))
        video, target = order.folder / VIDEO, order.folder / FILES["annotated"]
        length = max(clip.duration, 1e-6)
        annotate_video(
            video, target, clip, decision=decision, alive=alive, progress=lambda seconds: told(seconds / length)
        )

    def _preview(self, order: Preview, alive: Alive) -> None:
        told = Reached(order.folder)
        told(0.0)
        write_preview(order.folder / VIDEO, order.folder / FILES["preview"], alive=alive)


class _Meter:
    """How far a video is: by its frames that were decoded, or by those that were encoded of the wanted ones."""

    def __init__(self, told: Callable[[float], None], alive: Alive, frames: int, wanted: int) -> None:
        self._told, self._alive = told, alive
        self._frames, self._wanted = max(frames, 1), max(wanted, 1)
        self._decoded = self._encoded = 0

    def decoded(self) -> None:
        self._decoded += 1
        self._tell()

    def encoded(self, rows: int) -> None:
        self._encoded += rows
        self._tell()

    def _tell(self) -> None:
        self._alive()
        self._told(min(max(self._decoded / self._frames, self._encoded / self._wanted), ALMOST))


def _wanted(video: Path, opened: Opened) -> tuple[int, int]:
    """About how many frames a video has, by its header, and how many rows will be encoded of it."""
    with opened_video(video) as (container, stream):
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        seconds = float(container.duration or 0) / 1e6
        if seconds <= 0 or not 0 < rate < 1000:
            return stream.frames, stream.frames
    spec, windows = opened.decoder.spec, opened.decoder.windows
    pick = pick_windows(spec.sampling, windows) if windows else pick_rows(spec.sampling)
    times = np.arange(0.0, min(seconds, LONGEST_SECONDS), 1 / rate)
    rows = pick(times, 0.0, seconds)
    return len(times), len(np.unique(np.concatenate([each.reshape(len(each), -1) for each in rows.values()]), axis=0))


LONGEST_SECONDS = 48 * 3600.0
"""Whatever a header says."""


def _written(order: Look, clip: ClipPrediction, decision: Decision) -> Looked:
    """All files but the record: whoever sees them sees the whole of them."""
    folder = order.folder
    with open_results(folder) as results:
        results.clear()
        results.add(clip, Stamp(-1, -1))
        results.note("decision", asdict(decision))
        results.note("zero_shot", clip.zero_shot)
    answer = answer_of(order.id, order.name, order.model, clip, decision)
    write_atomically(folder / FILES["csv"], segments_csv(clip, decision).encode("utf-8", "backslashreplace"))
    if (picture := _poster(clip)) is not None:
        write_atomically(folder / FILES["picture"], picture)
    write_atomically(folder / FILES["answer"], json.dumps(answer).encode())
    return Looked(
        clip.duration,
        clip.label,
        confidence_of(clip, decision),
        clip.is_unknown,
        clip.reason if clip.status == "partial" else "",
        media_type(folder / VIDEO),
    )


def _poster(clip: ClipPrediction) -> bytes | None:
    """The picture nearest to the middle of the likeliest event, or of the video."""
    if not clip.thumbnails:
        return None
    event = max(clip.events, key=lambda event: event.peak, default=None)
    middle = (event.start + event.end) / 2 if event else clip.duration / 2
    nearest = int(np.abs(np.array(clip.thumbnail_times) - middle).argmin())
    return clip.thumbnails[nearest]


def _names(clip: Clip, namer: "Namer", alive: Alive) -> tuple[tuple[str, float], ...]:
    """What CLIP calls it; nothing where its frames cannot be had again."""
    from hazard.inference.zero_shot import read_some

    try:
        return namer.name_frames(read_some(clip, namer.preprocessing, alive))
    except ClipError:
        return ()
