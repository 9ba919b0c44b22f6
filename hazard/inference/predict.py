"""Clips to predictions: stage one's own path, then the saved model's reduction and head."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from features.cache.consolidate import consolidate
from features.cache.lookup import Lookup, open_lookup
from features.cache.part_writer import PartWriter
from features.config import RunSettings
from features.extraction.engines import check_engine, run_engine
from features.types import Clip, Extracted, Failure, FeatureTrack, Outcome, Picture, WindowTracks
from features.video.windows import Windows
from hazard.data.sequences import pad, thin
from hazard.models.input_spec import ModelSource, check_spec, model_weights
from hazard.types import ClipPrediction, WindowPredictions

if TYPE_CHECKING:
    from hazard.models.predictor import Predictor


THUMBNAILS = 12
"""The longest strip that a report shows of a clip."""

AT_ONCE = 512
"""Windows that go through the head together at most."""

CLIPS_TOGETHER = 32
"""Clips that wait for each other at most."""

SECONDS_TOGETHER = 2.0
"""How long they wait."""

Found = tuple[Clip, ClipPrediction]


def predict_clips(
    clips: Sequence[Clip],
    source: ModelSource,
    opened: Callable[[], "Predictor"],
    settings: RunSettings,
    *,
    windows: Windows,
    weights: str = "auto",
    cache: Path | None = None,
    retry_failed: bool = False,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Found]:
    """Decodes, encodes and classifies each clip as the model's cache was made; undecided, in the order they finish.

    `source` is what the model must be fed; the model itself, which is slow to open, is asked for when the first clip is
    there. Long videos are cut in `windows`. Features that `cache` has are taken from it, new ones are added to it. Each
    clip comes back with the stamp of its file, where that could be read. Raises ArtefactRefused where the weights at
    hand, or the cache's features, are not those that the model was trained on.
    """
    spec = source.spec
    check_spec(spec)
    check_engine(settings)
    file = model_weights(spec, weights, hint=source.weights_file)
    hint = str(file.resolve()) if file else ""
    run = partial(
        run_engine,
        spec=spec,
        weights=file,
        settings=settings,
        with_pictures=True,
        windows=windows,
        is_stopped=is_stopped,
    )
    if cache is None:
        yield from _in_batches(run(clips), opened)
        return
    reduction = opened().reduction
    with open_lookup(cache, spec, reduction) as lookup:
        todo: list[Clip] = []
        kept = _looked_up(clips, lookup, windows, todo, retry_failed=retry_failed)
        yield from _in_batches(kept, opened, is_reduced=True)
        with PartWriter(cache, lookup.spec, weights_file=hint) as writer:
            yield from _in_batches(_written(run(todo), writer), opened)
    consolidate(cache, lookup.spec, [], weights_file=hint, reduction_of_model=reduction)


def _looked_up(
    clips: Iterable[Clip], lookup: Lookup, windows: Windows, todo: list[Clip], *, retry_failed: bool
) -> Iterator[Extracted | Failure]:
    """What the cache has; the other clips are added to `todo`."""
    for clip in clips:
        found = lookup.find(clip, windows)
        if found is None or (retry_failed and isinstance(found, Failure)):
            todo.append(clip)
        else:
            yield found


def _written(outcomes: Iterable[Outcome], writer: PartWriter) -> Iterator[Outcome]:
    for outcome in outcomes:
        if isinstance(outcome, Failure | Extracted):
            writer.add(outcome)
        yield outcome


def _in_batches(
    outcomes: Iterable[Outcome], opened: Callable[[], "Predictor"], *, is_reduced: bool = False
) -> Iterator[Found]:
    """Predictions of what comes close together, for the model is far quicker on many clips than on each."""
    waiting: list[Extracted | Failure] = []
    since = time.monotonic()

    def said() -> Iterator[Found]:
        each = predictions(waiting, opened(), is_reduced=is_reduced) if waiting else []
        yield from zip((one.clip for one in waiting), each, strict=True)

    for outcome in outcomes:
        if isinstance(outcome, Failure | Extracted):
            waiting.append(outcome)
        is_long = isinstance(outcome, Extracted) and outcome.windows is not None
        if is_long or len(waiting) >= CLIPS_TOGETHER or time.monotonic() - since > SECONDS_TOGETHER:
            yield from said()
            waiting, since = [], time.monotonic()
    yield from said()


def predictions(
    outcomes: Sequence[Extracted | Failure], predictor: "Predictor", *, is_reduced: bool = False
) -> list[ClipPrediction]:
    """What the model says of the features of clips, or why it says nothing; all windows go through it together."""
    seen = [_Seen.of(o, predictor, is_reduced) for o in outcomes if isinstance(o, Extracted)]
    if not seen:
        return [_failed(outcome) for outcome in outcomes if isinstance(outcome, Failure)]
    steps = [each for one in seen for each in one.steps]  # B of (T, D)
    probs, strange = _predict(steps, predictor)
    ends = np.cumsum([len(one.steps) for one in seen])[:-1]
    each = list(zip(seen, np.split(probs, ends), _split(strange, ends, len(seen)), strict=True))
    telling = [int(_alarm(own, predictor).argmax()) for _, own, _ in each]
    weights = _attention([one.steps[at] for one, at in zip(seen, telling, strict=True)], predictor)
    said = iter(
        one.said(own, scores, at, attention, predictor)
        for (one, own, scores), at, attention in zip(each, telling, weights, strict=True)
    )
    return [next(said) if isinstance(outcome, Extracted) else _failed(outcome) for outcome in outcomes]


def _failed(failure: Failure) -> ClipPrediction:
    clip = failure.clip
    reason = f"{failure.stage}: {failure.reason}"
    return ClipPrediction(clip.path, "failed", reason, truth=clip.label, file=str(clip.file))


@dataclass(frozen=True)
class _Seen:
    """The windows of a clip, as the model takes them."""

    source: FeatureTrack | WindowTracks
    spans: NDArray[np.float64]  # (B, 2) seconds from the clip's start
    steps: Sequence[NDArray[np.float16]]  # B of (T, D)
    times: Sequence[NDArray[np.float64]]  # B of (T,)
    pictures: Sequence[Picture]

    @classmethod
    def of(cls, outcome: Extracted, predictor: "Predictor", is_reduced: bool) -> "_Seen":
        """Reduced, and no longer than the sequences of training."""
        source = outcome.windows or outcome.tracks[0]
        plain = is_reduced or predictor.reduction is None
        features = source.features if plain else predictor.reduction.apply(source.features)  # type: ignore[union-attr]
        if isinstance(source, WindowTracks):
            spans, rows = source.spans - source.clip.start_seconds, source.rows
        else:
            spans, rows = np.array([[0.0, source.duration]]), (np.arange(len(features)),)
        kept = [each[thin(len(each), predictor.info.settings.max_steps)] for each in rows]
        return cls(source, spans, [features[r] for r in kept], [source.times[r] for r in kept], outcome.pictures)

    def said(
        self,
        probs: NDArray[np.float64],
        strange: NDArray[np.float64] | None,
        telling: int,
        attention: tuple[float, ...],
        predictor: "Predictor",
    ) -> ClipPrediction:
        """What a report needs to know; `telling` is the window that `attention` is of.

        A video is as strange as its middle window, not as its strangest: of a thousand windows some always are.
        """
        source, shown = self.source, _strip(self.pictures, self.spans, probs, predictor)
        is_partial = source.status == "partial"
        return ClipPrediction(
            source.clip.path,
            source.status,
            f"only {source.decoded_share:.0%} of the video could be decoded" if is_partial else "",
            truth=source.clip.label,
            duration=source.duration,
            windows=WindowPredictions(self.spans, probs),
            thumbnails=[picture.jpeg for picture in shown],
            thumbnail_times=[picture.seconds for picture in shown],
            attention=attention,
            attention_times=tuple(self.times[telling].tolist()) if attention else (),
            unknown_score=None if strange is None else float(np.median(strange)),
            file=str(source.clip.file),
        )


def _predict(
    steps: Sequence[NDArray[np.float16]], predictor: "Predictor"
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Probabilities (B, K) of windows, each (T, D), and how unlike training clips each is, (B,), if that is known."""
    probs, strange = [], []
    for start in range(0, len(steps), AT_ONCE):
        x, mask = pad(list(steps[start : start + AT_ONCE]))  # (b, T, D)
        probs.append(predictor.predict(x, mask))
        scores = predictor.unknown_scores(x, mask)
        strange += [] if scores is None else [scores]
    return np.concatenate(probs), np.concatenate(strange) if strange else None


def _split(
    scores: NDArray[np.float64] | None, ends: NDArray[np.int64], clips: int
) -> Sequence[NDArray[np.float64] | None]:
    return [None] * clips if scores is None else np.split(scores, ends)


def _attention(steps: Sequence[NDArray[np.float16]], predictor: "Predictor") -> list[tuple[float, ...]]:
    """How much each step of each window (T, D) weighs."""
    x, mask = pad(list(steps))
    weights = predictor.attention(x, mask)
    if weights is None:
        return [()] * len(steps)
    return [tuple(row[: len(own)].tolist()) for row, own in zip(weights, steps, strict=True)]


def _alarm(probs: NDArray[np.float64], predictor: "Predictor") -> NDArray[np.float64]:
    """(B,) how telling each window is: the probability of the positive label, or of the likeliest one."""
    positive = predictor.positive_label
    return probs[:, predictor.labels.index(positive)] if positive else probs.max(axis=1)


def _strip(
    pictures: Sequence[Picture], spans: NDArray[np.float64], probs: NDArray[np.float64], predictor: "Predictor"
) -> list[Picture]:
    """Pictures spread over the clip; of a long video those of the most telling windows too."""
    shown = {int(i) for i in thin(len(pictures), THUMBNAILS)}
    if len(spans) > 1 and pictures:
        times = np.array([picture.seconds for picture in pictures])
        middles = spans.mean(axis=1)[_alarm(probs, predictor).argsort()[::-1][:THUMBNAILS]]
        shown |= {int(np.abs(times - middle).argmin()) for middle in middles}
    return [pictures[i] for i in sorted(shown)]
